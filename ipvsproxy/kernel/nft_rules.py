"""The chains and rules that `nft -j -n list table inet ipvsproxy` prints, as the values of `plan.rules`.

It is the way back from `nft_text`: what the agent installed is read as it was planned. Others may have put something in
the table that has no such value; it is kept as text, for whoever follows the rules must know that there is more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ipvsproxy.kernel.nft_listing import DIGEST_PREFIX
from ipvsproxy.kernel.nft_text import SET_NAMES
from ipvsproxy.model.addresses import Family, Network, family, parse_address, parse_network
from ipvsproxy.model.firewall import named_source_list
from ipvsproxy.plan.rules import (
    ArrivesBy,
    AskSourceList,
    Chain,
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
    Rule,
    SetDestination,
    SetMark,
    SourceIn,
    SourceListed,
    Verdict,
)

if TYPE_CHECKING:
    from ipvsproxy.model.firewall import FirewallSet
    from ipvsproxy.plan.rules import Match, Statement

_FAMILY = {"ip": Family.IPV4, "ip6": Family.IPV6}
_ADDRESS_FIELD = {"saddr": Field.SOURCE, "daddr": Field.DESTINATION}
_SET_OF_NAME = {name: key for key, name in SET_NAMES.items()}
_ALL_BITS = 0xFFFFFFFF
# ICMPX_PORT_UNREACH, linux/netfilter/nf_tables.h.
_PORT_UNREACHABLE = (1, "port-unreachable")
# They count and report packets, and leave them as they are.
_WITHOUT_EFFECT = frozenset({"counter", "log"})

POLICY_DUTY = "the chain's policy"


class UnknownRule(NamedTuple):
    """Something in the table that has no value in `plan.rules`: where it is, and what it is, in nft's JSON."""

    chain: str
    text: str


class ListedRules(NamedTuple):
    """The chains with the rules that are known, each in its order, and all the others."""

    chains: tuple[Chain, ...]
    unknown: tuple[UnknownRule, ...]


class _Chain(msgspec.Struct):
    name: str
    type: str = ""
    hook: str = ""
    prio: int = 0
    policy: str = "accept"


class _Rule(msgspec.Struct):
    chain: str
    expr: list[dict[str, Any]] = []
    comment: str = ""


class _Object(msgspec.Struct):
    """One thing of the listing, such as {"rule": {"family": "inet", …}}; those of other kinds are empty."""

    chain: _Chain | None = None
    rule: _Rule | None = None


class _Output(msgspec.Struct):
    nftables: list[_Object]


class _UnknownError(Exception):
    """There is no value for it."""


_decoder = msgspec.json.Decoder(_Output)


def parse_rules(output: bytes) -> ListedRules:
    """Return the chains of a listing, in its order; ValueError (msgspec.DecodeError) for what is no listing.

    The chain that has nothing but the digest's name is left out. A base chain whose policy is to drop has a last rule
    that does.
    """
    objects = _decoder.decode(output).nftables
    rules: dict[str, list[Rule]] = {}
    unknown: list[UnknownRule] = []
    for listed in (each.rule for each in objects if each.rule):
        of_chain = rules.setdefault(listed.chain, [])
        try:
            rule = _rule(listed)
        # Anything may be missing from a shape that is not known, or be of another type.
        except (_UnknownError, KeyError, TypeError, ValueError, AttributeError):
            text = listed.comment or msgspec.json.encode(listed.expr).decode()
            unknown.append(UnknownRule(listed.chain, text))
        else:
            of_chain += [rule] if rule else []
    chains = []
    for chain in (each.chain for each in objects if each.chain):
        of_chain = rules.get(chain.name, [])
        if chain.policy == "drop":
            of_chain.append(Rule(POLICY_DUTY, (), Verdict.DROP))
        if of_chain or not chain.name.startswith(DIGEST_PREFIX):
            hook = Hook(chain.type, chain.hook, chain.prio) if chain.hook else None
            chains.append(Chain(chain.name, hook, tuple(of_chain)))
    return ListedRules(tuple(chains), tuple(unknown))


def _rule(listed: _Rule) -> Rule | None:
    """Return the rule; None for one that leaves every packet as it is."""
    expressions = [each for each in listed.expr if not each.keys() <= _WITHOUT_EFFECT]
    matches = [each["match"] for each in expressions if "match" in each]
    statements = [each for each in expressions if "match" not in each]
    if not statements:
        return None
    (statement,) = statements
    # The end of the packet's way through the hook, where a source list's chain has to come back.
    if "accept" in statement and named_source_list(listed.chain):
        raise _UnknownError
    return Rule(listed.comment, tuple(map(_match, matches)), _statement(statement))


def _match(body: dict[str, Any]) -> Match:  # noqa: C901, PLR0911 - one for each shape
    if body["op"] == "in":
        return _flags_match(body["left"], body["right"])
    inside = {"==": True, "!=": False}[body["op"]]
    match body["left"], body["right"]:
        case {"meta": {"key": "iifname"}}, str(interface):
            return ArrivesBy(interface, inside)
        case {"meta": {"key": "oifname"}}, str(interface) if not inside:
            return LeavesByOtherThan(interface)
        # Or its number: RTN_LOCAL, linux/rtnetlink.h.
        case {"fib": {"result": "type", "flags": "daddr" | ["daddr"]}}, ("local" | 2) if inside:
            return DestinationIsLocal()
        case {"meta": {"key": "l4proto"}}, int(number) if inside:
            return ProtocolIs(number)
        case {"&": [{"meta": {"key": "mark"}}, int(mask)]}, 0 if not inside:
            return Marked(_bit(mask))
        # The highest bit is told by a prefix of one bit.
        case {"meta": {"key": "mark"}}, {"prefix": {"addr": 0, "len": 1}} if not inside:
            return Marked(31)
        case {"payload": {"protocol": ("ip" | "ip6") as protocol, "field": "saddr"}}, str(name) if (
            named_source_list(name.removeprefix("@")) and inside
        ):
            return SourceListed(_FAMILY[protocol], name.removeprefix("@"))
        case left, str(name) if name.startswith("@"):
            of_family, fields = _fields(left)
            return FieldsInSet(of_family, fields, _set(name, of_family), inside)
        case {"payload": {"protocol": ("ip" | "ip6") as protocol, "field": "saddr"}}, network:
            source = SourceIn(_network(network), inside)
            if source.network.family is _FAMILY[protocol]:
                return source
    raise _UnknownError


def _statement(expression: dict[str, Any]) -> Statement:  # noqa: C901, PLR0911, PLR0912 - one for each shape
    match expression:
        # The end of a base chain both: nothing leads to another chain and back but the map of source lists.
        case {"return": None} | {"accept": None}:
            return Verdict.RETURN
        case {"drop": None}:
            return Verdict.DROP
        case {"masquerade": _}:
            return Verdict.MASQUERADE
        case {"reject": {"type": "tcp reset"}}:
            return Verdict.REJECT_WITH_RESET
        case {"reject": {"type": "icmpx", "expr": code}} if code in _PORT_UNREACHABLE:
            return Verdict.REJECT_WITH_ICMP
        case {"goto": {"target": str(chain)}}:
            return GoTo(chain)
        case {
            "mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"meta": {"key": "mark"}}, bits]}}
        }:
            return SetMark(_bit(bits))
        case {
            "mangle": {"key": {"meta": {"key": "mark"}}, "value": {"&": [{"meta": {"key": "mark"}}, bits]}}
        }:
            return ClearMark(_bit(_ALL_BITS ^ bits))
        case {"vmap": {"key": key, "data": str(name)}}:
            of_family, fields = _fields(key)
            if of_family is not None:
                return AskSourceList(of_family, fields, _set(name, of_family))
        case {"dnat": {"family": str(protocol), "addr": {"map": {"key": key, "data": str(name)}}}}:
            of_family, fields = _fields(key)
            if of_family is not None and of_family is _FAMILY[protocol]:
                return SetDestination(of_family, fields, _set(name, of_family))
        case {
            "dnat": {"family": str(protocol), "addr": {"payload": {"field": "daddr", "protocol": str(of)}}}
        }:
            if protocol == of:
                return KeepDestination(_FAMILY[protocol])
    raise _UnknownError


def _fields(left: dict[str, Any]) -> tuple[Family | None, tuple[Field, ...]]:
    """Return the family and the fields of a packet that are compared; None if no address is among them."""
    parts = left.get("concat", [left])
    families: set[Family] = set()
    fields = []
    for part in parts:
        match part:
            case {"payload": {"protocol": ("ip" | "ip6") as protocol, "field": name}}:
                families.add(_FAMILY[protocol])
                fields.append(_ADDRESS_FIELD[name])
            case {"payload": {"protocol": "th", "field": "sport"}}:
                fields.append(Field.SOURCE_PORT)
            case {"payload": {"protocol": "th", "field": "dport"}}:
                fields.append(Field.DESTINATION_PORT)
            case {"meta": {"key": "l4proto"}}:
                fields.append(Field.PROTOCOL)
            case _:
                raise _UnknownError
    if len(families) > 1:
        raise _UnknownError
    return next(iter(families), None), tuple(fields)


def _set(name: str, of_family: Family | None) -> FirewallSet:
    each, family_of_set = _SET_OF_NAME[name.removeprefix("@")]
    if family_of_set is not of_family:
        raise _UnknownError
    return each


def _network(value: str | dict[str, Any]) -> Network:
    if isinstance(value, str):
        address = parse_address(value)
        return Network(address, family(address).bits)
    return parse_network(f"{value['prefix']['addr']}/{value['prefix']['len']}")


def _flags_match(left: dict[str, Any], right: Any) -> Match:  # noqa: ANN401 - any JSON
    """Return the match for one of some flags that a packet may have."""
    match left, right:
        case {"ct": {"key": "state"}}, _:
            states = right if isinstance(right, list) else [right]
            return ConnectionIs(frozenset(map(_state, states)))
        # TCPHDR_RST, net/tcp.h.
        case {"payload": {"protocol": "tcp", "field": "flags"}}, ("rst" | 4):
            return IsReset()
    raise _UnknownError


def _state(value: int | str) -> ConnectionState:
    """Return the state of the number that nft prints for it, or of the name."""
    return ConnectionState[value.upper()] if isinstance(value, str) else ConnectionState(value)


def _bit(mask: int) -> int:
    """Return the number of the only bit that is set."""
    if mask <= 0 or mask & (mask - 1):
        raise _UnknownError
    return mask.bit_length() - 1
