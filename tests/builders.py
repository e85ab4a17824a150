"""Short ways to write the values that tests are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import Family, family, parse_address, parse_network
from ipvsproxy.model.firewall import SourceList
from ipvsproxy.model.ipvs import RealServer, VirtualServer, VirtualServerKey
from ipvsproxy.model.objects import (
    Endpoint,
    EndpointSlice,
    Node,
    ObjectKey,
    Protocol,
    Service,
    ServiceOptions,
    ServicePort,
    ServiceType,
    SliceAuthor,
    SlicePort,
    TrafficPolicy,
)

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Address, Network

NODE = "node-a"
WEB = ObjectKey("default", "web")


def address(text: str) -> Address:
    return parse_address(text)


def addresses(*texts: str) -> tuple[Address, ...]:
    return tuple(map(parse_address, texts))


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(parse_network, texts))


def source_list(*texts: str, of: Family = Family.IPV4, admits_node: bool = False) -> SourceList:
    return SourceList.of(of, networks(*texts), admits_node=admits_node)


def key(text: str, port: int = 80, protocol: Protocol = Protocol.TCP) -> VirtualServerKey:
    return VirtualServerKey(parse_address(text), protocol, port)


def port(
    number: int = 80, name: str = "", protocol: Protocol = Protocol.TCP, *, node_port: int = 0
) -> ServicePort:
    return ServicePort(name, protocol, number, node_port)


def service(  # noqa: PLR0913 - as many as a Service has fields
    *cluster_ips: str,
    of: ObjectKey = WEB,
    ports: tuple[ServicePort, ...] = (ServicePort("", Protocol.TCP, 80),),
    affinity: int = 0,
    created: int = 0,
    kind: ServiceType = ServiceType.CLUSTER_IP,
    external_ips: tuple[str, ...] = (),
    load_balancer_ips: tuple[str, ...] = (),
    internal: TrafficPolicy = TrafficPolicy.CLUSTER,
    external: TrafficPolicy = TrafficPolicy.CLUSTER,
    source_ranges: tuple[str, ...] | None = None,
    health_check_node_port: int = 0,
    options: ServiceOptions = ServiceOptions(),  # noqa: B008 - immutable
    uid: str = "",
    has_selector: bool = True,
) -> Service:
    return Service(
        of,
        kind,
        addresses(*cluster_ips),
        ports,
        affinity,
        created,
        addresses(*external_ips),
        addresses(*load_balancer_ips),
        internal,
        external,
        None if source_ranges is None else networks(*source_ranges),
        health_check_node_port,
        options,
        uid,
        has_selector,
    )


def endpoint(  # noqa: PLR0913 - as many as an Endpoint has fields
    text: str,
    *,
    ready: bool = True,
    serving: bool = True,
    terminating: bool = False,
    node: str | None = "node-b",
    for_zones: tuple[str, ...] = (),
    for_nodes: tuple[str, ...] = (),
) -> Endpoint:
    return Endpoint(parse_address(text), ready, serving, terminating, node, for_zones, for_nodes)


def endpoint_slice(
    *endpoints: Endpoint | str,
    name: str = "web-1",
    of: ObjectKey = WEB,
    ports: tuple[SlicePort, ...] = (SlicePort("", Protocol.TCP, 8080),),
    of_family: Family | None = None,
    author: SliceAuthor = SliceAuthor.CONTROLLER,
) -> EndpointSlice:
    values = tuple(endpoint(each) if isinstance(each, str) else each for each in endpoints)
    chosen = of_family or (family(values[0].address) if values else Family.IPV4)
    return EndpointSlice(ObjectKey(of.namespace, name), of, chosen, ports, values, author)


def node(
    name: str = NODE,
    *,
    zone: str = "",
    pod_cidrs: tuple[str, ...] = (),
    ips: tuple[str, ...] = (),
    leaving: bool = False,
) -> Node:
    return Node(name, zone, networks(*pod_cidrs), addresses(*ips), leaving)


def real_server(text: str, number: int = 8080, weight: int = 1) -> RealServer:
    return RealServer(parse_address(text), number, weight)


def virtual_server(
    of: VirtualServerKey, *real_servers: RealServer, scheduler: str = "rr", flags: int = 0, timeout: int = 0
) -> VirtualServer:
    return VirtualServer(of, scheduler, flags, timeout, tuple(sorted(real_servers)))
