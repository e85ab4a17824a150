"""What of the host's firewall stands in the way of service traffic: told once, and kept to be shown.

Where it drops what is forwarded, this is also where the agent's own chain is made, and made again: programs are run for
it, and the reconciler waits for none of them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.observe.schema import HostFirewallInfo
from ipvsproxy.plan.forwarding import find_missing, find_ours
from ipvsproxy.plan.host_firewall import find_drops

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.host_firewall import HostFirewall
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.plan.forwarding import Accepting, Leftover
    from ipvsproxy.plan.host_firewall import HostFirewallFinding
    from ipvsproxy.plan.host_rules import HostTables

T = TypeVar("T")

_REFUSALS = (OSError, FirewallError, KernelUnavailableError)


class Forwarding(Protocol):
    """What makes and removes the agent's chain; `kernel.forwarding` has it."""

    def accept(self, wanted: Accepting, masquerade_bit: int) -> None:
        """Make the chain and what leads to it; FirewallError or KernelUnavailableError."""

    def remove(self, ours: Leftover) -> None:
        """Remove the chain and what leads to it; FirewallError or KernelUnavailableError."""


class State(NamedTuple):
    """What the last look found.

    `unmended` are sentences about where the agent's chain could not be made or removed, `chains` are the places where
    it is.
    """

    findings: tuple[HostFirewallFinding, ...] = ()
    unseen: tuple[str, ...] = ()
    unmended: tuple[str, ...] = ()
    chains: tuple[str, ...] = ()

    @property
    def reported(self) -> HostFirewallInfo:
        """All of it in words."""
        warnings = [*map(str, self.findings), *self.unseen]
        return HostFirewallInfo(warnings, list(self.unmended), list(self.chains))


class HostFirewallWatch:
    """Looks when it is asked to, in a thread of its own named `host-firewall`."""

    def __init__(
        self,
        look: Callable[[], HostFirewall],
        forwarding: Forwarding,
        served: Callable[[], Collection[VirtualServerKey]],
        accepted_bit: Callable[[], int | None],
        log: FilteringBoundLogger,
    ) -> None:
        """Take what looks at the host's firewall, what makes the agent's chain there, and what the agent serves.

        `accepted_bit` says which bit of the mark the chain accepts, None if there shall be no such chain.
        """
        self._look = look
        self._forwarding = forwarding
        self._served = served
        self._accepted_bit = accepted_bit
        self._log = log
        self._state = State()
        self._asked = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="host-firewall", daemon=True)

    @property
    def state(self) -> State:
        """What was found at the last look."""
        return self._state

    def ask(self) -> None:
        """Ask for another look; from any thread."""
        self._asked.set()

    def start(self) -> None:
        """Start to look when asked."""
        self._thread.start()

    def stop(self) -> None:
        """Make the thread end soon."""
        self._stopping = True
        self._asked.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end after `stop`, at most for `timeout` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopping:
                return
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - a look that fails is no reason to look no more
                self._log.error("host firewall look failed", exc_info=error)

    def look(self) -> None:
        """Look, bring the agent's chain to where it is needed, and write a line for what was not there before."""
        found = self._look()
        changed, unmended = self._mend(found)
        if changed:
            found = self._look()
        before = self._state
        self._state = State(
            tuple(find_drops(found.tables, self._served())),
            found.unseen,
            unmended,
            tuple(str(each) for each in find_ours(found.tables)),
        )
        self._tell(before)

    def _mend(self, found: HostFirewall) -> tuple[bool, tuple[str, ...]]:
        """Make the chain where it is missing, or remove it if it is not wanted; say whether, and what failed."""
        bit = self._accepted_bit()
        tried = list(self._withdraw(found.tables) if bit is None else self._accept(found.tables, bit))
        failed = tuple(each for each in tried if each)
        return len(failed) < len(tried), failed

    def _accept(self, tables: HostTables, bit: int) -> Iterator[str]:
        """Make the chains; yield for each why it could not be made, "" if it was."""
        for missing in find_missing(tables, bit):
            try:
                self._forwarding.accept(missing, bit)
            except _REFUSALS as error:
                yield f"{missing} can't be made, so answers of endpoints are dropped there: {error}"
            else:
                self._tell_made(missing)
                yield ""

    def _withdraw(self, tables: HostTables) -> Iterator[str]:
        """Remove the chains; yield for each why it could not be removed, "" if it was."""
        for ours in find_ours(tables):
            try:
                self._forwarding.remove(ours)
            except _REFUSALS as error:
                yield f"{ours} can't be removed: {error}"
            else:
                self._log.info("chain removed from the host firewall", chain=str(ours))
                yield ""

    def _tell_made(self, made: Accepting) -> None:
        because = f"{made.base} drops what nothing accepts"
        if str(made) in self._state.chains:
            self._log.warning("host firewall accepts answers again", chain=str(made), because=because)
        else:
            self._log.info("host firewall accepts answers", chain=str(made), because=because)

    def _tell(self, before: State) -> None:
        for finding in _new(self._state.findings, before.findings):
            base = finding.base
            self._log.warning(
                "host firewall drops",
                hook=base.hook,
                backend=base.table.backend,
                family=base.table.family,
                table=base.table.name,
                chain=base.chain,
                priority=base.priority,
                why=finding.end.why,
                meaning=str(finding),
            )
        for reason in _new(self._state.unmended, before.unmended):
            self._log.warning("host firewall not changed", reason=reason)
        for reason in _new(self._state.unseen, before.unseen):
            self._log.info("host firewall not looked at", reason=reason)


def _new(now: Iterable[T], before: Collection[T]) -> list[T]:
    return [each for each in now if each not in before]
