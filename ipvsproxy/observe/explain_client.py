"""Who connects: what the asker calls a client, made the first packet of its connection, with what has to be assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, assert_never

from ipvsproxy.errors import UsageError
from ipvsproxy.kernel.routes import Sender
from ipvsproxy.model.addresses import Family, family, format_address, parse_address
from ipvsproxy.observe.clients import HostAt, HostOutside, PodNamed, ProcessOfNode
from ipvsproxy.observe.desired import firewall_settings
from ipvsproxy.observe.explain import Question
from ipvsproxy.plan.firewall import PodNetworks
from ipvsproxy.plan.trace.values import Packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.kernel.routes import Route
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.observe.clients import Client
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.observe.traced import KernelState
    from ipvsproxy.source.kubernetes.pods import Pod

OUTSIDE = {
    Family.IPV4: tuple(map(parse_address, ("203.0.113.1", "198.51.100.1", "192.0.2.1"))),
    Family.IPV6: tuple(map(parse_address, ("2001:db8::1", "2001:db8:ffff::1"))),
}
"""Addresses for documentation, which no host should have (RFC 5737, RFC 3849)."""
# An interface that is certainly none of a pod's.
_UNKNOWN_INTERFACE = ""


class RouteTo(Protocol):
    """Asks for the node's way to an address, for packets of a sender if that matters; None if there is none."""

    def __call__(self, address: Address, sender: Sender | None = None, /) -> Route | None:
        """Return the way."""


def question(
    client: Client,
    key: VirtualServerKey,
    kernel: KernelState,
    report: AgentReport | None,
    route_to: RouteTo,
    find_pod: Callable[[ObjectKey], Pod],
) -> Question:
    """Return the question; `find_pod` asks for a Pod.

    UsageError if the client can't send to such an address.
    """
    asking = _Asking(key, kernel, route_to)
    match client:
        case ProcessOfNode():
            sent = asking.by_process()
        case HostOutside():
            sent = asking.from_outside(_outside(family(key.address), kernel, report))
        case HostAt(address):
            if family(address) is not family(key.address):
                raise UsageError(f"{client} can't send to {key}: they are of different IP families")
            sent = asking.by_host(address)
        case PodNamed():
            sent = asking.by_pod(find_pod(client.key))
        case _:
            assert_never(client)
    return Question(str(client), sent.packet, key, sent.assumed, sent.unless)


class _Sent(NamedTuple):
    """A packet, and sentences about what was assumed of it, and about what may keep the answer from its sender."""

    packet: Packet
    assumed: tuple[str, ...]
    unless: tuple[str, ...] = ()


class _Asking(NamedTuple):
    """What the packets are sent to, and the node that it is about; each method says who sends."""

    key: VirtualServerKey
    kernel: KernelState
    route_to: RouteTo

    def by_process(self, source: Address | None = None) -> _Sent:
        """Have a process of the node send it."""
        chosen = (
            f"chose {format_address(source)} as its source" if source else "leaves its source to the kernel"
        )
        return _Sent(self._packet(source), (f"a process of this node sends the packet, and {chosen}",))

    def by_host(self, source: Address) -> _Sent:
        """Have whoever has the source send it; the way there is taken for the way from there."""
        text = format_address(source)
        route = self.route_to(source)
        if source in self.kernel.bound or source in self.kernel.own or (route and route.local):
            return self.by_process(source)
        if route is None:
            by = f"packets of {text} arrive by an interface that is no pod's"
            no_way_back = (
                f"the node has no route to {text}, or one that leads nowhere: no answer finds the way back; "
                f"see `ip route get {text}`"
            )
            return _Sent(self._packet(source, _UNKNOWN_INTERFACE), (by,), (no_way_back,))
        by = f"packets of {text} arrive by interface {route.interface}, by which the node reaches it"
        return _Sent(self._packet(source, route.interface), (by,), tuple(self._no_way_back(source)))

    def from_outside(self, source: Address) -> _Sent:
        """Have a host outside send it, which stands for all."""
        sent = self.by_host(source)
        stands_for = (
            f"outside is a host with the address {format_address(source)}, which is in no pod network; where source "
            "ranges matter, ask with the client's own address"
        )
        return sent._replace(assumed=(stands_for, *sent.assumed))

    def by_pod(self, pod: Pod) -> _Sent:
        """Have a Pod send it, which is the node if it has the node's network."""
        here = any(address in self.kernel.own for address in pod.node_addresses)
        where = f"pod {pod.key} runs on {'this node' if here else f'node {pod.node_name}'}"
        if pod.host_network and here:
            process = f"{where} and has its network: it sends as a process of this node does"
            return _Sent(self._packet(None), (process,))
        source = next((each for each in pod.addresses if family(each) is family(self.key.address)), None)
        if source is None:
            raise UsageError(f"pod {pod.key} can't send to {self.key}: it has no address of that IP family")
        sent = self.by_host(source)
        elsewhere = (
            f"node {pod.node_name} handles what its pods send to services: ask there; this is what this node would "
            "make of it"
        )
        place = f"{where}; its address is {format_address(source)}"
        return sent._replace(assumed=(place, *(() if here else (elsewhere,)), *sent.assumed))

    def _no_way_back(self, client: Address) -> Iterator[str]:
        """Yield that policy routing keeps answers from the client: they have the service address as their source.

        IPVS asks for their way anew when it has put that in (ip_vs_route_me_harder, ip_vs_core.c).
        """
        service = self.key.address
        is_local = service in self.kernel.bound or service in self.kernel.own
        if is_local and self.route_to(client, Sender(service)) is None:
            texts = format_address(service), format_address(client)
            yield (
                "policy routing has no way for answers with the source {} to {}: see `ip rule`, and the tables that "
                "its rules lead to".format(*texts)
            )

    def _packet(self, source: Address | None, interface: str | None = None) -> Packet:
        return Packet(self.key.address, self.key.protocol, self.key.port, source, interface)


def _outside(of: Family, kernel: KernelState, report: AgentReport | None) -> Address:
    """Return an address for documentation that is in no pod network and not the node's; the last if all are."""
    pods = firewall_settings(report).pods if report else PodNetworks()
    networks = pods.networks if isinstance(pods, PodNetworks) else ()
    taken = kernel.bound | kernel.own
    for address in OUTSIDE[of]:
        if address not in taken and not any(network.contains(address) for network in networks):
            return address
    return OUTSIDE[of][-1]
