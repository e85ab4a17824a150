"""Which rules the tracer can follow. It refuses all others, whether a packet meets them or not.

A rule is also refused where the kernel would not take it (nft_masq.c, nft_nat.c, nft_reject.c), or where what it does
depends on what the tracer does not know: the routes of the node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.model.firewall import MAPS, named_source_list
from ipvsproxy.model.objects import Protocol
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

    from ipvsproxy.plan.rules import Chain, Hook, Match, Rule, Statement

HOOKS = ("prerouting", "input", "output", "postrouting")
LOOPBACK = "lo"

# The verdicts that are known, with the words for what they do.
EFFECTS: Mapping[Verdict, str] = {
    Verdict.RETURN: "accepted",
    Verdict.MASQUERADE: "the source becomes an address of the node",
    Verdict.DROP: "dropped",
    Verdict.REJECT_WITH_RESET: "refused with a TCP reset",
    Verdict.REJECT_WITH_ICMP: "refused with an ICMP error",
}

_MATCHES: frozenset[type] = frozenset(
    {
        ArrivesBy,
        ConnectionIs,
        DestinationIsLocal,
        FieldsInSet,
        IsReset,
        LeavesByOtherThan,
        Marked,
        ProtocolIs,
        SourceIn,
        SourceListed,
    }
)
_STATEMENTS: frozenset[type] = frozenset(
    {AskSourceList, ClearMark, GoTo, KeepDestination, SetDestination, SetMark, Verdict}
)
_COMPARABLE: Mapping[Field, frozenset[FieldType]] = {
    Field.SOURCE: frozenset({FieldType.ADDRESS}),
    Field.DESTINATION: frozenset({FieldType.ADDRESS}),
    Field.PROTOCOL: frozenset({FieldType.PROTOCOL}),
    Field.SOURCE_PORT: frozenset({FieldType.PORT}),
    Field.DESTINATION_PORT: frozenset({FieldType.PORT}),
}


class UnknownRuleError(IpvsProxyError):
    """The table has a rule that the tracer can't follow; the message names its chain and its duty."""


class Problem(NamedTuple):
    """What the tracer can't follow: a rule of a chain, or the chain as a whole if that is None, and why."""

    chain: str
    rule: Rule | None
    why: str

    def __str__(self) -> str:
        """Return one line: `chain CHAIN, rule 'DUTY': WHY`."""
        rule = f", rule {self.rule.duty!r}" if self.rule else ""
        return f"chain {self.chain}{rule}: {self.why}"


def check_chains(chains: Iterable[Chain]) -> None:
    """Raise UnknownRuleError unless the tracer can follow every rule of the chains, wherever packets come from."""
    for problem in _find(list(chains)):
        raise UnknownRuleError(str(problem))


def leave_out(chains: Iterable[Chain]) -> tuple[tuple[Chain, ...], tuple[Problem, ...]]:
    """Return the chains without what the tracer can't follow, and what that is, each once.

    A trace through what is left is true of a packet only if all that was left out lets it pass.
    """
    left = tuple(chains)
    problems = tuple(dict.fromkeys(_find(left)))
    rules = {problem[:2] for problem in problems}
    left = tuple(
        chain._replace(rules=tuple(rule for rule in chain.rules if (chain.name, rule) not in rules))
        for chain in left
        if (chain.name, None) not in rules
    )
    return left, problems


def _find(chains: Sequence[Chain]) -> Iterator[Problem]:
    """Yield what the tracer can't follow, the rules of a chain once for each way that leads there."""
    by_name = {chain.name: chain for chain in chains}
    for chain in by_name.values():
        if chain.hook is None:
            continue
        if chain.hook.name not in HOOKS or chain.hook.type not in {"filter", "nat"}:
            yield Problem(chain.name, None, f"the tracer does not know {chain.hook}")
        else:
            yield from _find_in_chain((chain,), chain.hook, by_name)


def _find_in_chain(way: Sequence[Chain], hook: Hook, chains: Mapping[str, Chain]) -> Iterator[Problem]:
    """Look at the last chain of the way that leads from a hook to it, and at all that it leads to."""
    chain = way[-1]
    for rule in chain.rules:
        yield from (Problem(chain.name, rule, what) for what in _problems(rule, hook))
        if isinstance(rule.statement, GoTo):
            target = chains.get(rule.statement.chain)
            if target is None or target.hook is not None or target in way:
                yield Problem(chain.name, rule, f"{rule.statement.chain} is no chain to go to")
            else:
                yield from _find_in_chain((*way, target), hook, chains)
        elif isinstance(rule.statement, AskSourceList):
            for target in chains.values():
                if target not in way and named_source_list(target.name):
                    yield from _find_in_chain((*way, target), hook, chains)


def _problems(rule: Rule, hook: Hook) -> Iterator[str]:
    for match in rule.matches:
        yield from _problems_of_match(match, hook)
    yield from _problems_of_statement(rule.statement, rule.matches, hook)


def _problems_of_match(match: Match, hook: Hook) -> Iterator[str]:
    if type(match) not in _MATCHES:
        yield f"the tracer does not know {match!r}"
    elif isinstance(match, FieldsInSet):
        if match.set in MAPS or not _comparable(match.fields, SETS[match.set]):
            yield f"the elements of {match.set} have other fields than {match!r}"
    elif isinstance(match, ArrivesBy):
        if hook.name == "postrouting":
            yield "not every kernel says at postrouting by what a packet arrived"
    elif isinstance(match, LeavesByOtherThan):
        if hook.name != "postrouting":
            yield "what a packet leaves by is settled at postrouting"
        if match.interface != LOOPBACK:
            yield f"the tracer knows no routes, and so of no interface but {LOOPBACK} what leaves by it"


def _problems_of_statement(  # noqa: C901 - one for each shape
    statement: Statement, matches: Sequence[Match], hook: Hook
) -> Iterator[str]:
    if type(statement) not in _STATEMENTS or (isinstance(statement, Verdict) and statement not in EFFECTS):
        yield f"the tracer does not know {statement!r}"
    elif statement is Verdict.MASQUERADE:
        if hook[:2] != ("nat", "postrouting"):
            yield "only a nat chain at postrouting masquerades"
    elif statement in {Verdict.REJECT_WITH_RESET, Verdict.REJECT_WITH_ICMP}:
        if hook.name == "postrouting":
            yield "what leaves can't be refused any more"
        if statement is Verdict.REJECT_WITH_RESET and ProtocolIs(Protocol.TCP) not in matches:
            yield "only TCP knows a reset"
    elif isinstance(statement, AskSourceList):
        if not _is_map_to(statement, FieldType.SOURCE_LIST):
            yield f"{statement.map} is no map of source lists, or one of other fields than {statement!r}"
    elif isinstance(statement, SetDestination | KeepDestination):
        if hook.type != "nat" or hook.name not in {"prerouting", "output"}:
            yield "only a nat chain at prerouting or output settles the destination"
        if isinstance(statement, SetDestination) and not _is_map_to(
            statement, FieldType.ADDRESS, FieldType.PORT
        ):
            yield f"{statement.map} is no map, or one of other fields than {statement!r}"


def _is_map_to(statement: SetDestination | AskSourceList, *values: FieldType) -> bool:
    """Say whether the statement asks a map with values of these types for fields that it has."""
    types = SETS[statement.map]
    return (
        statement.map in MAPS and types[MAP_KEY:] == values and _comparable(statement.fields, types[:MAP_KEY])
    )


def _comparable(fields: Sequence[Field], types: Sequence[FieldType]) -> bool:
    """Say whether a packet's fields can be compared with fields of these types, one by one."""
    return len(fields) == len(types) and all(
        of_type in _COMPARABLE[field] for field, of_type in zip(fields, types, strict=True)
    )
