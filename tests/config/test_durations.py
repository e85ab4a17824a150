from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.config.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("1m30s", 90),
        ("1m0s", 60),
        ("24h", 86400),
        ("1h15m30.918s", 4530.918),
        ("250ms", 0.25),
        ("10us", 0.00001),
        ("10\N{MICRO SIGN}s", 0.00001),
        ("10\N{GREEK SMALL LETTER MU}s", 0.00001),
        ("1ns", 1e-9),
        (".5s", 0.5),
        ("1.s", 1),
        ("1s1s", 2),
        ("0s", 0),
        ("0", 0),
    ],
)
def test_a_duration_has_the_syntax_of_go(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "abc",
        "s",
        ".s",
        "-1s",
        "+1s",
        "1d",
        "1 s",
        " 1s",
        "1S",
        "1e3s",
        "\N{ARABIC-INDIC DIGIT ONE}s",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example_of_one(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 30s or 1m30s") as refused:
        parse_duration(text)
    assert repr(text) in str(refused.value)


def test_the_longest_duration_is_what_go_holds_in_whole_hours() -> None:
    assert parse_duration("2562047h") == 2_562_047 * 3600


@pytest.mark.parametrize("text", ["2562047h1s", "99999999999h", f"{'9' * 400}s"])
def test_a_duration_that_nothing_could_wait_for_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is longer than a duration can be, which is 292 years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (30, "30s"),
        (60, "1m"),
        (90, "1m30s"),
        (900, "15m"),
        (86400, "24h"),
        (3601, "1h1s"),
        (0.25, "0.25s"),
    ],
)
def test_a_duration_is_shown_without_the_parts_that_are_zero(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=30 * 24 * 3600 * 10**9))
def test_a_duration_that_is_shown_reads_back_to_the_nanosecond(nanoseconds: int) -> None:
    seconds = nanoseconds / 10**9

    assert parse_duration(format_duration(seconds)) == seconds
