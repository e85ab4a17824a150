"""The rules that nft lists, read back; netns_tests/test_nft_rules.py does the same with the real nft."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given

from ipvsproxy.kernel.nft_rules import POLICY_DUTY, UnknownRule, parse_rules
from ipvsproxy.model.addresses import Family, parse_network
from ipvsproxy.model.firewall import FirewallSet
from ipvsproxy.plan.firewall import FirewallSettings, ruleset
from ipvsproxy.plan.rules import ArrivesBy, Chain, Field, FieldsInSet, Hook, Rule, SourceIn, Verdict
from tests.kernel.firewall_settings import FIREWALL_SETTINGS
from tests.kernel.nft_json import chain, compared, listing, objects_of, rule

SOURCE = {"payload": {"protocol": "ip", "field": "saddr"}}
DESTINATION = {"payload": {"protocol": "ip", "field": "daddr"}}
DROP: dict[str, Any] = {"drop": None}
COUNTER: dict[str, Any] = {"counter": {"packets": 0, "bytes": 0}}


@example(FirewallSettings(masquerade_bit=31))
@given(FIREWALL_SETTINGS)
def test_the_agents_own_rules_are_read_as_they_were_planned(settings: FirewallSettings) -> None:
    chains = ruleset(settings)
    assert parse_rules(listing(*objects_of(chains), chain("digest-1234"))) == (chains, ())


def test_chains_without_rules_are_read_too() -> None:
    """As `nft flush table` leaves them."""
    flushed = tuple(each._replace(rules=()) for each in ruleset(FirewallSettings()))
    assert parse_rules(listing(*objects_of(flushed))) == (flushed, ())


def test_a_policy_to_drop_is_a_last_rule() -> None:
    base = chain("input", type="filter", hook="input", prio=-10, policy="drop")
    found = parse_rules(listing(base))
    assert found.chains == (
        Chain("input", Hook("filter", "input", -10), (Rule(POLICY_DUTY, (), Verdict.DROP),)),
    )


@pytest.mark.parametrize(
    ("expressions", "read"),
    [
        ([COUNTER, {"log": {"prefix": "x"}}, DROP], Rule("", (), Verdict.DROP)),
        ([{"accept": None}], Rule("", (), Verdict.RETURN)),
        (
            [compared(SOURCE, "10.0.0.1", equal=False), DROP],
            Rule("", (SourceIn(parse_network("10.0.0.1/32"), inside=False),), Verdict.DROP),
        ),
        (
            [compared(DESTINATION, "@service-addresses-ipv4", equal=True), DROP],
            Rule(
                "",
                (FieldsInSet(Family.IPV4, (Field.DESTINATION,), FirewallSet.SERVICE_ADDRESSES),),
                Verdict.DROP,
            ),
        ),
        (
            [compared({"meta": {"key": "iifname"}}, "eth0", equal=True), COUNTER, DROP],
            Rule("", (ArrivesBy("eth0"),), Verdict.DROP),
        ),
        ([{"reject": {"type": "icmpx", "expr": "port-unreachable"}}], Rule("", (), Verdict.REJECT_WITH_ICMP)),
    ],
)
def test_a_rule_of_somebody_else_with_known_parts_is_read(
    expressions: list[dict[str, Any]], read: Rule
) -> None:
    ((_, _, rules),), unknown = parse_rules(listing(chain("input"), rule("input", *expressions)))
    assert (rules, unknown) == ((read,), ())


def test_a_rule_that_leaves_every_packet_as_it_is_is_left_out() -> None:
    objects = (chain("input"), rule("input", compared(SOURCE, "10.0.0.1", equal=True), COUNTER))
    assert parse_rules(listing(*objects)) == ((Chain("input", None, ()),), ())


@pytest.mark.parametrize(
    "expressions",
    [
        [compared({"payload": {"protocol": "tcp", "field": "dport"}}, 80, equal=True), DROP],
        [compared(DESTINATION, "10.0.0.1", equal=True), DROP],
        [compared(SOURCE, {"set": ["10.0.0.1", "10.0.0.2"]}, equal=True), DROP],
        [compared(SOURCE, {"range": ["10.0.0.1", "10.0.0.2"]}, equal=True), DROP],
        [compared(SOURCE, "fd00::1", equal=True), DROP],
        [compared(DESTINATION, "@service-addresses-ipv6", equal=True), DROP],
        [compared(DESTINATION, "@somebodys", equal=True), DROP],
        [compared({"ct": {"key": "state"}}, 2, equal=True), DROP],
        [compared({"meta": {"key": "oifname"}}, "eth0", equal=True), DROP],
        [compared({"&": [{"meta": {"key": "mark"}}, 3]}, 0, equal=False), DROP],
        [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": [2, 3]}}, DROP],
        [{"limit": {"rate": 1, "per": "second"}}, DROP],
        [{"jump": {"target": "refusal"}}],
        [{"reject": {"type": "icmp", "expr": 3}}],
        [{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 5}}],
        [{"dnat": {"addr": "10.0.0.1"}}],
        [{"queue": None}],
    ],
)
def test_what_has_no_value_is_kept_as_text(expressions: list[dict[str, Any]]) -> None:
    good = rule("input", DROP, comment="good")
    objects = (chain("input"), rule("input", *expressions), good, rule("input", *expressions, comment="mine"))
    chains, unknown = parse_rules(listing(*objects))
    assert chains == (Chain("input", None, (Rule("good", (), Verdict.DROP),)),)
    assert [each.chain for each in unknown] == ["input", "input"]
    assert unknown[0].text.startswith("[{")
    assert unknown[1] == UnknownRule("input", "mine")


@pytest.mark.parametrize("output", [b"", b"{}", b'{"nftables": [1]}', b"table inet ipvsproxy {"])
def test_what_is_no_listing_is_an_error(output: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_rules(output)
