"""When to look at the kernel's counters: just after the kernel has brought them up to date.

It does so every 2 seconds and a little more, whatever happens in between. Looks at other moments would find one count
too few or too many in their interval now and then: nothing, or double.
"""

from __future__ import annotations

import math

PERIOD = 2.0
"""Seconds between two counts of the kernel, at least (net/netfilter/ipvs/ip_vs_est.c)."""

# How far the kernel's next count may be from where it is expected, and how often to see whether it was, in seconds.
_SLACK = 0.25
_STEP = 0.02

# Looking takes one part of so many of the time, at most.
_PARTS = 4


class LookTimes:
    """Says when the next look is due, from the time, and what the kernel has counted for the whole node.

    Looks are at the first count after the interval. While nothing goes through the node no count can be seen: then
    they are at the interval.
    """

    def __init__(self, interval: float) -> None:
        """Take the seconds from one look to the next, PERIOD or more; the first look is at the next count."""
        self.pause = 0.0
        """How long to wait before `due` is asked again, in seconds."""
        self._interval = interval
        self._looked_at = -math.inf
        self._from = -math.inf
        self._until = math.inf
        self._seen: str | None = None
        self._at_last_look: str | None = None

    def due(self, now: float, counted: str) -> bool:
        """Say whether to look now; `counted` is the node's counters, as any text that changes with them."""
        if now < self._from:
            self.pause = self._from - now
            return False
        if self._seen is None:
            self._seen = counted
            idle = counted == self._at_last_look
            self._until = now + (2 * _SLACK if idle else PERIOD + _SLACK)
        if counted == self._seen and now < self._until:
            self.pause = _STEP
            return False
        self._seen, self._at_last_look = None, counted
        self.pause = self._interval - _SLACK
        self._looked_at, self._from = now, now + self.pause
        return True

    def took(self, seconds: float) -> None:
        """Say how long the look took: the next one is later if that is a large part of the interval."""
        self._from = max(self._from, self._looked_at + _PARTS * seconds)
