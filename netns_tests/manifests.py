"""Services and EndpointSlices as files of the directory that the agent watches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class Port(NamedTuple):
    """A port of a Service, and the port on which its endpoints listen."""

    name: str
    port: int
    target: int
    protocol: Protocol = Protocol.TCP


class Endpoint(NamedTuple):
    """One endpoint of an EndpointSlice; `conditions` has those that are not left out, as the API names them."""

    address: str
    node: str | None = None
    conditions: tuple[tuple[str, bool], ...] = ()


def service(name: str, addresses: Iterable[str], ports: Iterable[Port]) -> dict[str, Any]:
    """Return a ClusterIP Service without a selector, dual-stack if it has two addresses."""
    addresses = list(addresses)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilies": ["IPv6" if ":" in address else "IPv4" for address in addresses],
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [
                {
                    "name": port.name,
                    "port": port.port,
                    "protocol": port.protocol.name,
                    "targetPort": port.target,
                }
                for port in ports
            ],
        },
    }


def endpoint_slice(
    name: str, service_name: str, family: Family, endpoints: Iterable[Endpoint], ports: Iterable[Port]
) -> dict[str, Any]:
    """Return an EndpointSlice of the Service of that name."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv6" if family is Family.IPV6 else "IPv4",
        "ports": [{"name": port.name, "port": port.target, "protocol": port.protocol.name} for port in ports],
        "endpoints": [
            {"addresses": [endpoint.address], "conditions": dict(endpoint.conditions)}
            | ({"nodeName": endpoint.node} if endpoint.node else {})
            for endpoint in endpoints
        ],
    }


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
