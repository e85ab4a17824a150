"""What the agent knows of the Kubernetes API's objects: only the fields that decide something.

The values come from `source.decode`, validated: addresses parse, ports are in range, protocols are known.
"""

import enum
from typing import NamedTuple

from ipvsproxy.model.addresses import Address, Family


class ObjectKey(NamedTuple):
    """The namespace and name of an API object; a cluster-wide object has namespace ""."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Return `NAMESPACE/NAME`, the form of kubectl's messages and of every flag that takes a Service."""
        return f"{self.namespace}/{self.name}"


class Protocol(enum.IntEnum):
    """A transport protocol, with its IP protocol number; the names are those of the API."""

    TCP = 6
    UDP = 17
    SCTP = 132


class ServicePort(NamedTuple):
    """One entry of a Service's spec.ports. `name` is "" for a Service's only, unnamed port."""

    name: str
    protocol: Protocol
    port: int


class ServiceType(enum.StrEnum):
    """A Service's spec.type."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class Service(NamedTuple):
    """A v1 Service.

    `cluster_ips` is empty for a headless Service. `session_affinity_timeout` is in seconds, 0 without session
    affinity. `created` is metadata.creationTimestamp in seconds since the epoch, 0 when unknown: of two Services
    that claim the same virtual server the older one has it.
    """

    key: ObjectKey
    type: ServiceType
    cluster_ips: tuple[Address, ...]
    ports: tuple[ServicePort, ...]
    session_affinity_timeout: int = 0
    created: int = 0


class SlicePort(NamedTuple):
    """One entry of an EndpointSlice's ports, matched to a ServicePort by name and protocol."""

    name: str
    protocol: Protocol
    port: int


class Endpoint(NamedTuple):
    """One endpoint of an EndpointSlice: its first address and its conditions, with the API's defaults filled in."""

    address: Address
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node_name: str | None = None


class EndpointSlice(NamedTuple):
    """A discovery.k8s.io/v1 EndpointSlice of addressType IPv4 or IPv6, tied to a Service by its label.

    Every endpoint's address is of `family`. A v1 Endpoints object of a manifest becomes one slice for each
    of its subsets and families.
    """

    key: ObjectKey
    service: ObjectKey
    family: Family
    ports: tuple[SlicePort, ...]
    endpoints: tuple[Endpoint, ...]


class Node(NamedTuple):
    """The agent's own Node. `pod_cidrs` are in CIDR notation, as spec.podCIDRs has them."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    pod_cidrs: tuple[str, ...] = ()
