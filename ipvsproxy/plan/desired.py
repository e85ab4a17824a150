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
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.plan.services import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServer, VirtualServerKey
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.plan.services import PlannedVirtualServer, ServicePlan

T = TypeVar("T")


@dataclass(slots=True)
class Touched:
    """What a change may have altered in the kernel: the part of the state that has to be compared.

    `services` holds those that claim a virtual server which has another owner now.
    """

    virtual_servers: set[VirtualServerKey] = field(default_factory=set)
    addresses: set[Address] = field(default_factory=set)
    elements: set[SetElement] = field(default_factory=set)
    services: set[ObjectKey] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Say whether there is anything to compare."""
        return bool(self.virtual_servers or self.addresses or self.elements)

    def update(self, other: Touched) -> None:
        """Add what the other names."""
        self.virtual_servers |= other.virtual_servers
        self.addresses |= other.addresses
        self.elements |= other.elements
        self.services |= other.services


class _Claim(NamedTuple):
    created: int
    service: ObjectKey


class Desired:
    """The state that the kernel should have. Not thread-safe: the reconciler alone has it."""

    def __init__(self) -> None:
        """Begin with nothing desired."""
        self._plans: dict[ObjectKey, ServicePlan] = {}
        self._planned: dict[VirtualServerKey, PlannedVirtualServer] = {}
        self._owners: dict[VirtualServerKey, ObjectKey] = {}
        self._claims: dict[VirtualServerKey, list[_Claim]] = {}
        self._foreign: frozenset[Address] = frozenset()
        self._addresses: Counter[Address] = Counter()
        self._elements: Counter[SetElement] = Counter()

    @property
    def addresses(self) -> AbstractSet[Address]:
        """The service addresses: those of all desired virtual servers."""
        return self._addresses.keys()

    @property
    def elements(self) -> AbstractSet[SetElement]:
        """The elements of all firewall sets."""
        return self._elements.keys()

    @property
    def owners(self) -> Mapping[VirtualServerKey, ObjectKey]:
        """The desired virtual servers' keys, each with the Service that has it."""
        return self._owners

    def virtual_server(self, key: VirtualServerKey) -> VirtualServer | None:
        """Return the virtual server as it should be; None if it should not be."""
        planned = self._planned.get(key)
        return planned.virtual_server if planned else None

    @property
    def virtual_servers(self) -> Mapping[VirtualServerKey, PlannedVirtualServer]:
        """The virtual servers as they should be."""
        return self._planned

    def replace(self, service: ObjectKey, plan: ServicePlan) -> Touched:
        """Put the plan in the place of the Service's last one; return what that touches."""
        before = self._plans.pop(service, NOTHING)
        if plan.virtual_servers:
            self._plans[service] = plan
        if before.created != plan.created or before.virtual_servers.keys() != plan.virtual_servers.keys():
            for key in before.virtual_servers:
                self._withdraw(_Claim(before.created, service), key)
            for key in plan.virtual_servers:
                bisect.insort(self._claims.setdefault(key, []), _Claim(plan.created, service))
        touched = Touched()
        for key in before.virtual_servers.keys() | plan.virtual_servers.keys():
            self._settle(key, touched)
        return touched

    def exclude(self, foreign: Iterable[Address]) -> Touched:
        """Desire nothing on these addresses, which carry somebody else's virtual servers; return what that touches.

        The addresses replace those of the last call.
        """
        excluded = frozenset(foreign)
        changed = excluded ^ self._foreign
        self._foreign = excluded
        touched = Touched()
        if changed:
            for key in [key for key in self._claims if key.address in changed]:
                self._settle(key, touched)
        return touched

    def rejections(self) -> Iterator[Rejection]:
        """Say for each Service which of its virtual servers it does not get, and why."""
        for service in self._plans:
            yield from self.rejections_of(service)

    def rejections_of(self, service: ObjectKey) -> Iterator[Rejection]:
        """Say which of its virtual servers one Service does not get, and why."""
        plan = self._plans.get(service, NOTHING)
        for key in plan.virtual_servers:
            owner = self._owners.get(key)
            if owner is None:
                reason = f"{format_address(key.address)} carries a virtual server that is not ipvsproxy's"
            elif owner != service:
                reason = f"{key} belongs to Service {owner}, the older one, or the first by name"
            else:
                continue
            yield Rejection("Service", service, "spec.clusterIPs", reason)

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
        if claims and key.address not in self._foreign:
            owner = claims[0].service
            after = self._plans[owner].virtual_servers[key]
            self._owners[key] = owner
        else:
            self._owners.pop(key, None)
        if self._owners.get(key) != owner_before:
            touched.services.update(claim.service for claim in claims)
        if after == before:
            return
        touched.virtual_servers.add(key)
        if after is None:
            del self._planned[key]
        else:
            self._planned[key] = after
        # Counted up first, so that what stays never drops to zero in between.
        if after is not None:
            _count(self._addresses, (key.address,), 1, touched.addresses)
            _count(self._elements, elements_of(after), 1, touched.elements)
        if before is not None:
            _count(self._addresses, (key.address,), -1, touched.addresses)
            _count(self._elements, elements_of(before), -1, touched.elements)


def elements_of(planned: PlannedVirtualServer) -> Iterator[SetElement]:
    """Yield the elements that a virtual server needs in the firewall's sets, each once."""
    key = planned.virtual_server.key
    yield SetElement(FirewallSet.SERVICE_ADDRESSES, (key.address,))
    yield SetElement(FirewallSet.SERVICE_PORTS, key)
    if not planned.virtual_server.real_servers:
        yield SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, key)
    for address in set(planned.local_endpoints):
        yield SetElement(FirewallSet.LOCAL_ENDPOINTS, (address, address))


def _count(counter: Counter[T], items: Iterable[T], step: int, touched: set[T]) -> None:
    for item in items:
        counter[item] += step
        if counter[item] == 0:
            del counter[item]
            touched.add(item)
        elif counter[item] == step:
            touched.add(item)
