"""Real servers that drain: how long they may, and which of them are done.

That a real server drains is the kernel's own record (weight 0 and not desired). Only since when is kept here: an agent
that starts over gives those that it finds the full time again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.plan.diff import draining_real_servers
from ipvsproxy.plan.view import Drain, DrainKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import RealServer, RealServerStatus, VirtualServer, VirtualServerKey
    from ipvsproxy.plan.services import PlannedVirtualServer


class _Draining(NamedTuple):
    """The real servers of one virtual server that drain, and since when; for at most `timeout` seconds each."""

    timeout: float
    since: Mapping[tuple[Address, int], float]


class Drains:
    """The real servers that drain, by virtual server."""

    def __init__(self) -> None:
        """Begin with none."""
        self._draining: dict[VirtualServerKey, _Draining] = {}

    @property
    def virtual_servers(self) -> list[VirtualServerKey]:
        """The virtual servers with real servers that drain."""
        return list(self._draining)

    def all(self) -> Mapping[DrainKey, Drain]:
        """Return every real server that drains."""
        return {
            DrainKey(key, *server): Drain(since, since + draining.timeout)
            for key, draining in self._draining.items()
            for server, since in draining.since.items()
        }

    def note(
        self,
        key: VirtualServerKey,
        planned: PlannedVirtualServer | None,
        found: VirtualServer | None,
        now: float,
    ) -> None:
        """Take in a virtual server's state: who began to drain, and who stopped."""
        wanted = planned.virtual_server if planned else None
        # As planned means that nothing drains; most virtual servers are, and then both are one value.
        leaving = draining_real_servers(wanted, found) if found and found is not wanted else []
        if not leaving:
            self._draining.pop(key, None)
            return
        known = self._draining.get(key)
        since = known.since if known else {}
        self._draining[key] = _Draining(
            planned.drain_timeout if planned else 0.0,
            {server[:2]: since.get(server[:2], now) for server in leaving},
        )

    def done(
        self, key: VirtualServerKey, statuses: Iterable[RealServerStatus], now: float
    ) -> list[RealServer]:
        """Return the draining real servers of the virtual server without connections or past their deadline."""
        draining = self._draining.get(key)
        if draining is None:
            return []
        return [
            status.real_server
            for status in statuses
            if (since := draining.since.get(status.real_server[:2])) is not None
            and (
                since + draining.timeout <= now
                or not (status.active_connections or status.inactive_connections)
            )
        ]
