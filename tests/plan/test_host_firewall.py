"""What of a host's firewall drops service traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.plan.host_firewall import (
    Backend,
    ChainName,
    HostFirewallFinding,
    InputChain,
    UnconditionalRule,
    Verdict,
    find_drops,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

INPUT = ChainName("inet", "filter", "input")
ACCEPT, DROP, REJECT, RETURN = map(
    UnconditionalRule, (Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT, Verdict.RETURN)
)


def jump(target: str) -> UnconditionalRule:
    return UnconditionalRule(Verdict.JUMP, target)


def goto(target: str) -> UnconditionalRule:
    return UnconditionalRule(Verdict.GOTO, target)


class Ruleset:
    """The chains of one table by name; `listed` are those that were asked for."""

    def __init__(self, chains: Mapping[str, Sequence[UnconditionalRule]]) -> None:
        self._chains = chains
        self.listed: list[str] = []

    def rules_of(self, name: ChainName) -> Sequence[UnconditionalRule]:
        assert name[:2] == INPUT[:2]
        self.listed.append(name.chain)
        return self._chains.get(name.chain, ())

    def found(self, *, policy_drops: bool = False) -> list[str]:
        base = InputChain(INPUT, 0, policy_drops)
        return [each.why for each in find_drops(Backend.NFTABLES, [base], self.rules_of)]


def found(
    *rules: UnconditionalRule, policy_drops: bool = False, **chains: Sequence[UnconditionalRule]
) -> list[str]:
    return Ruleset({"input": rules} | chains).found(policy_drops=policy_drops)


def test_a_chain_that_accepts_what_its_conditions_leave_is_no_finding() -> None:
    assert found() == []
    assert found(ACCEPT) == []
    assert found(RETURN, DROP) == []


def test_a_policy_that_drops_is_a_finding() -> None:
    assert found(policy_drops=True) == ["policy drop"]
    assert found(RETURN, ACCEPT, policy_drops=True) == ["policy drop"]


def test_a_policy_that_drops_what_a_rule_accepts_before_is_no_finding() -> None:
    assert found(ACCEPT, policy_drops=True) == []


@pytest.mark.parametrize(("rule", "why"), [(DROP, "ends with drop"), (REJECT, "ends with reject")])
@pytest.mark.parametrize("policy_drops", [False, True])
def test_a_last_rule_that_drops_is_a_finding_whatever_the_policy(
    rule: UnconditionalRule, why: str, *, policy_drops: bool
) -> None:
    assert found(rule, policy_drops=policy_drops) == [why]


def test_what_follows_a_rule_for_all_packets_does_not_count() -> None:
    assert found(ACCEPT, DROP) == []
    assert found(REJECT, ACCEPT) == ["ends with reject"]


@pytest.mark.parametrize("lead", [jump, goto])
def test_a_chain_that_the_last_rule_leads_to_may_be_what_drops(
    lead: Callable[[str], UnconditionalRule],
) -> None:
    why = "ends with drop in chain last, which it leads to"
    assert found(lead("middle"), middle=[lead("last")], last=[DROP]) == [why]
    assert found(lead("middle"), middle=[lead("last")], last=[ACCEPT]) == []
    assert found(lead("gone")) == []


def test_a_chain_that_is_jumped_to_on_the_way_may_be_what_drops() -> None:
    why = ["ends with drop in chain first, which it leads to"]
    assert found(jump("first"), jump("second"), first=[DROP], second=[RETURN]) == why
    assert found(jump("first"), ACCEPT, first=[DROP]) == why


def test_chains_on_the_way_are_not_listed_where_the_chain_itself_or_its_policy_says_enough() -> None:
    for rules, policy_drops in (([jump("zones"), REJECT], False), ([jump("before"), jump("after")], True)):
        ruleset = Ruleset({"input": rules})
        assert ruleset.found(policy_drops=policy_drops)
        assert set(ruleset.listed) == {"input"}


def test_the_last_of_several_chains_is_looked_at_first() -> None:
    ruleset = Ruleset({"input": [jump("services"), jump("last")], "services": [DROP], "last": [REJECT]})
    assert ruleset.found() == ["ends with reject in chain last, which it leads to"]
    assert "services" not in ruleset.listed


def test_chains_that_lead_to_each_other_come_to_an_end() -> None:
    assert found(jump("a"), a=[jump("b")], b=[jump("a")]) == []


@pytest.mark.parametrize(
    ("name", "priority"),
    [
        (ChainName("inet", "ipvsproxy", "input"), -10),
        (INPUT, 99),
        (INPUT, 200),
    ],
)
def test_the_own_table_and_what_comes_after_ipvs_are_no_findings(name: ChainName, priority: int) -> None:
    chains = [InputChain(name, priority, policy_drops=True)]
    assert list(find_drops(Backend.NFTABLES, chains, lambda _: ())) == []


def test_every_base_chain_before_ipvs_is_a_finding_of_its_own() -> None:
    chains = [
        InputChain(ChainName("ip", "ipvsproxy", "input"), 98, policy_drops=True),
        InputChain(INPUT, -400, policy_drops=True),
    ]
    assert list(find_drops(Backend.NFTABLES, chains, lambda _: ())) == [
        HostFirewallFinding(Backend.NFTABLES, "ip", "ipvsproxy", "input", 98, "policy drop"),
        HostFirewallFinding(Backend.NFTABLES, "inet", "filter", "input", -400, "policy drop"),
    ]


def test_a_finding_is_one_sentence_with_what_to_do() -> None:
    finding = HostFirewallFinding(Backend.NFTABLES, *INPUT, 10, "policy drop")
    assert str(finding) == (
        "chain input of table inet filter (nftables, input hook, priority 10) drops what no rule of it accepts, "
        "service traffic included: policy drop; accept traffic to service addresses and node ports there, "
        "as in `nft insert rule inet filter input ip daddr SERVICE-CIDR accept`"
    )


@pytest.mark.parametrize(
    ("backend", "name", "example"),
    [
        (
            Backend.NFTABLES,
            ChainName("ip6", "f", "in"),
            "nft insert rule ip6 f in ip6 daddr SERVICE-CIDR accept",
        ),
        (Backend.NFTABLES, ChainName("ip", "filter", "INPUT"), "iptables -I INPUT -d SERVICE-CIDR -j ACCEPT"),
        (
            Backend.NFTABLES,
            ChainName("ip6", "filter", "INPUT"),
            "ip6tables -I INPUT -d SERVICE-CIDR -j ACCEPT",
        ),
        (
            Backend.LEGACY,
            ChainName("ip", "filter", "INPUT"),
            "iptables-legacy -I INPUT -d SERVICE-CIDR -j ACCEPT",
        ),
        (
            Backend.LEGACY,
            ChainName("ip6", "filter", "INPUT"),
            "ip6tables-legacy -I INPUT -d SERVICE-CIDR -j ACCEPT",
        ),
    ],
)
def test_what_to_do_is_said_for_the_program_that_made_the_chain(
    backend: Backend, name: ChainName, example: str
) -> None:
    assert str(HostFirewallFinding(backend, *name, 0, "policy drop")).endswith(f", as in `{example}`")
