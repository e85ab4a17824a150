"""Short ways to write the values that tests are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import Family, family, parse_address
from ipvsproxy.model.ipvs import RealServer, VirtualServer, VirtualServerKey
from ipvsproxy.model.objects import (
    Endpoint,
    EndpointSlice,
    ObjectKey,
    Protocol,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
)

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Address

NODE = "node-a"
WEB = ObjectKey("default", "web")


def address(text: str) -> Address:
    return parse_address(text)


def key(text: str, port: int = 80, protocol: Protocol = Protocol.TCP) -> VirtualServerKey:
    return VirtualServerKey(parse_address(text), protocol, port)


def port(number: int = 80, name: str = "", protocol: Protocol = Protocol.TCP) -> ServicePort:
    return ServicePort(name, protocol, number)


def service(
    *cluster_ips: str,
    of: ObjectKey = WEB,
    ports: tuple[ServicePort, ...] = (ServicePort("", Protocol.TCP, 80),),
    affinity: int = 0,
    created: int = 0,
    kind: ServiceType = ServiceType.CLUSTER_IP,
) -> Service:
    return Service(of, kind, tuple(parse_address(each) for each in cluster_ips), ports, affinity, created)


def endpoint(
    text: str,
    *,
    ready: bool = True,
    serving: bool = True,
    terminating: bool = False,
    node: str | None = "node-b",
) -> Endpoint:
    return Endpoint(parse_address(text), ready, serving, terminating, node)


def endpoint_slice(
    *endpoints: Endpoint | str,
    name: str = "web-1",
    of: ObjectKey = WEB,
    ports: tuple[SlicePort, ...] = (SlicePort("", Protocol.TCP, 8080),),
    of_family: Family | None = None,
) -> EndpointSlice:
    values = tuple(endpoint(each) if isinstance(each, str) else each for each in endpoints)
    chosen = of_family or (family(values[0].address) if values else Family.IPV4)
    return EndpointSlice(ObjectKey(of.namespace, name), of, chosen, ports, values)


def real_server(text: str, number: int = 8080, weight: int = 1) -> RealServer:
    return RealServer(parse_address(text), number, weight)


def virtual_server(
    of: VirtualServerKey, *real_servers: RealServer, scheduler: str = "rr", flags: int = 0, timeout: int = 0
) -> VirtualServer:
    return VirtualServer(of, scheduler, flags, timeout, tuple(sorted(real_servers)))
