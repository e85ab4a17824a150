"""Real servers that drain: how long they may, and which of them are done.

That a real server drains is the kernel's own record (weight 0 and not desired). Only the deadline is kept here: an
agent that starts over gives those that it finds the full time again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.plan.diff import draining_real_servers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import RealServer, RealServerStatus, VirtualServer, VirtualServerKey


class DrainKey(NamedTuple):
    """One real server of one virtual server."""

    virtual_server: VirtualServerKey
    address: Address
    port: int


class Drains:
    """The deadlines of the real servers that drain, by virtual server."""

    def __init__(self, timeout: float) -> None:
        """Set how many seconds a real server may keep its connections."""
        self._timeout = timeout
        self._deadlines: dict[VirtualServerKey, dict[tuple[Address, int], float]] = {}

    @property
    def virtual_servers(self) -> list[VirtualServerKey]:
        """The virtual servers with real servers that drain."""
        return list(self._deadlines)

    def deadlines(self) -> Mapping[DrainKey, float]:
        """Return every deadline, in the seconds of the reconciler's clock."""
        return {
            DrainKey(key, *server): deadline
            for key, servers in self._deadlines.items()
            for server, deadline in servers.items()
        }

    def note(
        self, key: VirtualServerKey, wanted: VirtualServer | None, found: VirtualServer | None, now: float
    ) -> None:
        """Take in a virtual server's state: who began to drain gets a deadline, who stopped loses it."""
        # As planned means that nothing drains; most virtual servers are, and then both are one value.
        draining = draining_real_servers(wanted, found) if found and found is not wanted else []
        if not draining:
            self._deadlines.pop(key, None)
            return
        known = self._deadlines.get(key, {})
        self._deadlines[key] = {server[:2]: known.get(server[:2], now + self._timeout) for server in draining}

    def done(
        self, key: VirtualServerKey, statuses: Iterable[RealServerStatus], now: float
    ) -> list[RealServer]:
        """Return the draining real servers of the virtual server without connections or past their deadline."""
        deadlines = self._deadlines.get(key, {})
        return [
            status.real_server
            for status in statuses
            if (deadline := deadlines.get(status.real_server[:2])) is not None
            and (deadline <= now or not (status.active_connections or status.inactive_connections))
        ]
