"""The chart as a whole: Helm has nothing against it, and what follows from other files does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ipvsproxy import __version__
from tests.chart import derived
from tests.chart.engine import CHART, GIVEN, chart, helm, render, render_exactly

if TYPE_CHECKING:
    from pathlib import Path


def test_helm_has_nothing_against_the_chart_but_that_it_has_no_icon() -> None:
    report = helm.lint(CHART, dict(GIVEN), strict=True)

    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_the_version_is_that_of_the_program() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert (metadata["version"], metadata["appVersion"]) == (__version__, __version__)


def test_each_value_has_a_comment() -> None:
    values = derived.documented_values()

    assert len(values) > 40
    assert [value.path for value in values if not value.comment] == []


@pytest.mark.parametrize("file", ["README.md", "values.schema.json"])
def test_what_follows_from_other_files_does(file: str) -> None:
    should_be = {"README.md": derived.readme, "values.schema.json": derived.schema}[file]()

    assert (CHART / file).read_text() == should_be, "run `python -m tests.chart.derived`"


@pytest.mark.parametrize("name", derived.SETS)
def test_the_manifests_are_the_golden_ones(name: str) -> None:
    golden = (derived.GOLDEN / f"{name}.yaml").read_text()

    assert derived.manifest(name) == golden, "run `python -m tests.chart.derived`, and look at what changed"


def test_the_golden_manifests_are_all_there_are() -> None:
    assert {file.stem for file in derived.GOLDEN.iterdir()} == set(derived.SETS)


def test_the_schema_refuses_unknown_keys_of_every_object() -> None:
    def closed(schema: Any, path: str) -> list[str]:  # noqa: ANN401 - a schema has any shape
        if isinstance(schema, list):
            return [found for each in schema for found in closed(each, path)]
        if not isinstance(schema, dict):
            return []
        is_open = "properties" in schema and schema.get("additionalProperties") is not False
        below = [found for key, each in schema.items() for found in closed(each, f"{path}/{key}")]
        return [path] * is_open + below

    assert closed(chart().schema, "") == []


def test_the_schema_has_each_value_and_no_more() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(known: dict[str, Any], value: dict[str, Any], path: str) -> None:
        known = schema["definitions"][known["$ref"].rpartition("/")[2]] if "$ref" in known else known
        if properties := known.get("properties"):
            # A KubeProxyConfiguration has more fields than the chart sets, and quantities are anybody's choice.
            if path not in {"config", "config.ipvs", "resources.requests", "resources.limits"}:
                assert properties.keys() - {"global"} == value.keys(), path
            for key in properties.keys() & value.keys():
                if isinstance(value[key], dict):
                    compare(properties[key], value[key], f"{path}.{key}".lstrip("."))

    compare(schema, values, "")


def test_the_notes_name_the_next_three_commands() -> None:
    commands = [line.split("#")[0].strip() for line in render().notes.splitlines() if line.startswith("  ")]

    assert commands == [
        "kubectl --namespace kube-system rollout status daemonset/ipvsproxy",
        "kubectl --namespace kube-system exec daemonset/ipvsproxy -- ipvsproxy check",
        "kubectl --namespace kube-system exec daemonset/ipvsproxy -- ipvsproxy dump --diff",
    ]


@pytest.mark.parametrize(
    ("release", "name"),
    [("ipvsproxy", "ipvsproxy"), ("services", "services-ipvsproxy"), ("my-ipvsproxy", "my-ipvsproxy")],
)
def test_everything_has_the_name_of_the_release(release: str, name: str) -> None:
    rendered = render_exactly(GIVEN, release)

    assert {each["metadata"]["name"] for each in rendered.objects} == {name}
    assert rendered.one("ClusterRoleBinding")["subjects"][0]["name"] == name
    assert f"daemonset/{name} " in rendered.notes


def test_objects_of_a_namespace_are_in_the_one_of_the_release() -> None:
    everywhere = {"ClusterRole", "ClusterRoleBinding"}

    for each in render({"metrics": {"serviceMonitor": {"enabled": True}}}).objects:
        assert each["metadata"].get("namespace") == (None if each["kind"] in everywhere else "kube-system"), (
            each
        )


def test_an_upgrade_can_keep_the_daemonset() -> None:
    """What pods are selected by can't be changed, so it has no version."""
    assert render().one("DaemonSet")["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "ipvsproxy",
        "app.kubernetes.io/instance": "ipvsproxy",
    }


def test_the_package_has_all_that_the_templates_read(tmp_path: Path) -> None:
    with helm.Chart.load(chart().save(tmp_path)) as packaged:
        files = {file["name"] for file in packaged.files}

    assert files == {"README.md", "dashboards/ipvsproxy.json", "rules/ipvsproxy.yaml"}
