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
    labels: dict[str, str | None] | None = None
    creation_timestamp: Annotated[dt.datetime, Meta(tz=True)] | None = None


class ApiObject(Part, frozen=True):
    """Any object."""

    metadata: Metadata = Metadata()


class Port(Part, frozen=True):
    """An entry of a Service's or EndpointSlice's ports, or of those of an Endpoints' subset."""

    name: str | None = None
    protocol: str | None = None
    port: Int32 | None = None


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
    ports: list[Port] | None = None
    session_affinity: str | None = None
    session_affinity_config: SessionAffinityConfig | None = None


class ServiceObject(ApiObject, frozen=True):
    """A v1 Service."""

    spec: ServiceSpec = ServiceSpec()


class Conditions(Part, frozen=True):
    """The conditions of an endpoint."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(Part, frozen=True):
    """An entry of an EndpointSlice's endpoints."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None
    node_name: str | None = None


class EndpointSliceObject(ApiObject, frozen=True):
    """A discovery.k8s.io/v1 EndpointSlice."""

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


class NodeSpec(Part, frozen=True):
    """The spec of a Node."""

    pod_cidr: str | None = field(default=None, name="podCIDR")
    pod_cidrs: list[str] | None = field(default=None, name="podCIDRs")


class NodeObject(ApiObject, frozen=True):
    """A v1 Node."""

    spec: NodeSpec = NodeSpec()


class Name(Part, frozen=True):
    """The fields of metadata that name an object, whatever their types are."""

    name: object = None
    namespace: object = None


class NamedObject(Part, frozen=True):
    """Any object, read for its name when the rest can't be."""

    metadata: Name = Name()
