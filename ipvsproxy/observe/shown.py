"""One virtual server as `ipvsproxy dump` shows it: as it should be, as it is, and what becomes of its clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.observe import schema
from ipvsproxy.observe.desired import real_server
from ipvsproxy.observe.differences import compare_real_servers, compare_virtual_server, state_of
from ipvsproxy.observe.schema import RealServerState, VirtualServerState
from ipvsproxy.observe.words import flag_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import (
        RealServerStatus,
        Statistics,
        Traffic,
        VirtualServer,
        VirtualServerKey,
    )
    from ipvsproxy.observe.desired import DesiredVirtualServer, Place


class KernelStatistics(NamedTuple):
    """The kernel's counters, as far as they were asked for; while it is not `counting`, they stay as they are."""

    virtual_servers: Mapping[VirtualServerKey, Statistics] = {}
    real_servers: Mapping[VirtualServerKey, Mapping[Place, Statistics]] = {}
    counting: bool = True


class About(NamedTuple):
    """What there is to say of a virtual server with its address and its elements, and of its real servers."""

    sets: list[str]
    differences: list[str]
    failures: list[schema.Failure]
    of_real_servers: Mapping[Place, list[str]]


class Pair(NamedTuple):
    """A virtual server as it should be, and as it is; `comparable` if what should be is known."""

    key: VirtualServerKey
    desired: DesiredVirtualServer | None
    found: VirtualServer | None
    statuses: Mapping[Place, RealServerStatus]
    comparable: bool

    @property
    def drains(self) -> bool:
        """Whether real servers that leave keep their connections."""
        return self.desired is not None and self.desired.drains

    def has_endpoint(self, address: Address) -> bool:
        """Say whether it has a real server of the address, or an endpoint that is none."""
        places = self.statuses.keys() | (self.desired.endpoints.keys() if self.desired else set())
        return any(place[0] == address for place in places)

    def differences(self) -> Iterator[tuple[Place | None, str]]:
        """Yield what differs, each sentence with the real server that it is about, None if it is about none."""
        if not self.comparable:
            return
        wanted = self.desired.virtual_server if self.desired else None
        yield from ((None, sentence) for sentence in compare_virtual_server(wanted, self.found))
        if self.desired and wanted and self.found:
            yield from compare_real_servers(wanted, self.found, self.desired.excluded, drains=self.drains)

    def shown(
        self,
        elements: Collection[SetElement],
        about: About,
        statistics: KernelStatistics,
        endpoint: Address | None,
    ) -> schema.VirtualServer:
        """Return what is shown of it, of its real servers those of the `endpoint` if one is asked for.

        `elements` are all that the kernel has in the sets.
        """
        key, desired = self.key, self.desired
        reported = desired.reported if desired else None
        counted = statistics.virtual_servers.get(key) if self.found else None
        of_places = statistics.real_servers.get(key, {})
        counting = statistics.counting
        places = self.statuses.keys() | (desired.endpoints.keys() if desired else set())
        return schema.VirtualServer(
            desired.service if desired else None,
            reported.port_name if reported else None,
            reported.kind if reported else None,
            reported.traffic_policy if reported else None,
            reported.redirect if reported else None,
            reported.source_list if reported else None,
            reported.without_endpoints if reported else None,
            reported.drain_timeout_seconds if reported else None,
            format_address(key.address),
            key.port,
            key.protocol.name,
            self._state(elements),
            _balancing(desired.virtual_server) if desired else None,
            _balancing(self.found) if self.found else None,
            _statistics(counted, counting=counting),
            about.sets,
            about.differences,
            about.failures,
            [
                self._shown_real_server(
                    place,
                    _statistics(of_places.get(place), counting=counting),
                    about.of_real_servers.get(place, []),
                )
                for place in sorted(places)
                if endpoint in {None, place[0]}
            ],
        )

    def _state(self, elements: Collection[SetElement]) -> VirtualServerState:
        if self.found is None:
            return VirtualServerState.MISSING
        if self.desired is None and self.comparable:
            return VirtualServerState.UNWANTED
        if SetElement(FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS, self.key) in elements:
            return VirtualServerState.DROPPING
        if SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, self.key) in elements:
            return VirtualServerState.REFUSING
        serves = any(server.weight for server in self.found.real_servers)
        return VirtualServerState.SERVING if serves else VirtualServerState.REFUSING

    def _shown_real_server(
        self, place: Place, statistics: schema.Statistics | None, differences: list[str]
    ) -> schema.RealServer:
        desired, status = self.desired, self.statuses.get(place)
        endpoint = desired.endpoints.get(place) if desired else None
        wanted = real_server(endpoint) if endpoint and endpoint.serves else None
        if status and not self.comparable:
            state = RealServerState.SERVING if status.real_server.weight else RealServerState.DRAINING
        else:
            state = state_of(wanted, status.real_server if status else None, drains=self.drains)
        drain = desired.draining.get(place) if desired and state is RealServerState.DRAINING else None
        return schema.RealServer(
            format_address(place[0]),
            place[1],
            state,
            endpoint.reason if endpoint else None,
            drain.seconds if drain else None,
            drain.seconds_left if drain else None,
            schema.DesiredRealServer(wanted.weight, wanted.upper_threshold) if wanted else None,
            _actual(status, statistics) if status else None,
            differences,
        )


def _actual(status: RealServerStatus, statistics: schema.Statistics | None) -> schema.ActualRealServer:
    return schema.ActualRealServer(
        status.real_server.weight,
        status.real_server.upper_threshold,
        status.active_connections,
        status.inactive_connections,
        status.persistent_connections,
        statistics,
    )


def _balancing(virtual_server: VirtualServer) -> schema.Balancing:
    return schema.Balancing(
        virtual_server.scheduler, flag_names(virtual_server.flags), virtual_server.timeout
    )


def _statistics(counted: Statistics | None, *, counting: bool) -> schema.Statistics | None:
    if counted is None:
        return None
    return schema.Statistics(_traffic(counted.total), _traffic(counted.per_second) if counting else None)


def _traffic(traffic: Traffic) -> schema.Traffic:
    return schema.Traffic(*traffic)
