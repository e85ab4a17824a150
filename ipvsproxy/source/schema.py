"""The API's objects as msgspec reads them: only the fields that `source.decode` uses, with the API's names.

Types are those of k8s.io/api core/v1 and discovery/v1. A field that the API may write as null allows None;
whatever is not named here is skipped while parsing and costs nothing to keep.
"""

# No `from __future__ import annotations`: msgspec evaluates the annotations.
import datetime as dt
from typing import Annotated

from msgspec import Meta, Struct, field

from ipvsproxy.model.objects import ServiceType

Int32 = Annotated[int, Meta(ge=-(2**31), lt=2**31)]


class Part(Struct, frozen=True, gc=False, rename="camel"):
    """Any part of an API object."""


class Metadata(Part, frozen=True):
    """What every object has."""

    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    labels: dict[str, str | None] | None = None
    creation_timestamp: Annotated[dt.datetime, Meta(tz=True)] | None = None


class AnnotatedMetadata(Metadata, frozen=True):
    """What a Service or an EndpointSlice has beside; annotations are of any type, so a wrong one rejects nothing."""

    annotations: object = None


class ApiObject(Part, frozen=True):
    """Any object. Items of a list go without their kind and apiVersion."""

    kind: str | None = None
    api_version: str | None = None
    metadata: Metadata = Metadata()


class Port(Part, frozen=True):
    """An entry of an EndpointSlice's ports, or of those of an Endpoints' subset."""

    name: str | None = None
    protocol: str | None = None
    port: Int32 | None = None


class ServicePort(Port, frozen=True):
    """An entry of a Service's ports."""

    node_port: Int32 | None = None


class ClientIPConfig(Part, frozen=True):
    """spec.sessionAffinityConfig.clientIP of a Service; the timeout is in seconds."""

    timeout_seconds: Int32 | None = None


class SessionAffinityConfig(Part, frozen=True):
    """spec.sessionAffinityConfig of a Service."""

    client_ip: ClientIPConfig | None = field(default=None, name="clientIP")


class ServiceSpec(Part, frozen=True):
    """The spec of a Service."""

    type: ServiceType | None = None
    cluster_ip: str | None = field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = field(default=None, name="clusterIPs")
    ports: list[ServicePort] | None = None
    external_ips: list[str] | None = field(default=None, name="externalIPs")
    selector: object = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    load_balancer_source_ranges: list[str] | None = None
    health_check_node_port: Int32 | None = None
    session_affinity: str | None = None
    session_affinity_config: SessionAffinityConfig | None = None


class Ingress(Part, frozen=True):
    """An entry of status.loadBalancer.ingress of a Service."""

    ip: str | None = None
    ip_mode: str | None = None


class LoadBalancerStatus(Part, frozen=True):
    """status.loadBalancer of a Service."""

    ingress: list[Ingress] | None = None


class ServiceStatus(Part, frozen=True):
    """The status of a Service."""

    load_balancer: LoadBalancerStatus | None = None


class ServiceObject(ApiObject, frozen=True):
    """A v1 Service."""

    metadata: AnnotatedMetadata = AnnotatedMetadata()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus | None = None


class Conditions(Part, frozen=True):
    """The conditions of an endpoint."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(Part, frozen=True):
    """An entry of the hints of an endpoint: the name of a zone or of a node."""

    name: str | None = None


class Hints(Part, frozen=True):
    """The hints of an endpoint."""

    for_zones: list[Hint] | None = None
    for_nodes: list[Hint] | None = None


class SliceEndpoint(Part, frozen=True):
    """An entry of an EndpointSlice's endpoints."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None
    node_name: str | None = None
    hints: Hints | None = None


class SliceMetadata(AnnotatedMetadata, frozen=True):
    """What an EndpointSlice has beside; that there is a time is all that matters of it."""

    deletion_timestamp: object = None


class EndpointSliceObject(ApiObject, frozen=True):
    """A discovery.k8s.io/v1 EndpointSlice."""

    metadata: SliceMetadata = SliceMetadata()
    address_type: str | None = None
    ports: list[Port] | None = None
    endpoints: list[SliceEndpoint] | None = None


class EndpointAddress(Part, frozen=True):
    """An entry of the addresses or notReadyAddresses of an Endpoints' subset."""

    ip: str | None = None
    node_name: str | None = None


class EndpointSubset(Part, frozen=True):
    """An entry of an Endpoints' subsets."""

    addresses: list[EndpointAddress] | None = None
    not_ready_addresses: list[EndpointAddress] | None = None
    ports: list[Port] | None = None


class EndpointsObject(ApiObject, frozen=True):
    """A v1 Endpoints."""

    subsets: list[EndpointSubset] | None = None


class Taint(Part, frozen=True):
    """An entry of the taints of a Node."""

    key: str | None = None


class NodeSpec(Part, frozen=True):
    """The spec of a Node."""

    pod_cidr: str | None = field(default=None, name="podCIDR")
    pod_cidrs: list[str] | None = field(default=None, name="podCIDRs")
    taints: list[Taint] | None = None


class NodeAddress(Part, frozen=True):
    """An entry of status.addresses of a Node."""

    type: str | None = None
    address: str | None = None


class NodeStatus(Part, frozen=True):
    """The status of a Node."""

    addresses: list[NodeAddress] | None = None


class NodeMetadata(Metadata, frozen=True):
    """What a Node has beside; that there is a time is all that matters of it."""

    deletion_timestamp: object = None


class NodeObject(ApiObject, frozen=True):
    """A v1 Node."""

    metadata: NodeMetadata = NodeMetadata()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus | None = None


class Name(Part, frozen=True):
    """The fields of metadata that tell which object it is, whatever their types are."""

    name: object = None
    namespace: object = None
    uid: object = None


class NamedObject(Part, frozen=True):
    """Any object, read for its name when the rest can't be."""

    metadata: Name = Name()
