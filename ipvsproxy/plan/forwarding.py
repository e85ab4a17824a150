"""How answers of endpoints pass a host whose firewall drops what it forwards: by a chain of the agent's own in it.

The answers of endpoints pass the forward hook. A base chain that drops them there does so for good, whatever other
tables say. kube-proxy brings a rule that accepts them, in its chain KUBE-FORWARD. The agent brings a chain of its own
and one rule that leads to it, ahead of all others, into each table that needs it. Rules of others are never changed.

Whether a table needs it is judged without the agent's own chain, and without KUBE-FORWARD, which goes with kube-proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.host_firewall import FORWARD
from ipvsproxy.plan.host_rules import (
    DROPS,
    SOME_INTERFACE,
    Backend,
    Condition,
    Field,
    Masked,
    State,
    Verdict,
    judge,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipvsproxy.plan.host_rules import (
        BaseChain,
        HostTables,
        Rule,
        TableName,
    )

CHAINS: Final = {
    Backend.LEGACY: "IPVSPROXY-FORWARD",
    Backend.IPTABLES_NFT: "IPVSPROXY-FORWARD",
    Backend.NFTABLES: "ipvsproxy-forward",
}
"""The name of the agent's chain in a table of others."""
_KUBE_PROXYS: Final = "KUBE-FORWARD"

_ACCEPTED_STATES: Final = frozenset({State.ESTABLISHED, State.RELATED})


class Accepting(NamedTuple):
    """A table that has the agent's chain, or is to have it.

    `base` is the base chain at forward that leads to it. `jumps` are the rules that lead to it now.
    """

    base: BaseChain
    jumps: tuple[Rule, ...] = ()

    @property
    def chain(self) -> str:
        """The name of the agent's chain."""
        return CHAINS[self.base.table.backend]

    def __str__(self) -> str:
        """Return `chain IPVSPROXY-FORWARD of table ip filter (iptables-legacy)`."""
        return f"chain {self.chain} of {self.base.table}"


class Leftover(NamedTuple):
    """The agent's chain in a table, and the rules of that table that lead to it, each with the chain that it is in."""

    table: TableName
    jumps: tuple[tuple[str, Rule], ...]

    @property
    def chain(self) -> str:
        """The name of the agent's chain."""
        return CHAINS[self.table.backend]

    def __str__(self) -> str:
        """Return `chain IPVSPROXY-FORWARD of table ip filter (iptables-legacy)`."""
        return f"chain {self.chain} of {self.table}"


def find_missing(tables: HostTables, masquerade_bit: int) -> list[Accepting]:
    """Return where the agent's chain is needed, and is missing, not as it should be, or behind what drops."""
    missing = []
    for base in dict.fromkeys(each for of in Family for each in tables.at(FORWARD, of)):
        if _drops(tables, base, with_ours=False):
            content = tables.rules.get((base.table, CHAINS[base.table.backend]), ())
            if not _is_right(content, masquerade_bit) or _drops(tables, base, with_ours=True):
                missing.append(Accepting(base, tuple(_jumps(tables, base.table, base.chain))))
    return missing


def find_ours(tables: HostTables) -> list[Leftover]:
    """Return where the agent's chain is."""
    return [
        Leftover(
            table,
            tuple(
                (of, rule)
                for (of_table, of) in tables.rules
                if of_table == table
                for rule in _jumps(tables, table, of)
            ),
        )
        for table, chain in tables.rules
        if chain == CHAINS[table.backend]
    ]


def _jumps(tables: HostTables, table: TableName, chain: str) -> list[Rule]:
    return [rule for rule in tables.rules.get((table, chain), ()) if rule.target == CHAINS[table.backend]]


def _drops(tables: HostTables, base: BaseChain, *, with_ours: bool) -> bool:
    """Say whether an answer is dropped as far as can be judged, without kube-proxy's chain."""
    left_out = {_KUBE_PROXYS} if with_ours else {_KUBE_PROXYS, CHAINS[base.table.backend]}
    return any(
        judge(
            tables,
            base,
            {
                Field.FAMILY: of,
                Field.PROTOCOL: protocol,
                Field.STATE: State.ESTABLISHED,
                Field.ARRIVES_BY: SOME_INTERFACE,
                Field.LEAVES_BY: SOME_INTERFACE,
            },
            lambda rule: rule.target in left_out,
        ).default.verdict
        in DROPS
        for of in Family
        if base.table.has(of)
        for protocol in Protocol
    )


def _is_right(content: Sequence[Rule], masquerade_bit: int) -> bool:
    """Say whether the agent's chain has the two rules that it should have."""
    bit = 1 << masquerade_bit
    if len(content) != 2 or any(rule.verdict is not Verdict.ACCEPT for rule in content):  # noqa: PLR2004 - see above
        return False
    answers, marked = (rule.conditions for rule in content)
    return (
        len(answers) == 1
        and answers[0].field is Field.STATE
        and answers[0].inside
        and frozenset(answers[0].values) == _ACCEPTED_STATES
        and marked == (Condition(Field.MARK, (Masked(bit, bit),)),)
    )
