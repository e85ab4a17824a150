"""An explanation as text: the way step by step, the endpoints, the result, and what to do."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from ipvsproxy.cli.layout import NOTHING, Column, Look, Table, lay_out
from ipvsproxy.config.durations import format_duration
from ipvsproxy.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ipvsproxy.observe.explain_schema import ExplainedEndpoint, ExplainedStep, Explanation

_COLUMNS: Final = (
    Column("ENDPOINT", is_name=True),
    Column("STATE"),
    Column("WEIGHT"),
    Column("CONNECTIONS"),
    Column("MAXIMUM"),
    Column("SEES"),
    Column("REASON"),
)
_INDENT: Final = "  "
_FEW: Final = 6


def render(explanation: Explanation, width: int | None) -> str:
    """Return the text; lines are broken at `width` columns, None leaves them as they are."""
    lines = [
        *_head(explanation),
        *_sentences("assumed", explanation.assumptions),
        *_way(explanation),
        *_endpoints(explanation.endpoints, width),
        *_sentences("result", [explanation.result]),
        *_sentences("unless", explanation.unless),
        *_sentences("wanted", [explanation.wanted] if explanation.wanted else []),
        # What is wanted says what differs, too.
        *_sentences("differences", [] if explanation.wanted else explanation.differences or []),
        *_sentences("next", explanation.next),
    ]
    return "".join(f"{broken}\n" for line in lines for broken in _broken(printable(line), width))


def _broken(line: str, width: int | None) -> list[str]:
    """Return the line in pieces, each after the first below the text of it."""
    indent = len(line) - len(line.lstrip())
    if width is None or len(line) <= width or not indent:
        return [line]
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _head(explanation: Explanation) -> Iterator[str]:
    client, destination = explanation.client, explanation.destination
    known = [client.address] if client.address and client.address != client.asked else []
    known += [f"by interface {client.interface}"] if client.interface else []
    address = f"[{destination.address}]" if ":" in destination.address else destination.address
    asked = f"{client.asked} ({', '.join(known)})" if known else client.asked
    yield f"{asked} -> {address}:{destination.port}/{destination.protocol.lower()}"
    yield from (f"  {sentence}" for sentence in explanation.about)


def _sentences(title: str, sentences: Iterable[str]) -> Iterator[str]:
    every = list(sentences)
    if every:
        yield ""
        yield f"{title}:"
        yield from (f"  {sentence}" for sentence in every)


def _way(explanation: Explanation) -> Iterator[str]:
    if not explanation.steps and not explanation.ways:
        return
    yield ""
    yield "way of the packet:"
    for number, step in enumerate(explanation.steps, start=1):
        yield from _step(number, step)
    first = len(explanation.steps) + 1
    for way in explanation.ways:
        more = f" and {len(way.real_servers) - _FEW} more" if len(way.real_servers) > _FEW else ""
        yield f"  to {', '.join(way.real_servers[:_FEW])}{more}:"
        for number, step in enumerate(way.steps, start=first):
            yield from _step(number, step)


def _step(number: int, step: ExplainedStep) -> Iterator[str]:
    chain = f", chain {step.chain}" if step.chain else ""
    yield f"  {number:>2}. {step.stage}{chain}: {step.reason}: {step.effect}"
    yield from (f"        {entry}" for entry in step.entries)


def _endpoints(endpoints: Iterable[ExplainedEndpoint], width: int | None) -> Iterator[str]:
    rows = [_row(endpoint) for endpoint in endpoints]
    if rows:
        yield ""
        yield "endpoints:"
        look = Look(None if width is None else width - len(_INDENT))
        yield from (f"{_INDENT}{line}" for line in lay_out(Table(_COLUMNS, rows), look).splitlines())


def _row(endpoint: ExplainedEndpoint) -> tuple[str, ...]:
    left = endpoint.drain_seconds_left
    state = f"{endpoint.state}" if left is None else f"{endpoint.state}, {format_duration(left)} left"
    counts = [endpoint.active_connections or 0, endpoint.inactive_connections or 0]
    return (
        str(endpoint),
        state,
        NOTHING if endpoint.weight is None else str(endpoint.weight),
        NOTHING if endpoint.weight is None else str(sum(counts)),
        str(endpoint.maximum_connections) if endpoint.maximum_connections else NOTHING,
        endpoint.sees or NOTHING,
        endpoint.reason or NOTHING,
    )
