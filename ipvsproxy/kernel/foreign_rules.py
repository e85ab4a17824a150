"""The rules of other programs that plan/foreign_rules.py is about, read by nft and iptables-legacy-save.

nft shows what iptables-nft wrote, too. The text of a rule is searched, not followed: what is found may fit some packets
only, and in a chain that nothing leads to, none.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.kernel.iptables import LEGACY_FAMILIES, Iptables, completed, legacy_tables
from ipvsproxy.kernel.nft import run_nft
from ipvsproxy.model.addresses import parse_address, parse_network
from ipvsproxy.plan.foreign_rules import BaseChain, ForeignRule, ForeignRuleKind, kinds_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ipvsproxy.kernel.nft import Completed
    from ipvsproxy.model.addresses import Network

_LIST_CHAINS: Final = ("nft", "-j", "-n", "list", "chains")
_LIST_TABLE: Final = ("nft", "-n", "-t", "list", "table")
# In nft's language, and what it prints for targets of iptables that it has no words for.
_STATEMENTS: Final = {
    ForeignRuleKind.NOTRACK: re.compile(r"\bnotrack\b|\bxt target \"?CT\b"),
    ForeignRuleKind.DESTINATION_NAT: re.compile(r"\b(dnat|redirect)\b|\bxt target \"?(DNAT|REDIRECT)\b"),
}
_LEGACY_NOTRACK: Final = re.compile(r"-j (NOTRACK|CT --notrack)\b")
_CHAIN: Final = re.compile(r"\tchain (\S+) \{")
_COUNTER: Final = re.compile(r" counter packets \d+ bytes \d+")
_DESTINATION: Final = re.compile(r"(?:\bdaddr |-d )([0-9a-fA-F.:]+(?:/\d+)?)(?= |$)")
_SOURCE: Final = re.compile(r"(?:\bsaddr |-s )([0-9a-fA-F.:]+(?:/\d+)?)(?= |$)")
_PORT: Final = re.compile(r"(?:\b[sd]port |--[sd]port )(\d+)(?= |$)")
_SOURCE_PORT: Final = re.compile(r"\bsport |--sport ")
_NEGATED: Final = re.compile(r"!=|! ")


class ForeignRules(NamedTuple):
    """What was found, and sentences, without a full stop, about what could not be looked at."""

    rules: tuple[ForeignRule, ...] = ()
    unseen: tuple[str, ...] = ()


NO_FOREIGN_RULES: Final = ForeignRules()


class _Chain(msgspec.Struct):
    family: str
    table: str
    name: str
    type: str = ""
    hook: str = ""
    prio: int = 0


class _Object(msgspec.Struct):
    chain: _Chain | None = None


class _Output(msgspec.Struct):
    nftables: list[_Object]


_decoder = msgspec.json.Decoder(_Output)


def read_foreign_rules(
    run: Callable[[Sequence[str], bytes], Completed] = run_nft,
    proc_net: Path = Path("/proc/thread-self/net"),
) -> ForeignRules:
    """Look at the rules of the calling thread's network namespace; what can't be found out is said."""
    rules: list[ForeignRule] = []
    unseen: list[str] = []
    for look in (
        partial(_of_nftables, run),
        *(partial(_of_legacy, run, proc_net, each) for each in LEGACY_FAMILIES),
    ):
        try:
            rules += look()
        except (FirewallError, KernelUnavailableError, OSError, ValueError) as error:
            unseen.append(f"rules that come before the agent's own can't be looked for: {error}")
    return ForeignRules(tuple(rules), tuple(unseen))


def _of_nftables(run: Callable[[Sequence[str], bytes], Completed]) -> Iterator[ForeignRule]:
    chains = [
        each.chain
        for each in _decoder.decode(completed(run(_LIST_CHAINS, b""), "nft")).nftables
        if each.chain
    ]
    wanted: dict[tuple[str, str], frozenset[ForeignRuleKind]] = {}
    for chain in chains:
        base = BaseChain(chain.family, chain.table, chain.name, chain.type, chain.hook, chain.prio)
        wanted[base[:2]] = wanted.get(base[:2], frozenset()) | kinds_in(base)
    for (family, table), kinds in wanted.items():
        if kinds:
            listed = completed(run((*_LIST_TABLE, family, table), b""), "nft")
            yield from _in_table(listed.decode(errors="replace"), f"table {family} {table}", kinds)


def _in_table(text: str, table: str, kinds: frozenset[ForeignRuleKind]) -> Iterator[ForeignRule]:
    chain = ""
    for line in text.splitlines():
        head = _CHAIN.match(line)
        chain = head[1] if head else chain
        for kind in kinds:
            if _STATEMENTS[kind].search(line):
                rule = _COUNTER.sub("", line.strip())
                yield ForeignRule(kind, f"chain {chain} of {table}", rule, *_conditions(rule))


def _of_legacy(
    run: Callable[[Sequence[str], bytes], Completed], proc_net: Path, family: str
) -> Iterator[ForeignRule]:
    for table in legacy_tables(proc_net, family):
        if table.name != "raw":
            continue
        for line in Iptables(run).save(table).splitlines():
            if _LEGACY_NOTRACK.search(line):
                _, chain, rule = line.split(" ", 2)
                place = f"chain {chain} of {table}"
                yield ForeignRule(ForeignRuleKind.NOTRACK, place, rule, *_conditions(rule))


def _conditions(rule: str) -> tuple[tuple[Network, ...], tuple[int, ...]]:
    """Return the networks and ports that the rule is for; none where it is for all but some."""
    if _NEGATED.search(rule):
        return (), ()
    addresses = _DESTINATION.findall(rule)
    # Who sends from a port of a Service or an endpoint answers; any other source is a client, whoever that may be.
    if _SOURCE_PORT.search(rule):
        addresses += _SOURCE.findall(rule)
    return tuple(map(_network, addresses)), tuple(int(port) for port in _PORT.findall(rule))


def _network(text: str) -> Network:
    if "/" in text:
        return parse_network(text)
    return parse_network(f"{text}/{8 * len(parse_address(text))}")
