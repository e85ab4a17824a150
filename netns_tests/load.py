"""Requests that go on while something else happens, and a count of what became of them."""

from __future__ import annotations

import enum
import threading
from collections import Counter
from typing import TYPE_CHECKING, Self

from netns_tests.deadline import await_that
from netns_tests.emulation import SLOWNESS
from netns_tests.traffic import Connection, NoAnswerError, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns_tests.topology import Host
    from netns_tests.traffic import Answer, Target

_PAUSE = (
    0.002  # seconds between two requests of a client, so that many clients leave the processor to others too
)


class Style(enum.Enum):
    """How a client of the load uses connections."""

    EACH_ITS_OWN = enum.auto()
    KEPT_ALIVE = enum.auto()


class Load:
    """Clients in threads, each asking again and again from the start to the end of a `with` block."""

    def __init__(
        self, origin: Host, target: Target, style: Style, clients: int = 3, pause: float = _PAUSE
    ) -> None:
        """Prepare the clients, which wait so many seconds between two requests; they start with the block.

        An emulated processor gets longer pauses: it would be busy with the clients alone.
        """
        self.failures: list[str] = []
        self._pause = pause * SLOWNESS
        self._origin = origin
        self._target = target
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._answered = 0
        self._period = 0
        self._answers_of_period: Counter[str] = Counter()
        ask = self._ask_on_new_connections if style is Style.EACH_ITS_OWN else self._ask_on_kept_connections
        self._threads = [threading.Thread(target=ask, name=f"client {number}") for number in range(clients)]

    def __enter__(self) -> Self:
        """Start asking."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let every client finish the request that it is in."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        """How many requests were answered so far."""
        return self._answered

    def go_on(self, requests: int) -> None:
        """Return once so many requests are answered that begin from now on."""
        self.answers_from_now(requests)

    def answers_from_now(self, requests: int) -> Counter[str]:
        """Return who answers that many requests which begin from now on."""
        with self._guard:
            self._period += 1
            self._answers_of_period = Counter()
        await_that(
            lambda: self._answers_of_period.total() >= requests,
            f"the load on {self._target} gets {requests} answers; failures: {self.failures[:3]}",
        )
        with self._guard:
            return Counter(self._answers_of_period)

    def _ask_on_new_connections(self) -> None:
        while not self._stopping.wait(self._pause):
            self._attempt(lambda: request(self._origin, self._target))

    def _ask_on_kept_connections(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = Connection(self._origin, self._target)
            except NoAnswerError as error:
                self.failures.append(str(error))
                continue
            with connection:
                while connection.open and not self._stopping.wait(self._pause):
                    self._attempt(connection.ask)

    def _attempt(self, ask: Callable[[], Answer]) -> None:
        period = self._period
        try:
            server = ask().server
        except NoAnswerError as error:
            self.failures.append(str(error))
            return
        with self._guard:
            self._answered += 1
            if period == self._period:
                self._answers_of_period[server] += 1
