"""The agent's chain in tables of others, written by programs that are written for the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.forwarding import Forwarding
from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.kernel.nft import Completed
from ipvsproxy.plan.forwarding import Accepting, Leftover
from ipvsproxy.plan.host_rules import Backend, BaseChain, Rule, TableName, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

JUMP = Rule(Verdict.JUMP, target="IPVSPROXY-FORWARD", text="-A FORWARD -j IPVSPROXY-FORWARD", handle=9)


class Programs:
    """What was run, and with what; programs that are `missing` can't be, and others end as `ending` says."""

    def __init__(self, missing: Sequence[str] = (), ending: Completed = Completed(0, b"", b"")) -> None:  # noqa: B008
        self.ran: list[tuple[str, str]] = []
        self._missing = missing
        self._ending = ending

    def run(self, command: Sequence[str], text: bytes) -> Completed:
        if command[0] in self._missing:
            raise KernelUnavailableError("no such program")
        self.ran.append((" ".join(command), text.decode()))
        return self._ending


def base(backend: Backend, family: str = "ip", table: str = "filter", chain: str = "FORWARD") -> BaseChain:
    return BaseChain(TableName(backend, family, table), chain, "forward", 0, policy_drops=True)


@pytest.mark.parametrize(
    ("backend", "family", "program"),
    [
        (Backend.LEGACY, "ip", "iptables-legacy-restore"),
        (Backend.LEGACY, "ip6", "ip6tables-legacy-restore"),
        (Backend.IPTABLES_NFT, "ip", "iptables-nft-restore"),
        (Backend.IPTABLES_NFT, "ip6", "ip6tables-nft-restore"),
    ],
)
def test_a_table_of_iptables_is_changed_by_its_own_program_in_one_transaction_that_keeps_all_else(
    backend: Backend, family: str, program: str
) -> None:
    programs = Programs()
    Forwarding(programs.run).accept(Accepting(base(backend, family, "mangle"), (JUMP,)), 14)
    assert programs.ran == [
        (
            f"{program} --noflush --wait 5",
            (
                "*mangle\n:IPVSPROXY-FORWARD - [0:0]\n"
                "-A IPVSPROXY-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
                "-A IPVSPROXY-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n"
                "-D FORWARD -j IPVSPROXY-FORWARD\n-I FORWARD 1 -j IPVSPROXY-FORWARD\nCOMMIT\n"
            ),
        )
    ]


def test_a_table_of_nftables_is_changed_by_nft_in_one_transaction() -> None:
    programs = Programs()
    Forwarding(programs.run).accept(Accepting(base(Backend.NFTABLES, "inet", chain="fwd"), (JUMP,)), 15)
    assert programs.ran == [
        (
            "nft -f -",
            (
                "add chain inet filter ipvsproxy-forward\nflush chain inet filter ipvsproxy-forward\n"
                "add rule inet filter ipvsproxy-forward ct state established,related accept\n"
                "add rule inet filter ipvsproxy-forward meta mark and 0x8000 == 0x8000 accept\n"
                "delete rule inet filter fwd handle 9\ninsert rule inet filter fwd jump ipvsproxy-forward\n"
            ),
        )
    ]


def test_the_chain_is_removed_with_all_that_leads_to_it() -> None:
    programs = Programs()
    forwarding = Forwarding(programs.run)
    forwarding.remove(Leftover(TableName(Backend.LEGACY, "ip6", "filter"), (("FORWARD", JUMP),)))
    forwarding.remove(Leftover(TableName(Backend.NFTABLES, "inet", "filter"), (("fwd", JUMP),)))
    assert programs.ran == [
        (
            "ip6tables-legacy-restore --noflush --wait 5",
            "*filter\n-D FORWARD -j IPVSPROXY-FORWARD\n-F IPVSPROXY-FORWARD\n-X IPVSPROXY-FORWARD\nCOMMIT\n",
        ),
        (
            "nft -f -",
            (
                "delete rule inet filter fwd handle 9\nflush chain inet filter ipvsproxy-forward\n"
                "delete chain inet filter ipvsproxy-forward\n"
            ),
        ),
    ]


def test_what_a_program_says_against_it_is_the_error() -> None:
    programs = Programs(ending=Completed(4, b"", b"Another app is currently holding the xtables lock.\n"))
    with pytest.raises(FirewallError, match="holding the xtables lock"):
        Forwarding(programs.run).accept(Accepting(base(Backend.LEGACY)), 14)


def test_the_program_of_the_plain_name_is_not_taken_in_its_place_since_its_tables_may_be_others() -> None:
    programs = Programs(missing=["iptables-legacy-restore"])
    with pytest.raises(FirewallError, match="iptables-legacy-restore is not installed"):
        Forwarding(programs.run).accept(Accepting(base(Backend.LEGACY)), 14)
    assert programs.ran == []


@pytest.mark.parametrize("name", ["fwd; flush ruleset", "f wd", "1"])
def test_nft_is_told_of_no_name_that_it_would_take_for_more_than_that(name: str) -> None:
    programs = Programs()
    for wanted in (base(Backend.NFTABLES, chain=name), base(Backend.NFTABLES, table=name)):
        with pytest.raises(FirewallError, match="such a name"):
            Forwarding(programs.run).accept(Accepting(wanted), 14)
    assert programs.ran == []
