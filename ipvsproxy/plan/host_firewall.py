"""Whether a firewall of the host drops service traffic: what becomes of a packet at input that no condition fits.

A packet to a service address is for the node itself, and passes every base chain of nftables at the input hook before
IPVS has it. Such a chain drops it for good, whatever the others say, ours included: `accept` ends that one chain only.

A chain is found to drop if it drops or rejects what none of its conditional rules settle: by its policy, by a rule
without conditions, or by one in a chain that a rule without conditions leads to. Whether a conditional rule of it
accepts the traffic of all Services is for the host's operator to know, not to be followed from here.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.plan.firewall import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# NF_INET_LOCAL_IN in net/netfilter/ipvs/ip_vs_core.c: NF_IP_PRI_NAT_SRC - 1, where IPVS takes packets to services.
IPVS_PRIORITY: Final = 99

# linux/netfilter/nf_tables.h NFT_JUMP_STACK_SIZE; only a ruleset that changes while it is read can exceed it.
_DEEPEST_JUMP: Final = 16


class Backend(enum.StrEnum):
    """Who has a table: nf_tables, also by way of iptables-nft, or the older ip_tables, which nft does not show."""

    NFTABLES = "nftables"
    LEGACY = "iptables-legacy"


class ChainName(NamedTuple):
    """A chain; `family` is nft's, `ip`, `ip6` or `inet`."""

    family: str
    table: str
    chain: str


class InputChain(NamedTuple):
    """A base chain of type filter at the input hook."""

    name: ChainName
    priority: int
    policy_drops: bool


class Verdict(enum.Enum):
    """What a rule says of every packet that comes to it."""

    ACCEPT = enum.auto()
    DROP = enum.auto()
    REJECT = enum.auto()
    RETURN = enum.auto()
    JUMP = enum.auto()
    GOTO = enum.auto()


class UnconditionalRule(NamedTuple):
    """A rule with a verdict and without conditions; `target` is the chain that JUMP and GOTO lead to."""

    verdict: Verdict
    target: str = ""


class HostFirewallFinding(NamedTuple):
    """A chain that drops what no condition of it fits; `why` is a phrase such as `policy drop`."""

    backend: Backend
    family: str
    table: str
    chain: str
    priority: int
    why: str

    def __str__(self) -> str:
        """Return one sentence, without a full stop: what drops, why, and what to do."""
        return (
            f"{self.meaning}; accept traffic to service addresses and node ports there, as in `{self.mend}`"
        )

    @property
    def meaning(self) -> str:
        """What drops, and why: a sentence without a full stop."""
        return (
            f"chain {self.chain} of table {self.family} {self.table} ({self.backend}, input hook, "
            f"priority {self.priority}) drops what no rule of it accepts, service traffic included: {self.why}"
        )

    @property
    def mend(self) -> str:
        """A command that lets service traffic in."""
        ipv6 = self.family == "ip6"
        # iptables names its chain so, and can't read what nft writes into it.
        if self.chain == "INPUT":
            program = "ip6tables" if ipv6 else "iptables"
            suffix = "-legacy" if self.backend is Backend.LEGACY else ""
            return f"{program}{suffix} -I INPUT -d SERVICE-CIDR -j ACCEPT"
        destination = "ip6 daddr" if ipv6 else "ip daddr"
        place = f"{self.family} {self.table} {self.chain}"
        return f"nft insert rule {place} {destination} SERVICE-CIDR accept"


def find_drops(
    backend: Backend,
    chains: Iterable[InputChain],
    rules_of: Callable[[ChainName], Sequence[UnconditionalRule]],
) -> Iterator[HostFirewallFinding]:
    """Yield what drops, of the base chains before IPVS that are not the agent's own.

    `rules_of` returns the unconditional rules of a chain in their order. It is asked for the base chains, and for those
    that unconditional rules lead to as long as nothing else says what becomes of a packet.
    """
    for base in chains:
        if base.name[:2] == ("inet", TABLE) or base.priority >= IPVS_PRIORITY:
            continue
        why = _why_dropped(base, rules_of)
        if why:
            yield HostFirewallFinding(backend, *base.name, base.priority, why)


def _why_dropped(base: InputChain, rules_of: Callable[[ChainName], Sequence[UnconditionalRule]]) -> str:
    """Return the phrase for a finding; "" for none."""
    end = next((rule.verdict for rule in rules_of(base.name) if rule.verdict is not Verdict.JUMP), None)
    if base.policy_drops and end not in {Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT}:
        return "policy drop"
    dropped = _find_drop(base.name, rules_of, _DEEPEST_JUMP)
    if dropped is None:
        return ""
    verdict, name = dropped
    place = "" if name == base.name else f" in chain {name.chain}, which it leads to"
    return f"ends with {verdict.name.lower()}{place}"


def _find_drop(
    chain: ChainName, rules_of: Callable[[ChainName], Sequence[UnconditionalRule]], deepest: int
) -> tuple[Verdict, ChainName] | None:
    """Return what drops every packet that comes to it, and where; None if nothing does.

    The chain's own drop counts before those that it jumps to, of which the last is the likeliest.
    """
    jumps: list[str] = []
    for verdict, target in rules_of(chain):
        if verdict in {Verdict.DROP, Verdict.REJECT}:
            return verdict, chain
        if target:
            jumps.append(target)
        if verdict is not Verdict.JUMP:
            break
    if deepest:
        for target in reversed(jumps):
            found = _find_drop(chain._replace(chain=target), rules_of, deepest - 1)
            if found:
                return found
    return None
