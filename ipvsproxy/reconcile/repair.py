"""Service addresses that somebody else deletes are bound again at once, as the kernel tells of it.

The agent's own deletions are told, too: they are not known as bound any more when that is heard. Where somebody deletes
again and again, the pauses between the repairs double, until the resync is sooner and does it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ipvsproxy.kernel.interface import UNREACHABLE
from ipvsproxy.plan.desired import Touched

if TYPE_CHECKING:
    from collections.abc import Collection

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.interface import Addresses
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.reconcile.apply import Outcome
    from ipvsproxy.reconcile.state import NodeState

# In seconds. A program that deletes all addresses takes some time for it.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 3600.0
# After so long without a deletion the next one is repaired at once again.
CALM = 60.0
# So many repairs in a row are a fight.
FIGHT = 5


class AddressRepair:
    """What was heard of deletions on the dummy interface, and when it may be repaired.

    `hear` may be called from any thread, all else belongs to the reconciler.
    """

    def __init__(self, state: NodeState, addresses: Addresses, log: FilteringBoundLogger) -> None:
        """Begin with nothing heard."""
        self._state = state
        self._addresses = addresses
        self._log = log
        self._lock = threading.Lock()
        self._deleted: set[Address] = set()
        self._any_deleted = False
        self._repairs = 0
        self._last = 0.0
        self._not_before = 0.0

    def hear(self, deleted: Collection[Address], *, any_deleted: bool) -> None:
        """Note that these addresses were deleted, or that any of them may have been."""
        with self._lock:
            self._deleted.update(deleted)
            self._any_deleted |= any_deleted

    def next_try(self) -> float | None:
        """Return when to look at what was heard; None if nothing was."""
        return self._not_before if self._deleted or self._any_deleted else None

    def leave_to_resync(self, now: float) -> None:
        """Forget what was heard, since all addresses are about to be read."""
        deleted, any_deleted = self._take()
        if any_deleted or not deleted.isdisjoint(self._state.actual.addresses):
            self._last = now

    def step(self, now: float) -> Outcome | None:
        """Repair what was heard of if it is time; None if there is nothing to repair."""
        next_try = self.next_try()
        if next_try is None or now < next_try:
            return None
        deleted, any_deleted = self._take()
        bound = self._state.actual.addresses
        missing = bound & deleted
        if not missing and not any_deleted:
            return None
        try:
            self._addresses.ensure_interface()
            if any_deleted:
                missing = bound - self._addresses.bound()
        except UNREACHABLE as error:
            self._log.error("kernel unreachable", reason=str(error))
            return None
        if not missing:
            return None
        # One that is there after all is refused as such, and not counted.
        bound -= missing
        outcome = self._state.settle(Touched(addresses=missing), now)
        if outcome.done or outcome.failures:
            self._note_repair(now)
        return outcome

    def _take(self) -> tuple[set[Address], bool]:
        with self._lock:
            heard = self._deleted, self._any_deleted
            self._deleted, self._any_deleted = set(), False
        return heard

    def _note_repair(self, now: float) -> None:
        self._repairs = self._repairs + 1 if now - self._last <= CALM else 1
        self._last = now
        pause = min(FIRST_PAUSE * 2.0 ** (self._repairs - 1), LONGEST_PAUSE)
        self._not_before = now + pause
        if self._repairs == FIGHT:
            self._log.warning(
                "service addresses are deleted again and again",
                repairs=self._repairs,
                remedy="have systemd-networkd, NetworkManager or who else does it leave kube-ipvs0 alone",
            )
