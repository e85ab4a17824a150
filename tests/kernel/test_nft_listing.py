"""What nft lists, taken apart."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from ipvsproxy.kernel.nft_listing import parse_listing
from ipvsproxy.model.addresses import Family, format_address
from ipvsproxy.model.firewall import MAPS, FirewallSet, SetElement, SourceList
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.firewall import NODE_ALONE, source_list_chain
from tests.builders import address, key, source_list
from tests.kernel.contract_firewall import (
    ADDRESS,
    ADDRESS6,
    ENDPOINT,
    PORT,
    WITHOUT_ENDPOINTS,
    redirection,
    restriction,
)
from tests.kernel.nft_json import objects_of
from tests.kernel.set_elements import ELEMENTS_SIDE_BY_SIDE

if TYPE_CHECKING:
    from ipvsproxy.kernel.nft_listing import Listing
    from ipvsproxy.model.addresses import Network

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


def a_map(name: str, *elements: object) -> dict[str, Any]:
    body = a_set(name, *elements)["set"]
    return {"map": body | {"map": "ipv4_addr"}}


def port_to(verdict: object) -> list[Any]:
    return [{"concat": ["203.0.113.1", 6, 80]}, verdict]


def a_list(of: SourceList, *elements: object) -> list[dict[str, Any]]:
    """Return what nft prints of a source list."""
    others = objects_of([source_list_chain(of)])
    return [a_set(of.name, *elements), *others]


MODELS = [each for of in NODE_ALONE for each in a_list(of)]


def digest_chain(name: str) -> dict[str, Any]:
    return {"chain": {"family": "inet", "table": "ipvsproxy", "name": name, "handle": 20}}


INSTALLED: list[dict[str, Any]] = [
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
    ("network", "printed"),
    [
        ("10.0.0.0/8", {"prefix": {"addr": "10.0.0.0", "len": 8}}),
        ("10.0.0.0/8", {"range": ["10.0.0.0", "10.255.255.255"]}),
        ("0.0.0.0/0", {"prefix": {"addr": "0.0.0.0", "len": 0}}),
        ("0.0.0.0/0", {"range": ["0.0.0.0", "255.255.255.255"]}),
        ("192.0.2.1/32", "192.0.2.1"),
        ("192.0.2.1/32", {"prefix": {"addr": "192.0.2.1", "len": 32}}),
        ("192.0.2.1/32", {"range": ["192.0.2.1", "192.0.2.1"]}),
    ],
)
def test_a_network_is_read_however_nft_prints_it(network: str, printed: object) -> None:
    of = source_list(network)
    listed = parse(*MODELS, *a_list(of, printed))
    assert listed.elements == {SetElement(FirewallSet.SOURCE_LISTS, (of,))}
    assert not listed.strange


def test_a_single_ipv6_address_is_a_network() -> None:
    of = source_list("2001:db8::1/128", of=Family.IPV6)
    assert parse(*MODELS, *a_list(of, "2001:db8::1")).elements == {
        SetElement(FirewallSet.SOURCE_LISTS, (of,))
    }


def test_the_lists_that_are_always_there_are_no_elements() -> None:
    listed = parse(*MODELS)
    assert listed.elements == frozenset()
    assert not listed.strange


LIST = source_list("10.0.0.0/8")
PRINTED = a_list(LIST, {"prefix": {"addr": "10.0.0.0", "len": 8}})


@pytest.mark.parametrize("admits_node", [False, True])
def test_a_source_list_is_as_it_should_be_if_it_looks_like_the_one_that_is_always_there(
    *, admits_node: bool
) -> None:
    of = source_list("10.0.0.0/8", admits_node=admits_node)
    objects = a_list(of, {"prefix": {"addr": "10.0.0.0", "len": 8}})
    assert not parse(*MODELS, *objects).strange
    for index in range(len(objects)):
        others = [*objects[:index], *objects[index + 1 :]]
        assert parse(*MODELS, *others).strange
        assert parse(*MODELS, *others).elements == frozenset()
    rules = [each for each in objects if "rule" in each]
    reversed_rules = [*(each for each in objects if "rule" not in each), *reversed(rules)]
    assert parse(*MODELS, *reversed_rules).strange
    assert parse(*MODELS, *objects, rule(of.name, "accept", 9)).strange


@pytest.mark.parametrize(
    "elements",
    [
        (),
        ({"prefix": {"addr": "10.0.0.0", "len": 9}},),
        ({"prefix": {"addr": "10.0.0.0", "len": 8}}, "192.0.2.1"),
        ({"range": ["10.0.0.0", "10.0.0.2"]},),
        ({"range": ["10.0.0.1", "10.0.0.0"]},),
        ({"range": ["10.0.0.0", "::1"]},),
        ({"range": [1, 2]},),
        ({"prefix": {"addr": "10.0.0.0", "len": 33}},),
        ({"prefix": {"addr": "10.0.0.0"}},),
        (10,),
        ({"elem": {"val": {"prefix": {"addr": "10.0.0.0", "len": 8}}, "comment": "mine"}},),
    ],
)
def test_a_source_list_whose_networks_do_not_lead_to_its_name_is_none(elements: tuple[object, ...]) -> None:
    listed = parse(*MODELS, *a_list(LIST, *elements))
    assert listed.elements == frozenset()
    assert listed.strange


def test_source_lists_are_not_part_of_the_digest_but_those_that_are_always_there_are() -> None:
    digest = parse(*INSTALLED, *MODELS).digest_name
    assert parse(*INSTALLED, *MODELS, *PRINTED).digest_name == digest
    for index in range(len(MODELS)):
        assert parse(*INSTALLED, *MODELS[:index], *MODELS[index + 1 :]).digest_name != digest


def test_a_map_has_pairs() -> None:
    listing = parse(
        a_map("restricted-service-ports-ipv4", port_to({"jump": {"target": LIST.name}})),
        a_map(
            "in-cluster-destinations-ipv4",
            [{"concat": ["203.0.113.1", 6, 80]}, {"concat": ["10.96.0.1", 80]}],
        ),
        a_map(
            "in-cluster-destinations-ipv6",
            [{"concat": ["2001:db8::1", 6, 80]}, {"concat": ["fd00:96::1", 80]}],
        ),
    )
    assert listing.elements == {
        restriction(SetElement(FirewallSet.SOURCE_LISTS, (LIST,))),
        redirection("10.96.0.1"),
        redirection("fd00:96::1", of="2001:db8::1"),
    }
    assert not listing.strange


def printed(network: Network) -> object:
    """Return a network as nft 1.0.6 prints it."""
    text = format_address(network.address)
    single = network.prefix_length == network.family.bits
    return text if single else {"prefix": {"addr": text, "len": network.prefix_length}}


def objects_for(element: SetElement) -> list[dict[str, Any]]:
    """Return what nft 1.0.6 prints for an element."""
    first = element.fields[0]
    if isinstance(first, SourceList):
        return a_list(first, *map(printed, first.networks))
    fields: list[object] = [
        format_address(field) if isinstance(field, bytes) else field for field in element.fields
    ]
    if element.set is FirewallSet.RESTRICTED_PORTS:
        fields[-1] = {"jump": {"target": fields[-1]}}
    if element.set in MAPS:
        value = fields[-1] if len(fields) == 4 else {"concat": fields[3:]}
        return [a_map(element.set_name, [{"concat": fields[:3]}, value])]
    return [a_set(element.set_name, fields[0] if len(fields) == 1 else {"concat": fields})]


@given(ELEMENTS_SIDE_BY_SIDE)
def test_all_elements_are_read_as_they_were_added(elements: frozenset[SetElement]) -> None:
    listing = parse(*MODELS, *(each for element in elements for each in objects_for(element)))
    assert listing.elements == elements
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
        ("agent-ports", {"concat": [1, 80]}),
        ("agent-ports", 80),
        ("restricted-service-ports-ipv4", {"concat": ["203.0.113.1", 6, 80]}),
        ("restricted-service-ports-ipv4", port_to("10.96.0.1")),
        ("restricted-service-ports-ipv4", port_to({"drop": None})),
        ("restricted-service-ports-ipv4", port_to({"jump": {"target": "refusal"}})),
        ("restricted-service-ports-ipv4", port_to({"goto": {"target": LIST.name}})),
        ("sources-ipv4-0", "10.96.0.1"),
        ("in-cluster-destinations-ipv4", {"concat": ["203.0.113.1", 6, 80]}),
        ("in-cluster-destinations-ipv4", [{"concat": ["203.0.113.1", 6, 80]}]),
        ("in-cluster-destinations-ipv4", [{"concat": ["203.0.113.1", 6, 80]}, "10.96.0.1"]),
        ("in-cluster-destinations-ipv4", [{"concat": ["203.0.113.1", 6, 80]}, {"range": ["::", "::1"]}]),
        (
            "in-cluster-destinations-ipv4",
            [{"elem": {"val": {"concat": ["203.0.113.1", 6, 80]}}}, {"concat": ["10.96.0.1", 80]}],
        ),
        ("somebodys", "10.96.0.1"),
    ],
)
def test_an_element_such_as_the_agent_never_adds_is_left_out_and_the_table_is_not_intact(
    name: str, element: object
) -> None:
    listing = parse(*MODELS, a_set(name, element), a_set("service-addresses-ipv6", "fd00:96::1"))
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
        a_map("extra"),
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
