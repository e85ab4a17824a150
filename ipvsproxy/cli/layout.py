"""Tables for a person, laid out for the width that there is: nothing is ever cut short, `-` stands for nothing.

Off a terminal, and where it fits, every row has all the names in full, so that a line that grep finds stands for
itself. A terminal that is too narrow for that gets a tree: each name on a line of its own, indented below the one that
it belongs to, with its cells behind it. If these do not fit either, they stand below it in words.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

NOTHING = "-"

_SEPARATOR: Final = "   "
_NARROW_SEPARATOR: Final = "  "
_INDENT: Final = 2
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"
# The last column may be wrapped, but not into less than so many characters.
_NARROWEST_PROSE: Final = 20

_RESET: Final = "\x1b[0m"
_HEADER: Final = "\x1b[1m"
_RED: Final = "\x1b[31m"
_YELLOW: Final = "\x1b[33m"
_GREEN: Final = "\x1b[32m"
_FAINT: Final = "\x1b[2m"
_COLOURS: Final = {
    "serving": _GREEN,
    "present": _GREEN,
    "draining": _YELLOW,
    "excluded": _FAINT,
    "refusing": _RED,
    "dropping": _RED,
    "missing": _RED,
    "differs": _RED,
    "unwanted": _RED,
    "not": _FAINT,
    "rejected": _RED,
}
"""By the first word of the column STATE, or a later one that is worse."""


class Look(NamedTuple):
    """How the output may look; `width` None: as wide as it needs."""

    width: int | None = None
    colours: bool = False


class Column(NamedTuple):
    """A column.

    `level` says what it tells of: 0 of what the first name names, 1 of what the second names, which is a part of the
    first, and so on; `is_name` for the names themselves. `joins` is for one that goes on where the column before it
    ends, behind a colon, when they stand in one.
    """

    header: str
    level: int = 0
    is_name: bool = False
    joins: bool = False


class Table(NamedTuple):
    """Rows, sorted by their names; of the last column it is known that it may be wrapped."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


def look_of(stream: TextIO, environment: Mapping[str, str] = os.environ) -> Look:
    """Return the terminal's width and whether it likes colours (https://no-color.org); no limits off a terminal."""
    if not stream.isatty():
        return Look()
    plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
    return Look(shutil.get_terminal_size().columns, colours=not plain)


def lay_out(table: Table, look: Look) -> str:
    """Return the table as lines; what no one can see in a cell is escaped."""
    table = table._replace(
        rows=[row if "".join(row).isprintable() else [*map(printable, row)] for row in table.rows]
    )
    headers, width = [column.header for column in table.columns], look.width
    grid = [headers, *table.rows]
    for separator in (_SEPARATOR, _NARROW_SEPARATOR):
        if width is None or _width(grid, separator) <= width:
            return "".join(_full(table, headers, separator, look))
    if len(headers) == 1:
        return "".join(f"{line}\n" for (text,) in grid for line in _wrapped(text, width or 0, "  "))
    return "".join(_tree(table, look, width or 0))


def _full(table: Table, headers: Sequence[str], separator: str, look: Look) -> Iterator[str]:
    """Yield a line for the header, and one for each row."""
    widths = _widths([headers, *table.rows])
    if look.colours:
        paint = _Paint(headers, look)
        yield _line(headers, widths, separator, paint.of_header(headers))
        yield from (_line(row, widths, separator, paint.colours(row)) for row in table.rows)
    else:
        pattern = separator.join(f"{{:<{width}}}" for width in widths)
        yield from (f"{pattern.format(*row).rstrip()}\n" for row in (headers, *table.rows))


class _Node(NamedTuple):
    """A line of the tree: the name behind its indentation, what is to be said of it, and its cells if it has any."""

    name: str
    notes: Sequence[tuple[str, str]]
    cells: Sequence[str]


def _tree(table: Table, look: Look, width: int) -> Iterator[str]:
    """Yield the tree, with the cells in columns, the last of them wrapped, or in words below the name."""
    nodes = list(_nodes(table))
    depth = sum(column.is_name for column in table.columns)
    *_, (_, _, headers) = nodes[:depth]
    paint = _Paint(["", *headers], look)
    grid = [[node.name, *node.cells] for node in nodes if node.cells]
    widths = _widths(grid)
    prose = width - _width([row[:-1] for row in grid], _NARROW_SEPARATOR) - len(_NARROW_SEPARATOR)
    in_columns = prose >= _NARROWEST_PROSE
    for number, (name, notes, cells) in enumerate(nodes):
        is_header = number < depth
        row = [name, *cells] if in_columns else [name]
        colours = paint.of_header(row) if is_header else paint.colours(row)
        yield _line(row, widths, _NARROW_SEPARATOR, colours, prose if len(row) > 1 else None)
        words = [_glued(header, value) for header, value in notes if value != NOTHING]
        if cells and not in_columns and not is_header:
            # The last cell speaks for itself: what state it is in, what the reason is.
            told = zip(headers, cells[:-1], strict=False)
            words = [
                *(last for last in cells[-1:] if last != NOTHING),
                *words,
                *(_glued(header, value) for header, value in told if value != NOTHING),
            ]
        indent = " " * (len(name) - len(name.lstrip()) + 2 * _INDENT)
        for line in _wrapped(", ".join(words), width - len(indent)) if words else ():
            yield f"{indent}{line.replace(_NO_BREAK, ' ')}\n"


def _glued(header: str, value: str) -> str:
    """Return what is told of something, such as `weight 1`, which no line break shall part."""
    return f"{header.lower()} {value}".replace(" ", _NO_BREAK)


def _nodes(table: Table) -> Iterator[_Node]:
    """Yield the header as a tree, then the rows; a name above others is there once."""
    columns = table.columns
    names = [index for index, column in enumerate(columns) if column.is_name]
    deepest = len(names) - 1
    told = [
        [index for index, column in enumerate(columns) if column.level == level and not column.is_name]
        for level in range(len(names))
    ]
    before: list[str] = []
    for row in ([column.header for column in columns], *table.rows):
        path = [row[index] for index in names]
        depth = max((level for level in range(len(path)) if path[level] != NOTHING), default=0)
        for level in range(depth + 1):
            again = before[: level + 1] == path[: level + 1]
            if level < depth and again:
                continue
            notes = (
                [(columns[index].header, row[index]) for index in told[level]]
                if level < deepest and before and not again
                else []
            )
            cells = _joined(columns, told[deepest], row) if level == depth else []
            yield _Node(" " * (_INDENT * level) + path[level], notes, cells)
        before = path


def _joined(columns: Sequence[Column], cells: Sequence[int], row: Sequence[str]) -> list[str]:
    """Return the cells, each that joins another one appended to it."""
    joined: list[str] = []
    for index in cells:
        if not columns[index].joins:
            joined.append(row[index])
        elif row[index] not in {NOTHING, columns[index].header}:
            joined[-1] += f": {row[index]}"
    return joined


class _Paint:
    """The colours of cells; of none, if the output shall have none."""

    def __init__(self, headers: Sequence[str], look: Look) -> None:
        """Take the headers, of which one may be STATE."""
        self._state = headers.index("STATE") if look.colours and "STATE" in headers else None
        self._look = look

    def of_header(self, row: Sequence[str]) -> Sequence[str]:
        """Return the colours of the header's cells."""
        return [_HEADER] * len(row) if self._look.colours else ()

    def colours(self, row: Sequence[str]) -> Sequence[str]:
        """Return the colours of a row's cells."""
        if self._state is None or len(row) <= self._state:
            return ()
        words = [word.rstrip(",:") for word in row[self._state].split()]
        # What is wrong stands behind what becomes of the clients, as in "serving, differs".
        word = "differs" if {"differs", "failed"} & {*words} else words[0]
        # A Service without a clusterIP is not programmed either; of a wide table the reason has a column of its own.
        if word == "not" and any(
            cell.startswith("rejected") for text in row[self._state :] for cell in text.split()
        ):
            word = "rejected"
        return [_COLOURS.get(word, "") if index == self._state else "" for index in range(len(row))]


def _line(
    row: Sequence[str],
    widths: Sequence[int],
    separator: str,
    colours: Sequence[str],
    prose: int | None = None,
) -> str:
    """Return a row as one line; as more lines, if its last cell has to be wrapped to `prose` characters."""
    *cells, last = row
    first, *rest = _wrapped(last, prose) if prose else [last]
    texts = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
    offset = " " * sum(len(text) + len(separator) for text in texts)
    texts.append(first)
    if colours:
        texts = [
            f"{colour}{text}{_RESET}" if colour else text for colour, text in zip(colours, texts, strict=True)
        ]
        rest = [f"{colours[-1]}{text}{_RESET}" if colours[-1] else text for text in rest]
    return "".join(
        f"{line.rstrip()}\n" for line in (separator.join(texts), *(offset + text for text in rest))
    )


def _wrapped(text: str, width: int, further: str = "") -> list[str]:
    """Return the text in lines, broken at spaces only; a word that is longer than a line stays whole."""
    lines = textwrap.wrap(
        text,
        max(width, _NARROWEST_PROSE),
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [""]


def _widths(grid: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*grid, strict=True)]


def _width(grid: Sequence[Sequence[str]], separator: str) -> int:
    widths = _widths(grid)
    return sum(widths) + len(separator) * (len(widths) - 1)
