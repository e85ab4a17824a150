"""The loop: changes first, then what failed, then what drains, then a slice of the resync.

`Controller.step` does what is due and says how long to wait; it has no clock and no sleep of its own, so tests drive
it. Nothing is written to the kernel before the store has seen both lists. Afterwards a change costs work for its own
Service; the resync alone looks at everything, in slices of a few milliseconds between which changes go first.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.plan.desired import Touched
from ipvsproxy.plan.node import NodeInputs, changes, node_facts
from ipvsproxy.plan.view import Comparison, Planned, View
from ipvsproxy.reconcile.hooks import Hooks, tell
from ipvsproxy.reconcile.pace import Pace
from ipvsproxy.reconcile.planning import Planner
from ipvsproxy.reconcile.questions import Questions
from ipvsproxy.reconcile.repair import AddressRepair
from ipvsproxy.reconcile.resync import Resync, in_slices
from ipvsproxy.reconcile.rounds import Rounds
from ipvsproxy.reconcile.state import NodeState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.address_notices import AddressChange
    from ipvsproxy.kernel.interface import NodeKernel
    from ipvsproxy.model.addresses import Address, Network
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import Node
    from ipvsproxy.model.selection import NodePortAddresses
    from ipvsproxy.plan.firewall import FirewallSettings
    from ipvsproxy.plan.node import NodeFacts
    from ipvsproxy.plan.services import PlanSettings
    from ipvsproxy.reconcile.apply import Outcome
    from ipvsproxy.source.store import ServiceState, Store

DRAIN_CHECK_PERIOD = 5.0
START_RETRY_PERIOD = 1.0


NO_TRIGGERS: Mapping[ObjectKey, Sequence[float]] = MappingProxyType({})

# The Service of the API server itself.
KUBERNETES = ObjectKey("default", "kubernetes")


class Settings(NamedTuple):
    """What the loop is set to; times in seconds.

    `firewall` tells what the rules depend on from the own Node. At `agent_ports` the agent answers, by TCP and at all
    addresses, beside health check node ports.
    """

    node_name: str
    plan: PlanSettings
    node_ports: NodePortAddresses
    cluster_cidrs: tuple[Network, ...]
    firewall: Callable[[Node | None], FirewallSettings]
    sync_period: float
    minimum_sync_period: float
    agent_ports: frozenset[int] = frozenset()


class Pause(NamedTuple):
    """How long there is nothing to do; `paced` if changes have to wait as well."""

    seconds: float | None
    paced: bool = False


class Controller:
    """Keeps the kernel at what the store asks for.

    `stop`, `view`, `planned`, `compare`, `configure` and `addresses_changed` may be called from any thread, all else
    belongs to one.
    """

    def __init__(
        self,
        store: Store,
        kernel: NodeKernel,
        settings: Settings,
        clock: Callable[[], float],
        log: FilteringBoundLogger,
        hooks: Hooks = Hooks(),  # noqa: B008 - an immutable value
    ) -> None:
        """Take the parts; `clock` is monotonic, in seconds."""
        self._store = store
        self._kernel = kernel
        self._settings = settings
        self._clock = clock
        self._log = log
        self._hooks = hooks
        self._state = NodeState(kernel, log, hooks.shuffle)
        self._state.desired.answer_at(settings.agent_ports)
        self._pace = Pace(settings.minimum_sync_period)
        self._node = NodeInputs()
        facts = _facts_of(settings, self._node)
        self._planner = Planner(self._state.desired, settings.plan, facts, store.state, hooks, log)
        self._rounds = Rounds(self._state, self._planner, clock, log, hooks)
        self._addresses_changed = threading.Event()
        self._repair = AddressRepair(self._state, kernel.addresses, log)
        self._prepared = self._started = False
        self._resync: tuple[Resync, Iterator[None]] | None = None
        self._next_resync = 0.0
        self._last_resync: float | None = None
        self._drain_check: Iterator[None] | None = None
        self._next_drain_check = 0.0
        self._stopping = threading.Event()
        self._wakeup = threading.Event()
        self._views = Questions[View](self._wake)
        self._comparisons = Questions[Comparison](self._wake)
        # Who waits for the comparison under way.
        self._awaited: list[Future[Comparison]] = []
        self._new_settings: queue.SimpleQueue[Settings] = queue.SimpleQueue()

    def run(self) -> None:
        """Step and wait until `stop`. KernelUnavailableError if the kernel turns out not to be fit at the start."""
        while not self._stopping.is_set():
            pause = self.step()
            if pause.seconds == 0:
                continue
            if pause.paced:
                self._wakeup.wait(pause.seconds)
                self._wakeup.clear()
            else:
                self._store.wait(pause.seconds)

    def stop(self) -> None:
        """Make `run` return after the step it is in. The kernel stays as it is."""
        self._stopping.set()
        self._wake()

    def addresses_changed(self, change: AddressChange) -> None:
        """Note that the node's addresses are not what they were; from any thread."""
        if change.elsewhere:
            self._addresses_changed.set()
        self._repair.hear(change.deleted, any_deleted=change.any_deleted)
        self._wake()

    def configure(self, settings: Settings) -> None:
        """Take other settings, whose `node_name` is the same; from any thread."""
        self._new_settings.put(settings)
        self._wake()

    def view(self, timeout: float) -> View:
        """Return the state at one moment; TimeoutError when the loop is busy for longer than `timeout` seconds."""
        return self._views.ask(timeout)

    def compare(self, timeout: float) -> Comparison:
        """Compare everything with the kernel from now on, and return what came of it.

        TimeoutError when it takes longer than `timeout` seconds; what made it fail is raised.
        """
        return self._comparisons.ask(timeout)

    def planned(self) -> Planned:
        """Return what is desired, from any thread and without waiting for the loop.

        Each part is whole, for a dict is copied in one step; one may be a change ahead of the other.
        """
        desired = self._state.desired
        return Planned(dict(desired.owners), dict(desired.virtual_servers))

    def _wake(self) -> None:
        self._wakeup.set()
        self._store.wake()

    def step(self) -> Pause:
        """Do the most urgent thing that is due, and say how long there is nothing to do after it."""
        for question in self._views.take():
            question.set_result(self._rounds.view(self._last_resync))
        with contextlib.suppress(queue.Empty):
            self._use(self._new_settings.get_nowait())
        if not self._started:
            return self._start()
        now = self._clock()
        did_something = (
            (self._pace.pause(now) <= 0 and self._sync_changes(now))
            or self._step_repair(now)
            or self._step_retries(now)
            or self._step_source_lists(now)
            or self._step_drain_check(now)
            or self._step_resync(now)
        )
        return Pause(0) if did_something else self._idle(now)

    def _step_repair(self, now: float) -> bool:
        outcome = self._repair.step(now)
        if outcome is None:
            return False
        self._rounds.repaired(outcome, now)
        self._follow_up(outcome, now)
        return True

    def _step_retries(self, now: float) -> bool:
        due = self._state.due(now)
        if not due:
            return False
        outcome = self._state.settle(due, now)
        self._rounds.retried(outcome, now)
        self._follow_up(outcome, now)
        return True

    def _step_source_lists(self, now: float) -> bool:
        if not self._state.put_off:
            return False
        outcome = self._state.settle_put_off(now)
        self._rounds.added_source_list(outcome, now)
        self._follow_up(outcome, now)
        return True

    def _idle(self, now: float) -> Pause:
        due = [now if self._comparisons else self._next_resync]
        if self._addresses_changed.is_set():
            due.append(now + START_RETRY_PERIOD)
        if self._state.drains.virtual_servers:
            due.append(self._next_drain_check)
        tries = self._state.retries.next_try(), self._repair.next_try()
        due += [each for each in tries if each is not None]
        seconds = max(min(due) - now, 0)
        paced = self._pace.pause(now)
        return Pause(min(seconds, paced), paced=True) if paced > 0 else Pause(seconds)

    def _start(self) -> Pause:
        """Take over the kernel as it is: one full comparison before anything else, tried until it is done."""
        if not self._store.synced:
            return Pause(None)
        began = self._clock()
        if began < self._next_resync:
            return Pause(self._next_resync - began, paced=True)
        self._pace.began(began)
        if not self._prepared:
            self._hooks.prepare()
            self._prepared = True
        self._repair.leave_to_resync(began)
        resync = Resync(self._state, self._kernel, self._clock)
        try:
            inputs = self._read_addresses(self._node)
            services = self._store.take()
            self._look_at_node(inputs, services)
            self._planner.plan(services)
            for _ in resync.slices():
                pass
        except (OSError, FirewallError) as error:
            self._next_resync = began + START_RETRY_PERIOD
            self._log.error("first sync failed", reason=str(error), next_try_in_seconds=START_RETRY_PERIOD)
            return Pause(START_RETRY_PERIOD, paced=True)
        self._started = True
        self._last_resync = self._clock()
        self._next_resync = self._last_resync + self._settings.sync_period
        tell(self._log, self._hooks.succeeded)
        self._planner.notes_changes = True
        self._rounds.first(resync.outcome, self._clock() - began, len(services))
        self._follow_up(resync.outcome, began)
        return Pause(0)

    def _sync_changes(self, now: float) -> bool:
        inputs = self._node
        if self._addresses_changed.is_set():
            try:
                inputs = self._read_addresses(inputs)
            except OSError as error:
                self._addresses_changed.set()
                self._log.error("addresses of the node not read", reason=str(error))
        services = self._store.take()
        touched = self._look_at_node(inputs, services)
        if not services and not touched:
            return False
        self._pace.began(now)
        touched.update(self._planner.plan(services))
        self._settle_changes(touched, now, len(services), self._store.triggers_taken)
        return True

    def _settle_changes(
        self,
        touched: Touched,
        began: float,
        services: int,
        triggers: Mapping[ObjectKey, Sequence[float]] = NO_TRIGGERS,
    ) -> None:
        """Bring to the kernel what changes of so many Services have touched, if anything."""
        outcome = self._state.settle(touched, began) if touched else None
        self._rounds.changes(outcome, began, services, triggers)
        if outcome:
            self._follow_up(outcome, began)

    def _follow_up(self, outcome: Outcome, now: float) -> None:
        """Tell what failed, and plan anew what can't be had as it was planned."""
        self._planner.report_rejections(self._state.contested)
        self._state.contested.clear()
        if outcome.missing_schedulers - self._planner.missing_schedulers:
            self._do_without(outcome.missing_schedulers, now)
        self._rounds.failures(outcome, now)

    def _use(self, settings: Settings) -> None:
        """Go by other settings from now on: the Services are planned anew if their plans depend on what changed."""
        before, self._settings = self._settings, settings
        self._pace = Pace(settings.minimum_sync_period)
        facts = self._planner.facts
        self._planner.settings, self._planner.facts = settings.plan, _facts_of(settings, self._node)
        node = self._node.node
        touched = self._state.desired.answer_at(settings.agent_ports)
        if before.firewall(node) != settings.firewall(node):
            self._kernel.firewall.use(settings.firewall(node))
            self._resync, self._next_resync = None, self._clock()
        if not self._started:
            return
        now = self._clock()
        self._next_resync = min(self._next_resync, now + settings.sync_period)
        if facts != self._planner.facts:
            tell(self._log, self._hooks.node_changed, self._planner.facts)
        services: dict[ObjectKey, ServiceState] = {}
        if (facts, before.plan) != (self._planner.facts, settings.plan):
            services = {key: self._store.state(key) for key in self._store.service_keys()}
            touched.update(self._planner.plan(services))
        if services or touched:
            self._settle_changes(touched, now, len(services))

    def _read_addresses(self, inputs: NodeInputs) -> NodeInputs:
        """Read the addresses of the node's interfaces; OSError if that fails."""
        # Cleared first: what changes from here on is the next look's.
        self._addresses_changed.clear()
        return inputs._replace(interface_addresses=self._kernel.addresses.elsewhere())

    def _look_at_node(self, inputs: NodeInputs, services: dict[ObjectKey, ServiceState]) -> Touched:
        """Take in what changed of the node: return what that touches, and add the Services that it concerns."""
        store = self._store
        inputs = inputs._replace(node=store.node, nodes=store.node_addresses, api_peers=store.api_peers)
        if KUBERNETES in services:
            inputs = inputs._replace(api_servers=_endpoint_addresses(services[KUBERNETES]))
        return self._take_in(inputs, services)

    def _take_in(self, inputs: NodeInputs, services: dict[ObjectKey, ServiceState]) -> Touched:
        touched = Touched()
        before, self._node = self._node, inputs
        # Read just now: a resync under way may have read others before.
        if inputs.interface_addresses is not before.interface_addresses:
            touched = self._state.hold(inputs.interface_addresses)
        if before == inputs:
            return touched
        firewall = self._settings.firewall
        if firewall(before.node) != firewall(inputs.node):
            self._kernel.firewall.use(firewall(inputs.node))
            self._resync, self._next_resync = None, self._clock()
        facts = _facts_of(self._settings, inputs)
        concerned = changes(self._planner.facts, facts)
        self._planner.facts = facts
        if concerned:
            tell(self._log, self._hooks.node_changed, facts)
            for service in self._state.desired.depending_on(concerned):
                services.setdefault(service, self._store.state(service))
        return touched

    def _step_resync(self, now: float) -> bool:
        if self._resync is None:
            if now < self._next_resync and not self._comparisons:
                return False
            self._awaited += self._comparisons.take()
            self._repair.leave_to_resync(now)
            resync = Resync(self._state, self._kernel, self._clock)
            self._resync = resync, resync.slices()
        resync, slices = self._resync
        try:
            next(slices)
        except StopIteration:
            resync.seconds += self._clock() - now
            self._rounds.resynced(resync.outcome, resync.seconds)
            self._follow_up(resync.outcome, now)
            self._finish_resync(resync, now)
            resync.outcome.done.update(self._retry_all(now))
            self._last_resync = self._clock()
            tell(self._log, self._hooks.succeeded)
            failures = dict(self._state.retries.failures)
            for asked in self._take_awaited():
                asked.set_result(Comparison(resync.seconds, dict(resync.outcome.done), failures))
        except (OSError, FirewallError, KernelUnavailableError) as error:
            self._log.error("resync failed", reason=str(error))
            for asked in self._take_awaited():
                asked.set_exception(error)
        else:
            resync.seconds += self._clock() - now
            return True
        self._resync = None
        self._next_resync = now + self._settings.sync_period
        return True

    def _take_awaited(self) -> Iterable[Future[Comparison]]:
        taken, self._awaited = self._awaited, []
        return taken

    def _finish_resync(self, resync: Resync, now: float) -> None:
        """Take in what only a look at everything shows: the node's addresses, and endpoints at service addresses."""
        suspects = resync.suspects | set(self._state.desired.without_service_addresses())
        services = {
            key: state for key in suspects if self._planner.is_misled(key, state := self._store.state(key))
        }
        touched = self._take_in(
            self._node._replace(interface_addresses=self._state.actual.elsewhere), services
        )
        touched.update(self._planner.plan(services))
        if touched:
            self._settle_changes(touched, now, len(services))
        self._planner.tell_withheld()

    def _retry_all(self, now: float) -> Mapping[str, int]:
        """Try everything that failed once, and return what was done: the fault may be over long before the pause is."""
        if due := self._state.retries.all():
            known = {item: failure.reason for item, failure in self._state.retries.failures.items()}
            outcome = self._state.settle(due, now)
            self._rounds.retried(outcome, now)
            # What fails as before was told before.
            outcome.failures = dict(outcome.failures.items() - known.items())
            self._follow_up(outcome, now)
            return outcome.done
        return {}

    def _step_drain_check(self, now: float) -> bool:
        if self._drain_check is None:
            keys = self._state.drains.virtual_servers
            if not keys or now < self._next_drain_check:
                return False
            self._drain_check = self._check_drains(keys)
        if next(self._drain_check, self) is self:
            self._drain_check = None
            self._next_drain_check = now + DRAIN_CHECK_PERIOD
        return True

    def _check_drains(self, keys: Iterable[VirtualServerKey]) -> Iterator[None]:
        for chunk in in_slices(keys, self._state):
            now = self._clock()
            outcome = self._state.finish_drains(chunk, now)
            self._rounds.drained(outcome, now)
            self._follow_up(outcome, now)
            yield

    def _do_without(self, schedulers: set[str], now: float) -> None:
        """Plan the Services anew that asked for schedulers which the kernel has not."""
        self._planner.missing_schedulers |= schedulers
        services = {key: self._store.state(key) for key in self._state.desired.scheduled_by(schedulers)}
        if touched := self._planner.plan(services):
            self._settle_changes(touched, now, len(services))


def _facts_of(settings: Settings, inputs: NodeInputs) -> NodeFacts:
    return node_facts(settings.node_name, settings.node_ports, settings.cluster_cidrs, inputs)


def _endpoint_addresses(state: ServiceState) -> frozenset[Address]:
    return frozenset(endpoint.address for each in state.slices for endpoint in each.endpoints)
