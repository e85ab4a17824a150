"""What should be in the kernel beside what is there.

Pure: from the agent's report and the kernel's tables to what `ipvsproxy dump` shows. Without a report, and until the
agent is synced, there is nothing to compare with: what is shown then is what the kernel has of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import AddressKind
from ipvsproxy.observe import schema
from ipvsproxy.observe.desired import desired_virtual_servers, of_service, real_server
from ipvsproxy.observe.differences import (
    compare_address,
    compare_element,
    compare_table,
    compare_virtual_server,
    state_of,
)
from ipvsproxy.observe.schema import RealServerState, VirtualServerState
from ipvsproxy.observe.words import by_address, by_element, by_key, flag_names
from ipvsproxy.plan.desired import elements_of
from ipvsproxy.plan.ownership import guards, is_ours

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ipvsproxy.kernel.interface import FirewallState
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import RealServerStatus, VirtualServer, VirtualServerKey
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.observe.desired import DesiredVirtualServer, Place


class KernelTables(NamedTuple):
    """What the kernel has: everybody's virtual servers without their real servers, addresses, the nftables table."""

    virtual_servers: Mapping[VirtualServerKey, VirtualServer]
    bound: AbstractSet[Address]
    elsewhere: AbstractSet[Address]
    firewall: FirewallState

    def owns(self, key: VirtualServerKey) -> bool:
        """Say whether the virtual server is ours: its address is on the dummy interface, or it is on record."""
        return is_ours(key, self.bound, self.firewall.elements)


class _Pair(NamedTuple):
    """A virtual server as it should be, and as it is."""

    key: VirtualServerKey
    desired: DesiredVirtualServer | None
    found: VirtualServer | None
    statuses: Mapping[Place, RealServerStatus]

    @property
    def drains(self) -> bool:
        """Whether real servers that leave keep their connections."""
        return self.desired is not None and self.desired.drains


class Comparison:
    """The report beside the kernel's tables: one Service of the report, or all of it and what nothing asks for."""

    def __init__(
        self, report: schema.AgentReport | None, tables: KernelTables, service: ObjectKey | None = None
    ) -> None:
        """Gather what there is to compare."""
        self._report = of_service(report, service) if report and service else report
        self._tables = tables
        self._comparable = report is not None and report.agent.synced
        self._virtual_servers: dict[VirtualServerKey, DesiredVirtualServer | None] = {}
        # With the Service that asks for it; None if nothing does.
        self._addresses: dict[Address, str | None] = {}
        self._elements: dict[SetElement, str | None] = {}
        if self._report and self._comparable:
            self._add_desired(self._report)
        if service is None:
            self._add_strays()

    @property
    def virtual_servers(self) -> list[VirtualServerKey]:
        """The virtual servers of the kernel whose real servers `dump` needs."""
        return [key for key in self._virtual_servers if key in self._tables.virtual_servers]

    def dump(self, real_servers: Mapping[VirtualServerKey, Sequence[RealServerStatus]]) -> schema.Dump:
        """Return what there is to show; a virtual server that `real_servers` lacks has gone in the meantime."""
        pairs = list(self._pairs(real_servers))
        report, comparable, firewall = self._report, self._comparable, self._tables.firewall
        return schema.Dump(
            schema.SCHEMA_VERSION,
            agent=report.agent if report else None,
            services=[_summary(each) for each in report.services] if report and comparable else None,
            virtual_servers=[self._shown_virtual_server(pair) for pair in pairs],
            addresses=[
                schema.ServiceAddress(
                    format_address(address),
                    desired=self._addresses[address] is not None,
                    actual=address in self._tables.bound,
                    elsewhere=address in self._tables.elsewhere,
                )
                for address in sorted(self._addresses, key=by_address)
            ],
            firewall=schema.FirewallTable(
                firewall.intact if comparable else None,
                [
                    schema.Element(
                        element.set_name,
                        str(element),
                        desired=self._elements[element] is not None,
                        actual=element in firewall.elements,
                    )
                    for element in sorted(self._elements, key=by_element)
                ],
            ),
            differences=list(self._differences(pairs)) if comparable else None,
            rejections=report.rejections if report else [],
            failures=report.failures if report else [],
            warnings=report.warnings if report else [],
        )

    def _add_desired(self, report: schema.AgentReport) -> None:
        for desired in desired_virtual_servers(report):
            key = desired.virtual_server.key
            self._virtual_servers[key] = desired
            if desired.planned.kind is not AddressKind.NODE_PORT:
                self._addresses.setdefault(key.address, desired.service)
            for element in elements_of(desired.planned):
                if not guards(element, self._tables.elsewhere):
                    self._elements.setdefault(element, desired.service)

    def _add_strays(self) -> None:
        """Add what is ours in the kernel and nothing asks for."""
        for key in filter(self._tables.owns, self._tables.virtual_servers):
            self._virtual_servers.setdefault(key, None)
        for address in self._tables.bound:
            self._addresses.setdefault(address, None)
        for element in self._tables.firewall.elements:
            self._elements.setdefault(element, None)

    def _pairs(self, real_servers: Mapping[VirtualServerKey, Sequence[RealServerStatus]]) -> Iterator[_Pair]:
        """Yield the virtual servers by Service, and those that no Service asks for last."""
        in_order = sorted(
            self._virtual_servers.items(),
            key=lambda item: (item[1] is None, item[1].service if item[1] else "", by_key(item[0])),
        )
        for key, desired in in_order:
            found, statuses = self._tables.virtual_servers.get(key), real_servers.get(key)
            if found and statuses is not None:
                found = found._replace(real_servers=tuple(status.real_server for status in statuses))
                yield _Pair(key, desired, found, {status.real_server[:2]: status for status in statuses})
            elif desired:
                yield _Pair(key, desired, None, {})

    def _differences(self, pairs: Sequence[_Pair]) -> Iterator[schema.Difference]:
        for sentence in compare_table(intact=self._tables.firewall.intact):
            yield schema.Difference(None, sentence)
        for pair in pairs:
            desired = pair.desired
            wanted = desired.virtual_server if desired else None
            excluded = desired.excluded if desired else {}
            for sentence in compare_virtual_server(wanted, pair.found, excluded, drains=pair.drains):
                yield schema.Difference(desired.service if desired else None, sentence)
        for address in sorted(self._addresses, key=by_address):
            service, bound = self._addresses[address], address in self._tables.bound
            elsewhere = address in self._tables.elsewhere
            for sentence in compare_address(
                address, desired=service is not None, bound=bound, elsewhere=elsewhere
            ):
                yield schema.Difference(service, sentence)
        for element in sorted(self._elements, key=by_element):
            service, found_element = self._elements[element], element in self._tables.firewall.elements
            for sentence in compare_element(element, desired=service is not None, found=found_element):
                yield schema.Difference(service, sentence)

    def _shown_virtual_server(self, pair: _Pair) -> schema.VirtualServer:
        key, desired, found, statuses = pair
        reported = desired.reported if desired else None
        places = statuses.keys() | (desired.endpoints.keys() if desired else set())
        return schema.VirtualServer(
            desired.service if desired else None,
            reported.port_name if reported else None,
            reported.kind if reported else None,
            reported.traffic_policy if reported else None,
            reported.in_cluster_destination if reported else None,
            reported.allowed_sources if reported else None,
            reported.drain_timeout_seconds if reported else None,
            format_address(key.address),
            key.port,
            key.protocol.name,
            self._state(pair),
            _balancing(desired.virtual_server) if desired else None,
            _balancing(found) if found else None,
            [self._shown_real_server(place, pair) for place in sorted(places)],
        )

    def _state(self, pair: _Pair) -> VirtualServerState:
        if pair.found is None:
            return VirtualServerState.MISSING
        if pair.desired is None and self._comparable:
            return VirtualServerState.UNWANTED
        elements = self._tables.firewall.elements
        if SetElement(FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS, pair.key) in elements:
            return VirtualServerState.DROPPING
        if SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, pair.key) in elements:
            return VirtualServerState.REFUSING
        serves = any(server.weight for server in pair.found.real_servers)
        return VirtualServerState.SERVING if serves else VirtualServerState.REFUSING

    def _shown_real_server(self, place: Place, pair: _Pair) -> schema.RealServer:
        _, desired, _, statuses = pair
        status = statuses.get(place)
        endpoint = desired.endpoints.get(place) if desired else None
        wanted = real_server(endpoint) if endpoint and endpoint.serves else None
        if status and not self._comparable:
            state = RealServerState.SERVING if status.real_server.weight else RealServerState.DRAINING
        else:
            state = state_of(wanted, status.real_server if status else None, drains=pair.drains)
        drain = desired.draining.get(place) if desired and state is RealServerState.DRAINING else None
        return schema.RealServer(
            format_address(place[0]),
            place[1],
            state,
            endpoint.reason if endpoint else None,
            drain.seconds if drain else None,
            drain.seconds_left if drain else None,
            schema.DesiredRealServer(wanted.weight, wanted.upper_threshold) if wanted else None,
            schema.ActualRealServer(
                status.real_server.weight,
                status.real_server.upper_threshold,
                status.active_connections,
                status.inactive_connections,
            )
            if status
            else None,
        )


def _summary(service: schema.ReportedService) -> schema.ServiceSummary:
    return schema.ServiceSummary(service.namespace, service.name, service.type, service.not_programmed)


def _balancing(virtual_server: VirtualServer) -> schema.Balancing:
    return schema.Balancing(
        virtual_server.scheduler, flag_names(virtual_server.flags), virtual_server.timeout
    )
