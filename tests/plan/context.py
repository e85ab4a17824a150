"""A node, its settings and what surrounds a Service, for plans in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.plan.endpoints import Here
from ipvsproxy.plan.node import NodeFacts
from ipvsproxy.plan.services import Context, PlanSettings, plan_service
from tests.builders import NODE, networks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import EndpointSlice, Service
    from ipvsproxy.plan.node import Reservation
    from ipvsproxy.plan.services import ServicePlan

SETTINGS = PlanSettings("rr", 900, networks("0.0.0.0/0", "::/0"))


def context(
    *,
    zone: str = "",
    node_ports_on: tuple[Address, ...] = (),
    node_addresses: tuple[Address, ...] = (),
    reserved: Mapping[Address, Reservation] | None = None,
    service_addresses: tuple[Address, ...] = (),
    settings: PlanSettings = SETTINGS,
) -> Context:
    facts = NodeFacts(Here(NODE, zone), frozenset(node_addresses), frozenset(node_ports_on), reserved or {})
    return Context(settings, facts, frozenset(service_addresses))


CONTEXT = context()


def plan(of: Service | None, *slices: EndpointSlice, around: Context = CONTEXT) -> ServicePlan:
    return plan_service(of, slices, around)
