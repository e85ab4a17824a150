"""What changed of a Service from one plan to the next, in the words that the log has for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import format_endpoint
from ipvsproxy.model.objects import AddressKind

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.plan.endpoints import EndpointDecision
    from ipvsproxy.plan.services import PlannedVirtualServer, ServicePlan

GONE = "no endpoint any more"


def service_change(
    before: ServicePlan,
    after: ServicePlan,
    decided: Mapping[VirtualServerKey, Sequence[EndpointDecision]],
    owned: Container[VirtualServerKey],
) -> dict[str, list[str]]:
    """Return the fields of a log line that say what changed: phrases, each list without repetitions; {} if nothing.

    `decided` is what was decided about the endpoints of each virtual server of `after`. `owned` are those virtual
    servers that the Service has: nothing is said of what it asks for in vain. The endpoints of virtual servers that
    come or go beside others are not named.
    """
    had = before.virtual_servers
    has = {key: planned for key, planned in after.virtual_servers.items() if key in owned}
    fields: dict[str, list[str]] = {}
    pairs = [
        (known, planned)
        for key, planned in has.items()
        if (known := had.get(key)) is not None and known != planned
    ]
    if settings := [phrase for pair in pairs for phrase in _settings(*pair)]:
        fields["changed"] = list(dict.fromkeys(settings))
    began, stopped = _comings_and_goings(pairs, decided) if had else (_endpoints(has.values()), [])
    if began:
        fields["began_to_serve"] = began
    if stopped:
        fields["stopped_serving"] = stopped
    return fields


def handovers(
    owners_before: Mapping[VirtualServerKey, ObjectKey | None], owners: Mapping[VirtualServerKey, ObjectKey]
) -> dict[ObjectKey, dict[str, list[str]]]:
    """Return the fields that say which virtual servers came to which Services, and which left them."""
    changes: dict[ObjectKey, dict[str, list[str]]] = {}
    for key in sorted(owners_before, key=lambda key: (len(key.address), key)):
        before, after = owners_before[key], owners.get(key)
        if before == after:
            continue
        for field, service in (("virtual_servers_added", after), ("virtual_servers_removed", before)):
            if service:
                changes.setdefault(service, {}).setdefault(field, []).append(str(key))
    return changes


def _endpoints(virtual_servers: Iterable[PlannedVirtualServer]) -> list[str]:
    """Return who serves at any of the virtual servers."""
    servers = {each for planned in virtual_servers for each in planned.virtual_server.real_servers}
    return [str(server) for server in sorted(servers)]


def _comings_and_goings(
    pairs: Sequence[tuple[PlannedVirtualServer, PlannedVirtualServer]],
    decided: Mapping[VirtualServerKey, Sequence[EndpointDecision]],
) -> tuple[list[str], list[str]]:
    """Return who began to serve and who stopped, with the reasons, at any of the virtual servers."""
    began: dict[str, None] = {}
    stopped: dict[str, None] = {}
    told = set()
    for known, planned in pairs:
        decisions = decided[planned.virtual_server.key]
        served, serves = known.virtual_server.real_servers, planned.virtual_server.real_servers
        # The virtual servers of one port have the same endpoints, but for the traffic policy: it is said once.
        same = id(served), id(serves), id(decisions)
        if served == serves or same in told:
            continue
        told.add(same)
        coming, going = set(serves).difference(served), set(served).difference(serves)
        # What changed in place is in both.
        places = {server[:2] for server in coming} ^ {server[:2] for server in going}
        addresses = {address for address, _ in places}
        reasons = {decision[:2]: decision.reason for decision in decisions if decision[0] in addresses}
        arrived = {server[:2] for server in coming}
        for place in sorted(places):
            phrase = f"{format_endpoint(*place)}: {reasons.get(place, GONE)}"
            (began if place in arrived else stopped)[phrase] = None
    return list(began), list(stopped)


def _settings(before: PlannedVirtualServer, after: PlannedVirtualServer) -> Iterator[str]:
    """Yield what is set differently."""
    had, has = before.virtual_server, after.virtual_server
    if had.scheduler != has.scheduler:
        yield f"scheduler: {had.scheduler} to {has.scheduler}"
    elif had.flags != has.flags and had.timeout == has.timeout:
        yield "scheduler flags"
    if had.timeout != has.timeout:
        yield f"session affinity timeout: {had.timeout} to {has.timeout} s"
    if before.policy is not after.policy:
        side = "internal" if after.kind is AddressKind.CLUSTER_IP else "external"
        yield f"{side}TrafficPolicy: {before.policy} to {after.policy}"
    if before.drain_timeout != after.drain_timeout:
        yield f"drain timeout: {before.drain_timeout:g} to {after.drain_timeout:g} s"
    if before.allowed_sources != after.allowed_sources:
        yield "loadBalancerSourceRanges"
    limited, limits = _limit(before), _limit(after)
    if limited != limits and had.real_servers and has.real_servers:
        yield f"maximum connections per endpoint: {limited or 'unlimited'} to {limits or 'unlimited'}"


def _limit(planned: PlannedVirtualServer) -> int:
    servers = planned.virtual_server.real_servers
    return servers[0].upper_threshold if servers else 0
