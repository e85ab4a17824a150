"""What one Service becomes in the kernel: its virtual servers, each with its real servers.

Every clusterIP gets one virtual server for each port, with or without endpoints: without, clients are refused at
once. Headless Services and those of type ExternalName have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import family
from ipvsproxy.model.ipvs import RealServer, ServiceFlag, VirtualServer, VirtualServerKey
from ipvsproxy.model.objects import ServiceType
from ipvsproxy.plan.endpoints import decide_endpoints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import EndpointSlice, Service


class PlanSettings(NamedTuple):
    """What the plan of every Service depends on beside its objects."""

    node_name: str
    scheduler: str


class PlannedVirtualServer(NamedTuple):
    """A virtual server as it should be, and the endpoints behind it that may run on this node."""

    virtual_server: VirtualServer
    local_endpoints: tuple[Address, ...]


class ServicePlan(NamedTuple):
    """All that one Service asks of the kernel; `created` decides between Services that claim the same key."""

    virtual_servers: Mapping[VirtualServerKey, PlannedVirtualServer]
    created: int = 0


NOTHING = ServicePlan({})


def plan_service(
    service: Service | None, slices: Sequence[EndpointSlice], settings: PlanSettings
) -> ServicePlan:
    """Plan one Service; None, a Service that does not exist (any more), asks for nothing."""
    if service is None or service.type is ServiceType.EXTERNAL_NAME:
        return NOTHING
    flags = ServiceFlag.PERSISTENT if service.session_affinity_timeout else ServiceFlag(0)
    planned: dict[VirtualServerKey, PlannedVirtualServer] = {}
    for port in service.ports:
        for cluster_ip in service.cluster_ips:
            key = VirtualServerKey(cluster_ip, port.protocol, port.port)
            decisions = decide_endpoints(port, family(cluster_ip), slices, settings.node_name)
            serving = [decision for decision in decisions if decision.serves]
            real_servers = tuple(RealServer(decision.address, decision.port) for decision in serving)
            planned[key] = PlannedVirtualServer(
                VirtualServer(
                    key, settings.scheduler, int(flags), service.session_affinity_timeout, real_servers
                ),
                tuple(decision.address for decision in serving if decision.may_be_local),
            )
    return ServicePlan(planned, service.created)
