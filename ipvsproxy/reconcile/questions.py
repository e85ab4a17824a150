"""Questions to the loop from other threads, which wait for its answers."""

from __future__ import annotations

import queue
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Answer = TypeVar("Answer")


class Questions(Generic[Answer]):
    """Questions of one kind; true while any waits to be taken."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """Begin with none; `wake` has the loop look."""
        self._wake = wake
        self._waiting: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()

    def __bool__(self) -> bool:
        """Say whether any question waits."""
        return not self._waiting.empty()

    def ask(self, timeout: float) -> Answer:
        """Return the loop's answer, or raise its error; TimeoutError without one within `timeout` seconds."""
        question: Future[Answer] = Future()
        self._waiting.put(question)
        self._wake()
        return question.result(timeout)

    def take(self) -> Iterator[Future[Answer]]:
        """Yield the questions that wait, to be answered; the loop alone takes them."""
        while self:
            yield self._waiting.get_nowait()
