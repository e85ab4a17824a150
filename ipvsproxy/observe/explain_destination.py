"""What is connected to: a Service by its name, made one of the addresses and ports that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.errors import UsageError
from ipvsproxy.model.addresses import family
from ipvsproxy.model.objects import AddressKind
from ipvsproxy.observe.clients import HostAt, HostOutside
from ipvsproxy.observe.desired import desired_virtual_servers, firewall_settings
from ipvsproxy.observe.explain_words import KINDS, foreign_remedy, listed
from ipvsproxy.plan.firewall import PodNetworks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import Protocol
    from ipvsproxy.observe.clients import Client, ServiceNamed
    from ipvsproxy.observe.desired import DesiredVirtualServer
    from ipvsproxy.observe.schema import AgentReport, ReportedService

# By which address clients connect, the usual one first.
_INSIDE = (
    AddressKind.CLUSTER_IP,
    AddressKind.LOAD_BALANCER_IP,
    AddressKind.EXTERNAL_IP,
    AddressKind.NODE_PORT,
)
_OUTSIDE = (*_INSIDE[1:], AddressKind.CLUSTER_IP)


class _Port(NamedTuple):
    """A port of a Service, with all virtual servers that it has; `number` is 0 where only node ports are served."""

    name: str
    protocol: Protocol
    number: int
    places: Sequence[DesiredVirtualServer]

    def __str__(self) -> str:
        """Return `NAME 80/tcp`."""
        number = f"{self.number}/{self.protocol.name.lower()}"
        return f"{self.name} {number}" if self.name else number

    def fits(self, named: ServiceNamed) -> bool:
        """Say whether it is the port that was asked for."""
        return named.port in {"", self.name, str(self.number)} and named.protocol in {None, self.protocol}


def choose_address(
    named: ServiceNamed, client: Client, report: AgentReport, is_nodes: Callable[[Address], bool]
) -> tuple[VirtualServerKey, tuple[str, ...]]:
    """Return the address and port of the Service by which the client connects, and sentences about the choice.

    `is_nodes` says whether an address is one of this node's. UsageError names what there is not.
    """
    service = _service(named, report)
    ports = _ports(service, report)
    fitting = [each for each in ports if each.fits(named)]
    if not fitting:
        protocol = f"/{named.protocol.name.lower()}" if named.protocol else ""
        raise UsageError(
            f"Service {named.key} has no port {named.port}{protocol}: it has {listed(map(str, ports), 'and')}"
        )
    port, *other_ports = fitting
    outside = _is_outside(client, report, is_nodes)
    of = family(client.address) if isinstance(client, HostAt) else None
    usual = _OUTSIDE if outside else _INSIDE
    places = sorted(
        port.places,
        key=lambda each: (
            of not in {None, family(each.virtual_server.key.address)},
            usual.index(each.planned.kind),
            len(each.virtual_server.key.address),
            each.virtual_server.key,
        ),
    )
    (chosen, *others) = places
    said = [
        (
            f"of Service {named.key} the port {port} was taken, at {_place(chosen)}, as is usual for clients "
            f"{'outside' if outside else 'inside'} the cluster"
        )
    ]
    if others:
        said.append(f"the port has as well: {listed(map(_place, others), 'and')}")
    if other_ports:
        said.append(f"the Service has other ports: {listed(map(str, other_ports), 'and')}")
    return chosen.virtual_server.key, tuple(said)


def _service(named: ServiceNamed, report: AgentReport) -> ReportedService:
    name = str(named.key)
    service = next((each for each in report.services if str(each) == name), None)
    if service is None:
        elsewhere = [each.namespace for each in report.services if each.name == named.key.name]
        hint = f"; there is one of that name in {listed(elsewhere, 'and')}" if elsewhere else ""
        raise UsageError(f"there is no Service {name}{hint}")
    if not service.virtual_servers:
        foreign = any(each.foreign for each in report.rejections if each.service == name)
        remedy = f"; {foreign_remedy()}" if foreign else ""
        raise UsageError(
            f"Service {name} has no address that is served: {service.not_programmed or 'it has no port'}{remedy}"
        )
    return service


def _ports(service: ReportedService, report: AgentReport) -> list[_Port]:
    """Return the ports of a Service, by number; TCP comes first."""
    places: dict[tuple[str, Protocol], list[DesiredVirtualServer]] = {}
    for each in desired_virtual_servers(report):
        if each.service == str(service):
            key = each.virtual_server.key
            places.setdefault((each.reported.port_name, key.protocol), []).append(each)
    ports = []
    for (name, protocol), found in places.items():
        numbers = [
            each.virtual_server.key.port for each in found if each.planned.kind is not AddressKind.NODE_PORT
        ]
        ports.append(_Port(name, protocol, numbers[0] if numbers else 0, found))
    return sorted(ports, key=lambda port: (port.number, port.protocol, port.name))


def _is_outside(client: Client, report: AgentReport, is_nodes: Callable[[Address], bool]) -> bool:
    if not isinstance(client, HostAt):
        return isinstance(client, HostOutside)
    pods = firewall_settings(report).pods
    if not isinstance(pods, PodNetworks) or is_nodes(client.address):
        return False
    return not any(network.contains(client.address) for network in pods.networks)


def _place(place: DesiredVirtualServer) -> str:
    return f"{place.virtual_server.key} ({KINDS[place.planned.kind]})"
