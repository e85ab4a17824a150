"""The agent's unix socket, for root only: a request is one line of JSON, the answer one JSON document, then the end.

A request names a command: `{"command": "report"}`. Each connection has a thread of its own, so that a client that says
nothing, or does not read its answer, holds up nobody else; those beyond MAXIMUM_CONNECTIONS are closed at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ipvsproxy.errors import IpvsProxyError, NotPermittedError
from ipvsproxy.observe.recent import RecentLines
from ipvsproxy.observe.schema import SCHEMA_VERSION, AgentReport, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

Answer = TypeVar("Answer", bound=msgspec.Struct)

SOCKET_NAME = "agent.sock"
REPORT_COMMAND = "report"
EVENTS_COMMAND = "events"
CONFIG_COMMAND = "config"
RESYNC_COMMAND = "resync"
MAXIMUM_CONNECTIONS = 8
MAXIMUM_REQUEST = 4096  # bytes

# How long one side waits for the other to say or take something, in seconds. The agent makes a large cluster's report
# before its first byte.
REQUEST_TIMEOUT = 2.0
ANSWER_TIMEOUT = 15.0

# How long to wait before another try to make the socket where there was no room for it. In seconds.
LISTEN_PAUSE = 10.0
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a file system that is full, which may pass."""

# Between two tries to accept, after the first failed: too many open files, for the most part. In seconds.
_ACCEPT_PAUSE = 1.0

# What msgspec raises for what is no JSON, or other JSON than is expected.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class AgentNotRunningError(IpvsProxyError):
    """Nobody listens on the socket."""


class AgentSilentError(IpvsProxyError):
    """Somebody listens on the socket, and there is no report all the same."""


class OtherSchemaError(IpvsProxyError):
    """The answer is of another version of the schema, or no report at all."""


class Request(msgspec.Struct, frozen=True):
    """What a client asks for."""

    command: str


class _Head(msgspec.Struct, frozen=True, rename="camel"):
    """What a Refusal and an answer of any schema version have in common."""

    schema_version: int
    error: str = ""


class AgentSocket:
    """Answers requests, in threads of its own, from its making until `stop`."""

    def __init__(
        self,
        directory: Path,
        commands: Mapping[str, Callable[[], msgspec.Struct]],
        log: FilteringBoundLogger,
        request_timeout: float = REQUEST_TIMEOUT,
        listen_pause: float = LISTEN_PAUSE,
    ) -> None:
        """Listen on `agent.sock` in the directory, once it has room; the socket of an agent that died is replaced.

        `commands` has for each command the function that makes the answer; it is called in a connection's thread, and
        may raise TimeoutError. IpvsProxyError if there can be no socket.
        `listen_pause` is how many seconds pass between two tries while the directory has no room.
        """
        self._path = directory / SOCKET_NAME
        self._commands = commands
        self._log = log
        self._request_timeout = request_timeout
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listen_pause = listen_pause
        self._listener = _listen(self._path)
        self._acceptor = threading.Thread(target=self._accept, name="agent socket", daemon=True)
        self._acceptor.start()

    @property
    def is_there(self) -> bool:
        """Whether somebody can connect to the socket."""
        return self._listener is not None

    def stop(self) -> None:
        """End at once: connections are closed, whatever they wait for, and the socket is removed."""
        with self._lock:
            self._stopping.set()
            for connection in self._connections:
                _shut_down(connection)
            listener = self._listener
        if listener is not None:
            self._path.unlink(missing_ok=True)
            _shut_down(listener)
        self._acceptor.join()
        if listener is not None:
            listener.close()

    def _await_room(self) -> socket.socket | None:
        """Return the socket to accept connections on, None if there was none until `stop`."""
        if self._listener is not None:
            return self._listener
        while not self._stopping.wait(self._listen_pause):
            with self._lock, contextlib.suppress(IpvsProxyError):
                if not self._stopping.is_set() and (listener := _listen(self._path)):
                    self._listener = listener
                    self._log.info("run directory has room again", directory=str(self._path.parent))
                    return listener
        return None

    def _accept(self) -> None:
        listener = self._await_room()
        while listener is not None and not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if not self._stopping.is_set():
                    self._log.warning("connection to the agent's socket not accepted", reason=str(error))
                    self._stopping.wait(_ACCEPT_PAUSE)
                continue
            with self._lock:
                admitted = not self._stopping.is_set() and len(self._connections) < MAXIMUM_CONNECTIONS
                if admitted:
                    self._connections.add(connection)
            if admitted:
                serve = threading.Thread(
                    target=self._serve, args=(connection,), name="agent socket connection", daemon=True
                )
                serve.start()
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(self._request_timeout)
            with connection.makefile("rb") as requests:
                request = requests.readline(MAXIMUM_REQUEST)
            connection.settimeout(ANSWER_TIMEOUT)
            connection.sendall(self._answer(request))
        except OSError as error:
            self._log.debug("client of the agent's socket left without an answer", reason=str(error))
        finally:
            with self._lock:
                self._connections.discard(connection)
                connection.close()

    def _answer(self, line: bytes) -> bytes:
        try:
            request = msgspec.json.decode(line, type=Request)
        except _UNREADABLE as error:
            return _refusal(f"the request is not understood: {error}")
        command = self._commands.get(request.command)
        if command is None:
            return _refusal(f"unknown command {request.command!r}, known are {', '.join(self._commands)}")
        try:
            return msgspec.json.encode(command())
        except TimeoutError:
            return _refusal("the agent is busy, try again in a moment")
        except Exception:  # noqa: BLE001 - whatever it is, the client shall know that it need not wait
            self._log.error(
                "no answer for a client of the agent's socket", command=request.command, exc_info=True
            )
            return _refusal("the agent failed to make its answer, its log says why")


def ask_report(directory: Path, timeout: float = ANSWER_TIMEOUT) -> AgentReport:
    """Return the report of the agent that has this run directory.

    AgentNotRunningError, AgentSilentError, OtherSchemaError, or NotPermittedError.
    """
    return ask(directory, REPORT_COMMAND, AgentReport, timeout)


def ask_events(directory: Path, timeout: float = ANSWER_TIMEOUT) -> list[dict[str, object]]:
    """Return the last lines of that agent's log, the oldest first, of level info and above; errors as `ask_report`."""
    lines = ask(directory, EVENTS_COMMAND, RecentLines, timeout).events
    return [msgspec.json.decode(line, type=dict[str, object]) for line in lines]


def ask(directory: Path, command: str, answer_type: type[Answer], timeout: float = ANSWER_TIMEOUT) -> Answer:
    """Return what the agent that has this run directory answers to a command; errors as `ask_report`."""
    path = directory / SOCKET_NAME
    answer = _ask(path, msgspec.json.encode(Request(command)) + b"\n", timeout)
    if not answer:
        raise AgentSilentError(f"the agent ended the connection to {path} without an answer")
    try:
        head = msgspec.json.decode(answer, type=_Head)
        if head.schema_version != SCHEMA_VERSION:
            raise OtherSchemaError(
                f"{path}: the agent answers in schema version {head.schema_version}, this program reads "
                f"{SCHEMA_VERSION}: use the ipvsproxy of the agent's version"
            )
        if head.error:
            raise AgentSilentError(head.error)
        return msgspec.json.decode(answer, type=answer_type)
    except _UNREADABLE as error:
        raise OtherSchemaError(f"{path}: the answer is no report of an agent: {error}") from error


def _ask(path: Path, request: bytes, timeout: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(1 << 20), b""))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise AgentNotRunningError(f"the agent is not running, nobody listens on {path}") from error
        except PermissionError as error:
            raise NotPermittedError(f"{path}: {error.strerror}: run as root") from error
        except TimeoutError as error:
            raise AgentSilentError(f"the agent has not answered on {path} for {timeout:g} s") from error
        except OSError as error:
            raise AgentSilentError(
                f"the agent does not answer on {path}: {error.strerror or error}"
            ) from error


def _listen(path: Path) -> socket.socket | None:
    """Return a socket that listens at the path, None if there is no room for it at present."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A socket is bound with the mode of its descriptor, so nobody else can ever connect.
        os.fchmod(listener.fileno(), 0o600)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(MAXIMUM_CONNECTIONS)
    except OSError as error:
        listener.close()
        if error.errno in NO_ROOM:
            return None
        raise IpvsProxyError(
            f"{path}: {error.strerror or error}; choose another directory with --run-directory"
        ) from error
    return listener


def _refusal(error: str) -> bytes:
    return msgspec.json.encode(Refusal(SCHEMA_VERSION, error))


def _shut_down(connection: socket.socket) -> None:
    """Wake whoever waits on the socket; what was shut down by the other side already is no error."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
