"""How the tables of `ipvsproxy dump` are laid out: for a pipe, and for terminals of three widths."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.layout import Column, Look, Table, lay_out, look_of
from ipvsproxy.cli.tables import Detail, render
from tests.cli.test_dump import dumped, the_kernel, the_report
from tests.golden import assert_golden

if TYPE_CHECKING:
    from collections.abc import Mapping

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (80, 120, 200)
ESCAPE = re.compile(r"\x1b\[\d*m")

POD = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535"
TABLE = Table(
    (
        Column("SERVICE", 0, is_name=True),
        Column("VIRTUAL SERVER", 1, is_name=True),
        Column("KIND", 1),
        Column("REAL SERVER", 2, is_name=True),
        Column("WEIGHT", 2),
        Column("STATE", 2),
        Column("REASON", 2, joins=True),
    ),
    [
        ("default/mail", "-", "-", "-", "-", "not programmed", "type ExternalName"),
        ("default/web", "10.96.0.10:80/tcp", "clusterIP", "10.244.0.5:8080", "1", "serving", "ready"),
        ("default/web", "10.96.0.10:80/tcp", "clusterIP", "10.244.0.6:8080", "-", "excluded", "not ready"),
        ("default/web", "10.96.0.10:81/tcp", "clusterIP", "-", "-", "refusing, no real servers", "-"),
    ],
)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("wide", [False, True], ids=["table", "wide"])
def test_a_terminal_of_this_width_shows_the_golden_file(*, width: int, wide: bool) -> None:
    text = render(dumped(the_report(), the_kernel()), Detail(wide=wide), Look(width))
    assert_golden(GOLDEN / f"dump-{'wide' if wide else 'table'}-{width}.txt", text)


@pytest.mark.parametrize("width", [1, 20, 40, *WIDTHS])
@pytest.mark.parametrize("wide", [False, True], ids=["table", "wide"])
def test_no_name_is_cut_or_wrapped_at_any_width(*, width: int, wide: bool) -> None:
    found = dumped(the_report(), the_kernel())
    in_full = set(render(found, Detail(wide=wide), Look()).lower().split())
    names = {word for word in in_full if re.search(r"\d[.:]|/", word) and not word.endswith(",")}
    shown = set(render(found, Detail(wide=wide), Look(width)).lower().replace(",", " ").split())
    assert {name for name in names if "," not in name} <= shown


def test_what_fits_is_a_table_with_all_names_in_each_row() -> None:
    rows = [re.split(" {3,}", line) for line in lay_out(TABLE, Look()).splitlines()]
    assert rows == [[column.header for column in TABLE.columns], *(list(row) for row in TABLE.rows)]


def test_a_word_that_is_longer_than_a_line_stays_whole() -> None:
    sentence = Table((Column("WARNING"),), [(f"real server {POD} is missing",)])
    assert lay_out(sentence, Look(30)).splitlines() == ["WARNING", "real server", f"  {POD}", "  is missing"]


def test_what_fits_with_narrower_gaps_gets_them() -> None:
    assert lay_out(TABLE, Look(115)).splitlines()[2] == (
        "default/web   10.96.0.10:80/tcp  clusterIP  10.244.0.5:8080  1       serving                    ready"
    )


def test_a_narrower_terminal_has_a_tree_and_wraps_the_last_column_at_spaces() -> None:
    assert lay_out(TABLE, Look(55)).splitlines() == [
        "SERVICE",
        "  VIRTUAL SERVER",
        "    REAL SERVER      WEIGHT  STATE",
        "default/mail         -       not programmed: type",
        "                             ExternalName",
        "default/web",
        "  10.96.0.10:80/tcp",
        "      kind clusterIP",
        "    10.244.0.5:8080  1       serving: ready",
        "    10.244.0.6:8080  -       excluded: not ready",
        "  10.96.0.10:81/tcp  -       refusing, no real servers",
        "      kind clusterIP",
    ]


def test_what_fits_no_columns_is_said_in_words_below_the_name() -> None:
    row = ("default/web", "10.96.0.10:80/tcp", "clusterIP", POD, "1", "serving", "ready")
    assert lay_out(Table(TABLE.columns, [row]), Look(60)).splitlines() == [
        "SERVICE",
        "  VIRTUAL SERVER",
        "    REAL SERVER",
        "default/web",
        "  10.96.0.10:80/tcp",
        "      kind clusterIP",
        f"    {POD}",
        "        serving: ready, weight 1",
    ]


@pytest.mark.parametrize("width", [None, 115, 55])
def test_colours_are_those_of_the_state_and_change_nothing_else(width: int | None) -> None:
    plain, coloured = (lay_out(TABLE, Look(width, colours=colours)) for colours in (False, True))
    assert ESCAPE.sub("", coloured) == plain
    assert "\x1b[32mserving" in coloured
    assert "\x1b[31mrefusing" in coloured
    assert "\x1b[2mexcluded" in coloured


def test_a_virtual_server_that_differs_is_red_whatever_becomes_of_its_clients() -> None:
    table = Table((Column("NAME", is_name=True), Column("STATE")), [("a", "serving, differs")])
    assert lay_out(table, Look(colours=True)).endswith("\x1b[31mserving, differs\x1b[0m\n")


@pytest.mark.parametrize(
    ("cells", "colour"),
    [
        (("not programmed, type ExternalName", ""), "\x1b[2m"),
        (("not programmed, rejected: 0 is not a port", ""), "\x1b[31m"),
        (("not programmed", "rejected: 0 is not a port"), "\x1b[31m"),
    ],
)
def test_a_service_without_virtual_servers_is_red_only_if_it_was_rejected(
    cells: tuple[str, str], colour: str
) -> None:
    table = Table((Column("STATE"), Column("REASON")), [cells])
    assert f"{colour}{cells[0]}" in lay_out(table, Look(colours=True))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "xterm"}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_has_a_width_and_colours_unless_it_wants_none(
    monkeypatch: pytest.MonkeyPatch, *, environment: Mapping[str, str], colours: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "97")
    assert look_of(Terminal(), environment) == Look(97, colours=colours)


def test_a_pipe_has_neither_width_nor_colours() -> None:
    assert look_of(io.StringIO(), {"TERM": "xterm"}) == Look(None, colours=False)
