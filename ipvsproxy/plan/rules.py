"""The shapes of the nftables table: its sets, and the chains and rules that packets pass, as values.

Whoever writes them down for nft and whoever follows them by hand reads the same values, and neither knows any other.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ipvsproxy.model.firewall import FirewallSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipvsproxy.model.addresses import Family, Network


class FieldType(enum.Enum):
    """What one field of a set's elements holds; addresses are of the set's family. SOURCE_LIST is a list's name."""

    ADDRESS = enum.auto()
    PROTOCOL = enum.auto()
    PORT = enum.auto()
    SOURCE_LIST = enum.auto()


_PORT_FIELDS = (FieldType.ADDRESS, FieldType.PROTOCOL, FieldType.PORT)

SETS: Mapping[FirewallSet, tuple[FieldType, ...]] = {
    FirewallSet.SERVICE_ADDRESSES: (FieldType.ADDRESS,),
    FirewallSet.SERVICE_PORTS: _PORT_FIELDS,
    FirewallSet.PORTS_WITHOUT_ENDPOINTS: _PORT_FIELDS,
    FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS: _PORT_FIELDS,
    FirewallSet.MASQUERADED_PORTS: _PORT_FIELDS,
    FirewallSet.LOCAL_PORTS: _PORT_FIELDS,
    FirewallSet.KEPT_PORTS: _PORT_FIELDS,
    FirewallSet.RESTRICTED_PORTS: (*_PORT_FIELDS, FieldType.SOURCE_LIST),
    FirewallSet.IN_CLUSTER_DESTINATIONS: (*_PORT_FIELDS, FieldType.ADDRESS, FieldType.PORT),
    FirewallSet.OUTSIDE_DESTINATIONS: (*_PORT_FIELDS, FieldType.ADDRESS, FieldType.PORT),
    FirewallSet.LOCAL_ENDPOINTS: (FieldType.ADDRESS, FieldType.ADDRESS),
    FirewallSet.AGENT_PORTS: (FieldType.PROTOCOL, FieldType.PORT),
}
"""The fields of the sets' elements. Source lists are not among these sets: each is a set and a chain of its own."""

MAP_KEY = len(_PORT_FIELDS)
"""How many fields of a map's element lead to the others."""


class Field(enum.Enum):
    """What a packet has to compare with a field of a set's elements."""

    SOURCE = enum.auto()
    DESTINATION = enum.auto()
    PROTOCOL = enum.auto()
    SOURCE_PORT = enum.auto()
    DESTINATION_PORT = enum.auto()


class ConnectionState(enum.IntEnum):
    """What conntrack says of a packet; the values are the bits that nft has for them.

    NEW: no packet of its connection was answered so far. ESTABLISHED: one was. RELATED: it is an error about such a
    connection, or one that such a connection has announced. INVALID: it fits no connection. UNTRACKED: somebody's rule
    has taken it out of conntrack's hands.
    """

    INVALID = 1
    ESTABLISHED = 2
    RELATED = 4
    NEW = 8
    UNTRACKED = 64


@dataclass(frozen=True, slots=True)
class ConnectionIs:
    """Whether conntrack says one of these of the packet."""

    states: frozenset[ConnectionState]


@dataclass(frozen=True, slots=True)
class FieldsInSet:
    """The packet is of the family, and these fields of it are an element of its set; or none, if not `inside`.

    Without a family, both the packet's and the set's are of any.
    """

    family: Family | None
    fields: tuple[Field, ...]
    set: FirewallSet
    inside: bool = True


@dataclass(frozen=True, slots=True)
class SourceIn:
    """The packet is of the network's family, and its source is of the network; or is not, if not `inside`."""

    network: Network
    inside: bool = True


@dataclass(frozen=True, slots=True)
class SourceListed:
    """The packet is of the family, and its source is in a network of the family's source list with this name."""

    family: Family
    list: str


@dataclass(frozen=True, slots=True)
class ArrivesBy:
    """The packet arrived by this interface, or one whose name begins so if it ends with `*`; or not, if not `inside`.

    A packet of the node's own processes arrived by none.
    """

    interface: str
    inside: bool = True


@dataclass(frozen=True, slots=True)
class ProtocolIs:
    """The packet's transport protocol has this number, after any IPv6 extension headers."""

    number: int


@dataclass(frozen=True, slots=True)
class DestinationIsLocal:
    """The packet's destination is an address of the node, by its routes: bound on the dummy interface, or its own."""


@dataclass(frozen=True, slots=True)
class IsReset:
    """The packet is a TCP reset."""


@dataclass(frozen=True, slots=True)
class Marked:
    """The bit of the packet's mark is set."""

    bit: int


@dataclass(frozen=True, slots=True)
class LeavesByOtherThan:
    """The packet leaves through another interface than this one."""

    interface: str


Match: TypeAlias = (
    ConnectionIs
    | FieldsInSet
    | SourceIn
    | SourceListed
    | ArrivesBy
    | ProtocolIs
    | DestinationIsLocal
    | IsReset
    | Marked
    | LeavesByOtherThan
)


class Verdict(enum.Enum):
    """The end of a packet's way through a chain.

    RETURN goes on after the rule that led to the chain, or with the packet's way if none did. MASQUERADE gives the
    connection the address of the outgoing interface and a random port as its source. The others drop the packet:
    without an answer, or with a TCP reset or ICMP's port unreachable.
    """

    RETURN = enum.auto()
    MASQUERADE = enum.auto()
    DROP = enum.auto()
    REJECT_WITH_RESET = enum.auto()
    REJECT_WITH_ICMP = enum.auto()


@dataclass(frozen=True, slots=True)
class GoTo:
    """Go on in a chain without a hook, and leave this one where that one ends."""

    chain: str


@dataclass(frozen=True, slots=True)
class AskSourceList:
    """Go on in the chain of the source list that the family's map has for these fields, and come back where it ends.

    Without such an element, the packet goes on with the next rule.
    """

    family: Family
    fields: tuple[Field, ...]
    map: FirewallSet


@dataclass(frozen=True, slots=True)
class SetMark:
    """Set the bit of the packet's mark, and go on with the next rule."""

    bit: int


@dataclass(frozen=True, slots=True)
class ClearMark:
    """Clear the bit of the packet's mark, and go on with the next rule."""

    bit: int


@dataclass(frozen=True, slots=True)
class SetDestination:
    """Give the connection the address and port that the family's map has for these fields of its first packet.

    The end of the packet's way through the chain; without such an element, the packet goes on with the next rule.
    """

    family: Family
    fields: tuple[Field, ...]
    map: FirewallSet


@dataclass(frozen=True, slots=True)
class KeepDestination:
    """Settle that the connection keeps the destination address that it has, by translating it to itself.

    The end of the packet's way through the chain, and no later chain of type nat is asked for another destination: the
    kernel sets up destination NAT once for each connection. A verdict would not do, since it ends one chain only.
    """

    family: Family


Statement: TypeAlias = Verdict | GoTo | AskSourceList | SetMark | ClearMark | SetDestination | KeepDestination


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
    """Rules in their order; a packet that no rule ends is accepted, or goes back to where it came from.

    To a chain without a hook lead `GoTo`, and `AskSourceList` if it is a source list's.
    """

    name: str
    hook: Hook | None
    rules: tuple[Rule, ...]
