"""The agent's report, read back into the values that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from ipvsproxy.model.addresses import parse_address
from ipvsproxy.model.ipvs import RealServer, VirtualServer, VirtualServerKey
from ipvsproxy.model.objects import Protocol
from ipvsproxy.observe.words import flags_of
from ipvsproxy.plan.services import PlannedVirtualServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.observe.schema import AgentReport, ReportedEndpoint, ReportedVirtualServer

    Place: TypeAlias = tuple[Address, int]


class DesiredVirtualServer(NamedTuple):
    """A virtual server of the report, with all of its endpoints, and the seconds left to those that drain."""

    service: str
    port_name: str
    planned: PlannedVirtualServer
    endpoints: Mapping[Place, ReportedEndpoint]
    draining: Mapping[Place, int]

    @property
    def virtual_server(self) -> VirtualServer:
        """The virtual server as it should be, with its real servers."""
        return self.planned.virtual_server

    @property
    def excluded(self) -> Mapping[Place, str]:
        """The endpoints that do not serve, and why."""
        return {place: endpoint.reason for place, endpoint in self.endpoints.items() if not endpoint.serves}


def desired_virtual_servers(report: AgentReport) -> Iterator[DesiredVirtualServer]:
    """Yield the virtual servers of the report."""
    for service in report.services:
        for reported in service.virtual_servers:
            yield _read(str(service), reported)


def of_service(report: AgentReport, service: ObjectKey) -> AgentReport:
    """Return what the report says of one Service; a rejected slice of its namespace may be its if no other has it."""
    services = [each for each in report.services if str(each) == str(service)]
    addresses = {
        address
        for found in services
        for virtual_server in found.virtual_servers
        for address in (
            virtual_server.address,
            *(endpoint.address for endpoint in virtual_server.endpoints),
            *(real_server.address for real_server in virtual_server.draining),
        )
    }
    return msgspec.structs.replace(
        report,
        services=services,
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
        failures=[failure for failure in report.failures if failure.address in addresses],
    )


def _read(service: str, reported: ReportedVirtualServer) -> DesiredVirtualServer:
    endpoints = {(parse_address(each.address), each.port): each for each in reported.endpoints}
    serving = {place: each for place, each in endpoints.items() if each.serves}
    virtual_server = VirtualServer(
        VirtualServerKey(parse_address(reported.address), Protocol[reported.protocol], reported.port),
        reported.scheduler,
        flags_of(reported.flags),
        reported.persistence_timeout_seconds,
        tuple(sorted(RealServer(*place, each.weight) for place, each in serving.items())),
    )
    local = tuple(place[0] for place, each in serving.items() if each.may_be_local)
    return DesiredVirtualServer(
        service,
        reported.port_name,
        PlannedVirtualServer(virtual_server, local),
        endpoints,
        {(parse_address(each.address), each.port): each.seconds_left for each in reported.draining},
    )
