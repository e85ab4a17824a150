"""What nft prints of a host's firewall, taken apart as far as `plan.host_rules` can judge it.

Of the statements of a rule (libnftables-json(5)), some let every packet go on to the next statement, some are verdicts,
and all others are conditions, those that are not known among them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ipvsproxy.kernel.iptables_rules import PROTOCOLS
from ipvsproxy.model.addresses import Family, parse_address, parse_network
from ipvsproxy.plan.host_rules import (
    UNKNOWN,
    BaseChain,
    Condition,
    Field,
    Masked,
    Rule,
    State,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ipvsproxy.kernel.iptables_rules import SavedTable
    from ipvsproxy.plan.host_rules import TableName, Values

_FAMILIES: Final = frozenset(("ip", "ip6", "inet"))
_HOOKS: Final = frozenset(("prerouting", "input", "forward", "output", "postrouting"))

_VERDICTS: Final = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.REJECT,
    "return": Verdict.RETURN,
    "jump": Verdict.JUMP,
    "goto": Verdict.GOTO,
    # NAT is the end of a packet's way through a chain.
    "dnat": Verdict.ACCEPT,
    "snat": Verdict.ACCEPT,
    "masquerade": Verdict.ACCEPT,
    "redirect": Verdict.ACCEPT,
    "queue": Verdict.OTHER,
    "synproxy": Verdict.OTHER,
    "fwd": Verdict.OTHER,
}
_FOR_EVERY_PACKET: Final = frozenset(
    {
        *(
            "counter",
            "log",
            "mangle",
            "notrack",
            "flow",
            "set",
            "map",
            "dup",
            "last",
            "tproxy",
            "secmark",
            "reset",
        ),
        *("ct helper", "ct timeout", "ct expectation"),
    }
)
# The numbers that `nft -n` prints, and the names that it prints otherwise: nf_conntrack_common.h and rtnetlink.h.
_STATES: Final[Mapping[object, State]] = {
    1: State.INVALID,
    2: State.ESTABLISHED,
    4: State.RELATED,
    8: State.NEW,
    64: State.UNTRACKED,
    **{state.value: state for state in State},
}
_TYPES: Final[Mapping[object, str]] = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
}
_FAMILY_NUMBERS: Final[Mapping[object, Family]] = {
    2: Family.IPV4,
    "ipv4": Family.IPV4,
    10: Family.IPV6,
    "ipv6": Family.IPV6,
}
_META: Final = {
    "iifname": Field.ARRIVES_BY,
    "iif": Field.ARRIVES_BY,
    "oifname": Field.LEAVES_BY,
    "oif": Field.LEAVES_BY,
    "l4proto": Field.PROTOCOL,
    "nfproto": Field.FAMILY,
    "mark": Field.MARK,
}
_PAYLOAD: Final = {
    "saddr": Field.SOURCE,
    "daddr": Field.DESTINATION,
    "protocol": Field.PROTOCOL,
    "nexthdr": Field.PROTOCOL,
    "sport": Field.SOURCE_PORT,
    "dport": Field.DESTINATION_PORT,
}
_PACKET_FAMILIES: Final = {"ip": Family.IPV4, "ip6": Family.IPV6}
_EVERY_BIT: Final = 0xFFFFFFFF
_LAST_NUMBER: Final = 65535
_COMPARISONS: Final[Mapping[str, Callable[[int], range]]] = {
    ">": lambda number: range(number + 1, _LAST_NUMBER + 1),
    ">=": lambda number: range(number, _LAST_NUMBER + 1),
    "<": range,
    "<=": lambda number: range(number + 1),
}
_WITH_HANDLE: Final = re.compile(r"^\t\t(.*) # handle (\d+)$", re.MULTILINE)
_DORMANT: Final = re.compile(r"^\tflags\b.*\bdormant\b", re.MULTILINE)


class _Chain(msgspec.Struct):
    family: str
    table: str
    name: str
    type: str = ""
    hook: str = ""
    prio: int = 0
    policy: str = ""


class _Rule(msgspec.Struct):
    chain: str
    handle: int
    expr: list[dict[str, Any]] = []


class _Object(msgspec.Struct):
    """One thing of the listing, such as {"chain": {"family": "inet", …}}; those of other kinds are empty."""

    chain: _Chain | None = None
    rule: _Rule | None = None


class _Output(msgspec.Struct):
    """The output as a whole."""

    nftables: list[_Object]


_decoder = msgspec.json.Decoder(_Output)


class ListedChain(NamedTuple):
    """A base chain of nftables; `type` is nft's: filter, nat or route."""

    family: str
    table: str
    chain: str
    type: str
    hook: str
    priority: int
    policy_drops: bool

    def of(self, table: TableName) -> BaseChain:
        """Return the chain as one of the table."""
        return BaseChain(table, self.chain, self.hook, self.priority, self.policy_drops, self.type)


def parse_chains(output: bytes) -> list[ListedChain]:
    """Return the base chains that IP packets pass, of those that `nft -j list chains` prints.

    Raise ValueError (msgspec.DecodeError) for what is no listing.
    """
    chains = (each.chain for each in _decoder.decode(output).nftables if each.chain)
    return [
        ListedChain(
            chain.family,
            chain.table,
            chain.name,
            chain.type,
            chain.hook,
            chain.prio,
            chain.policy == "drop",
        )
        for chain in chains
        if chain.family in _FAMILIES and chain.hook in _HOOKS
    ]


def is_dormant(text: str) -> bool:
    """Say whether the table that nft prints is switched off, so that no packet passes its chains."""
    return _DORMANT.search(text) is not None


def parse_table(output: bytes, text: str, saved: SavedTable | None = None) -> dict[str, list[Rule]]:
    """Return the rules of a table by chain, from what nft prints of it as JSON, and as text with handles.

    `saved` is the same table as iptables-nft prints it, which knows what its extensions ask for, and nft does not. For
    all other rules nft is to be believed: of its own conditions, iptables-nft leaves some out without a word.

    Raise ValueError (msgspec.DecodeError) for what is no listing.
    """
    texts = {int(handle): line for line, handle in _WITH_HANDLE.findall(text)}
    found: dict[str, list[_Rule]] = {}
    for each in _decoder.decode(output).nftables:
        if each.chain:
            found.setdefault(each.chain.name, [])
        if each.rule:
            found.setdefault(each.rule.chain, []).append(each.rule)
    rules: dict[str, list[Rule]] = {}
    for chain, listed in found.items():
        lines = saved.lines.get(chain, []) if saved else []
        # Else one of both was changed between the two looks.
        aligned = lines if len(lines) == len(listed) else [""] * len(listed)
        rules[chain] = [
            parsed
            for rule, line in zip(listed, aligned, strict=True)
            for parsed in _parse_rule(rule, line or texts.get(rule.handle, ""), saved if line else None)
        ]
    return rules


def _parse_rule(rule: _Rule, text: str, saved: SavedTable | None) -> Iterator[Rule]:
    if saved and any("xt" in statement for statement in rule.expr):
        yield from (replace(parsed, handle=rule.handle) for parsed in saved.parse(text))
        return
    for verdict, conditions, target in _parse_statements(rule.expr):
        yield Rule(verdict, conditions, target, text or f"handle {rule.handle}", rule.handle)


def _parse_statements(
    statements: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Verdict, tuple[Condition, ...], str]]:
    """Yield what the statements of a rule decide: a verdict, its conditions, and the chain that it leads to."""
    conditions: list[Condition] = []
    for statement in statements:
        ((kind, body),) = statement.items()
        if kind in _VERDICTS:
            yield _VERDICTS[kind], tuple(conditions), _target(body)
            return
        match kind, body:
            case "match", {"op": str(operator), "left": left, "right": right}:
                conditions += _conditions(operator, left, right)
            case "vmap", {"key": key, "data": {"set": list(entries)}}:
                yield from _verdicts_of_map(tuple(conditions), key, entries)
            case "vmap", _:
                yield Verdict.OTHER, (*conditions, UNKNOWN), ""
            case "xt", {"type": "match", "name": "comment"}:
                pass
            case "xt", {"type": "target", "name": str(name)}:
                yield Verdict.REJECT if name == "REJECT" else Verdict.OTHER, tuple(conditions), ""
                return
            case _ if kind not in _FOR_EVERY_PACKET:
                conditions.append(UNKNOWN)


def _target(body: object) -> str:
    return str(body["target"]) if isinstance(body, dict) and "target" in body else ""


def _verdicts_of_map(
    conditions: tuple[Condition, ...], key: object, entries: Sequence[Any]
) -> Iterator[tuple[Verdict, tuple[Condition, ...], str]]:
    for value, verdict in entries:
        ((kind, body),) = verdict.items()
        of_key = () if value == "*" else tuple(_conditions("==", key, value))
        yield _VERDICTS.get(kind, Verdict.OTHER), (*conditions, *of_key), _target(body)


def _conditions(operator: str, left: object, right: object) -> Iterator[Condition]:
    """Yield what a match asks for: that the packet has the field at all, and what the field is."""
    field: Field | None = None
    mask = _EVERY_BIT
    match left:
        case {"payload": {"protocol": str(protocol), "field": str(name)}}:
            if protocol in _PACKET_FAMILIES:
                yield Condition(Field.FAMILY, (_PACKET_FAMILIES[protocol],))
            elif protocol in PROTOCOLS:
                yield Condition(Field.PROTOCOL, (PROTOCOLS[protocol],))
            field = _PAYLOAD.get(name)
        case {"meta": {"key": str(name)}}:
            field = _META.get(name)
        case {"ct": {"key": "state"}}:
            field = Field.STATE
        case {"fib": {"result": "type", "flags": ["daddr"]}}:
            field = Field.DESTINATION_TYPE
        case {"&": [{"meta": {"key": "mark"}}, int(bits)]}:
            field, mask = Field.MARK, bits
        case {"&": [{"payload": {"protocol": str(protocol)}}, _]} if protocol in PROTOCOLS:
            yield Condition(Field.PROTOCOL, (PROTOCOLS[protocol],))
    try:
        values = tuple(_values(field, operator, right, mask)) if field else ()
    except (ValueError, KeyError, TypeError):
        values = ()
    yield Condition(field, values, inside=operator != "!=") if values else UNKNOWN


def _values(field: Field, operator: str, right: object, mask: int) -> Iterator[Values]:
    """Yield the values that the right side stands for; ValueError, KeyError or TypeError if it can't be understood."""
    match right:
        case int() if operator in _COMPARISONS:
            yield _COMPARISONS[operator](right)
        case list() if operator == "in":
            yield from (_value(field, flag, mask) for flag in right)
        case _ if operator not in {"==", "!=", "in"}:
            raise ValueError(operator)
        case {"set": list(elements)}:
            for element in elements:
                yield from _values(field, "==", element, mask)
        case {"elem": {"val": value}}:
            yield from _values(field, "==", value, mask)
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            yield parse_network(f"{address}/{length}")
        case {"range": [first, last]}:
            yield from _range(first, last)
        case str() | int():
            yield _value(field, right, mask)
        case _:
            raise ValueError(right)


def _range(first: object, last: object) -> Iterator[Values]:
    if isinstance(first, int) and isinstance(last, int):
        yield range(first, last + 1)
        return
    ends = ipaddress.ip_address(str(first)), ipaddress.ip_address(str(last))
    for network in ipaddress.summarize_address_range(*ends):
        yield parse_network(str(network))


def _value(field: Field, value: str | int, mask: int) -> Values:  # noqa: PLR0911 - one for each field
    """Return one value as the field has it; ValueError, KeyError or TypeError for one that is none, such as a set."""
    match field:
        case Field.SOURCE | Field.DESTINATION:
            address = parse_address(str(value))
            return parse_network(f"{value}/{len(address) * 8}")
        case Field.FAMILY:
            return _FAMILY_NUMBERS[value]
        case Field.STATE:
            return _STATES[value]
        case Field.DESTINATION_TYPE:
            return _TYPES[value] if isinstance(value, int) else value
        case Field.MARK:
            return Masked(mask, int(value))
        case Field.PROTOCOL:
            return PROTOCOLS[value] if isinstance(value, str) else value
        case Field.ARRIVES_BY | Field.LEAVES_BY:
            if isinstance(value, int) or value.startswith("@"):
                raise ValueError(value)
            return value
        case _:
            return int(value)
