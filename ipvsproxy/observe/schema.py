"""Everything that leaves the program as JSON or YAML: what the agent answers, and what `ipvsproxy dump` shows.

Field names are in camelCase. A Service is NAMESPACE/NAME, a protocol has the API's name (TCP, UDP, SCTP), an address
its canonical text, times are whole seconds. `schemaVersion` counts up when a field goes, or changes its name, its
type or its meaning; a new field does not count. docs/dump.md describes what `dump` shows, with examples.
"""

import enum

import msgspec

from ipvsproxy.model.objects import Clients, ServiceType, TrafficPolicy

SCHEMA_VERSION = 1


class Schema(msgspec.Struct, frozen=True, rename="camel"):
    """The base of all structures here."""


# --- in both ---


class AgentInfo(Schema, frozen=True):
    """Which agent answers; `synced` once it has received both lists and compared everything with the kernel.

    `seconds_since_resync` is for how long the last such comparison is over; None before the first. `node_known` is
    false if the API server has no Node of the agent's name.
    """

    version: str
    pid: int
    node_name: str
    synced: bool
    seconds_since_resync: int | None = None
    node_known: bool = True


class Rejection(Schema, frozen=True):
    """An API object, or a part of one, that is not programmed; `field` is "" for the whole object.

    `service` is the Service that it is of; None if it is of none, or of an EndpointSlice that was never readable.
    `foreign` says that a virtual server which the agent did not make is the reason.
    """

    kind: str
    namespace: str
    name: str
    field: str
    reason: str
    service: str | None
    foreign: bool = False


class AddressKindName(enum.StrEnum):
    """How a Service comes by an address: what members of `model.objects.AddressKind` are called."""

    CLUSTER_IP = "clusterIP"
    NODE_PORT = "nodePort"
    LOAD_BALANCER_IP = "loadBalancerIP"
    EXTERNAL_IP = "externalIP"


class Failure(Schema, frozen=True):
    """A change that the kernel refused; `address` is the service address, or the endpoint's, that it is about."""

    item: str
    address: str
    reason: str
    attempts: int
    seconds_until_next_try: int


# --- what the agent answers: what should be, and why ---


class MasqueradeSettings(Schema, frozen=True):
    """What the rules of the nftables table depend on; see `plan.firewall.FirewallSettings`.

    Pods are recognised by `pod_interfaces`, or by `pod_networks` if that is None.
    """

    pod_networks: list[str]
    pod_interfaces: str | None
    masquerade_all: bool
    masquerade_bit: int


class ReportedEndpoint(Schema, frozen=True):
    """An endpoint of a virtual server: whether it serves, and why or why not.

    `weight` is 0 for one that does not serve. `maximum_connections` is 0 without a limit. `may_be_local` is for those
    that serve: whether it may be of this node.
    """

    address: str
    port: int
    serves: bool
    reason: str
    weight: int
    maximum_connections: int
    may_be_local: bool


class DrainingRealServer(Schema, frozen=True):
    """A real server that keeps its connections: for `seconds` so far, and at most for `seconds_left` more."""

    address: str
    port: int
    seconds: int
    seconds_left: int


class ReportedAddress(Schema, frozen=True):
    """One of the addresses that have the same virtual server, and what drains there."""

    address: str
    draining: list[DrainingRealServer]


class Redirect(Schema, frozen=True):
    """Which clients, inside or outside the cluster, are sent to the ClusterIP instead, and where that is."""

    clients: Clients
    address: str
    port: int


class ReportedVirtualServer(Schema, frozen=True):
    """A virtual server as it should be, at each of its addresses; see `plan.services.PlannedVirtualServer`.

    A node port is served on every address of the node, so what is the same there is said once. `flags` are names as
    `words.flag_names` has them. `source_list` is the name of one of the report's `source_lists`. `without_endpoints` is
    why no endpoint belongs to the port, although some are known.
    """

    addresses: list[ReportedAddress]
    port: int
    protocol: str
    port_name: str
    kind: AddressKindName
    traffic_policy: TrafficPolicy
    scheduler: str
    flags: list[str]
    persistence_timeout_seconds: int
    drain_timeout_seconds: int
    only_remote_endpoints: bool
    redirect: Redirect | None
    source_list: str | None
    endpoints: list[ReportedEndpoint]
    without_endpoints: str | None = None


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


class WatchInfo(Schema, frozen=True):
    """How a followed resource is: of the API server's "services", "endpointslices" and "nodes", or "manifests".

    `seconds_since_contact` is the time since the last answer, event or bookmark; None before the first, and always for
    manifests, which are silent while nobody changes them. `error` says why it is not connected; None if it is, and
    before the first answer. `remedy` is what to do about the error; None where only its words help.
    """

    resource: str
    connected: bool
    seconds_since_contact: int | None
    error: str | None
    remedy: str | None = None


class HostFirewallInfo(Schema, frozen=True):
    """The host's own firewall, as the agent last saw it: sentences about what is in the way, without full stops.

    `failed` are those about chains of its own that it could not make or remove there, `chains` the ones that are there,
    and accept answers of endpoints.
    """

    warnings: list[str] = []
    failed: list[str] = []
    chains: list[str] = []


class AgentReport(Schema, frozen=True):
    """The agent's state. `services` is empty until the agent is synced. `warnings` are sentences about the node.

    `source_lists` has the networks of each source list by its name. At `agent_ports` the agent is reached, by TCP and
    at every address.
    """

    schema_version: int
    agent: AgentInfo
    masquerade: MasqueradeSettings
    services: list[ReportedService]
    rejections: list[Rejection]
    failures: list[Failure]
    warnings: list[str]
    watches: list[WatchInfo] = []
    source_lists: dict[str, list[str]] = {}
    host_firewall: HostFirewallInfo = HostFirewallInfo()
    agent_ports: list[int] = []


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


class Traffic(Schema, frozen=True):
    """Connections, packets and bytes, "in" from the clients, "out" to them: all that there were, or of a second."""

    connections: int
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int


class Statistics(Schema, frozen=True):
    """The kernel's own count since it has the virtual server or real server, and its estimate of the last seconds.

    `per_second` is None while the kernel counts nothing: then `total` is what it had counted before.
    """

    total: Traffic
    per_second: Traffic | None


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
    """A real server as it should be; `maximum_connections` is 0 without a limit."""

    weight: int
    maximum_connections: int


class ActualRealServer(Schema, frozen=True):
    """A real server as the kernel has it; `persistent_connections` are the clients that stay with it.

    `statistics` is None if they were not asked for.
    """

    weight: int
    maximum_connections: int
    active_connections: int
    inactive_connections: int
    persistent_connections: int
    statistics: Statistics | None


class RealServer(Schema, frozen=True):
    """A real server, or an endpoint that is none; `reason` says why it serves or does not, None if it is no endpoint.

    `drain_seconds`, for how long it has drained, and `drain_seconds_left` are None unless it drains and the agent says.
    `differences` are the sentences of `Dump.differences` about it.
    """

    address: str
    port: int
    state: RealServerState
    reason: str | None
    drain_seconds: int | None
    drain_seconds_left: int | None
    desired: DesiredRealServer | None
    actual: ActualRealServer | None
    differences: list[str]


class VirtualServerState(enum.StrEnum):
    """What becomes of the clients of a virtual server.

    SERVING: they are sent to real servers; REFUSING: nobody serves; DROPPING: other nodes serve, and clients that are
    kept out by externalTrafficPolicy Local are not told; MISSING is not in the kernel and should be; UNWANTED is there
    and should not be.
    """

    SERVING = "serving"
    REFUSING = "refusing"
    DROPPING = "dropping"
    MISSING = "missing"
    UNWANTED = "unwanted"


class VirtualServer(Schema, frozen=True):
    """A virtual server.

    What its Service says of it, up to `drain_timeout_seconds`, is None where no Service is known to ask for it.
    `redirect` is also None without one, and `source_list` where every source is let in; otherwise it is the name of one
    of the dump's `source_lists`. `without_endpoints` is why no endpoint belongs to it, although its Service has some;
    None otherwise. `statistics` is None if they were not asked for, or the kernel has no such virtual server. `sets`
    are the nftables sets that have its address and port. `differences` and `failures` are those of the dump about it,
    its address and its elements, but for differences of a real server.
    """

    service: str | None
    port_name: str | None
    kind: AddressKindName | None
    traffic_policy: TrafficPolicy | None
    redirect: Redirect | None
    source_list: str | None
    without_endpoints: str | None
    drain_timeout_seconds: int | None
    address: str
    port: int
    protocol: str
    state: VirtualServerState
    desired: Balancing | None
    actual: Balancing | None
    statistics: Statistics | None
    sets: list[str]
    differences: list[str]
    failures: list[Failure]
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


class DifferenceKind(enum.StrEnum):
    """What is not as it should be: the rules, a virtual server, a real server of one, an address, a set's element."""

    RULES = "rules"
    VIRTUAL_SERVER = "virtualServer"
    REAL_SERVER = "realServer"
    ADDRESS = "address"
    ELEMENT = "element"


class Difference(Schema, frozen=True):
    """A sentence that says what is not as it should be, and the Service that it is about, if it is known."""

    service: str | None
    sentence: str
    kind: DifferenceKind


class Dump(Schema, frozen=True):
    """All that `dump` shows.

    `agent` is None if none runs or none answers. Without it, and until it is synced, nothing is known to be desired:
    `services` and `differences` are None, and every `desired` is None or false. `source_lists` has the networks of each
    source list that one of the virtual servers names. `host_firewall_chains` are the agent's own chains in tables of
    the host's firewall.
    """

    schema_version: int
    agent: AgentInfo | None
    watches: list[WatchInfo]
    services: list[ServiceSummary] | None
    virtual_servers: list[VirtualServer]
    source_lists: dict[str, list[str]]
    addresses: list[ServiceAddress]
    firewall: FirewallTable
    differences: list[Difference] | None
    rejections: list[Rejection]
    failures: list[Failure]
    warnings: list[str]
    host_firewall_chains: list[str]


# --- what `resync` asks for ---


class ResyncResult(Schema, frozen=True):
    """What came of a comparison of everything with the kernel.

    `repaired` counts what was done by kind, as "virtual servers created". `failing` are the items that are not as they
    should be, each with the reason. `error` is why the comparison could not be made, "" if it was.
    """

    schema_version: int
    seconds: float
    repaired: dict[str, int]
    failing: list[str]
    error: str = ""


# --- what `top` shows ---


class TopRates(Schema, frozen=True):
    """What went through in a second; "connections" are new ones, "in" is from the clients, "out" to them."""

    connections: float
    packets_in: float
    packets_out: float
    bytes_in: float
    bytes_out: float


class TopRow(Schema, frozen=True):
    """A Service, a virtual server or an endpoint, or the total of all rows, which has no names.

    `drain_seconds_left` is None if nothing drains, or without an agent.
    """

    service: str | None
    virtual_server: str | None
    endpoint: str | None
    serving_endpoints: int
    draining_endpoints: int
    drain_seconds_left: int | None
    active_connections: int
    inactive_connections: int
    per_second: TopRates


class TopSnapshot(Schema, frozen=True):
    """What went through in one interval; `time` is its end (RFC 3339, UTC), `by` what a row is about.

    `agent` is None if none runs or none answers; then no Services are known. `counting` is false while the kernel
    counts nothing (net.ipv4.vs.run_estimation is 0): then all rates are 0.
    """

    schema_version: int
    time: str
    interval_seconds: float
    by: str
    agent: AgentInfo | None
    counting: bool
    rows: list[TopRow]
    total: TopRow
