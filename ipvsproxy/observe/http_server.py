"""One HTTP server for all that the agent answers on TCP: listeners come and go, each without a trace in the others.

Sockets are bound and given up in the thread that asks for it, so an address in use is known at once and a port is free
at once; the thread `http` accepts connections and answers. An event loop fits there: all its work is waiting for
clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import family, format_address, format_endpoint
from ipvsproxy.observe.http_connection import Connections, HttpConnection, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.observe.http_connection import Handler, Response

# How long `HttpServer.stop` waits for a handler that is under way, in seconds.
STOP_TIMEOUT = 0.3

# Between two tries to accept, after the first failed: too many open files, for the most part. In seconds.
_ACCEPT_PAUSE = 1.0

_BACKLOG = 128


class Place(NamedTuple):
    """Where a listener listens; an address of None or of zeros is every address of both families."""

    address: Address | None
    port: int

    def __str__(self) -> str:
        """Return `ADDRESS:PORT`, or `port PORT` for all addresses."""
        return format_endpoint(self.address, self.port) if self.address else f"port {self.port}"


class Listener:
    """A socket that the server answers on."""

    def __init__(self, place: Place, handler: Handler, connections: Connections) -> None:
        """Bind the socket and listen; OSError if that is impossible."""
        self.handler = handler
        self.connections = connections
        self.closed = False
        self.socket = _listen(place)
        self.socket.settimeout(0)

    @property
    def port(self) -> int:
        """The port; the kernel's choice if the one asked for was 0."""
        port: int = self.socket.getsockname()[1]
        return port

    def close(self) -> None:
        """Stop listening, at once; from any thread. The listener's connections are closed soon."""
        self.closed = True
        # This alone frees the port and wakes the server's thread, which owns the descriptor.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class HttpServer:
    """Answers HTTP requests, in a thread of its own, from its making until `stop`."""

    def __init__(self, log: FilteringBoundLogger, limits: Limits = Limits()) -> None:  # noqa: B008 - an immutable value
        """Start the thread; it has nothing to do before `listen`."""
        self._log = log
        self._limits = limits
        self._connections = Connections(limits.all_connections)
        self._tasks: set[asyncio.Task[None]] = set()
        self._deferred: queue.SimpleQueue[tuple[Callable[[], Response], Callable[[Response], None]]] = (
            queue.SimpleQueue()
        )
        self._maker: threading.Thread | None = None
        self._stopping = asyncio.Event()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    def listen(self, place: Place, handler: Handler) -> Listener:
        """Answer on another socket from now on, from any thread; OSError if the address can't be had.

        The handler is called in the server's thread, for every listener's clients: what takes long it answers `Later`,
        which is made in a thread named `http answers`.
        """
        listener = Listener(place, handler, Connections(self._limits.connections))
        try:
            self._loop.call_soon_threadsafe(self._serve, listener)
        except RuntimeError:
            # The loop is closed: the agent is ending, and nobody needs an answer any more.
            listener.socket.close()
        return listener

    def stop(self) -> None:
        """Close all listeners and connections, whatever clients wait for."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        with self._runner:
            # What runs besides is cancelled at the end.
            self._runner.run(self._wait())

    async def _wait(self) -> None:
        await self._stopping.wait()

    def _serve(self, listener: Listener) -> None:
        task = self._loop.create_task(self._accept(listener))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: Listener) -> None:
        try:
            while not listener.closed:
                try:
                    client, _ = await self._loop.sock_accept(listener.socket)
                    await self._loop.connect_accepted_socket(lambda: self._connection(listener), client)
                except OSError as error:
                    if not listener.closed:
                        self._log.warning("HTTP connection not accepted", reason=reason(error))
                        await asyncio.sleep(_ACCEPT_PAUSE)
        finally:
            listener.socket.close()
            listener.connections.abort()

    def _connection(self, listener: Listener) -> HttpConnection:
        counted = (listener.connections, self._connections)
        return HttpConnection(listener.handler, self._limits, counted, self._defer, self._log)

    def _defer(self, make: Callable[[], Response], use: Callable[[Response], None]) -> None:
        if not self._maker:
            # One that hangs must not keep the process from ending.
            self._maker = threading.Thread(target=self._make, name="http answers", daemon=True)
            self._maker.start()
        self._deferred.put((make, use))

    def _make(self) -> None:
        while True:
            make, use = self._deferred.get()
            try:
                self._loop.call_soon_threadsafe(use, make())
            except RuntimeError:
                # The loop is closed, as in `listen`.
                return


class ConfiguredListener:
    """A listener at the address that a setting gives; one that can't be had is reported once and tried again.

    For any thread.
    """

    def __init__(
        self,
        server: HttpServer,
        setting: str,
        place: Place | None,
        handler: Handler,
        log: FilteringBoundLogger,
    ) -> None:
        """Listen if it is possible; never if the place is None. `setting` names it to people."""
        self._server = server
        self._place = place
        self._handler = handler
        self._log = log.bind(setting=setting)
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._failed = False
        self.retry()

    @property
    def port(self) -> int | None:
        """The port that is listened on, None if there is none at the moment."""
        return self._listener.port if self._listener else None

    def move(self, place: Place | None) -> None:
        """Listen there from now on, and no longer where it was; no connection outlives a move."""
        with self._lock:
            if place == self._place:
                return
            if self._listener:
                self._listener.close()
            self._place, self._listener, self._failed = place, None, False
        self.retry()

    def retry(self) -> None:
        """Listen, unless that is done already."""
        with self._lock:
            if self._place and not self._listener:
                self._try(self._place)

    def _try(self, place: Place) -> None:
        try:
            self._listener = self._server.listen(place, self._handler)
        except OSError as error:
            if not self._failed:
                self._log.error("HTTP server not listening", address=str(place), reason=reason(error))
            self._failed = True
        else:
            if self._failed:
                self._log.info("HTTP server listening after all", address=str(place))


def reason(error: OSError) -> str:
    """Return the kernel's words for why an address can't be listened on, without Python's."""
    return os.strerror(error.errno) if error.errno else str(error)


def _listen(place: Place) -> socket.socket:
    if place.address is not None and any(place.address):
        host = format_address(place.address), place.port
        return socket.create_server(host, family=family(place.address), backlog=_BACKLOG)
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", place.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    return socket.create_server(("", place.port), backlog=_BACKLOG)
