"""What PromQL expressions ask for, as far as ours go: metrics by their names, labels by their matchers."""

from __future__ import annotations

import re

from ipvsproxy.observe.metrics_table import METRICS, Kind

# What Prometheus adds to every series of a target, and a dashboard's or an alert's own series.
TARGET_LABELS = frozenset({"instance", "job"})
OTHERS = frozenset({"up", "ALERTS"})
PROCESS = frozenset(
    {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"}
)

_SELECTOR = re.compile(r"\b([a-zA-Z_][a-zA-Z0-9_]*)\b\s*(\{[^}]*\})?(?!\s*\()")
_MATCHER = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS = frozenset({"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring"})
_RANGE = re.compile(r"\[[^]]*\]")
_OFFSET = re.compile(r"\boffset\s+\w+")
_TEXT = re.compile(r'"[^"]*"')


def metrics_of(query: str) -> set[tuple[str, frozenset[str]]]:
    """Return the metrics that a query selects, each with the labels that it matches."""
    bare = _OFFSET.sub("", _RANGE.sub("", _GROUPING.sub("", _TEXT.sub('""', query))))
    return {
        (name, frozenset(_MATCHER.findall(matchers or "")))
        for name, matchers in _SELECTOR.findall(bare)
        if name not in _WORDS and not name[0].isdigit()
    }


def unknown_in(query: str) -> list[str]:
    """Return which metrics, and which labels of metrics, the agent does not have."""
    unknown = []
    for name, labels in sorted(metrics_of(query), key=str):
        if name in OTHERS | PROCESS:
            continue
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        metric = METRICS.get(name) or METRICS.get(base)
        if metric is None or (name != metric.name) != (metric.kind is Kind.HISTOGRAM):
            unknown.append(name)
            continue
        known = {label.name for label in metric.labels} | TARGET_LABELS | {"le"}
        unknown += [f"{name}: {label}" for label in sorted(labels - known)]
    return unknown
