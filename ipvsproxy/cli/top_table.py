"""The columns of `ipvsproxy top`: the same ones in plain snapshots and on the live screen, and their JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.cli.units import exact
from ipvsproxy.config.durations import format_duration
from ipvsproxy.observe.printable import printable
from ipvsproxy.observe.schema import SCHEMA_VERSION, TopRates, TopRow, TopSnapshot
from ipvsproxy.observe.traffic import Grouping, Order, Rates, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipvsproxy.cli.top_source import Frame
    from ipvsproxy.observe.traffic import Row

    Format = Callable[[float], str]

TOTAL = "TOTAL"
_SEPARATOR = " " * 3
_NOTHING = "-"


class Column(NamedTuple):
    """A column; `order` is what sorts by it. `title` may have a word above the rest, which neighbours share."""

    title: str
    cell: Callable[[Row, Format], str]
    order: Order | None = None
    number: bool = True


def _rate(pick: Callable[[Rates], float]) -> Callable[[Row, Format], str]:
    return lambda row, number: number(pick(row.rates)) if row.rates else _NOTHING


_SERVICE = Column("SERVICE", lambda row, _: printable(row.name), Order.NAME, number=False)
_VIRTUAL_SERVER = Column(
    "VIRTUAL SERVER", lambda row, _: str(row.virtual_server or ""), Order.NAME, number=False
)
_ENDPOINT = Column("ENDPOINT", lambda row, _: row.endpoint_name, number=False)
_SERVING = Column("ENDPOINTS", lambda row, _: str(row.serving))
_STATE = Column("STATE", lambda row, _: _state(row), number=False)
_NUMBERS = (
    Column("ACTIVE", lambda row, _: str(row.active_connections), Order.ACTIVE),
    Column("INACTIVE", lambda row, _: str(row.inactive_connections), Order.INACTIVE),
    Column("NEW/S", _rate(lambda rates: rates.connections), Order.CONNECTIONS),
    Column("PACKETS/S IN", _rate(lambda rates: rates.packets_in), Order.PACKETS),
    Column("PACKETS/S OUT", _rate(lambda rates: rates.packets_out), Order.PACKETS),
    Column("BYTES/S IN", _rate(lambda rates: rates.bytes_in), Order.BYTES),
    Column("BYTES/S OUT", _rate(lambda rates: rates.bytes_out), Order.BYTES),
)
_COLUMNS = {
    Grouping.SERVICE: (_SERVICE, _SERVING, *_NUMBERS, _STATE),
    Grouping.VIRTUAL_SERVER: (
        _VIRTUAL_SERVER,
        _SERVICE._replace(cell=lambda row, _: printable(row.service or _NOTHING), order=None),
        _SERVING,
        *_NUMBERS,
        _STATE,
    ),
    Grouping.ENDPOINT: (_ENDPOINT, _SERVICE, *_NUMBERS, _STATE),
}


def columns_of(by: Grouping) -> tuple[Column, ...]:
    """Return the columns of such rows, the name first."""
    return _COLUMNS[by]


def total_cells(columns: Sequence[Column], total: Row, number: Format) -> list[str]:
    """Return the cells of the last row."""
    names = {_SERVICE.title, _VIRTUAL_SERVER.title, _ENDPOINT.title}
    cells = ["" if column.title in names else column.cell(total, number) for column in columns]
    return [TOTAL, *cells[1:]]


def plain(rows: Sequence[Row], total: Row, by: Grouping) -> str:
    """Return the table of one snapshot: nothing cut short, the total last."""
    columns = columns_of(by)
    lines = [
        [column.title for column in columns],
        *([column.cell(row, exact) for column in columns] for row in rows),
        total_cells(columns, total, exact),
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "".join(
        _SEPARATOR.join(
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def snapshot(frame: Frame, rows: Sequence[Row], total: Row, by: Grouping, time: str) -> TopSnapshot:
    """Return a snapshot with its rates, as JSON has it."""
    elapsed = frame.after.at - frame.before.at if frame.before else 0.0
    return TopSnapshot(
        SCHEMA_VERSION,
        time,
        round(elapsed, 3),
        by,
        frame.agent,
        frame.counting,
        [_shown(row) for row in rows],
        _shown(total),
    )


def _shown(row: Row) -> TopRow:
    left = row.drain_seconds_left
    return TopRow(
        row.service,
        str(row.virtual_server) if row.virtual_server else None,
        row.endpoint_name or None,
        row.serving,
        row.draining,
        None if left is None else round(left),
        row.active_connections,
        row.inactive_connections,
        TopRates(*(round(rate, 3) for rate in row.rates or Rates())),
    )


def _state(row: Row) -> str:
    if row.drain_seconds_left is None:
        return state_of(row)
    return f"{state_of(row)}, {format_duration(round(row.drain_seconds_left))} left"
