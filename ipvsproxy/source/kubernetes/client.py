"""Requests to the API server: configuration, credentials, timeouts, and every failure as one kind of error.

The official client reads the configuration (a kubeconfig file or the pod's service account), keeps the credentials
fresh and sends the requests. Its two calls below the public surface, `param_serialize` and `call_api`, hand out the
response as a stream; both are here only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http
import http.client
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import urllib3

from ipvsproxy import __version__
from ipvsproxy.errors import UsageError
from ipvsproxy.source.kubernetes.messages import read_status
from ipvsproxy.source.kubernetes.reach import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ipvsproxy.source.kubernetes.reach import Reach

JSON: Final = "application/json"

_CHUNK_BYTES: Final = 1 << 18
_STATUS_BYTES: Final = 1 << 16

# The kernel gives a connection up after about a minute without an answer: to probes while it is idle (tcp(7),
# TCP_KEEPIDLE in seconds), to data otherwise (TCP_USER_TIMEOUT in milliseconds).
_SOCKET_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
)

# Answers that the API server gives while all is well.
_OF_THE_API: Final = frozenset({http.HTTPStatus.CONFLICT, http.HTTPStatus.GONE})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to wait, in seconds, and how many objects to ask for at once.

    A connection attempt may take `connect`, the answer to a list `answer`. A watch is asked to end after at most
    `watch`, so one on which nothing came for `silence`, which is longer, is dead. Pauses between attempts are random:
    the first up to `first_pause`, then up to twice as long each time, at most `longest_pause`. The addresses of all
    nodes are listed every `node_addresses`, on average.
    """

    connect: float = 5
    answer: float = 65
    watch: float = 300
    silence: float = 330
    first_pause: float = 1
    longest_pause: float = 30
    page: int = 500
    node_addresses: float = 600


class ApiError(Exception):
    """A request failed; the message is the reason, without a full stop.

    `status` is the HTTP status of the answer, or that of an ERROR event; 0 when there was no proper answer. `causes`
    are the machine-readable reasons that the answer gives for it, such as "NamespaceTerminating".
    """

    def __init__(self, reason: str, status: int = 0, causes: frozenset[str] = frozenset()) -> None:
        """Say why."""
        super().__init__(reason)
        self.status = status
        self.causes = causes


class ApiServer:
    """The API server, as the configuration names it. All methods may be called from any thread."""

    def __init__(
        self, kubeconfig: Path | None, limits: Limits, *, master: str = "", reach: Reach | None = None
    ) -> None:
        """Read the configuration, the pod's own without `kubeconfig`; UsageError names what can't be used.

        `master` is the server's address in place of the kubeconfig's. Without a kubeconfig no credentials are sent
        there, and none of the pod's. `reach` is told where the server is, by the configuration and by the connections.
        """
        self._master = master
        self._kubeconfig = kubeconfig
        self._limits = limits
        self._reach = reach
        self._no_connection = f"no connection within {limits.connect:g} s"
        self._renewal = threading.Lock()
        self._lock = threading.Lock()
        self._open: set[urllib3.BaseHTTPResponse] = set()
        self._stopping = False
        self._client = self._load()

    @property
    def url(self) -> str:
        """The URL that all paths are appended to."""
        return str(self._client.configuration.host)

    @contextlib.contextmanager
    def get(
        self, path: str, query: Mapping[str, str], silence: float, accept: str = JSON
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a GET request and give the response to be read; ApiError for anything but a 200.

        `silence` is how many seconds may pass without a byte, before the answer and in it. What breaks while the
        response is read is an ApiError too. After a 401 the next request uses credentials that were read anew.
        `accept` is the header of that name.
        """
        query_params, headers = list(query.items()), {"Accept": accept}
        with self._exchange(
            silence, "GET", path, query_params=query_params, header_params=headers
        ) as response:
            yield response

    def post(self, path: str, document: Mapping[str, object]) -> None:
        """Create an object; ApiError as for `get`, with status 409 if there is one of that name."""
        headers = {"Accept": JSON, "Content-Type": JSON}
        with self._exchange(
            self._limits.answer, "POST", path, header_params=headers, body=document
        ) as response:
            # Read to its end, the connection can be used again.
            response.drain_conn()

    def stop(self) -> None:
        """Break off all requests: those under way end soon with an ApiError, and so does each later one."""
        with self._lock:
            self._stopping = True
            for response in self._open:
                # What is no longer connected has nothing left to break off.
                with contextlib.suppress(OSError, RuntimeError, ValueError):
                    response.shutdown()

    @contextlib.contextmanager
    def _exchange(
        self, silence: float, method: str, path: str, **details: object
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request and give the response that grants it."""
        client = self._client
        with self._doubting(), self._errors(silence):
            request = _request(client, method, path, **details)
            timeouts = (self._limits.connect, silence)
            response = client.call_api(*request, _request_timeout=timeouts).response
            with self._registered(response), self._used(response):
                if response.status == http.HTTPStatus.UNAUTHORIZED:
                    self._renew(client)
                if response.status not in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
                    raise _refusal(response)
                yield response

    def _renew(self, refused: Any) -> None:  # noqa: ANN401 - the client ships no usable types
        """Read configuration and credentials anew, unless another thread has done so since."""
        with self._renewal:
            if self._client is refused:
                try:
                    self._client = self._load()
                except UsageError as error:
                    raise _not_renewed(error) from error

    @contextlib.contextmanager
    def _registered(self, response: urllib3.BaseHTTPResponse) -> Iterator[None]:
        """Let `stop` reach the response while it is read, and close it afterwards."""
        try:
            with self._lock:
                if self._stopping:
                    raise ApiError("the agent is stopping")
                self._open.add(response)
            yield
        finally:
            with self._lock:
                self._open.discard(response)
            response.close()

    def _used(self, response: urllib3.BaseHTTPResponse) -> AbstractContextManager[None]:
        """Let the other end of the connection count as the API server's as long as the response is read."""
        if self._reach is None:
            return contextlib.nullcontext()
        peer, connected = None, getattr(response.connection, "sock", None)
        # A connection that broke already has no other end.
        with contextlib.suppress(OSError):
            if isinstance(connected, socket.socket):
                peer = address_of(connected.getpeername())
        return self._reach.used(peer)

    @contextlib.contextmanager
    def _doubting(self) -> Iterator[None]:
        """Have it looked up again where the server is when a request fails, unless the API itself says why."""
        try:
            yield
        except Exception as error:
            if self._reach and not (isinstance(error, ApiError) and error.status in _OF_THE_API):
                self._reach.doubt()
            raise

    @contextlib.contextmanager
    def _errors(self, silence: float) -> Iterator[None]:
        """Turn what the libraries raise into an ApiError with a readable reason."""
        from kubernetes.client import ApiException  # noqa: PLC0415 - half a second and 30 MB: only with an API server

        began = time.monotonic()
        try:
            yield
        except urllib3.exceptions.ReadTimeoutError as error:
            # ETIMEDOUT, the kernel's own verdict, arrives as a timeout too.
            if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
                raise ApiError(_innermost(error)) from error
            # And so does a TLS handshake that takes longer than the connection may.
            in_handshake = time.monotonic() - began < silence
            raise ApiError(
                self._no_connection if in_handshake else f"nothing came for {silence:g} s"
            ) from error
        except urllib3.exceptions.NewConnectionError as error:
            raise ApiError(_innermost(error)) from error
        except urllib3.exceptions.ConnectTimeoutError:
            raise ApiError(self._no_connection) from None
        except ApiException as error:
            # Only for TLS: the type and the message on a line each.
            raise ApiError(str(error.reason).rpartition("\n")[2]) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(_innermost(error)) from error

    def _load(self) -> Any:  # noqa: ANN401 - the client ships no usable types
        """Return a client as the configuration says."""
        from kubernetes.client import ApiClient, Configuration  # noqa: PLC0415 - as above

        configuration = Configuration(host="", retries=False, socket_options=list(_SOCKET_OPTIONS))
        if self._kubeconfig:
            _configure(configuration, self._kubeconfig)
        elif not self._master:
            _configure_in_pod(configuration)
        if self._master:
            _override_host(configuration, with_scheme(self._master, configuration.host))
        if self._reach:
            named = (urlsplit(url).hostname for url in (configuration.host, configuration.proxy) if url)
            self._reach.go_by([host for host in named if host])
        client = ApiClient(configuration)
        client.user_agent = f"ipvsproxy/{__version__}"
        return client


def lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield each line as soon as it is complete, without its newline; what follows the last newline is dropped."""
    rest = b""
    while chunk := response.read1(_CHUNK_BYTES):
        *complete, rest = (rest + chunk).split(b"\n")
        yield from complete


def _request(client: Any, method: str, path: str, **details: object) -> Any:  # noqa: ANN401 - ships no usable types
    """Return a request with the credentials, which the client renews for it if they run out by now."""
    try:
        return client.param_serialize(method, path, **details, auth_settings=["BearerToken"])
    except Exception as error:
        raise _not_renewed(error) from error


def _not_renewed(error: Exception) -> ApiError:
    return ApiError(f"credentials can't be renewed: {_one_line(error)}", http.HTTPStatus.UNAUTHORIZED)


def _refusal(response: urllib3.BaseHTTPResponse) -> ApiError:
    status = read_status(response.read(_STATUS_BYTES))
    reason = status.message or response.reason or f"HTTP status {response.status}"
    return ApiError(reason, response.status, status.causes)


def _innermost(error: BaseException) -> str:
    """Return what began it in words, such as "Connection refused"."""
    while not isinstance(error, http.client.IncompleteRead):
        cause = error.__cause__ or error.__context__
        if cause is None:
            break
        error = cause
    else:
        return "the connection broke off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _override_host(configuration: Any, url: str) -> None:  # noqa: ANN401 - the client ships no usable types
    """Send requests to this server; the kubeconfig's loader puts its own back whenever it renews credentials."""
    renew = configuration.refresh_api_key_hook

    def renew_and_override(renewed: Any) -> None:  # noqa: ANN401 - as above
        if renew:
            renew(renewed)
        renewed.host = url

    configuration.host = url
    configuration.refresh_api_key_hook = renew_and_override


def with_scheme(master: str, of_kubeconfig: str) -> str:
    """Return the URL, for an address without a scheme with that of the kubeconfig's, or with http as kube-proxy."""
    if "://" in master:
        return master
    return f"{of_kubeconfig.partition('://')[0] or 'http'}://{master}"


def _configure_in_pod(configuration: Any) -> None:  # noqa: ANN401 - the client ships no usable types
    """Configure what the kubelet gives each pod; UsageError if it is not there."""
    from kubernetes import config  # noqa: PLC0415 - half a second and 30 MB: only with an API server

    try:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call] # ships no types
    except (config.ConfigException, OSError) as error:
        raise UsageError(
            f"no service account of a pod: {_one_line(error)} Outside of a pod, give --kubeconfig FILE"
        ) from error


def _configure(configuration: Any, kubeconfig: Path) -> None:  # noqa: ANN401 - the client ships no usable types
    """Configure what the file says; UsageError names the file and what is wrong with it."""
    import yaml  # noqa: PLC0415 - comes with the next one
    from kubernetes import config  # noqa: PLC0415 - half a second and 30 MB: only with an API server

    try:
        # The loader takes a file that is missing for one without contents.
        kubeconfig.open("rb").close()
        config.load_kube_config(  # type: ignore[no-untyped-call] # ships no types
            str(kubeconfig), client_configuration=configuration, persist_config=False
        )
    except OSError as error:
        # It may also be another file that this one names.
        place = f"kubeconfig {kubeconfig}"
        if error.filename is not None and str(error.filename) != str(kubeconfig):
            place += f": {error.filename}"
        raise UsageError(f"{place}: {error.strerror or error}") from error
    except config.ConfigException as error:
        raise UsageError(f"kubeconfig {kubeconfig}: {_one_line(error)}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"kubeconfig {kubeconfig}: is no YAML: {_one_line(error)}") from error
    except Exception as error:
        # YAML of another shape makes the loader trip in many ways.
        raise UsageError(
            f"kubeconfig {kubeconfig}: is no kubeconfig: it has no mapping with lists of clusters, contexts and users, "
            f"and a current-context ({_one_line(error)})"
        ) from error
    if not configuration.host:
        raise UsageError(f"kubeconfig {kubeconfig}: the cluster of its current context has no server")
