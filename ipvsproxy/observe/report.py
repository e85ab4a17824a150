"""The agent's report: what should be in the kernel, and why. What is there, its reader sees for itself.

Two clocks meet here: the reconciler's view is what the kernel was last brought to, the store's objects may be newer by
as much as the minimum sync period. What is desired is the view's; the reasons are decided anew, from the objects.
"""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import family, format_address
from ipvsproxy.model.items import describe
from ipvsproxy.model.objects import AddressKind, ServiceType
from ipvsproxy.observe import schema
from ipvsproxy.observe.words import address_of, by_key, flag_names
from ipvsproxy.plan.endpoints import why_no_endpoint
from ipvsproxy.plan.firewall import PodInterfaces
from ipvsproxy.plan.services import FIELDS, EndpointsBehind
from ipvsproxy.source.store import ServiceState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import EndpointSlice, ObjectKey, Service
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.plan.endpoints import EndpointDecision
    from ipvsproxy.plan.firewall import FirewallSettings
    from ipvsproxy.plan.services import PlannedVirtualServer
    from ipvsproxy.plan.view import View
    from ipvsproxy.source.health import WatchState

WAITING = "changed, and waits for the next sync"


class NotProgrammed(enum.StrEnum):
    """Why a Service without a fault has no virtual servers."""

    EXTERNAL_NAME = "type ExternalName"
    HEADLESS = "headless: no clusterIP"


class Identity(NamedTuple):
    """The agent, and what its rules depend on; `node_known` is false if the API server has no Node of its name."""

    version: str
    pid: int
    node_name: str
    firewall: FirewallSettings
    node_known: bool = True


def build_report(
    identity: Identity,
    view: View,
    states: Iterable[ServiceState],
    rejections: Iterable[Rejection],
    watches: Iterable[WatchState] = (),
) -> schema.AgentReport:
    """Build the report of one moment.

    `states` are all Services that exist, and `rejections` those that the view does not have: both taken after the view,
    so that whatever the view has not seen of them is on its way to the kernel. `watches` are the resources that are
    followed.
    """
    known = list(states)
    refused = sorted({each._replace(uid="") for each in (*rejections, *view.rejections)})
    return schema.AgentReport(
        schema.SCHEMA_VERSION,
        schema.AgentInfo(
            identity.version,
            identity.pid,
            identity.node_name,
            view.synced,
            None if view.last_resync is None else _seconds(view.now - view.last_resync),
            identity.node_known,
        ),
        _masquerade(identity.firewall),
        _services(view, known, refused),
        _rejections(refused, known),
        _failures(view),
        [] if identity.node_known else [no_such_node(identity.node_name)],
        [_watch(state) for state in watches],
        _source_lists(view),
        agent_ports=sorted(view.agent_ports),
    )


def no_such_node(name: str) -> str:
    """Say what it means that the API server has no Node of the agent's name, and what to do."""
    return (
        f"the API server has no Node named {name}: no endpoint counts as one of this node under a traffic policy "
        "Local, and the node's zone and addresses are not known; start the agent with --hostname-override and the "
        "name that `kubectl get nodes` shows"
    )


def _source_lists(view: View) -> dict[str, list[str]]:
    if not view.synced:
        return {}
    lists = {each.allowed_sources for each in view.virtual_servers.values() if each.allowed_sources}
    return {each.name: list(map(str, each.networks)) for each in sorted(lists, key=lambda each: each.name)}


def _watch(state: WatchState) -> schema.WatchInfo:
    seconds = state.seconds_since_contact
    return schema.WatchInfo(
        state.resource,
        state.connected,
        None if seconds is None else _seconds(seconds),
        state.error,
        state.remedy or None,
    )


def _masquerade(firewall: FirewallSettings) -> schema.MasqueradeSettings:
    pods = firewall.pods
    return schema.MasqueradeSettings(
        [] if isinstance(pods, PodInterfaces) else [str(network) for network in pods.networks],
        pods.name if isinstance(pods, PodInterfaces) else None,
        firewall.masquerade_all,
        firewall.masquerade_bit,
    )


def _services(
    view: View, states: Sequence[ServiceState], rejections: Sequence[Rejection]
) -> list[schema.ReportedService]:
    if not view.synced:
        return []
    known = {state.service.key: state for state in states if state.service}
    owned: dict[ObjectKey, list[VirtualServerKey]] = defaultdict(list)
    for key, owner in view.owners.items():
        owned[owner].append(key)
    refused: dict[ObjectKey, str] = {}
    # A Service that has nothing at all lacks its ClusterIPs; what else is wrong with it is not why.
    for rejection in sorted(rejections, key=lambda each: each.field != FIELDS[AddressKind.CLUSTER_IP]):
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
                None if service in owned else _not_programmed(state.service, refused.get(service, WAITING)),
                list(_virtual_servers(owned.get(service, ()), view, state, drains)),
            )
        )
    return services


def _not_programmed(service: Service | None, otherwise: str) -> str:
    """Say why the Service has no virtual servers."""
    if service and service.type is ServiceType.EXTERNAL_NAME:
        return NotProgrammed.EXTERNAL_NAME
    if service and not service.cluster_ips:
        return NotProgrammed.HEADLESS
    return otherwise


def _virtual_servers(
    keys: Iterable[VirtualServerKey],
    view: View,
    state: ServiceState,
    drains: Mapping[VirtualServerKey, list[schema.DrainingRealServer]],
) -> Iterator[schema.ReportedVirtualServer]:
    """Yield the virtual servers of one Service, those that differ by address alone as one."""
    alike: dict[tuple[object, ...], list[VirtualServerKey]] = defaultdict(list)
    for key in sorted(keys, key=by_key):
        planned = view.virtual_servers[key]
        alike[family(key.address), key[1:], planned.kind, planned.allowed_sources].append(key)
    behind = EndpointsBehind(state.service, state.slices, view.context) if state.service else None
    for group in alike.values():
        planned = view.virtual_servers[group[0]]
        addresses = [
            schema.ReportedAddress(format_address(key.address), drains.get(key, [])) for key in group
        ]
        yield _virtual_server(planned, addresses, behind, state.slices)


def _virtual_server(
    planned: PlannedVirtualServer,
    addresses: list[schema.ReportedAddress],
    behind: EndpointsBehind | None,
    slices: Sequence[EndpointSlice],
) -> schema.ReportedVirtualServer:
    port, decisions = behind.of(planned) if behind else (None, [])
    key, scheduler, flags, timeout, _ = planned.virtual_server
    sources, redirect = planned.allowed_sources, planned.redirect
    why_none = ""
    if port and not decisions:
        why_none = why_no_endpoint(family(key.address), slices, port.name, port.protocol)
    return schema.ReportedVirtualServer(
        addresses,
        key.port,
        key.protocol.name,
        port.name if port else "",
        schema.AddressKindName[planned.kind.name],
        planned.policy,
        scheduler,
        flag_names(flags),
        timeout,
        # Rounded up: 0 means that nothing drains.
        math.ceil(planned.drain_timeout),
        planned.only_remote_endpoints,
        schema.Redirect(redirect.clients, format_address(redirect.address), redirect.port)
        if redirect
        else None,
        sources.name if sources else None,
        _endpoints(planned, decisions),
        why_none or None,
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
                maximum_connections=server.upper_threshold if server else 0,
                may_be_local=address in local,
            )
        )
    return endpoints


def _drains(view: View) -> dict[VirtualServerKey, list[schema.DrainingRealServer]]:
    drains: dict[VirtualServerKey, list[schema.DrainingRealServer]] = defaultdict(list)
    for (key, address, port), (since, until) in sorted(view.drains.items()):
        drains[key].append(
            schema.DrainingRealServer(
                format_address(address),
                port,
                _seconds(view.now - since),
                _seconds(until - view.now),
            )
        )
    return drains


def _rejections(rejections: Iterable[Rejection], states: Iterable[ServiceState]) -> list[schema.Rejection]:
    services = {
        ("EndpointSlice", endpoint_slice.key): endpoint_slice.service
        for state in states
        for endpoint_slice in state.slices
    }
    reported = []
    for kind, key, field, reason, _, foreign in rejections:
        # An Endpoints object has the name of its Service; of a slice that was never good nobody knows whose it is.
        service = key if kind in {"Service", "Endpoints"} else services.get((kind, key))
        reported.append(
            schema.Rejection(
                kind, key.namespace, key.name, field, reason, str(service) if service else None, foreign
            )
        )
    return reported


def _failures(view: View) -> list[schema.Failure]:
    failures = [
        schema.Failure(
            describe(item),
            format_address(address) if (address := address_of(item)) else "",
            failure.reason,
            failure.attempts,
            _seconds(failure.next_try - view.now),
        )
        for item, failure in view.failures.items()
    ]
    return sorted(failures, key=lambda failure: failure.item)


def _seconds(duration: float) -> int:
    return max(round(duration), 0)
