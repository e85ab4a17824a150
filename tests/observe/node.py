"""A node to look at: what the store and the reconciler know, and a kernel that has just that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.interface import FirewallState
from ipvsproxy.model.addresses import parse_network
from ipvsproxy.model.ipvs import RealServerStatus
from ipvsproxy.observe.comparison import KernelTables
from ipvsproxy.observe.report import Identity, build_report
from ipvsproxy.plan.desired import Desired
from ipvsproxy.plan.firewall import FirewallSettings
from ipvsproxy.plan.services import PlanSettings, plan_service
from ipvsproxy.reconcile.controller import View
from ipvsproxy.source.store import ServiceState
from tests.builders import NODE, address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServer, VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.model.objects import EndpointSlice, Service
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.reconcile.drain import DrainKey
    from ipvsproxy.reconcile.retry import Failure

NOW = 1000.0
IDENTITY = Identity(
    "0.1.0", 4711, NODE, FirewallSettings((parse_network("10.244.0.0/16"),), masquerade_bit=14)
)


def state(service: Service, *slices: EndpointSlice) -> ServiceState:
    return ServiceState(service, slices)


def view_of(
    *states: ServiceState,
    foreign: Iterable[str] = (),
    failures: Mapping[Item, Failure] | None = None,
    drains: Mapping[DrainKey, float] | None = None,
    synced: bool = True,
) -> View:
    """Return the view of a reconciler that has planned these Services; `foreign` addresses are somebody else's."""
    desired = planned(states)
    desired.exclude(address(each) for each in foreign)
    return View(
        NOW,
        desired.owners,
        desired.virtual_servers,
        list(desired.rejections()),
        failures or {},
        drains or {},
        synced,
    )


def report_of(
    *states: ServiceState, view: View | None = None, rejections: Iterable[Rejection] = ()
) -> AgentReport:
    """Return the agent's report; without a view, from one that knows all that the store knows."""
    return build_report(IDENTITY, view or view_of(*states), states, rejections)


class Kernel(NamedTuple):
    """What is in the kernel: `virtual_servers` with their real servers, which have no connections."""

    virtual_servers: dict[VirtualServerKey, VirtualServer]
    bound: set[Address]
    elsewhere: set[Address]
    firewall: FirewallState

    @property
    def tables(self) -> KernelTables:
        without = {key: each._replace(real_servers=()) for key, each in self.virtual_servers.items()}
        return KernelTables(without, self.bound, self.elsewhere, self.firewall)

    @property
    def real_servers(self) -> dict[VirtualServerKey, list[RealServerStatus]]:
        return {
            key: [RealServerStatus(server, 0, 0) for server in each.real_servers]
            for key, each in self.virtual_servers.items()
        }


def kernel_of(*states: ServiceState) -> Kernel:
    """Return a kernel that has exactly what these Services ask for."""
    desired = planned(states)
    return Kernel(
        {key: each.virtual_server for key, each in desired.virtual_servers.items()},
        set(desired.addresses),
        set(),
        FirewallState(frozenset(desired.elements), intact=True),
    )


def planned(states: Iterable[ServiceState]) -> Desired:
    desired = Desired()
    for service, slices in states:
        assert service is not None
        desired.replace(service.key, plan_service(service, slices, PlanSettings(NODE, "rr")))
    return desired
