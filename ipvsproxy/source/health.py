"""Whether what is followed is in reach: for each resource, when it was last heard of, and what is wrong if it is not.

Each resource is followed by one thread, which writes; whoever asks reads what is true at that moment.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class WatchState(NamedTuple):
    """What is known about one followed resource.

    `connected` is False before the first answer and since a failure, whose reason `error` has. `seconds_since_contact`
    is the time since the last answer, event or bookmark; None before the first, and where silence says nothing: a
    directory is silent while nobody changes it. `connections` counts the requests that were answered, `failures` those
    that were not, or broke off. `remedy` is what to do about the error, "" where only its words help.
    """

    resource: str
    connected: bool
    seconds_since_contact: float | None
    error: str | None
    connections: int
    failures: int
    remedy: str = ""


class WatchRecord:
    """Where the thread that follows one resource writes how it goes."""

    def __init__(self, resource: str, clock: Callable[[], float]) -> None:
        """Begin unconnected; `clock` is monotonic, in seconds."""
        self._resource = resource
        self._clock = clock
        self._connected = False
        self._last_contact: float | None = None
        self._error: str | None = None
        self._remedy = ""
        self._connections = 0
        self._failures = 0

    def connected(self) -> None:
        """Note that the resource is in reach: a request was answered."""
        self._connected, self._error, self._remedy = True, None, ""
        self._connections += 1

    def heard(self) -> None:
        """Note that something came, if only to say that there is nothing new."""
        self._last_contact = self._clock()

    def failed(self, reason: str, remedy: str = "") -> None:
        """Note that the resource is out of reach, and why, and what to do about it if that is known."""
        self._connected, self._error, self._remedy = False, reason, remedy
        self._failures += 1

    def state(self) -> WatchState:
        """Return what is known at this moment."""
        last = self._last_contact
        return WatchState(
            self._resource,
            self._connected,
            None if last is None else self._clock() - last,
            self._error,
            self._connections,
            self._failures,
            self._remedy,
        )


class SourceHealth:
    """The records of all resources that a source follows. `states` may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without resources; `clock` is monotonic, in seconds."""
        self._clock = clock
        self._records: list[WatchRecord] = []

    def follow(self, resource: str) -> WatchRecord:
        """Return the record of a resource that a thread is about to follow."""
        record = WatchRecord(resource, self._clock)
        self._records.append(record)
        return record

    def states(self) -> list[WatchState]:
        """Return what is known about each resource, in the order in which they were added."""
        return [record.state() for record in self._records]
