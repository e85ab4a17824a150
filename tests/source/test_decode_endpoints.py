from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ipvsproxy.model.addresses import Family, parse_address
from ipvsproxy.model.objects import (
    Endpoint,
    EndpointSlice,
    ObjectKey,
    Protocol,
    ServicePort,
    SliceAuthor,
    SlicePort,
)
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source.decode import Decoded, read_endpoint_slice, read_endpoints, read_service
from tests.builders import WEB
from tests.source.documents import endpoint, endpoint_slice, is_ignored, metadata, problems, service


def only_slice(document: dict[str, Any]) -> EndpointSlice:
    """Return the EndpointSlice that both ways of reading give, without any rejection."""
    decoded = read_endpoint_slice(document)
    assert decoded == read_endpoint_slice(json.dumps(document).encode())
    assert decoded.rejections == ()
    assert decoded.value is not None
    return decoded.value


def test_an_endpoint_slice_is_read_from_what_an_api_server_sends() -> None:
    raw = msgspec.Raw(
        b'{"metadata":{"name":"web-1","namespace":"default","labels":{"app":"web",'
        b'"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"web"}},'
        b'"addressType":"IPv6","endpoints":[{"addresses":["fd00:10:244::7"],"conditions":'
        b'{"ready":false,"serving":true,"terminating":true},"targetRef":{"kind":"Pod","name":"web-7"},'
        b'"nodeName":"node-a","zone":"z","hints":{"forZones":[{"name":"z"},{"name":"y"}],'
        b'"forNodes":[{"name":"node-a"}]}}],"ports":[{"name":"http","protocol":"TCP","port":8080,"appProtocol":"http"}]}'
    )
    assert read_endpoint_slice(raw) == Decoded(
        EndpointSlice(
            ObjectKey("default", "web-1"),
            WEB,
            Family.IPV6,
            (SlicePort("http", Protocol.TCP, 8080),),
            (
                Endpoint(
                    parse_address("fd00:10:244::7"),
                    ready=False,
                    serving=True,
                    terminating=True,
                    node_name="node-a",
                    for_zones=("z", "y"),
                    for_nodes=("node-a",),
                ),
            ),
            SliceAuthor.CONTROLLER,
        )
    )


@pytest.mark.parametrize(
    "contents",
    [
        {"labels": {}},
        {"labels": {"endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"}},
        {"labels": {"endpointslice.kubernetes.io/managed-by": None}},
        {
            "labels": {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            "deletionTimestamp": "2026-10-01T08:00:00Z",
        },
    ],
    ids=["without-a-label", "mirrored-from-Endpoints", "null", "kept-from-its-deletion"],
)
def test_a_slice_that_the_controller_does_not_keep_is_anybodys(contents: dict[str, Any]) -> None:
    document = endpoint_slice({"addresses": ["10.244.1.7"]})
    document["metadata"] |= contents | {"labels": document["metadata"]["labels"] | contents["labels"]}
    assert only_slice(document).author is SliceAuthor.ANYBODY


def test_a_slice_without_conditions_counts_as_ready() -> None:
    expected = Endpoint(parse_address("10.244.1.7"), ready=True, serving=True, terminating=False)
    bare: list[dict[str, Any]] = [
        {"addresses": ["10.244.1.7"]},
        {"addresses": ["10.244.1.7"], "conditions": None, "nodeName": None},
        {"addresses": ["10.244.1.7"], "conditions": {}, "nodeName": ""},
        endpoint(ready=None, serving=None, terminating=None),
    ]
    assert only_slice(endpoint_slice(*bare)).endpoints == (expected,) * 4


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ready": False}, (False, True, False)),
        ({"ready": False, "serving": False}, (False, False, False)),
        ({"ready": False, "serving": True, "terminating": True}, (False, True, True)),
        ({"ready": True, "serving": True, "terminating": False}, (True, True, False)),
    ],
)
def test_each_condition_stands_for_itself(given: dict[str, Any], expected: tuple[bool, bool, bool]) -> None:
    (found,) = only_slice(endpoint_slice(endpoint(**given))).endpoints
    assert (found.ready, found.serving, found.terminating) == expected


@pytest.mark.parametrize(
    "hints",
    [
        None,
        {},
        {"forZones": None, "forNodes": None},
        {"forZones": [], "forNodes": []},
        {"forZones": [{}], "forNodes": [{"name": ""}, {"name": None}]},
    ],
)
def test_hints_that_name_nothing_are_none(hints: dict[str, Any] | None) -> None:
    (found,) = only_slice(endpoint_slice({"addresses": ["10.244.1.7"], "hints": hints})).endpoints
    assert (found.for_zones, found.for_nodes) == ((), ())


def test_each_kind_of_hint_stands_for_itself() -> None:
    zones, nodes = {"forZones": [{"name": "a"}]}, {"forNodes": [{"name": "a"}]}
    endpoints = [{"addresses": ["10.244.1.7"], "hints": hints} for hints in (zones, nodes)]
    found = only_slice(endpoint_slice(*endpoints)).endpoints
    assert [(each.for_zones, each.for_nodes) for each in found] == [(("a",), ()), ((), ("a",))]


def test_only_the_first_address_of_an_endpoint_counts() -> None:
    (found,) = only_slice(endpoint_slice({"addresses": ["10.244.1.7", "10.244.1.8", "nonsense"]})).endpoints
    assert found.address == parse_address("10.244.1.7")


def test_a_port_without_a_number_is_skipped() -> None:
    ports = [
        {"name": "all"},
        {"name": "null", "port": None},
        {"name": "zero", "port": 0},
        {"name": "http", "port": 80},
    ]
    assert only_slice(endpoint_slice(ports=ports)).ports == (SlicePort("http", Protocol.TCP, 80),)


def test_two_ports_of_a_slice_may_have_one_number() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "metrics", "port": 80}]
    assert [port.name for port in only_slice(endpoint_slice(ports=ports)).ports] == ["http", "metrics"]


@pytest.mark.parametrize("nothing", [None, []])
def test_a_slice_may_be_empty(nothing: list[Any] | None) -> None:
    found = only_slice(endpoint_slice(ports=nothing, endpoints=nothing))
    assert (found.ports, found.endpoints) == ((), ())


@pytest.mark.parametrize(
    "more",
    [
        {"addressType": "FQDN", "endpoints": [endpoint("example.org")]},
        {"metadata": metadata()},
        {"metadata": metadata(labels={})},
        {"metadata": metadata(labels={"kubernetes.io/service-name": ""})},
    ],
)
def test_slices_of_names_or_of_no_service_are_of_no_concern(more: dict[str, Any]) -> None:
    assert is_ignored(read_endpoint_slice(endpoint_slice(**more)))


@pytest.mark.parametrize("address_type", ["IP", "", None])
def test_a_slice_of_an_unknown_address_type_is_rejected(address_type: str | None) -> None:
    decoded = read_endpoint_slice(endpoint_slice(addressType=address_type))
    assert decoded.value is None
    assert problems(decoded) == [("addressType", f"{address_type!r} is not IPv4, IPv6 or FQDN")]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (endpoint("10.244.1"), "'10.244.1' is not an IP address"),
        (endpoint("fd00::1"), "fd00::1 is not of the slice's addressType"),
        (endpoint("127.0.0.1"), "127.0.0.1 is a loopback address"),
        (endpoint("169.254.1.1"), "169.254.1.1 is a link-local address"),
        (endpoint("224.0.0.1"), "224.0.0.1 is a multicast address"),
        (endpoint("0.0.0.0"), "0.0.0.0 is the unspecified address"),
        (endpoint("255.255.255.255"), "255.255.255.255 is the broadcast address"),
        (endpoint("::1"), "::1 is not of the slice's addressType"),
        ({"addresses": []}, "is missing"),
        ({}, "is missing"),
    ],
)
def test_a_bad_endpoint_is_left_out_and_the_others_stay(bad: dict[str, Any], reason: str) -> None:
    decoded = read_endpoint_slice(endpoint_slice(endpoint("10.244.1.7"), bad, endpoint("10.244.1.8")))
    assert decoded.value is not None
    assert [found.address for found in decoded.value.endpoints] == [
        parse_address("10.244.1.7"),
        parse_address("10.244.1.8"),
    ]
    key = ObjectKey("default", "web-1")
    assert decoded.rejections == (Rejection("EndpointSlice", key, "endpoints[1].addresses[0]", reason),)


@pytest.mark.parametrize("text", ["::", "::1", "fe80::1", "ff02::1", "::ffff:127.0.0.1"])
def test_an_ipv6_endpoint_that_no_traffic_can_be_sent_to_is_left_out(text: str) -> None:
    decoded = read_endpoint_slice(
        endpoint_slice(endpoint(text), endpoint("fd00:10:244::7"), addressType="IPv6")
    )
    assert decoded.value is not None
    assert [found.address for found in decoded.value.endpoints] == [parse_address("fd00:10:244::7")]
    assert [found.field for found in decoded.rejections] == ["endpoints[0].addresses[0]"]


def test_a_slice_of_bad_endpoints_alone_is_empty_and_not_rejected() -> None:
    decoded = read_endpoint_slice(endpoint_slice(endpoint("localhost")))
    assert decoded.value is not None
    assert decoded.value.endpoints == ()


def test_a_bad_port_of_a_slice_is_left_out_and_the_others_stay() -> None:
    ports = [
        {"name": "a", "port": 65536},
        {"name": "b", "port": 53, "protocol": "QUIC"},
        {"name": "c", "port": 1},
    ]
    decoded = read_endpoint_slice(endpoint_slice(ports=ports))
    assert decoded.value is not None
    assert decoded.value.ports == (SlicePort("c", Protocol.TCP, 1),)
    assert problems(decoded) == [
        ("ports[0].port", "65536 is not from 1 to 65535"),
        ("ports[1].protocol", "'QUIC' is not TCP, UDP or SCTP"),
    ]


def test_addresses_near_the_special_ones_are_good() -> None:
    texts = [
        "169.253.255.255",
        "0.0.0.1",
        "126.255.255.255",
        "223.255.255.255",
        "240.0.0.1",
        "255.255.255.254",
    ]
    assert len(only_slice(endpoint_slice(*map(endpoint, texts))).endpoints) == len(texts)
    texts = ["fec0::1", "fe00::1", "64:ff9b::1", "::2"]
    assert len(only_slice(endpoint_slice(*map(endpoint, texts), addressType="IPv6")).endpoints) == len(texts)


def test_equal_names_and_ports_are_kept_once() -> None:
    hints = {"forZones": [{"name": "zone-of-this-test"}], "forNodes": [{"name": "node-of-this-test"}]}
    given = {"addresses": ["10.244.1.7"], "nodeName": "node-of-this-test", "hints": hints}
    raw = json.dumps(endpoint_slice(given)).encode()
    first, second = read_endpoint_slice(raw).value, read_endpoint_slice(raw).value
    assert first is not None
    assert second is not None
    assert first.ports is second.ports
    assert first.key.namespace is second.key.namespace
    assert first.endpoints[0].node_name is second.endpoints[0].node_name
    assert first.endpoints[0].for_zones is second.endpoints[0].for_zones
    assert first.endpoints[0].for_nodes is second.endpoints[0].for_nodes
    assert first.endpoints[0].for_nodes[0] is first.endpoints[0].node_name


def test_a_service_and_a_slice_with_equal_ports_keep_values_of_their_own_types() -> None:
    of_service = read_service(service({"name": "same", "port": 4711})).value
    of_slice = read_endpoint_slice(endpoint_slice(ports=[{"name": "same", "port": 4711}])).value
    assert of_service is not None
    assert of_slice is not None
    assert type(of_service.ports[0]) is ServicePort
    assert type(of_slice.ports[0]) is SlicePort


def test_endpoints_become_a_slice_for_each_subset_and_family() -> None:
    document = {
        "metadata": metadata(),
        "subsets": [
            {
                "addresses": [{"ip": "192.0.2.1", "nodeName": "node-a"}, {"ip": "2001:db8::1"}],
                "notReadyAddresses": [{"ip": "192.0.2.2"}],
                "ports": [{"name": "http", "port": 8080}],
            },
            {
                "addresses": [{"ip": "192.0.2.3"}],
                "ports": [{"name": "http", "port": 9090, "protocol": "SCTP"}],
            },
            {"ports": [{"port": 1}]},
        ],
    }
    ready = [Endpoint(parse_address("192.0.2.1"), node_name="node-a"), Endpoint(parse_address("2001:db8::1"))]
    not_ready = Endpoint(parse_address("192.0.2.2"), ready=False, serving=False)
    http = (SlicePort("http", Protocol.TCP, 8080),)
    expected = (
        EndpointSlice(
            ObjectKey("default", "web/subsets[0]/IPv4"),
            WEB,
            Family.IPV4,
            http,
            (ready[0], not_ready),
            SliceAuthor.OPERATOR,
        ),
        EndpointSlice(
            ObjectKey("default", "web/subsets[0]/IPv6"),
            WEB,
            Family.IPV6,
            http,
            (ready[1],),
            SliceAuthor.OPERATOR,
        ),
        EndpointSlice(
            ObjectKey("default", "web/subsets[1]/IPv4"),
            WEB,
            Family.IPV4,
            (SlicePort("http", Protocol.SCTP, 9090),),
            (Endpoint(parse_address("192.0.2.3")),),
            SliceAuthor.OPERATOR,
        ),
    )
    assert read_endpoints(document) == Decoded(expected)
    assert read_endpoints(json.dumps(document).encode()) == Decoded(expected)


def test_endpoints_without_subsets_are_no_slices() -> None:
    assert read_endpoints({"metadata": metadata()}) == Decoded(())
    assert read_endpoints({"metadata": metadata(), "subsets": None}) == Decoded(())


def test_endpoints_that_are_not_to_be_mirrored_are_of_no_concern() -> None:
    labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    assert is_ignored(read_endpoints({"metadata": metadata(labels=labels)}))


def test_bad_parts_of_endpoints_are_left_out_with_their_paths() -> None:
    decoded = read_endpoints(
        {
            "metadata": metadata(),
            "subsets": [
                {"addresses": [{"ip": "192.0.2.1"}]},
                {
                    "addresses": [{"ip": "192.0.2.300"}, {}],
                    "notReadyAddresses": [{"ip": "::1"}],
                    "ports": [{"port": 99999}],
                },
            ],
        }
    )
    assert decoded.value is not None
    assert len(decoded.value) == 1
    assert problems(decoded) == [
        ("subsets[1].addresses[0].ip", "'192.0.2.300' is not an IP address"),
        ("subsets[1].addresses[1].ip", "is missing"),
        ("subsets[1].notReadyAddresses[0].ip", "::1 is a loopback address"),
        ("subsets[1].ports[0].port", "99999 is not from 1 to 65535"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", 1767323045.0),
        ("2026-01-02T03:04:05.123456789Z", 1767323045.123456),
        ("2026-01-02T04:04:05+01:00", 1767323045.0),
        ("2026-01-02T03:04:05", 0.0),
        ("yesterday", 0.0),
        ("", 0.0),
        (17, 0.0),
        (None, 0.0),
    ],
)
def test_a_slice_says_when_that_happened_which_changed_it(text: object, expected: float) -> None:
    document = endpoint_slice()
    document["metadata"]["annotations"] = {"endpoints.kubernetes.io/last-change-trigger-time": text}
    assert only_slice(document).triggered == expected


@pytest.mark.parametrize("annotations", [None, {}, [], "text"])
def test_a_slice_with_other_annotations_or_none_is_read_all_the_same(annotations: object) -> None:
    document = endpoint_slice()
    document["metadata"]["annotations"] = annotations
    assert only_slice(document).triggered == 0.0
