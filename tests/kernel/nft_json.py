"""Chains as `nft -j -n list table` prints them; netns_tests/test_nft_rules.py holds the real one to the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, assert_never

from ipvsproxy.kernel.nft_text import SET_NAMES
from ipvsproxy.model.addresses import Family, format_address
from ipvsproxy.plan.rules import (
    ArrivesBy,
    AskSourceList,
    ClearMark,
    ConnectionIs,
    DestinationIsLocal,
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
    SourceListed,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipvsproxy.plan.rules import Chain, Match, Statement

_PROTOCOL: dict[Family | None, str] = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_MARK = {"meta": {"key": "mark"}}
_VERDICTS: dict[Verdict, dict[str, Any]] = {
    Verdict.RETURN: {"return": None},
    Verdict.MASQUERADE: {"masquerade": {"flags": "fully-random"}},
    Verdict.DROP: {"drop": None},
    Verdict.REJECT_WITH_RESET: {"reject": {"type": "tcp reset"}},
    Verdict.REJECT_WITH_ICMP: {"reject": {"type": "icmpx", "expr": 1}},
}


def listing(*objects: dict[str, Any]) -> bytes:
    return json.dumps({"nftables": [{"metainfo": {"json_schema_version": 1}}, *objects]}).encode()


def chain(name: str, **hook: object) -> dict[str, Any]:
    return {"chain": {"family": "inet", "table": "ipvsproxy", "name": name, "handle": 1} | hook}


def rule(of: str, *expressions: dict[str, Any], comment: str = "") -> dict[str, Any]:
    body = {"family": "inet", "table": "ipvsproxy", "chain": of, "handle": 2, "expr": list(expressions)}
    return {"rule": body | ({"comment": comment} if comment else {})}


def objects_of(chains: Iterable[Chain]) -> list[dict[str, Any]]:
    """Return all chains, then all rules, as nft has them."""
    of_chains, rules = [], []
    for each in chains:
        hook = each.hook
        details = (
            {"type": hook.type, "hook": hook.name, "prio": hook.priority, "policy": "accept"} if hook else {}
        )
        of_chains.append(chain(each.name, **details))
        for one in each.rules:
            expressions = (*map(match_of, one.matches), statement_of(one.statement))
            rules.append(rule(each.name, *expressions, comment=one.duty))
    return [*of_chains, *rules]


def compared(left: object, right: object, *, equal: bool) -> dict[str, Any]:
    return {"match": {"op": "==" if equal else "!=", "left": left, "right": right}}


def match_of(match: Match) -> dict[str, Any]:  # noqa: C901, PLR0911 - one for each shape
    match match:
        case ConnectionIs(states):
            numbers = sorted(states)
            state = numbers if len(numbers) > 1 else numbers[0]
            return {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": state}}
        case FieldsInSet(of, fields, in_set, inside):
            return compared(_fields(fields, of), f"@{SET_NAMES[in_set, of]}", equal=inside)
        case SourceIn(network, inside):
            text = format_address(network.address)
            single = network.prefix_length == network.family.bits
            right = text if single else {"prefix": {"addr": text, "len": network.prefix_length}}
            return compared(_field(Field.SOURCE, network.family), right, equal=inside)
        case SourceListed(of, name):
            return compared(_field(Field.SOURCE, of), f"@{name}", equal=True)
        case ArrivesBy(interface, inside):
            return compared({"meta": {"key": "iifname"}}, interface, equal=inside)
        case ProtocolIs(number):
            return compared({"meta": {"key": "l4proto"}}, int(number), equal=True)
        case IsReset():
            of_tcp = {"payload": {"protocol": "tcp", "field": "flags"}}
            return {"match": {"op": "in", "left": of_tcp, "right": 4}}
        case Marked(31):
            return compared(_MARK, {"prefix": {"addr": 0, "len": 1}}, equal=False)
        case Marked(bit):
            return compared({"&": [_MARK, 1 << bit]}, 0, equal=False)
        case DestinationIsLocal():
            return compared({"fib": {"result": "type", "flags": ["daddr"]}}, "local", equal=True)
        case LeavesByOtherThan(interface):
            return compared({"meta": {"key": "oifname"}}, interface, equal=False)
        case _:
            assert_never(match)


def statement_of(statement: Statement) -> dict[str, Any]:  # noqa: PLR0911 - one for each shape
    match statement:
        case Verdict():
            return _VERDICTS[statement]
        case GoTo(target):
            return {"goto": {"target": target}}
        case SetMark(bit):
            return {"mangle": {"key": _MARK, "value": {"|": [_MARK, 1 << bit]}}}
        case ClearMark(bit):
            return {"mangle": {"key": _MARK, "value": {"&": [_MARK, 0xFFFFFFFF ^ 1 << bit]}}}
        case AskSourceList(of, fields, each):
            return {"vmap": {"key": _fields(fields, of), "data": f"@{SET_NAMES[each, of]}"}}
        case SetDestination(of, fields, each):
            lookup = {"map": {"key": _fields(fields, of), "data": f"@{SET_NAMES[each, of]}"}}
            return {"dnat": {"family": _PROTOCOL[of], "addr": lookup}}
        case KeepDestination(of):
            return {"dnat": {"family": _PROTOCOL[of], "addr": _field(Field.DESTINATION, of)}}
        case _:
            assert_never(statement)


def _fields(fields: Sequence[Field], of: Family | None) -> dict[str, Any]:
    parts = [_field(field, of) for field in fields]
    return parts[0] if len(parts) == 1 else {"concat": parts}


def _field(field: Field, of: Family | None) -> dict[str, Any]:
    match field:
        case Field.SOURCE | Field.DESTINATION:
            name = "saddr" if field is Field.SOURCE else "daddr"
            return {"payload": {"protocol": _PROTOCOL[of], "field": name}}
        case Field.PROTOCOL:
            return {"meta": {"key": "l4proto"}}
        case Field.SOURCE_PORT:
            return {"payload": {"protocol": "th", "field": "sport"}}
        case Field.DESTINATION_PORT:
            return {"payload": {"protocol": "th", "field": "dport"}}
        case _:
            assert_never(field)
