"""Traffic by Service, from the kernel's counters of virtual servers.

The kernel counts for each virtual server from its creation on; a Service's port has one at each of its addresses, which
come and go. What is counted here is the growth between two looks, so that a Service's counters never go down. What a
virtual server counts between the last look and its deletion is lost.

A look is one dump, for which the kernel and Python take a few µs for each virtual server.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.ipvs import Traffic
from ipvsproxy.model.objects import AddressKind, ObjectKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ipvsproxy.model.ipvs import Statistics, VirtualServerKey
    from ipvsproxy.model.objects import Service
    from ipvsproxy.plan.services import PlannedVirtualServer
    from ipvsproxy.plan.view import Planned


class Series(NamedTuple):
    """What has counters of its own: the port of a Service, or with empty names all Services that have none."""

    namespace: str
    service: str
    port: str


OTHERS = Series("", "", "")


class ServiceTraffic:
    """Counters for at most so many Services; whoever has them keeps them while it exists. From any thread."""

    def __init__(
        self,
        limit: int,
        read: Callable[[], Mapping[VirtualServerKey, Statistics]],
        planned: Callable[[], Planned],
        service_of: Callable[[ObjectKey], Service | None],
    ) -> None:
        """Begin with none. `read` is a dump of the kernel's counters, `planned` says which are of which Service."""
        self._limit = limit
        self._read = read
        self._planned = planned
        self._service_of = service_of
        self._lock = threading.Lock()
        self._seen: dict[VirtualServerKey, Traffic] = {}
        self._named: set[ObjectKey] = set()
        self._totals: dict[Series, Traffic] = {}

    def samples(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """Look at the kernel, and yield all counters: the metric's name, its labels' values, the count.

        A kernel that can't be read leaves them as they were.
        """
        with self._lock:
            with contextlib.suppress(OSError):
                self._look()
            totals = dict(self._totals)
        for series, total in totals.items():
            yield "ipvsproxy_service_connections_total", series, total.connections
            yield "ipvsproxy_service_packets_total", (*series, "in"), total.packets_in
            yield "ipvsproxy_service_packets_total", (*series, "out"), total.packets_out
            yield "ipvsproxy_service_bytes_total", (*series, "in"), total.bytes_in
            yield "ipvsproxy_service_bytes_total", (*series, "out"), total.bytes_out

    def _look(self) -> None:
        planned, found = self._planned(), self._read()
        ours = {key: found[key].total for key in planned.owners if key in found}
        self._name(planned, ours)
        ports = _Ports(self._service_of)
        growth: dict[Series, list[Traffic]] = {}
        for key, total in ours.items():
            owner, virtual_server = planned.owners[key], planned.virtual_servers.get(key)
            if virtual_server is None:
                continue
            series = OTHERS
            if owner in self._named:
                series = Series(owner.namespace, owner.name, ports.name(owner, virtual_server))
            growth.setdefault(series, []).append(_growth(self._seen.get(key), total))
        for series, parts in growth.items():
            self._totals[series] = _sum([self._totals.get(series, Traffic()), *parts])
        self._seen = ours

    def _name(self, planned: Planned, found: Mapping[VirtualServerKey, Traffic]) -> None:
        """Choose who has counters: who has them already, and then those with the most connections."""
        self._named.intersection_update(planned.owners.values())
        self._totals = {
            series: total
            for series, total in self._totals.items()
            if series == OTHERS or ObjectKey(*series[:2]) in self._named
        }
        free = self._limit - len(self._named)
        if free <= 0:
            return
        connections: Counter[ObjectKey] = Counter()
        for key, total in found.items():
            if (owner := planned.owners[key]) not in self._named:
                connections[owner] += total.connections
        by_rank = sorted(connections, key=lambda service: (-connections[service], service))
        self._named.update(by_rank[:free])


class _Ports:
    """The names of Services' ports, each Service looked up once."""

    def __init__(self, service_of: Callable[[ObjectKey], Service | None]) -> None:
        self._service_of = service_of
        self._services: dict[ObjectKey, Service | None] = {}

    def name(self, owner: ObjectKey, planned: PlannedVirtualServer) -> str:
        """Return the name of the port that the virtual server is of; its number if it has none."""
        if owner not in self._services:
            self._services[owner] = self._service_of(owner)
        service, key = self._services[owner], planned.virtual_server.key
        is_node_port = planned.kind is AddressKind.NODE_PORT
        for port in service.ports if service else ():
            if key[1:] == (port.protocol, port.node_port if is_node_port else port.port):
                return port.name or str(port.port)
        return str(key.port)


def _growth(before: Traffic | None, now: Traffic) -> Traffic:
    """Return what came on top; a virtual server that counts less than before is a new one."""
    if before is None or any(new < old for new, old in zip(now, before, strict=True)):
        return now
    return Traffic(*(new - old for new, old in zip(now, before, strict=True)))


def _sum(parts: list[Traffic]) -> Traffic:
    return Traffic(*map(sum, zip(*parts, strict=True)))
