"""A node to look at: what the store and the reconciler know, and a kernel that has just that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ipvsproxy.kernel.interface import FirewallState
from ipvsproxy.model.ipvs import RealServerStatus
from ipvsproxy.observe.comparison import KernelTables
from ipvsproxy.observe.report import Identity, build_report
from ipvsproxy.plan.desired import Desired
from ipvsproxy.plan.firewall import FirewallSettings, PodNetworks
from ipvsproxy.plan.node import Reservation
from ipvsproxy.plan.services import PlanSettings, plan_service
from ipvsproxy.plan.view import View
from ipvsproxy.source.store import ServiceState
from tests.builders import NODE, address, addresses, networks
from tests.plan.context import context

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServer, VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.model.objects import EndpointSlice, Service
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.plan.view import Drain, DrainKey, Failure

NOW = 1000.0
# In zone-a, with node ports on two addresses; it allows some external IPs, and knows another node.
CONTEXT = context(
    zone="zone-a",
    node_ports_on=addresses("203.0.113.1", "203.0.113.2"),
    node_addresses=addresses("203.0.113.1", "203.0.113.2"),
    reserved={address("203.0.113.9"): Reservation.OTHER_NODE},
    service_addresses=addresses("10.250.0.99"),
    settings=PlanSettings("rr", 900, networks("198.51.100.0/24")),
)
IDENTITY = Identity(
    "0.1.0", 4711, NODE, FirewallSettings(PodNetworks(networks("10.244.0.0/16")), masquerade_bit=14)
)


def state(service: Service, *slices: EndpointSlice) -> ServiceState:
    return ServiceState(service, slices)


def view_of(
    *states: ServiceState,
    foreign: Iterable[VirtualServerKey] = (),
    failures: Mapping[Item, Failure] | None = None,
    drains: Mapping[DrainKey, Drain] | None = None,
    synced: bool = True,
) -> View:
    """Return the view of a reconciler that has planned these Services and leaves `foreign` to somebody else."""
    desired = planned(states)
    desired.exclude(foreign)
    return View(
        NOW,
        desired.owners,
        desired.virtual_servers,
        list(desired.rejections()),
        failures or {},
        drains or {},
        CONTEXT,
        synced,
        agent_ports=desired.agent_ports,
    )


def report_of(
    *states: ServiceState,
    view: View | None = None,
    rejections: Iterable[Rejection] = (),
    warnings: Iterable[str] = (),
) -> AgentReport:
    """Return the agent's report; without a view, from one that knows all that the store knows."""
    report = build_report(IDENTITY, view or view_of(*states), states, rejections)
    return msgspec.structs.replace(report, warnings=list(warnings))


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
        desired.replace(service.key, plan_service(service, slices, CONTEXT))
    return desired
