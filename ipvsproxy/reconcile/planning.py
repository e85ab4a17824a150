"""From changed Services to the desired state, and to all who have to know what a Service gets and does not get."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ipvsproxy.model.objects import AddressKind
from ipvsproxy.plan.desired import Touched
from ipvsproxy.plan.service_change import service_change
from ipvsproxy.plan.services import Context, plan_service
from ipvsproxy.reconcile.hooks import tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.plan.desired import Desired
    from ipvsproxy.plan.node import NodeFacts
    from ipvsproxy.plan.services import Decided, HealthCheck, PlanSettings, ServicePlan
    from ipvsproxy.reconcile.hooks import Hooks
    from ipvsproxy.source.store import ServiceState


class Planner:
    """Plans Services, and keeps what is desired at their plans. The reconciler alone has it.

    `settings` and `facts` are what every plan depends on; who replaces them has the Services planned anew that they
    concern. `changes` collects what changed of each Service, in words, while `notes_changes`. `refused` counts the
    parts of Services that can't be had, and `without_local_endpoints` the Services that have endpoints on other nodes
    alone, by the traffic policy that is Local.
    """

    def __init__(
        self,
        desired: Desired,
        settings: PlanSettings,
        facts: NodeFacts,
        hooks: Hooks,
        log: FilteringBoundLogger,
    ) -> None:
        """Begin with no Services; `hooks` are told of health checks and of what Services do not get."""
        self.settings = settings
        self.facts = facts
        self.missing_schedulers: frozenset[str] = frozenset()
        self.notes_changes = False
        self.changes: dict[ObjectKey, dict[str, list[str]]] = {}
        self.refused = 0
        self.without_local_endpoints: Counter[str] = Counter()
        self._desired = desired
        self._hooks = hooks
        self._log = log
        self._health_checks: dict[ObjectKey, HealthCheck] = {}
        self._rejections: dict[ObjectKey, frozenset[Rejection]] = {}
        self._without_local: dict[ObjectKey, frozenset[str]] = {}

    @property
    def context(self) -> Context:
        """What surrounds each Service now."""
        return Context(self.settings, self.facts, self._desired.service_addresses, self.missing_schedulers)

    def plan(self, services: Mapping[ObjectKey, ServiceState]) -> Touched:
        """Plan these Services anew; return what that touches."""
        touched = Touched()
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
        has_any = any(endpoint.address in addresses for each in state.slices for endpoint in each.endpoints)
        return bool(state.service) and self._desired.plan(service).has_service_address != has_any

    def report_rejections(self, services: Iterable[ObjectKey]) -> None:
        """Tell of each part that a Service does not get, when that changes."""
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
                tell(self._log, self._hooks.rejected, rejection)
            if rejections:
                self._rejections[service] = rejections

    def _plan_service(self, key: ObjectKey, state: ServiceState, touched: Touched) -> None:
        before, context = self._desired.plan(key), self.context
        decided: Decided = {}
        plan = plan_service(state.service, state.slices, context, decided)
        touched.update(self._desired.replace(key, plan))
        if self.notes_changes:
            for field, phrases in service_change(before, plan, decided).items():
                self.changes.setdefault(key, {}).setdefault(field, []).extend(phrases)
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
