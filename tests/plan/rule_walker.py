"""Rules followed by hand: what the chains at one hook do with one packet, given the elements of the sets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, assert_never

from ipvsproxy.model.addresses import Address, Network, family, format_address
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.rules import (
    ArrivesBy,
    ClearMark,
    ConnectionIsNew,
    Field,
    FieldsInSet,
    GoTo,
    LeavesByOtherThan,
    Marked,
    ProtocolIs,
    SetDestination,
    SetMark,
    SourceIn,
    Verdict,
)
from tests.builders import address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.firewall import ElementFields, FirewallSet
    from ipvsproxy.plan.rules import Chain, Match

    Elements: TypeAlias = Mapping[FirewallSet, AbstractSet[ElementFields]]


@dataclasses.dataclass(frozen=True)
class Packet:
    """A packet at one hook; `arrives_by` and `leaves_by` are interfaces, the former "" for the node's processes."""

    source: str
    destination: str
    port: int = 80
    protocol: int = Protocol.TCP
    new: bool = True
    mark: int = 0
    arrives_by: str = "eth0"
    leaves_by: str = "eth0"


class Passage(NamedTuple):
    """What became of a packet at a hook: the last word, None if no rule had one, and the mark that it left with.

    `redirected_to` is the destination that it left with, if that is another than it came with.
    """

    verdict: Verdict | None
    mark: int
    redirected_to: str | None = None


def pass_hook(hook: str, packet: Packet, chains: Iterable[Chain], elements: Elements) -> Passage:
    """Lead a packet through the chains at a hook, in the order of their priorities, until one drops it."""
    by_name = {chain.name: chain for chain in chains}
    hooked = [
        (chain.hook.priority, chain)
        for chain in by_name.values()
        # A nat chain sees only the first packet of a connection.
        if chain.hook and chain.hook.name == hook and (packet.new or chain.hook.type != "nat")
    ]
    redirected_to = masqueraded = None
    for _, chain in sorted(hooked, key=lambda each: each[0]):
        passage = pass_chain(chain, by_name, packet, elements)
        redirected_to = passage.redirected_to or redirected_to
        packet = dataclasses.replace(
            packet, mark=passage.mark, destination=redirected_to or packet.destination
        )
        if passage.verdict is Verdict.MASQUERADE:
            masqueraded = passage.verdict
        elif passage.verdict:
            return Passage(passage.verdict, passage.mark)
    return Passage(masqueraded, packet.mark, redirected_to)


def pass_chain(chain: Chain, by_name: Mapping[str, Chain], packet: Packet, elements: Elements) -> Passage:
    """Lead a packet through one chain and those that it leads to."""
    for rule in chain.rules:
        if not all(_holds(match, packet, elements) for match in rule.matches):
            continue
        match rule.statement:
            case Verdict.RETURN:
                return Passage(None, packet.mark)
            case Verdict():
                return Passage(rule.statement, packet.mark)
            case GoTo(name):
                return pass_chain(by_name[name], by_name, packet, elements)
            case SetMark(bit):
                packet = dataclasses.replace(packet, mark=packet.mark | 1 << bit)
            case ClearMark(bit):
                packet = dataclasses.replace(packet, mark=packet.mark & ~(1 << bit))
            case SetDestination():
                if redirected_to := _destination(rule.statement, packet, elements):
                    return Passage(None, packet.mark, redirected_to)
            case _:
                assert_never(rule.statement)
    return Passage(None, packet.mark)


def _holds(match: Match, packet: Packet, elements: Elements) -> bool:
    source = address(packet.source)
    match match:
        case ConnectionIsNew(new):
            holds = packet.new is new
        case FieldsInSet(of, fields, in_set, inside):
            values = [_value(field, packet) for field in fields]
            found = any(_fit(element, values) for element in elements[in_set])
            holds = family(source) is of and found is inside
        case SourceIn(network, inside):
            holds = family(source) is network.family and network.contains(source) is inside
        case ArrivesBy(interface, inside):
            holds = _is_named(packet.arrives_by, interface) is inside
        case ProtocolIs(number):
            holds = packet.protocol == number
        case Marked(bit):
            holds = bool(packet.mark >> bit & 1)
        case LeavesByOtherThan(interface):
            holds = packet.leaves_by != interface
        case _:
            assert_never(match)
    return holds


def _value(field: Field, packet: Packet) -> Address | int:
    match field:
        case Field.SOURCE:
            return address(packet.source)
        case Field.DESTINATION:
            return address(packet.destination)
        case Field.PROTOCOL:
            return packet.protocol
        case Field.DESTINATION_PORT:
            return packet.port
        case _:
            assert_never(field)


def _fit(element: ElementFields, values: list[Address | int]) -> bool:
    wanted: tuple[object, ...] = element
    return all(
        isinstance(value, bytes) and field.contains(value) if isinstance(field, Network) else field == value
        for field, value in zip(wanted, values, strict=True)
    )


def _is_named(interface: str, pattern: str) -> bool:
    return interface.startswith(pattern[:-1]) if pattern.endswith("*") else interface == pattern


def _destination(redirection: SetDestination, packet: Packet, elements: Elements) -> str | None:
    values = tuple(_value(field, packet) for field in redirection.fields)
    for fields in elements[redirection.map]:
        *key, leads_to = fields
        if family(fields[0]) is redirection.family and tuple(key) == values:
            assert isinstance(leads_to, bytes)
            return format_address(Address(leads_to))
    return None
