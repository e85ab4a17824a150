"""Everything that leaves the program as JSON or YAML: what the agent answers, and what `ipvsproxy dump` shows.

Field names are in camelCase. A Service is NAMESPACE/NAME, a protocol has the API's name (TCP, UDP, SCTP), an address
its canonical text, times are whole seconds. `schemaVersion` counts up when a field goes, or changes its name, its
type or its meaning; a new field does not count. docs/dump.md describes what `dump` shows, with examples.
"""

import enum

import msgspec

from ipvsproxy.model.objects import ServiceType

SCHEMA_VERSION = 1


class Schema(msgspec.Struct, frozen=True, rename="camel"):
    """The base of all structures here."""


# --- in both ---


class AgentInfo(Schema, frozen=True):
    """Which agent answers; `synced` once it has received both lists and compared everything with the kernel."""

    version: str
    pid: int
    node_name: str
    synced: bool


class Rejection(Schema, frozen=True):
    """An API object, or a part of one, that is not programmed; `field` is "" for the whole object.

    `service` is the Service that it is of; None if it is of none, or of an EndpointSlice that was never readable.
    """

    kind: str
    namespace: str
    name: str
    field: str
    reason: str
    service: str | None


class Failure(Schema, frozen=True):
    """A change that the kernel refused; `address` is the service address, or the endpoint's, that it is about."""

    item: str
    address: str
    reason: str
    attempts: int
    seconds_until_next_try: int


# --- what the agent answers: what should be, and why ---


class MasqueradeSettings(Schema, frozen=True):
    """What the rules of the nftables table depend on; see `plan.firewall.FirewallSettings`."""

    cluster_cidrs: list[str] = msgspec.field(name="clusterCIDRs")
    masquerade_all: bool
    masquerade_bit: int


class ReportedEndpoint(Schema, frozen=True):
    """An endpoint of a virtual server: whether it serves, and why or why not.

    `weight` is 0 for one that does not serve. `may_be_local` is for those that do: whether it may be of this node.
    """

    address: str
    port: int
    serves: bool
    reason: str
    weight: int
    may_be_local: bool


class DrainingRealServer(Schema, frozen=True):
    """A real server that keeps its connections until they end, at most for `seconds_left`."""

    address: str
    port: int
    seconds_left: int


class ReportedVirtualServer(Schema, frozen=True):
    """A virtual server as it should be; `flags` are names as `words.flag_names` has them."""

    address: str
    port: int
    protocol: str
    port_name: str
    scheduler: str
    flags: list[str]
    persistence_timeout_seconds: int
    endpoints: list[ReportedEndpoint]
    draining: list[DrainingRealServer]


class ReportedService(Schema, frozen=True):
    """A Service; `type` is None if it was never readable. `not_programmed` says why it has no virtual servers."""

    namespace: str
    name: str
    type: ServiceType | None
    not_programmed: str | None
    virtual_servers: list[ReportedVirtualServer]

    def __str__(self) -> str:
        """Return `NAMESPACE/NAME`."""
        return f"{self.namespace}/{self.name}"


class AgentReport(Schema, frozen=True):
    """The agent's state. `services` is empty until the agent is synced."""

    schema_version: int
    agent: AgentInfo
    masquerade: MasqueradeSettings
    services: list[ReportedService]
    rejections: list[Rejection]
    failures: list[Failure]


class Refusal(Schema, frozen=True):
    """The answer to a request that got no other; `error` is a phrase."""

    schema_version: int
    error: str


# --- what `dump` shows: what should be beside what is ---


class ServiceSummary(Schema, frozen=True):
    """A Service; `type` and `not_programmed` as in ReportedService."""

    namespace: str
    name: str
    type: ServiceType | None
    not_programmed: str | None


class Balancing(Schema, frozen=True):
    """How a virtual server picks a real server; `persistence_timeout_seconds` is 0 without the flag persistent."""

    scheduler: str
    flags: list[str]
    persistence_timeout_seconds: int


class RealServerState(enum.StrEnum):
    """What is the matter with a real server, or with an endpoint.

    SERVING gets new connections; DRAINING keeps those that it has; MISSING is not in the kernel and should be;
    DIFFERS is there with another weight or other limits; UNWANTED is there and should not be; EXCLUDED is an endpoint
    that does not serve.
    """

    SERVING = "serving"
    DRAINING = "draining"
    MISSING = "missing"
    DIFFERS = "differs"
    UNWANTED = "unwanted"
    EXCLUDED = "excluded"


class DesiredRealServer(Schema, frozen=True):
    """A real server as it should be."""

    weight: int


class ActualRealServer(Schema, frozen=True):
    """A real server as the kernel has it."""

    weight: int
    active_connections: int
    inactive_connections: int


class RealServer(Schema, frozen=True):
    """A real server, or an endpoint that is none; `reason` says why it serves or does not, None if it is no endpoint.

    `drain_seconds_left` is None unless it drains and the deadline is known.
    """

    address: str
    port: int
    state: RealServerState
    reason: str | None
    drain_seconds_left: int | None
    desired: DesiredRealServer | None
    actual: ActualRealServer | None


class VirtualServer(Schema, frozen=True):
    """A virtual server; `service` and `port_name` are None where no Service is known to ask for it."""

    service: str | None
    port_name: str | None
    address: str
    port: int
    protocol: str
    desired: Balancing | None
    actual: Balancing | None
    real_servers: list[RealServer]


class ServiceAddress(Schema, frozen=True):
    """An address; `actual` is whether the dummy interface has it, `elsewhere` whether another interface does."""

    address: str
    desired: bool
    actual: bool
    elsewhere: bool


class Element(Schema, frozen=True):
    """An element of one of the nftables table's sets, as nft(8) writes it."""

    set: str
    element: str
    desired: bool
    actual: bool


class FirewallTable(Schema, frozen=True):
    """The nftables table; `intact` if all but its elements is as the agent makes it, None if that is not known."""

    intact: bool | None
    elements: list[Element]


class Difference(Schema, frozen=True):
    """A sentence that says what is not as it should be, and the Service that it is about, if it is known."""

    service: str | None
    sentence: str


class Dump(Schema, frozen=True):
    """All that `dump` shows.

    `agent` is None if none runs or none answers. Without it, and until it is synced, nothing is known to be desired:
    `services` and `differences` are None, and every `desired` is None or false.
    """

    schema_version: int
    agent: AgentInfo | None
    services: list[ServiceSummary] | None
    virtual_servers: list[VirtualServer]
    addresses: list[ServiceAddress]
    firewall: FirewallTable
    differences: list[Difference] | None
    rejections: list[Rejection]
    failures: list[Failure]
