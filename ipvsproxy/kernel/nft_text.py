"""The table's rules and elements in nft's language, for `nft -f -`.

The language is that of nft(8), as nft 0.9.7 and later read it. Of what users write only interface names go into it,
checked to be such: addresses and numbers are formatted, and all other names are the agent's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, assert_never

from ipvsproxy.model.addresses import Family, Network, format_address
from ipvsproxy.model.firewall import MAPS, FirewallSet, families_of, set_name
from ipvsproxy.plan.firewall import TABLE
from ipvsproxy.plan.rules import (
    MAP_KEY,
    SETS,
    ArrivesBy,
    ClearMark,
    ConnectionIs,
    Field,
    FieldsInSet,
    FieldType,
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.plan.rules import Chain, Match, Rule, Statement

SET_NAMES = {(each, of): set_name(each, of) for each in FirewallSet for of in families_of(each)}
"""The name of each set for each family, None for one of no family."""

_ALL_BITS = 0xFFFFFFFF
_HEADER: Mapping[Family | None, str] = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_ADDRESS_TYPE = {Family.IPV4: "ipv4_addr", Family.IPV6: "ipv6_addr"}
# IFNAMSIZ less the zero at the end; a `*` at the end counts for nft.
_INTERFACE = re.compile(r"(?=.{1,15}\Z)[^\s/:\"\\*]+\*?")
_FIELD_TYPE = {FieldType.PROTOCOL: "inet_proto", FieldType.PORT: "inet_service"}
_VERDICT = {
    Verdict.RETURN: "return",
    Verdict.MASQUERADE: "masquerade fully-random",
    Verdict.DROP: "drop",
    Verdict.REJECT_WITH_RESET: "reject with tcp reset",
    Verdict.REJECT_WITH_ICMP: "reject with icmpx type port-unreachable",
}


def table_text(chains: Sequence[Chain]) -> str:
    """Return the commands that replace the table, should there be one, by one of these chains and empty sets.

    Raise ValueError for a name that no interface can have.
    """
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for (each, of), name in SET_NAMES.items():
        lines.append(f"\t{_declaration(each, of, name)}")
    for chain in chains:
        lines.append(f"\tchain {chain.name} {{")
        if chain.hook:
            kind, hook, priority = chain.hook
            lines.append(f"\t\ttype {kind} hook {hook} priority {priority}; policy accept;")
        lines += [f"\t\t{_rule(rule)}" for rule in chain.rules]
        lines.append("\t}")
    lines.append("}\n")
    return "\n".join(lines)


def _declaration(each: FirewallSet, of: Family | None, name: str) -> str:
    address_type = _ADDRESS_TYPE[of] if of else ""
    types = [_FIELD_TYPE.get(field_type, address_type) for field_type in SETS[each]]
    if each in MAPS:
        return f"map {name} {{ type {' . '.join(types[:MAP_KEY])} : {' . '.join(types[MAP_KEY:])}; }}"
    flags = " flags interval;" if FieldType.NETWORK in SETS[each] else ""
    return f"set {name} {{ type {' . '.join(types)};{flags} }}"


def add_text(elements: Iterable[SetElement]) -> str:
    """Return the commands that add the elements, whether they are there or not."""
    return "".join(
        f"add element inet {TABLE} {name} {{ {members} }}\n" for name, members in _members(elements).items()
    )


def remove_text(elements: Iterable[SetElement]) -> str:
    """Return the commands that remove the elements, whether they are there or not.

    Deleting what is not there fails the transaction, and nft before 1.0.8 has no `destroy`: so each is added first.
    That fails in its turn if something else is in the way: another value of the same key, or a network that overlaps.
    """
    return "".join(
        f"add element inet {TABLE} {name} {{ {members} }}\ndelete element inet {TABLE} {name} {{ {members} }}\n"
        for name, members in _members(dict.fromkeys(elements)).items()
    )


def _members(elements: Iterable[SetElement]) -> dict[str, str]:
    """Return the elements' text by the name of their set."""
    texts: dict[str, list[str]] = {}
    for element in elements:
        texts.setdefault(element.set_name, []).append(_element(element))
    return {name: ", ".join(members) for name, members in texts.items()}


def _element(element: SetElement) -> str:
    texts = [_value(field) for field in element.fields]
    if element.set in MAPS:
        return f"{' . '.join(texts[:MAP_KEY])} : {' . '.join(texts[MAP_KEY:])}"
    return " . ".join(texts)


def _value(field: Address | Network | int) -> str:
    if isinstance(field, bytes):
        return format_address(field)
    return str(field) if isinstance(field, Network) else f"{field:d}"


def _rule(rule: Rule) -> str:
    return " ".join((*map(_match, rule.matches), _statement(rule.statement), f'comment "{rule.duty}"'))


def _match(match: Match) -> str:
    match match:
        case ConnectionIs(states):
            left, equal, right = "ct state", True, ",".join(state.name.lower() for state in sorted(states))
        case FieldsInSet(of, fields, in_set, inside):
            left, equal, right = _fields(fields, of), inside, f"@{SET_NAMES[in_set, of]}"
        case SourceIn(network, inside):
            left, equal, right = f"{_HEADER[network.family]} saddr", inside, str(network)
        case ArrivesBy(interface, inside):
            left, equal, right = "iifname", inside, _interface(interface)
        case ProtocolIs(number):
            left, equal, right = "meta l4proto", True, f"{number:d}"
        case IsReset():
            left, equal, right = "tcp flags", True, "rst"
        case Marked(bit):
            left, equal, right = f"meta mark & {1 << bit:#010x}", False, "0"
        case LeavesByOtherThan(interface):
            left, equal, right = "oifname", False, _interface(interface)
        case _:
            assert_never(match)
    return f"{left} {right}" if equal else f"{left} != {right}"


def _interface(name: str) -> str:
    if not _INTERFACE.fullmatch(name):
        raise ValueError(f"{name!r} is neither an interface's name nor the beginning of one and `*`")
    return f'"{name}"'


def _fields(fields: tuple[Field, ...], of: Family | None) -> str:
    return " . ".join(_field(field, of) for field in fields)


def _field(field: Field, of: Family | None) -> str:
    match field:
        case Field.SOURCE:
            return f"{_HEADER[of]} saddr"
        case Field.DESTINATION:
            return f"{_HEADER[of]} daddr"
        case Field.PROTOCOL:
            return "meta l4proto"
        case Field.SOURCE_PORT:
            return "th sport"
        case Field.DESTINATION_PORT:
            return "th dport"
        case _:
            assert_never(field)


def _statement(statement: Statement) -> str:
    match statement:
        case Verdict():
            return _VERDICT[statement]
        case GoTo(chain):
            return f"goto {chain}"
        case SetMark(bit):
            return f"meta mark set meta mark | {1 << bit:#010x}"
        case ClearMark(bit):
            return f"meta mark set meta mark & {_ALL_BITS ^ 1 << bit:#010x}"
        case SetDestination(of, fields, each):
            return f"dnat {_HEADER[of]} addr . port to {_fields(fields, of)} map @{SET_NAMES[each, of]}"
        case KeepDestination(of):
            return f"dnat {_HEADER[of]} to {_HEADER[of]} daddr"
        case _:
            assert_never(statement)
