"""The alerts that ship with the chart: about metrics that there are, with commands that there are, and tried."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ipvsproxy.cli.arguments import COMMANDS
from tests.rules import promtool
from tests.rules.queries import metrics_of, unknown_in

CHART = Path(__file__).parents[2] / "charts" / "ipvsproxy"
RULES = CHART / "rules" / "ipvsproxy.yaml"
TRIED = Path(__file__).parent / "ipvsproxy.test.yaml"

ALERTS: list[dict[str, Any]] = [
    alert for group in yaml.safe_load(RULES.read_text())["groups"] for alert in group["rules"]
]
EVERY_ALERT = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


@EVERY_ALERT
def test_an_alert_asks_for_metrics_and_labels_that_there_are(alert: dict[str, Any]) -> None:
    assert unknown_in(alert["expr"]) == []


@EVERY_ALERT
def test_an_alert_says_what_is_the_matter_what_it_means_and_what_to_run_next(alert: dict[str, Any]) -> None:
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "command"}
    assert all(note.endswith(".") for name, note in notes.items() if name != "command")
    program, command, *_ = notes["command"].split()
    assert program == "ipvsproxy"
    assert command in {each.name for each in COMMANDS}
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}


@EVERY_ALERT
def test_an_alert_is_tried_with_numbers_that_fire_it_and_others_that_do_not(alert: dict[str, Any]) -> None:
    trials = [
        (len(trial["exp_samples"]), len(test["input_series"]))
        for test in yaml.safe_load(TRIED.read_text())["tests"]
        for trial in test["promql_expr_test"]
        if f'alertname="{alert["alert"]}"' in trial["expr"]
    ]
    assert any(fired for fired, _ in trials)
    assert any(fired < series for fired, series in trials)


def test_the_alerts_fire_and_keep_still_as_they_should() -> None:
    program = promtool.find()
    if program is None:
        pytest.skip("no promtool: `python -m tests.rules.promtool` gets it from Debian's package prometheus")
    done = subprocess.run([program, "test", "rules", str(TRIED)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_query_asks_for_is_found_in_it() -> None:
    query = 'sum by (le) (rate(a_bucket{instance=~"x", code="200"}[5m])) / b offset 5m > 1 and c == 0'
    assert metrics_of(query) == {
        ("a_bucket", frozenset({"instance", "code"})),
        ("b", frozenset()),
        ("c", frozenset()),
    }
    assert re.fullmatch(r".*no_such_metric.*", str(unknown_in("rate(no_such_metric[5m])")))
    assert unknown_in('ipvsproxy_real_servers{colour="red"}') == ["ipvsproxy_real_servers: colour"]
