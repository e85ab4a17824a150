"""Desired and actual state of the node, and the one way to bring a part of the second to the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import format_address
from ipvsproxy.plan.desired import Desired
from ipvsproxy.plan.diff import Actual, diff
from ipvsproxy.plan.ownership import record_of
from ipvsproxy.reconcile.apply import UNREACHABLE, Applier, Outcome
from ipvsproxy.reconcile.drain import Drains
from ipvsproxy.reconcile.retry import Retries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.interface import NodeKernel
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.plan.desired import Touched


class NodeState:
    """What should be, what is, what failed and what drains. Not thread-safe: the reconciler alone has it."""

    def __init__(self, kernel: NodeKernel, drain_timeout: float, log: FilteringBoundLogger) -> None:
        """Begin with nothing desired and nothing known. `drain_timeout` is in seconds; 0 deletes at once."""
        self.desired = Desired()
        self.actual = Actual()
        self.retries = Retries()
        self.drains = Drains(drain_timeout)
        self._drain = drain_timeout > 0
        self._kernel = kernel
        self._applier = Applier(kernel, self.desired, self.actual, log)
        self.foreign: frozenset[Address] = frozenset()
        self._log = log
        self.recently_settled: set[VirtualServerKey] = set()

    def settle(self, touched: Touched, now: float) -> Outcome:
        """Bring the touched part of the kernel to its desired state; what fails is put off, and in the outcome."""
        try:
            self._make_way(touched)
        except UNREACHABLE as error:
            self._log.error("kernel unreachable", reason=str(error))
            outcome = Outcome(failures=dict.fromkeys(_items(touched), f"kernel unreachable: {error}"))
        else:
            outcome = self._applier.apply(diff(self.desired, self.actual, touched, drain=self._drain))
        self._applier.forget(key for key in touched.virtual_servers if key not in self.desired.owners)
        self.retries.settle(touched, outcome.failures, now)
        self.recently_settled |= touched.virtual_servers
        for key in touched.virtual_servers:
            self._note_drains(key, now)
        if outcome.foreign:
            outcome.absorb(self.settle(self.leave_alone(self.foreign | outcome.foreign), now))
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
            touched.update(self.leave_alone(self.foreign | {key.address for key in existing}))

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
            self._note_drains(key, now)
        return outcome

    def _note_drains(self, key: VirtualServerKey, now: float) -> None:
        found = self.actual.virtual_servers.get(key)
        self.drains.note(key, self.desired.virtual_server(key), found, now)

    def leave_alone(self, foreign: Iterable[Address]) -> Touched:
        """Note which addresses carry virtual servers of somebody else; return what that touches."""
        before, self.foreign = self.foreign, frozenset(foreign)
        for address in self.foreign - before:
            self._log.warning(
                "address left alone, it carries a virtual server that is not ipvsproxy's",
                address=format_address(address),
            )
        return self.desired.exclude(self.foreign)


def _items(touched: Touched) -> Iterable[Item]:
    yield from touched.virtual_servers
    yield from touched.elements
    yield from touched.addresses
