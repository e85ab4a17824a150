"""The command line of `ipvsproxy top`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments.parser import (
    Command,
    OutputFormat,
    add_output,
    add_run_directory,
    add_service,
    readable,
)
from ipvsproxy.config.durations import format_duration, parse_duration
from ipvsproxy.config.readers import one_of
from ipvsproxy.model.addresses import parse_address
from ipvsproxy.observe.look_times import PERIOD
from ipvsproxy.observe.traffic import Grouping, Order, Wanted

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ipvsproxy.cli.arguments.parser import Parser

_EPILOG = """\
examples:
  ipvsproxy top
  ipvsproxy top --by endpoint --sort active --service kube-system/kube-dns
  ipvsproxy top --count 1
  ipvsproxy top -o json --count 0 | jq -c '.rows[] | select(.drainingEndpoints > 0)'

keys on the screen:
  b p c a i n  sort by bytes, packets, new connections, active or inactive connections, or the name
  r            the other way round
  /            type a part of a name, an address or a state to show the rows that have it; Enter keeps it, Esc ends it
  arrows, Page Up, Page Down, Home, End
  q            quit

exit codes:
  0    done
  1    it failed; the last line on standard error says why
  2    a flag is wrong, or nobody has the Service, the namespace or the endpoint; one line on standard error says which
  77   not permitted: the command needs root; one line on standard error says so
  130  interrupted
"""


@dataclasses.dataclass(frozen=True, slots=True)
class TopArguments:
    """What `ipvsproxy top` is asked to show, and how often.

    `interval` is in seconds. `count` None: a live screen, or one snapshot where there is no terminal; 0: no end.
    """

    output: OutputFormat
    by: Grouping
    order: Order
    wanted: Wanted
    interval: float
    count: int | None
    run_directory: Path

    def execute(self) -> int:
        """Show it."""
        from ipvsproxy.cli.top import top  # noqa: PLC0415 - imported late, as Arguments says

        return top(self)


def _read(namespace: argparse.Namespace, _hostname: str) -> TopArguments:
    return TopArguments(
        namespace.output,
        namespace.by or (Grouping.ENDPOINT if namespace.endpoint else Grouping.SERVICE),
        namespace.sort,
        Wanted(namespace.service, namespace.namespace, namespace.endpoint),
        namespace.interval,
        namespace.count,
        namespace.run_directory,
    )


def _add_flags(parser: Parser) -> None:
    add_output(parser, OutputFormat.TABLE, OutputFormat.JSON)
    parser.add_argument(
        "--by",
        metavar="WHAT",
        type=readable(one_of(Grouping)),
        help=f"what a row is about: {', '.join(Grouping)} (default: service, with --endpoint: endpoint)",
    )
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        type=readable(one_of(Order)),
        default=Order.BYTES,
        help=f"{', '.join(Order)}; packets and bytes in both directions (default: {Order.BYTES})",
    )
    add_service(parser)
    parser.add_argument(
        "--namespace", metavar="NAMESPACE", help="the Services of this namespace only (default: of all)"
    )
    parser.add_argument(
        "--endpoint",
        metavar="IP",
        type=readable(parse_address),
        help="this endpoint only; by service or virtual server: those that have it (default: all endpoints)",
    )
    parser.add_argument(
        "--interval",
        metavar="DURATION",
        type=readable(_read_interval),
        default=PERIOD,
        help="time from one look to the next, which is at the kernel's next count: it brings its counters up to date "
        f"every 2 seconds (default: {format_duration(PERIOD)}, the shortest)",
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=readable(_read_count),
        help="print so many snapshots instead of the live screen, 0: until interrupted "
        "(default: 1 where output or input is no terminal, or with -o json)",
    )
    add_run_directory(parser)


def _read_interval(text: str) -> float:
    seconds = parse_duration(text)
    if seconds < PERIOD:
        raise ValueError(f"{text} is less than 2s, and the kernel counts every 2 seconds only")
    return seconds


def _read_count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{text!r} is not a number from 0 on")
    return int(text)


COMMAND = Command(
    name="top",
    summary="show what goes through Services and their endpoints, live",
    usage="[-o table|json] [--by service|endpoint|virtual-server] [--sort COLUMN] [--service NAMESPACE/NAME]"
    "\n                     [--namespace NAMESPACE] [--endpoint IP] [--interval DURATION] [--count N]"
    "\n                     [--run-directory DIR]",
    description="Show connections, packets and bytes a second by Service, endpoint or virtual server, and what drains:"
    "\nlive on a terminal, else as plain snapshots. Without an agent that runs, show virtual servers by address.",
    epilog=_EPILOG,
    add_flags=_add_flags,
    read=_read,
)
