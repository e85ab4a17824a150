"""What one hook of the nftables table does with a packet.

The chains of a hook are passed by priority, and a packet goes on with the next one unless a rule drops or refuses it.
Chains of type nat see a connection's first packet only, and the first of them that has an answer settles it; whatever
their priorities, they stand together where the kernel's NAT has its place (nf_nat_core.c).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, assert_never, cast

from ipvsproxy.model.addresses import Network, family, format_endpoint
from ipvsproxy.model.firewall import MAPS
from ipvsproxy.plan.rules import (
    MAP_KEY,
    ArrivesBy,
    ClearMark,
    ConnectionIs,
    ConnectionState,
    Field,
    FieldsInSet,
    GoTo,
    IsReset,
    KeepDestination,
    LeavesByOtherThan,
    Marked,
    ProtocolIs,
    SetDestination,
    SetMark,
    SourceIn,
    Verdict,
)
from ipvsproxy.plan.trace.shapes import EFFECTS, HOOKS, check_chains
from ipvsproxy.plan.trace.values import Stage, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import FirewallSet, SetElement
    from ipvsproxy.plan.rules import Chain, Hook, Match, Rule, Statement

# NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC, linux/netfilter_ipv4.h.
_NAT = {"prerouting": -100, "input": 100, "output": -100, "postrouting": 100}
# Where IPVS takes new connections: ip_vs_ops4 and ip_vs_ops6, ip_vs_core.c.
_IPVS = {"input": 99, "output": -98}


class Part(enum.Enum):
    """Which chains of a hook are meant; at input and output, IPVS stands between some of them and the others."""

    ALL = enum.auto()
    BEFORE_IPVS = enum.auto()
    AFTER_IPVS = enum.auto()


@dataclass(frozen=True, slots=True)
class HookPacket:
    """A packet at a hook; `port` is the destination's, and `source_port` is 0 for one that no Service has.

    `arrived_by` is None for what the node itself sends, `leaves_by` for an interface that is not known, or not yet.
    `masquerading` is the address of the node that masquerading puts in the place of the source; None leaves the source.
    """

    source: Address
    destination: Address
    protocol: int
    port: int
    mark: int = 0
    state: ConnectionState = ConnectionState.NEW
    arrived_by: str | None = None
    leaves_by: str | None = None
    masquerading: Address | None = None
    masqueraded: bool = False
    source_port: int = 0
    is_reset: bool = False


class Passage(NamedTuple):
    """What a hook did: the verdict that dropped or refused the packet, None if it goes on, and how it left the hook."""

    verdict: Verdict | None
    packet: HookPacket
    steps: tuple[Step, ...]


class FirewallTable:
    """The rules and the elements of an nftables table; UnknownRuleError if a rule can't be followed."""

    def __init__(self, chains: Sequence[Chain], elements: Iterable[SetElement]) -> None:
        """Check all rules and index all elements, once; a look-up costs the same then, however many there are."""
        check_chains(chains)
        self._chains = {chain.name: chain for chain in chains}
        hooked = [(_place(chain.hook), chain.hook, chain) for chain in chains if chain.hook is not None]
        hooked.sort(key=lambda entry: (entry[0], entry[1].priority))
        self._at = {name: [entry for entry in hooked if entry[1].name == name] for name in HOOKS}
        self._elements = _Elements(elements)

    def at_hook(
        self, hook: str, packet: HookPacket, part: Part = Part.ALL, *, settled: bool = False
    ) -> Passage:
        """Lead a packet through the chains at prerouting, input, output or postrouting.

        `settled` says that what chains of type nat decide here was decided before, at another hook or for an earlier
        packet.
        """
        steps: list[Step] = []
        for place, (of_type, _, _), chain in self._at[hook]:
            if part is not Part.ALL and (place < _IPVS[hook]) is not (part is Part.BEFORE_IPVS):
                continue
            if of_type == "nat" and settled:
                continue
            end, packet = self._follow(chain, Stage(hook), packet, steps)
            if isinstance(end, SetDestination | KeepDestination) or end is Verdict.MASQUERADE:
                settled = True
            elif end is not None:
                return Passage(end, packet, tuple(steps))
        return Passage(None, packet, tuple(steps))

    def _follow(
        self, chain: Chain, stage: Stage, packet: HookPacket, steps: list[Step]
    ) -> tuple[Verdict | SetDestination | KeepDestination | None, HookPacket]:
        """Lead a packet through a chain and those that it leads to; return what ended its way there, if anything."""
        for rule in chain.rules:
            items = self._matched(rule, packet)
            if items is None:
                continue
            statement = rule.statement
            before, (packet, effect) = packet, _apply(statement, packet, items)
            if packet != before or not isinstance(statement, SetMark | ClearMark):
                steps.append(Step(stage, rule.duty, effect, chain.name, items))
            if isinstance(statement, GoTo):
                return self._follow(self._chains[statement.chain], stage, packet, steps)
            if isinstance(statement, Verdict | SetDestination | KeepDestination):
                return None if statement is Verdict.RETURN else statement, packet
        return None, packet

    def _matched(self, rule: Rule, packet: HookPacket) -> tuple[SetElement, ...] | None:
        """Return the elements by which the rule holds for the packet; None if it does not hold."""
        if not all(self._holds(match, packet) for match in rule.matches):
            return None
        found = [
            self._elements.find(match, packet)
            for match in rule.matches
            if isinstance(match, FieldsInSet) and match.inside
        ]
        if isinstance(rule.statement, SetDestination):
            target = self._elements.find(rule.statement, packet)
            if target is None:
                return None
            found.append(target)
        return tuple(element for element in found if element)

    def _holds(self, match: Match, packet: HookPacket) -> bool:  # noqa: PLR0911 - one for each shape
        match match:
            case ConnectionIs(states):
                return packet.state in states
            case FieldsInSet(inside=inside):
                return (
                    match.family in {None, family(packet.source)}
                    and (self._elements.find(match, packet) is not None) is inside
                )
            case SourceIn(network, inside):
                return network.family is family(packet.source) and network.contains(packet.source) is inside
            case ArrivesBy(interface, inside):
                return _is_named(packet.arrived_by, interface) is inside
            case ProtocolIs(number):
                return packet.protocol == number
            case IsReset():
                return packet.is_reset
            case Marked(bit):
                return bool(packet.mark >> bit & 1)
            case LeavesByOtherThan(interface):
                return packet.leaves_by != interface
            case _:
                assert_never(match)


def _place(hook: Hook) -> int:
    return _NAT[hook.name] if hook.type == "nat" else hook.priority


def _is_named(interface: str | None, pattern: str) -> bool:
    if interface is None:
        return False
    return interface.startswith(pattern[:-1]) if pattern.endswith("*") else interface == pattern


def _apply(  # noqa: PLR0911 - one for each shape
    statement: Statement, packet: HookPacket, items: Sequence[SetElement]
) -> tuple[HookPacket, str]:
    """Return what the statement makes of the packet, and the words for it."""
    match statement:
        case Verdict.MASQUERADE:
            source = packet.masquerading or packet.source
            return replace(packet, source=source, masqueraded=True), EFFECTS[statement]
        case Verdict():
            return packet, EFFECTS[statement]
        case GoTo(chain):
            return packet, f"goes on in chain {chain}"
        case SetMark(bit):
            return replace(packet, mark=packet.mark | 1 << bit), f"marked (bit {bit})"
        case ClearMark(bit):
            return replace(packet, mark=packet.mark & ~(1 << bit)), f"mark cleared (bit {bit})"
        case SetDestination():
            destination, port = cast("tuple[Address, int]", items[-1].fields[MAP_KEY:])
            return (
                replace(packet, destination=destination, port=port),
                f"the destination becomes {format_endpoint(destination, port)}",
            )
        case KeepDestination():
            return packet, "the destination stays"
        case _:
            assert_never(statement)


class _Elements:
    """The elements of all sets, found by what of a packet is compared with them."""

    def __init__(self, elements: Iterable[SetElement]) -> None:
        self._exact: dict[tuple[FirewallSet, tuple[object, ...]], SetElement] = {}
        self._networks: dict[tuple[FirewallSet, tuple[object, ...]], list[tuple[Network, SetElement]]] = {}
        for element in elements:
            *first, last = element.fields
            if isinstance(last, Network):
                self._networks.setdefault((element.set, tuple(first)), []).append((last, element))
            else:
                fields = element.fields[:MAP_KEY] if element.set in MAPS else element.fields
                self._exact[element.set, fields] = element

    def find(self, where: FieldsInSet | SetDestination, packet: HookPacket) -> SetElement | None:
        """Return the element that the packet's fields are, are in if it ends in a network, or lead to in a map."""
        of = where.set if isinstance(where, FieldsInSet) else where.map
        values = tuple(_value(field, packet) for field in where.fields)
        *first, last = values
        if isinstance(last, bytes):
            for network, element in self._networks.get((of, tuple(first)), ()):
                if network.contains(last):
                    return element
        return self._exact.get((of, values))


def _value(field: Field, packet: HookPacket) -> Address | int:
    match field:
        case Field.SOURCE:
            return packet.source
        case Field.DESTINATION:
            return packet.destination
        case Field.PROTOCOL:
            return packet.protocol
        case Field.SOURCE_PORT:
            return packet.source_port
        case Field.DESTINATION_PORT:
            return packet.port
        case _:
            assert_never(field)
