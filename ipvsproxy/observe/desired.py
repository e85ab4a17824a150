"""The agent's report, read back into the values that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from ipvsproxy.model.addresses import Family, format_address, parse_address, parse_network
from ipvsproxy.model.firewall import SourceList, named_source_list
from ipvsproxy.model.ipvs import RealServer, VirtualServer, VirtualServerKey
from ipvsproxy.model.items import describe
from ipvsproxy.model.objects import AddressKind, Protocol
from ipvsproxy.observe.words import flags_of
from ipvsproxy.plan.desired import elements_of
from ipvsproxy.plan.firewall import FirewallSettings, PodInterfaces, PodNetworks
from ipvsproxy.plan.services import PlannedVirtualServer, Redirect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.observe.schema import (
        AgentReport,
        DrainingRealServer,
        ReportedEndpoint,
        ReportedVirtualServer,
    )

    Place: TypeAlias = tuple[Address, int]


class DesiredVirtualServer(NamedTuple):
    """A virtual server of the report, with all of its endpoints, and those that drain."""

    service: str
    reported: ReportedVirtualServer
    planned: PlannedVirtualServer
    endpoints: Mapping[Place, ReportedEndpoint]
    draining: Mapping[Place, DrainingRealServer]

    @property
    def virtual_server(self) -> VirtualServer:
        """The virtual server as it should be, with its real servers."""
        return self.planned.virtual_server

    @property
    def excluded(self) -> Mapping[Place, str]:
        """The endpoints that do not serve, and why."""
        return {place: endpoint.reason for place, endpoint in self.endpoints.items() if not endpoint.serves}

    @property
    def drains(self) -> bool:
        """Whether real servers that leave keep their connections; those of UDP never do."""
        return self.planned.drain_timeout > 0 and self.virtual_server.key.protocol is not Protocol.UDP


def firewall_settings(report: AgentReport) -> FirewallSettings:
    """Return the settings that the agent's table follows from, and is recognised by."""
    masquerade = report.masquerade
    return FirewallSettings(
        PodInterfaces(masquerade.pod_interfaces)
        if masquerade.pod_interfaces
        else PodNetworks(tuple(map(parse_network, masquerade.pod_networks))),
        masquerade.masquerade_all,
        masquerade.masquerade_bit,
    )


def desired_virtual_servers(report: AgentReport) -> Iterator[DesiredVirtualServer]:
    """Yield the virtual servers of the report."""
    lists = {name: _source_list(name, texts) for name, texts in report.source_lists.items()}
    for service in report.services:
        for reported in service.virtual_servers:
            sources = lists[reported.source_list] if reported.source_list else None
            yield from _read(str(service), reported, sources)


def of_service(report: AgentReport, service: ObjectKey) -> AgentReport:
    """Return what the report says of one Service; a rejected slice of its namespace may be its if no other has it."""
    one = msgspec.structs.replace(
        report, services=[each for each in report.services if str(each) == str(service)], agent_ports=[]
    )
    addresses: set[str] = set()
    items: set[str] = set()
    for desired in desired_virtual_servers(one):
        key = desired.virtual_server.key
        # The node's own addresses have the node ports of all Services.
        if desired.planned.kind is not AddressKind.NODE_PORT:
            addresses.add(format_address(key.address))
        addresses.update(format_address(place[0]) for place in (*desired.endpoints, *desired.draining))
        items.add(describe(key))
        items.update(map(describe, elements_of(desired.planned)))
    return msgspec.structs.replace(
        one,
        rejections=[
            rejection
            for rejection in report.rejections
            if rejection.service == str(service)
            or (
                rejection.service is None
                and rejection.kind == "EndpointSlice"
                and rejection.namespace == service.namespace
            )
        ],
        failures=[each for each in report.failures if each.address in addresses or each.item in items],
    )


def _source_list(name: str, texts: Iterable[str]) -> SourceList:
    of, admits_node = named_source_list(name) or (Family.IPV4, False)
    return SourceList.of(of, map(parse_network, texts), admits_node=admits_node)


def _read(
    service: str, reported: ReportedVirtualServer, sources: SourceList | None
) -> Iterator[DesiredVirtualServer]:
    endpoints = {(parse_address(each.address), each.port): each for each in reported.endpoints}
    serving = {place: each for place, each in endpoints.items() if each.serves}
    real_servers = tuple(sorted(real_server(each) for each in serving.values()))
    local = tuple(place[0] for place, each in serving.items() if each.may_be_local)
    redirect = reported.redirect
    for address, draining in ((each.address, each.draining) for each in reported.addresses):
        virtual_server = VirtualServer(
            VirtualServerKey(parse_address(address), Protocol[reported.protocol], reported.port),
            reported.scheduler,
            flags_of(reported.flags),
            reported.persistence_timeout_seconds,
            real_servers,
        )
        planned = PlannedVirtualServer(
            virtual_server,
            local,
            AddressKind[reported.kind.name],
            reported.traffic_policy,
            reported.only_remote_endpoints,
            Redirect(redirect.clients, parse_address(redirect.address), redirect.port) if redirect else None,
            sources,
            reported.drain_timeout_seconds,
        )
        drains = {(parse_address(each.address), each.port): each for each in draining}
        yield DesiredVirtualServer(service, reported, planned, endpoints, drains)


def real_server(endpoint: ReportedEndpoint) -> RealServer:
    """Return the real server that an endpoint which serves should be."""
    return RealServer(
        parse_address(endpoint.address),
        endpoint.port,
        endpoint.weight,
        upper_threshold=endpoint.maximum_connections,
    )
