"""The table's rules and elements in nft's language, for `nft -f -`.

The language is that of nft(8), as nft 0.9.7 and later read it. Of what users write only interface names go into it,
checked to be such: addresses and numbers are formatted, and all other names are the agent's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, assert_never

from ipvsproxy.model.addresses import Family, format_address
from ipvsproxy.model.firewall import MAPS, SourceList, families_of, set_name
from ipvsproxy.plan.firewall import NODE_ALONE, TABLE, source_list_chain
from ipvsproxy.plan.rules import (
    MAP_KEY,
    SETS,
    ArrivesBy,
    AskSourceList,
    ClearMark,
    ConnectionIs,
    DestinationIsLocal,
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
    SourceListed,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import FirewallSet, SetElement
    from ipvsproxy.plan.rules import Chain, Match, Rule, Statement

SET_NAMES = {(each, of): set_name(each, of) for each in SETS for of in families_of(each)}
"""The name of each set for each family, None for one of no family."""

_ALL_BITS = 0xFFFFFFFF
_HEADER: Mapping[Family | None, str] = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_ADDRESS_TYPE = {Family.IPV4: "ipv4_addr", Family.IPV6: "ipv6_addr"}
# IFNAMSIZ less the zero at the end; a `*` at the end counts for nft.
_INTERFACE = re.compile(r"(?=.{1,15}\Z)[^\s/:\"\\*]+\*?")
_FIELD_TYPE = {
    FieldType.PROTOCOL: "inet_proto",
    FieldType.PORT: "inet_service",
    FieldType.SOURCE_LIST: "verdict",
}
_VERDICT = {
    Verdict.RETURN: "return",
    Verdict.MASQUERADE: "masquerade fully-random",
    Verdict.DROP: "drop",
    Verdict.REJECT_WITH_RESET: "reject with tcp reset",
    Verdict.REJECT_WITH_ICMP: "reject with icmpx type port-unreachable",
}


def table_text(chains: Sequence[Chain]) -> str:
    """Return the commands that replace the table, should there be one, by one of these chains and empty sets.

    The sets of the source lists NODE_ALONE are among them. Raise ValueError for a name that no interface can have.
    """
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for (each, of), name in SET_NAMES.items():
        lines.append(f"\t{_declaration(each, of, name)}")
    lines += [f"\tset {each.name} {{ {_type_of_list(each)} }}" for each in NODE_ALONE]
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
    return f"set {name} {{ type {' . '.join(types)}; }}"


def add_text(elements: Iterable[SetElement]) -> str:
    """Return the commands that add the elements, whether they are there or not; source lists first."""
    lists, others = _apart(elements)
    return "".join(map(_add_list, lists)) + "".join(
        f"add element inet {TABLE} {name} {{ {members} }}\n" for name, members in _members(others).items()
    )


def remove_text(elements: Iterable[SetElement]) -> str:
    """Return the commands that remove the elements, whether they are there or not; source lists last.

    Deleting what is not there fails the transaction, and nft before 1.0.8 has no `destroy`: so each is added first.
    That fails in its turn if something else is in the way, another value of the same key.
    """
    lists, others = _apart(dict.fromkeys(elements))
    return "".join(
        (
            *map(_declare_list, lists),
            *(
                f"add element inet {TABLE} {name} {{ {members} }}\n"
                f"delete element inet {TABLE} {name} {{ {members} }}\n"
                for name, members in _members(others).items()
            ),
            *(
                f"delete chain inet {TABLE} {each}\ndelete set inet {TABLE} {each}\n"
                for each in _names(lists)
            ),
        )
    )


def _apart(elements: Iterable[SetElement]) -> tuple[list[SourceList], list[SetElement]]:
    """Return the source lists, and all other elements."""
    lists: list[SourceList] = []
    others: list[SetElement] = []
    for element in elements:
        first = element.fields[0]
        if isinstance(first, SourceList):
            lists.append(first)
        else:
            others.append(element)
    return lists, others


def _names(lists: Iterable[SourceList]) -> Iterator[str]:
    return (each.name for each in lists)


def _declare_list(source_list: SourceList) -> str:
    """Return the commands that add a list's set and its chain, without what is in them."""
    name = source_list.name
    return f"add set inet {TABLE} {name} {{ {_type_of_list(source_list)} }}\nadd chain inet {TABLE} {name}\n"


def _type_of_list(source_list: SourceList) -> str:
    return f"type {_ADDRESS_TYPE[source_list.family]}; flags interval;"


def _add_list(source_list: SourceList) -> str:
    """Return the commands that add a list, with its networks and rules, whether it is there or not."""
    name, lines = source_list.name, [_declare_list(source_list)]
    if source_list.networks:
        lines.append(f"add element inet {TABLE} {name} {{ {_value(source_list)} }}\n")
    lines.append(f"flush chain inet {TABLE} {name}\n")
    lines += [
        f"add rule inet {TABLE} {name} {_rule(rule)}\n" for rule in source_list_chain(source_list).rules
    ]
    return "".join(lines)


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


def _value(field: Address | SourceList | int | str) -> str:
    if isinstance(field, SourceList):
        return ", ".join(map(str, field.networks))
    if isinstance(field, bytes):
        return format_address(field)
    return f"jump {field}" if isinstance(field, str) else f"{field:d}"


def _rule(rule: Rule) -> str:
    return " ".join((*map(_match, rule.matches), _statement(rule.statement), f'comment "{rule.duty}"'))


def _match(match: Match) -> str:  # noqa: C901 - one for each shape
    match match:
        case ConnectionIs(states):
            left, equal, right = "ct state", True, ",".join(state.name.lower() for state in sorted(states))
        case FieldsInSet(of, fields, in_set, inside):
            left, equal, right = _fields(fields, of), inside, f"@{SET_NAMES[in_set, of]}"
        case SourceIn(network, inside):
            left, equal, right = f"{_HEADER[network.family]} saddr", inside, str(network)
        case SourceListed(of, name):
            left, equal, right = f"{_HEADER[of]} saddr", True, f"@{name}"
        case ArrivesBy(interface, inside):
            left, equal, right = "iifname", inside, _interface(interface)
        case ProtocolIs(number):
            left, equal, right = "meta l4proto", True, f"{number:d}"
        case IsReset():
            left, equal, right = "tcp flags", True, "rst"
        case Marked(bit):
            left, equal, right = f"meta mark & {1 << bit:#010x}", False, "0"
        case DestinationIsLocal():
            left, equal, right = "fib daddr type", True, "local"
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


def _statement(statement: Statement) -> str:  # noqa: PLR0911 - one for each shape
    match statement:
        case Verdict():
            return _VERDICT[statement]
        case GoTo(chain):
            return f"goto {chain}"
        case SetMark(bit):
            return f"meta mark set meta mark | {1 << bit:#010x}"
        case ClearMark(bit):
            return f"meta mark set meta mark & {_ALL_BITS ^ 1 << bit:#010x}"
        case AskSourceList(of, fields, each):
            return f"{_fields(fields, of)} vmap @{SET_NAMES[each, of]}"
        case SetDestination(of, fields, each):
            return f"dnat {_HEADER[of]} addr . port to {_fields(fields, of)} map @{SET_NAMES[each, of]}"
        case KeepDestination(of):
            return f"dnat {_HEADER[of]} to {_HEADER[of]} daddr"
        case _:
            assert_never(statement)
