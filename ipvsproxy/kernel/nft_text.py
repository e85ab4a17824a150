"""The table's rules and elements in nft's language, for `nft -f -`.

The language is that of nft(8), as nft 0.9.7 and later read it. Nothing that a user wrote goes into it: addresses and
numbers are formatted, and all names are the agent's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from ipvsproxy.model.addresses import Family, family, format_address
from ipvsproxy.model.firewall import FirewallSet, set_name
from ipvsproxy.plan.firewall import (
    SETS,
    TABLE,
    ClearMark,
    ConnectionIsNew,
    Field,
    FieldsInSet,
    FieldType,
    GoTo,
    LeavesByOtherThan,
    Marked,
    ProtocolIs,
    SetMark,
    SourceOutside,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.plan.firewall import Chain, Match, Rule, Statement

SET_NAMES = {(each, of): set_name(each, of) for each in FirewallSet for of in Family}
"""The name of each set for each family."""

_ALL_BITS = 0xFFFFFFFF
_HEADER = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_ADDRESS_TYPE = {Family.IPV4: "ipv4_addr", Family.IPV6: "ipv6_addr"}
_FIELD_TYPE = {FieldType.PROTOCOL: "inet_proto", FieldType.PORT: "inet_service"}
_VERDICT = {
    Verdict.RETURN: "return",
    Verdict.MASQUERADE: "masquerade fully-random",
    Verdict.REJECT_WITH_RESET: "reject with tcp reset",
    Verdict.REJECT_WITH_ICMP: "reject with icmpx type port-unreachable",
}


def table_text(chains: Sequence[Chain]) -> str:
    """Return the commands that replace the table, should there be one, by one of these chains and empty sets."""
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for (each, of), name in SET_NAMES.items():
        types = (_FIELD_TYPE.get(field_type, _ADDRESS_TYPE[of]) for field_type in SETS[each])
        lines.append(f"\tset {name} {{ type {' . '.join(types)}; }}")
    for chain in chains:
        lines.append(f"\tchain {chain.name} {{")
        if chain.hook:
            kind, hook, priority = chain.hook
            lines.append(f"\t\ttype {kind} hook {hook} priority {priority}; policy accept;")
        lines += [f"\t\t{_rule(rule)}" for rule in chain.rules]
        lines.append("\t}")
    lines.append("}\n")
    return "\n".join(lines)


def add_text(elements: Iterable[SetElement]) -> str:
    """Return the commands that add the elements, whether they are there or not."""
    return "".join(
        f"add element inet {TABLE} {name} {{ {members} }}\n" for name, members in _members(elements).items()
    )


def remove_text(elements: Iterable[SetElement]) -> str:
    """Return the commands that remove the elements, whether they are there or not.

    Deleting what is not there fails the transaction, and nft before 1.0.8 has no `destroy`: so each is added first.
    """
    return "".join(
        f"add element inet {TABLE} {name} {{ {members} }}\ndelete element inet {TABLE} {name} {{ {members} }}\n"
        for name, members in _members(elements).items()
    )


def _members(elements: Iterable[SetElement]) -> dict[str, str]:
    """Return the elements' text by the name of their set."""
    texts: dict[str, list[str]] = {}
    for of, fields in elements:
        address = fields[0]
        if len(fields) == 3:  # noqa: PLR2004 - address, protocol, port
            text = f"{format_address(address)} . {fields[1]:d} . {fields[2]}"
        elif len(fields) == 2:  # noqa: PLR2004 - two addresses
            text = f"{format_address(address)} . {format_address(fields[1])}"
        else:
            text = format_address(address)
        texts.setdefault(SET_NAMES[of, family(address)], []).append(text)
    return {name: ", ".join(members) for name, members in texts.items()}


def _rule(rule: Rule) -> str:
    return " ".join((*map(_match, rule.matches), _statement(rule.statement), f'comment "{rule.duty}"'))


def _match(match: Match) -> str:
    match match:
        case ConnectionIsNew(new):
            return "ct state new" if new else "ct state != new"
        case FieldsInSet(of, fields, in_set):
            return f"{' . '.join(_field(field, of) for field in fields)} @{SET_NAMES[in_set, of]}"
        case SourceOutside(network):
            return f"{_HEADER[network.family]} saddr != {network}"
        case ProtocolIs(number):
            return f"meta l4proto {number:d}"
        case Marked(bit):
            return f"meta mark & {1 << bit:#010x} != 0"
        case LeavesByOtherThan(interface):
            return f'oifname != "{interface}"'
        case _:
            assert_never(match)


def _field(field: Field, of: Family) -> str:
    match field:
        case Field.SOURCE:
            return f"{_HEADER[of]} saddr"
        case Field.DESTINATION:
            return f"{_HEADER[of]} daddr"
        case Field.PROTOCOL:
            return "meta l4proto"
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
        case _:
            assert_never(statement)
