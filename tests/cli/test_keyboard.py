from __future__ import annotations

import pytest

from ipvsproxy.cli.keyboard import decode_keys


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("q", ["q"]),
        ("dns-1", list("dns-1")),
        ("\x1b", ["escape"]),
        ("\x1b[A\x1b[B\x1bOA\x1bOB", ["up", "down", "up", "down"]),
        ("\x1b[5~\x1b[6~", ["page up", "page down"]),
        ("\x1b[H\x1b[1~\x1b[F\x1b[4~", ["home", "home", "end", "end"]),
        ("\r\n\x7f\b\x0c", ["enter", "enter", "backspace", "backspace", "redraw"]),
        ("/é", ["/", "é"]),
    ],
)
def test_keys_are_named(sent: str, keys: list[str]) -> None:
    assert decode_keys(sent) == keys


@pytest.mark.parametrize("sent", ["\x1b[15~q", "\x1b[1;5Aq", "\x1bxq", "\t\x01q", "\x1b[200~q"])
def test_other_keys_are_left_out_with_all_that_they_send(sent: str) -> None:
    assert decode_keys(sent) == ["q"]


def test_a_sequence_that_is_cut_short_is_no_key() -> None:
    assert decode_keys("q\x1b[5") == ["q"]


def test_escape_twice_is_escape_twice() -> None:
    assert decode_keys("\x1b\x1b") == ["escape", "escape"]
