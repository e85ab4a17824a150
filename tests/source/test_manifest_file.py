from __future__ import annotations

import contextlib
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.addresses import parse_address
from ipvsproxy.model.objects import EndpointSlice, Node, ObjectKey, Service, SliceAuthor
from ipvsproxy.source import manifest_file
from ipvsproxy.source.manifest_file import Manifest, ManifestError, Remark, keep_last_good, read_manifest
from tests.builders import WEB
from tests.source.malformed import HARMLESS

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  clusterIP: 10.96.0.10
  ports:
  - port: 80
"""
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n"


def read(text: str, name: str = "web.yaml") -> Manifest:
    return read_manifest(name, text.encode())


def refused(text: str | bytes, name: str = "web.yaml") -> tuple[int, str]:
    with pytest.raises(ManifestError) as error:
        read_manifest(name, text if isinstance(text, bytes) else text.encode())
    return error.value.line, error.value.reason


def only_service(text: str) -> Service:
    (found,) = read(text).objects
    (service,) = found.values
    assert isinstance(service, Service)
    return service


def test_a_file_may_have_several_documents_each_with_its_line() -> None:
    manifest = read(f"# the shop\n---\n{SERVICE}---\n---\n# the node\n{NODE}")
    assert [(found.kind, found.key, found.line) for found in manifest.objects] == [
        ("Service", WEB, 3),
        ("Node", ObjectKey("", "node-a"), 14),
    ]
    assert manifest.objects[1].values == (Node("node-a"),)
    assert (manifest.ignored, manifest.unusable) == ((), ())


@pytest.mark.parametrize("text", ["", "---\n", "# nothing yet\n", "---\n---\n", "null\n"])
def test_a_file_may_have_no_document(text: str) -> None:
    assert read(text) == Manifest()


def test_a_list_counts_as_its_items_each_with_its_line() -> None:
    items = "".join(f"- {block.rstrip().replace(chr(10), chr(10) + '  ')}\n" for block in (SERVICE, NODE))
    manifest = read(f"kind: List\napiVersion: v1\nitems:\n{items}")
    assert [(found.kind, found.line) for found in manifest.objects] == [("Service", 4), ("Node", 12)]
    assert read("kind: List\napiVersion: v1\nitems:\n") == Manifest()
    assert read("kind: List\napiVersion: v1\nitems: 5\n").unusable[0].line == 1


def test_json_is_read_with_its_tabs() -> None:
    node = '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}'
    text = f'{{\n\t"apiVersion": "v1",\n\t"kind": "List",\n\t"items": [{node}]\n}}'
    assert [found.values for found in read(text, "list.json").objects] == [(Node("a"),)]


def test_the_namespace_is_default_where_there_is_none() -> None:
    assert only_service(SERVICE).key == WEB
    assert only_service(SERVICE.replace("name: web", "name: web\n  namespace: shop")).key == ObjectKey(
        "shop", "web"
    )
    assert read(NODE).objects[0].key == ObjectKey("", "node-a")


def test_dates_are_text_as_they_are_to_the_api() -> None:
    dated = SERVICE.replace(
        "name: web", "name: web\n  creationTimestamp: 2024-05-01T12:34:56Z\n  labels: {since: 2024-05-01}"
    )
    assert only_service(dated).created == 1714566896


@pytest.mark.parametrize("address", ["", "  clusterIP: ''\n", "  clusterIP:\n", "  clusterIPs: []\n"])
def test_a_service_that_leaves_its_address_to_the_api_server_is_rejected(address: str) -> None:
    (found,) = read(SERVICE.replace("  clusterIP: 10.96.0.10\n", address)).objects
    assert found.values == ()
    assert [str(rejection) for rejection in found.rejections] == [
        "Service default/web: spec.clusterIP: no address: a directory of manifests has no allocator, so name one"
    ]


def test_a_service_without_a_spec_is_rejected_too() -> None:
    (found,) = read("apiVersion: v1\nkind: Service\nmetadata: {name: web}\n").objects
    assert found.rejections[0].field == "spec.clusterIP"


def test_headless_services_and_external_names_need_no_address() -> None:
    assert only_service(SERVICE.replace("10.96.0.10", "None")).cluster_ips == ()
    external = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {type: ExternalName}\n"
    assert only_service(external).cluster_ips == ()


def test_an_ipv6_address_needs_no_quotes() -> None:
    assert only_service(SERVICE.replace("10.96.0.10", "fd00:10:96::a")).cluster_ips == (
        parse_address("fd00:10:96::a"),
    )


def test_a_service_of_another_proxy_is_of_no_concern_even_without_an_address() -> None:
    text = SERVICE.replace(
        "name: web", "name: web\n  labels: {service.kubernetes.io/service-proxy-name: other}"
    )
    (found,) = read(text.replace("  clusterIP: 10.96.0.10\n", "")).objects
    assert (found.values, found.rejections) == ((), ())


def test_an_endpoint_slice_is_the_operators_whoever_its_label_says_keeps_it() -> None:
    text = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels:
    kubernetes.io/service-name: web
    endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
addressType: IPv4
endpoints: [{addresses: [10.244.0.1]}]
"""
    (found,) = read(text).objects
    assert [value.author for value in found.values if isinstance(value, EndpointSlice)] == [
        SliceAuthor.OPERATOR
    ]


def test_endpoints_have_a_value_for_each_of_their_slices() -> None:
    text = """\
apiVersion: v1
kind: Endpoints
metadata: {name: web}
subsets:
- addresses: [{ip: 192.0.2.1}, {ip: "2001:db8::1"}]
  ports: [{port: 8080}]
"""
    (found,) = read(text).objects
    assert (found.kind, found.key) == ("Endpoints", WEB)
    assert [type(value) for value in found.values] == [EndpointSlice, EndpointSlice]


def test_kinds_that_the_agent_has_no_use_for_are_told_with_their_line() -> None:
    others = (
        "---\napiVersion: apps/v1\nkind: Deployment\n---\napiVersion: serving.knative.dev/v1\nkind: Service\n"
    )
    assert read(SERVICE + others).ignored == (
        Remark(10, "apps/v1/Deployment"),
        Remark(13, "serving.knative.dev/v1/Service"),
    )


@pytest.mark.parametrize("text", ["just words\n", "- a\n- b\n", "kind: Service\n", "apiVersion: v1\n", "5\n"])
def test_a_document_that_is_no_api_object_is_told_and_the_others_count(text: str) -> None:
    manifest = read(f"{NODE}---\n{text}")
    assert len(manifest.objects) == 1
    assert manifest.unusable == (Remark(5, "is no API object, which has apiVersion and kind"),)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{NODE}a: b: c\n", 4),
        ("a: [1\nb: 2\n", 2),
        ("a: *b\n", 1),
        ("a: 1\nb: \x01\n", 2),
        ("[" * 1_000_000, 1),
    ],
)
def test_yaml_that_does_not_parse_is_refused_with_its_line(text: str, line: int) -> None:
    assert refused(text)[0] == line


@pytest.mark.parametrize(
    ("text", "line"),
    [('{\n"a": 1,\n}', 3), ("", 1), ('{"a": 1}\n{"b": 2}', 2), ("[" * 1_000_000, 1)],
)
def test_json_that_does_not_parse_is_refused_with_its_line(text: str, line: int) -> None:
    assert refused(text, "web.json")[0] == line


DEEP = {
    "flow, 101 levels": "[" * 101 + "]" * 101,
    "flow, as deep as the API takes": "{a: " * 9_990 + "}" * 9_990,
    "flow, in breadth": f"[{', '.join(['[' * 1_500 + ']' * 1_500] * 3)}]",
    "block, 2,000 levels": "".join(f"\n{' ' * depth}a:" for depth in range(10, 2_010)),
    "an anchor within": "[" * 101 + "&lost x" + "]" * 101 + "\n  other: *lost",
    "an anchor within that is another one later": "[" * 101
    + "&a x"
    + "]" * 101
    + "\n  one: &a y\n  other: *a",
}


@pytest.mark.parametrize("value", DEEP.values(), ids=DEEP)
def test_what_is_nested_deeply_in_yaml_and_used_by_nobody_harms_no_object(value: str) -> None:
    deep = SERVICE.replace("metadata:\n", f"metadata:\n  managedFields: {value}\n")
    assert read(f"{NODE}---\n{deep}").objects[1].values == read(SERVICE).objects[0].values


class Libyaml026(yaml.CSafeLoader):
    """Follows 1,000 levels, as libyaml does from version 0.2.6 on."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def get_event(self) -> yaml.Event | None:
        event = super().get_event()
        self._depth += isinstance(event, yaml.CollectionStartEvent)
        self._depth -= isinstance(event, yaml.CollectionEndEvent)
        if event and self._depth > 1000:
            raise yaml.MarkedYAMLError(problem="exceeded max depth")
        return event


@pytest.mark.parametrize("value", ["{a: " * 1_010 + "}" * 1_010, "[" * 200 + "]" * 200], ids=["1,010", "200"])
def test_a_libyaml_that_follows_fewer_levels_harms_no_object_either(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_file, "SafeLoader", Libyaml026)
    test_what_is_nested_deeply_in_yaml_and_used_by_nobody_harms_no_object(value)


def test_the_slow_parser_is_not_asked_about_a_text_that_is_not_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "SafeLoader", None)
    assert refused(f"{NODE}---\na: [1\nb: 2\n")[0] == 6


# A file that is no text is refused as a whole.
HARMLESS_TEXT = {name: value for name, value in HARMLESS.items() if name != "no UTF-8"}


@pytest.mark.parametrize("value", HARMLESS_TEXT.values(), ids=HARMLESS_TEXT)
def test_what_json_has_in_fields_that_nobody_uses_harms_no_object(value: bytes) -> None:
    service = json.dumps(yaml.safe_load(SERVICE)).encode()
    (found,) = read_manifest("web.json", service[:-1] + b',"more":%s}' % value).objects
    assert found.values == read(SERVICE).objects[0].values


UNSUITABLE = {
    "a tag": "!!bool maybe",
    "a number": "!!int 5x",
    "binary": "!!binary '%'",
    "a tag of programs": "!!python/object:os.system x",
    "a mapping of programs": "!!python/object:os.system {a: b}",
    "a list of programs": "!!python/object:os.system [a]",
    "a key that is a list": "{[a]: b}",
    "a merge of nothing": "{<<: 5}",
    "itself": "&self {a: *self}",
    "too many digits": "9" * 5_000,
    "not a number": ".nan",
    "without end": ".inf",
}


@pytest.mark.parametrize("value", UNSUITABLE.values(), ids=UNSUITABLE)
def test_a_value_of_yaml_that_is_none_harms_the_object_that_uses_it_and_no_other(value: str) -> None:
    unused = SERVICE.replace("metadata:\n", f"metadata:\n  managedFields: {value}\n")
    used = SERVICE.replace("name: web", "name: dns").replace("port: 80", f"port: {value}")
    first, second, third = read(f"{unused}---\n{used}---\n{NODE}").objects
    assert first.values == read(SERVICE).objects[0].values
    assert (second.key, second.values) == (ObjectKey("default", "dns"), ())
    assert [found.field for found in second.rejections] == ["spec.ports[0].port"]
    assert third.values == (Node("node-a"),)


@pytest.mark.parametrize("value", ["9" * 5_000, "-" + "9" * 101, "NaN", "1e999"])
def test_a_number_of_json_that_is_none_harms_the_object_that_uses_it_and_no_other(value: str) -> None:
    items = ",".join(
        json.dumps(yaml.safe_load(SERVICE.replace("web", name).replace("80", port)))
        for name, port in (("dns", '"PORT"'), ("web", "80"))
    ).replace('"PORT"', value)
    manifest = read(f'{{"apiVersion": "v1", "kind": "List", "items": [{items}]}}', "web.json")
    assert [found.field for found in manifest.objects[0].rejections] == ["spec.ports[0].port"]
    assert manifest.objects[1].values == read(SERVICE).objects[0].values


def test_half_of_a_surrogate_pair_is_no_part_of_a_name_that_is_told() -> None:
    service = json.dumps(yaml.safe_load(SERVICE)).replace('"web"', r'"web\ud800"')
    (found,) = read(service, "web.json").objects
    assert found.key.name == "web\ufffd"
    assert [rejection.field for rejection in found.rejections] == ["metadata.name"]


def test_text_in_another_encoding_is_refused_with_its_line() -> None:
    assert refused("a: b\nname: Zürich\n".encode("latin-1")) == (2, "is not UTF-8")


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert len(read("\ufeff" + NODE).objects) == 1


def test_an_object_that_became_unusable_keeps_its_last_good_values() -> None:
    text = f"{SERVICE}---\n{SERVICE.replace('web', 'dns')}"
    earlier = read(text)
    later = read(text.replace("80", "0", 1))
    assert later.objects[0].values == ()
    kept = keep_last_good(earlier, later)
    assert [found.values for found in kept.objects] == [found.values for found in earlier.objects]
    assert [bool(found.rejections) for found in kept.objects] == [True, False]


def test_an_object_that_is_of_no_concern_any_more_keeps_nothing() -> None:
    labelled = SERVICE.replace("name: web", "name: web\n  labels: {service.kubernetes.io/headless: ''}")
    kept = keep_last_good(read(SERVICE), read(labelled))
    assert kept.objects[0].values == ()


@given(
    st.binary(max_size=60) | st.text("[]{}!&*:-? \n\t'\"#|>%@`abc01\\", max_size=40).map(str.encode),
    st.sampled_from(["a.yaml", "a.json"]),
)
def test_a_file_of_anything_is_read_or_refused(data: bytes, name: str) -> None:
    with contextlib.suppress(ManifestError):
        read_manifest(name, data)
