"""The Grafana dashboard that ships with the chart: about metrics that there are, and labels that these have."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ipvsproxy.observe.metrics_table import GROUPS, METRICS
from tests.rules import promtool
from tests.rules.queries import metrics_of, unknown_in

DASHBOARD = Path(__file__).parents[2] / "charts" / "ipvsproxy" / "dashboards" / "ipvsproxy.json"
SHOWN: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS = [panel for panel in SHOWN["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
EVERY_PANEL = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


@EVERY_PANEL
def test_a_panel_shows_metrics_and_labels_that_there_are(panel: dict[str, Any]) -> None:
    assert [unknown for target in panel["targets"] for unknown in unknown_in(target["expr"])] == []


@EVERY_PANEL
def test_a_panels_legend_has_labels_that_its_query_leaves(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        kept = set(re.findall(r"by \(([^)]*)\)", target["expr"]))
        labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        if kept:
            assert labels <= {label.strip() for group in kept for label in group.split(",")}
        else:
            assert labels <= {"instance"}


@EVERY_PANEL
def test_a_panel_says_what_it_means_and_can_be_narrowed_to_a_node(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".") or "ipvsproxy " in panel["description"]
    assert all('instance=~"$instance"' in target["expr"] for target in panel["targets"])


def test_no_two_panels_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in SHOWN["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert taken.isdisjoint(cells), panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells


def test_every_group_of_metrics_is_shown() -> None:
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for query in QUERIES for name, _ in metrics_of(query)}
    for group in GROUPS:
        assert shown & {metric.name for metric in group.metrics}, group.title
    assert len(shown & METRICS.keys()) > len(METRICS) / 2


def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    program = promtool.find()
    if program is None:
        pytest.skip("no promtool: `python -m tests.rules.promtool` gets it from Debian's package prometheus")
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(QUERIES)
    ]
    # JSON is YAML.
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [program, "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
