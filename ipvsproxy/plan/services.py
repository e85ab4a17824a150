"""What one Service becomes in the kernel: its virtual servers, each with its real servers.

Each port of a Service gets a virtual server at each of these, with or without endpoints:

| address | port | who serves |
|---|---|---|
| every clusterIP | port | by internalTrafficPolicy |
| every node address selected by nodePortAddresses | nodePort | by externalTrafficPolicy |
| every status.loadBalancer.ingress IP | port | by externalTrafficPolicy |
| every externalIP that is allowed | port | by externalTrafficPolicy |

Under externalTrafficPolicy Local, clients inside the cluster get all endpoints at the last three as well: nftables
sends them to the ClusterIP, or clients outside, if the ClusterIP has this node's endpoints only (`Redirect`).

Headless Services and those of type ExternalName have none. No load balancer's or external IP takes over an address of
a node's, a pod's or the API server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ipvsproxy.model.addresses import Family, family, format_address, format_endpoint
from ipvsproxy.model.ipvs import RealServer, ServiceFlag, VirtualServer, VirtualServerKey
from ipvsproxy.model.objects import AddressKind, Clients, TrafficPolicy
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.plan.endpoints import EndpointReason, EndpointsByPort, answers, decide_endpoints
from ipvsproxy.plan.node import Dependency, Reservation
from ipvsproxy.plan.pods import Claims, pod_addresses
from ipvsproxy.plan.source_ranges import allowed_sources, why_nobody

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from ipvsproxy.model.addresses import Address, Network
    from ipvsproxy.model.firewall import SourceList
    from ipvsproxy.model.objects import Endpoint, EndpointSlice, Service, ServicePort
    from ipvsproxy.plan.endpoints import EndpointDecision, Place
    from ipvsproxy.plan.node import NodeFacts

    Decided: TypeAlias = dict[VirtualServerKey, Sequence[EndpointDecision]]


class PlanSettings(NamedTuple):
    """What the plan of every Service depends on beside its objects and the node; `drain_timeout` is in seconds."""

    scheduler: str
    drain_timeout: float
    allowed_external_ips: tuple[Network, ...]


class Context(NamedTuple):
    """What surrounds a Service: the settings, the node, and the service addresses of all Services.

    `missing_schedulers` are those that the kernel turned out not to have. `claims` tells the addresses of pods, and who
    claims which address for clients outside.
    """

    settings: PlanSettings
    node: NodeFacts
    service_addresses: Container[Address] = frozenset()
    missing_schedulers: frozenset[str] = frozenset()
    claims: Claims = Claims()


class HealthCheck(NamedTuple):
    """A Service's health check node port, and how many ready endpoints it has on this node.

    `created` and `uid` are the Service's: of several with one port the oldest has it.
    """

    port: int
    local_endpoints: int
    created: int = 0
    uid: str = ""


class Redirect(NamedTuple):
    """Which clients are sent on to another virtual server, and its address and port."""

    clients: Clients
    address: Address
    port: int


class PlannedVirtualServer(NamedTuple):
    """A virtual server as it should be, and what its traffic meets.

    `local_endpoints` are the endpoints behind it that may run on this node. `policy` is the traffic policy.
    `only_remote_endpoints` says that the policy is Local and endpoints serve, but none of this node. `redirect` says
    which clients are sent to the ClusterIP instead. `allowed_sources` None lets every source in. A real server that
    leaves may keep its connections for `drain_timeout` seconds.
    """

    virtual_server: VirtualServer
    local_endpoints: tuple[Address, ...] = ()
    kind: AddressKind = AddressKind.CLUSTER_IP
    policy: TrafficPolicy = TrafficPolicy.CLUSTER
    only_remote_endpoints: bool = False
    redirect: Redirect | None = None
    allowed_sources: SourceList | None = None
    drain_timeout: float = 0.0


class ServicePlan(NamedTuple):
    """All that one Service asks of the kernel.

    `created` decides between Services that claim the same key. `rejections` are the parts that it does not get,
    whatever other Services ask for. `at_service_addresses` are the addresses of endpoints that are service
    addresses, too.
    """

    virtual_servers: Mapping[VirtualServerKey, PlannedVirtualServer]
    created: int = 0
    uid: str = ""
    rejections: tuple[Rejection, ...] = ()
    health_check: HealthCheck | None = None
    depends_on: Dependency = Dependency(0)
    at_service_addresses: frozenset[Address] = frozenset()


NOTHING = ServicePlan({})

# One Service should not take the kernel's memory and the agent's time from all others: so many virtual servers and real
# servers together are what a whole cluster of 10,000 Services may have.
MAXIMUM_SERVERS = 200_000

SCHEDULER_FIELD = "metadata.annotations[ipvsproxy.io/scheduler]"
# The part of the object that a virtual server of each kind comes from.
FIELDS = {
    AddressKind.CLUSTER_IP: "spec.clusterIPs",
    AddressKind.NODE_PORT: "spec.ports[].nodePort",
    AddressKind.LOAD_BALANCER_IP: "status.loadBalancer.ingress",
    AddressKind.EXTERNAL_IP: "spec.externalIPs",
}


def plan_service(
    service: Service | None, slices: Sequence[EndpointSlice], context: Context, decided: Decided | None = None
) -> ServicePlan:
    """Plan one Service; None, a Service that does not exist (any more), asks for nothing.

    What was decided about the endpoints of each virtual server is put into `decided`.
    """
    if service is None or not service.is_balanced:
        return NOTHING
    rejections: list[Rejection] = []
    external = list(_external_addresses(service, context, rejections))
    planning = _Planning(service, context, {} if decided is None else decided)
    for of, cluster_ips in _by_family(service.cluster_ips).items():
        endpoints_of = EndpointsByPort(of, slices, context.node.here.node_name)
        addresses = list(_addresses(of, cluster_ips, external, context.node))
        for port in service.ports:
            planning.add(port, endpoints_of, addresses, cluster_ips[0])
    rejections += planning.rejections()
    rejections += _claimed_pods(service, slices, context)
    return ServicePlan(
        planning.virtual_servers,
        service.created,
        service.uid,
        tuple(rejections),
        planning.health_check(),
        _dependencies(service, slices),
        frozenset(
            endpoint.address
            for each in slices
            for endpoint in each.endpoints
            if endpoint.address in context.service_addresses
        ),
    )


class EndpointsBehind:
    """The endpoints of one Service, as they were decided about for its virtual servers."""

    def __init__(self, service: Service, slices: Sequence[EndpointSlice], context: Context) -> None:
        """Look at the Service's ports; what is behind a virtual server is decided when it is asked for."""
        self._service = service
        self._context = context
        self._ports = {
            (is_node_port, port.protocol, port.node_port if is_node_port else port.port): port
            for port in reversed(service.ports)
            for is_node_port in (False, True)
        }
        node = context.node.here.node_name
        self._endpoints = {of: EndpointsByPort(of, slices, node) for of in Family}

    def of(self, planned: PlannedVirtualServer) -> tuple[ServicePort | None, list[EndpointDecision]]:
        """Return the Service's port that a virtual server is for, None if it has none such, and its endpoints."""
        address, protocol, number = planned.virtual_server.key
        port = self._ports.get((planned.kind is AddressKind.NODE_PORT, protocol, number))
        if port is None:
            return None, []
        endpoints = self._endpoints[family(address)].of(port.name, port.protocol)
        return port, _Backends(self._service, endpoints, self._context).decided(planned.kind)


def _by_family(addresses: Sequence[Address]) -> dict[Family, list[Address]]:
    found: dict[Family, list[Address]] = {}
    for address in addresses:
        found.setdefault(family(address), []).append(address)
    return found


def _external_addresses(
    service: Service, context: Context, rejections: list[Rejection]
) -> Iterator[tuple[AddressKind, Address]]:
    """Yield the addresses that a Service may have beside its clusterIPs; list the others with the reasons."""
    for kind, addresses in (
        (AddressKind.LOAD_BALANCER_IP, service.load_balancer_ips),
        (AddressKind.EXTERNAL_IP, service.external_ips),
    ):
        for address in addresses:
            if reason := _why_not_external(kind, address, context):
                rejections.append(Rejection("Service", service.key, FIELDS[kind], reason, service.uid))
            else:
                yield kind, address


def _why_not_external(kind: AddressKind, address: Address, context: Context) -> str:
    """Return why no Service may have the address as its load balancer's or external IP, "" if one may.

    An address that an interface holds alone may have been put there to be served: a load balancer's IP by whoever
    announces it, an external IP if the operator says so in naming its network.
    """
    text, owner = format_address(address), context.node.reservation(address)
    if address in context.claims.pods and owner in (None, Reservation.INTERFACE):
        owner = Reservation.POD
    allowed = [each for each in context.settings.allowed_external_ips if each.contains(address)]
    if owner is Reservation.INTERFACE:
        if kind is AddressKind.LOAD_BALANCER_IP or any(network.prefix_length for network in allowed):
            return ""
        return f"{text} is {owner}, and --allowed-external-ips does not name its network"
    if owner:
        return f"{text} is {owner}"
    if kind is AddressKind.EXTERNAL_IP and not allowed:
        return f"{text} is in no network that external IPs are allowed from (--allowed-external-ips)"
    return ""


def _claimed_pods(service: Service, slices: Sequence[EndpointSlice], context: Context) -> Iterator[Rejection]:
    """Tell of the Service's pods whose address another Service claims, and does not get."""
    claimants = context.claims.claimants
    claimed = {
        address: others
        for address in pod_addresses(service, slices)
        if (others := [each for each in claimants.get(address, ()) if each != service.key])
    }
    if claimed:
        first = min(claimed)
        more = f", and {len(claimed) - 1} more pods' addresses" if len(claimed) > 1 else ""
        reason = (
            f"{format_address(first)}{more}: claimed by Service {claimed[first][0]} too, "
            "which does not get a pod's address"
        )
        yield Rejection("Service", service.key, "endpoints", reason, service.uid)


def _addresses(
    of: Family,
    cluster_ips: Sequence[Address],
    external: Sequence[tuple[AddressKind, Address]],
    node: NodeFacts,
) -> Iterator[tuple[AddressKind, Address]]:
    """Yield where the ports are served, in one family, by precedence; node ports for those that have one."""
    for address in cluster_ips:
        yield AddressKind.CLUSTER_IP, address
    for address in node.node_port_addresses:
        if family(address) is of:
            yield AddressKind.NODE_PORT, address
    for kind, address in external:
        if family(address) is of:
            yield kind, address


def _dependencies(service: Service, slices: Sequence[EndpointSlice]) -> Dependency:
    found = Dependency(0)
    if service.external_ips or service.load_balancer_ips or any(port.node_port for port in service.ports):
        found |= Dependency.ADDRESSES
    if any(endpoint.for_zones for each in slices for endpoint in each.endpoints):
        found |= Dependency.ZONE
    return found


class _Planning:
    """The virtual servers of one Service as they come together, and what is noticed on the way.

    `misled` are the endpoints at service addresses.
    """

    def __init__(self, service: Service, context: Context, decided: Decided) -> None:
        self._decided = decided
        self.virtual_servers: dict[VirtualServerKey, PlannedVirtualServer] = {}
        self.misled: set[Place] = set()
        self._service = service
        self._context = context
        self._size = 0
        self._left_out = 0
        self._ready_here: dict[Family, set[Address]] = {}
        self._sources: dict[Address, SourceList | None] = {}

    def add(
        self,
        port: ServicePort,
        endpoints: EndpointsByPort,
        addresses: Sequence[tuple[AddressKind, Address]],
        cluster_ip: Address,
    ) -> None:
        """Plan one port in one family at these addresses; of two places that are the same, the first has it."""
        if self._size >= MAXIMUM_SERVERS:
            self._left_out += len(addresses)
            return
        backends = _Backends(self._service, endpoints.of(port.name, port.protocol), self._context)
        self.misled |= backends.at_service_addresses
        if self._service.health_check_node_port:
            self._ready_here.setdefault(family(cluster_ip), set()).update(backends.ready_here())
        for kind, address in addresses:
            number = port.node_port if kind is AddressKind.NODE_PORT else port.port
            key = VirtualServerKey(address, port.protocol, number)
            if not number or key in self.virtual_servers:
                continue
            if self._size < MAXIMUM_SERVERS:
                at_cluster_ip = (cluster_ip, port.port)
                planned = backends.plan(key, kind, at_cluster_ip, self._sources_of(kind, address))
                self.virtual_servers[key] = planned
                self._size += 1 + len(planned.virtual_server.real_servers)
                self._decided[key] = backends.decided(kind)
            else:
                self._left_out += 1

    def _sources_of(self, kind: AddressKind, address: Address) -> SourceList | None:
        """Return who may use an address; all ports have the same."""
        if kind is not AddressKind.LOAD_BALANCER_IP:
            return None
        if address not in self._sources:
            ranges, node = self._service.load_balancer_source_ranges, self._context.node
            self._sources[address] = allowed_sources(ranges, address, node.addresses)
        return self._sources[address]

    def health_check(self) -> HealthCheck | None:
        """Count the ready endpoints of this node, each once, though a pod has an address of each family."""
        port = self._service.health_check_node_port
        if not port:
            return None
        count = max(map(len, self._ready_here.values()), default=0)
        return HealthCheck(port, count, self._service.created, self._service.uid)

    def rejections(self) -> Iterator[Rejection]:
        """Say what was left out."""
        key, uid = self._service.key, self._service.uid
        scheduler, usual = self._service.options.scheduler, self._context.settings.scheduler
        if scheduler in self._context.missing_schedulers and scheduler != usual:
            reason = (
                f"the kernel has no scheduler {scheduler}, {usual} is used: "
                f"load the module ip_vs_{scheduler} and start the agent anew"
            )
            yield Rejection("Service", key, SCHEDULER_FIELD, reason, uid)
        if self._left_out:
            reason = (
                f"{self._left_out} addresses and ports are not served: the ones before them make {MAXIMUM_SERVERS} "
                "virtual servers and real servers, which is the maximum of one Service"
            )
            yield Rejection("Service", key, "", reason, uid)
        for of in sorted(set(map(family, self._sources))):
            if reason := why_nobody(self._service.load_balancer_source_ranges, of):
                yield Rejection("Service", key, "spec.loadBalancerSourceRanges", reason, uid)
        if self.misled:
            others = f", and {len(self.misled) - 1} more" if len(self.misled) > 1 else ""
            first = format_endpoint(*min(self.misled))
            reason = f"endpoint {first}{others}: {EndpointReason.SERVICE_ADDRESS}"
            yield Rejection("Service", key, "endpoints", reason, uid)


class _Backends:
    """The endpoints of one port of a Service in one family, decided about once for each traffic policy."""

    def __init__(self, service: Service, endpoints: Mapping[Place, Endpoint], context: Context) -> None:
        self._service = service
        self._endpoints = endpoints
        self._context = context
        self._chosen: dict[EndpointReason | None, tuple[tuple[RealServer, ...], tuple[Address, ...]]] = {}
        self._decided: dict[EndpointReason | None, list[EndpointDecision]] = {}
        self.at_service_addresses = {place for place in endpoints if place[0] in context.service_addresses}

    def decided(self, kind: AddressKind) -> list[EndpointDecision]:
        """Decide about every endpoint, for traffic to an address of this kind."""
        not_local = _not_local(self._service, kind)
        if not_local not in self._decided:
            self._decided[not_local] = decide_endpoints(
                self._endpoints, self._context.node.here, self._context.service_addresses, not_local
            )
        return self._decided[not_local]

    def plan(
        self, key: VirtualServerKey, kind: AddressKind, at_cluster_ip: Place, sources: SourceList | None
    ) -> PlannedVirtualServer:
        """Plan the virtual server at an address of this kind, which `sources` may use.

        `at_cluster_ip` is where the same port is inside.
        """
        service, options = self._service, self._service.options
        real_servers, local_endpoints = self._choose(kind)
        scheduler, flags = _balancing(service, self._context)
        virtual_server = VirtualServer(
            key,
            scheduler,
            flags,
            service.session_affinity_timeout,
            real_servers,
        )
        drain_timeout = options.drain_timeout
        if drain_timeout is None:
            drain_timeout = self._context.settings.drain_timeout
        policy = _policy(service, kind)
        return PlannedVirtualServer(
            virtual_server,
            local_endpoints,
            kind,
            policy,
            only_remote_endpoints=policy is TrafficPolicy.LOCAL
            and not self._serve_here(kind)
            and self._answer_anywhere(),
            redirect=_redirect(service, kind, at_cluster_ip),
            allowed_sources=sources,
            drain_timeout=drain_timeout,
        )

    def ready_here(self) -> set[Address]:
        """Return the addresses of the endpoints that are ready, and certainly of this node."""
        return {
            address
            for (address, _), endpoint in self._endpoints.items()
            if endpoint.ready
            and endpoint.node_name == self._context.node.here.node_name
            and address not in self._context.service_addresses
        }

    def _choose(self, kind: AddressKind) -> tuple[tuple[RealServer, ...], tuple[Address, ...]]:
        """Return the real servers, and the addresses of those that may run on this node."""
        not_local = _not_local(self._service, kind)
        if not_local not in self._chosen:
            limit = self._service.options.maximum_connections
            serving = [decision for decision in self.decided(kind) if decision.serves]
            self._chosen[not_local] = (
                tuple([RealServer(each.address, each.port, 1, limit) for each in serving]),
                tuple(each.address for each in serving if each.may_be_local),
            )
        return self._chosen[not_local]

    def _serve_here(self, kind: AddressKind) -> bool:
        """Say whether endpoints of this node serve under a policy Local."""
        has_them = AddressKind.CLUSTER_IP if _has_all_endpoints(self._service) else kind
        return bool(self._choose(has_them)[0])

    def _answer_anywhere(self) -> bool:
        return any(
            answers(endpoint) and address not in self._context.service_addresses
            for (address, _), endpoint in self._endpoints.items()
        )


# Of these, SCHEDULER_1 is the flag `fallback` (ip_vs_sh.c, ip_vs_mh.c): who would get a real server that drains gets
# another, where he would be refused without it.
_WITH_FALLBACK = frozenset({"sh", "mh"})


def _balancing(service: Service, context: Context) -> tuple[str, int]:
    """Return the scheduler and the flags; the annotations' if the kernel has such a scheduler."""
    scheduler, flags = service.options.scheduler, service.options.scheduler_flags
    if scheduler in context.missing_schedulers:
        scheduler, flags = None, 0
    if scheduler is None:
        scheduler = context.settings.scheduler
        # SCHEDULER_2 is its flag `port`. kube-proxy sets it, so that the clients of one proxy are spread.
        if scheduler == "mh":
            flags = flags or ServiceFlag.SCHEDULER_2
    if service.session_affinity_timeout:
        flags |= ServiceFlag.PERSISTENT
    if scheduler in _WITH_FALLBACK:
        flags |= ServiceFlag.SCHEDULER_1
    return scheduler, flags


def _policy(service: Service, kind: AddressKind) -> TrafficPolicy:
    """Return the traffic policy for an address of this kind."""
    if kind is AddressKind.CLUSTER_IP:
        return service.internal_traffic_policy
    return service.external_traffic_policy


def _has_all_endpoints(service: Service) -> bool:
    """Say whether addresses for clients outside have all endpoints, though their policy is Local.

    One of two virtual servers has all endpoints, for clients inside, and one those of this node, for clients outside.
    That is the ClusterIP's and the other's, or the other way round where the ClusterIP's policy is Local, too.
    """
    return TrafficPolicy.LOCAL is service.internal_traffic_policy is service.external_traffic_policy


def _redirect(service: Service, kind: AddressKind, at_cluster_ip: Place) -> Redirect | None:
    """Return which clients the ClusterIP's virtual server is for, of those that connect to an address of this kind."""
    if kind is AddressKind.CLUSTER_IP or service.external_traffic_policy is TrafficPolicy.CLUSTER:
        return None
    return Redirect(Clients.OUTSIDE if _has_all_endpoints(service) else Clients.INSIDE, *at_cluster_ip)


def _not_local(service: Service, kind: AddressKind) -> EndpointReason | None:
    """Return what excludes the endpoints of other nodes; None if the virtual server may have all."""
    if _policy(service, kind) is TrafficPolicy.CLUSTER:
        return None
    if kind is AddressKind.CLUSTER_IP:
        return EndpointReason.NOT_LOCAL_INTERNALLY
    return None if _has_all_endpoints(service) else EndpointReason.NOT_LOCAL_EXTERNALLY
