from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source.decode import (
    Decoded,
    object_key,
    read_endpoint_slice,
    read_endpoints,
    read_node,
    read_service,
)
from tests.builders import WEB
from tests.source.documents import endpoint, endpoint_slice, metadata, partly, problems, service

if TYPE_CHECKING:
    from tests.source.documents import Read


READERS: list[Read] = [read_service, read_endpoint_slice, read_endpoints, read_node]


def test_a_wrong_type_is_named_with_its_path_and_its_object() -> None:
    assert read_service(service({"port": 80}, {"port": "443"})) == Decoded(
        None, (Rejection("Service", WEB, "spec.ports[1].port", "expected `int | null`, got `str`"),)
    )
    assert problems(read_service(service(type="NodeBalancer"))) == [
        ("spec.type", "invalid enum value 'NodeBalancer'")
    ]
    assert problems(read_service({"metadata": metadata(labels={"a": 1}), "spec": {}})) == [
        ("metadata.labels[...]", "expected `str | null`, got `int`")
    ]
    assert problems(read_endpoint_slice(endpoint_slice({"addresses": "10.244.1.7"}))) == [
        ("endpoints[0].addresses", "expected `array | null`, got `str`")
    ]


def test_a_creation_time_that_is_none_is_named() -> None:
    document = service()
    document["metadata"]["creationTimestamp"] = "yesterday"
    assert problems(read_service(document)) == [
        ("metadata.creationTimestamp", "invalid RFC3339 encoded datetime")
    ]


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        ({"namespace": "default"}, "metadata.name", "is missing"),
        ({"name": "web"}, "metadata.namespace", "is missing"),
        (
            {"name": "Web", "namespace": "default"},
            "metadata.name",
            "'Web' is not a name: up to 253 of a-z, 0-9, - and . are",
        ),
        (
            {"name": "web", "namespace": "a/b"},
            "metadata.namespace",
            "'a/b' is not a name: up to 253 of a-z, 0-9, - and . are",
        ),
        (
            {"name": "web\n", "namespace": "default"},
            "metadata.name",
            "'web\\n' is not a name: up to 253 of a-z, 0-9, - and . are",
        ),
    ],
)
def test_an_object_needs_the_names_that_the_api_asks_for(
    given: dict[str, str], field: str, reason: str
) -> None:
    decoded = read_service({"metadata": given, "spec": {}})
    assert decoded.value is None
    assert problems(decoded) == [(field, reason)]
    assert decoded.rejections[0].key == ObjectKey(given.get("namespace", ""), given.get("name", ""))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[1]", b"null", b"\xff", b'{"metadata":{"name":"\xff"}}', b"[" * 100_000]
)
def test_what_is_no_json_of_an_object_is_rejected_without_a_name(read: Read, raw: bytes) -> None:
    decoded = read(raw)
    assert decoded.value is None
    (found,) = decoded.rejections
    assert (found.key, found.field) == (ObjectKey("", ""), "")
    assert found.reason


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"metadata": {"name": "web", "namespace": "default"}, "spec": 5}, WEB),
        ({"metadata": {"name": 5, "namespace": "default"}}, ObjectKey("default", "")),
        ({"metadata": {"name": "node-a"}}, ObjectKey("", "node-a")),
        ({"metadata": []}, ObjectKey("", "")),
        ({}, ObjectKey("", "")),
    ],
)
def test_a_key_is_as_much_as_can_be_read_of_it(document: dict[str, Any], expected: ObjectKey) -> None:
    assert object_key(document) == expected
    assert object_key(json.dumps(document).encode()) == expected


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("spoilt", [{"name": "A B"}, {"labels": 5}, {"creationTimestamp": "never"}])
def test_a_rejected_object_is_known_by_its_uid(read: Read, spoilt: dict[str, Any]) -> None:
    document = {"metadata": metadata(uid="1-2-3", labels={"kubernetes.io/service-name": "web"}) | spoilt}
    for decoded in (read(document), read(json.dumps(document).encode())):
        assert decoded.value is None
        assert [found.uid for found in decoded.rejections] == ["1-2-3"]


@pytest.mark.parametrize(
    ("read", "document"),
    [
        (read_service, service({"port": 80}, {"port": 0})),
        (read_endpoint_slice, endpoint_slice(endpoint("0.0.0.0"))),
        (read_endpoints, {"metadata": metadata(), "subsets": [{"addresses": [{}]}]}),
        (read_node, {"metadata": {"name": "node-a"}, "spec": {"podCIDR": "x"}}),
    ],
)
def test_a_part_that_is_left_out_is_known_by_its_objects_uid(read: Read, document: dict[str, Any]) -> None:
    named = {**document, "metadata": document["metadata"] | {"uid": "1-2-3"}}
    assert [found.uid for found in read(named).rejections] == ["1-2-3"]
    assert [found.uid for found in read(document).rejections] == [""]


@pytest.mark.parametrize("uid", [5, None, ["x"]])
def test_a_uid_that_is_no_text_is_none(uid: object) -> None:
    decoded = read_service({"metadata": metadata(uid=uid), "spec": 5})
    assert [found.uid for found in decoded.rejections] == [""]


def test_of_ten_thousand_ports_the_first_thousand_are_used_and_one_reason_says_so() -> None:
    ports = [{"name": f"p{number}", "port": number} for number in range(1, 10_001)]
    found, left_out = partly(service(*ports))
    assert [port.port for port in found.ports] == list(range(1, 1001))
    assert left_out == [("spec.ports", "has 10000 entries, of which the first 1000 are used")]
    assert partly(service(*ports[:1000]))[1] == []


def test_an_object_with_very_many_faults_tells_some_of_them_and_how_many_more_there_are() -> None:
    found, left_out = partly(service({"port": 80}, *({"port": 0} for _ in range(9_999))))
    assert [port.port for port in found.ports] == [80]
    assert left_out == [
        ("spec.ports", "has 10000 entries, of which the first 1000 are used"),
        *((f"spec.ports[{index}].port", "0 is not from 1 to 65535") for index in range(1, 20)),
        ("", "parts left out that are not listed: 980"),
    ]
    slices = read_endpoint_slice(endpoint_slice(*(endpoint("0.0.0.0") for _ in range(21))))
    assert len(slices.rejections) == 21
    assert slices.rejections[-1].reason == "parts left out that are not listed: 1"
    slices = read_endpoint_slice(endpoint_slice(*(endpoint("0.0.0.0") for _ in range(20))))
    assert slices.rejections[-1].field == "endpoints[19].addresses[0]"


def test_a_reason_quotes_no_more_than_somebody_reads() -> None:
    long = "x" * 1_000_000
    documents = [
        service({"port": 80}, {"port": 81, "protocol": long}),
        service(externalIPs=[long]),
        service(type=long),
        service(annotations={f"ipvsproxy.io/{long}": "x"}),
    ]
    for document in documents:
        (found,) = read_service(document).rejections
        assert len(found.reason) <= 301
        assert len(found.field) <= 301


GOOD: dict[Read, dict[str, Any]] = {
    read_service: service(
        {"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080},
        {"name": "dns", "protocol": "UDP", "port": 53},
        annotations={"ipvsproxy.io/scheduler": "lc", "ipvsproxy.io/drain-timeout": "1m"},
        type="LoadBalancer",
        clusterIPs=["10.96.0.10", "fd00:10:96::a"],
        externalIPs=["192.0.2.9"],
        internalTrafficPolicy="Local",
        externalTrafficPolicy="Local",
        healthCheckNodePort=32100,
        loadBalancerSourceRanges=["192.0.2.0/24", "::/0"],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 600}},
    )
    | {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1", "ipMode": "VIP"}]}}},
    read_endpoint_slice: endpoint_slice(
        endpoint(ready=True) | {"hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "b"}]}},
        endpoint("10.244.1.8", serving=False),
    ),
    read_endpoints: {
        "metadata": metadata(),
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "notReadyAddresses": [], "ports": [{"port": 80}]}],
    },
    read_node: {
        "metadata": {"name": "node-a", "uid": "8", "labels": {"topology.kubernetes.io/zone": "b"}},
        "spec": {"podCIDRs": ["10.244.3.0/24"], "taints": [{"key": "a"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.3"}]},
    },
}
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from(["None", "::1", "10.0.0.0", "10.0.0.0/8", "fd00::1", "FQDN", "ExternalName"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(part: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 - any JSON
    """Return every (container, key) of the document."""
    keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else []
    return [place for key in keys for place in [(part, key), *places(part[key])]]


@pytest.mark.parametrize("read", GOOD)
@given(data=st.data())
def test_no_object_raises_however_it_is_spoiled(read: Read, data: st.DataObject) -> None:
    document = copy.deepcopy(GOOD[read])
    container, key = data.draw(st.sampled_from(places(document)))
    container[key] = data.draw(junk)
    decoded = read(document)
    assert decoded.value is not None or len(decoded.rejections) <= 1
    assert all(found.reason for found in decoded.rejections)
    assert isinstance(object_key(document), ObjectKey)


@pytest.mark.parametrize("read", GOOD)
@given(raw=st.binary() | st.text().map(str.encode))
def test_no_bytes_raise(read: Read, raw: bytes) -> None:
    decoded = read(raw)
    assert decoded.value is None
    assert len(decoded.rejections) == 1
