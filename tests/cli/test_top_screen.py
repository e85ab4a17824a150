"""What the live screen of `ipvsproxy top` shows at which size, and what keys do to it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.top_screen import View, content_of, page_of, pressed
from ipvsproxy.observe.traffic import Grouping, Order, Wanted, rows_of
from tests.cli.top_frames import FIRST, FRAME, WITHOUT_AGENT

if TYPE_CHECKING:
    from ipvsproxy.cli.top_screen import Page
    from ipvsproxy.cli.top_source import Frame

BYTES = View(Order.BYTES)
WIDE = """\
ipvsproxy top  15:49:07  node-a  by service, most bytes first  last 2.1s
                                                             PACKETS/S       BYTES/S
SERVICE               ENDPOINTS  ACTIVE  INACTIVE  NEW/S     IN    OUT     IN    OUT  STATE
default/web                   2     215        43    257  28.6k  43.8k  3.71M   221M  serving
kube-system/kube-dns          1       0        44     40     40     40   2810   5762  serving
default/shop                  1       4         0    0.5    5.7    5.2    429   6667  1 draining, 14m20s left
default/api                   0       0         0      0      0      0      0      0  no endpoints
TOTAL                         4     219        87    298  28.6k  43.9k  3.72M   221M  1 draining, 14m20s left

1-4 of 4  q quit  / filter  r reverse  sort: b bytes  p packets  c new  a active  i inactive  n name
"""
MIDDLE = """\
ipvsproxy top  15:49:07  node-a  by service, most bytes first  last 2.1s
                                        PACKETS/S       BYTES/S
SERVICE               ACTIVE  NEW/S     IN    OUT     IN    OUT  STATE
default/web              215    257  28.6k  43.8k  3.71M   221M  serving
kube-system/kube-dns       0     40     40     40   2810   5762  serving
default/shop               4    0.5    5.7    5.2    429   6667  1 draining, 14m20s left
default/api                0      0      0      0      0      0  no endpoints
TOTAL                    219    298  28.6k  43.9k  3.72M   221M  1 draining, 14m20s left

1-4 of 4  q quit  / filter  r reverse  sort: b bytes  p packets  c new  a active  i ina…
"""
NARROW = """\
ipvsproxy top  15:49:07  node-a  by service, most bytes fir…
                                          BYTES/S
SERVICE               ACTIVE  NEW/S     IN    OUT  STATE
default/web              215    257  3.71M   221M  serving
kube-system/kube-dns       0     40   2810   5762  serving
default/shop               4    0.5    429   6667  1 draini…
default/api                0      0      0      0  no endpo…
TOTAL                    219    298  3.72M   221M  1 draini…

1-4 of 4  q quit  / filter  r reverse  sort: b bytes  p pac…
"""


def page(
    frame: Frame = FRAME,
    view: View = BYTES,
    by: Grouping = Grouping.SERVICE,
    width: int = 120,
    height: int = 10,
) -> Page:
    rows = rows_of(frame.before, frame.after, frame.names, frame.ours, by, Wanted())
    return page_of(content_of(frame, rows, by, view), view, "15:49:07", width, height)


def text(shown: Page) -> str:
    return "".join(line.plain.rstrip() + "\n" for line in shown.lines)


def names(shown: Page) -> list[str]:
    return [line.split()[0] for line in text(shown).splitlines()[3:] if line][:-2]


@pytest.mark.parametrize(("width", "expected"), [(120, WIDE), (88, MIDDLE), (60, NARROW)])
def test_a_narrow_terminal_goes_without_the_columns_that_matter_least(width: int, expected: str) -> None:
    assert text(page(width=width)) == expected


@pytest.mark.parametrize("by", Grouping)
@pytest.mark.parametrize("frame", [FIRST, FRAME, WITHOUT_AGENT])
def test_a_page_has_the_size_of_the_terminal_whatever_that_is(frame: Frame, by: Grouping) -> None:
    for width, height in itertools.product((1, 7, 40, 80, 133), (1, 2, 5, 6, 10, 50)):
        lines = page(frame, by=by, width=width, height=height).lines
        assert len(lines) == height
        assert max(line.cell_len for line in lines) <= width


def test_by_endpoint_a_draining_endpoint_has_its_time_left() -> None:
    assert "10.244.1.9:8080  default/shop               1         0      0" in text(
        page(by=Grouping.ENDPOINT)
    )
    assert "  draining, 14m20s left\n" in text(page(by=Grouping.ENDPOINT))


def test_before_the_first_interval_is_over_connections_are_there_and_rates_are_not() -> None:
    lines = text(page(FIRST)).splitlines()
    assert lines[0].endswith("rates follow in seconds")
    assert lines[-3] == (
        "TOTAL                         4     219        87      -      -      -      -      -  1 draining, 14m22s left"
    )


def test_it_says_that_no_agent_runs_and_that_the_kernel_does_not_count() -> None:
    shown = " ".join(text(page(WITHOUT_AGENT, height=20)).split())
    assert "nobody listens on /run/ipvsproxy/agent.sock: virtual servers by address" in shown
    assert "net.ipv4.vs.run_estimation is 0: `sysctl net.ipv4.vs.run_estimation=1` has it count" in shown
    assert "10.96.0.30:80/tcp 1 4 0 0.5" in shown


def test_more_rows_than_fit_are_paged() -> None:
    assert names(page(height=7)) == ["default/web", "kube-system/kube-dns"]
    assert text(page(height=7)).splitlines()[-1].startswith("1-2 of 4  ")
    later = page(height=7, view=BYTES._replace(offset=3))
    assert names(later) == ["default/api"]
    assert text(later).splitlines()[-1].startswith("4-4 of 4  ")
    assert "TOTAL                         4" in text(later)


def test_the_total_is_of_the_rows_that_the_filter_leaves() -> None:
    shown = page(view=BYTES._replace(text="kube"))
    assert names(shown) == ["kube-system/kube-dns"]
    assert "  with 'kube'  " in shown.lines[0].plain
    assert shown.lines[4].plain.split()[:4] == ["TOTAL", "1", "0", "44"]


def test_what_is_wrong_has_a_colour_and_a_word() -> None:
    styles = {line.plain.split()[0]: str(line.style) for line in page().lines[3:7]}
    assert styles == {
        "default/web": "",
        "kube-system/kube-dns": "",
        "default/shop": "yellow",
        "default/api": "red",
    }


@pytest.mark.parametrize(
    ("key", "order", "first"),
    [
        ("b", Order.BYTES, "default/web"),
        ("p", Order.PACKETS, "default/web"),
        ("c", Order.CONNECTIONS, "default/web"),
        ("a", Order.ACTIVE, "default/web"),
        ("i", Order.INACTIVE, "kube-system/kube-dns"),
        ("n", Order.NAME, "default/api"),
    ],
)
def test_a_letter_sorts_and_r_turns_it_round(key: str, order: Order, first: str) -> None:
    view = pressed(BYTES._replace(offset=2, reverse=True), key, rows=4, room=2)
    assert view == View(order)
    assert names(page(view=view))[0] == first
    assert pressed(view, "r", 4, 2) == View(order, reverse=True)


def press(view: View, *keys: str, rows: int = 10, room: int = 4) -> View:
    for key in keys:
        view = pressed(view, key, rows, room)
    return view


@pytest.mark.parametrize(
    ("keys", "offset"),
    [
        (["down"], 1),
        (["up"], 0),
        (["page down"], 4),
        (["page down", "page down"], 6),
        (["end"], 6),
        (["end", "up", "page up"], 1),
        (["end", "home"], 0),
        (["?", "x", "redraw"], 0),
    ],
)
def test_arrows_and_pages_stay_within_the_rows(keys: list[str], offset: int) -> None:
    assert press(BYTES, *keys) == BYTES._replace(offset=offset)
    assert press(BYTES, *keys, rows=3) == BYTES


def test_a_slash_takes_letters_for_the_filter_until_enter() -> None:
    typing = press(BYTES._replace(offset=3), "/", "q", "b", "x", "backspace", "down")
    assert typing == View(Order.BYTES, text="qb", typing=True)
    assert (
        text(page(view=typing)).splitlines()[-1] == "/qb\N{FULL BLOCK}  Enter keeps the filter  Esc ends it"
    )
    kept = press(typing, "enter")
    assert kept == View(Order.BYTES, text="qb")
    assert press(typing, "escape") == press(kept, "escape") == BYTES


def test_q_ends_it() -> None:
    assert press(BYTES, "q").ended
