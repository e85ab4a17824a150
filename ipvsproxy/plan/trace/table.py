"""What one hook of the nftables table does with a packet.

The chains of a hook are passed by priority, and a packet goes on with the next one unless a rule drops or refuses it.
Chains of type nat see a connection's first packet only, and the first of them that has an answer settles it; whatever
their priorities, they stand together where the kernel's NAT has its place (nf_nat_core.c).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, assert_never, cast

from ipvsproxy.model.addresses import family, format_endpoint
from ipvsproxy.model.firewall import MAPS, FirewallSet, SetElement, SourceList
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.firewall import source_list_chain
from ipvsproxy.plan.host_firewall import IPVS, HostFirewallFinding, Traffic
from ipvsproxy.plan.host_rules import DROPS, BaseChain, HostTables, State, judge
from ipvsproxy.plan.host_rules import Field as HostField
from ipvsproxy.plan.host_rules import Verdict as HostVerdict
from ipvsproxy.plan.rules import (
    MAP_KEY,
    ArrivesBy,
    AskSourceList,
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
    SetDestination,
    SetMark,
    SourceIn,
    SourceListed,
    Verdict,
)
from ipvsproxy.plan.trace.shapes import EFFECTS, HOOKS, check_chains
from ipvsproxy.plan.trace.values import Stage, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.plan.host_rules import Known
    from ipvsproxy.plan.rules import Chain, Match, Rule, Statement

# NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC, linux/netfilter_ipv4.h.
_NAT = {"prerouting": -100, "input": 100, "output": -100, "postrouting": 100}


_WITH_PORTS = frozenset(map(int, Protocol))


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
    `is_answer` says that an endpoint sends it to a client, whose `port` is not known. `local` says whether the
    destination is of the node.
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
    is_answer: bool = False
    local: bool = True

    @property
    def sent_to(self) -> str:
        """Return `ADDRESS:PORT/PROTOCOL`, of its destination."""
        names = {int(protocol): protocol.name.lower() for protocol in Protocol}
        return f"{format_endpoint(self.destination, self.port)}/{names.get(self.protocol, self.protocol)}"

    @property
    def traffic(self) -> Traffic:
        """What it is to the host's firewall."""
        if self.is_answer:
            return Traffic.ANSWER
        return Traffic.TO_SERVICE if self.local else Traffic.TO_ENDPOINT

    @property
    def known(self) -> dict[HostField, Known]:
        """What is known of the packet to rules of the host's firewall."""
        known: dict[HostField, Known] = {
            HostField.FAMILY: family(self.source),
            HostField.PROTOCOL: self.protocol,
            HostField.SOURCE: self.source,
            HostField.DESTINATION: self.destination,
            HostField.STATE: State[self.state.name],
            HostField.ARRIVES_BY: self.arrived_by or "",
            HostField.DESTINATION_TYPE: "local" if self.local else "unicast",
        }
        if self.is_answer:
            known[HostField.SOURCE_PORT] = self.source_port
        elif self.protocol in _WITH_PORTS:
            known[HostField.DESTINATION_PORT] = self.port
        if self.leaves_by is not None:
            known[HostField.LEAVES_BY] = self.leaves_by
        return known


class _Place(NamedTuple):
    """A base chain at its hook, the agent's or the host's."""

    hook: Hook
    chain: Chain | BaseChain

    @property
    def place(self) -> int:
        """The place among the chains of the hook."""
        return _NAT[self.hook.name] if self.hook.type == "nat" else self.hook.priority


class Passage(NamedTuple):
    """What a hook did: the verdict that dropped or refused the packet, None if it goes on, and how it left the hook."""

    verdict: Verdict | None
    packet: HookPacket
    steps: tuple[Step, ...]


class FirewallTable:
    """The rules and the elements of an nftables table; UnknownRuleError if a rule can't be followed.

    Beside it, the tables of the host's own firewall, whose chains may drop packets, and do nothing else here.
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        elements: Iterable[SetElement],
        host: HostTables = HostTables(),  # noqa: B008 - it is immutable
    ) -> None:
        """Check all rules and index all elements, once; a look-up costs the same then, however many there are.

        A source list among the elements whose chain is not given has the chain that it should have.
        """
        self._elements = _Elements(elements)
        self._chains = self._elements.chains | {chain.name: chain for chain in chains}
        check_chains(self._chains.values())
        self._host = host
        ours = [_Place(chain.hook, chain) for chain in chains if chain.hook is not None]
        theirs = [_Place(Hook(each.type, each.hook, each.priority), each) for each in host.base_chains]
        hooked = sorted((*ours, *theirs), key=lambda entry: (entry.place, entry.hook.priority))
        self._at = {
            name: [entry for entry in hooked if entry.hook.name == name] for name in (*HOOKS, Stage.FORWARD)
        }

    def at_hook(
        self, hook: str, packet: HookPacket, part: Part = Part.ALL, *, settled: bool = False
    ) -> Passage:
        """Lead a packet through the chains at a hook: an answer through the host's chains alone.

        `settled` says that what chains of type nat decide here was decided before, at another hook or for an earlier
        packet.
        """
        steps: list[Step] = []
        for entry in self._at[hook]:
            if part is not Part.ALL and (entry.place < IPVS[hook]) is not (part is Part.BEFORE_IPVS):
                continue
            if entry.hook.type == "nat" and (settled or packet.is_answer):
                continue
            if isinstance(entry.chain, BaseChain):
                end: Verdict | SetDestination | KeepDestination | None = self._pass_host(
                    entry.chain, packet, steps
                )
            elif packet.is_answer:
                # The agent's own chains do nothing to a connection that was answered.
                continue
            else:
                end, packet = self._follow(entry.chain, Stage(hook), packet, steps)
            if isinstance(end, SetDestination | KeepDestination) or end is Verdict.MASQUERADE:
                settled = True
            elif end is not None:
                return Passage(end, packet, tuple(steps))
        return Passage(None, packet, tuple(steps))

    def _pass_host(self, base: BaseChain, packet: HookPacket, steps: list[Step]) -> Verdict | None:
        """Lead a packet through a chain of the host's own firewall; return the verdict if that certainly drops it."""
        if not base.table.has(family(packet.source)):
            return None
        judgement = judge(self._host, base, packet.known)
        if judgement.passes:
            return None
        end, place = judgement.default, f"{base.chain} of {base.table}"
        refuses = end.verdict is HostVerdict.REJECT
        if judgement.drops:
            served = () if packet.is_answer or not packet.local else (packet.sent_to,)
            drop = HostFirewallFinding(
                base,
                end._replace(perhaps=None),
                served,
                len(served),
                traffic=(packet.traffic,),
                family=family(packet.source),
            )
            effect = "refused" if refuses else "dropped"
            reason = f"the host's own firewall: {end.why}"
            steps.append(Step(Stage(base.hook), reason, effect, place, host_drop=drop))
            return Verdict.REJECT_WITH_ICMP if refuses else Verdict.DROP
        rules = "; ".join(f"`{rule.text}`" for rule in judgement.undecided)
        effect = "dropped" if end.verdict in DROPS else "passed"
        steps.append(
            Step(
                Stage(base.hook),
                f"the host's own firewall has rules that could not be judged: {rules}",
                f"{effect}, unless one of these does otherwise",
                place,
                undecided=True,
            )
        )
        return None

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
            if isinstance(statement, AskSourceList):
                end, packet = self._follow(self._chains[_list_behind(items)], stage, packet, steps)
                if end is not None:
                    return end, packet
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
            if isinstance(match, SourceListed) or (isinstance(match, FieldsInSet) and match.inside)
        ]
        if isinstance(rule.statement, SetDestination | AskSourceList):
            target = self._elements.find(rule.statement, packet)
            if target is None:
                return None
            found.append(target)
        return tuple(element for element in found if element)

    def _holds(self, match: Match, packet: HookPacket) -> bool:  # noqa: C901, PLR0911 - one for each shape
        match match:
            case ConnectionIs(states):
                return packet.state in states
            case FieldsInSet(inside=inside):
                return (
                    match.family in {None, family(packet.source)}
                    and (self._elements.find(match, packet) is not None) is inside
                )
            case SourceListed(of):
                return of is family(packet.source) and self._elements.find(match, packet) is not None
            case SourceIn(network, inside):
                return network.family is family(packet.source) and network.contains(packet.source) is inside
            case ArrivesBy(interface, inside):
                return _is_named(packet.arrived_by, interface) is inside
            case ProtocolIs(number):
                return packet.protocol == number
            case DestinationIsLocal():
                return packet.local
            case IsReset():
                return packet.is_reset
            case Marked(bit):
                return bool(packet.mark >> bit & 1)
            case LeavesByOtherThan(interface):
                return packet.leaves_by != interface
            case _:
                assert_never(match)


def _list_behind(items: Sequence[SetElement]) -> str:
    """Return the name of the source list that a packet is led to by the last element."""
    return cast("str", items[-1].fields[-1])


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
        case AskSourceList():
            return packet, f"goes on in chain {_list_behind(items)}"
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
    """The elements of all sets, found by what of a packet is compared with them; `chains` are the source lists'."""

    def __init__(self, elements: Iterable[SetElement]) -> None:
        self._exact: dict[tuple[FirewallSet, tuple[object, ...]], SetElement] = {}
        self._lists: dict[str, SourceList] = {}
        self.chains: dict[str, Chain] = {}
        for element in elements:
            first = element.fields[0]
            if isinstance(first, SourceList):
                self._lists[first.name] = first
                self.chains[first.name] = source_list_chain(first)
            else:
                fields = element.fields[:MAP_KEY] if element.set in MAPS else element.fields
                self._exact[element.set, fields] = element

    def find(
        self, where: FieldsInSet | SourceListed | SetDestination | AskSourceList, packet: HookPacket
    ) -> SetElement | None:
        """Return the element that the packet's fields are, or lead to in a map, or the list that has its source."""
        if isinstance(where, SourceListed):
            source_list = self._lists.get(where.list)
            networks = source_list.networks if source_list else ()
            listed = any(network.contains(packet.source) for network in networks)
            return SetElement(FirewallSet.SOURCE_LISTS, (source_list,)) if source_list and listed else None
        of = where.set if isinstance(where, FieldsInSet) else where.map
        return self._exact.get((of, tuple(_value(field, packet) for field in where.fields)))


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
