"""What is told of a round: a line that sums it up, one for each Service that changed, and one for each failure.

The same facts, as a value, go to whoever observes the loop.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import format_endpoint
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.items import describe
from ipvsproxy.plan.service_change import handovers, service_change
from ipvsproxy.plan.view import DrainEnd, Numbers, Occasion, Round, View
from ipvsproxy.reconcile.apply import Outcome
from ipvsproxy.reconcile.hooks import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.items import Item
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.reconcile.drain import DrainNews
    from ipvsproxy.reconcile.hooks import Hooks
    from ipvsproxy.reconcile.planning import Planner
    from ipvsproxy.reconcile.state import NodeState

# A change of the node, or of everything at once, is no reason for as many lines as there are Services.
MAXIMUM_LINES = 50
# Of one list of a line.
MAXIMUM_PHRASES = 10


class Rounds:
    """Tells of each round. The reconciler alone has it."""

    def __init__(
        self,
        state: NodeState,
        planner: Planner,
        clock: Callable[[], float],
        log: FilteringBoundLogger,
        hooks: Hooks,
    ) -> None:
        """Take what is told of, and whom it is told to."""
        self._state = state
        self._planner = planner
        self._clock = clock
        self._log = log
        self._hooks = hooks

    def first(self, outcome: Outcome, seconds: float, services: int) -> None:
        """Tell of the first sync, at which everything changed."""
        self._state.desired.take_owners_before()
        numbers = self._observe(Occasion.FIRST_SYNC, outcome, seconds, self._state.drains.take_news(), ())
        self._log.info(
            "first sync",
            services=services,
            virtual_servers=len(self._state.desired.owners),
            real_servers=numbers.real_servers,
            draining=numbers.draining,
            **_sum(outcome, seconds),
        )

    def changes(
        self,
        outcome: Outcome | None,
        began: float,
        services: int,
        triggers: Mapping[ObjectKey, Sequence[float]],
    ) -> None:
        """Tell of changes of so many Services, which are in the kernel now; `triggers` are what caused them.

        `outcome` is None if there was nothing in them for the kernel.
        """
        seconds, news = self._clock() - began, self._state.drains.take_news()
        failed = self._owners(outcome.failures) if outcome and outcome.failures else ()
        triggered = [time for service, times in triggers.items() if service not in failed for time in times]
        self._observe(Occasion.CHANGES, outcome or Outcome(), seconds, news, triggered)
        if outcome:
            self._log.info("synced", services=services, **_sum(outcome, seconds))
        self._tell_services(news)

    def view(self, last_resync: float | None) -> View:
        """Return the state at this moment; `last_resync` is when everything was compared with the kernel."""
        desired, context = self._state.desired, self._planner.context
        return View(
            now=self._clock(),
            owners=dict(desired.owners),
            virtual_servers=dict(desired.virtual_servers),
            rejections=list(desired.rejections()),
            failures=dict(self._state.retries.failures),
            drains=self._state.drains.all(),
            context=context._replace(service_addresses=frozenset(desired.service_addresses)),
            synced=last_resync is not None,
            last_resync=last_resync,
            agent_ports=desired.agent_ports,
        )

    def retried(self, outcome: Outcome, began: float) -> None:
        """Tell of items that failed before, and were tried again."""
        self._sum_up("retried", Occasion.RETRY, outcome, began)

    def added_source_list(self, outcome: Outcome, began: float) -> None:
        """Tell of a source list that was put off, and has been added."""
        self._sum_up("source list added", Occasion.CHANGES, outcome, began)

    def drained(self, outcome: Outcome, began: float) -> None:
        """Tell of the draining real servers that were looked at."""
        self._sum_up("drained", Occasion.DRAINS, outcome, began)

    def resynced(self, outcome: Outcome, seconds: float) -> None:
        """Tell of a comparison of everything, for which the loop was busy for so many seconds."""
        news = self._state.drains.take_news()
        self._observe(Occasion.RESYNC, outcome, seconds, news, ())
        self._log.debug("resynced", repaired=dict(outcome.done), milliseconds=round(seconds * 1000, 1))
        self._tell_repairs(outcome)
        self._tell_services(news)

    def repaired(self, outcome: Outcome, began: float) -> None:
        """Tell of service addresses that somebody else had deleted."""
        self._observe(Occasion.REPAIR, outcome, self._clock() - began, self._state.drains.take_news(), ())
        self._tell_repairs(outcome)

    def _tell_repairs(self, outcome: Outcome) -> None:
        if outcome.done:
            self._log.warning("repaired what others changed", **_counts(outcome))

    def failures(self, outcome: Outcome, began: float) -> None:
        """Tell of each thing that failed, and when it is tried again."""
        for item, reason in outcome.failures.items():
            failure = self._state.retries.failures.get(item)
            pause = round(failure.next_try - began, 1) if failure else None
            self._log.error("not programmed", item=describe(item), reason=reason, next_try_in_seconds=pause)

    def _owners(self, items: Iterable[Item]) -> set[ObjectKey | None]:
        """Return the Services that those of the items belong to which are virtual servers."""
        owners = self._state.desired.owners
        return {owners.get(item) for item in items if isinstance(item, VirtualServerKey)}

    def _sum_up(self, event: str, occasion: Occasion, outcome: Outcome, began: float) -> None:
        seconds, news = self._clock() - began, self._state.drains.take_news()
        self._observe(occasion, outcome, seconds, news, ())
        if outcome.done:
            self._log.info(event, **_sum(outcome, seconds))
        self._tell_services(news)

    def _observe(
        self,
        occasion: Occasion,
        outcome: Outcome,
        seconds: float,
        news: DrainNews,
        triggered: Sequence[float],
    ) -> Numbers:
        state, planner = self._state, self._planner
        numbers = Numbers(
            len(state.actual.virtual_servers),
            state.real_servers,
            state.drains.count,
            dict(state.retries.kinds),
            state.retries.since,
            planner.refused,
            dict(planner.without_local_endpoints),
        )
        ended: Mapping[DrainEnd, int] = Counter(how for _, how in news.ended) if news.ended else {}
        told = Round(occasion, seconds, outcome.done, outcome.refused, ended, triggered, numbers)
        tell(self._log, self._hooks.observe, told)
        return numbers

    def _tell_services(self, news: DrainNews) -> None:
        plans, self._planner.changes = self._planner.changes, []
        owners = self._state.desired.owners
        changes = handovers(self._state.desired.take_owners_before(), owners)
        for service, before, after, decided in plans:
            owned = {key for key in after.virtual_servers if owners.get(key) == service}
            for field, said in service_change(before, after, decided, owned).items():
                changes.setdefault(service, {}).setdefault(field, []).extend(said)
        for key, address, port in news.began:
            self._add(changes, key, "now_draining", format_endpoint(address, port))
        for (key, address, port), how in news.ended:
            if how is not DrainEnd.DELETED:
                self._add(changes, key, "drained", f"{format_endpoint(address, port)}: {how}")
        for number, (service, fields) in enumerate(changes.items()):
            if number == MAXIMUM_LINES:
                self._log.info("more services changed", services=len(changes) - number)
                return
            phrases = {name: _bounded(list(dict.fromkeys(each))) for name, each in fields.items()}
            self._log.info("service changed", service=str(service), **phrases)

    def _add(
        self,
        changes: dict[ObjectKey, dict[str, list[str]]],
        key: VirtualServerKey,
        field: str,
        phrase: str,
    ) -> None:
        """Add a phrase about a virtual server to what is told of its Service, if it still has one."""
        owner = self._state.desired.owners.get(key)
        if owner is not None:
            changes.setdefault(owner, {}).setdefault(field, []).append(phrase)


def _bounded(phrases: list[str]) -> list[str]:
    more = len(phrases) - MAXIMUM_PHRASES
    return [*phrases[:MAXIMUM_PHRASES], f"and {more} more"] if more > 0 else phrases


def _sum(outcome: Outcome, seconds: float) -> dict[str, object]:
    failed = {"failed": len(outcome.failures)} if outcome.failures else {}
    return {**_counts(outcome), **failed, "milliseconds": round(seconds * 1000, 1)}


def _counts(outcome: Outcome) -> dict[str, int]:
    return {kind.replace(" ", "_"): count for kind, count in outcome.done.items() if count}
