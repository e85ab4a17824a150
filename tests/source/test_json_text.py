from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.source.json_text import MAXIMUM_DEPTH, decode, elements, member, members, mended
from tests.source.malformed import BROKEN, HARMLESS

ANYTHING = msgspec.json.Decoder()
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('[]{}",:\\'))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
layouts = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])


def dumped(value: object, layout: dict[str, Any]) -> bytes:
    return json.dumps(value, **layout).encode()


@given(st.dictionaries(texts, values, max_size=5), layouts)
def test_an_object_is_its_members(value: dict[str, Any], layout: dict[str, Any]) -> None:
    found = members(dumped(value, layout))
    assert {name: json.loads(text) for name, text in found.items()} == value


@given(st.lists(values, max_size=5), layouts)
def test_an_array_is_its_elements(value: list[Any], layout: dict[str, Any]) -> None:
    assert list(map(json.loads, elements(dumped(value, layout)))) == value


@given(values, layouts)
def test_what_needs_no_mending_means_the_same_afterwards(value: object, layout: dict[str, Any]) -> None:
    assert json.loads(mended(dumped(value, layout))) == value


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_part_that_is_no_json_is_one_part_all_the_same(text: bytes) -> None:
    assert members(b'{"a":1, "b" : %s ,"c":[2]}' % text) == {"a": b"1", "b": text, "c": b"[2]"}
    assert elements(b'[1, {"a":%s}, [2]]' % text) == [b"1", b'{"a":%s}' % text, b"[2]"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"5",
        b"[",
        b"{",
        b"{]",
        b"[{]}",
        b'{"a":1',
        b'{"a":1}}',
        b'{"a":1} {}',
        b'{"a":"',
        b"{5}",
        b'{"a"}',
    ],
)
def test_half_a_text_has_no_parts(text: bytes) -> None:
    """Or else half a list would be taken for a whole one."""
    with pytest.raises(msgspec.DecodeError):
        members(text)
    with pytest.raises(msgspec.DecodeError):
        elements(text.replace(b"{", b"("))


@pytest.mark.parametrize("depth", [MAXIMUM_DEPTH, MAXIMUM_DEPTH + 1, 100_000])
def test_what_is_nested_deeper_than_is_read_is_null(depth: int) -> None:
    found = json.loads(mended(b"[" * depth + b"7" + b"]" * depth))
    for _ in range(min(depth, MAXIMUM_DEPTH)):
        assert isinstance(found, list)
        (found,) = found
    assert found == (7 if depth == MAXIMUM_DEPTH else None)


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_what_the_api_takes_beside_the_fields_that_are_read_is_read(text: bytes) -> None:
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    assert decode(decoder, b'{"x":%s,"a":[1,2]}' % text)["a"] == msgspec.Raw(b"[1,2]")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'"\ud800"', "\ufffd"),
        (rb'"\udc00\ud800"', "\ufffd\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\\ud800"', r"\ud800"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (b'"a\xffb"', "a\ufffdb"),
    ],
)
def test_a_text_is_read_as_go_reads_it(text: bytes, value: str) -> None:
    assert decode(ANYTHING, text) == value


@pytest.mark.parametrize("raw", [b"", b"[" * 100_000, b'{"a":NaN}', b'"\xff', rb'"\u12"'])
def test_what_can_not_be_mended_is_an_error_of_one_kind(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(ANYTHING, raw)


def test_a_member_is_found_by_its_path_whatever_stands_beside_it() -> None:
    text = b'{"a":NaN,"metadata":{"x":nothing,"name":"web","uid":5,"labels":{"a":}}}'
    assert member(text, "metadata", "name") == "web"
    assert member(text, "metadata", "uid") == 5
    for path in (
        ("metadata", "namespace"),
        ("metadata", "labels"),
        ("a",),
        ("metadata", "name", "x"),
        ("b", "c"),
    ):
        assert member(text, *path) is None
