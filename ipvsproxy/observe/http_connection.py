"""One HTTP connection: requests come in, a handler answers them, and no client can make the agent wait or grow.

h11 reads and writes HTTP, asyncio moves the bytes. A request has a time and a size that it may take; answers that the
client does not read are not followed by others; pipelined requests are answered one in each round of the loop, so that
other clients have theirs between them. An answer that takes long is made in another thread.
"""

from __future__ import annotations

import asyncio
import email.utils
import http
import re
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar, cast

import h11

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

Made = TypeVar("Made")

_METHODS: Final = (b"GET", b"HEAD")

# What comes before the path in a request that is meant for a proxy (RFC 9112, section 3.2.2).
_ORIGIN: Final = re.compile(rb"^https?://[^/]*", re.IGNORECASE)


# How much a client may send after its last answer, in bytes: it is read only so that the answer arrives.
_MOST_THROWN_AWAY: Final = 1 << 20


class Response(NamedTuple):
    """What a handler answers; a HEAD request gets all but the body."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


class Later(NamedTuple):
    """An answer that takes long: `make` is called in another thread, one after the other, and may raise anything."""

    make: Callable[[], Response]


# Answers a GET request by its path, without the query; None if there is nothing under that path.
Handler: TypeAlias = "Callable[[str], Response | Later | None]"

# Has a function called in another thread, and its result given to the second one, in the loop's.
Defer: TypeAlias = "Callable[[Callable[[], Response], Callable[[Response], None]], None]"


class Limits(NamedTuple):
    """What clients may take of the server; times in seconds, sizes in bytes.

    `request_timeout` is for one request from the connection's or its own first byte to its last, and again for the
    client to take the answer; `making_timeout` is for an answer that another thread makes. `idle_timeout` is between an
    answer and the next request. `request_size` is for the head and for the body each. Beyond `connections` open ones at
    one listener, or `all_connections` at all together, the one that has been without an answer for longest is closed
    for each new one.
    """

    request_timeout: float = 5.0
    making_timeout: float = 30.0
    idle_timeout: float = 120.0
    request_size: int = 16_384
    connections: int = 32
    all_connections: int = 256


class Connections:
    """Open connections in the order of their last answers, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        """Begin with none."""
        self._limit = limit
        self._in_order: dict[HttpConnection, None] = {}

    def use(self, connection: HttpConnection) -> None:
        """Take a connection in, or note that it got an answer."""
        self._in_order.pop(connection, None)
        if len(self._in_order) >= self._limit:
            next(iter(self._in_order)).abort()
        self._in_order[connection] = None

    def remove(self, connection: HttpConnection) -> None:
        """Forget a connection, if it is there."""
        self._in_order.pop(connection, None)

    def abort(self) -> None:
        """Close all of them at once."""
        for connection in list(self._in_order):
            connection.abort()


class HttpConnection(asyncio.Protocol):
    """Answers the requests of one client, in the loop's thread."""

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle
    _request: h11.Request

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        counted: tuple[Connections, ...],
        defer: Defer,
        log: FilteringBoundLogger,
    ) -> None:
        """Prepare; `counted` is where the connection counts while it is open, `defer` makes what takes long."""
        self._handler = handler
        self._limits = limits
        self._counted = counted
        self._defer = defer
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.request_size)
        self._body_size = 0
        self._idle = False
        self._blocked = False
        self._making = False
        self._ending = False
        self._thrown_away = 0

    def abort(self) -> None:
        """Close the connection at once, whatever is under way."""
        self._transport.abort()
        self._leave()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(self._limits.request_timeout, self.abort)
        for connections in self._counted:
            connections.use(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - clients may leave as they like
        """Clean up."""
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Go on with a request, or begin one."""
        if self._ending:
            self._thrown_away += len(data)
            if self._thrown_away > _MOST_THROWN_AWAY:
                self.abort()
            return
        if self._idle:
            self._idle = False
            self._set_timer(self._limits.request_timeout)
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        """Refuse half a request; whole ones were answered before their end was read. The transport closes then."""
        if not self._ending:
            self._http.receive_data(b"")
            self._advance()

    def pause_writing(self) -> None:
        """Answer nothing more before the client has taken what there is."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Go on where `pause_writing` left off."""
        self._blocked = False
        self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        """Go through what has come in, up to the end of one request."""
        if self._blocked or self._making or self._ending or self._transport.is_closing():
            return
        try:
            while self._read_event():
                pass
        except h11.RemoteProtocolError as error:
            self._refuse(http.HTTPStatus(error.error_status_hint))

    def _read_event(self) -> bool:
        """Take one thing that the client sent; say whether there may be another for the same request."""
        event = self._http.next_event()
        if isinstance(event, h11.Request):
            self._request = event
            self._body_size = 0
            return True
        if isinstance(event, h11.Data):
            self._body_size += len(event.data)
            if self._body_size <= self._limits.request_size:
                return True
            self._refuse(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif isinstance(event, h11.EndOfMessage):
            self._answer(self._request)
        elif isinstance(event, h11.ConnectionClosed):
            self._transport.close()
        else:
            self._wait_for_more()
        return False

    def _wait_for_more(self) -> None:
        self._transport.resume_reading()
        begun = self._http.their_state is not h11.IDLE or self._http.trailing_data[0]
        if not begun and not self._idle:
            self._idle = True
            self._set_timer(self._limits.idle_timeout)

    def _answer(self, request: h11.Request) -> None:
        # Who sends requests faster than they are answered must not fill the memory with them.
        self._transport.pause_reading()
        response = self._respond(request)
        if isinstance(response, Later):
            self._making = True
            self._set_timer(self._limits.making_timeout)
            self._defer(partial(self._called, response.make, request), self._made)
        else:
            self._finish(response)

    def _made(self, response: Response) -> None:
        """Take an answer from the other thread; the client may be gone."""
        self._making = False
        if not self._transport.is_closing():
            self._finish(response)

    def _finish(self, response: Response) -> None:
        """Send the answer to the request, and go on with the next one."""
        self._send(response, with_body=self._request.method != b"HEAD")
        for connections in self._counted:
            connections.use(self)
        if self._http.our_state is not h11.DONE:
            self._end()
            return
        self._http.start_next_cycle()
        self._loop.call_soon(self._advance)

    def _respond(self, request: h11.Request) -> Response | Later:
        if request.method not in _METHODS:
            allow = ("Allow", b", ".join(_METHODS).decode())
            return _plain(http.HTTPStatus.METHOD_NOT_ALLOWED, allow)
        return self._called(
            lambda: self._handler(_path(request)) or _plain(http.HTTPStatus.NOT_FOUND), request
        )

    def _called(self, make: Callable[[], Made], request: h11.Request) -> Made | Response:
        """Call what makes an answer, from any thread."""
        try:
            return make()
        except Exception:  # noqa: BLE001 - whatever it is, the client shall know that it need not wait
            self._log.error("no answer for an HTTP client", path=_path(request), exc_info=True)
            return _plain(http.HTTPStatus.INTERNAL_SERVER_ERROR)

    def _refuse(self, status: http.HTTPStatus) -> None:
        """Answer what is no request that can be read on behind."""
        self._send(_plain(status, ("Connection", "close")))
        self._end()

    def _send(self, response: Response, *, with_body: bool = True) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("X-Content-Type-Options", "nosniff"),
            ("Date", email.utils.formatdate(usegmt=True)),
            *response.headers,
        ]
        reason = http.HTTPStatus(response.status).phrase.encode()
        head = h11.Response(status_code=response.status, headers=headers, reason=reason)
        events = [head, *([h11.Data(data=response.body)] if with_body else []), h11.EndOfMessage()]
        self._transport.write(b"".join(self._http.send(event) or b"" for event in events))
        self._set_timer(self._limits.request_timeout)

    def _end(self) -> None:
        """Close when the client does, so that what it still sends does not cost it the answer by a reset."""
        self._ending = True
        self._transport.resume_reading()
        try:
            self._transport.write_eof()
        except OSError:
            # The client has reset the connection.
            self.abort()

    def _set_timer(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.abort)

    def _leave(self) -> None:
        self._timer.cancel()
        for connections in self._counted:
            connections.remove(self)


def _path(request: h11.Request) -> str:
    return _ORIGIN.sub(b"", request.target.partition(b"?")[0]).decode("latin-1") or "/"


def _plain(status: http.HTTPStatus, *headers: tuple[str, str]) -> Response:
    return Response(status, f"{status.phrase}\n".encode(), headers=headers)
