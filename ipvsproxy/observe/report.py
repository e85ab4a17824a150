"""The agent's report: what should be in the kernel, and why. What is there, its reader sees for itself.

Two clocks meet here: the reconciler's view is what the kernel was last brought to, the store's objects may be newer by
as much as the minimum sync period. What is desired is the view's; the reasons are decided anew, from the objects.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from ipvsproxy.model.addresses import family, format_address
from ipvsproxy.model.items import describe
from ipvsproxy.model.objects import ServiceType
from ipvsproxy.observe import schema
from ipvsproxy.observe.words import address_of, by_key, flag_names
from ipvsproxy.plan.endpoints import decide_endpoints
from ipvsproxy.source.store import ServiceState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.model.objects import ObjectKey, Service
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.plan.endpoints import EndpointDecision
    from ipvsproxy.plan.firewall import FirewallSettings
    from ipvsproxy.plan.services import PlannedVirtualServer

WAITING = "changed, and waits for the next sync"

Key_co = TypeVar("Key_co", covariant=True)
Value_co = TypeVar("Value_co", covariant=True)


class NotProgrammed(enum.StrEnum):
    """Why a Service without a fault has no virtual servers."""

    EXTERNAL_NAME = "type ExternalName"
    HEADLESS = "headless: no clusterIP"
    NO_PORTS = "no ports"


class Items(Protocol[Key_co, Value_co]):
    """A mapping that is only gone through."""

    def items(self) -> Iterable[tuple[Key_co, Value_co]]:
        """Return keys with their values."""


class Failure(Protocol):
    """Why a change failed; `next_try` is in the seconds of the reconciler's clock."""

    @property
    def reason(self) -> str:
        """The kernel's answer, in words."""

    @property
    def attempts(self) -> int:
        """How often it failed."""

    @property
    def next_try(self) -> float:
        """When it is tried again."""


class Drain(Protocol):
    """A real server of a virtual server that drains."""

    @property
    def virtual_server(self) -> VirtualServerKey:
        """The virtual server."""

    @property
    def address(self) -> Address:
        """The real server's address."""

    @property
    def port(self) -> int:
        """The real server's port."""


class ReconcilerView(Protocol):
    """The reconciler's state at one moment, as far as the report needs it; times are those of its clock, in seconds."""

    @property
    def now(self) -> float:
        """When that moment was."""

    @property
    def synced(self) -> bool:
        """Whether everything was compared with the kernel once."""

    @property
    def owners(self) -> Mapping[VirtualServerKey, ObjectKey]:
        """The desired virtual servers, each with the Service that has it."""

    @property
    def virtual_servers(self) -> Mapping[VirtualServerKey, PlannedVirtualServer]:
        """The desired virtual servers."""

    @property
    def rejections(self) -> Sequence[Rejection]:
        """What Services do not get because others have it."""

    @property
    def failures(self) -> Items[Item, Failure]:
        """What the kernel refused."""

    @property
    def drains(self) -> Items[Drain, float]:
        """When each real server that drains is removed, whatever connections it has."""


class Identity(NamedTuple):
    """What stays the same while the agent runs."""

    version: str
    pid: int
    node_name: str
    firewall: FirewallSettings


def build_report(
    identity: Identity, view: ReconcilerView, states: Iterable[ServiceState], rejections: Iterable[Rejection]
) -> schema.AgentReport:
    """Build the report of one moment.

    `states` are all Services that exist, and `rejections` those of the store: both taken after the view, so that
    whatever the view has not seen of them is on its way to the kernel.
    """
    known = list(states)
    refused = [*rejections, *view.rejections]
    return schema.AgentReport(
        schema.SCHEMA_VERSION,
        schema.AgentInfo(identity.version, identity.pid, identity.node_name, view.synced),
        schema.MasqueradeSettings(
            [str(network) for network in identity.firewall.cluster_cidrs],
            identity.firewall.masquerade_all,
            identity.firewall.masquerade_bit,
        ),
        _services(view, known, refused, identity.node_name),
        _rejections(refused, known),
        _failures(view),
    )


def _services(
    view: ReconcilerView, states: Sequence[ServiceState], rejections: Sequence[Rejection], node_name: str
) -> list[schema.ReportedService]:
    if not view.synced:
        return []
    known = {state.service.key: state for state in states if state.service}
    owned: dict[ObjectKey, list[VirtualServerKey]] = defaultdict(list)
    for key, owner in view.owners.items():
        owned[owner].append(key)
    refused: dict[ObjectKey, str] = {}
    for rejection in rejections:
        if rejection.kind == "Service":
            refused.setdefault(rejection.key, f"rejected: {rejection.reason}")
    drains = _drains(view)
    services = []
    for service in sorted(known.keys() | owned.keys() | refused.keys()):
        state = known.get(service, ServiceState(None, ()))
        services.append(
            schema.ReportedService(
                service.namespace,
                service.name,
                state.service.type if state.service else None,
                None if service in owned else refused.get(service) or _not_programmed(state.service),
                [
                    _virtual_server(view.virtual_servers[key], drains.get(key, []), state, node_name)
                    for key in sorted(owned.get(service, ()), key=by_key)
                ],
            )
        )
    return services


def _not_programmed(service: Service | None) -> str:
    """Say why the Service has no virtual servers, although nothing of it was rejected."""
    if service and service.type is ServiceType.EXTERNAL_NAME:
        return NotProgrammed.EXTERNAL_NAME
    if service and not service.cluster_ips:
        return NotProgrammed.HEADLESS
    if service and not service.ports:
        return NotProgrammed.NO_PORTS
    return WAITING


def _virtual_server(
    planned: PlannedVirtualServer,
    draining: list[schema.DrainingRealServer],
    state: ServiceState,
    node_name: str,
) -> schema.ReportedVirtualServer:
    key, scheduler, flags, timeout, _ = planned.virtual_server
    ports = state.service.ports if state.service else ()
    port = next((port for port in ports if (port.protocol, port.port) == key[1:]), None)
    decisions = decide_endpoints(port, family(key.address), state.slices, node_name) if port else []
    return schema.ReportedVirtualServer(
        format_address(key.address),
        key.port,
        key.protocol.name,
        port.name if port else "",
        scheduler,
        flag_names(flags),
        timeout,
        _endpoints(planned, decisions),
        draining,
    )


def _endpoints(
    planned: PlannedVirtualServer, decisions: Iterable[EndpointDecision]
) -> list[schema.ReportedEndpoint]:
    """Say of each endpoint whether the plan has it, and why, unless the decision has changed since the plan."""
    planned_servers = {server[:2]: server for server in planned.virtual_server.real_servers}
    latest = {decision[:2]: decision for decision in decisions}
    local = frozenset(planned.local_endpoints)
    endpoints = []
    for address, port in sorted(planned_servers.keys() | latest.keys()):
        server, decision = planned_servers.get((address, port)), latest.get((address, port))
        agreed = decision is not None and decision.serves == (server is not None)
        endpoints.append(
            schema.ReportedEndpoint(
                format_address(address),
                port,
                serves=server is not None,
                reason=decision.reason if decision and agreed else WAITING,
                weight=server.weight if server else 0,
                may_be_local=address in local,
            )
        )
    return endpoints


def _drains(view: ReconcilerView) -> dict[VirtualServerKey, list[schema.DrainingRealServer]]:
    drains: dict[VirtualServerKey, list[schema.DrainingRealServer]] = defaultdict(list)
    deadlines = [
        (drain.virtual_server, drain.address, drain.port, deadline) for drain, deadline in view.drains.items()
    ]
    for key, address, port, deadline in sorted(deadlines):
        drains[key].append(
            schema.DrainingRealServer(format_address(address), port, _seconds_until(deadline, view.now))
        )
    return drains


def _rejections(rejections: Iterable[Rejection], states: Iterable[ServiceState]) -> list[schema.Rejection]:
    services = {
        ("EndpointSlice", endpoint_slice.key): endpoint_slice.service
        for state in states
        for endpoint_slice in state.slices
    }
    reported = []
    for rejection in sorted(rejections):
        kind, key, field, reason = rejection
        # An Endpoints object has the name of its Service; of a slice that was never good nobody knows whose it is.
        service = key if kind in {"Service", "Endpoints"} else services.get((kind, key))
        reported.append(
            schema.Rejection(kind, key.namespace, key.name, field, reason, str(service) if service else None)
        )
    return reported


def _failures(view: ReconcilerView) -> list[schema.Failure]:
    failures = [
        schema.Failure(
            describe(item),
            format_address(address_of(item)),
            failure.reason,
            failure.attempts,
            _seconds_until(failure.next_try, view.now),
        )
        for item, failure in view.failures.items()
    ]
    return sorted(failures, key=lambda failure: failure.item)


def _seconds_until(moment: float, now: float) -> int:
    return max(round(moment - now), 0)
