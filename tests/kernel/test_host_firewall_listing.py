"""What nft prints of a host's firewall, taken apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.kernel.host_firewall_listing import ListedChain, is_dormant, parse_chains, parse_table
from ipvsproxy.model.addresses import Family, parse_network
from ipvsproxy.plan.host_rules import UNKNOWN, Condition, Field, Masked, State, Verdict

if TYPE_CHECKING:
    from ipvsproxy.plan.host_rules import Rule

METAINFO = {"metainfo": {"version": "1.0.6", "json_schema_version": 1}}
COUNTER: dict[str, Any] = {"counter": {"packets": 0, "bytes": 0}}
DROP: dict[str, Any] = {"drop": None}
REJECT: dict[str, Any] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
IPV4, IPV6 = Condition(Field.FAMILY, (Family.IPV4,)), Condition(Field.FAMILY, (Family.IPV6,))
TCP, UDP = Condition(Field.PROTOCOL, (6,)), Condition(Field.PROTOCOL, (17,))


def listing(*objects: dict[str, Any]) -> bytes:
    return json.dumps({"nftables": [METAINFO, *objects]}).encode()


def chain(**fields: object) -> dict[str, Any]:
    base = {"family": "ip", "table": "filter", "name": "INPUT", "handle": 4}
    hook = {"type": "filter", "hook": "input", "prio": 0, "policy": "accept"}
    return {"chain": base | hook | fields}


def rules(*statements: list[dict[str, Any]], text: str = "") -> list[Rule]:
    where = {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 5, "comment": "one"}
    output = listing(chain(), *({"rule": where | {"expr": each}} for each in statements))
    return parse_table(output, text)["INPUT"]


def match(left: object, right: object, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def test_base_chains_are_read_with_hook_priority_and_policy() -> None:
    table = {"table": {"family": "inet", "name": "own", "handle": 1}}
    mine = chain(family="inet", table="own", name="in", hook="forward", prio=-10, policy="drop")
    assert parse_chains(listing(table, chain(), mine)) == [
        ListedChain("ip", "filter", "INPUT", "filter", "input", 0, policy_drops=False),
        ListedChain("inet", "own", "in", "filter", "forward", -10, policy_drops=True),
    ]


@pytest.mark.parametrize("other", [{"family": "bridge"}, {"family": "arp"}, {"hook": "ingress"}])
def test_chains_that_ip_packets_of_services_do_not_pass_are_left_out(other: dict[str, str]) -> None:
    assert parse_chains(listing(chain(**other))) == []


def test_chains_without_a_hook_are_left_out() -> None:
    plain = {"chain": {"family": "ip", "table": "filter", "name": "input", "handle": 7}}
    assert parse_chains(listing(plain)) == []


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        ({"accept": None}, Verdict.ACCEPT),
        (DROP, Verdict.DROP),
        ({"return": None}, Verdict.RETURN),
        (REJECT, Verdict.REJECT),
        ({"reject": None}, Verdict.REJECT),
        ({"xt": {"type": "target", "name": "REJECT"}}, Verdict.REJECT),
        ({"xt": {"type": "target", "name": "TARPIT"}}, Verdict.OTHER),
        ({"queue": {"num": 1}}, Verdict.OTHER),
        ({"masquerade": None}, Verdict.ACCEPT),
    ],
)
def test_a_verdict_alone_is_for_every_packet(statement: dict[str, Any], verdict: Verdict) -> None:
    (rule,) = rules([statement])
    assert (rule.verdict, rule.conditions) == (verdict, ())


@pytest.mark.parametrize(("word", "verdict"), [("jump", Verdict.JUMP), ("goto", Verdict.GOTO)])
def test_where_a_rule_leads_to_is_read(word: str, verdict: Verdict) -> None:
    (rule,) = rules([{word: {"target": "last"}}])
    assert (rule.verdict, rule.target) == (verdict, "last")


@pytest.mark.parametrize(
    "before",
    [
        COUNTER,
        {"log": {"prefix": "dropped"}},
        {"log": None},
        {"mangle": {"key": meta("mark"), "value": 1}},
        {"notrack": None},
        {"xt": {"type": "match", "name": "comment"}},
    ],
)
def test_statements_that_every_packet_passes_are_no_condition(before: dict[str, Any]) -> None:
    (rule,) = rules([before, COUNTER, REJECT])
    assert rule.conditions == ()


@pytest.mark.parametrize(
    ("matched", "conditions"),
    [
        (
            match(payload("ip", "saddr"), "192.0.2.1"),
            (IPV4, Condition(Field.SOURCE, (parse_network("192.0.2.1/32"),))),
        ),
        (
            match(payload("ip6", "daddr"), {"prefix": {"addr": "fd00::", "len": 8}}, "!="),
            (IPV6, Condition(Field.DESTINATION, (parse_network("fd00::/8"),), inside=False)),
        ),
        (
            match(payload("ip", "daddr"), {"range": ["10.0.0.2", "10.0.0.4"]}),
            (
                IPV4,
                Condition(Field.DESTINATION, (parse_network("10.0.0.2/31"), parse_network("10.0.0.4/32"))),
            ),
        ),
        (match(payload("tcp", "dport"), 80), (TCP, Condition(Field.DESTINATION_PORT, (80,)))),
        (
            match(payload("udp", "sport"), {"set": [53, {"range": [80, 90]}]}),
            (UDP, Condition(Field.SOURCE_PORT, (53, range(80, 91)))),
        ),
        (match(payload("th", "dport"), 1024, "<"), (Condition(Field.DESTINATION_PORT, (range(1024),)),)),
        (
            match(payload("th", "dport"), 1024, ">"),
            (Condition(Field.DESTINATION_PORT, (range(1025, 65536),)),),
        ),
        (match(payload("ip", "protocol"), 6), (IPV4, TCP)),
        (match(meta("l4proto"), {"set": [6, 17]}), (Condition(Field.PROTOCOL, (6, 17)),)),
        (match(meta("l4proto"), "tcp"), (TCP,)),
        (match(meta("nfproto"), 10), (IPV6,)),
        (match(meta("nfproto"), "ipv4"), (IPV4,)),
        (match(meta("iifname"), "lo", "!="), (Condition(Field.ARRIVES_BY, ("lo",), inside=False),)),
        (
            match(meta("oifname"), {"set": ["eth0", "cali*"]}),
            (Condition(Field.LEAVES_BY, ("eth0", "cali*")),),
        ),
        (
            match({"ct": {"key": "state"}}, [2, 4], "in"),
            (Condition(Field.STATE, (State.ESTABLISHED, State.RELATED)),),
        ),
        (match({"ct": {"key": "state"}}, ["new"], "in"), (Condition(Field.STATE, (State.NEW,)),)),
        (match({"ct": {"key": "state"}}, 1), (Condition(Field.STATE, (State.INVALID,)),)),
        (
            match({"fib": {"result": "type", "flags": ["daddr"]}}, 2),
            (Condition(Field.DESTINATION_TYPE, ("local",)),),
        ),
        (match({"&": [meta("mark"), 16384]}, 16384), (Condition(Field.MARK, (Masked(16384, 16384),)),)),
        (match(meta("mark"), 1), (Condition(Field.MARK, (Masked(0xFFFFFFFF, 1),)),)),
    ],
)
def test_what_a_match_asks_for_is_read(matched: dict[str, Any], conditions: tuple[Condition, ...]) -> None:
    (rule,) = rules([matched, DROP])
    assert rule.conditions == conditions


@pytest.mark.parametrize(
    ("condition", "implied"),
    [
        ({"limit": {"rate": 5, "per": "second"}}, ()),
        ({"quota": {"val": 5, "val_unit": "bytes", "inv": True}}, ()),
        ({"xt": {"type": "match", "name": "conntrack"}}, ()),
        ({"xt": None}, ()),
        ({"of a later version": {}}, ()),
        (match(payload("ip", "saddr"), "@allowed"), (IPV4,)),
        (match(payload("tcp", "dport"), "@ports"), (TCP,)),
        (match({"&": [payload("tcp", "flags"), [2, 16]]}, 2), (TCP,)),
        (match(payload("icmp", "type"), 8), (Condition(Field.PROTOCOL, (1,)),)),
        (match({"concat": [payload("ip", "daddr"), payload("tcp", "dport")]}, {"set": []}), ()),
        (match({"ct": {"key": "status"}}, 32, "in"), ()),
        (match({"fib": {"result": "type", "flags": ["daddr", "iif"]}}, 2), ()),
        (match(meta("iif"), 7), ()),
        (match({"ct": {"key": "state"}}, 3), ()),
    ],
)
def test_what_is_not_understood_is_a_condition_that_is_not_known(
    condition: dict[str, Any], implied: tuple[Condition, ...]
) -> None:
    (rule,) = rules([COUNTER, condition, DROP])
    assert rule.conditions == (*implied, UNKNOWN)


def test_a_map_of_verdicts_is_a_rule_for_each_entry() -> None:
    data = {"set": [[2, {"accept": None}], [1, DROP], [8, {"jump": {"target": "new"}}]]}
    found = rules([{"vmap": {"key": {"ct": {"key": "state"}}, "data": data}}])
    assert [(rule.verdict, rule.conditions[0].values, rule.target) for rule in found] == [
        (Verdict.ACCEPT, (State.ESTABLISHED,), ""),
        (Verdict.DROP, (State.INVALID,), ""),
        (Verdict.JUMP, (State.NEW,), "new"),
    ]
    (named,) = rules([{"vmap": {"key": payload("tcp", "dport"), "data": "@ports"}}])
    assert (named.verdict, named.conditions) == (Verdict.OTHER, (UNKNOWN,))


def test_rules_without_a_verdict_are_left_out_and_the_others_keep_their_order() -> None:
    found = rules([{"jump": {"target": "zones"}}], [COUNTER], [REJECT])
    assert [rule.verdict for rule in found] == [Verdict.JUMP, Verdict.REJECT]


def test_a_rule_has_the_text_of_its_handle() -> None:
    text = 'table ip filter { # handle 1\n\tchain INPUT { # handle 4\n\t\tdrop comment "# handle 3" # handle 5\n\t}\n'
    (rule,) = rules([DROP], text=text)
    assert (rule.text, rule.handle) == ('drop comment "# handle 3"', 5)
    assert rules([DROP])[0].text == "handle 5"


def test_a_table_is_dormant_if_its_flags_say_so() -> None:
    text = "table ip filter {{ # handle 1\n\tflags {}\n\n\tchain dormant {{ # handle 2\n\t}}\n}}\n"
    assert is_dormant(text.format("dormant"))
    assert is_dormant(text.format("owner,dormant"))
    assert not is_dormant(text.format("owner"))


@pytest.mark.parametrize("output", [b"", b"{}", b"[]", b'{"nftables": [{"chain": {}}]}'])
def test_what_is_no_listing_is_refused(output: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_chains(output)
    with pytest.raises(ValueError, match=r"."):
        parse_table(output, "")
