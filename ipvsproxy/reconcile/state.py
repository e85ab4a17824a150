"""Desired and actual state of the node, and the one way to bring a part of the second to the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.kernel.interface import UNREACHABLE
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.plan.desired import Desired, Touched
from ipvsproxy.plan.diff import Actual, diff
from ipvsproxy.plan.ownership import record_of
from ipvsproxy.reconcile.apply import Applier, Outcome
from ipvsproxy.reconcile.drain import Drains
from ipvsproxy.reconcile.retry import Retries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.interface import NodeKernel
    from ipvsproxy.model.addresses import Address, Holding
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.reconcile.apply import Shuffle


class NodeState:
    """What should be, what is, what failed and what drains. Not thread-safe: the reconciler alone has it.

    `contested` collects the Services that lost or got back virtual servers because of somebody else's. `real_servers`
    is how many there are in the kernel, of virtual servers that are ours. `put_off` are elements that lead to source
    lists which are to be added, each list alone.
    """

    def __init__(self, kernel: NodeKernel, log: FilteringBoundLogger, shuffle: Shuffle) -> None:
        """Begin with nothing desired and nothing known."""
        self.desired = Desired()
        self.actual = Actual()
        self.retries = Retries()
        self.drains = Drains()
        self._kernel = kernel
        self._applier = Applier(kernel, self.desired, self.actual, log, shuffle)
        self.foreign: frozenset[VirtualServerKey] = frozenset()
        self._log = log
        self.recently_settled: set[VirtualServerKey] = set()
        self.put_off: dict[SetElement, None] = {}
        self.contested: set[ObjectKey] = set()
        self._sizes: dict[VirtualServerKey, int] = {}
        self.real_servers = 0

    def settle(self, touched: Touched, now: float) -> Outcome:
        """Bring the touched part of the kernel to its desired state; what fails is put off, and in the outcome."""
        try:
            self._make_way(touched)
        except UNREACHABLE as error:
            self._log.error("kernel unreachable", reason=str(error))
            outcome = Outcome(failures=dict.fromkeys(_items(touched), f"kernel unreachable: {error}"))
        else:
            outcome = self._applier.apply(diff(self.desired, self.actual, touched), touched.redirected)
        self.put_off.update(dict.fromkeys(outcome.put_off))
        self._applier.forget(key for key in touched.virtual_servers if key not in self.desired.owners)
        # What is put off has not been tried: if it failed before, it waits longer after the next failure.
        tried = Touched(
            touched.virtual_servers, touched.addresses, touched.elements.difference(outcome.put_off)
        )
        self.retries.settle(tried, outcome.failures, now)
        self.recently_settled |= touched.virtual_servers
        for key in touched.virtual_servers:
            self._note(key, now)
        if outcome.foreign:
            outcome.absorb(self.settle(self.leave_alone(self.foreign | outcome.foreign), now))
        return outcome

    def due(self, now: float) -> Touched:
        """Return what failed and is to be tried again; what is put off has its own turn."""
        due = self.retries.due(now)
        due.elements.difference_update(self.put_off)
        return due

    def settle_put_off(self, now: float) -> Outcome:
        """Add one of the source lists that were put off, for all ports that are to lead to it."""
        name = next(iter(self.put_off)).fields[-1]
        elements = [element for element in self.put_off if element.fields[-1] == name]
        for element in elements:
            del self.put_off[element]
        desired, known = self.desired.elements, self.actual.elements
        outcome = self._applier.add_source_list(
            [element for element in elements if element in desired and element not in known]
        )
        self.retries.settle(Touched(elements=set(elements)), outcome.failures, now)
        return outcome

    def _make_way(self, touched: Touched) -> None:
        """Leave alone the addresses of virtual servers that would be new to us but are there already.

        The kernel is asked before the record says that they are ours.
        """
        new = [
            key
            for key in touched.virtual_servers
            if key in self.desired.owners
            and key not in self.actual.virtual_servers
            and record_of(key) not in self.actual.elements
        ]
        if existing := self._kernel.ipvs.existing(new):
            touched.update(self.leave_alone(self.foreign | existing))

    def finish_drains(self, keys: Sequence[VirtualServerKey], now: float) -> Outcome:
        """Delete the real servers of these virtual servers whose drain is over."""
        outcome = Outcome()
        try:
            statuses = self._kernel.ipvs.real_servers(keys)
            done = {key: self.drains.done(key, found, now) for key, found in statuses.items()}
            self._applier.delete_real_servers(
                {key: servers for key, servers in done.items() if servers}, outcome
            )
        except UNREACHABLE as error:
            self._log.error("kernel unreachable", reason=str(error))
        for key in keys:
            self._note(key, now)
        return outcome

    def _note(self, key: VirtualServerKey, now: float) -> None:
        """Take in what became of one virtual server: who drains, and how many real servers there are."""
        found = self.actual.virtual_servers.get(key)
        self.drains.note(key, self.desired.virtual_servers.get(key), found, now)
        size = len(found.real_servers) if found else 0
        self.real_servers += size - self._sizes.pop(key, 0)
        if size:
            self._sizes[key] = size

    def hold(self, elsewhere: Mapping[Address, Holding]) -> Touched:
        """Note which addresses other interfaces hold; return what that touches."""
        touched = Touched()
        for address in self.actual.elsewhere.keys() ^ elsewhere.keys():
            if address in self.desired.addresses:
                touched.addresses.add(address)
                touched.elements.add(SetElement(FirewallSet.SERVICE_ADDRESSES, (address,)))
        self.actual.elsewhere = elsewhere
        # Where it is bound, somebody else's virtual server keeps the whole address.
        touched.update(self.leave_alone(self.foreign))
        return touched

    def leave_alone(self, foreign: Iterable[VirtualServerKey]) -> Touched:
        """Note which virtual servers are somebody else's; return what that touches."""
        before, self.foreign = self.foreign, frozenset(foreign)
        for key in self.foreign - before:
            self._log.info("virtual server left alone, it is not ipvsproxy's", virtual_server=str(key))
        touched = self.desired.exclude(self.foreign, self.actual.elsewhere)
        self.contested |= touched.services
        return touched


def _items(touched: Touched) -> Iterable[Item]:
    yield from touched.virtual_servers
    yield from touched.elements
    yield from touched.addresses
