"""The live screen of `ipvsproxy top`: what the keys do to it, and its lines for a terminal of any size."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from ipvsproxy.cli.top_table import columns_of, total_cells
from ipvsproxy.cli.units import compact
from ipvsproxy.observe.printable import printable
from ipvsproxy.observe.traffic import NOT_COUNTING, Order, in_order, matching, total_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ipvsproxy.cli.top_source import Frame
    from ipvsproxy.cli.top_table import Column
    from ipvsproxy.observe.traffic import Grouping, Row

_ORDERS = {
    "b": Order.BYTES,
    "p": Order.PACKETS,
    "c": Order.CONNECTIONS,
    "a": Order.ACTIVE,
    "i": Order.INACTIVE,
    "n": Order.NAME,
}
_ORDER_WORDS = {
    Order.BYTES: ("most bytes first", "fewest bytes first"),
    Order.PACKETS: ("most packets first", "fewest packets first"),
    Order.CONNECTIONS: ("most new connections first", "fewest new connections first"),
    Order.ACTIVE: ("most active connections first", "fewest active connections first"),
    Order.INACTIVE: ("most inactive connections first", "fewest inactive connections first"),
    Order.NAME: ("names from A to Z", "names from Z to A"),
}
_HELP = "q quit  / filter  r reverse  sort: b bytes  p packets  c new  a active  i inactive  n name"
_TYPING_HELP = "Enter keeps the filter  Esc ends it"

_STATE = "STATE"
_GAP = 2
_NARROWEST_NUMBER = 5
# A name or a state gets at least so many columns, if it has need of them: what one draining endpoint says in full.
_NARROWEST_NAME = 18
_NARROWEST_STATE = len("1 draining, 14m20s left")
# What a narrow terminal goes without, one after the other, or how narrow a column becomes there.
_SACRIFICES = (
    ("ENDPOINTS", 0),
    ("INACTIVE", 0),
    ("PACKETS/S OUT", 0),
    ("PACKETS/S IN", 0),
    (_STATE, len("draining")),
    ("ACTIVE", 0),
    (_STATE, 0),
    ("NEW/S", 0),
)


class View(NamedTuple):
    """What the keys have chosen; `offset` is the first row shown, `typing` whether keys are letters of the filter."""

    order: Order
    reverse: bool = False
    text: str = ""
    typing: bool = False
    offset: int = 0
    ended: bool = False


class Content(NamedTuple):
    """What there is to show of a frame: `rows` in their order, `total` of these rows.

    `name_width` is that of each column which has names, on all pages, so that columns stay where they are.
    """

    frame: Frame
    by: Grouping
    rows: Sequence[Row]
    total: Row
    name_width: Mapping[str, int]


class Page(NamedTuple):
    """What the screen shows at this moment: its lines, and how many rows it has room for."""

    lines: list[Text]
    room: int


def content_of(frame: Frame, rows: Sequence[Row], by: Grouping, view: View) -> Content:
    """Return what the view shows of a frame with these rows."""
    shown = in_order(matching(rows, view.text), view.order, reverse=view.reverse)
    names = [column for column in columns_of(by) if not column.number and column.title != _STATE]
    width = {
        column.title: max((len(column.cell(row, compact)) for row in shown), default=0) for column in names
    }
    return Content(frame, by, shown, total_of(shown), width)


def pressed(view: View, key: str, rows: int, room: int) -> View:
    """Return the view after a key; `rows` is how many there are, `room` how many fit."""
    return _typed(view, key) if view.typing else _commanded(view, key, rows, room)


def _commanded(view: View, key: str, rows: int, room: int) -> View:
    if key in _ORDERS:
        return view._replace(order=_ORDERS[key], reverse=False, offset=0)
    match key:
        case "q":
            return view._replace(ended=True)
        case "/":
            return view._replace(typing=True)
        case "r":
            return view._replace(reverse=not view.reverse, offset=0)
        case "escape":
            return view._replace(text="", offset=0)
    steps = {"up": -1, "down": 1, "page up": -room, "page down": room, "home": -rows, "end": rows}
    return view._replace(offset=max(0, min(rows - room, view.offset + steps.get(key, 0))))


def _typed(view: View, key: str) -> View:
    match key:
        case "enter":
            return view._replace(typing=False)
        case "escape":
            return view._replace(typing=False, text="", offset=0)
        case "backspace":
            return view._replace(text=view.text[:-1], offset=0)
        case _ if len(key) == 1:
            return view._replace(text=view.text + key, offset=0)
        case _:
            return view


def page_of(content: Content, view: View, time: str, width: int, height: int) -> Page:
    """Return exactly `height` lines of at most `width` columns; `time` is the time of day of the frame."""
    frame = content.frame
    notices = [
        Text(line, style="yellow")
        for notice in _notices(frame)
        for line in textwrap.wrap(
            printable(notice), width, max_lines=3, placeholder="\N{HORIZONTAL ELLIPSIS}"
        )
    ]
    title = Text(printable(_title(content, view, time)), style="bold")
    # The title, two lines of headers, the total, and the keys.
    room = max(1, height - len(notices) - 5)
    rows = content.rows[view.offset : view.offset + room]
    table = _table(content, rows, view.order, width)
    blank = [Text()] * max(0, room - len(rows))
    lines = [title, *notices, *table, *blank, _footer(view, len(content.rows), len(rows))]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Page([*lines[: height - 1], lines[-1]], room)


def _notices(frame: Frame) -> list[str]:
    notices = []
    if frame.silence:
        notices.append(f"{frame.silence}: virtual servers by address, Services are not known")
    if not frame.counting:
        notices.append(NOT_COUNTING)
    return notices


def _title(content: Content, view: View, time: str) -> str:
    frame = content.frame
    parts = ["ipvsproxy top", time]
    if frame.agent:
        parts.append(frame.agent.node_name)
    parts.append(f"by {content.by.replace('-', ' ')}, {_ORDER_WORDS[view.order][view.reverse]}")
    if view.text:
        parts.append(f"with {view.text!r}")
    parts.append(
        f"last {frame.after.at - frame.before.at:.1f}s" if frame.before else "rates follow in seconds"
    )
    return "  ".join(parts)


def _footer(view: View, rows: int, shown: int) -> Text:
    if view.typing:
        return Text.assemble(
            ("/", "bold"), view.text, ("\N{FULL BLOCK}", "blink"), "  ", (_TYPING_HELP, "dim")
        )
    position = f"{view.offset + 1}-{view.offset + shown} of {rows}" if shown else f"none of {rows}"
    return Text.assemble((position, "bold"), "  ", (_HELP, "dim"))


def _table(content: Content, rows: Sequence[Row], order: Order, width: int) -> list[Text]:
    """Return two lines of headers, the rows, and the total."""
    every = columns_of(content.by)
    cells = [[column.cell(row, compact) for column in every] for row in rows]
    cells.append(total_cells(every, content.total, compact))
    widths = _widths(every, cells, content.name_width, width)
    styles = [_style(row) for row in rows] + ["bold"]
    lines = [
        Text(
            (" " * _GAP).join(
                _fit(cell, each, number=column.number)
                for cell, each, column in zip(line, widths, every, strict=True)
                if each
            ),
            style,
        )
        for line, style in zip(cells, styles, strict=True)
    ]
    return [*_headers(every, widths, order), *lines]


def _widths(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], name_width: Mapping[str, int], width: int
) -> list[int]:
    """Return the width of each column, 0 for one that is left out."""
    natural = []
    least = []
    for column, each in zip(columns, zip(*cells, strict=True), strict=True):
        wide = max(len(_parts(column)[1]), *map(len, each), name_width.get(column.title, _NARROWEST_NUMBER))
        natural.append(wide)
        narrow = _NARROWEST_STATE if column.title == _STATE else _NARROWEST_NAME
        least.append(wide if column.number else min(wide, narrow))
    titles = [column.title for column in columns]
    for title, narrower in _SACRIFICES:
        if _needed(least) <= width:
            break
        if title in titles:
            index = titles.index(title)
            least[index] = min(least[index], narrower)
    spare = max(0, width - _needed(least))
    for index, (narrow, wide) in enumerate(zip(least, natural, strict=True)):
        if narrow:
            more = min(spare, wide - narrow)
            least[index] += more
            spare -= more
    return least


def _needed(widths: Sequence[int]) -> int:
    return sum(each + _GAP for each in widths if each) - _GAP


def _headers(columns: Sequence[Column], widths: Sequence[int], order: Order) -> list[Text]:
    """Return two lines: the upper one says of packets and bytes what the IN and OUT below are, ending with the last."""
    upper = Text()
    lower = Text()
    groups: dict[str, int] = {}
    for column, width in zip(columns, widths, strict=True):
        if width:
            common, title = _parts(column)
            lower.append(" " * _GAP if lower else "")
            lower.append(
                _fit(title, width, number=column.number), "bold underline" if column.order is order else ""
            )
            if common:
                groups[common] = lower.cell_len
    for common, end in groups.items():
        upper.append(common.rjust(end - upper.cell_len))
    for line in (upper, lower):
        line.stylize_before("reverse")
    return [upper, lower]


def _parts(column: Column) -> tuple[str, str]:
    """Return what a column has in common with its neighbour, "" if nothing, and its own title."""
    common, _, title = column.title.rpartition(" ")
    return (common, title) if column.number else ("", column.title)


def _fit(cell: str, width: int, *, number: bool) -> str:
    if len(cell) > width:
        cell = cell[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return cell.rjust(width) if number else cell.ljust(width)


def _style(row: Row) -> str:
    if row.draining:
        return "yellow"
    if not row.serving:
        return "red"
    return "" if row.active_connections or any(row.rates or ()) else "dim"
