"""The nftables table `inet ipvsproxy`: its sets, its chains, and each rule with the duty that it serves.

Rules are small values, so that the same ones can be written down for nft and followed by hand. They depend on the
settings alone; what changes while the agent runs are the elements of the sets.

The way of a packet to a service address, with the priorities at each hook. IPVS sits at 99 in input and at -99 in
output (ip_vs_core.c), conntrack at -200 in prerouting and output, before all of these.

    from another host or a pod                         from a process of the node
             |                                                      |
    prerouting -150   mark to be masqueraded           output -150  refuse what has no endpoints,
             |                                                      mark to be masqueraded
    input -10   refuse all but service ports                        |
             |  that have endpoints                                 |
    input 99    IPVS chooses a real server             output -99   IPVS chooses a real server
             |                                                      |
             +--- output again: the destination is a real server ---+
                                       |
                       postrouting 100   masquerade: decided by a connection's first packet
                       postrouting 101   clear the mark: on every packet

What a process of the node sends to a service address and IPVS does not take, for want of a virtual server, comes back
through the loopback interface and meets prerouting and input like everything else.

Rules that refuse or mark look at connections that conntrack calls `new`: replies and what follows them are settled.
A connection that IPVS has rewritten is known to conntrack, and can be masqueraded, with net.ipv4.vs.conntrack=1 only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.firewall import FirewallSet
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ipvsproxy.model.addresses import Network

TABLE = "ipvsproxy"

# IANA's protocol numbers; model.objects.Protocol has those that a Service can have.
ICMP = 1
ICMPV6 = 58


class FirewallSettings(NamedTuple):
    """What the rules depend on.

    `cluster_cidrs` are the networks that pods' addresses come from: traffic to a service from outside those of its
    family is masqueraded, and without any of its family none is for that reason. With `masquerade_all` all traffic
    to services is. `masquerade_bit` is the bit of the packet mark, 0 to 31, that says so between two hooks.
    """

    cluster_cidrs: tuple[Network, ...] = ()
    masquerade_all: bool = False
    masquerade_bit: int = 14


class FieldType(enum.Enum):
    """What one field of a set's elements holds; an address is of the set's family."""

    ADDRESS = enum.auto()
    PROTOCOL = enum.auto()
    PORT = enum.auto()


SETS: Mapping[FirewallSet, tuple[FieldType, ...]] = {
    FirewallSet.SERVICE_ADDRESSES: (FieldType.ADDRESS,),
    FirewallSet.SERVICE_PORTS: (FieldType.ADDRESS, FieldType.PROTOCOL, FieldType.PORT),
    FirewallSet.PORTS_WITHOUT_ENDPOINTS: (FieldType.ADDRESS, FieldType.PROTOCOL, FieldType.PORT),
    FirewallSet.LOCAL_ENDPOINTS: (FieldType.ADDRESS, FieldType.ADDRESS),
}


class Field(enum.Enum):
    """What a packet has to compare with a field of a set's elements."""

    SOURCE = enum.auto()
    DESTINATION = enum.auto()
    PROTOCOL = enum.auto()
    DESTINATION_PORT = enum.auto()


@dataclass(frozen=True, slots=True)
class ConnectionIsNew:
    """Whether conntrack has the packet's connection in the state `new`: no packet of it was answered so far."""

    new: bool = True


@dataclass(frozen=True, slots=True)
class FieldsInSet:
    """The packet is of the family, and these fields of it are an element of the family's set."""

    family: Family
    fields: tuple[Field, ...]
    set: FirewallSet


@dataclass(frozen=True, slots=True)
class SourceOutside:
    """The packet is of the network's family, and its source is not of the network."""

    network: Network


@dataclass(frozen=True, slots=True)
class ProtocolIs:
    """The packet's transport protocol has this number, after any IPv6 extension headers."""

    number: int


@dataclass(frozen=True, slots=True)
class Marked:
    """The bit of the packet's mark is set."""

    bit: int


@dataclass(frozen=True, slots=True)
class LeavesByOtherThan:
    """The packet leaves through another interface than this one."""

    interface: str


Match: TypeAlias = ConnectionIsNew | FieldsInSet | SourceOutside | ProtocolIs | Marked | LeavesByOtherThan


class Verdict(enum.Enum):
    """The end of a packet's way through a chain.

    RETURN goes on after the rule that led to the chain, or with the packet's way if none did. MASQUERADE gives the
    connection the address of the outgoing interface and a random port as its source. The others drop the packet and
    answer with a TCP reset or with ICMP's port unreachable.
    """

    RETURN = enum.auto()
    MASQUERADE = enum.auto()
    REJECT_WITH_RESET = enum.auto()
    REJECT_WITH_ICMP = enum.auto()


@dataclass(frozen=True, slots=True)
class GoTo:
    """Go on in a chain without a hook, and leave this one where that one ends."""

    chain: str


@dataclass(frozen=True, slots=True)
class SetMark:
    """Set the bit of the packet's mark, and go on with the next rule."""

    bit: int


@dataclass(frozen=True, slots=True)
class ClearMark:
    """Clear the bit of the packet's mark, and go on with the next rule."""

    bit: int


Statement: TypeAlias = Verdict | GoTo | SetMark | ClearMark


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with the packets for which all matches hold; `duty` says why, in nft's listing too."""

    duty: str
    matches: tuple[Match, ...]
    statement: Statement


class Hook(NamedTuple):
    """Where packets enter a chain: lower priorities come first. `type` is nft's, `filter` or `nat`."""

    type: str
    name: str
    priority: int


class Chain(NamedTuple):
    """Rules in their order; a packet that no rule ends is accepted. Without a hook only `GoTo` leads here."""

    name: str
    hook: Hook | None
    rules: tuple[Rule, ...]


_SOURCE = (Field.SOURCE,)
_DESTINATION = (Field.DESTINATION,)
_SERVICE_PORT = (Field.DESTINATION, Field.PROTOCOL, Field.DESTINATION_PORT)
_BOTH_ENDS = (Field.SOURCE, Field.DESTINATION)


def _for_each_family(
    duty: str, fields: tuple[Field, ...], of: FirewallSet, statement: Statement, *matches: Match
) -> tuple[Rule, ...]:
    return tuple(Rule(duty, (*matches, FieldsInSet(family, fields, of)), statement) for family in Family)


_ONLY_NEW = Rule("a known connection was decided on before", (ConnectionIsNew(new=False),), Verdict.RETURN)

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

# Before IPVS, which would refuse these with ICMP, and a line in the kernel's log.
_REFUSE_WITHOUT_ENDPOINTS = _for_each_family(
    "refuse service ports without endpoints", _SERVICE_PORT, FirewallSet.PORTS_WITHOUT_ENDPOINTS, _REFUSE
)

_TO_SERVICE_ADDRESS = Chain(
    "to-service-address",
    None,
    (
        Rule("a service address answers pings", (ProtocolIs(ICMP),), Verdict.RETURN),
        Rule("a service address answers pings", (ProtocolIs(ICMPV6),), Verdict.RETURN),
        *_REFUSE_WITHOUT_ENDPOINTS,
        *_for_each_family(
            "service ports are for IPVS", _SERVICE_PORT, FirewallSet.SERVICE_PORTS, Verdict.RETURN
        ),
        Rule("the node's own ports are closed on service addresses", (), _REFUSE),
    ),
)

# Input, since the packet is for the node: by the routes, and after any DNAT. Before priority 0, where a firewall of the
# host's that drops would leave clients waiting, and before IPVS.
_INPUT = Chain(
    "input",
    Hook("filter", "input", -10),
    (
        _ONLY_NEW,
        *_for_each_family(
            "service addresses have a chain of their own",
            _DESTINATION,
            FirewallSet.SERVICE_ADDRESSES,
            GoTo(_TO_SERVICE_ADDRESS.name),
        ),
    ),
)


def ruleset(settings: FirewallSettings) -> tuple[Chain, ...]:
    """Return the table's chains, each after those that its rules go to."""
    mark = SetMark(settings.masquerade_bit)
    marking = tuple(_mark_by_origin(settings, mark))
    return (
        _REFUSAL,
        _TO_SERVICE_ADDRESS,
        # Where the destination still is the service's.
        Chain("prerouting", Hook("filter", "prerouting", -150), (_ONLY_NEW, *marking)),
        _INPUT,
        # The same for the node's processes, whose packets do not pass prerouting before IPVS has them.
        Chain(
            "output",
            Hook("filter", "output", -150),
            (
                _ONLY_NEW,
                *_REFUSE_WITHOUT_ENDPOINTS,
                # The kernel gives a process that connects to an address of the dummy interface that same address.
                *_for_each_family(
                    "masquerade a service address as source",
                    _SOURCE,
                    FirewallSet.SERVICE_ADDRESSES,
                    mark,
                ),
                *marking,
            ),
        ),
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


def _mark_by_origin(settings: FirewallSettings, mark: SetMark) -> Iterator[Rule]:
    """Yield the rules that mark traffic to services by where it comes from."""
    if settings.masquerade_all:
        yield from _for_each_family(
            "masquerade all traffic to services", _SERVICE_PORT, FirewallSet.SERVICE_PORTS, mark
        )
        return
    for family in Family:
        outside = tuple(
            SourceOutside(network) for network in settings.cluster_cidrs if network.family is family
        )
        if outside:
            to_a_service = FieldsInSet(family, _SERVICE_PORT, FirewallSet.SERVICE_PORTS)
            yield Rule("masquerade sources outside the cluster's pods", (*outside, to_a_service), mark)
