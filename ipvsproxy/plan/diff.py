"""From desired and actual state to the operations that lead from one to the other, in the order that is safe.

Setting up goes firewall sets, virtual server with its real servers, address; tearing down is the reverse. Hence
the order of `Operations`, which serves both directions at once: what goes, goes from the outside in, then what comes,
comes from the inside out. Set elements come before virtual servers change and go after it: while externalTrafficPolicy
changes, a virtual server that has endpoints of other nodes is masqueraded all the while, and one that has none refuses.

A real server that leaves is not deleted while it may have connections: it gets weight 0 and drains. "Weight 0 and not
desired" is the record of that, and the kernel keeps it across restarts of the agent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.firewall import MAPS, FirewallSet, SetElement
from ipvsproxy.model.ipvs import Command, IpvsOperation, VirtualServerKey
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.ownership import guards, record_of

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence

    from ipvsproxy.model.addresses import Address, Holding
    from ipvsproxy.model.firewall import ElementFields
    from ipvsproxy.model.ipvs import RealServer, VirtualServer
    from ipvsproxy.plan.desired import Desired, Touched


# A Service's source ranges change as a whole, not first one and then another. And who is refused for want of endpoints
# may as well be refused by IPVS: one transaction less for a first endpoint.
_SWITCHED_SETS = frozenset(
    {FirewallSet.RESTRICTED_PORTS, FirewallSet.SOURCE_LISTS, FirewallSet.PORTS_WITHOUT_ENDPOINTS}
)


def goes_first(element: SetElement, desired: Desired) -> bool:
    """Say whether an element goes with the first transaction, before virtual servers are edited.

    Clients that were dropped, since only other nodes served, are refused at once when nobody does.
    """
    if element.set is FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS:
        return element._replace(set=FirewallSet.PORTS_WITHOUT_ENDPOINTS) in desired.elements
    return element.set in _SWITCHED_SETS


class KnownElements:
    """The elements that the firewall's sets are known to have; those of maps are found by their port, too.

    `leading_to` counts the ports that lead to a source list, by its name.
    """

    def __init__(self, elements: Iterable[SetElement] = ()) -> None:
        """Begin with these."""
        self._elements: set[SetElement] = set()
        self._values: dict[tuple[FirewallSet, ElementFields], SetElement] = {}
        self._lists: dict[str, SetElement] = {}
        self.leading_to: Counter[str] = Counter()
        self.update(elements)

    def __contains__(self, element: object) -> bool:
        """Say whether the element is there."""
        return element in self._elements

    def __iter__(self) -> Iterator[SetElement]:
        """Go through all elements."""
        return iter(self._elements)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._elements)

    def update(self, elements: Iterable[SetElement]) -> None:
        """Note that these are there."""
        for element in elements:
            if element.set in MAPS and element not in self._elements:
                self._values[element.set, element.fields[:3]] = element
                self.leading_to.update(list_of(element))
            elif element.set is FirewallSet.SOURCE_LISTS:
                self._lists[element.set_name] = element
            self._elements.add(element)

    def difference_update(self, elements: Iterable[SetElement]) -> None:
        """Note that these are not there."""
        for element in elements:
            if element.set in MAPS and element in self._elements:
                if self._values.get((element.set, element.fields[:3])) == element:
                    del self._values[element.set, element.fields[:3]]
                self.leading_to.subtract(list_of(element))
            elif element.set is FirewallSet.SOURCE_LISTS:
                self._lists.pop(element.set_name, None)
            self._elements.discard(element)

    def replace(self, elements: Iterable[SetElement]) -> None:
        """Note that these are there, and no others."""
        self._elements.clear()
        self._values.clear()
        self._lists.clear()
        self.leading_to.clear()
        self.update(elements)

    def of_maps(self) -> Collection[SetElement]:
        """Return the elements of maps."""
        return self._values.values()

    def value(self, of: FirewallSet, key: ElementFields) -> SetElement | None:
        """Return the element that a map has for a port."""
        return self._values.get((of, key))

    def list_named(self, name: str) -> SetElement | None:
        """Return the source list with this name."""
        return self._lists.get(name)


def list_of(element: SetElement) -> tuple[str, ...]:
    """Return the name of the source list that an element leads to, if it leads to one."""
    name = element.fields[-1]
    return (name,) if element.set is FirewallSet.RESTRICTED_PORTS and isinstance(name, str) else ()


@dataclass(slots=True)
class Actual:
    """What of the kernel's state is ours, as far as it is known.

    `elsewhere` holds the addresses on the node's other interfaces, and how: they are not bound again.
    """

    virtual_servers: dict[VirtualServerKey, VirtualServer] = field(default_factory=dict)
    addresses: set[Address] = field(default_factory=set)
    elements: KnownElements = field(default_factory=KnownElements)
    elsewhere: Mapping[Address, Holding] = field(default_factory=dict)


class Edit(NamedTuple):
    """The operations that bring one virtual server to its desired state, and the state that they leave."""

    operations: list[IpvsOperation]
    after: VirtualServer


class Operations(NamedTuple):
    """What has to be done, in this order; the elements of `replaced_elements` go as those of `add_elements` come."""

    remove_addresses: list[Address]
    delete_virtual_servers: list[VirtualServer]
    replaced_elements: list[SetElement]
    add_elements: list[SetElement]
    edits: list[Edit]
    remove_elements: list[SetElement]
    add_addresses: list[Address]

    def __bool__(self) -> bool:
        """Say whether there is anything to do."""
        return any(self)


def diff(desired: Desired, actual: Actual, touched: Touched) -> Operations:
    """Compare the touched part of both states."""
    delete: list[VirtualServer] = []
    edits: list[Edit] = []
    for key in touched.virtual_servers:
        planned, found = desired.virtual_servers.get(key), actual.virtual_servers.get(key)
        if planned is not None:
            wanted = planned.virtual_server
            if wanted != found:
                edit = diff_virtual_server(wanted, found, drain=planned.drain_timeout > 0)
                if edit.operations:
                    edits.append(edit)
        elif found is not None:
            delete.append(found)
    # Membership tests and no operations on whole sets: the cost is that of what was touched.
    bindable = {
        address: address not in actual.elsewhere
        for address in touched.addresses
        if address in desired.addresses
    }
    add_elements = [
        element
        for element in touched.elements
        if element in desired.elements
        and element not in actual.elements
        and not guards(element, actual.elsewhere)
    ]
    replaced = {
        other
        for element in add_elements
        if element.set in MAPS
        and (other := actual.elements.value(element.set, element.fields[:3]))
        and other not in desired.elements
    }
    meanwhile = _meanwhile(add_elements, desired, actual, touched) if edits or touched.more_follows else []
    add_elements += meanwhile
    remove_elements = meanwhile if edits else []
    for element in touched.elements | set(_left_behind(desired, actual, touched)):
        if element in actual.elements and (
            element not in desired.elements or guards(element, actual.elsewhere)
        ):
            if goes_first(element, desired):
                replaced.add(element)
            elif element not in replaced:
                remove_elements.append(element)
    return Operations(
        remove_addresses=[
            address
            for address in touched.addresses
            if address in actual.addresses and not bindable.get(address, False)
        ],
        delete_virtual_servers=delete,
        replaced_elements=list(replaced),
        add_elements=add_elements,
        edits=edits,
        remove_elements=remove_elements,
        add_addresses=[
            address for address, free in bindable.items() if free and address not in actual.addresses
        ],
    )


def _left_behind(desired: Desired, actual: Actual, touched: Touched) -> Iterator[SetElement]:
    """Yield the restrictions of ports that are not desired, which nothing that was touched may name.

    One stays as long as the virtual server is there. It also stays while another one, which may never come, is put off.
    """
    for key in touched.virtual_servers:
        left = actual.elements.value(FirewallSet.RESTRICTED_PORTS, key)
        if left and left not in desired.elements:
            yield left


def _meanwhile(
    add: Sequence[SetElement], desired: Desired, actual: Actual, touched: Touched
) -> list[SetElement]:
    """Return the elements that are there only until all virtual servers are edited."""
    going: Iterable[SetElement] = ()
    if touched.more_follows:
        going = (element for element in actual.elements.of_maps() if element not in desired.elements)
    return list(dict.fromkeys(masqueraded_meanwhile((*add, *going), actual.elements, desired)))


def masqueraded_meanwhile(
    changed: Iterable[SetElement], present: Container[SetElement], desired: Desired
) -> Iterator[SetElement]:
    """Yield what masquerades the ports of which other clients than before are sent to a ClusterIP.

    Until both virtual servers are edited, clients outside may get endpoints of other nodes from either. `changed` are
    elements that come, or went, and `present` what the sets have. A virtual server that is yet to be made has no
    clients.
    """
    for element in changed:
        match element:
            case SetElement(of, (address, protocol, port, _, _)) if of in MAPS:
                key = VirtualServerKey(address, protocol, port)
                masqueraded = SetElement(FirewallSet.MASQUERADED_PORTS, key)
                if record_of(key) in present and not (
                    masqueraded in present or masqueraded in desired.elements
                ):
                    yield masqueraded


def diff_virtual_server(wanted: VirtualServer, found: VirtualServer | None, *, drain: bool) -> Edit:
    """Return how `found` becomes `wanted`: everything is edited in place, nothing is re-created.

    Without `drain`, and always for UDP, which has no end of a connection to wait for, a real server that leaves is
    deleted at once.
    """
    if found is None:
        operations = [IpvsOperation(Command.NEW_SERVICE, wanted)]
        operations += [IpvsOperation(Command.NEW_DEST, wanted, server) for server in wanted.real_servers]
        return Edit(operations, wanted)
    operations = []
    if wanted[1:4] != found[1:4]:  # scheduler, flags, timeout
        operations.append(IpvsOperation(Command.SET_SERVICE, wanted))
    leaving = {server[:2]: server for server in found.real_servers}
    for server in wanted.real_servers:
        known = leaving.pop(server[:2], None)
        if known is None:
            operations.append(IpvsOperation(Command.NEW_DEST, wanted, server))
        elif known != server:
            operations.append(IpvsOperation(Command.SET_DEST, wanted, server))
    draining: list[RealServer] = []
    for server in leaving.values():
        if not drain or wanted.key.protocol is Protocol.UDP:
            operations.append(IpvsOperation(Command.DEL_DEST, wanted, server))
            continue
        quiet = server._replace(weight=0)
        draining.append(quiet)
        if server.weight:
            operations.append(IpvsOperation(Command.SET_DEST, wanted, quiet))
    after = wanted
    if draining:
        after = wanted._replace(real_servers=tuple(sorted((*wanted.real_servers, *draining))))
    return Edit(operations, after)


def draining_real_servers(wanted: VirtualServer | None, found: VirtualServer) -> list[RealServer]:
    """Return the real servers that drain: of weight 0, and not desired."""
    kept = {server[:2] for server in wanted.real_servers} if wanted else set()
    return [server for server in found.real_servers if server.weight == 0 and server[:2] not in kept]
