"""Real servers that drain: how long they may, and which of them are done.

That a real server drains is the kernel's own record (weight 0 and not desired). Only since when is kept here: an agent
that starts over gives those that it finds the full time again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.plan.diff import draining_real_servers
from ipvsproxy.plan.view import Drain, DrainEnd, DrainKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import RealServer, RealServerStatus, VirtualServer, VirtualServerKey
    from ipvsproxy.plan.services import PlannedVirtualServer


class _Draining(NamedTuple):
    """The real servers of one virtual server that drain, and since when; for at most `timeout` seconds each."""

    timeout: float
    since: Mapping[tuple[Address, int], float]


class DrainNews(NamedTuple):
    """Which drains began, and which ended and how, since the last look."""

    began: list[DrainKey]
    ended: list[tuple[DrainKey, DrainEnd]]


class Drains:
    """The real servers that drain, by virtual server. `count` is how many there are."""

    def __init__(self) -> None:
        """Begin with none."""
        self._draining: dict[VirtualServerKey, _Draining] = {}
        self._over: dict[DrainKey, DrainEnd] = {}
        self._news = DrainNews([], [])
        self.count = 0

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
        known = self._draining.get(key)
        if not leaving and known is None:
            return
        before = known.since if known else {}
        since = {server[:2]: before.get(server[:2], now) for server in leaving}
        self._tell_difference(key, before, since, wanted)
        if since:
            self._draining[key] = _Draining(planned.drain_timeout if planned else 0.0, since)
        else:
            del self._draining[key]

    def take_news(self) -> DrainNews:
        """Return what began and what ended since the last call."""
        news, self._news = self._news, DrainNews([], [])
        return news

    def _tell_difference(
        self,
        key: VirtualServerKey,
        before: Mapping[tuple[Address, int], float],
        after: Mapping[tuple[Address, int], float],
        wanted: VirtualServer | None,
    ) -> None:
        self.count += len(after) - len(before)
        self._news.began.extend(DrainKey(key, *place) for place in after if place not in before)
        gone = [place for place in before if place not in after]
        serving = {server[:2] for server in wanted.real_servers} if gone and wanted else ()
        for place in gone:
            drain = DrainKey(key, *place)
            over = self._over.pop(drain, DrainEnd.DELETED)
            self._news.ended.append((drain, DrainEnd.RETURNED if place in serving else over))

    def done(
        self, key: VirtualServerKey, statuses: Iterable[RealServerStatus], now: float
    ) -> list[RealServer]:
        """Return the draining real servers of the virtual server without connections or past their deadline."""
        draining = self._draining.get(key)
        if draining is None:
            return []
        done = []
        for status in statuses:
            server = status.real_server
            since = draining.since.get(server[:2])
            if since is None:
                continue
            if not (status.active_connections or status.inactive_connections):
                end = DrainEnd.CONNECTIONS_ENDED
            elif since + draining.timeout <= now:
                end = DrainEnd.TIMED_OUT
            else:
                continue
            self._over[DrainKey(key, *server[:2])] = end
            done.append(server)
        return done
