"""What rules of a host's firewall do with a packet of which not everything is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.plan.host_rules import SOME_INTERFACE, Field, State, judge
from tests.builders import address
from tests.host_tables import tables

if TYPE_CHECKING:
    from ipvsproxy.plan.host_rules import Judgement, Packet

PACKET: Packet = {
    Field.FAMILY: Family.IPV4,
    Field.PROTOCOL: 6,
    Field.DESTINATION: address("10.96.0.10"),
    Field.DESTINATION_PORT: 80,
    Field.ARRIVES_BY: SOME_INTERFACE,
    Field.STATE: State.NEW,
    Field.DESTINATION_TYPE: "local",
}


def judged(*rules: str, packet: Packet = PACKET, policy: str = "ACCEPT") -> Judgement:
    host = tables(*rules, INPUT=policy)
    (base,) = host.at("input", Family.IPV4)
    return judge(host, base, packet)


def undecided(judgement: Judgement) -> list[str]:
    return [rule.text for rule in judgement.undecided]


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "-d 10.96.0.10/32",
        "-d 10.96.0.0/12",
        "! -d 10.97.0.0/16",
        "-p tcp",
        "! -p udp",
        "-p tcp -m tcp --dport 80",
        "-p tcp -m tcp --dport 1:80",
        "-p tcp -m tcp ! --dport 443",
        "-p tcp -m multiport --dports 22,80:90",
        "! -i lo",
        "-i +",
        "-m conntrack --ctstate NEW,ESTABLISHED",
        "-m conntrack ! --ctstate RELATED",
        "-m state --state NEW",
        "-m addrtype --dst-type LOCAL",
        '-m comment --comment "no -d 1.2.3.4"',
    ],
)
def test_a_rule_whose_conditions_hold_drops_for_certain(condition: str) -> None:
    judgement = judged(f"-A INPUT {condition} -j DROP")
    assert judgement.drops
    assert (judgement.default.chain, undecided(judgement)) == ("INPUT", [])


@pytest.mark.parametrize(
    "condition",
    [
        "-d 10.96.0.11/32",
        "! -d 10.96.0.0/12",
        "-p udp",
        "-p udp -m udp --dport 80",
        "-p tcp -m tcp --dport 81",
        "-p tcp -m multiport --dports 22,443",
        "-i lo",
        "-m conntrack --ctstate RELATED,ESTABLISHED",
        "-m conntrack --ctstate INVALID",
        "-m addrtype --dst-type MULTICAST",
        # One condition that does not hold is enough, whatever the others are.
        "-p udp -s 192.0.2.0/24 -m limit --limit 5/min",
    ],
)
def test_a_rule_with_a_condition_that_does_not_hold_is_passed_over(condition: str) -> None:
    assert judged(f"-A INPUT {condition} -j DROP").passes


@pytest.mark.parametrize(
    "condition",
    [
        "-s 192.0.2.0/24",
        "-i eth0",
        "-i eth+",
        "! -i eth0",
        "-p tcp -m tcp --sport 1024:65535",
        "-m mark --mark 0x4000/0x4000",
        "-m set --match-set blocked src",
        "-m limit --limit 5/min",
        "-m conntrack --ctstate DNAT",
        "-m socket",
        "-d 10.96.0.10/255.0.255.0",
        "-m later --then 5",
    ],
)
def test_a_rule_of_which_it_cant_be_told_is_named(condition: str) -> None:
    rule = f"-A INPUT {condition} -j DROP"
    judgement = judged(rule)
    assert (judgement.drops, judgement.passes, undecided(judgement)) == (False, False, [rule])


def test_what_is_known_of_the_packet_decides_the_same_rule() -> None:
    rule = "-A INPUT -s 192.0.2.0/24 -i eth+ -j REJECT"
    known = {**PACKET, Field.SOURCE: address("192.0.2.7"), Field.ARRIVES_BY: "eth1"}
    assert judged(rule, packet=known).drops
    assert judged(rule, packet={**known, Field.SOURCE: address("192.0.3.7")}).passes
    assert judged(rule, packet={**known, Field.ARRIVES_BY: "cni0"}).passes
    assert judged(rule, packet={**known, Field.ARRIVES_BY: ""}).passes


def test_the_policy_decides_on_what_no_rule_does() -> None:
    assert judged(policy="DROP").drops
    assert judged("-A INPUT -p udp -j ACCEPT", policy="DROP").default.why == "policy drop"
    assert judged("-A INPUT -d 10.96.0.0/16 -j ACCEPT", policy="DROP").passes
    assert judged("-A INPUT -j RETURN", "-A INPUT -j ACCEPT", policy="DROP").drops


def test_of_rules_that_agree_with_the_policy_none_is_undecided() -> None:
    judgement = judged("-A INPUT -s 192.0.2.0/24 -j DROP", "-A INPUT -i eth0 -j ACCEPT", policy="DROP")
    assert undecided(judgement) == ["-A INPUT -i eth0 -j ACCEPT"]
    assert not judgement.drops


def test_a_packet_is_followed_into_chains_and_back() -> None:
    assert judged("-A INPUT -p tcp -j ALL", "-A ALL -j LAST", "-A LAST -j DROP").drops
    assert judged("-A INPUT -g ALL", "-A INPUT -j DROP", "-A ALL -p udp -j DROP").passes
    assert judged("-A INPUT -j ALL", "-A INPUT -j DROP", "-A ALL -p udp -j DROP").drops
    assert judged("-A INPUT -j ALL", "-A INPUT -j DROP", "-A ALL -j RETURN", "-A ALL -j ACCEPT").drops
    assert judged("-A INPUT -p udp -j ALL", "-A ALL -j DROP").passes


def test_behind_a_doubtful_jump_everything_is_in_doubt_and_the_jump_is_named() -> None:
    jump = "-A INPUT -i eth0 -j ALL"
    judgement = judged(jump, "-A ALL -p tcp -j DROP", "-A ALL -j ACCEPT")
    assert undecided(judgement) == [jump]
    assert judged(jump, "-A ALL -p udp -j DROP").passes


def test_a_doubtful_return_may_come_out_of_a_chain_that_drops() -> None:
    back = "-A ALL -s 192.0.2.0/24 -j RETURN"
    judgement = judged("-A INPUT -j ALL", back, "-A ALL -j DROP")
    assert judgement.default.verdict.name == "DROP"
    assert undecided(judgement) == [back]
    out = judged("-A INPUT -j ALL", "-A INPUT -j DROP", back, "-A ALL -j DROP")
    assert out.drops


@pytest.mark.parametrize("target", ["LOG", "MARK", "NFLOG", "CT"])
def test_targets_behind_which_a_packet_goes_on_decide_nothing(target: str) -> None:
    assert judged(f"-A INPUT -j {target}").passes


def test_a_target_that_is_not_known_is_named_and_so_is_a_queue() -> None:
    for target in ("NFQUEUE --queue-num 1", "TARPIT"):
        rule = f"-A INPUT -j {target}"
        judgement = judged(rule)
        assert (judgement.passes, judgement.drops, undecided(judgement)) == (False, False, [rule])


def test_chains_that_lead_to_each_other_come_to_an_end() -> None:
    assert judged("-A INPUT -j A", "-A A -j B", "-A B -j A", policy="DROP").drops
    assert judged("-A INPUT -i eth0 -j A", "-A A -i eth1 -j B", "-A B -j A").passes


def test_many_doubtful_ways_to_one_chain_cost_one_look_each() -> None:
    levels = 16
    rules = [f"-A INPUT -i eth{n} -j L0" for n in range(8)]
    for level in range(levels):
        rules += [f"-A L{level} -i eth{n} -j L{level + 1}" for n in range(8)]
    judgement = judged(*rules, f"-A L{levels - 1} -j DROP")
    assert len(judgement.undecided) == 8
