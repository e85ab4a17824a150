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
from tests.source.documents import endpoint, endpoint_slice, metadata, problems, service

if TYPE_CHECKING:
    from tests.source.documents import Read


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


@pytest.mark.parametrize("read", [read_service, read_endpoint_slice, read_endpoints, read_node])
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


GOOD: dict[Read, dict[str, Any]] = {
    read_service: service(
        {"name": "http", "protocol": "TCP", "port": 80},
        {"name": "dns", "protocol": "UDP", "port": 53},
        clusterIPs=["10.96.0.10", "fd00:10:96::a"],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 600}},
    ),
    read_endpoint_slice: endpoint_slice(endpoint(ready=True), endpoint("10.244.1.8", serving=False)),
    read_endpoints: {
        "metadata": metadata(),
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "notReadyAddresses": [], "ports": [{"port": 80}]}],
    },
    read_node: {
        "metadata": {"name": "node-a", "labels": {"a": "b"}},
        "spec": {"podCIDRs": ["10.244.3.0/24"]},
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
    assert isinstance(object_key(document), ObjectKey)


@pytest.mark.parametrize("read", GOOD)
@given(raw=st.binary() | st.text().map(str.encode))
def test_no_bytes_raise(read: Read, raw: bytes) -> None:
    decoded = read(raw)
    assert decoded.value is None
    assert len(decoded.rejections) == 1
