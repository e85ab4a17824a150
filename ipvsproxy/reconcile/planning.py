"""From changed Services to the desired state, and to all who have to know what a Service gets and does not get."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.objects import AddressKind
from ipvsproxy.plan.desired import Touched
from ipvsproxy.plan.pods import Claims
from ipvsproxy.plan.services import Context, plan_service
from ipvsproxy.reconcile.hooks import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.plan.desired import Desired
    from ipvsproxy.plan.node import NodeFacts
    from ipvsproxy.plan.services import Decided, HealthCheck, PlanSettings, ServicePlan
    from ipvsproxy.reconcile.hooks import Hooks
    from ipvsproxy.source.store import ServiceState


class PlanChange(NamedTuple):
    """A Service's plan and the one before, and what was decided about the endpoints."""

    service: ObjectKey
    before: ServicePlan
    after: ServicePlan
    decided: Decided


# Virtual servers differ from node to node, and an Event is for all of them.
FOREIGN = (
    "virtual servers that ipvsproxy did not make are in its place: `ipvsproxy dump` on the node that reports this "
    "names them, and `ipvsproxy explain` says what to do"
)
"""What is told where somebody else's virtual servers are the reason: these differ by node, an Event does not."""


class Planner:
    """Plans Services, and keeps what is desired at their plans. The reconciler alone has it.

    `settings` and `facts` are what every plan depends on; who replaces them has the Services planned anew that they
    concern. `changes` collects the plans of Services that changed, while `notes_changes`. `refused` counts the parts of
    Services that can't be had, and `without_local_endpoints` the Services that have endpoints on other nodes alone, by
    the traffic policy that is Local.
    """

    def __init__(
        self,
        desired: Desired,
        settings: PlanSettings,
        facts: NodeFacts,
        state: Callable[[ObjectKey], ServiceState],
        hooks: Hooks,
        log: FilteringBoundLogger,
    ) -> None:
        """Begin with no Services; `hooks` are told of health checks and of what Services do not get.

        `state` returns the latest state of a Service that is to be planned because of another one.
        """
        self.settings = settings
        self.facts = facts
        self.missing_schedulers: frozenset[str] = frozenset()
        self.notes_changes = False
        self.changes: list[PlanChange] = []
        self.refused = 0
        self.without_local_endpoints: Counter[str] = Counter()
        self._desired = desired
        self._claims = Claims()
        self._state = state
        self._hooks = hooks
        self._log = log
        self._health_checks: dict[ObjectKey, HealthCheck] = {}
        self._rejections: dict[ObjectKey, frozenset[Rejection]] = {}
        self._withheld: set[ObjectKey] = set()
        self._without_local: dict[ObjectKey, frozenset[str]] = {}

    @property
    def context(self) -> Context:
        """What surrounds each Service now."""
        return Context(
            self.settings, self.facts, self._desired.service_addresses, self.missing_schedulers, self._claims
        )

    def plan(self, services: Mapping[ObjectKey, ServiceState]) -> Touched:
        """Plan these Services anew, and others that an address is contested with; return what that touches."""
        touched = Touched()
        concerned = {other for key, state in services.items() for other in self._claims.replace(key, *state)}
        services = {**services, **{key: self._state(key) for key in concerned if key not in services}}
        for key, state in services.items():
            self._plan_service(key, state, touched)
        # An endpoint's address may be a service address that came, or went, with the same changes.
        if touched.service_addresses:
            for key, state in services.items():
                if self.is_misled(key, state):
                    self._plan_service(key, state, touched)
        self.report_rejections(services.keys() | touched.services)
        return touched

    def is_misled(self, service: ObjectKey, state: ServiceState) -> bool:
        """Say whether the Service's plan is wrong about having endpoints at service addresses."""
        addresses = self._desired.service_addresses
        found = {endpoint.address for each in state.slices for endpoint in each.endpoints} & addresses
        return bool(state.service) and self._desired.plan(service).at_service_addresses != found

    def report_rejections(self, services: Iterable[ObjectKey]) -> None:
        """Tell of each part that a Service does not get, when that changes."""
        new: list[Rejection] = []
        for service in services:
            before = self._rejections.pop(service, frozenset())
            rejections = frozenset(self._desired.rejections_of(service))
            self.refused += len(rejections) - len(before)
            for rejection in rejections - before:
                self._log.warning(
                    "part of a service rejected",
                    service=str(service),
                    field=rejection.field,
                    reason=rejection.reason,
                )
                new.append(rejection)
            if rejections:
                self._rejections[service] = rejections
        self._tell_of(new)

    def tell_withheld(self) -> None:
        """Tell of what kube-proxy's virtual servers explained, if kube-proxy's records are gone and it is still so."""
        withheld, self._withheld = self._withheld, set()
        self._tell_of(each for key in withheld for each in self._rejections.get(key, ()) if each.foreign)

    def _tell_of(self, rejections: Iterable[Rejection]) -> None:
        """Tell of rejections, once for each Service, field and kind of reason, in words that all nodes have in common.

        What kube-proxy's virtual servers explain, as they do while a node is changed over, waits until its records are
        gone.
        """
        groups: dict[tuple[ObjectKey, str, bool], list[Rejection]] = {}
        for rejection in sorted(rejections):
            groups.setdefault((rejection.key, rejection.field, rejection.foreign), []).append(rejection)
        explained = any(foreign for _, _, foreign in groups) and tell(
            self._log, self._hooks.kube_proxy_is_here
        )
        for (service, _, foreign), group in groups.items():
            if foreign and explained:
                self._withheld.add(service)
            else:
                reason = FOREIGN if foreign else "; ".join(each.reason for each in group)
                tell(self._log, self._hooks.rejected, group[0]._replace(reason=reason))

    def _plan_service(self, key: ObjectKey, state: ServiceState, touched: Touched) -> None:
        before, context = self._desired.plan(key), self.context
        decided: Decided = {}
        plan = plan_service(state.service, state.slices, context, decided)
        touched.update(self._desired.replace(key, plan))
        if self.notes_changes:
            self.changes.append(PlanChange(key, before, plan, decided))
        if self._health_checks.get(key) != plan.health_check:
            tell(self._log, self._hooks.health_check_changed, key, plan.health_check)
            if plan.health_check:
                self._health_checks[key] = plan.health_check
            else:
                del self._health_checks[key]
        self._count_without_local(key, plan)

    def _count_without_local(self, key: ObjectKey, plan: ServicePlan) -> None:
        policies = frozenset(
            "internal" if planned.kind is AddressKind.CLUSTER_IP else "external"
            for planned in plan.virtual_servers.values()
            if planned.only_remote_endpoints
        )
        before = self._without_local.pop(key, None)
        if before:
            self.without_local_endpoints.subtract(before)
        if policies:
            self.without_local_endpoints.update(policies)
            self._without_local[key] = policies
