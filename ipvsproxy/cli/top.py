"""`ipvsproxy top`: what goes through Services and their endpoints, live on a terminal, else as plain snapshots."""

from __future__ import annotations

import datetime as dt
import os
import sys
import threading
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.notices import notify
from ipvsproxy.cli.privilege import require_operator
from ipvsproxy.cli.top_source import Node, Source
from ipvsproxy.cli.top_table import plain, snapshot
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.kernel.sysctl import ProcSysctls
from ipvsproxy.observe.agent_socket import ask_report
from ipvsproxy.observe.look_times import LookTimes
from ipvsproxy.observe.printable import printable_json
from ipvsproxy.observe.traffic import NOT_COUNTING, in_order, rows_of, total_of
from ipvsproxy.plan.firewall import FirewallSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from ipvsproxy.cli.arguments.top import TopArguments
    from ipvsproxy.cli.top_source import Frame

# The counters of the whole node, of the calling thread's network namespace.
_NODE_COUNTERS = Path("/proc/thread-self/net/ip_vs_stats")

# For the agent's answer, in seconds: names may be late, numbers not.
_PATIENCE = 5.0
_TERMINALS_WITHOUT_A_SCREEN = {"", "dumb", "unknown"}


def top(arguments: TopArguments) -> int:
    """Show it; return the exit code."""
    require_operator()
    ending = threading.Event()
    node = Node(
        open_node_kernel(FirewallSettings()),
        ProcSysctls(),
        partial(ask_report, arguments.run_directory, _PATIENCE),
        _NODE_COUNTERS.read_text,
        time.monotonic,
        ending.wait,
    )
    source = Source(node, arguments.by, arguments.wanted)
    frames = source.frames(LookTimes(arguments.interval))
    if _is_live(arguments):
        from ipvsproxy.cli.top_live import live  # noqa: PLC0415 - rich takes 60 ms, and plain snapshots do without

        return live(arguments, frames, sys.stdin, sys.stdout)
    if source.silence:
        notify(sys.stderr, f"{source.silence}: virtual servers by address, Services are not known")
    write_snapshots(arguments, frames, lambda: dt.datetime.now(dt.UTC), sys.stdout, sys.stderr)
    return 0


def write_snapshots(
    arguments: TopArguments,
    frames: Iterator[Frame],
    now: Callable[[], dt.datetime],
    output: TextIO,
    errors: TextIO,
) -> None:
    """Write a snapshot for each frame that has rates, as many as are asked for; several tables have a time."""
    count = 1 if arguments.count is None else arguments.count or None
    counting = True
    for number, frame in enumerate(islice((each for each in frames if each.before), count)):
        if counting and not frame.counting:
            notify(errors, NOT_COUNTING)
        counting = frame.counting
        rows = in_order(
            rows_of(frame.before, frame.after, frame.names, frame.ours, arguments.by, arguments.wanted),
            arguments.order,
        )
        total, moment = total_of(rows), f"{now():%Y-%m-%dT%H:%M:%SZ}"
        if arguments.output is OutputFormat.JSON:
            shown = snapshot(frame, rows, total, arguments.by, moment)
            output.write(printable_json(msgspec.json.encode(shown).decode()) + "\n")
        else:
            heading = "" if count == 1 else "\n" * bool(number) + f"{moment}, {_duration(frame)}\n"
            output.write(heading + plain(rows, total, arguments.by))
        output.flush()


def _duration(frame: Frame) -> str:
    return f"the last {frame.after.at - frame.before.at:.1f}s" if frame.before else ""


def _is_live(arguments: TopArguments) -> bool:
    """Say whether to show the live screen: on a terminal that has one, unless something else is asked for."""
    return (
        arguments.output is OutputFormat.TABLE
        and arguments.count is None
        and sys.stdin.isatty()
        and sys.stdout.isatty()
        and os.environ.get("TERM", "") not in _TERMINALS_WITHOUT_A_SCREEN
    )
