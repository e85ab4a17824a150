"""The desired state of the whole node: the plans of all Services put together, one change at a time.

Addresses and set elements are shared between virtual servers, and two Services may claim the same virtual server;
`Desired` counts the first and settles the second, so that a change of one Service costs work for that Service only
and names exactly what else it touches.
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.objects import AddressKind, Clients, Protocol, TrafficPolicy
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.plan.services import FIELDS, NOTHING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SourceList
    from ipvsproxy.model.ipvs import VirtualServer
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.plan.node import Dependency
    from ipvsproxy.plan.services import PlannedVirtualServer, ServicePlan

T = TypeVar("T")


@dataclass(slots=True)
class Touched:
    """What a change may have altered in the kernel: the part of the state that has to be compared.

    `services` holds those that claim a virtual server which has another owner now, `service_addresses` the addresses
    that a Service asks for now and none did before, or the reverse. `redirected` are the virtual servers of which
    other clients than before are sent to a ClusterIP. `more_follows` says that this is a part of what is compared, and
    virtual servers are yet to come.
    """

    virtual_servers: set[VirtualServerKey] = field(default_factory=set)
    addresses: set[Address] = field(default_factory=set)
    elements: set[SetElement] = field(default_factory=set)
    services: set[ObjectKey] = field(default_factory=set)
    service_addresses: set[Address] = field(default_factory=set)
    redirected: set[VirtualServerKey] = field(default_factory=set)
    more_follows: bool = False

    def __bool__(self) -> bool:
        """Say whether there is anything to compare."""
        return bool(self.virtual_servers or self.addresses or self.elements)

    def update(self, other: Touched) -> None:
        """Add what the other names."""
        self.virtual_servers |= other.virtual_servers
        self.addresses |= other.addresses
        self.elements |= other.elements
        self.services |= other.services
        self.redirected |= other.redirected
        self.service_addresses |= other.service_addresses


class _Claim(NamedTuple):
    """A Service's wish for a virtual server; of several the least one, as tuples compare, has it."""

    kind: AddressKind
    created: int
    service: ObjectKey


class Desired:
    """The state that the kernel should have. Not thread-safe: the reconciler alone has it."""

    def __init__(self) -> None:
        """Begin with nothing desired."""
        self._plans: dict[ObjectKey, ServicePlan] = {}
        self._dependent: dict[ObjectKey, Dependency] = {}
        self._planned: dict[VirtualServerKey, PlannedVirtualServer] = {}
        self._owners: dict[VirtualServerKey, ObjectKey] = {}
        self._owners_before: dict[VirtualServerKey, ObjectKey | None] = {}
        self._claims: dict[VirtualServerKey, list[_Claim]] = {}
        self._service_addresses: Counter[Address] = Counter()
        self._foreign: frozenset[VirtualServerKey] = frozenset()
        self._closed_addresses: frozenset[Address] = frozenset()
        self._addresses: Counter[Address] = Counter()
        self._elements: Counter[SetElement] = Counter()
        self._agent_ports: frozenset[int] = frozenset()

    @property
    def addresses(self) -> AbstractSet[Address]:
        """The addresses that have to be bound: those of all desired virtual servers that are not node ports."""
        return self._addresses.keys()

    @property
    def service_addresses(self) -> AbstractSet[Address]:
        """The addresses that any Service asks for, whether it gets them or not; node ports' left out."""
        return self._service_addresses.keys()

    @property
    def elements(self) -> AbstractSet[SetElement]:
        """The elements of all firewall sets."""
        return self._elements.keys()

    @property
    def agent_ports(self) -> frozenset[int]:
        """The TCP ports at which the agent is reached, whatever the address."""
        checks = (plan.health_check for plan in self._plans.values())
        return self._agent_ports.union(check.port for check in checks if check)

    @property
    def owners(self) -> Mapping[VirtualServerKey, ObjectKey]:
        """The desired virtual servers' keys, each with the Service that has it."""
        return self._owners

    def take_owners_before(self) -> Mapping[VirtualServerKey, ObjectKey | None]:
        """Return who had the virtual servers at the last call that have had other owners since; None for nobody."""
        taken, self._owners_before = self._owners_before, {}
        return taken

    def virtual_server(self, key: VirtualServerKey) -> VirtualServer | None:
        """Return the virtual server as it should be; None if it should not be."""
        planned = self._planned.get(key)
        return planned.virtual_server if planned else None

    @property
    def virtual_servers(self) -> Mapping[VirtualServerKey, PlannedVirtualServer]:
        """The virtual servers as they should be."""
        return self._planned

    def plan(self, service: ObjectKey) -> ServicePlan:
        """Return the Service's last plan."""
        return self._plans.get(service, NOTHING)

    def replace(self, service: ObjectKey, plan: ServicePlan) -> Touched:
        """Put the plan in the place of the Service's last one; return what that touches."""
        before = self._plans.pop(service, NOTHING)
        if plan != NOTHING:
            self._plans[service] = plan
        if plan.depends_on:
            self._dependent[service] = plan.depends_on
        else:
            self._dependent.pop(service, None)
        touched = Touched()
        for key in before.virtual_servers.keys() | plan.virtual_servers.keys():
            had, has = before.virtual_servers.get(key), plan.virtual_servers.get(key)
            if not (had and has and had.kind is has.kind and before.created == plan.created):
                if has:
                    bisect.insort(self._claims.setdefault(key, []), _Claim(has.kind, plan.created, service))
                    _count(self._service_addresses, _bound(has), 1, touched.service_addresses)
                if had:
                    self._withdraw(_Claim(had.kind, before.created, service), key)
                    _count(self._service_addresses, _bound(had), -1, touched.service_addresses)
            self._settle(key, touched)
        _count(self._elements, _health_check(plan), 1, touched.elements)
        _count(self._elements, _health_check(before), -1, touched.elements)
        return touched

    def answer_at(self, ports: frozenset[int]) -> Touched:
        """Let the agent be reached at these TCP ports, beside health check node ports; return what that touches."""
        touched, before = Touched(), self._agent_ports
        self._agent_ports = ports
        _count(self._elements, map(agent_port, ports), 1, touched.elements)
        _count(self._elements, map(agent_port, before), -1, touched.elements)
        return touched

    def exclude(
        self, foreign: Iterable[VirtualServerKey], elsewhere: Container[Address] = frozenset()
    ) -> Touched:
        """Leave alone what these virtual servers of somebody else's are at; return what that touches.

        That is their own keys. It is all of their addresses, too, where the address would have to be bound, because
        binding it would make them ours: so not where node ports are, nor at the addresses `elsewhere`, which another
        interface holds. The arguments replace those of the last call.
        """
        excluded = frozenset(foreign)
        closed = frozenset(key.address for key in excluded if key.address not in elsewhere)
        changed = {key.address for key in excluded ^ self._foreign} | (closed ^ self._closed_addresses)
        self._foreign, self._closed_addresses = excluded, closed
        touched = Touched()
        if changed:
            for key in [key for key in self._claims if key.address in changed]:
                self._settle(key, touched)
        return touched

    def redirected_to(
        self, keys: AbstractSet[VirtualServerKey]
    ) -> Iterator[tuple[VirtualServerKey, VirtualServerKey]]:
        """Yield the virtual servers of which some clients are sent to one of these instead, each with that one."""
        for owner in {self._owners[key] for key in keys if key in self._owners}:
            for each, planned in self._plans[owner].virtual_servers.items():
                redirect = planned.redirect
                if redirect is None:
                    continue
                target = VirtualServerKey(redirect.address, each.protocol, redirect.port)
                if target in keys:
                    yield each, target

    def depending_on(self, facts: Dependency) -> list[ObjectKey]:
        """Return the Services whose plans depend on any of these facts of the node."""
        return [service for service, depends_on in self._dependent.items() if depends_on & facts]

    def scheduled_by(self, schedulers: Container[str]) -> list[ObjectKey]:
        """Return the Services whose plans use any of these schedulers."""
        return [
            service
            for service, plan in self._plans.items()
            if any(each.virtual_server.scheduler in schedulers for each in plan.virtual_servers.values())
        ]

    def without_service_addresses(self) -> list[ObjectKey]:
        """Return the Services of which an endpoint is left out for being a service address."""
        return [service for service, plan in self._plans.items() if plan.at_service_addresses]

    def rejections(self) -> Iterator[Rejection]:
        """Say for each Service which parts of it it does not get, and why."""
        for service in self._plans:
            yield from self.rejections_of(service)

    def rejections_of(self, service: ObjectKey) -> Iterator[Rejection]:
        """Say which parts of it one Service does not get, and why."""
        plan = self.plan(service)
        yield from plan.rejections
        # One of several that say the same: a node port is taken at each of the node's addresses.
        yield from dict.fromkeys(
            Rejection(
                "Service", service, FIELDS[planned.kind], reason, plan.uid, foreign=key not in self._owners
            )
            for key, planned in plan.virtual_servers.items()
            if (reason := self._why_not(service, key, planned.kind))
        )

    def _why_not(self, service: ObjectKey, key: VirtualServerKey, kind: AddressKind) -> str:
        """Return why a Service does not get a virtual server that it asks for, "" if it does."""
        owner = self._owners.get(key)
        if owner == service:
            return ""
        if owner is None:
            return f"{self._whose(key)} is not ipvsproxy's"
        # The words are the same on all nodes, which write one Event between them.
        claimed = f"{key.port}/{key.protocol.name.lower()}" if kind is AddressKind.NODE_PORT else key
        return f"{claimed} belongs to Service {owner}, {self._why_first(owner, key, kind)}"

    def _whose(self, key: VirtualServerKey) -> str:
        if key in self._foreign:
            return f"virtual server {key}"
        return f"{format_address(key.address)} carries a virtual server that"

    def _why_first(self, owner: ObjectKey, key: VirtualServerKey, kind: AddressKind) -> str:
        owners = self._plans[owner].virtual_servers[key].kind
        return _OWNED_AS[owners] if owners is not kind else "the older one, or the first by name"

    def _withdraw(self, claim: _Claim, key: VirtualServerKey) -> None:
        claims = self._claims[key]
        claims.remove(claim)
        if not claims:
            del self._claims[key]

    def _settle(self, key: VirtualServerKey, touched: Touched) -> None:
        """Let the oldest claim have the key, and count what it has in the place of what it had."""
        before = self._planned.get(key)
        claims = self._claims.get(key, ())
        owner_before = self._owners.get(key)
        after: PlannedVirtualServer | None = None
        if claims and not self._is_foreign(key, claims[0].kind):
            owner = claims[0].service
            after = self._plans[owner].virtual_servers[key]
            self._owners[key] = owner
        else:
            self._owners.pop(key, None)
        if self._owners.get(key) != owner_before:
            self._owners_before.setdefault(key, owner_before)
            touched.services.update(claim.service for claim in claims)
        if after == before:
            return
        touched.virtual_servers.add(key)
        if before and before.redirect != (after.redirect if after else None):
            touched.redirected.add(key)
        if after is None:
            del self._planned[key]
        else:
            self._planned[key] = after
        # Counted up first, so that what stays never drops to zero in between.
        if after is not None:
            _count(self._addresses, _bound(after), 1, touched.addresses)
            _count(self._elements, elements_of(after), 1, touched.elements)
        if before is not None:
            _count(self._addresses, _bound(before), -1, touched.addresses)
            _count(self._elements, elements_of(before), -1, touched.elements)

    def _is_foreign(self, key: VirtualServerKey, kind: AddressKind) -> bool:
        if key in self._foreign:
            return True
        return kind is not AddressKind.NODE_PORT and key.address in self._closed_addresses


DESTINATIONS = {
    Clients.INSIDE: FirewallSet.IN_CLUSTER_DESTINATIONS,
    Clients.OUTSIDE: FirewallSet.OUTSIDE_DESTINATIONS,
}
"""The map that leads clients to the ClusterIP."""

_OWNED_AS = {
    AddressKind.CLUSTER_IP: "whose clusterIP it is",
    AddressKind.NODE_PORT: "whose nodePort it is",
    AddressKind.LOAD_BALANCER_IP: "whose load balancer has it",
    AddressKind.EXTERNAL_IP: "whose external IP it is",
}


def agent_port(port: int) -> SetElement:
    """Return the element by which the agent is reached at a TCP port of every address, those of Services included."""
    return SetElement(FirewallSet.AGENT_PORTS, (Protocol.TCP, port))


def _health_check(plan: ServicePlan) -> tuple[SetElement, ...]:
    return (agent_port(plan.health_check.port),) if plan.health_check else ()


def _bound(planned: PlannedVirtualServer) -> tuple[Address, ...]:
    """Return the address that has to be bound for the virtual server; the node has those of node ports already."""
    return () if planned.kind is AddressKind.NODE_PORT else (planned.virtual_server.key.address,)


def elements_of(planned: PlannedVirtualServer) -> Iterator[SetElement]:
    """Yield the elements that a virtual server needs in the firewall's sets, each once."""
    key = planned.virtual_server.key
    yield SetElement(FirewallSet.SERVICE_PORTS, key)
    if planned.kind is not AddressKind.NODE_PORT:
        yield SetElement(FirewallSet.SERVICE_ADDRESSES, (key.address,))
    if planned.only_remote_endpoints and planned.kind is not AddressKind.CLUSTER_IP:
        yield SetElement(FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS, key)
    elif not planned.virtual_server.real_servers:
        yield SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, key)
    if planned.kind is not AddressKind.CLUSTER_IP:
        is_local = planned.policy is TrafficPolicy.LOCAL
        yield SetElement(FirewallSet.LOCAL_PORTS if is_local else FirewallSet.MASQUERADED_PORTS, key)
        yield SetElement(FirewallSet.KEPT_PORTS, key)
    if planned.redirect is not None:
        clients, address, port = planned.redirect
        yield SetElement(DESTINATIONS[clients], (*key, address, port))
    if planned.allowed_sources is not None:
        yield SetElement(FirewallSet.SOURCE_LISTS, (planned.allowed_sources,))
        yield leading_to(planned.allowed_sources, key)
    for address in set(planned.local_endpoints):
        yield SetElement(FirewallSet.LOCAL_ENDPOINTS, (address, address))


def leading_to(source_list: SourceList, key: VirtualServerKey) -> SetElement:
    """Return the element by which the sources of a list, and no others, may use a port."""
    return SetElement(FirewallSet.RESTRICTED_PORTS, (*key, source_list.name))


def _count(counter: Counter[T], items: Iterable[T], step: int, touched: set[T]) -> None:
    for item in items:
        counter[item] += step
        if counter[item] == 0:
            del counter[item]
            touched.add(item)
        elif counter[item] == step:
            touched.add(item)
