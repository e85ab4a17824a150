"""What of a host's firewall drops service traffic, at which hook, and how to mend it."""

from __future__ import annotations

import pytest

from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.host_firewall import HostFirewallFinding, Traffic, find_drops
from ipvsproxy.plan.host_rules import (
    Backend,
    BaseChain,
    Condition,
    End,
    Field,
    HostTables,
    Rule,
    TableName,
    Verdict,
)
from tests.builders import key
from tests.host_tables import LEGACY_FILTER, joined, tables

WEB, DNS, NODE_PORT, WEB6 = (
    key("10.96.0.10"),
    key("10.96.0.11", 53, Protocol.UDP),
    key("203.0.113.1", 30080),
    key("fd00:10:96::10"),
)
SERVED = (WEB, DNS, NODE_PORT)
DROP_ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j DROP"


def found(host: HostTables, *served: object) -> list[tuple[str, str, int]]:
    """Return hook and cause of what is found, and how many virtual servers that is about."""
    findings = find_drops(host, served)  # type: ignore[arg-type] # keys
    return [(each.base.hook, each.end.why, each.number) for each in findings]


def test_a_host_that_drops_nothing_of_services_is_fine() -> None:
    assert find_drops(HostTables(), SERVED) == []
    host = tables("-A INPUT -s 192.0.2.0/24 -j DROP", "-A INPUT -p udp -m udp --dport 69 -j DROP")
    assert found(host, *SERVED) == []
    assert found(host) == []


@pytest.mark.parametrize("hook", ["INPUT", "FORWARD", "OUTPUT"])
def test_a_policy_that_drops_is_found_at_each_hook(hook: str) -> None:
    host = tables(**{hook: "DROP"})  # type: ignore[arg-type] # no chain is called `table`
    assert found(host, *SERVED)[0] == (hook.lower(), "policy drop", 0)
    assert found(host)[0] == (hook.lower(), "policy drop", 0)


@pytest.mark.parametrize("table", ["raw", "mangle", "filter", "security"])
def test_each_table_is_looked_at(table: str) -> None:
    chain = "PREROUTING" if table == "raw" else "INPUT"
    rule = f"-A {chain} -d 10.96.0.10/32 -j DROP"
    host = tables(rule, table=TableName(Backend.LEGACY, "ip", table))
    assert found(host, *SERVED) == [(chain.lower(), f"rule `{rule}` of chain {chain}", 1)]


def test_a_single_rule_that_certainly_matches_is_found_with_whom_it_hits() -> None:
    rules = ("-A INPUT -d 10.96.0.10/32 -j REJECT", "-A INPUT -p udp -m udp --dport 53 -j DROP")
    findings = find_drops(tables(*rules), SERVED)
    assert [(each.served, each.end.rule and each.end.rule.text) for each in findings] == [
        ((str(WEB),), rules[0]),
        ((str(DNS),), rules[1]),
    ]
    assert findings[0].command == "iptables-legacy -D INPUT -d 10.96.0.10/32 -j REJECT"


def test_a_rule_in_a_chain_that_is_jumped_to_is_found_there() -> None:
    rule = "-A CLOSED -d 10.96.0.0/16 -j DROP"
    assert found(tables("-A INPUT -p tcp -j CLOSED", rule), *SERVED) == [
        ("input", f"rule `{rule}` of chain CLOSED", 1)
    ]


def test_what_is_let_in_as_advised_is_no_finding_any_more() -> None:
    assert found(tables("-A INPUT -d 10.96.0.0/16 -j ACCEPT", INPUT="DROP"), WEB, DNS) == []
    some = tables("-A INPUT -d 10.96.0.0/16 -j ACCEPT", INPUT="DROP")
    assert found(some, *SERVED) == [("input", "policy drop", 1)]
    ports = (
        "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -d 10.96.0.0/16 -j ACCEPT",
        "-A INPUT -p tcp -m tcp --dport 30000:32767 -j ACCEPT",
    )
    assert found(tables(*ports, INPUT="DROP"), *SERVED) == []
    assert (
        found(tables("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", FORWARD="DROP")) == []
    )


def test_the_advice_for_input_has_the_ports_of_health_checks() -> None:
    (finding,) = find_drops(tables(INPUT="DROP"), SERVED)
    assert finding.command == "iptables-legacy -I INPUT -d SERVICE-CIDR -j ACCEPT"
    for words in ("health check node ports", "10256", "node ports"):
        assert words in finding.mend
    assert finding.meaning in str(finding)
    assert finding.command in str(finding)


def test_answers_are_judged_as_established_and_what_goes_to_endpoints_as_new() -> None:
    assert found(tables(f"-A FORWARD {DROP_ESTABLISHED}"))[0][0] == "forward"
    assert found(tables("-A FORWARD -p udp -j DROP"))[0][0] == "forward"
    assert found(tables("-A FORWARD -p udp -j DROP"), WEB) == []
    # What a process of the node is answered.
    assert found(tables(f"-A INPUT {DROP_ESTABLISHED}"), WEB)[0][0] == "input"
    assert found(tables("-A FORWARD -m conntrack --ctstate NEW -j DROP")) == []
    assert found(tables("-A OUTPUT -m conntrack --ctstate NEW ! -o lo -j DROP"))[0][0] == "output"
    mangle = TableName(Backend.LEGACY, "ip", "mangle")
    assert found(tables(f"-A POSTROUTING {DROP_ESTABLISHED}", table=mangle))[0][0] == "postrouting"
    assert found(tables(f"-A PREROUTING {DROP_ESTABLISHED}", table=mangle))[0][0] == "prerouting"


def test_a_rule_that_may_accept_is_named_with_what_drops() -> None:
    rule = "-A INPUT -s 192.0.2.0/24 -j ACCEPT"
    (finding,) = find_drops(tables(rule, INPUT="DROP"), SERVED)
    assert finding.undecided == (rule,)
    assert rule in finding.meaning


def test_a_last_rule_that_refuses_everything_is_one_finding_with_the_advice_of_a_policy() -> None:
    rules = ("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", "-A INPUT -j REJECT")
    (finding,) = find_drops(tables(*rules), SERVED)
    assert finding.undecided == rules[:1]
    assert "10256" in finding.mend
    (without_services,) = find_drops(tables(*rules), ())
    assert without_services.end == finding.end


@pytest.mark.parametrize("chain", ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"])
def test_what_the_advice_says_is_enough_at_each_hook(chain: str) -> None:
    mangle = TableName(Backend.LEGACY, "ip", "mangle")
    (finding,) = find_drops(tables(f"-A {chain} -j DROP", table=mangle), (WEB,))
    advised = [
        command.replace("SERVICE-CIDR", "10.96.0.0/16").replace("POD-CIDR", "10.244.0.0/16").split(" -I ")[1]
        for command in finding.mend.replace("`", "").split("; ")
        if " -I " in command
    ]
    if chain == "INPUT":
        # Its advice has these in words.
        advised.append(f"{chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
    accepted = tables(*(f"-A {each}" for each in advised), f"-A {chain} -j DROP", table=mangle)
    assert find_drops(accepted, (WEB,)) == []


def test_a_rule_for_everything_but_one_destination_stays() -> None:
    rule = "-A INPUT ! -d 10.96.0.11/32 -j DROP"
    (finding,) = find_drops(tables(rule), (WEB, DNS))
    assert finding.command == "iptables-legacy -I INPUT -d SERVICE-CIDR -j ACCEPT"


def test_the_command_for_a_table_of_both_families_is_that_of_the_family() -> None:
    base = BaseChain(TableName(Backend.NFTABLES, "inet", "filter"), "in", "input", 10, policy_drops=True)
    (finding,) = find_drops(HostTables((base,), {}), (WEB6,))
    assert finding.command == "nft insert rule inet filter in ip6 daddr SERVICE-CIDR accept"


def test_tables_of_a_family_without_services_do_not_count() -> None:
    of_ipv6 = tables(INPUT="DROP", table=LEGACY_FILTER._replace(family="ip6"))
    assert found(of_ipv6, WEB) == []
    assert found(of_ipv6, WEB6) == [("input", "policy drop", 0)]
    assert len(found(joined(of_ipv6, tables(INPUT="DROP")), WEB, WEB6)) == 2


def test_a_table_of_both_families_is_found_once() -> None:
    base = BaseChain(TableName(Backend.NFTABLES, "inet", "filter"), "in", "input", 10, policy_drops=True)
    (finding,) = find_drops(HostTables((base,), {}), (WEB, WEB6))
    traffic = (Traffic.TO_SERVICE, Traffic.ANSWER)
    assert finding == HostFirewallFinding(base, End(Verdict.DROP, "in"), traffic=traffic)


def nft(hook: str, family: str = "inet", rule: Rule | None = None) -> HostFirewallFinding:
    base = BaseChain(TableName(Backend.NFTABLES, family, "filter"), "mine", hook, 0)
    traffic = Traffic.ANSWER if hook == "forward" else Traffic.TO_SERVICE
    return HostFirewallFinding(base, End(Verdict.DROP, "mine", rule), number=bool(rule), traffic=(traffic,))


def test_the_command_that_mends_it_is_that_of_the_table() -> None:
    assert nft("input").command == "nft insert rule inet filter mine ip daddr SERVICE-CIDR accept"
    assert nft("input", "ip6").command == "nft insert rule ip6 filter mine ip6 daddr SERVICE-CIDR accept"
    of_service = Condition(Field.DESTINATION_PORT, (80,))
    assert nft("forward").command == "nft insert rule inet filter mine ct state established,related accept"
    assert (
        nft("input", rule=Rule(Verdict.DROP, (of_service,), handle=7)).command
        == "nft delete rule inet filter mine handle 7"
    )
    of_nft = LEGACY_FILTER._replace(backend=Backend.IPTABLES_NFT, family="ip6")
    (finding,) = find_drops(tables(FORWARD="DROP", table=of_nft), ())
    assert finding.command == "ip6tables-nft -I FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    (finding,) = find_drops(tables(FORWARD="DROP", table=of_nft._replace(name="mangle")), ())
    assert finding.command.startswith("ip6tables-nft -t mangle -I FORWARD ")
