"""The loop: changes first, then what failed, then what drains, then a slice of the resync.

`Controller.step` does what is due and says how long to wait; it has no clock and no sleep of its own, so tests drive
it. Nothing is written to the kernel before the store has seen both lists. Afterwards a change costs work for its own
Service; the resync alone looks at everything, in slices of a few milliseconds between which changes go first.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.model.items import describe
from ipvsproxy.plan.desired import Touched
from ipvsproxy.plan.services import plan_service
from ipvsproxy.reconcile.pace import Pace
from ipvsproxy.reconcile.resync import Resync, in_slices
from ipvsproxy.reconcile.state import NodeState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.interface import NodeKernel
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.plan.services import PlannedVirtualServer, PlanSettings
    from ipvsproxy.reconcile.apply import Outcome
    from ipvsproxy.reconcile.drain import DrainKey
    from ipvsproxy.reconcile.retry import Failure
    from ipvsproxy.source.store import ServiceState, Store

DRAIN_CHECK_PERIOD = 5.0
START_RETRY_PERIOD = 1.0


class Settings(NamedTuple):
    """What the loop is set to; times in seconds."""

    plan: PlanSettings
    sync_period: float
    minimum_sync_period: float
    drain_timeout: float


class Pause(NamedTuple):
    """How long there is nothing to do; `paced` if changes have to wait as well."""

    seconds: float | None
    paced: bool = False


class View(NamedTuple):
    """The reconciler's state at one moment, for readers; `now` gives the clock that failures and drains refer to."""

    now: float
    owners: Mapping[VirtualServerKey, ObjectKey]
    virtual_servers: Mapping[VirtualServerKey, PlannedVirtualServer]
    rejections: list[Rejection]
    failures: Mapping[Item, Failure]
    drains: Mapping[DrainKey, float]
    synced: bool


class Controller:
    """Keeps the kernel at what the store asks for. All methods but `stop` and `view` belong to one thread."""

    def __init__(
        self,
        store: Store,
        kernel: NodeKernel,
        settings: Settings,
        clock: Callable[[], float],
        log: FilteringBoundLogger,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the parts; `clock` is monotonic, in seconds, and `prepare` is called before anything is written."""
        self._store = store
        self._kernel = kernel
        self._settings = settings
        self._clock = clock
        self._log = log
        self._prepare = prepare
        self._state = NodeState(kernel, settings.drain_timeout, log)
        self._pace = Pace(settings.minimum_sync_period)
        self._rejections: dict[ObjectKey, frozenset[Rejection]] = {}
        self._started = False
        self._resync: tuple[Resync, Iterator[None]] | None = None
        self._next_resync = 0.0
        self._drain_check: Iterator[None] | None = None
        self._next_drain_check = 0.0
        self._stopping = threading.Event()
        self._wakeup = threading.Event()
        self._questions: queue.SimpleQueue[Future[View]] = queue.SimpleQueue()

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

    def view(self, timeout: float) -> View:
        """Return the state at one moment; TimeoutError when the loop is busy for longer than `timeout` seconds."""
        question: Future[View] = Future()
        self._questions.put(question)
        self._wake()
        return question.result(timeout)

    def _wake(self) -> None:
        self._wakeup.set()
        self._store.wake()

    def step(self) -> Pause:
        """Do the most urgent thing that is due, and say how long there is nothing to do after it."""
        self._answer_questions()
        if not self._started:
            return self._start()
        now = self._clock()
        if self._pace.pause(now) <= 0 and self._sync_changes(now):
            return Pause(0)
        if due := self._state.retries.due(now):
            self._report("retried", self._state.settle(due, now), now)
            return Pause(0)
        if self._step_drain_check(now) or self._step_resync(now):
            return Pause(0)
        return self._idle(now)

    def _idle(self, now: float) -> Pause:
        due = [self._next_resync]
        if self._state.drains.virtual_servers:
            due.append(self._next_drain_check)
        if (next_try := self._state.retries.next_try()) is not None:
            due.append(next_try)
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
        self._prepare()
        self._plan(self._store.take())
        resync = Resync(self._state, self._kernel, self._clock)
        try:
            for _ in resync.slices():
                pass
        except (OSError, FirewallError) as error:
            self._next_resync = began + START_RETRY_PERIOD
            self._log.error("first sync failed", reason=str(error), next_try_in_seconds=START_RETRY_PERIOD)
            return Pause(START_RETRY_PERIOD, paced=True)
        self._started = True
        self._next_resync = self._clock() + self._settings.sync_period
        self._report("first sync", resync.outcome, began, virtual_servers=len(self._state.desired.owners))
        return Pause(0)

    def _sync_changes(self, now: float) -> bool:
        services = self._store.take()
        if not services:
            return False
        self._pace.began(now)
        if touched := self._plan(services):
            self._report("synced", self._state.settle(touched, now), now, services=len(services))
        return True

    def _plan(self, services: Mapping[ObjectKey, ServiceState]) -> Touched:
        touched = Touched()
        for key, state in services.items():
            plan = plan_service(state.service, state.slices, self._settings.plan)
            touched.update(self._state.desired.replace(key, plan))
        for key in services.keys() | touched.services:
            self._report_rejections(key)
        return touched

    def _report_rejections(self, service: ObjectKey) -> None:
        """Write a line for each virtual server that the Service does not get, when that changes."""
        rejections = frozenset(self._state.desired.rejections_of(service))
        for _, _, field, reason in rejections - self._rejections.pop(service, frozenset()):
            self._log.warning("virtual server rejected", service=str(service), field=field, reason=reason)
        if rejections:
            self._rejections[service] = rejections

    def _step_resync(self, now: float) -> bool:
        if self._resync is None:
            if now < self._next_resync:
                return False
            resync = Resync(self._state, self._kernel, self._clock)
            self._resync = resync, resync.slices()
        resync, slices = self._resync
        try:
            next(slices)
        except StopIteration:
            self._log.debug("resynced", repaired=dict(resync.outcome.done))
            if resync.outcome.done:
                self._log.warning("repaired what others changed", **_fields(resync.outcome))
            self._report_failures(resync.outcome, now)
        except (OSError, FirewallError, KernelUnavailableError) as error:
            self._log.error("resync failed", reason=str(error))
        else:
            return True
        self._resync = None
        self._next_resync = now + self._settings.sync_period
        return True

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
            self._report("drained", self._state.finish_drains(chunk, now), now)
            yield

    def _report(self, event: str, outcome: Outcome, began: float, **fields: int) -> None:
        """Write one line for what was done, and one for each thing that failed."""
        if outcome.done or fields:
            duration = round((self._clock() - began) * 1000, 1)
            self._log.info(event, **fields, **_fields(outcome), milliseconds=duration)
        self._report_failures(outcome, began)

    def _report_failures(self, outcome: Outcome, began: float) -> None:
        for item, reason in outcome.failures.items():
            failure = self._state.retries.failures.get(item)
            pause = round(failure.next_try - began, 1) if failure else None
            self._log.error("not programmed", item=describe(item), reason=reason, next_try_in_seconds=pause)

    def _answer_questions(self) -> None:
        while True:
            try:
                question = self._questions.get_nowait()
            except queue.Empty:
                return
            desired = self._state.desired
            question.set_result(
                View(
                    now=self._clock(),
                    owners=dict(desired.owners),
                    virtual_servers=dict(desired.virtual_servers),
                    rejections=list(desired.rejections()),
                    failures=dict(self._state.retries.failures),
                    drains=self._state.drains.deadlines(),
                    synced=self._started,
                )
            )


def _fields(outcome: Outcome) -> dict[str, int]:
    return {kind.replace(" ", "_"): count for kind, count in outcome.done.items() if count}
