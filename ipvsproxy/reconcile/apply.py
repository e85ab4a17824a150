"""Carries operations out in their order, and keeps the record of the kernel's state true to what happened.

One refused operation harms its own virtual server, address or element only; what builds on it is held back, so that
the order of set-up and tear-down holds whatever fails.
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ipvsproxy.kernel.interface import FirewallError, Flow, KernelError, KernelUnavailableError
from ipvsproxy.model.firewall import MAPS, PORT_SETS, FirewallSet, SetElement
from ipvsproxy.model.ipvs import Command, IpvsOperation, VirtualServerKey
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.diff import SWITCHED_SETS, diff_virtual_server
from ipvsproxy.plan.ownership import record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import TypeAlias

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.interface import NodeKernel
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
    `missing_schedulers` are those that the kernel has not. `stale_flows` are those that connection tracking still
    holds, but that real servers have left or come to.
    """

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: dict[Item, str] = field(default_factory=dict)
    foreign: set[VirtualServerKey] = field(default_factory=set)
    stale_flows: set[Flow] = field(default_factory=set)
    missing_schedulers: set[str] = field(default_factory=set)

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
# What the adapters raise when nothing is known of what was asked.
UNREACHABLE = (OSError, KernelUnavailableError)
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
        self._stuck: set[Address] = set()
        self._uncreated: set[VirtualServerKey] = set()

    @property
    def _stuck_addresses(self) -> AbstractSet[Address]:
        """The addresses that could not be removed, are still there, and still not desired."""
        self._stuck &= self._actual.addresses
        self._stuck -= self._desired.addresses
        return self._stuck

    def forget(self, keys: Iterable[VirtualServerKey]) -> None:
        """Forget failures to create these virtual servers, which are not desired any more."""
        self._uncreated.difference_update(keys)

    def apply(self, operations: Operations) -> Outcome:
        """Apply all operations; every failure is in the outcome, under the item that it left as it was."""
        outcome = Outcome()
        self._remove_addresses(operations.remove_addresses, outcome)
        self._delete_virtual_servers(operations.delete_virtual_servers, outcome)
        if operations.edits:
            self._change_elements(operations.add_elements, operations.replaced_elements, outcome)
            self._edit_virtual_servers(operations, outcome)
            self._change_elements([], operations.remove_elements, outcome)
        else:
            remove = [*operations.replaced_elements, *operations.remove_elements]
            self._change_elements(operations.add_elements, remove, outcome)
        self._add_addresses(operations.add_addresses, outcome)
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

    def _delete_virtual_servers(self, virtual_servers: list[VirtualServer], outcome: Outcome) -> None:
        ready = []
        for virtual_server in virtual_servers:
            if virtual_server.key.address in self._stuck_addresses:
                outcome.failures[virtual_server.key] = "its address could not be removed first"
            else:
                ready.append(virtual_server)
        if not ready:
            return
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
                outcome.stale_flows.add(Flow(virtual_server.key))

    def _change_elements(self, add: list[SetElement], removable: list[SetElement], outcome: Outcome) -> None:
        # A map has one value for a key: the old one can't wait.
        replaced = {(element.set, element.fields[:3]) for element in add if element.set in MAPS}
        remove = [
            element
            for element in removable
            if (element.set, element.fields[:3]) in replaced
            or (element.fields[:3] not in outcome.failures and not self._is_needed(element))
        ]
        if not add and not remove:
            return
        counts = Counter({"set elements added": len(add), "set elements removed": len(remove)})
        try:
            self._kernel.firewall.change(add, remove)
        except (FirewallError, *UNREACHABLE) as refusal:
            # What the transaction builds on may be gone, the table above all: the whole state repairs that.
            self._log.warning("firewall change refused, installing the whole table", reason=str(refusal))
            try:
                self._kernel.firewall.install({*self._actual.elements, *add}.difference(remove))
            except (FirewallError, *UNREACHABLE) as error:
                outcome.failures.update((element, f"changing the firewall: {error}") for element in add)
                outcome.failures.update((element, f"changing the firewall: {error}") for element in remove)
                outcome.refused.update(counts)
                return
        self._actual.elements.update(add)
        self._actual.elements.difference_update(remove)
        outcome.done.update(counts)

    def _is_needed(self, element: SetElement) -> bool:
        """Say whether what the element is about, a virtual server or an address, is not yet without it.

        What concerns a virtual server that could not be changed just now stays as well; that is not asked for here.
        """
        if element.set is FirewallSet.SERVICE_ADDRESSES:
            return element.address in self._stuck_addresses
        if element.set not in PORT_SETS and element.set not in MAPS:
            return False
        key = VirtualServerKey(*element.fields[:3])
        found, planned = self._actual.virtual_servers.get(key), self._desired.virtual_servers.get(key)
        if found is None or planned is None or element.set is FirewallSet.SERVICE_PORTS:
            return found is not None
        if element.set in SWITCHED_SETS:
            return False
        wanted, drain = planned.virtual_server, planned.drain_timeout > 0
        return bool(diff_virtual_server(wanted, found, drain=drain).operations)

    def _edit_virtual_servers(self, operations: Operations, outcome: Outcome) -> None:
        ready = {}
        refused_keys = {item.fields[:3] for item in outcome.failures if isinstance(item, SetElement)}
        for edit in operations.edits:
            key = edit.after.key
            if record_of(key) in self._actual.elements and key not in refused_keys:
                ready[key] = edit
            else:
                outcome.failures[key] = "its firewall elements could not be added first"
                self._uncreated.add(key)
        self._create_virtual_servers(ready, frozenset(operations.add_elements), outcome)
        flat = [operation for edit in ready.values() for operation in self._in_order(edit)]
        refused = self._run(flat, outcome)
        errors: dict[Item, str] = {}
        for index, error in sorted(refused.items()):
            errors.setdefault(flat[index].virtual_server.key, _refusal(flat[index], error))
        for index, operation in enumerate(flat):
            if operation.command is Command.DEL_DEST and _may_be_done(refused.get(index)):
                outcome.stale_flows.update(self._flows_through(operation))
        for key, edit in ready.items():
            if key not in errors:
                self._actual.virtual_servers[key] = edit.after
        outcome.failures.update(errors)
        self._take_in([edit.after for key, edit in ready.items() if key in errors])

    def _in_order(self, edit: Edit) -> list[IpvsOperation]:
        """Return an edit's operations but for the virtual server's creation, with what comes in an order by chance.

        Otherwise all nodes would begin with the same real server.
        """
        coming = [operation for operation in edit.operations if operation.command is Command.NEW_DEST]
        self._shuffle(coming)
        done_before = (Command.NEW_SERVICE, Command.NEW_DEST)
        return [*(each for each in edit.operations if each.command not in done_before), *coming]

    def _flows_through(self, removal: IpvsOperation) -> Iterator[Flow]:
        """Yield the UDP flows that went to a real server which is deleted, by all addresses that lead to it."""
        key, real_server = removal.virtual_server.key, removal.real_server
        if key.protocol is Protocol.UDP and real_server:
            for each in (key, *self._desired.redirected_to(key)):
                yield Flow(each, real_server[:2])

    def _create_virtual_servers(
        self, edits: dict[VirtualServerKey, Edit], recorded: AbstractSet[SetElement], outcome: Outcome
    ) -> None:
        """Create what is new, apart from and before its real servers: these must never land on somebody else's."""
        create = [edit.operations[0] for edit in edits.values() if _creates(edit)]
        refused = self._run(create, outcome)
        self._uncreated.difference_update(operation.virtual_server.key for operation in create)
        # Datagrams that came before are known as not translated, and would stay so.
        outcome.stale_flows.update(
            Flow(operation.virtual_server.key)
            for index, operation in enumerate(create)
            if _may_be_done(refused.get(index)) and operation.virtual_server.key.protocol is Protocol.UDP
        )
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

    def _add_addresses(self, addresses: list[Address], outcome: Outcome) -> None:
        # An address without a virtual server behind it would answer for nobody.
        without = {key.address for key in self._uncreated}
        if not without.isdisjoint(addresses):
            without -= {key.address for key in self._actual.virtual_servers if key in self._desired.owners}
        without |= {key.address for key in outcome.foreign}
        ready = [address for address in addresses if address not in without]
        if not ready:
            return
        refused = self._change_addresses(ready, ())
        for address in ready:
            error = refused.get(address)
            if error and error.code != errno.EEXIST:
                outcome.failures[address] = f"adding the address: {error}"
                outcome.refused["addresses added"] += 1
                continue
            self._actual.addresses.add(address)
            outcome.done["addresses added"] += 1


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
