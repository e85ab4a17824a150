"""Where clients connect to: a Service's addresses and ports, all from a number that no other Service has."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from netns_tests.manifests import ServiceSpec
from netns_tests.traffic import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipvsproxy.model.objects import Protocol
    from netns_tests.manifests import Port
    from netns_tests.topology import Place

# The networks of external IPs, and the nodes', where the agent has to know by itself what is not to be taken.
ALLOWED_EXTERNAL_IPS = ("198.18.0.0/16", "198.51.100.0/24", "2001:db8:cb:1::/64", "2001:db8:64::/64")
"""The networks of the external IPs that the agent lets Services have."""

_LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}


class Via(enum.StrEnum):
    """Which of a Service's addresses a client uses, or of the node's."""

    CLUSTER_IP = "clusterIP"
    EXTERNAL_IP = "external IP"
    LOAD_BALANCER_IP = "load balancer's IP"
    NODE_PORT = "node port"
    GATEWAY_NODE_PORT = "node port at the pods' gateway"
    LOOPBACK_NODE_PORT = "node port at the loopback address"
    NODE_ADDRESS = "node's own address"


_NODE_PORTS = (Via.NODE_PORT, Via.GATEWAY_NODE_PORT, Via.LOOPBACK_NODE_PORT)


def cluster_ip(number: int, family: Family) -> str:
    """Return the ClusterIP of a Service."""
    return _numbered("10.96", "fd00:10:96::", number, family)


def external_ip(number: int, family: Family) -> str:
    """Return the external IP of a Service, of a network that the agent allows."""
    return _numbered("198.18", "2001:db8:cb:1::", number, family)


def load_balancer_ip(number: int, family: Family) -> str:
    """Return the load balancer's IP of a Service; as an external IP, it is of no allowed network."""
    return _numbered("198.19", "2001:db8:cb:2::", number, family)


def spec_of(
    type_: ServiceType,
    number: int,
    families: Iterable[Family] = tuple(Family),
    **fields: Any,  # noqa: ANN401 - those of ServiceSpec
) -> ServiceSpec:
    """Return a Service with the addresses of its number; one of type LoadBalancer has external IPs, too."""
    if type_ is ServiceType.LOAD_BALANCER:
        fields = {
            "external_ips": tuple(external_ip(number, family) for family in families),
            "load_balancer_ips": tuple(load_balancer_ip(number, family) for family in families),
        } | fields
    return ServiceSpec(type=type_, **fields)


def ports_of(spec: ServiceSpec, ports: Iterable[Port], number: int) -> list[Port]:
    """Return the ports with those node ports of the Service's number that its type calls for."""
    taken: dict[Protocol, int] = {}
    with_node_ports = []
    for port in ports:
        node_port = taken.get(port.protocol, 30000 + number)
        taken[port.protocol] = node_port + 1000
        with_node_ports.append(port._replace(node_port=node_port if spec.has_node_ports else 0))
    return with_node_ports


def health_check_node_port(number: int) -> int:
    """Return the health check node port of a Service."""
    return 32000 + number


@dataclasses.dataclass(frozen=True)
class Reachable:
    """A Service as clients reach it: its ClusterIPs, spec and ports, and the node at which they do."""

    cluster_ips: Sequence[str]
    spec: ServiceSpec
    ports: Sequence[Port]
    node: Place

    def target(self, via: Via, family: Family, protocol: Protocol, port: int | None = None) -> Target:
        """Return where to connect to; without a port, to the Service's first one of that protocol."""
        if port is None:
            first = next(each for each in self.ports if each.protocol is protocol)
            port = first.node_port if via in _NODE_PORTS else first.port
        return Target(self._address(via, family), port, protocol)

    def _address(self, via: Via, family: Family) -> str:
        match via:
            case Via.CLUSTER_IP:
                return _of(family, self.cluster_ips)
            case Via.EXTERNAL_IP:
                return _of(family, self.spec.external_ips)
            case Via.LOAD_BALANCER_IP:
                return _of(family, self.spec.load_balancer_ips)
            case Via.NODE_PORT | Via.NODE_ADDRESS:
                return self.node.addresses[family]
            case Via.GATEWAY_NODE_PORT:
                return self.node.gateways[family]
            case Via.LOOPBACK_NODE_PORT:
                return _LOOPBACK[family]


def _of(family: Family, addresses: Sequence[str]) -> str:
    return next(address for address in addresses if (":" in address) is (family is Family.IPV6))


def _numbered(first: str, prefix: str, number: int, family: Family) -> str:
    if family is Family.IPV6:
        return f"{prefix}{number:x}"
    return f"{first}.{number // 256}.{number % 256}"
