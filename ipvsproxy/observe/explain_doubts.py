"""What may make another end of a packet than the tables say: settings, routes, neighbours, and who listens.

Each doubt is a sentence with what is the matter and what mends it; only endpoints that would answer are looked at.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import Family, family, format_address, format_endpoint
from ipvsproxy.observe.explain_words import listed
from ipvsproxy.observe.traced import Misrouted
from ipvsproxy.plan.sysctls import FORWARDING
from ipvsproxy.plan.trace.values import SourceSeen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from ipvsproxy.kernel.listening import Listener
    from ipvsproxy.kernel.routes import Route
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.observe.desired import DesiredVirtualServer
    from ipvsproxy.observe.traced import KernelState
    from ipvsproxy.plan.trace.values import Answer, Packet, Trace


def doubts(
    packet: Packet,
    met: VirtualServerKey,
    traced: Trace,
    kernel: KernelState,
    desired: DesiredVirtualServer | None,
) -> Iterator[str]:
    """Yield what may keep the packet from the endpoints that answer, or their answers from the client.

    `met` is what IPVS looked at, and `desired` is that virtual server as the agent wants it, None if it is not known.
    """
    yield from _untracked(packet, met, traced, kernel)
    yield from _kept(packet, traced, kernel)
    yield from _misrouted(traced, kernel)
    yield from _silent(traced, kernel)
    yield from _unheard(met, traced, kernel, desired)


def unseen_listeners(
    met: VirtualServerKey, traced: Trace, kernel: KernelState, desired: DesiredVirtualServer | None
) -> Iterator[str]:
    """Say of which endpoints of this node nobody can see whether they listen."""
    unseen = [
        format_endpoint(*answer[:2])
        for answer in traced.answers
        if _sockets(answer.address, kernel) is None and _may_be_local(answer, kernel, desired)
    ]
    if unseen:
        yield (
            f"somebody listens at {listed(unseen, 'and')} ({met.protocol.name.lower()}): whether that is so could not "
            "be seen, for no process of the pod is visible from here; ask on the host itself, as root"
        )


def _untracked(packet: Packet, met: VirtualServerKey, traced: Trace, kernel: KernelState) -> Iterator[str]:
    if kernel.tracks_connections or not traced.answers:
        return
    if any(answer.source is SourceSeen.MASQUERADED for answer in traced.answers):
        yield "net.ipv4.vs.conntrack is 0: what IPVS sends on is not masqueraded, whatever the rules say; set it to 1"
    elif packet.destination != met.address:
        yield (
            "net.ipv4.vs.conntrack is 0: answers do not get the address back that the client connected to; set it to 1"
        )


def _kept(packet: Packet, traced: Trace, kernel: KernelState) -> Iterator[str]:
    """Yield what keeps answers on this node: a process of the node has them without forwarding."""
    of = family(packet.destination)
    if not traced.answers or packet.arrives_by is None:
        return
    if of not in kernel.forwards:
        yield f"{FORWARDING[of]} is not 1: the node does not pass answers on to clients beyond it; set it to 1"
    # IPv6 goes by the setting for all interfaces (ip6_forward, ip6_output.c).
    elif of is Family.IPV4:
        for interface, endpoints in _by_interface(traced.answers, kernel).items():
            if interface in kernel.not_forwarding:
                yield (
                    f"net.ipv4.conf.{interface}.forwarding is 0: the node does not pass on what comes in by "
                    f"{interface}, as answers of {listed(endpoints, 'and')} do; set it to 1"
                )


def _misrouted(traced: Trace, kernel: KernelState) -> Iterator[str]:
    kept = [
        format_endpoint(*answer[:2])
        for answer in traced.answers
        if Misrouted(answer.address, answer.source is SourceSeen.MASQUERADED) in kernel.misrouted
    ]
    if kept and traced.source:
        yield (
            f"policy routing has no way to {listed(kept, 'and')} for packets with the source "
            f"{format_address(traced.source)} and their mark: see `ip rule`, and the tables that its rules lead to"
        )


def _silent(traced: Trace, kernel: KernelState) -> Iterator[str]:
    behind: dict[tuple[Address, str], list[str]] = defaultdict(list)
    for answer in traced.answers:
        route = kernel.routes.get(answer.address)
        hop = _next_hop(answer.address, route)
        if route and hop in kernel.silent:
            behind[hop, route.interface].append(format_endpoint(*answer[:2]))
    for (hop, interface), endpoints in behind.items():
        yield (
            f"{format_address(hop)}, the next hop by {interface} to {listed(endpoints, 'and')}, did not answer when "
            f"the node last asked for its hardware address: see `ip neigh show dev {interface}`"
        )


def _unheard(
    met: VirtualServerKey, traced: Trace, kernel: KernelState, desired: DesiredVirtualServer | None
) -> Iterator[str]:
    unheard = [
        format_endpoint(*answer[:2])
        for answer in traced.answers
        if (sockets := _sockets(answer.address, kernel)) is not None and not _hears(sockets, answer, met)
    ]
    if unheard:
        whose = (
            f"the port that the EndpointSlices of Service {desired.service} name" if desired else "that port"
        )
        yield (
            f"nobody listens at {listed(unheard, 'or')} ({met.protocol.name.lower()}): correct the targetPort or the "
            f"pod, which has to listen on {whose} at its address or at all addresses"
        )


def _hears(sockets: Iterable[Listener], answer: Answer, met: VirtualServerKey) -> bool:
    return any(
        each.hears(answer.address) and (each.protocol, each.port) == (met.protocol, answer.port)
        for each in sockets
    )


def _sockets(address: Address, kernel: KernelState) -> Collection[Listener] | None:
    """Return the sockets of the network that has an address; None if it can't be seen, or is of another node."""
    return kernel.listeners if address in kernel.own else kernel.pod_listeners.get(address)


def _may_be_local(answer: Answer, kernel: KernelState, desired: DesiredVirtualServer | None) -> bool:
    """Say whether an endpoint may be of this node: the agent knows, else whoever is not behind a router may be."""
    if desired:
        endpoint = desired.endpoints.get(answer[:2])
        return endpoint is not None and endpoint.may_be_local
    route = kernel.routes.get(answer.address)
    return route is not None and route.next_hop is None


def _by_interface(answers: Iterable[Answer], kernel: KernelState) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for answer in answers:
        if route := kernel.routes.get(answer.address):
            found[route.interface].append(format_endpoint(*answer[:2]))
    return found


def _next_hop(address: Address, route: Route | None) -> Address:
    return route.next_hop if route and route.next_hop else address
