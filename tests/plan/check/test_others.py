"""Who else is on a node."""

from __future__ import annotations

import pytest

from ipvsproxy.plan.check.finding import Severity
from ipvsproxy.plan.check.others import (
    AgentName,
    Port,
    judge_foreign_rules,
    judge_kube_proxy,
    judge_leftovers,
    judge_name,
    judge_ports,
)
from ipvsproxy.plan.foreign_rules import ForeignRule, ForeignRuleKind
from ipvsproxy.plan.host_rules import Backend, TableName
from ipvsproxy.plan.kube_proxy import Leftovers
from tests.builders import address, key

NAT = TableName(Backend.IPTABLES_NFT, "ip", "nat")


@pytest.mark.parametrize(
    ("process", "in_use", "severity"),
    [(None, True, Severity.OK), (7, False, Severity.WARNING), (7, True, Severity.ERROR)],
)
def test_kube_proxy_is_worse_beside_the_agent_than_before_it(
    *, process: int | None, in_use: bool, severity: Severity
) -> None:
    assert judge_kube_proxy(process, in_use=in_use).severity is severity


def test_what_is_left_is_counted_and_of_a_running_kube_proxy_it_is_no_fault() -> None:
    left = Leftovers(
        ("KUBE-CLUSTER-IP",), ((NAT, "KUBE-SERVICES"), (NAT, "KUBE-MARK-MASQ")), (("ip", "kube-proxy"),)
    )
    (found,) = judge_leftovers(left, [key("10.96.0.1")], {}, running=False)
    there = "2 chains of iptables, 1 ipset, 1 nftables table, 1 virtual server"
    assert (found.severity, found.meaning.partition(":")[0]) == (Severity.WARNING, f"kube-proxy left {there}")
    (found,) = judge_leftovers(left, [key("10.96.0.1")], {}, running=True)
    assert (found.severity, found.meaning) == (Severity.INFO, f"of the kube-proxy that runs: {there}")


def test_nothing_left_is_fine_as_far_as_it_could_be_seen() -> None:
    assert [each.severity for each in judge_leftovers(Leftovers(), [], {}, running=False)] == [Severity.OK]
    unseen = judge_leftovers(Leftovers(unseen=("ipsets can't be looked at",)), [], {}, running=False)
    assert [(each.severity, each.meaning) for each in unseen] == [
        (Severity.UNKNOWN, "ipsets can't be looked at")
    ]


def test_what_the_clean_up_leaves_is_told_and_never_a_warning() -> None:
    left = Leftovers(chains=((NAT, "KUBE-SERVICES"), (NAT, "KUBE-MARK-MASQ")))
    kept = {(NAT, "KUBE-MARK-MASQ"): "chain MINE leads to it"}
    found = judge_leftovers(left, [], kept, running=False)
    assert [each.severity for each in found] == [Severity.WARNING, Severity.INFO]
    assert "1 chain of iptables" in found[0].meaning
    assert "chain MINE leads to it" in found[1].meaning
    (only,) = judge_leftovers(Leftovers(chains=((NAT, "KUBE-MARK-MASQ"),)), [], kept, running=False)
    assert only.severity is Severity.INFO
    (running,) = judge_leftovers(left, [], kept, running=True)
    assert "2 chains of iptables" in running.meaning


def test_each_port_that_is_held_is_a_warning() -> None:
    health, metrics = Port(10256, "health checks", held=True), Port(10249, "metrics", held=False)
    (found,) = judge_ports([health, metrics])
    assert (found.severity, found.about) == (Severity.WARNING, "10256")
    assert "where the agent is to answer health checks" in found.meaning
    (free,) = judge_ports([metrics])
    assert (free.severity, free.meaning) == (Severity.OK, "free: TCP port 10249")
    assert judge_ports([]) == []


@pytest.mark.parametrize(
    ("name", "answering", "severity", "words"),
    [
        (None, None, Severity.OK, "no other agent"),
        (AgentName(5, may_be_agent=True), 5, Severity.OK, "no other agent"),
        (AgentName(5, may_be_agent=True), None, Severity.ERROR, "process 5, with another run directory"),
        (AgentName(0, may_be_agent=True), None, Severity.ERROR, "a process that can't be seen from here"),
        (AgentName(5, may_be_agent=True), 1, Severity.INFO, "one agent in a container, seen from outside"),
        (AgentName(5, may_be_agent=False), 1, Severity.WARNING, "is not root: agents are not kept apart"),
    ],
)
def test_who_holds_the_name_is_the_agent_or_another_one(
    name: AgentName | None, answering: int | None, severity: Severity, words: str
) -> None:
    found = judge_name(name, answering)
    assert found.severity is severity
    assert words in found.meaning


def test_an_agent_that_does_not_say_who_it_is_may_be_the_one_with_the_name() -> None:
    found = judge_name(AgentName(5, may_be_agent=True), None, silent=True)
    assert found.severity is Severity.UNKNOWN
    assert (
        "process 5 has the agent's name, and the agent does not say whether it is that one" in found.meaning
    )


class TestForeignRules:
    rule = ForeignRule(
        ForeignRuleKind.NOTRACK, "chain PREROUTING of table ip raw", "udp dport 53 notrack", (), (53,)
    )
    nat = ForeignRule(ForeignRuleKind.DESTINATION_NAT, "chain all of table inet early", "dnat ip to 10.0.0.1")

    def test_a_rule_that_service_traffic_may_fit_is_a_warning_with_a_remedy(self) -> None:
        found = judge_foreign_rules([self.rule, self.nat], [], [(address("10.96.0.10"), 53)])
        assert [(each.severity, each.about) for each in found] == [
            (Severity.WARNING, self.rule.place),
            (Severity.WARNING, self.nat.place),
        ]
        assert all(each.mend for each in found)

    def test_one_that_no_service_traffic_fits_is_none(self) -> None:
        (found,) = judge_foreign_rules([self.rule], [], [(address("10.96.0.10"), 80)])
        assert found.severity is Severity.OK

    def test_what_could_not_be_looked_at_is_not_well(self) -> None:
        (found,) = judge_foreign_rules([], ["nft is gone"], [])
        assert found.severity is Severity.UNKNOWN
