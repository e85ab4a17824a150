"""Rules of other programs that take service traffic out of the agent's hands before its own rules see it.

Two kinds of them do. NOTRACK keeps packets from connection tracking: they are not masqueraded, nor redirected. And of
the chains of type nat, the kernel asks those with a lower priority first, and the first translation is the last one.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.plan.firewall import BEFORE_OTHERS, TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.model.addresses import Address, Network

# NF_IP_PRI_CONNTRACK, linux/netfilter_ipv4.h: what comes later can't keep a packet from connection tracking any more.
_CONNTRACK: Final = -200
_HOOKS: Final = frozenset({"prerouting", "output"})


class ForeignRuleKind(enum.Enum):
    """What a rule does to packets."""

    NOTRACK = enum.auto()
    DESTINATION_NAT = enum.auto()


class BaseChain(NamedTuple):
    """A base chain of nftables, with nft's words for its family, its type and its hook."""

    family: str
    table: str
    name: str
    type: str
    hook: str
    priority: int


class ForeignRule(NamedTuple):
    """A rule: where it is, as `table ip raw, chain PREROUTING`, and its text in the words of its program.

    `networks` and `ports` are those of its conditions, of a source or a destination; empty if it has none that are
    understood.
    """

    kind: ForeignRuleKind
    place: str
    text: str
    networks: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()

    def may_meet(self, address: Address, port: int) -> bool:
        """Say whether packets to or from a virtual server or a real server may fit the rule."""
        return (not self.ports or port in self.ports) and (
            not self.networks or any(network.contains(address) for network in self.networks)
        )

    def __str__(self) -> str:
        """Return one sentence, without a full stop: where it is, and what it means."""
        return f"{self.place} has `{self.text}`: {_MEANINGS[self.kind]}"


_MEANINGS: Final = {
    ForeignRuleKind.NOTRACK: (
        "service traffic that fits it is not tracked, so it is neither masqueraded nor redirected to a ClusterIP"
    ),
    ForeignRuleKind.DESTINATION_NAT: (
        "it is asked before the agent's own rules, so service traffic that fits it goes where it says"
    ),
}


def kinds_in(chain: BaseChain) -> frozenset[ForeignRuleKind]:
    """Return which kinds of rules count in a base chain, or in chains that it leads to."""
    if (chain.family, chain.table) == ("inet", TABLE) or chain.hook not in _HOOKS:
        return frozenset()
    if chain.type == "nat":
        return frozenset({ForeignRuleKind.DESTINATION_NAT} if chain.priority < BEFORE_OTHERS else ())
    return frozenset({ForeignRuleKind.NOTRACK} if chain.priority < _CONNTRACK else ())


def that_meet(rules: Iterable[ForeignRule], places: Iterable[tuple[Address, int]]) -> list[ForeignRule]:
    """Return the rules that packets to or from any of these addresses and ports may fit."""
    known = list(places)
    return [rule for rule in rules if any(rule.may_meet(*place) for place in known)]
