"""The rules of the host's own firewall, and what they do with a packet of which not everything is known.

A rule is judged in three values: it holds for the packet, it does not, or that can't be told, because the rule asks for
something that is not known of the packet, or in words that are not known here. So a chain may have several possible
ends for a packet, and it drops the packet for certain if each of them does.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ipvsproxy.model.addresses import Address, Family, Network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# linux/netfilter/nf_tables.h NFT_JUMP_STACK_SIZE; only a ruleset that changes while it is read can exceed it.
_DEEPEST_JUMP: Final = 16

SOME_INTERFACE: Final = "?"
"""In place of the name of an interface: one that is not known, but is not the loopback interface."""
_LOOPBACK: Final = "lo"


class Backend(enum.StrEnum):
    """What made a table, and so which program reads and changes it."""

    NFTABLES = "nftables"
    IPTABLES_NFT = "iptables-nft"
    LEGACY = "iptables-legacy"


class TableName(NamedTuple):
    """A table; `family` is nft's, `ip`, `ip6` or `inet`."""

    backend: Backend
    family: str
    name: str

    def __str__(self) -> str:
        """Return `table ip filter (iptables-legacy)`."""
        return f"table {self.family} {self.name} ({self.backend})"

    def has(self, family: Family) -> bool:
        """Say whether packets of the family pass the table."""
        return self.family in {"inet", "ip6" if family is Family.IPV6 else "ip"}


class Field(enum.Enum):
    """What a rule may ask of a packet.

    FAMILY is a Family, PROTOCOL a number of IANA's, SOURCE and DESTINATION are addresses, the ports numbers, ARRIVES_BY
    and LEAVES_BY names of interfaces, "" for none, STATE is a State, and DESTINATION_TYPE `local` or `unicast`, in the
    words of ip-route(8). The MARK of a packet is never known.
    """

    FAMILY = enum.auto()
    PROTOCOL = enum.auto()
    SOURCE = enum.auto()
    DESTINATION = enum.auto()
    SOURCE_PORT = enum.auto()
    DESTINATION_PORT = enum.auto()
    ARRIVES_BY = enum.auto()
    LEAVES_BY = enum.auto()
    STATE = enum.auto()
    DESTINATION_TYPE = enum.auto()
    MARK = enum.auto()


class State(enum.StrEnum):
    """What connection tracking says of a packet. A packet of one of the last two states has one of the others, too."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    UNTRACKED = "untracked"
    SNAT = "snat"
    DNAT = "dnat"


class Masked(NamedTuple):
    """All numbers that have `value` in the bits of `mask`."""

    mask: int
    value: int


Known: TypeAlias = Address | int | str
"""The value of a field."""
Values: TypeAlias = Network | range | Masked | int | str
"""One or several values of a field; a name of interfaces may end with `*`."""
Packet: TypeAlias = Mapping[Field, Known]
"""What is known of a packet."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The field has one of the values, or none of them if not `inside`. What can't be understood has no field."""

    field: Field | None = None
    values: tuple[Values, ...] = ()
    inside: bool = True

    def holds(self, packet: Packet) -> bool | None:
        """Say whether it holds for the packet; None if that can't be told."""
        known = packet.get(self.field) if self.field else None
        if known is None:
            return None
        found = {_is_among(known, values) for values in self.values}
        if True in found:
            return self.inside
        return None if None in found else not self.inside


UNKNOWN: Final = Condition()


def _is_among(known: Known, values: Values) -> bool | None:  # noqa: PLR0911 - one for each kind
    match known, values:
        case bytes(), Network():
            return values.contains(Address(known))
        case int(), range():
            return known in values
        case str(), (State.SNAT | State.DNAT):
            return None
        case str(), "*":
            return True
        case "?", str():
            return False if values == _LOOPBACK else None
        case str(), str() if values.endswith("*"):
            return known.startswith(values[:-1])
    return known == values


class Verdict(enum.Enum):
    """What a rule does with a packet for which it holds; OTHER has the packet decided on elsewhere, as `queue` does."""

    ACCEPT = enum.auto()
    DROP = enum.auto()
    REJECT = enum.auto()
    RETURN = enum.auto()
    JUMP = enum.auto()
    GOTO = enum.auto()
    OTHER = enum.auto()


DROPS: Final = frozenset({Verdict.DROP, Verdict.REJECT})
_LEADING: Final = frozenset({Verdict.JUMP, Verdict.GOTO})


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with a verdict.

    `target` is the chain that JUMP and GOTO lead to. `text` is the rule as its program prints it, `handle` nft's number
    of it, 0 for a rule of iptables.
    """

    verdict: Verdict
    conditions: tuple[Condition, ...] = ()
    target: str = ""
    text: str = ""
    handle: int = 0

    def holds(self, packet: Packet) -> bool | None:
        """Say whether all conditions hold for the packet; None if that can't be told."""
        found = {condition.holds(packet) for condition in self.conditions}
        return False if False in found else None if None in found else True


class BaseChain(NamedTuple):
    """A chain at a hook."""

    table: TableName
    chain: str
    hook: str
    priority: int
    policy_drops: bool = False
    type: str = "filter"

    def __str__(self) -> str:
        """Return `chain INPUT of table ip filter (iptables-legacy)`."""
        return f"chain {self.chain} of {self.table}"


class HostTables(NamedTuple):
    """The tables of the host: the base chains of each hook, and the rules of all chains."""

    base_chains: tuple[BaseChain, ...] = ()
    rules: Mapping[tuple[TableName, str], Sequence[Rule]] = {}

    def at(self, hook: str, family: Family) -> list[BaseChain]:
        """Return the base chains at a hook that packets of the family pass."""
        return [each for each in self.base_chains if each.hook == hook and each.table.has(family)]


class End(NamedTuple):
    """One possible end of a packet: by a rule of a chain, or by the policy of the base chain, where `rule` is None.

    `perhaps` is the rule that can't be judged, and by which the packet comes to this end if it holds. One end has none:
    that of a packet for which no such rule holds.
    """

    verdict: Verdict
    chain: str
    rule: Rule | None = None
    perhaps: Rule | None = None

    @property
    def why(self) -> str:
        """Return what settles it as a phrase."""
        return f"rule `{self.rule.text}` of chain {self.chain}" if self.rule else "policy drop"


class Judgement(NamedTuple):
    """All possible ends of a packet at a base chain."""

    ends: tuple[End, ...]

    @property
    def drops(self) -> bool:
        """Whether the packet is dropped or refused for certain."""
        return all(end.verdict in DROPS for end in self.ends)

    @property
    def passes(self) -> bool:
        """Whether the packet passes for certain."""
        return all(end.verdict is Verdict.ACCEPT for end in self.ends)

    @property
    def default(self) -> End:
        """What comes of the packet if no rule holds that can't be judged."""
        return next(end for end in self.ends if end.perhaps is None)

    @property
    def undecided(self) -> tuple[Rule, ...]:
        """The rules that can't be judged, and that may make another end of it than the default."""
        default = self.default.verdict in DROPS
        others = (
            end.perhaps or end.rule
            for end in self.ends
            if end.verdict is Verdict.OTHER or (end.verdict in DROPS) is not default
        )
        return tuple(dict.fromkeys(rule for rule in others if rule))


def judge(
    tables: HostTables, base: BaseChain, packet: Packet, but: Callable[[Rule], bool] = lambda _: False
) -> Judgement:
    """Return the possible ends of a packet at a base chain, without the rules that `but` is true for."""
    walk = _Walk(tables, base.table, packet, but)
    out = walk.follow(base.chain, None, _DEEPEST_JUMP)
    if out.possible:
        verdict = Verdict.DROP if base.policy_drops else Verdict.ACCEPT
        walk.ends.append(End(verdict, base.chain, perhaps=out.perhaps))
    return Judgement(tuple(walk.ends))


class _Out(NamedTuple):
    """Whether a packet may come out of a chain at its end, and by which rule, None if by no doubtful one."""

    possible: bool
    perhaps: Rule | None = None


class _Walk:
    def __init__(
        self, tables: HostTables, table: TableName, packet: Packet, but: Callable[[Rule], bool]
    ) -> None:
        self.ends: list[End] = []
        self._rules = tables.rules
        self._table = table
        self._packet = packet
        self._but = but
        # What became of a packet that may have come to a chain: one end of each kind, and whether it may come out.
        self._known: dict[str, tuple[list[End], bool]] = {}

    def follow(self, chain: str, perhaps: Rule | None, deepest: int) -> _Out:
        """Lead a packet through a chain, in which it is by the rule `perhaps`, None if it certainly is."""
        if deepest < 0:
            return _Out(possible=True, perhaps=perhaps)
        if perhaps is None:
            return self._pass(chain, None, deepest)
        if chain not in self._known:
            before = len(self.ends)
            out = self._pass(chain, perhaps, deepest)
            kinds = {end.verdict: end for end in self.ends[before:]}
            self._known[chain] = list(kinds.values()), out.possible
        ends, possible = self._known[chain]
        self.ends += (end._replace(perhaps=perhaps) for end in ends)
        return _Out(possible, perhaps)

    def _pass(self, chain: str, perhaps: Rule | None, deepest: int) -> _Out:
        # The rule by which the packet may have come out before the end.
        early: Rule | None = None
        for rule in self._rules.get((self._table, chain), ()):
            holds = False if self._but(rule) else rule.holds(self._packet)
            if holds is False:
                continue
            doubt = perhaps or (None if holds else rule)
            out = _Out(possible=False)
            if rule.verdict in _LEADING:
                out = self.follow(rule.target, doubt, deepest - 1)
            elif rule.verdict is Verdict.RETURN:
                out = _Out(possible=True, perhaps=doubt)
            else:
                self.ends.append(End(rule.verdict, chain, rule, doubt))
            goes_on = rule.verdict is Verdict.JUMP
            if not holds:
                early = early or (doubt if out.possible and not goes_on else None)
            elif not goes_on or not out.possible:
                return out if out.possible else _Out(early is not None, early)
            else:
                perhaps = out.perhaps
        return _Out(possible=True, perhaps=perhaps)
