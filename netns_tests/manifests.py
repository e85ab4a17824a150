"""Services, EndpointSlices and Nodes as files of the directory that the agent watches."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol, ServiceType, TrafficPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class Port(NamedTuple):
    """A port of a Service, and the port on which its endpoints listen; `node_port` 0 is none."""

    name: str
    port: int
    target: int
    protocol: Protocol = Protocol.TCP
    node_port: int = 0


class Endpoint(NamedTuple):
    """One endpoint of an EndpointSlice; `conditions` has those that are not left out, as the API names them."""

    address: str
    node: str | None = None
    conditions: tuple[tuple[str, bool], ...] = ()
    for_zones: tuple[str, ...] = ()
    for_nodes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """What a Service says beside its name, its ClusterIPs and its ports; what is empty or 0 is left out.

    `session_affinity_timeout` is in seconds. `created` is a time of RFC 3339.
    """

    type: ServiceType = ServiceType.CLUSTER_IP
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    ip_mode: str = ""
    internal_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    external_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    source_ranges: tuple[str, ...] = ()
    session_affinity_timeout: int = 0
    health_check_node_port: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    created: str = ""

    @property
    def has_node_ports(self) -> bool:
        """Whether its type calls for node ports."""
        return self.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)


PLAIN = ServiceSpec()


def service(
    name: str, addresses: Iterable[str], ports: Iterable[Port], spec: ServiceSpec = PLAIN
) -> dict[str, Any]:
    """Return a Service with a selector, dual-stack if it has two addresses, headless if it has none."""
    addresses = list(addresses)
    metadata = {
        "name": name,
        "namespace": "default",
        "labels": dict(spec.labels),
        "annotations": dict(spec.annotations),
        "creationTimestamp": spec.created,
    }
    fields: dict[str, Any] = {
        "type": str(spec.type),
        "clusterIP": addresses[0] if addresses else "None",
        "clusterIPs": addresses or ["None"],
        "ipFamilies": ["IPv6" if ":" in address else "IPv4" for address in addresses],
        "ipFamilyPolicy": "PreferDualStack",
        "internalTrafficPolicy": str(spec.internal_traffic_policy),
        "externalIPs": list(spec.external_ips),
        "selector": {"app": name},
        "ports": [_service_port(port) for port in ports],
        "healthCheckNodePort": spec.health_check_node_port,
        "loadBalancerSourceRanges": list(spec.source_ranges),
    }
    if spec.has_node_ports or spec.external_ips:
        fields["externalTrafficPolicy"] = str(spec.external_traffic_policy)
    if spec.type is ServiceType.EXTERNAL_NAME:
        fields["externalName"] = "service.example"
    if spec.session_affinity_timeout:
        client_ip = {"timeoutSeconds": spec.session_affinity_timeout}
        fields |= {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": client_ip}}
    ingress = [_without_empty({"ip": ip, "ipMode": spec.ip_mode}) for ip in spec.load_balancer_ips]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _without_empty(metadata),
        "spec": _without_empty(fields),
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def node(
    name: str, zone: str = "", pod_cidrs: Iterable[str] = (), addresses: Iterable[str] = ()
) -> dict[str, Any]:
    """Return a Node; the addresses are its internal ones."""
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": _without_empty(labels)},
        "spec": _without_empty({"podCIDRs": list(pod_cidrs)}),
        "status": {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]},
    }


def endpoint_slice(
    name: str, service_name: str, family: Family, endpoints: Iterable[Endpoint], ports: Iterable[Port]
) -> dict[str, Any]:
    """Return an EndpointSlice of the Service of that name, as the control plane's controller keeps it."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {
                "kubernetes.io/service-name": service_name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv6" if family is Family.IPV6 else "IPv4",
        "ports": [{"name": port.name, "port": port.target, "protocol": port.protocol.name} for port in ports],
        "endpoints": [_slice_endpoint(endpoint) for endpoint in endpoints],
    }


def _service_port(port: Port) -> dict[str, Any]:
    return _without_empty(
        {
            "name": port.name,
            "port": port.port,
            "protocol": port.protocol.name,
            "targetPort": port.target,
            "nodePort": port.node_port,
        }
    )


def _slice_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    hints = {
        "forZones": [{"name": zone} for zone in endpoint.for_zones],
        "forNodes": [{"name": node} for node in endpoint.for_nodes],
    }
    return _without_empty(
        {
            "addresses": [endpoint.address],
            "conditions": dict(endpoint.conditions),
            "nodeName": endpoint.node,
            "hints": _without_empty(hints),
        }
    )


def _without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


class ManifestDirectory:
    """The directory that the agent watches; whoever reads it sees a file's old or new text, never a part."""

    def __init__(self, path: Path) -> None:
        """Make the directory."""
        self.path = path
        path.mkdir()

    def write(self, name: str, objects: Iterable[Mapping[str, Any]]) -> None:
        """Put objects into the file `NAME.yaml`."""
        draft = self.path.parent / f"{name}.draft"
        draft.write_text(yaml.safe_dump_all(objects, sort_keys=False))
        draft.replace(self.path / f"{name}.yaml")

    def remove(self, name: str) -> None:
        """Remove the file `NAME.yaml` if it is there."""
        (self.path / f"{name}.yaml").unlink(missing_ok=True)
