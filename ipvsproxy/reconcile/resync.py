"""The comparison of everything with the kernel: at the start, and on a period to repair what others changed.

The kernel is dumped once and compared in slices, whose size goes by the number of real servers. What was settled
since the dump is newer than the dump, and is left to the next resync; so is what failed and waits for its next try.

What is whose: a virtual server is ours if its address is on the dummy interface or its key is in the firewall's
record; one that somebody puts on the record while the agent runs is handed over to it. The order is that of every
change: the record first and the addresses last for what comes, and the reverse for what goes.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from ipvsproxy.model.firewall import LATE_SETS, MAPS, FirewallSet
from ipvsproxy.plan.desired import Touched
from ipvsproxy.plan.diff import masqueraded_meanwhile
from ipvsproxy.plan.ownership import guards, is_ours, record_of
from ipvsproxy.reconcile.apply import Outcome
from ipvsproxy.reconcile.source_lists import installable

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from ipvsproxy.kernel.interface import NodeKernel
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServer, VirtualServerKey
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.reconcile.state import NodeState

REAL_SERVERS_PER_SLICE = 500


class Resync:
    """One comparison of the whole state. Iterate over `slices` to the end; `outcome` has what was changed.

    `suspects` are Services that may have endpoints whose addresses have become service addresses. `seconds` is for
    whoever iterates to say how long it took, without what was done between the slices.
    """

    def __init__(self, state: NodeState, kernel: NodeKernel, clock: Callable[[], float]) -> None:
        """Prepare the comparison; nothing is read yet."""
        self._state = state
        self._kernel = kernel
        self._clock = clock
        self.outcome = Outcome()
        self.seconds = 0.0
        self.suspects: set[ObjectKey] = set()

    def slices(self) -> Iterator[None]:
        """Do a slice of the work at each step. OSError if the kernel can't be read."""
        actual, desired = self._state.actual, self._state.desired
        intact = self._read_record()
        yield
        bound = self._read_addresses()
        yield
        # Who owns what is settled by the record as it was found, before anything is added to it.
        found: dict[VirtualServerKey, VirtualServer] = {}
        foreign: set[VirtualServerKey] = set()
        for chunk in self._kernel.ipvs.virtual_servers():
            self._sort_out(chunk, bound, found, foreign)
            yield
        # What that touches is among all that is compared from here on.
        self._state.leave_alone(foreign)
        if not intact:
            self._install_firewall()
            yield
        # Elements that go, go behind the virtual servers that are found by then.
        self._settle(
            Touched(
                elements={
                    element
                    for element in desired.elements
                    if element not in actual.elements and element.set not in LATE_SETS
                }
                | {element for element in actual.elements if guards(element, actual.elsewhere)},
                addresses={*(bound - desired.addresses), *(bound & actual.elsewhere.keys())},
                more_follows=True,
            )
        )
        yield
        yield from self._compare_virtual_servers(found)
        self._settle(
            Touched(
                addresses=set(desired.addresses - actual.addresses),
                elements={element for element in actual.elements if element not in desired.elements}
                | {
                    each for each in desired.elements if each.set in LATE_SETS and each not in actual.elements
                },
            )
        )

    def _read_record(self) -> bool:
        """Read the firewall's sets if others may have changed them; say whether the table is intact."""
        if not self._kernel.firewall.changed_by_others():
            return True
        found = self._kernel.firewall.read()
        known = self._state.actual.elements
        # Somebody put these on our record, to hand them over; what is on it already could not be taken off.
        self._state.foreign -= {
            key
            for key in self._state.foreign
            if (record := record_of(key)) in found.elements and record not in known
        }
        known.replace(found.elements)
        return found.intact

    def _install_firewall(self) -> None:
        known, desired = self._state.actual.elements, self._state.desired
        meanwhile = list(masqueraded_meanwhile(set(known) ^ desired.elements, known, desired))
        elements, put_off = installable(desired, known)
        elements = {each for each in elements if each.set not in LATE_SETS}
        # What is ours by the old record stays on record until it is gone; what may exclude something new does not.
        elements |= {
            each for each in known if each.set not in MAPS and each.set is not FirewallSet.SOURCE_LISTS
        }
        elements.update(meanwhile)
        self._kernel.firewall.install(elements)
        known.replace(elements)
        self._state.put_off.update(dict.fromkeys(put_off))
        self.outcome.done["firewall tables installed"] += 1

    def _read_addresses(self) -> frozenset[Address]:
        actual = self._state.actual
        self._kernel.addresses.ensure_interface()
        bound = frozenset(self._kernel.addresses.bound())
        actual.addresses.clear()
        actual.addresses.update(bound)
        # What that touches is among all that is compared from here on.
        self._state.hold(self._kernel.addresses.elsewhere())
        self._state.recently_settled.clear()
        return bound

    def _sort_out(
        self,
        chunk: list[VirtualServer],
        bound: frozenset[Address],
        found: dict[VirtualServerKey, VirtualServer],
        foreign: set[VirtualServerKey],
    ) -> None:
        """Put the virtual servers that are ours into `found`, and the keys of the others into `foreign`."""
        actual = self._state.actual
        for virtual_server in chunk:
            key = virtual_server.key
            if key in self._state.recently_settled:
                continue
            known = key in actual.virtual_servers
            # A record of one that is known to be foreign is one that could not be taken back.
            ours = is_ours(key, bound, actual.elements) and key not in self._state.foreign
            if known or ours:
                found[key] = virtual_server
            else:
                foreign.add(key)

    def _compare_virtual_servers(self, found: dict[VirtualServerKey, VirtualServer]) -> Iterator[None]:
        known = self._state.desired.owners.keys() | self._state.actual.virtual_servers.keys()
        keys = itertools.chain(found, known - found.keys())
        for chunk in in_slices(keys, self._state):
            self._compare([key for key in chunk if key not in self._state.recently_settled], found)
            yield

    def _compare(self, keys: list[VirtualServerKey], found: dict[VirtualServerKey, VirtualServer]) -> None:
        desired, virtual_servers = self._state.desired, self._state.actual.virtual_servers
        real_servers = self._kernel.ipvs.real_servers([key for key in keys if key in found])
        for key in keys:
            statuses = real_servers.get(key)
            if statuses is None:
                virtual_servers.pop(key, None)
            else:
                seen = found[key]._replace(real_servers=tuple(status.real_server for status in statuses))
                planned = desired.virtual_servers.get(key)
                if planned and (
                    planned.only_remote_endpoints
                    or _leads_to(planned.virtual_server, desired.service_addresses)
                ):
                    self.suspects.add(desired.owners[key])
                wanted = planned.virtual_server if planned else None
                # Equal states share one value: the kernel's tables are held once.
                virtual_servers[key] = wanted if seen == wanted else seen
        self._settle(Touched(virtual_servers=set(keys)))

    def _settle(self, touched: Touched) -> None:
        now = self._clock()
        self._state.retries.spare(touched, now)
        if touched:
            self.outcome.absorb(self._state.settle(touched, now))


def _leads_to(virtual_server: VirtualServer, addresses: Container[Address]) -> bool:
    """Say whether any real server has one of these addresses."""
    return any(real_server.address in addresses for real_server in virtual_server.real_servers)


def in_slices(keys: Iterable[VirtualServerKey], state: NodeState) -> Iterator[list[VirtualServerKey]]:
    """Yield the keys in lists whose virtual servers have REAL_SERVERS_PER_SLICE real servers together, or few more."""
    chunk: list[VirtualServerKey] = []
    size = 0
    for key in keys:
        virtual_server = state.actual.virtual_servers.get(key) or state.desired.virtual_server(key)
        chunk.append(key)
        size += 1 + (len(virtual_server.real_servers) if virtual_server else 0)
        if size >= REAL_SERVERS_PER_SLICE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
