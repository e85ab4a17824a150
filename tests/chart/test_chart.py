"""The chart as a whole: Helm has nothing against it, and what follows from other files does."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ipvsproxy import __version__
from ipvsproxy.cli.arguments import parse
from ipvsproxy.plan.check.finding import Severity
from ipvsproxy.plan.check.kernel import judge_version
from tests.chart import derived
from tests.chart.engine import (
    CHART,
    GIVEN,
    at,
    chart,
    container,
    helm,
    merged,
    refusal,
    render,
    render_exactly,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

README = (CHART / "README.md").read_text()
SELECTOR = "app.kubernetes.io/name=ipvsproxy,app.kubernetes.io/instance=ipvsproxy"
(INSTALL,) = re.findall(r"(?m)^```\n(helm install (?:.*\n)*?)```$", README)


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


@pytest.mark.parametrize("file", ["README.md", "fields.json", "values.schema.json"])
def test_what_follows_from_other_files_does(file: str) -> None:
    should_be = {
        "README.md": derived.readme,
        "fields.json": derived.fields,
        "values.schema.json": derived.schema,
    }[file]()

    assert (CHART / file).read_text() == should_be, "run `python -m tests.chart.derived`"


@pytest.mark.parametrize("name", derived.SETS)
def test_the_manifests_are_the_golden_ones(name: str) -> None:
    golden = (derived.GOLDEN / f"{name}.yaml").read_text()

    assert derived.manifest(name) == golden, "run `python -m tests.chart.derived`, and look at what changed"


def test_the_golden_manifests_are_all_there_are() -> None:
    assert {file.stem for file in derived.GOLDEN.iterdir()} == set(derived.SETS)


def test_each_switch_is_thrown_in_one_of_the_golden_manifests() -> None:
    def found(values: Mapping[str, Any], path: str) -> object:
        for key in path.split("."):
            values = values.get(key, {})
        return values

    switches = {
        value.path: value.default == "true" for value in derived.documented_values() if value.is_switch
    }
    thrown = {
        path
        for path, default in switches.items()
        if any(found(values, path) is (not default) for values in derived.SETS.values())
    }

    assert len(switches) == 9
    assert thrown == switches.keys()


def test_the_schema_refuses_unknown_keys_of_every_object() -> None:
    def closed(schema: Any, path: str) -> list[str]:  # noqa: ANN401 - a schema has any shape
        if isinstance(schema, list):
            return [found for each in schema for found in closed(each, path)]
        if not isinstance(schema, dict):
            return []
        # A file of another release of kube-proxy's may be pasted there; the agent names what it does not know of it.
        if path == "/properties/config":
            return []
        is_open = "properties" in schema and schema.get("additionalProperties") is not False
        # What holds on a condition narrows what holds anyway.
        always = {key: each for key, each in schema.items() if key not in {"if", "then"}}
        below = [found for key, each in always.items() for found in closed(each, f"{path}/{key}")]
        return [path] * is_open + below

    assert closed(chart().schema, "") == []


def test_the_schema_has_each_value_and_no_more() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(known: dict[str, Any], value: dict[str, Any], path: str) -> None:
        known = schema["definitions"][known["$ref"].rpartition("/")[2]] if "$ref" in known else known
        if properties := known.get("properties"):
            # A KubeProxyConfiguration has more fields than the chart sets; quantities and affinity are anyone's choice.
            if path not in {"config", "config.ipvs", "resources.requests", "resources.limits", "affinity"}:
                assert properties.keys() - {"global"} == value.keys(), path
            for key in properties.keys() & value.keys():
                if isinstance(value[key], dict):
                    compare(properties[key], value[key], f"{path}.{key}".lstrip("."))

    compare(schema, values, "")


@pytest.mark.parametrize(
    ("strategy", "first"),
    [
        ("RollingUpdate", "rollout status daemonset/ipvsproxy"),
        ("OnDelete", f"get pods --output wide --selector {SELECTOR}"),
    ],
)
def test_the_notes_name_the_next_three_commands(strategy: str, first: str) -> None:
    notes = render(at("updateStrategy.type", strategy)).notes
    commands = [line.split("#")[0].strip() for line in notes.splitlines() if line.startswith("  ")]

    assert commands == [
        f"kubectl --namespace kube-system {first}",
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


def test_names_that_are_numbers_stay_text() -> None:
    rendered = render_exactly(
        merged(
            {"priorityClassName": "123", "imagePullSecrets": ["123"]},
            {**derived.SETS["monitored"], "metrics": {"podMonitor": {"enabled": True}}},
        ),
        release="123",
        namespace="123",
    )

    assert {each["metadata"].get("namespace") for each in rendered.objects} == {"123", None}
    assert {each["metadata"]["labels"]["app.kubernetes.io/instance"] for each in rendered.objects} == {"123"}
    assert rendered.one("ClusterRoleBinding")["subjects"][0]["namespace"] == "123"
    assert (
        rendered.one("PodMonitor")["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == "123"
    )
    template = rendered.one("DaemonSet")["spec"]["template"]
    assert template["metadata"]["labels"]["app.kubernetes.io/instance"] == "123"
    assert template["spec"]["priorityClassName"] == "123"
    assert template["spec"]["imagePullSecrets"] == [{"name": "123"}]


@pytest.mark.parametrize("release", ["1st", "a.b"])
def test_a_release_whose_name_no_service_can_have_is_refused_where_one_is_made(release: str) -> None:
    values = merged(GIVEN, at("metrics.serviceMonitor.enabled", value=True))

    assert "metrics.serviceMonitor.enabled: no Service can have the name" in refusal(values, release)
    assert refusal(GIVEN, release) == ""
    assert refusal(values, "first") == ""


def test_objects_of_a_namespace_are_in_the_one_of_the_release() -> None:
    everywhere = {"ClusterRole", "ClusterRoleBinding"}

    for each in render({"metrics": {"serviceMonitor": {"enabled": True}}}).objects:
        assert each["metadata"].get("namespace") == (None if each["kind"] in everywhere else "kube-system"), (
            each
        )


@pytest.mark.parametrize(
    ("switch", "kind"),
    [
        ("podMonitor", "PodMonitor"),
        ("serviceMonitor", "ServiceMonitor"),
        ("prometheusRule", "PrometheusRule"),
        ("dashboard", "ConfigMap"),
    ],
)
def test_labels_of_the_values_take_the_place_of_the_charts_own(switch: str, kind: str) -> None:
    labels = {"app.kubernetes.io/name": "prometheus", "release": "1"}
    found = render({"metrics": {switch: {"enabled": True, "labels": labels}}}).all(kind)

    expected = {**labels, "app.kubernetes.io/instance": "ipvsproxy"}
    assert found[-1]["metadata"]["labels"].items() >= expected.items()


def test_an_upgrade_can_keep_the_daemonset() -> None:
    """What pods are selected by can't be changed, so it has no version."""
    assert render().one("DaemonSet")["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "ipvsproxy",
        "app.kubernetes.io/instance": "ipvsproxy",
    }


def test_the_install_that_the_readme_begins_with_is_one_that_works() -> None:
    _, settings = INSTALL.split("helm install ipvsproxy charts/ipvsproxy --namespace kube-system ")
    words = shlex.split(settings.replace("\\\n", ""))
    values: dict[str, Any] = {}
    for path, _, value in (word.partition("=") for word in words if word != "--set"):
        values = merged(values, at(path, value))

    assert container(render_exactly(values))["image"] == f"registry.example/ipvsproxy:{__version__}"


def test_the_readme_names_the_oldest_kernel_that_check_is_content_with() -> None:
    (version,) = re.findall(r"Linux (\d+\.\d+) or newer", README)
    major, minor = map(int, version.split("."))

    assert judge_version(f"{major}.{minor}.0").severity is Severity.OK
    assert judge_version(f"{major}.{minor - 1}.0").severity is Severity.ERROR


def test_the_commands_of_the_readme_are_there() -> None:
    commands = re.findall(r"(?m)(?:^|-- |`)(ipvsproxy (?!-)[a-z]+[^`\n]*)", README)

    assert {command.split()[1] for command in commands} == {"check", "cleanup", "dump", "explain"}
    for command in commands:
        parse(shlex.split(command.replace("NAMESPACE/NAME -> …", "default/web -> 10.96.0.10:53/udp"))[1:])


def test_the_package_has_all_that_the_templates_read(tmp_path: Path) -> None:
    with helm.Chart.load(chart().save(tmp_path)) as packaged:
        files = {file["name"] for file in packaged.files}

    assert files == {"README.md", "fields.json", "dashboards/ipvsproxy.json", "rules/ipvsproxy.yaml"}
