"""What nft and iptables-save print of a host's firewall, taken apart as far as plan/host_firewall.py asks for it.

Of the statements of a rule, some have every packet go on to the next one (libnftables-json(5)), some are verdicts, and
all others, and what is not known, make the rule one for some packets only.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ipvsproxy.plan.host_firewall import ChainName, InputChain, UnconditionalRule, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_FAMILIES: Final = frozenset(("ip", "ip6", "inet"))

_VERDICTS: Final = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.REJECT,
    "return": Verdict.RETURN,
}
_FOR_EVERY_PACKET: Final = frozenset(("counter", "log", "mangle", "notrack"))

# NF_IP_PRI_FILTER and NF_IP6_PRI_FILTER.
_LEGACY_PRIORITY: Final = 0
_LEGACY_VERDICTS: Final = {name.upper(): verdict for name, verdict in _VERDICTS.items()}


class _Chain(msgspec.Struct):
    family: str
    table: str
    name: str
    type: str = ""
    hook: str = ""
    prio: int = 0
    policy: str = ""


class _Rule(msgspec.Struct):
    expr: list[dict[str, Any]] = []


class _Object(msgspec.Struct):
    """One thing of the listing, such as {"chain": {"family": "inet", …}}; those of other kinds are empty."""

    chain: _Chain | None = None
    rule: _Rule | None = None


class _Output(msgspec.Struct):
    """The output as a whole."""

    nftables: list[_Object]


_decoder = msgspec.json.Decoder(_Output)


def parse_chains(output: bytes) -> list[InputChain]:
    """Return the base chains of type filter at input that `nft -j list chains` prints.

    Raise ValueError (msgspec.DecodeError) for what is no listing.
    """
    chains = [each.chain for each in _decoder.decode(output).nftables if each.chain]
    return [
        InputChain(ChainName(chain.family, chain.table, chain.name), chain.prio, chain.policy == "drop")
        for chain in chains
        if chain.family in _FAMILIES and chain.type == "filter" and chain.hook == "input"
    ]


def parse_rules(output: bytes) -> tuple[UnconditionalRule, ...]:
    """Return the unconditional rules that `nft -j list chain FAMILY TABLE NAME` prints, in their order.

    Raise ValueError (msgspec.DecodeError) for what is no listing.
    """
    rules = (_parse_statements(each.rule.expr) for each in _decoder.decode(output).nftables if each.rule)
    return tuple(rule for rule in rules if rule)


def _parse_statements(statements: Iterable[Mapping[str, Any]]) -> UnconditionalRule | None:
    """Return the rule of these statements; None if it is conditional or has no verdict."""
    for statement in statements:
        match statement:
            case {"jump": {"target": str(target)}}:
                return UnconditionalRule(Verdict.JUMP, target)
            case {"goto": {"target": str(target)}}:
                return UnconditionalRule(Verdict.GOTO, target)
            # What iptables has and nft lacks, or does not recognise.
            case {"xt": {"type": "target", "name": "REJECT"}}:
                return UnconditionalRule(Verdict.REJECT)
            case {"xt": {"type": "match", "name": "comment"}}:
                continue
        (kind,) = statement
        if kind in _VERDICTS:
            return UnconditionalRule(_VERDICTS[kind])
        if kind not in _FOR_EVERY_PACKET:
            return None
    return None


class LegacyTable(NamedTuple):
    """The filter table of iptables-legacy: its chain INPUT, and the unconditional rules of all its chains."""

    input: InputChain
    rules: Mapping[ChainName, Sequence[UnconditionalRule]]


def parse_save(text: str, family: str) -> LegacyTable:
    """Return the table that `iptables-legacy-save -t filter` prints; ValueError for other text."""
    policies: dict[str, str] = {}
    rules: dict[ChainName, list[UnconditionalRule]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            policies[chain] = policy
        elif line.startswith("-A "):
            _, chain, *options = shlex.split(line)
            rule = _parse_options(options)
            if rule:
                rules.setdefault(ChainName(family, "filter", chain), []).append(rule)
    if "INPUT" not in policies:
        raise ValueError("there is no chain INPUT")
    base = ChainName(family, "filter", "INPUT")
    return LegacyTable(InputChain(base, _LEGACY_PRIORITY, policies["INPUT"] == "DROP"), rules)


def _parse_options(options: Sequence[str]) -> UnconditionalRule | None:
    """Return the rule of these options of iptables; None if it is conditional or has no verdict."""
    match options:
        case ["-m", "comment", "--comment", _, *rest]:
            return _parse_options(rest)
        case ["-g", target]:
            return UnconditionalRule(Verdict.GOTO, target)
        case ["-j", target, *_] if target in _LEGACY_VERDICTS:
            return UnconditionalRule(_LEGACY_VERDICTS[target])
        # A chain has no options; an extension such as LOG that has none either leads to a chain without rules.
        case ["-j", target]:
            return UnconditionalRule(Verdict.JUMP, target)
    return None
