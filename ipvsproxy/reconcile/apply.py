"""Carries operations out in their order, and keeps the record of the kernel's state true to what happened.

One refused operation harms its own virtual server, address or element only; what builds on it is held back, so that
the order of set-up and tear-down holds whatever fails.
"""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ipvsproxy.kernel.interface import UNREACHABLE, FirewallError, KernelError
from ipvsproxy.model.firewall import LATE_SETS, MAPS, PORT_SETS, FirewallSet, SetElement
from ipvsproxy.model.ipvs import Command, IpvsOperation, VirtualServerKey
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.desired import DESTINATIONS
from ipvsproxy.plan.diff import diff_virtual_server, goes_first
from ipvsproxy.plan.ownership import record_of
from ipvsproxy.reconcile.flows import Flows, stale_flow
from ipvsproxy.reconcile.source_lists import with_source_lists

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import TypeAlias

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.interface import Flow, NodeKernel
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import RealServer, VirtualServer
    from ipvsproxy.model.items import Item
    from ipvsproxy.plan.desired import Desired
    from ipvsproxy.plan.diff import Actual, Edit, Operations

    Shuffle: TypeAlias = Callable[[list[IpvsOperation]], None]


@dataclass(slots=True)
class Outcome:
    """What became of some operations: how many of each kind were done or refused, and why items are not as they should.

    `foreign` holds the virtual servers that were to be created, and turned out to be there and somebody else's.
    `missing_schedulers` are those that the kernel has not. `put_off` are elements whose source list is to be added
    alone.
    """

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: dict[Item, str] = field(default_factory=dict)
    foreign: set[VirtualServerKey] = field(default_factory=set)
    missing_schedulers: set[str] = field(default_factory=set)
    put_off: list[SetElement] = field(default_factory=list)

    def absorb(self, other: Outcome) -> None:
        """Add what became of further operations."""
        self.done.update(other.done)
        self.refused.update(other.refused)
        self.failures.update(other.failures)
        self.missing_schedulers |= other.missing_schedulers


_DOING = {
    Command.NEW_SERVICE: "creating the virtual server",
    Command.SET_SERVICE: "changing the virtual server",
    Command.DEL_SERVICE: "deleting the virtual server",
    Command.NEW_DEST: "adding real server",
    Command.SET_DEST: "changing real server",
    Command.DEL_DEST: "deleting real server",
}
DONE = {
    Command.NEW_SERVICE: "virtual servers created",
    Command.SET_SERVICE: "virtual servers changed",
    Command.DEL_SERVICE: "virtual servers deleted",
    Command.NEW_DEST: "real servers added",
    Command.SET_DEST: "real servers changed",
    Command.DEL_DEST: "real servers deleted",
}
# To these the kernel answers ENOENT for want of the scheduler.
_WITH_SCHEDULER = frozenset({Command.NEW_SERVICE, Command.SET_SERVICE})
# No scheduler has this name, so a comparison with the desired state sets the right one.
UNKNOWN_SCHEDULER = ""


class Applier:
    """Applies operations to the kernel and notes their effect in `actual`."""

    def __init__(
        self,
        kernel: NodeKernel,
        desired: Desired,
        actual: Actual,
        log: FilteringBoundLogger,
        shuffle: Shuffle,
    ) -> None:
        """Take the kernel's adapters, what is desired, to be looked at only, and the record to keep.

        `shuffle` puts real servers that come into the order in which schedulers begin with them.
        """
        self._kernel = kernel
        self._desired = desired
        self._actual = actual
        self._log = log
        self._shuffle = shuffle
        self._flows = Flows(kernel.conntrack, desired, log)
        self._stuck: set[Address] = set()
        self._uncreated: set[VirtualServerKey] = set()
        # What the firewall refused to add, by the virtual servers that have to wait for it.
        self._refused: defaultdict[VirtualServerKey, set[SetElement]] = defaultdict(set)

    @property
    def _stuck_addresses(self) -> AbstractSet[Address]:
        """The addresses that could not be removed, are still there, and still not desired."""
        self._stuck &= self._actual.addresses
        self._stuck -= self._desired.addresses
        return self._stuck

    def forget(self, keys: Iterable[VirtualServerKey]) -> None:
        """Forget failures about these virtual servers, which are not desired any more."""
        for key in keys:
            self._uncreated.discard(key)
            self._refused.pop(key, None)

    def apply(self, operations: Operations, redirected: Iterable[VirtualServerKey] = ()) -> Outcome:
        """Apply all operations; every failure is in the outcome, under the item that it left as it was.

        `redirected` are the virtual servers whose clients were sent to another one until now.
        """
        outcome = Outcome()
        self._remove_addresses(operations.remove_addresses, outcome)
        stale = self._delete_virtual_servers(operations.delete_virtual_servers, outcome)
        created: set[VirtualServerKey] = set()
        early = [each for each in operations.add_elements if each.set not in LATE_SETS]
        late = [each for each in operations.add_elements if each.set in LATE_SETS]
        if operations.edits:
            self._change_elements(early, operations.replaced_elements, outcome)
            ready = self._ready(operations, outcome)
            created = self._create_virtual_servers(ready, frozenset(early), outcome)
            if created:
                # Before the first real server: IPVS refuses what comes now, and nothing of that is tracked.
                self._flows.forget(self._flows.before(created), outcome.done)
            stale |= self._edit_virtual_servers(ready, outcome)
            self._change_elements(self._possible(late, outcome), operations.remove_elements, outcome)
        else:
            remove = [*operations.replaced_elements, *operations.remove_elements]
            self._change_elements([*early, *self._possible(late, outcome)], remove, outcome)
        self._flows.forget(stale | {stale_flow(key) for key in redirected}, outcome.done)
        bound = self._add_addresses(operations.add_addresses, outcome)
        if bound:
            # An address that is bound without a new virtual server was away, or could not be bound before.
            is_new = bound <= {key.address for key in created}
            keys = created if is_new else self._actual.virtual_servers
            self._flows.forget(self._flows.between(keys, bound), outcome.done)
        return outcome

    def add_source_list(self, elements: list[SetElement]) -> Outcome:
        """Let these ports lead to a source list that was put off; if that fails they lead where they did."""
        outcome = Outcome()
        values = (self._actual.elements.value(each.set, each.fields[:3]) for each in elements)
        self._change_elements(elements, [value for value in values if value], outcome, alone=True)
        return outcome

    def delete_real_servers(
        self, doomed: Mapping[VirtualServerKey, Sequence[RealServer]], outcome: Outcome
    ) -> None:
        """Delete real servers of virtual servers that are ours; one that is gone already is no failure."""
        known = self._actual.virtual_servers
        operations = [
            IpvsOperation(Command.DEL_DEST, known[key], server)
            for key, servers in doomed.items()
            if key in known
            for server in servers
        ]
        refused = self._run(operations, outcome)
        gone: dict[VirtualServerKey, set[tuple[Address, int]]] = {}
        for index, operation in enumerate(operations):
            key, server = operation.virtual_server.key, operation.real_server
            error = refused.get(index)
            if error and error.code not in (errno.ENOENT, errno.ESRCH):
                outcome.failures[key] = _refusal(operation, error)
            elif server:
                gone.setdefault(key, set()).add(server[:2])
        for key, places in gone.items():
            remaining = tuple(each for each in known[key].real_servers if each[:2] not in places)
            known[key] = known[key]._replace(real_servers=remaining)

    def _remove_addresses(self, addresses: list[Address], outcome: Outcome) -> None:
        if not addresses:
            return
        refused = self._change_addresses((), addresses)
        for address in addresses:
            error = refused.get(address)
            if error and error.code != errno.EADDRNOTAVAIL:
                outcome.failures[address] = f"removing the address: {error}"
                outcome.refused["addresses removed"] += 1
                self._stuck.add(address)
                continue
            self._stuck.discard(address)
            self._actual.addresses.discard(address)
            outcome.done["addresses removed"] += 1

    def _delete_virtual_servers(self, virtual_servers: list[VirtualServer], outcome: Outcome) -> set[Flow]:
        """Delete virtual servers; return the flows that connection tracking would still send to them."""
        stale: set[Flow] = set()
        ready = []
        for virtual_server in virtual_servers:
            if virtual_server.key.address in self._stuck_addresses:
                outcome.failures[virtual_server.key] = "its address could not be removed first"
            else:
                ready.append(virtual_server)
        if not ready:
            return stale
        operations = [IpvsOperation(Command.DEL_SERVICE, each) for each in ready]
        refused = self._run(operations, outcome)
        for index, virtual_server in enumerate(ready):
            error = refused.get(index)
            if error and error.code != errno.ESRCH:
                outcome.failures[virtual_server.key] = _refusal(operations[index], error)
                if error.code == errno.ENOBUFS:
                    self._take_in([virtual_server])
            else:
                self._actual.virtual_servers.pop(virtual_server.key, None)
            if _may_be_done(error) and virtual_server.key.protocol is Protocol.UDP:
                stale.add(stale_flow(virtual_server.key))
        return stale

    def _possible(self, late: list[SetElement], outcome: Outcome) -> list[SetElement]:
        """Return the elements whose virtual server is there."""
        possible = []
        for element in late:
            if element.fields in self._actual.virtual_servers:
                possible.append(element)
            else:
                outcome.failures[element] = "its virtual server could not be created first"
        return possible

    def _change_elements(
        self, add: list[SetElement], removable: list[SetElement], outcome: Outcome, *, alone: bool = False
    ) -> None:
        """Change elements; a source list that is not light is only added `alone`, and put off otherwise."""
        # A map has one value for a key: the old one can't wait.
        replaced = {(element.set, element.fields[:3]) for element in add if element.set in MAPS}
        remove = []
        for element in removable:
            if (element.set, element.fields[:3]) in replaced:
                remove.append(element)
            elif self._waits_for_elements(_key_of(element)):
                outcome.failures[element] = "what comes in its place could not be added first"
            elif element.fields[:3] not in outcome.failures and not self._is_needed(element):
                remove.append(element)
        known = self._actual.elements
        add, remove, put_off = with_source_lists(add, remove, known, self._desired, any_list=alone)
        outcome.put_off += put_off
        if not add and not remove:
            return
        counts = Counter({"set elements added": len(add), "set elements removed": len(remove)})
        try:
            self._kernel.firewall.change(add, remove)
        except (FirewallError, *UNREACHABLE) as refusal:
            error = refusal if alone else self._install(add, remove, refusal)
            if error:
                # A source list is tried again with the ports that lead to it.
                outcome.failures.update(
                    (element, f"changing the firewall: {error}")
                    for element in (*add, *remove)
                    if element.set is not FirewallSet.SOURCE_LISTS
                )
                outcome.refused.update(counts)
                if not alone:
                    self._note_refused(add)
                return
        self._actual.elements.update(add)
        self._actual.elements.difference_update(remove)
        outcome.done.update(counts)

    def _install(
        self, add: list[SetElement], remove: list[SetElement], refusal: Exception
    ) -> Exception | None:
        """Install the whole table with the elements changed; return why if that is refused, too."""
        # What the transaction builds on may be gone, the table above all: the whole state repairs that.
        self._log.warning("firewall change refused, installing the whole table", reason=str(refusal))
        try:
            self._kernel.firewall.install({*self._actual.elements, *add}.difference(remove))
        except (FirewallError, *UNREACHABLE) as error:
            return error
        return None

    def _is_needed(self, element: SetElement) -> bool:
        """Say whether what the element is about, a virtual server or an address, is not yet without it.

        What concerns a virtual server that could not be changed just now stays as well; that is not asked for here.
        """
        if element.set is FirewallSet.SERVICE_ADDRESSES:
            return element.address in self._stuck_addresses
        if (key := _key_of(element)) is None:
            return False
        found, planned = self._actual.virtual_servers.get(key), self._desired.virtual_servers.get(key)
        if found is None or planned is None or element.set is FirewallSet.SERVICE_PORTS:
            return found is not None
        if goes_first(element, self._desired):
            return False
        # Who is masqueraded may get the endpoints of the ClusterIP, too.
        others = self._led_to(key) if element.set is FirewallSet.MASQUERADED_PORTS else ()
        return any(self._is_to_be_edited(each) for each in (key, *others))

    def _is_to_be_edited(self, key: VirtualServerKey) -> bool:
        found, planned = self._actual.virtual_servers.get(key), self._desired.virtual_servers.get(key)
        if found is None or planned is None:
            return False
        wanted, drain = planned.virtual_server, planned.drain_timeout > 0
        return bool(diff_virtual_server(wanted, found, drain=drain).operations)

    def _note_refused(self, elements: Iterable[SetElement]) -> None:
        for element in elements:
            key = _key_of(element)
            if key and element.set not in LATE_SETS:
                for each in (key, *self._led_to(key)):
                    self._refused[each].add(element)

    def _waits_for_elements(self, key: VirtualServerKey | None) -> bool:
        """Say whether the firewall refused to add what a virtual server has to have first, and it is still to come."""
        if key is None or not (refused := self._refused.pop(key, None)):
            return False
        desired, known = self._desired.elements, self._actual.elements
        if waits := {each for each in refused if each in desired and each not in known}:
            self._refused[key] = waits
        return bool(waits)

    def _led_to(self, key: VirtualServerKey) -> Iterator[VirtualServerKey]:
        """Yield the ClusterIPs' virtual servers that clients of this one are sent to, or will be."""
        planned = self._desired.virtual_servers.get(key)
        if planned and planned.redirect:
            yield VirtualServerKey(planned.redirect.address, key.protocol, planned.redirect.port)
        for of in DESTINATIONS.values():
            match self._actual.elements.value(of, key):
                case SetElement(_, (_, _, _, address, port)):
                    yield VirtualServerKey(address, key.protocol, port)

    def _ready(self, operations: Operations, outcome: Outcome) -> dict[VirtualServerKey, Edit]:
        """Return the edits whose set elements are there."""
        ready = {}
        for edit in operations.edits:
            key = edit.after.key
            if record_of(key) in self._actual.elements and not self._waits_for_elements(key):
                ready[key] = edit
            else:
                outcome.failures[key] = "its firewall elements could not be added first"
                self._uncreated.add(key)
        return ready

    def _edit_virtual_servers(self, ready: Mapping[VirtualServerKey, Edit], outcome: Outcome) -> set[Flow]:
        """Edit virtual servers; return the flows that connection tracking still sends to real servers that left."""
        flat = [operation for edit in ready.values() for operation in self._in_order(edit)]
        refused = self._run(flat, outcome)
        errors: dict[Item, str] = {}
        for index, error in sorted(refused.items()):
            errors.setdefault(flat[index].virtual_server.key, _refusal(flat[index], error))
        gone: dict[VirtualServerKey, set[tuple[Address, int]]] = {}
        for index, (command, virtual_server, real_server) in enumerate(flat):
            is_udp = virtual_server.key.protocol is Protocol.UDP
            if command is Command.DEL_DEST and real_server and is_udp and _may_be_done(refused.get(index)):
                gone.setdefault(virtual_server.key, set()).add(real_server[:2])
        for key, edit in ready.items():
            if key not in errors:
                self._actual.virtual_servers[key] = edit.after
        outcome.failures.update(errors)
        self._take_in([edit.after for key, edit in ready.items() if key in errors])
        return self._flows.through(gone)

    def _in_order(self, edit: Edit) -> list[IpvsOperation]:
        """Return an edit's operations but for the virtual server's creation, with what comes in an order by chance.

        Otherwise all nodes would begin with the same real server.
        """
        coming = [operation for operation in edit.operations if operation.command is Command.NEW_DEST]
        self._shuffle(coming)
        done_before = (Command.NEW_SERVICE, Command.NEW_DEST)
        return [*(each for each in edit.operations if each.command not in done_before), *coming]

    def _create_virtual_servers(
        self, edits: dict[VirtualServerKey, Edit], recorded: AbstractSet[SetElement], outcome: Outcome
    ) -> set[VirtualServerKey]:
        """Create what is new, apart from and before its real servers: these must never land on somebody else's.

        What can't be created is taken out of `edits`. Return what was created, or may have been.
        """
        create = [edit.operations[0] for edit in edits.values() if _creates(edit)]
        refused = self._run(create, outcome)
        self._uncreated.difference_update(operation.virtual_server.key for operation in create)
        created = {
            operation.virtual_server.key
            for index, operation in enumerate(create)
            if _may_be_done(refused.get(index))
        }
        for index, error in refused.items():
            after = edits.pop(create[index].virtual_server.key).after
            self._uncreated.add(after.key)
            if error.code != errno.EEXIST:
                outcome.failures[after.key] = _refusal(create[index], error)
                if error.code == errno.ENOBUFS:
                    self._take_in([after])
            elif record_of(after.key) in recorded:
                outcome.foreign.add(after.key)
            else:
                outcome.failures[after.key] = "the virtual server was there already and is read again"
                self._take_in([after])
        return created

    def _run(self, operations: list[IpvsOperation], outcome: Outcome) -> dict[int, KernelError]:
        if not operations:
            return {}
        try:
            refused = self._kernel.ipvs.apply(operations)
        except UNREACHABLE as error:
            refused = dict.fromkeys(range(len(operations)), KernelError(errno.ENOBUFS, str(error)))
        outcome.missing_schedulers.update(
            operations[index].virtual_server.scheduler
            for index, error in refused.items()
            if error.code == errno.ENOENT and operations[index].command in _WITH_SCHEDULER
        )
        for index, operation in enumerate(operations):
            (outcome.refused if index in refused else outcome.done)[DONE[operation.command]] += 1
        return refused

    def _take_in(self, virtual_servers: list[VirtualServer]) -> None:
        """Note what the kernel really has of virtual servers whose change went wrong or may have.

        Where the kernel does not tell, each is taken to be there: a virtual server that is not is found out at the next
        operation on it, but one that is and nobody knows of would stay for ever.
        """
        if not virtual_servers:
            return
        try:
            found = self._kernel.ipvs.real_servers([each.key for each in virtual_servers])
        except UNREACHABLE as error:
            self._log.error("virtual servers not read", reason=str(error))
            found = {each.key: [] for each in virtual_servers}
        for virtual_server in virtual_servers:
            statuses = found.get(virtual_server.key)
            if statuses is None:
                self._actual.virtual_servers.pop(virtual_server.key, None)
                continue
            self._actual.virtual_servers[virtual_server.key] = virtual_server._replace(
                scheduler=UNKNOWN_SCHEDULER,
                real_servers=tuple(status.real_server for status in statuses),
            )

    def _change_addresses(
        self, add: Sequence[Address], remove: Sequence[Address]
    ) -> dict[Address, KernelError]:
        try:
            return self._kernel.addresses.apply(add, remove)
        except UNREACHABLE as error:
            return dict.fromkeys((*add, *remove), KernelError(errno.ENOBUFS, str(error)))

    def _add_addresses(self, addresses: list[Address], outcome: Outcome) -> set[Address]:
        """Bind addresses; return those that are bound now."""
        bound: set[Address] = set()
        # An address without a virtual server behind it would answer for nobody.
        without = {key.address for key in self._uncreated}
        if not without.isdisjoint(addresses):
            without -= {key.address for key in self._actual.virtual_servers if key in self._desired.owners}
        without |= {key.address for key in outcome.foreign}
        ready = [address for address in addresses if address not in without]
        if not ready:
            return bound
        refused = self._change_addresses(ready, ())
        for address in ready:
            error = refused.get(address)
            if error and error.code != errno.EEXIST:
                outcome.failures[address] = f"adding the address: {error}"
                outcome.refused["addresses added"] += 1
                continue
            bound.add(address)
            if error is None:
                outcome.done["addresses added"] += 1
        self._actual.addresses |= bound
        return bound


def _key_of(element: SetElement) -> VirtualServerKey | None:
    """Return the virtual server that an element is about; None if it is about an address."""
    of_port = element.set in PORT_SETS or element.set in MAPS
    return VirtualServerKey(*element.fields[:3]) if of_port else None


def _may_be_done(error: KernelError | None) -> bool:
    """Say whether an operation took effect, or may have: the kernel's answer was lost."""
    return error is None or error.code == errno.ENOBUFS


def _creates(edit: Edit) -> bool:
    return edit.operations[0].command is Command.NEW_SERVICE


def _refusal(operation: IpvsOperation, error: KernelError) -> str:
    """Return what was refused, and why, in the kernel's words where those tell it."""
    what = _DOING[operation.command]
    if operation.real_server:
        what = f"{what} {operation.real_server}"
    if error.code == errno.ENOENT and operation.command in _WITH_SCHEDULER:
        scheduler = operation.virtual_server.scheduler
        return f"{what}: ENOENT: the kernel has no scheduler {scheduler}, load the module ip_vs_{scheduler}"
    return f"{what}: {error}"
