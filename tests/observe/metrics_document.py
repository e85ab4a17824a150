"""Writes docs/metrics.md from the table of the metrics: `python -m tests.observe.metrics_document`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ipvsproxy.observe.metrics_table import GROUPS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.observe.metrics_table import Label, Metric

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"

HEAD = """\
# Metrics

The agent answers `/metrics` in Prometheus' text format at `--metrics-bind-address`, 127.0.0.1:10249 unless set.
Metrics named `kubeproxy_*` mean what kube-proxy's metrics of that name mean, so its dashboards and alerts go on to
work; they have no label `ip_family`, since the agent handles both families at once. `process_*` are those of every
Prometheus client: CPU time, memory, open files, start time.

Every counter and histogram is there from the agent's start, at zero, but for those by Service. Counters begin anew when
the agent does.

`charts/ipvsproxy/dashboards` has a Grafana dashboard and `charts/ipvsproxy/rules` alerts for Prometheus, each with the
command to run next. This page is made from `ipvsproxy/observe/metrics_table.py`; a test compares the two.
"""


def text() -> str:
    """Return the whole page."""
    return "\n".join((HEAD, *_sections()))


def _sections() -> Iterator[str]:
    for group in GROUPS:
        yield f"## {group.title}\n"
        for metric in group.metrics:
            yield from _entry(metric)


def _entry(metric: Metric) -> Iterator[str]:
    yield f"### {metric.name}\n"
    yield _paragraph(f"A {metric.kind}. {metric.meaning}")
    for label in metric.labels:
        yield textwrap.fill(
            f"- `{label.name}`: {_values(label)}", 120, subsequent_indent="  ", break_on_hyphens=False
        )
    if metric.labels:
        yield ""
    if metric.kind is Kind.HISTOGRAM:
        low, high = metric.buckets[0], metric.buckets[-1]
        yield f"{len(metric.buckets)} buckets from {low:g} to {high:g} s.\n"
    yield _paragraph(f"*When it moves.* {metric.advice}")


def _paragraph(prose: str) -> str:
    return textwrap.fill(prose, 120, break_on_hyphens=False) + "\n"


def _values(label: Label) -> str:
    return label.words or ", ".join(f"`{value}`" for value in label.values)


if __name__ == "__main__":
    DOCUMENT.write_text(text())
