"""The tracer refuses rules that it can't follow, whether a packet meets them or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from ipvsproxy.model.addresses import Family, parse_network
from ipvsproxy.model.firewall import FirewallSet
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.firewall import FirewallSettings, PodInterfaces, PodNetworks, ruleset
from ipvsproxy.plan.rules import (
    ArrivesBy,
    AskSourceList,
    Chain,
    Field,
    FieldsInSet,
    GoTo,
    Hook,
    KeepDestination,
    LeavesByOtherThan,
    ProtocolIs,
    Rule,
    SetDestination,
    SetMark,
    Verdict,
)
from ipvsproxy.plan.trace.shapes import UnknownRuleError, check_chains, leave_out
from tests.builders import source_list

if TYPE_CHECKING:
    from ipvsproxy.plan.rules import Match, Statement

PORT = (Field.DESTINATION, Field.PROTOCOL, Field.DESTINATION_PORT)
INPUT = Hook("filter", "input", 0)
NAT_OUTPUT = Hook("nat", "output", -100)
POSTROUTING = Hook("filter", "postrouting", 0)


@dataclass(frozen=True)
class PacketLength:
    """A shape that no rule has so far, as a match and as a statement."""

    bytes: int


def refusal(statement: Statement, *matches: Match, hook: Hook = INPUT) -> str:
    """Return why the tracer refuses the rule, at a hook whose first rule lets no packet get so far."""
    chain = Chain("chain", hook, (Rule("first", (), Verdict.DROP), Rule("second", matches, statement)))
    with pytest.raises(UnknownRuleError) as raised:
        check_chains([chain])
    text = str(raised.value)
    assert text.startswith("chain chain, rule 'second': ")
    return text


@pytest.mark.parametrize(
    "settings",
    [
        FirewallSettings(),
        FirewallSettings(PodNetworks((parse_network("10.244.0.0/16"), parse_network("fd00::/8")))),
        FirewallSettings(PodInterfaces("cali*")),
        FirewallSettings(PodInterfaces("cni0"), masquerade_all=True),
        FirewallSettings(masquerade_all=True, masquerade_bit=31),
    ],
)
def test_every_rule_of_ours_is_known(settings: FirewallSettings) -> None:
    check_chains(ruleset(settings))


def test_a_match_or_a_statement_of_another_shape_is_refused_by_its_name() -> None:
    assert "PacketLength(bytes=9)" in refusal(Verdict.DROP, cast("Match", PacketLength(9)))
    assert "PacketLength(bytes=9)" in refusal(cast("Statement", PacketLength(9)))


def test_an_unknown_rule_is_found_in_the_chains_that_rules_lead_to() -> None:
    to_more = Rule("more", (), GoTo("more"))
    more = Chain("more", None, (Rule("length", (), cast("Statement", PacketLength(9))),))
    with pytest.raises(UnknownRuleError, match="chain more, rule 'length'"):
        check_chains([more, Chain("chain", INPUT, (to_more,))])


def test_a_rule_leads_only_to_chains_without_a_hook_and_never_in_a_circle() -> None:
    for name in ("chain", "nowhere"):
        assert f"{name} is no chain to go to" in refusal(GoTo(name))
    chains = [Chain("one", INPUT, (Rule("to two", (), GoTo("two")),)), Chain("two", INPUT, ())]
    with pytest.raises(UnknownRuleError, match="two is no chain to go to"):
        check_chains(chains)
    first = Chain("first", None, (Rule("to second", (), GoTo("second")),))
    second = Chain("second", None, (Rule("to first", (), GoTo("first")),))
    with pytest.raises(UnknownRuleError, match="chain second, rule 'to first'"):
        check_chains([first, second, Chain("chain", INPUT, (Rule("to first", (), GoTo("first")),))])


@pytest.mark.parametrize("hook", [Hook("filter", "forward", 0), Hook("route", "output", 0)])
def test_hooks_and_types_that_packets_to_services_do_not_meet_are_refused(hook: Hook) -> None:
    with pytest.raises(UnknownRuleError, match="chain chain: the tracer does not know"):
        check_chains([Chain("chain", hook, ())])


@pytest.mark.parametrize(
    ("fields", "of"),
    [
        ((Field.DESTINATION,), FirewallSet.SERVICE_PORTS),
        ((Field.DESTINATION, Field.DESTINATION_PORT, Field.PROTOCOL), FirewallSet.SERVICE_PORTS),
        (PORT, FirewallSet.RESTRICTED_PORTS),
        (PORT, FirewallSet.IN_CLUSTER_DESTINATIONS),
        ((*PORT, Field.SOURCE), FirewallSet.IN_CLUSTER_DESTINATIONS),
    ],
)
def test_fields_that_the_set_does_not_have_are_refused(fields: tuple[Field, ...], of: FirewallSet) -> None:
    assert "other fields" in refusal(Verdict.DROP, FieldsInSet(Family.IPV4, fields, of))


def test_only_a_map_leads_to_a_destination_from_the_fields_that_it_has() -> None:
    for fields, of in (
        (PORT, FirewallSet.SERVICE_PORTS),
        (PORT[:2], FirewallSet.IN_CLUSTER_DESTINATIONS),
    ):
        statement = SetDestination(Family.IPV4, fields, of)
        assert "no map" in refusal(statement, hook=NAT_OUTPUT)


def test_only_the_map_of_restricted_ports_leads_to_source_lists() -> None:
    for fields, of in (
        (PORT, FirewallSet.SERVICE_PORTS),
        (PORT, FirewallSet.IN_CLUSTER_DESTINATIONS),
        (PORT[:2], FirewallSet.RESTRICTED_PORTS),
    ):
        assert "no map of source lists" in refusal(AskSourceList(Family.IPV4, fields, of))
    statement = SetDestination(Family.IPV4, PORT, FirewallSet.RESTRICTED_PORTS)
    assert "no map" in refusal(statement, hook=NAT_OUTPUT)


def test_the_rules_of_source_lists_are_looked_at_where_packets_come_to_them() -> None:
    asking = Rule("ask", (), AskSourceList(Family.IPV4, PORT, FirewallSet.RESTRICTED_PORTS))
    of_list = Chain(source_list().name, None, (Rule("hide", (), Verdict.MASQUERADE),))
    check_chains([of_list])
    with pytest.raises(UnknownRuleError, match="rule 'hide'"):
        check_chains([of_list, Chain("chain", INPUT, (asking,))])


def test_addresses_are_changed_where_the_kernel_changes_them() -> None:
    redirect = SetDestination(Family.IPV4, PORT, FirewallSet.IN_CLUSTER_DESTINATIONS)
    for hook in (INPUT, Hook("filter", "output", -100), Hook("nat", "postrouting", 100)):
        for statement in (redirect, KeepDestination(Family.IPV4)):
            assert "prerouting or output" in refusal(statement, hook=hook)
    for hook in (POSTROUTING, NAT_OUTPUT):
        assert "at postrouting" in refusal(Verdict.MASQUERADE, hook=hook)


def test_what_leaves_is_not_refused_and_only_tcp_is_reset() -> None:
    assert "can't be refused" in refusal(Verdict.REJECT_WITH_ICMP, hook=POSTROUTING)
    assert "only TCP" in refusal(Verdict.REJECT_WITH_RESET)
    assert "only TCP" in refusal(Verdict.REJECT_WITH_RESET, ProtocolIs(Protocol.UDP))


def test_interfaces_are_compared_where_they_are_known() -> None:
    assert "arrived" in refusal(SetMark(0), ArrivesBy("eth0"), hook=POSTROUTING)
    assert "settled at postrouting" in refusal(SetMark(0), LeavesByOtherThan("lo"))
    assert "knows no routes" in refusal(SetMark(0), LeavesByOtherThan("eth0"), hook=POSTROUTING)


class TestWhatIsLeftOut:
    """A table that others have been at is followed without what can't be."""

    good = Rule("good", (), Verdict.DROP)
    bad = Rule("bad", (LeavesByOtherThan("eth0"),), Verdict.MASQUERADE)

    def test_nothing_of_the_agents_own_rules(self) -> None:
        chains = ruleset(FirewallSettings())
        assert leave_out(chains) == (chains, ())

    def test_a_rule_that_the_tracer_would_refuse(self) -> None:
        nat = Hook("nat", "postrouting", 100)
        left, (problem,) = leave_out([Chain("masquerading", nat, (self.bad, self.good))])
        assert left == (Chain("masquerading", nat, (self.good,)),)
        assert str(problem).startswith("chain masquerading, rule 'bad': the tracer knows no routes")
        check_chains(left)

    def test_a_rule_of_a_chain_that_several_lead_to_once(self) -> None:
        leads_there = Rule("leads there", (), GoTo("shared"))
        reset = Rule("reset", (), Verdict.REJECT_WITH_RESET)
        chains = [
            Chain("shared", None, (reset, self.good)),
            Chain("input", INPUT, (leads_there,)),
            Chain("other", INPUT, (leads_there,)),
        ]
        left, (problem,) = leave_out(chains)
        assert (problem.chain, problem.rule) == ("shared", reset)
        assert left == (Chain("shared", None, (self.good,)), *chains[1:])

    def test_a_chain_at_a_hook_that_is_not_known(self) -> None:
        forward = Chain("forward", Hook("filter", "forward", 0), (self.good,))
        left, (problem,) = leave_out([forward, Chain("input", INPUT, (self.good,))])
        assert left == (Chain("input", INPUT, (self.good,)),)
        assert str(problem).startswith("chain forward: the tracer does not know ")

    def test_a_rule_that_leads_to_no_chain(self) -> None:
        lost = Rule("lost", (), GoTo("nowhere"))
        left, (problem,) = leave_out([Chain("input", INPUT, (lost, self.good))])
        assert (left, problem.why) == ((Chain("input", INPUT, (self.good,)),), "nowhere is no chain to go to")
