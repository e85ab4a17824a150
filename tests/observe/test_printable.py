from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.observe.printable import one_line, printable, printable_json, printable_lines

anything = st.text(st.characters())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("default/web", "default/web"),
        ("Zürich, 東京 🙂", "Zürich, 東京 🙂"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\r\tc\x00\x7f", r"a\nb\r\tc\x00\x7f"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("\u200b\u2028\xa0\ufeff", r"\u200b\u2028\xa0\ufeff"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_no_one_can_see_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(anything)
def test_whatever_is_escaped_can_be_seen_and_written(text: str) -> None:
    for shown in (printable(text), one_line(text), *printable_lines(text).split("\n")):
        shown.encode()
        assert {unicodedata.category(char) for char in shown}.isdisjoint(
            {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        )


@given(anything)
def test_lines_stay_where_there_may_be_several(text: str) -> None:
    assert printable_lines(text).count("\n") == text.count("\n")
    assert "\n" not in one_line(text)


def test_one_line_has_a_space_where_there_was_white_space() -> None:
    assert one_line(" no such file:\n\t x\x1b ") == r"no such file: x\x1b"


@given(anything)
def test_json_means_the_same_when_it_is_escaped(text: str) -> None:
    document = json.dumps({text: [text]}, ensure_ascii=False, indent=2)
    escaped = printable_json(document)
    assert json.loads(escaped) == {text: [text]}
    assert all(line.isprintable() for line in escaped.split("\n"))
