"""The nftables table `inet ipvsproxy`: its sets, its chains, and each rule with the duty that it serves.

Rules are small values, so that the same ones can be written down for nft and followed by hand. They depend on the
settings alone; what changes while the agent runs are the elements of the sets.

The way of a packet to a service address, with the priorities at each hook. IPVS sits at 99 in input and at -98 in
output (ip_vs_core.c), conntrack at -200 in prerouting and output, before all of these.

    from another host or a pod                         from a process of the node
             |                                                      |
    prerouting -150   drop who may not come, and       output -150  drop who may not come,
             |        what only others serve,               |       mark to be masqueraded
             |        mark to be masqueraded                |
             |                                              |
    prerouting -110   send pods to the ClusterIP,      output -110  send to the ClusterIP,
             |        or clients outside,                   |       keep the destination
             |        keep the destination                  |
             |                                              |
    input -10   refuse what nobody serves,             output -99   refuse what nobody serves
             |  refuse all but service ports                |
             |                                              |
    input 99    IPVS chooses a real server             output -98   IPVS chooses a real server
             |                                              |
             +--- output again: the destination is a real server ---+
                                       |
                       postrouting 100   masquerade: decided by a connection's first packet
                       postrouting 101   clear the mark: on every packet

What a process of the node sends to a service address and IPVS does not take, for want of a virtual server, comes back
through the loopback interface and meets prerouting and input like everything else.

Connections that were answered are settled: their packets pass. Sources are dropped and packets are marked for all
others, also for those that conntrack does not know (NOTRACK, or packets that fit no connection). What is refused before
IPVS is what conntrack calls `new`: IPVS itself knows the rest, and a guard behind it, at input 100, closes what it
leaves. A connection that IPVS has rewritten is known to conntrack, and can be masqueraded, with net.ipv4.vs.conntrack=1
only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.firewall import FirewallSet, SourceList
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.rules import (
    ArrivesBy,
    AskSourceList,
    Chain,
    ClearMark,
    ConnectionIs,
    ConnectionState,
    DestinationIsLocal,
    Field,
    FieldsInSet,
    GoTo,
    Hook,
    IsReset,
    KeepDestination,
    LeavesByOtherThan,
    Marked,
    ProtocolIs,
    Rule,
    SetDestination,
    SetMark,
    SourceIn,
    SourceListed,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.model.addresses import Network
    from ipvsproxy.plan.rules import (
        Match,
        Statement,
    )

TABLE = "ipvsproxy"

# IANA's protocol numbers; model.objects.Protocol has those that a Service can have.
ICMP = 1
ICMPV6 = 58


@dataclass(frozen=True, slots=True)
class PodNetworks:
    """Packets of pods come from these networks; without any of its family, a packet of no pod is told from others."""

    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class PodInterfaces:
    """Packets of pods arrive by this interface, or by all whose names begin so if it ends with `*`."""

    name: str


class FirewallSettings(NamedTuple):
    """What the rules depend on.

    `pods` says how pods' packets are recognised: of other traffic to a ClusterIP, the source is masqueraded. With
    `masquerade_all` it is of all traffic to ClusterIPs. `masquerade_bit` is the bit of the packet mark, 0 to 31, that
    says so between two hooks.
    """

    pods: PodNetworks | PodInterfaces = PodNetworks()
    masquerade_all: bool = False
    masquerade_bit: int = 14


_SOURCE = (Field.SOURCE,)
_DESTINATION = (Field.DESTINATION,)
_SERVICE_PORT = (Field.DESTINATION, Field.PROTOCOL, Field.DESTINATION_PORT)
_SOURCE_PORT = (Field.SOURCE, Field.PROTOCOL, Field.SOURCE_PORT)
_BOTH_ENDS = (Field.SOURCE, Field.DESTINATION)


def _for_each_family(
    duty: str, fields: tuple[Field, ...], of: FirewallSet, statement: Statement, *matches: Match
) -> tuple[Rule, ...]:
    return tuple(Rule(duty, (*matches, FieldsInSet(family, fields, of)), statement) for family in Family)


_TRACKED = frozenset({ConnectionState.ESTABLISHED, ConnectionState.RELATED})
_UNKNOWN = frozenset({ConnectionState.INVALID, ConnectionState.UNTRACKED})

# What conntrack does not know, since somebody's rule has taken it out of its hands, is decided on packet by packet:
# what must be closed is closed for these, too.
_NOT_ANSWERED = Rule(
    "an answered connection was decided on before", (ConnectionIs(_TRACKED),), Verdict.RETURN
)

# Without conntrack, IPVS alone knows which packets belong to connections that go on, and refuses the others.
_ONLY_NEW = Rule(
    "what is not new belongs to a connection, or is IPVS's affair",
    (ConnectionIs(_TRACKED | _UNKNOWN),),
    Verdict.RETURN,
)

# A reset, where the protocol has one: of ICMP errors the kernel sends a few to each host and then one a second, and
# a thousand a second to all hosts together (net.ipv4.icmp_ratelimit). Clients that get none wait and try again.
_REFUSAL = Chain(
    "refusal",
    None,
    (
        Rule("refuse at once and at any rate", (ProtocolIs(Protocol.TCP),), Verdict.REJECT_WITH_RESET),
        Rule("refuse what knows no reset", (), Verdict.REJECT_WITH_ICMP),
    ),
)
_REFUSE = GoTo(_REFUSAL.name)

# Before the redirection, after which the destination is a ClusterIP, which is open to everybody.
_DROP_OTHER_SOURCES = tuple(
    Rule(
        "a port with source ranges is open to the sources of its list",
        (),
        AskSourceList(family, _SERVICE_PORT, FirewallSet.RESTRICTED_PORTS),
    )
    for family in Family
)

NODE_ALONE = tuple(SourceList.of(family, (), admits_node=True) for family in Family)
"""The source list of each family that is always in the table. No port leads to it: all others have to look like it."""


def source_list_chain(source_list: SourceList) -> Chain:
    """Return the chain of a source list; it has the list's name."""
    of = source_list.family
    listed = Rule("a source of the list", (SourceListed(of, source_list.name),), Verdict.RETURN)
    # The kernel gives a process that connects to an address of the dummy interface that same address.
    node = Rule(
        "a process of the node", (FieldsInSet(of, _SOURCE, FirewallSet.SERVICE_ADDRESSES),), Verdict.RETURN
    )
    others = Rule("drop sources that the port is not open to", (), Verdict.DROP)
    rules = (listed, node, others) if source_list.admits_node else (listed, others)
    return Chain(source_list.name, None, rules)


# After the redirection, for what the ClusterIP has may differ. Before IPVS, which would refuse these with ICMP, and a
# line in the kernel's log.
_END_WHAT_IS_NOT_SERVED = (
    *_for_each_family(
        "refuse service ports without endpoints", _SERVICE_PORT, FirewallSet.PORTS_WITHOUT_ENDPOINTS, _REFUSE
    ),
)

# Other programs redirect what comes to any local address of the node: the CNI plugin portmap for hostPorts, Docker for
# published ports. All service addresses are local, so these rules would take service traffic. The kernel asks the nat
# chains of all tables by their priorities, and whichever translates first has the connection.
BEFORE_OTHERS = -110
_KEEP_FROM_OTHERS = tuple(
    Rule(
        "service traffic is not for others' destination NAT",
        (DestinationIsLocal(), FieldsInSet(family, fields, of)),
        KeepDestination(family),
    )
    # Not before the address is bound, and not before the virtual server is there at an address that the node has
    # anyway: until then kube-proxy may serve by its own destination NAT. Of the node's own addresses only the service
    # ports are kept, because the others are open to others.
    for fields, of in (
        (_SERVICE_PORT, FirewallSet.KEPT_PORTS),
        (_DESTINATION, FirewallSet.SERVICE_ADDRESSES),
    )
    for family in Family
)

_OPEN_AT_SERVICE_ADDRESSES = (
    Rule("a service address answers pings", (ProtocolIs(ICMP),), Verdict.RETURN),
    Rule("a service address answers pings", (ProtocolIs(ICMPV6),), Verdict.RETURN),
    *_for_each_family("service ports are for IPVS", _SERVICE_PORT, FirewallSet.SERVICE_PORTS, Verdict.RETURN),
    # Load balancers ask for the health of a node at their own IP, among others.
    Rule(
        "the agent answers at every address",
        (FieldsInSet(None, (Field.PROTOCOL, Field.DESTINATION_PORT), FirewallSet.AGENT_PORTS),),
        Verdict.RETURN,
    ),
)
_TO_SERVICE_ADDRESS = Chain(
    "to-service-address",
    None,
    (
        *_OPEN_AT_SERVICE_ADDRESSES,
        Rule("the node's own ports are closed on service addresses", (), _REFUSE),
    ),
)

# Input, since the packet is for the node: by the routes, and after any DNAT. Before priority 0, where a firewall of the
# host's that drops would leave clients waiting, and before IPVS.
_INPUT = Chain(
    "input",
    Hook("filter", "input", -10),
    (
        # The chain behind IPVS goes by this.
        *_for_each_family(
            "nobody but the node has a service address as source",
            _SOURCE,
            FirewallSet.SERVICE_ADDRESSES,
            Verdict.DROP,
            ConnectionIs(_UNKNOWN),
            ArrivesBy("lo", inside=False),
        ),
        _ONLY_NEW,
        # Ahead of the chain for service addresses: node ports are at the node's own.
        *_END_WHAT_IS_NOT_SERVED,
        *_for_each_family(
            "service addresses have a chain of their own",
            _DESTINATION,
            FirewallSet.SERVICE_ADDRESSES,
            GoTo(_TO_SERVICE_ADDRESS.name),
        ),
    ),
)

# The guard for what conntrack does not know. Behind IPVS, since answers to processes of the node come to service
# addresses, too, and only IPVS can tell them: it has given them the address and port of the Service as their source.
_INPUT_BEHIND_IPVS = Chain(
    "input-behind-ipvs",
    Hook("filter", "input", 100),
    (
        Rule(
            "what conntrack knows was decided on before",
            (ConnectionIs(_TRACKED | {ConnectionState.NEW}),),
            Verdict.RETURN,
        ),
        # Those among them by which this chain refuses the node's own processes.
        Rule("a reset opens nothing", (IsReset(),), Verdict.RETURN),
        *_for_each_family(
            "a Service answers the node", _SOURCE_PORT, FirewallSet.SERVICE_PORTS, Verdict.RETURN
        ),
        *_for_each_family(
            "service addresses have a chain of their own",
            _DESTINATION,
            FirewallSet.SERVICE_ADDRESSES,
            GoTo(_TO_SERVICE_ADDRESS.name),
            ConnectionIs(frozenset({ConnectionState.UNTRACKED})),
        ),
        # No reset for what fits no connection: it would end the one that the packet belongs to after all.
        *_OPEN_AT_SERVICE_ADDRESSES,
        *_for_each_family(
            "the node's own ports are closed on service addresses",
            _DESTINATION,
            FirewallSet.SERVICE_ADDRESSES,
            Verdict.DROP,
        ),
    ),
)


def ruleset(settings: FirewallSettings) -> tuple[Chain, ...]:
    """Return the table's chains, each after those that its rules go to."""
    mark = SetMark(settings.masquerade_bit)
    return (
        _REFUSAL,
        _TO_SERVICE_ADDRESS,
        *map(source_list_chain, NODE_ALONE),
        # Where the destination still is what the client connected to.
        Chain(
            "prerouting",
            Hook("filter", "prerouting", -150),
            (
                _NOT_ANSWERED,
                *_DROP_OTHER_SOURCES,
                # Without an answer, so that clients try again: by then their load balancer knows which nodes to send
                # them to. Clients inside the cluster are served by other nodes' endpoints.
                *(
                    Rule(
                        "drop what only other nodes serve",
                        (
                            *_outside(settings.pods, family),
                            FieldsInSet(family, _SERVICE_PORT, FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS),
                        ),
                        Verdict.DROP,
                    )
                    for family in Family
                ),
                *_marking(settings, prerouting=True),
            ),
        ),
        # Before the routing decision. A nat chain sees a connection's first packet; the others follow it.
        Chain(
            "destinations",
            Hook("nat", "prerouting", BEFORE_OTHERS),
            (
                *(
                    _redirect_inside(family, pod)
                    for family in Family
                    for pod in _of_pods(settings.pods, family)
                ),
                *(
                    Rule(
                        "send clients outside the cluster to the ClusterIP",
                        (DestinationIsLocal(), *_outside(settings.pods, family)),
                        SetDestination(family, _SERVICE_PORT, FirewallSet.OUTSIDE_DESTINATIONS),
                    )
                    for family in Family
                ),
                *_KEEP_FROM_OTHERS,
            ),
        ),
        _INPUT,
        _INPUT_BEHIND_IPVS,
        # The same for the node's processes, whose packets do not pass prerouting before IPVS has them.
        Chain(
            "output",
            Hook("filter", "output", -150),
            (
                _NOT_ANSWERED,
                *_DROP_OTHER_SOURCES,
                # The kernel gives a process that connects to an address of the dummy interface that same address.
                *_for_each_family(
                    "masquerade a service address as source",
                    _SOURCE,
                    FirewallSet.SERVICE_ADDRESSES,
                    mark,
                ),
                *_marking(settings, prerouting=False),
            ),
        ),
        Chain(
            "destinations-of-processes",
            Hook("nat", "output", BEFORE_OTHERS),
            (*(_redirect_inside(family) for family in Family), *_KEEP_FROM_OTHERS),
        ),
        Chain("ending", Hook("filter", "output", -99), (_ONLY_NEW, *_END_WHAT_IS_NOT_SERVED)),
        # After IPVS has put in the real server. Packets of a connection whose source is settled do not come here.
        Chain(
            "masquerading",
            Hook("nat", "postrouting", 100),
            (
                Rule("masquerade what is marked", (Marked(settings.masquerade_bit),), Verdict.MASQUERADE),
                # Not on the loopback interface, where a process of the node talks to another directly.
                *_for_each_family(
                    "masquerade an endpoint that reaches itself",
                    _BOTH_ENDS,
                    FirewallSet.LOCAL_ENDPOINTS,
                    Verdict.MASQUERADE,
                    LeavesByOtherThan("lo"),
                ),
            ),
        ),
        # Apart from the nat chain, which sees no further packet of a connection, though a UDP connection without an
        # answer stays `new`. A mark that stays would go on to the packet around it, if a tunnel puts one around it,
        # and have that masqueraded, too.
        Chain(
            "unmarking",
            Hook("filter", "postrouting", 101),
            (Rule("the mark has served", (), ClearMark(settings.masquerade_bit)),),
        ),
    )


def _marking(settings: FirewallSettings, *, prerouting: bool) -> Iterator[Rule]:
    """Yield the rules that mark traffic to services, in prerouting or in output."""
    mark = SetMark(settings.masquerade_bit)
    yield from _for_each_family(
        "masquerade all clients of externalTrafficPolicy Cluster",
        _SERVICE_PORT,
        FirewallSet.MASQUERADED_PORTS,
        mark,
    )
    if not prerouting:
        # It may be the service address of another interface, which other nodes have too: no answer would come back.
        yield from _for_each_family(
            "masquerade processes that use externalTrafficPolicy Local",
            _SERVICE_PORT,
            FirewallSet.LOCAL_PORTS,
            mark,
        )
    for family in Family:
        pods = _of_pods(settings.pods, family)
        to_local_port = FieldsInSet(family, _SERVICE_PORT, FirewallSet.LOCAL_PORTS)
        to_other_port = (
            FieldsInSet(family, _SERVICE_PORT, FirewallSet.SERVICE_PORTS),
            replace(to_local_port, inside=False),
        )
        if settings.masquerade_all:
            yield Rule("masquerade all traffic to services", to_other_port, mark)
        elif pods:
            # In output no packet has arrived by an interface, a pod's least of all.
            outside = (
                replace(pod, inside=False) for pod in pods if prerouting or not isinstance(pod, ArrivesBy)
            )
            yield Rule("masquerade sources outside the cluster's pods", (*outside, *to_other_port), mark)


def _redirect_inside(family: Family, *matches: Match) -> Rule:
    """Return the rule by which externalTrafficPolicy Local is for outside clients only."""
    redirect = SetDestination(family, _SERVICE_PORT, FirewallSet.IN_CLUSTER_DESTINATIONS)
    return Rule(
        "send clients inside the cluster to the ClusterIP", (DestinationIsLocal(), *matches), redirect
    )


def _outside(pods: PodNetworks | PodInterfaces, family: Family) -> tuple[SourceIn | ArrivesBy, ...]:
    """Return the matches that all hold in prerouting unless the packet is a pod's."""
    return tuple(replace(pod, inside=False) for pod in _of_pods(pods, family))


def _of_pods(pods: PodNetworks | PodInterfaces, family: Family) -> tuple[SourceIn | ArrivesBy, ...]:
    """Return the matches of which one holds for a pod's packet in prerouting; none if it can't be told from others."""
    if isinstance(pods, PodInterfaces):
        return (ArrivesBy(pods.name),)
    return tuple(SourceIn(network) for network in pods.networks if network.family is family)
