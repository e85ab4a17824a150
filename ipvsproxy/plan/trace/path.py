"""The way of a connection's first packet through the node: netfilter's hooks, the routing decision, IPVS.

    arrives by an interface                          a process sends it
             |                                               |
         prerouting                                          |
             |                                               |
          routing: for the node, or not ours                 |
             |                                               |
     input, up to IPVS                               output, up to IPVS
             |                                               |
     IPVS: no virtual server, no real server, or one real server after the other
             |                                               |
             +--- to a real server elsewhere: output again, -+
             |    postrouting, and out                       |
             |                                               |
     to the node itself, or a real server            to the node itself, or a real server with an address of the
     with an address of the node: the rest           node: the rest of output, postrouting, and back through the
     of input                                        loopback interface: prerouting and input

IPVS looks at a packet once (ipvs_property, ip_vs_core.c). So does the kernel's NAT, once for the destination and once
for the source, also of a packet that comes back through the loopback interface (nf_nat_inet_fn, nf_nat_core.c).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from ipvsproxy.model.addresses import family, format_address, parse_network
from ipvsproxy.model.ipvs import ServiceFlag, VirtualServerKey
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.firewall import ICMP, ICMPV6
from ipvsproxy.plan.host_rules import SOME_INTERFACE
from ipvsproxy.plan.rules import ConnectionState, Verdict
from ipvsproxy.plan.trace.shapes import LOOPBACK
from ipvsproxy.plan.trace.table import HookPacket, Part
from ipvsproxy.plan.trace.values import Answer, KernelReason, Outcome, SourceSeen, Stage, Step, Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import RealServer, VirtualServer
    from ipvsproxy.model.items import Item
    from ipvsproxy.plan.trace.values import Packet, TracedState

_End: TypeAlias = Outcome | Answer

_PROTOCOLS = {protocol.value: protocol for protocol in Protocol}
_LOOPBACK_NETWORKS = (parse_network("127.0.0.0/8"), parse_network("::1/128"))


def trace(packet: Packet, state: TracedState) -> Trace:
    """Follow the packet through the node."""
    way = _Way(state)
    from_process = packet.arrives_by is None
    source = way.source(packet) if from_process else packet.source
    if source is None:
        return Trace(None, tuple(way.steps), Outcome.NOT_OURS)
    sent = HookPacket(
        source,
        packet.destination,
        packet.protocol,
        packet.port,
        arrived_by=packet.arrives_by,
        masquerading=way.own_address(source),
        local=way.is_local(packet.destination),
        # The route of what is for the node itself.
        leaves_by=LOOPBACK if from_process and way.is_local(packet.destination) else None,
    )
    way.sent = sent
    try:
        ends = way.leave(sent) if from_process else way.arrive(sent)
    except _StoppedError as stopped:
        ends = [stopped.outcome]
    answers = sorted(end for end in ends if isinstance(end, Answer))
    others = (end for end in ends if isinstance(end, Outcome))
    return Trace(source, tuple(way.steps), next(others, Outcome.ANSWERED), tuple(answers))


def _refuses_while_draining(virtual_server: VirtualServer) -> bool:
    """Say whether clients are refused that the scheduler has hashed to a real server with weight 0.

    Those of `sh` and `mh` are not with the flag for a fallback (ip_vs_sh.c, ip_vs_mh.c, ip_vs_dh.c).
    """
    fallback = virtual_server.flags & ServiceFlag.SCHEDULER_1
    return any(server.weight == 0 for server in virtual_server.real_servers) and (
        virtual_server.scheduler == "dh" or (virtual_server.scheduler in {"sh", "mh"} and not fallback)
    )


class _StoppedError(Exception):
    """The packet goes no further."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _Way:
    """The way of the packet as sent, or, once IPVS has it, of the packet to one real server; they share their steps."""

    def __init__(
        self, state: TracedState, first: _Way | None = None, real_server: RealServer | None = None
    ) -> None:
        self.sent: HookPacket | None = first.sent if first else None
        self.steps: list[Step] = first.steps if first else []
        self._state = state
        self._real_server = real_server

    def source(self, packet: Packet) -> Address | None:
        """Return what the kernel has a process send with: the destination itself, if that is of the node."""
        if packet.source is not None:
            source, reason = packet.source, KernelReason.SOURCE_GIVEN
        elif self.is_local(packet.destination):
            source, reason = packet.destination, KernelReason.SOURCE_OF_LOCAL
        else:
            own = self.own_address(packet.destination)
            if own is None:
                self._step(Stage.SOURCE, KernelReason.NO_SOURCE, "not sent")
                return None
            source, reason = own, KernelReason.SOURCE_OF_OTHER
        self._step(Stage.SOURCE, reason, f"sent with the source {format_address(source)}")
        return source

    def own_address(self, like: Address) -> Address | None:
        """Return the node's address of the family of `like`, None if it has none."""
        for address in self._state.own:
            if family(address) is family(like) and not any(
                network.contains(address) for network in _LOOPBACK_NETWORKS
            ):
                return address
        return None

    def arrive(self, packet: HookPacket) -> list[_End]:
        """Follow a packet that arrives by an interface."""
        packet = self._pass(Stage.PREROUTING, packet)
        if not self.is_local(packet.destination):
            self._step(Stage.ROUTING, KernelReason.NOT_LOCAL, "routed elsewhere")
            return [Outcome.NOT_OURS]
        bound = packet.destination in self._state.bound
        self._step(Stage.ROUTING, KernelReason.BOUND if bound else KernelReason.OWN, "for the node")
        packet = self._pass(Stage.INPUT, packet, Part.BEFORE_IPVS)
        return self._through_ipvs(packet, _Way._finish_input)

    def leave(self, packet: HookPacket) -> list[_End]:
        """Follow a packet that a process of the node sends."""
        packet = self._pass(Stage.OUTPUT, packet, Part.BEFORE_IPVS)
        return self._through_ipvs(packet, _Way._finish_output)

    def _through_ipvs(self, packet: HookPacket, finish: Callable[[_Way, HookPacket], _End]) -> list[_End]:
        """Follow the packet to each real server that IPVS may choose, or by `finish` if IPVS does not send it on."""
        protocol = _PROTOCOLS.get(packet.protocol)
        key = protocol and VirtualServerKey(packet.destination, protocol, packet.port)
        virtual_server = key and self._state.virtual_servers.get(key)
        if not key or not virtual_server:
            self._step(Stage.IPVS, KernelReason.NO_VIRTUAL_SERVER, "left to the node")
            return [finish(self, packet)]
        weighty = [server for server in virtual_server.real_servers if server.weight > 0]
        servers = [server for server in weighty if (key, server) not in self._state.full]
        if not servers:
            reason = KernelReason.FULL if weighty else KernelReason.NO_REAL_SERVERS
            self._step(Stage.IPVS, reason, "refused with an ICMP error", key)
            return [Outcome.REFUSED]
        ends: list[_End] = []
        if _refuses_while_draining(virtual_server):
            self._step(Stage.IPVS, KernelReason.HASHED, "some clients are refused with an ICMP error", key)
            ends.append(Outcome.REFUSED)
        for server in servers:
            way = _Way(self._state, self, server)
            way._step(Stage.IPVS, KernelReason.SCHEDULED, f"the destination becomes {server}", key)
            follow = finish if self.is_local(server.address) else _Way._send_out
            if self._state.unreached.get(server.address) is KernelReason.NO_ROUTE:
                # IPVS asks for the route before it sends the packet on (__ip_vs_get_out_rt, ip_vs_xmit.c).
                way._step(Stage.ROUTING, KernelReason.NO_ROUTE, "refused with an ICMP error")
                ends.append(Outcome.REFUSED)
                continue
            try:
                ends.append(follow(way, replace(packet, destination=server.address, port=server.port)))
            except _StoppedError as stopped:
                ends.append(stopped.outcome)
        return ends

    def _send_out(self, packet: HookPacket) -> _End:
        """Follow what IPVS sends to another host or a pod."""
        way = self._state.ways.get(packet.destination)
        packet = replace(packet, arrived_by=None, leaves_by=way, local=False)
        packet = self._pass(Stage.OUTPUT, packet, settled=True)
        packet = self._pass(Stage.POSTROUTING, packet)
        if self._state.unreached.get(packet.destination) is KernelReason.LINK_DOWN:
            self._step(Stage.POSTROUTING, KernelReason.LINK_DOWN, "dropped")
            return Outcome.DROPPED
        self._return(packet, way)
        return self._answer(packet)

    def _return(self, packet: HookPacket, way: str | None) -> None:
        """Follow the answer to what IPVS sent to another host or a pod; _StoppedError if it does not come back."""
        if self.sent is None:
            return
        arrives_by = self.sent.arrived_by
        answer = replace(
            packet,
            source=packet.destination,
            destination=packet.source,
            source_port=packet.port,
            is_answer=True,
            mark=0,
            state=ConnectionState.ESTABLISHED,
            arrived_by=way or SOME_INTERFACE,
            leaves_by=None,
            local=packet.masqueraded or arrives_by is None,
        )
        self._pass(Stage.PREROUTING, answer)
        # Behind connection tracking, which has taken back what was masqueraded.
        answer = replace(answer, destination=self.sent.source, local=arrives_by is None)
        if arrives_by is None:
            self._pass(Stage.INPUT, answer)
            return
        answer = replace(answer, leaves_by=arrives_by)
        self._pass(Stage.FORWARD, answer)
        self._pass(Stage.POSTROUTING, answer)

    def _finish_input(self, packet: HookPacket) -> _End:
        return self._deliver(self._pass(Stage.INPUT, packet, Part.AFTER_IPVS))

    def _finish_output(self, packet: HookPacket) -> _End:
        packet = self._pass(Stage.OUTPUT, packet, Part.AFTER_IPVS)
        if not self.is_local(packet.destination):
            self._step(Stage.ROUTING, KernelReason.NOT_LOCAL, "routed elsewhere")
            return Outcome.NOT_OURS
        packet = self._pass(Stage.POSTROUTING, replace(packet, leaves_by=LOOPBACK))
        packet = replace(packet, leaves_by=None, arrived_by=LOOPBACK)
        packet = self._pass(Stage.PREROUTING, packet, settled=True)
        return self._deliver(self._pass(Stage.INPUT, packet, settled=True))

    def _deliver(self, packet: HookPacket) -> _End:
        """Give the packet to the node: to the real server of its network, or to whom it concerns."""
        if self._real_server and packet.destination not in self._state.bound:
            self._step(Stage.NODE, KernelReason.REAL_SERVER_OF_NODE, "delivered to the real server")
            return self._answer(packet)
        if packet.protocol in {ICMP, ICMPV6}:
            self._step(Stage.NODE, KernelReason.ECHO, "answered")
        elif (packet.protocol, packet.port) in self._state.listening:
            self._step(Stage.NODE, KernelReason.LISTENING, "delivered to the process")
        else:
            self._step(Stage.NODE, KernelReason.NOT_LISTENING, "refused")
            return Outcome.REFUSED
        return Outcome.NODE

    def _answer(self, packet: HookPacket) -> Answer:
        source = SourceSeen.MASQUERADED if packet.masqueraded else SourceSeen.CLIENT
        return Answer(packet.destination, packet.port, source)

    def _pass(
        self, stage: Stage, packet: HookPacket, part: Part = Part.ALL, *, settled: bool = False
    ) -> HookPacket:
        """Lead the packet through a hook; _StoppedError if that is its end."""
        passage = self._state.table.at_hook(stage, packet, part, settled=settled)
        self.steps += (step._replace(real_server=self._real_server) for step in passage.steps)
        if passage.verdict is not None:
            is_drop = passage.verdict is Verdict.DROP
            raise _StoppedError(Outcome.DROPPED if is_drop else Outcome.REFUSED)
        return passage.packet

    def is_local(self, address: Address) -> bool:
        """Say whether the node takes what is sent to the address for its own."""
        return address in self._state.bound or address in self._state.own

    def _step(self, stage: Stage, reason: KernelReason, effect: str, *items: Item) -> None:
        self.steps.append(Step(stage, reason, effect, items=items, real_server=self._real_server))
