"""What the agent knows of the Kubernetes API's objects: only the fields that decide something.

The values come from `source.decode`, validated: addresses parse, ports are in range, protocols are known.
"""

import enum
from typing import NamedTuple

from ipvsproxy.model.addresses import Address, Family, Network


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
    """One entry of a Service's spec.ports. `name` is "" for a Service's only, unnamed port; `node_port` 0 is none."""

    name: str
    protocol: Protocol
    port: int
    node_port: int = 0


class ServiceType(enum.StrEnum):
    """A Service's spec.type."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class Clients(enum.StrEnum):
    """Who connects to an address for clients outside the cluster: pods and processes of the node are inside."""

    INSIDE = "inside"
    OUTSIDE = "outside"


class TrafficPolicy(enum.StrEnum):
    """A Service's spec.internalTrafficPolicy or spec.externalTrafficPolicy."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class ServiceOptions(NamedTuple):
    """What a Service's annotations ask for; None and 0 leave it to the agent's configuration.

    `scheduler_flags` is a combination of model.ipvs.ServiceFlag's SCHEDULER_*; `drain_timeout` is in seconds, and 0
    cuts connections off; `maximum_connections` is for each endpoint at each virtual server.
    """

    scheduler: str | None = None
    scheduler_flags: int = 0
    drain_timeout: float | None = None
    maximum_connections: int = 0


class Service(NamedTuple):
    """A v1 Service.

    `cluster_ips` is empty for a headless Service. `load_balancer_ips` are those of status.loadBalancer.ingress whose
    ipMode is VIP. `session_affinity_timeout` is in seconds, 0 without session affinity. `created` is
    metadata.creationTimestamp in seconds since the epoch, 0 when unknown: of two Services that claim the same virtual
    server the older one has it. `load_balancer_source_ranges` None lets every source in, an empty one none.
    `health_check_node_port` is 0 but for type LoadBalancer with externalTrafficPolicy Local.
    """

    key: ObjectKey
    type: ServiceType
    cluster_ips: tuple[Address, ...]
    ports: tuple[ServicePort, ...]
    session_affinity_timeout: int = 0
    created: int = 0
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    internal_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    external_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    load_balancer_source_ranges: tuple[Network, ...] | None = None
    health_check_node_port: int = 0
    options: ServiceOptions = ServiceOptions()
    uid: str = ""
    has_selector: bool = False

    @property
    def is_balanced(self) -> bool:
        """Whether it has virtual servers: it is neither headless nor of type ExternalName."""
        return bool(self.cluster_ips) and self.type is not ServiceType.EXTERNAL_NAME


class AddressKind(enum.IntEnum):
    """How a Service comes by an address; of two claims to one address and port the lower number has it.

    ClusterIPs and node ports are allocated by the API server, load balancers' addresses come from their controller,
    external IPs from whoever may write a Service.
    """

    CLUSTER_IP = 0
    NODE_PORT = 1
    LOAD_BALANCER_IP = 2
    EXTERNAL_IP = 3


class SlicePort(NamedTuple):
    """One entry of an EndpointSlice's ports, matched to a ServicePort by name and protocol."""

    name: str
    protocol: Protocol
    port: int


class Endpoint(NamedTuple):
    """One endpoint of an EndpointSlice: its first address and its conditions, with the API's defaults filled in.

    `for_zones` and `for_nodes` are the names of its hints, empty without.
    """

    address: Address
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node_name: str | None = None
    for_zones: tuple[str, ...] = ()
    for_nodes: tuple[str, ...] = ()


class SliceAuthor(enum.Enum):
    """Who keeps an EndpointSlice, and so whether its addresses are certainly those of pods.

    CONTROLLER: it is labelled as one of the control plane's controller for Services with selectors, and not about to be
    deleted. OPERATOR: it is a manifest on the node itself. ANYBODY: a person or another program.
    """

    CONTROLLER = enum.auto()
    OPERATOR = enum.auto()
    ANYBODY = enum.auto()


class EndpointSlice(NamedTuple):
    """A discovery.k8s.io/v1 EndpointSlice of addressType IPv4 or IPv6, tied to a Service by its label.

    Every endpoint's address is of `family`. A v1 Endpoints object of a manifest becomes one slice for each
    of its subsets and families. `triggered` is the annotation endpoints.kubernetes.io/last-change-trigger-time, when
    the pod or Service changed that the slice's last change follows: in seconds since the epoch, 0 when unknown.
    """

    key: ObjectKey
    service: ObjectKey
    family: Family
    ports: tuple[SlicePort, ...]
    endpoints: tuple[Endpoint, ...]
    author: SliceAuthor = SliceAuthor.ANYBODY
    triggered: float = 0.0


class Node(NamedTuple):
    """The agent's own Node.

    `zone` is its label topology.kubernetes.io/zone, "" without. `addresses` are those of status.addresses of type
    InternalIP, then those of type ExternalIP, in their order. `leaving` says that it is being deleted, or is about to
    be: it has a deletionTimestamp, or the cluster autoscaler's taint ToBeDeletedByClusterAutoscaler.
    """

    name: str
    zone: str = ""
    pod_cidrs: tuple[Network, ...] = ()
    addresses: tuple[Address, ...] = ()
    leaving: bool = False
