"""The last lines of the log, kept in memory for whoever comes too late to read the log itself: `dump --bundle`."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

import msgspec

from ipvsproxy.observe.schema import SCHEMA_VERSION, Schema

if TYPE_CHECKING:
    from structlog.typing import EventDict

KEPT: Final = 500
# A line with a long traceback or a long list is kept by its fixed fields alone.
LONGEST: Final = 16_384  # bytes


class RecentLines(Schema, frozen=True):
    """The last log lines of the agent, the oldest first; `dropped` came before them and are forgotten."""

    schema_version: int
    events: list[msgspec.Raw]
    dropped: int


class RecentEvents:
    """The last lines of level info and above, as JSON, whatever the log's own format and level are.

    One thread after the other adds, as the log's pipeline is called by any; any may ask.
    """

    def __init__(self, kept: int = KEPT) -> None:
        """Keep so many lines."""
        self._lines: collections.deque[bytes] = collections.deque(maxlen=kept)
        self._seen = 0

    def hear(self, event: EventDict) -> None:
        """Keep a line, whose values are such as JSON has."""
        line = msgspec.json.encode(event)
        if len(line) > LONGEST:
            fixed = {name: event[name] for name in ("time", "level", "event") if name in event}
            line = msgspec.json.encode({**fixed, "shortened": f"{len(line)} bytes, the log has them"})
        self._seen += 1
        self._lines.append(line)

    def answer(self) -> RecentLines:
        """Return the lines, for the agent's socket."""
        lines = list(self._lines)
        return RecentLines(SCHEMA_VERSION, [msgspec.Raw(line) for line in lines], self._seen - len(lines))
