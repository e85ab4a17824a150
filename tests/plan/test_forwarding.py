"""Where the agent's own chain belongs in a host's firewall, so that answers of endpoints pass it."""

from __future__ import annotations

import pytest

from ipvsproxy.plan.forwarding import find_missing, find_ours
from ipvsproxy.plan.host_rules import (
    Backend,
    BaseChain,
    Condition,
    Field,
    HostTables,
    Masked,
    Rule,
    State,
    TableName,
    Verdict,
)
from tests.host_tables import LEGACY_FILTER, joined, tables

BIT = 14
JUMP = "-A FORWARD -j IPVSPROXY-FORWARD"
ANSWERS = "-A IPVSPROXY-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
MARKED = "-A IPVSPROXY-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT"
KUBE_PROXYS = (
    "-A FORWARD -j KUBE-FORWARD",
    "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
)
DOCKERS = (
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER",
    "-A DOCKER -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A DOCKER ! -i docker0 -o docker0 -j DROP",
    "-A DOCKER -i docker0 -j ACCEPT",
    "-A DOCKER-USER -j RETURN",
)


def missing(host: HostTables, bit: int = BIT) -> list[str]:
    return [str(each) for each in find_missing(host, bit)]


HERE = ["chain IPVSPROXY-FORWARD of table ip filter (iptables-legacy)"]


@pytest.mark.parametrize(
    "host",
    [
        tables(),
        tables("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", FORWARD="DROP"),
        tables("-A FORWARD -m state --state ESTABLISHED -j ACCEPT", "-A FORWARD -j REJECT"),
        tables("-A FORWARD -j BEFORE", "-A BEFORE -j ACCEPT", FORWARD="DROP"),
        tables("-A FORWARD -d 192.0.2.0/24 -j DROP"),
        tables("-A FORWARD -m conntrack --ctstate INVALID -j DROP"),
        tables(INPUT="DROP", OUTPUT="DROP"),
    ],
)
def test_a_host_that_lets_answers_pass_is_left_alone(host: HostTables) -> None:
    assert missing(host) == []


@pytest.mark.parametrize(
    "host",
    [
        tables(FORWARD="DROP"),
        tables(*DOCKERS, FORWARD="DROP"),
        tables("-A FORWARD -m conntrack --ctstate NEW -j ACCEPT", FORWARD="DROP"),
        tables("-A FORWARD -j REJECT"),
        tables("-A FORWARD -p udp -j DROP"),
        tables("-A FORWARD -j LAST", "-A LAST -j LOG", "-A LAST -j DROP"),
        tables("-A FORWARD -s 10.244.0.0/16 -j ACCEPT", FORWARD="DROP"),
        # What kube-proxy brought goes with it.
        tables(*KUBE_PROXYS, FORWARD="DROP"),
    ],
)
def test_a_host_that_drops_answers_needs_the_chain(host: HostTables) -> None:
    assert missing(host) == HERE


def test_each_table_of_each_family_needs_its_own() -> None:
    of_ipv6 = LEGACY_FILTER._replace(family="ip6")
    mangle = LEGACY_FILTER._replace(name="mangle")
    several = [tables(FORWARD="DROP", table=each) for each in (LEGACY_FILTER, of_ipv6, mangle)]
    assert [each.base.table for each in find_missing(joined(*several), BIT)] == [
        LEGACY_FILTER,
        mangle,
        of_ipv6,
    ]


@pytest.mark.parametrize("others", [(), DOCKERS, KUBE_PROXYS])
def test_where_the_chain_is_in_its_place_nothing_is_missing(others: tuple[str, ...]) -> None:
    assert missing(tables(JUMP, *others, ANSWERS, MARKED, FORWARD="DROP")) == []


def test_rules_of_others_may_stand_before_it_as_long_as_they_do_not_certainly_drop() -> None:
    assert missing(tables(*DOCKERS, JUMP, ANSWERS, MARKED, FORWARD="DROP")) == []
    doubtful = "-A FORWARD -s 192.0.2.0/24 -j DROP"
    assert missing(tables(doubtful, JUMP, ANSWERS, MARKED, FORWARD="DROP")) == []
    assert missing(tables("-A FORWARD -p tcp -j DROP", JUMP, ANSWERS, MARKED, FORWARD="DROP")) == HERE
    assert missing(tables("-A FORWARD -j DROP", JUMP, ANSWERS, MARKED)) == HERE


@pytest.mark.parametrize(
    "rules",
    [
        (ANSWERS, MARKED),
        (JUMP, ANSWERS),
        (JUMP, MARKED),
        (JUMP, MARKED, ANSWERS),
        (JUMP, ANSWERS, MARKED, "-A IPVSPROXY-FORWARD -j ACCEPT"),
        (JUMP, ANSWERS.replace("RELATED,", ""), MARKED),
        (JUMP, ANSWERS, MARKED.replace("0x4000/0x4000", "0x8000/0x8000")),
        (JUMP, ANSWERS.replace("ACCEPT", "DROP"), MARKED),
        ("-A FORWARD -p udp -j IPVSPROXY-FORWARD", ANSWERS, MARKED),
    ],
)
def test_what_others_changed_of_it_is_made_again(rules: tuple[str, ...]) -> None:
    assert missing(tables(*rules, FORWARD="DROP")) == HERE


def test_another_bit_of_the_mark_makes_it_another_chain() -> None:
    assert missing(tables(JUMP, ANSWERS, MARKED, FORWARD="DROP"), bit=15) == HERE


def test_what_leads_to_the_chain_is_known_so_that_it_is_put_first_and_not_twice() -> None:
    (found,) = find_missing(tables("-A FORWARD -j DROP", JUMP, ANSWERS, MARKED), BIT)
    assert [jump.text for jump in found.jumps] == [JUMP]
    (found,) = find_missing(tables(FORWARD="DROP"), BIT)
    assert found.jumps == ()


def test_a_table_of_nftables_has_a_chain_of_its_own_kind() -> None:
    table = TableName(Backend.NFTABLES, "inet", "filter")
    base = BaseChain(table, "fwd", "forward", 0, policy_drops=True)
    (found,) = find_missing(HostTables((base,), {}), BIT)
    assert str(found) == "chain ipvsproxy-forward of table inet filter (nftables)"
    accept = Rule(Verdict.ACCEPT, (Condition(Field.STATE, (State.ESTABLISHED, State.RELATED)),))
    marked = Rule(Verdict.ACCEPT, (Condition(Field.MARK, (Masked(1 << BIT, 1 << BIT),)),))
    rules = {
        (table, "fwd"): [Rule(Verdict.JUMP, target="ipvsproxy-forward")],
        (table, "ipvsproxy-forward"): [accept, marked],
    }
    assert find_missing(HostTables((base,), rules), BIT) == []


def test_the_agents_chains_are_found_wherever_they_are_with_all_that_leads_to_them() -> None:
    assert find_ours(tables(FORWARD="DROP")) == []
    more = "-A MINE -j IPVSPROXY-FORWARD"
    (found,) = find_ours(tables(JUMP, more, ANSWERS, MARKED))
    assert [(of, rule.text) for of, rule in found.jumps] == [("FORWARD", JUMP), ("MINE", more)]
    assert [str(found)] == HERE
    assert find_ours(tables(ANSWERS))[0].jumps == ()
