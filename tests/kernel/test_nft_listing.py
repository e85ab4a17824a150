"""What nft lists, taken apart."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.kernel.nft_listing import parse_listing
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import Protocol
from tests.builders import address, key
from tests.kernel.contract_firewall import ADDRESS, ADDRESS6, ENDPOINT, PORT, WITHOUT_ENDPOINTS

if TYPE_CHECKING:
    from ipvsproxy.kernel.nft_listing import Listing

RULES = "table inet ipvsproxy { … }"

TABLE = {"table": {"family": "inet", "name": "ipvsproxy", "handle": 1}}
INPUT = {"chain": {"family": "inet", "table": "ipvsproxy", "name": "input", "handle": 2, "hook": "input"}}
OUTPUT = {"chain": {"family": "inet", "table": "ipvsproxy", "name": "output", "handle": 3, "hook": "output"}}


def rule(chain: str, what: str, handle: int) -> dict[str, Any]:
    return {
        "rule": {
            "family": "inet",
            "table": "ipvsproxy",
            "chain": chain,
            "handle": handle,
            "expr": [{what: None}],
        }
    }


def a_set(name: str, *elements: object, handle: int = 9) -> dict[str, Any]:
    body: dict[str, Any] = {"family": "inet", "name": name, "table": "ipvsproxy", "handle": handle}
    return {"set": body | ({"elem": list(elements)} if elements else {})}


def digest_chain(name: str) -> dict[str, Any]:
    return {"chain": {"family": "inet", "table": "ipvsproxy", "name": name, "handle": 20}}


INSTALLED = [
    TABLE,
    a_set("service-addresses-ipv4"),
    a_set("service-ports-ipv4"),
    INPUT,
    OUTPUT,
    rule("input", "return", 4),
    rule("input", "drop", 5),
    rule("output", "accept", 6),
]


def parse(*objects: dict[str, Any], rules: str = RULES) -> Listing:
    listed = [{"metainfo": {"version": "1.0.6"}}, *objects]
    return parse_listing(json.dumps({"nftables": listed}).encode(), rules)


DIGEST = parse(*INSTALLED).digest_name


def test_elements_of_all_sets_are_read() -> None:
    listing = parse(
        TABLE,
        a_set("service-addresses-ipv4", "10.96.0.1"),
        a_set("service-addresses-ipv6", "fd00:96::1"),
        a_set("service-ports-ipv4", {"concat": ["10.96.0.1", 6, 80]}, {"concat": ["10.96.0.1", 132, 9]}),
        a_set("service-ports-without-endpoints-ipv4", {"concat": ["10.96.0.1", 6, 81]}),
        a_set("local-endpoints-ipv4", {"concat": ["10.244.1.2", "10.244.1.2"]}),
    )
    sctp = SetElement(FirewallSet.SERVICE_PORTS, key("10.96.0.1", 9, Protocol.SCTP))
    assert listing.elements == {ADDRESS, ADDRESS6, PORT, sctp, WITHOUT_ENDPOINTS, ENDPOINT}
    assert not listing.strange


@pytest.mark.parametrize(
    ("name", "element"),
    [
        ("service-addresses-ipv4", {"elem": {"val": "10.0.0.1", "comment": "mine"}}),
        ("service-addresses-ipv4", {"prefix": {"addr": "10.0.0.0", "len": 8}}),
        ("service-addresses-ipv4", {"concat": ["10.96.0.1", 6, 80]}),
        ("service-addresses-ipv4", 10),
        ("service-addresses-ipv4", "example"),
        ("service-ports-ipv4", "10.96.0.1"),
        ("service-ports-ipv4", {"concat": ["10.96.0.1", 1, 0]}),
        ("service-ports-ipv4", {"concat": ["10.96.0.1", 6]}),
        ("service-ports-ipv4", {"concat": ["10.96.0.1", 6, {"range": [1, 2]}]}),
        ("service-ports-ipv4", {"elem": {"val": {"concat": ["10.96.0.1", 6, 80]}, "timeout": 60}}),
        ("local-endpoints-ipv4", {"concat": ["10.244.1.2", 8]}),
        ("somebodys", "10.96.0.1"),
    ],
)
def test_an_element_such_as_the_agent_never_adds_is_left_out_and_the_table_is_not_intact(
    name: str, element: object
) -> None:
    listing = parse(a_set(name, element), a_set("service-addresses-ipv6", "fd00:96::1"))
    assert listing.elements == {ADDRESS6}
    assert listing._replace(recorded=(listing.digest_name,)).strange
    assert not listing._replace(recorded=(listing.digest_name,)).intact


def test_a_table_is_intact_with_its_digest_and_only_with_that() -> None:
    assert parse(*INSTALLED, digest_chain(DIGEST)).intact
    assert not parse(*INSTALLED).intact
    assert not parse(*INSTALLED, digest_chain("digest-0")).intact
    assert not parse(*INSTALLED, digest_chain(DIGEST), digest_chain("digest-0")).intact


def test_elements_and_handles_are_not_part_of_the_digest() -> None:
    changed = deepcopy(INSTALLED)
    changed[1]["set"]["elem"] = ["10.96.0.1"]
    changed[5]["rule"]["handle"] = 99
    assert parse(*changed, digest_chain(DIGEST)).intact


def test_the_order_in_which_nft_lists_chains_and_sets_is_not_part_of_the_digest() -> None:
    assert parse(*reversed(INSTALLED[:5]), *INSTALLED[5:], digest_chain(DIGEST)).intact
    assert parse(INSTALLED[7], *INSTALLED[:7], digest_chain(DIGEST)).intact


def test_the_order_of_a_chains_rules_is_part_of_the_digest() -> None:
    table, rules = INSTALLED[:5], INSTALLED[5:]
    assert not parse(*table, rules[1], rules[0], rules[2], digest_chain(DIGEST)).intact


def test_everything_else_is_part_of_the_digest() -> None:
    for index, each in enumerate(INSTALLED):
        others = [*INSTALLED[:index], *INSTALLED[index + 1 :]]
        assert not parse(*others, digest_chain(DIGEST)).intact
        ((kind, body),) = each.items()
        for changed in ({**body, "flags": "dormant"}, {**body, "expr": [{"counter": None}]}):
            assert not parse(*others, {kind: changed}, digest_chain(DIGEST)).intact
    extras: list[dict[str, Any]] = [
        rule("input", "accept", 7),
        rule(DIGEST, "accept", 7),
        {"map": {"family": "inet", "table": "ipvsproxy", "name": "extra"}},
        {"unheard-of": {}},
    ]
    for extra in extras:
        assert not parse(*INSTALLED, extra, digest_chain(DIGEST)).intact


def test_rules_of_another_version_of_the_agent_have_another_digest() -> None:
    assert not parse(*INSTALLED, digest_chain(DIGEST), rules=RULES + " ").intact


@pytest.mark.parametrize("output", [b"", b"{}", b'{"nftables": [1]}', b"table inet ipvsproxy {"])
def test_what_is_no_listing_is_an_error(output: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_listing(output, RULES)


def test_an_ipv4_mapped_address_stays_an_ipv6_address() -> None:
    mapped = SetElement(FirewallSet.SERVICE_ADDRESSES, (address("::ffff:10.96.0.1"),))
    assert parse(a_set("service-addresses-ipv6", "::ffff:10.96.0.1")).elements == {mapped}
