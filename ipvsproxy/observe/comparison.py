"""What should be in the kernel beside what is there.

Pure: from the agent's report and the kernel's tables to what `ipvsproxy dump` shows. Without a report, and until the
agent is synced, there is nothing to compare with: what is shown then is what the kernel has of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.ipvs import RealServer
from ipvsproxy.observe import schema
from ipvsproxy.observe.desired import desired_virtual_servers, of_service
from ipvsproxy.observe.differences import (
    compare_address,
    compare_element,
    compare_table,
    compare_virtual_server,
    state_of,
)
from ipvsproxy.observe.schema import RealServerState
from ipvsproxy.observe.words import (
    by_address,
    by_element,
    by_key,
    flag_names,
)
from ipvsproxy.plan.desired import elements_of
from ipvsproxy.plan.ownership import guards, is_ours

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ipvsproxy.kernel.interface import FirewallState
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SetElement
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
        )

    def _add_desired(self, report: schema.AgentReport) -> None:
        for desired in desired_virtual_servers(report):
            key = desired.virtual_server.key
            self._virtual_servers[key] = desired
            self._addresses.setdefault(key.address, desired.service)
            for element in elements_of(desired.planned):
                if guards(element, self._tables.elsewhere):
                    continue
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
        for _, desired, found, _ in pairs:
            wanted = desired.virtual_server if desired else None
            for sentence in compare_virtual_server(wanted, found, desired.excluded if desired else {}):
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
        places = statuses.keys() | (desired.endpoints.keys() if desired else set())
        return schema.VirtualServer(
            desired.service if desired else None,
            desired.port_name if desired else None,
            format_address(key.address),
            key.port,
            key.protocol.name,
            _balancing(desired.virtual_server) if desired else None,
            _balancing(found) if found else None,
            [self._shown_real_server(place, pair) for place in sorted(places)],
        )

    def _shown_real_server(self, place: Place, pair: _Pair) -> schema.RealServer:
        key, desired, _, statuses = pair
        status = statuses.get(place)
        endpoint = desired.endpoints.get(place) if desired else None
        wanted = RealServer(*place, endpoint.weight) if endpoint and endpoint.serves else None
        if status and not self._comparable:
            state = RealServerState.SERVING if status.real_server.weight else RealServerState.DRAINING
        else:
            state = state_of(key.protocol, wanted, status.real_server if status else None)
        draining = desired.draining if desired and state is RealServerState.DRAINING else {}
        return schema.RealServer(
            format_address(place[0]),
            place[1],
            state,
            endpoint.reason if endpoint else None,
            draining.get(place),
            schema.DesiredRealServer(wanted.weight) if wanted else None,
            schema.ActualRealServer(
                status.real_server.weight, status.active_connections, status.inactive_connections
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
