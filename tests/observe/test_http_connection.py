"""A connection between a transport that is none and a handler: what it reads, and when it waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ipvsproxy.observe.http_connection import Connections, HttpConnection, Later, Limits, Response
from tests.observe.http_clients import Events

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = Limits(request_timeout=60, idle_timeout=60)
REQUEST = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"


class Client(asyncio.Transport):
    """A client in memory. One that is `slow` takes nothing before `take`, one that `resets` is gone unseen."""

    def __init__(self, *, slow: bool = False, resets: bool = False) -> None:
        super().__init__()
        self.slow = slow
        self.resets = resets
        self.answers: list[bytes] = []
        self.reading = True
        self.ended = False
        self.gone = False
        self.making: list[Callable[[], None]] = []
        self.connection = HttpConnection(self.handle, LIMITS, (Connections(8),), self.defer, Events().log)
        self.connection.connection_made(self)

    def handle(self, path: str) -> Response | Later:
        hello = Response(200, b"hello")
        return Later(lambda: hello) if path == "/later" else hello

    def defer(self, make: Callable[[], Response], use: Callable[[Response], None]) -> None:
        self.making.append(lambda: use(make()))

    def take(self) -> None:
        self.slow = False
        self.connection.resume_writing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answers.append(bytes(data))
        if self.slow:
            self.connection.pause_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write_eof(self) -> None:
        if self.resets:
            raise OSError("Transport endpoint is not connected")
        self.ended = True

    def is_closing(self) -> bool:
        return self.gone

    def abort(self) -> None:
        self.gone = True

    close = abort


class Clocked(asyncio.SelectorEventLoop):
    """A loop whose time the test moves, in seconds."""

    now = 0.0

    def time(self) -> float:
        return self.now


async def settled() -> None:
    """Give the loop the rounds for all that it can do now."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_pipelined_requests_are_answered_one_in_a_round_and_nothing_is_read_meanwhile() -> None:
    async def story() -> None:
        client = Client()
        client.connection.data_received(REQUEST * 3)
        assert (len(client.answers), client.reading) == (1, False)
        await settled()
        assert (len(client.answers), client.reading) == (3, True)

    asyncio.run(story())


def test_a_client_that_takes_no_answer_gets_no_other_and_is_not_read_from() -> None:
    async def story() -> None:
        client = Client(slow=True)
        client.connection.data_received(REQUEST * 3)
        await settled()
        assert (len(client.answers), client.reading) == (1, False)
        client.take()
        await settled()
        assert (len(client.answers), client.reading) == (3, True)

    asyncio.run(story())


def test_after_a_refusal_the_connection_stays_for_what_the_client_still_sends() -> None:
    async def story() -> None:
        client = Client()
        client.connection.data_received(b"garbage\r\n\r\n")
        client.connection.data_received(REQUEST)
        await settled()
        assert [answer[:12] for answer in client.answers] == [b"HTTP/1.1 400"]
        assert (client.ended, client.reading, client.gone) == (True, True, False)

    asyncio.run(story())


def test_a_client_that_resets_before_it_is_refused_is_forgotten() -> None:
    async def story() -> None:
        client = Client(resets=True)
        client.connection.data_received(b"garbage\r\n\r\n")
        assert client.gone

    asyncio.run(story())


def test_the_time_of_a_request_begins_with_the_answer_before_it() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clocked)
        client = Client()
        gone = []
        loop.now = 50
        client.connection.data_received(REQUEST + b"GET")
        for loop.now in (59, 61, 109, 111):
            await settled()
            gone.append(client.gone)
        assert gone == [False, False, False, True]

    with asyncio.Runner(loop_factory=Clocked) as runner:
        runner.run(story())


LATER = b"GET /later HTTP/1.1\r\nHost: node\r\n\r\n"


def test_what_is_behind_an_answer_that_is_made_elsewhere_waits_for_it() -> None:
    async def story() -> None:
        client = Client()
        client.connection.data_received(LATER + REQUEST)
        await settled()
        assert (len(client.answers), client.reading) == (0, False)
        client.making.pop()()
        await settled()
        assert (len(client.answers), client.reading) == (2, True)

    asyncio.run(story())


def test_a_client_that_is_gone_gets_no_answer_that_was_made_for_it() -> None:
    async def story() -> None:
        client = Client()
        client.connection.data_received(LATER)
        client.abort()
        client.making.pop()()
        assert client.answers == []

    asyncio.run(story())


def test_an_answer_that_is_not_made_in_time_costs_the_connection() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clocked)
        client = Client()
        client.connection.data_received(LATER)
        gone = []
        for loop.now in (29, 31):
            await settled()
            gone.append(client.gone)
        assert gone == [False, True]

    with asyncio.Runner(loop_factory=Clocked) as runner:
        runner.run(story())


def test_a_client_that_takes_an_answer_while_another_is_made_is_not_read_from() -> None:
    async def story() -> None:
        client = Client(slow=True)
        client.connection.data_received(REQUEST + LATER)
        client.take()
        await settled()
        assert (len(client.answers), client.reading) == (1, False)
        client.making.pop()()
        await settled()
        assert (len(client.answers), client.reading) == (2, True)

    asyncio.run(story())
