"""Every object is one that the API takes: no field is unknown to it, and none has another type."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient

from tests.chart.derived import SETS
from tests.chart.engine import CHART, at, render, render_exactly

MODELS = {
    "ClusterRole": "V1ClusterRole",
    "ClusterRoleBinding": "V1ClusterRoleBinding",
    "ConfigMap": "V1ConfigMap",
    "DaemonSet": "V1DaemonSet",
    "Service": "V1Service",
    "ServiceAccount": "V1ServiceAccount",
}
# Of the Prometheus operator, whose types are in no library: the fields that its reference has
# (https://prometheus-operator.dev/docs/api-reference/api/), as far as the chart uses them.
_ENDPOINTS = {"port", "path", "interval", "relabelings"}
_OF_OPERATOR = {
    "PodMonitor": ({"selector", "podMetricsEndpoints"}, "podMetricsEndpoints", _ENDPOINTS),
    "ServiceMonitor": ({"selector", "endpoints"}, "endpoints", _ENDPOINTS),
    "PrometheusRule": ({"groups"}, "groups", {"name", "interval", "rules"}),
}


def assert_the_api_takes(contents: dict[str, Any]) -> None:
    """Compare the object with itself after the way through the API's types, which drop what they do not know."""
    client = ApiClient()
    model = MODELS[contents["kind"]]
    read = client.deserialize(json.dumps(contents), model, "application/json")
    assert client.sanitize_for_serialization(read) == contents  # type: ignore[no-untyped-call] # ships no types


@pytest.mark.parametrize("name", SETS)
def test_the_api_has_every_field_of_every_object(name: str) -> None:
    objects = [each for each in render_exactly(SETS[name]).objects if each["kind"] not in _OF_OPERATOR]

    assert len(objects) >= 4
    for each in objects:
        assert_the_api_takes(each)


@pytest.mark.parametrize(
    ("key", "value"), [("hostNetwrok", True), ("hostNetwork", "yes"), ("terminationGracePeriodSeconds", "10")]
)
def test_a_field_that_the_api_does_not_take_would_be_noticed(key: str, value: object) -> None:
    daemonset = render().one("DaemonSet")
    daemonset["spec"]["template"]["spec"][key] = value

    with pytest.raises((AssertionError, ValueError)):
        assert_the_api_takes(daemonset)


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_a_monitor_asks_the_agents_pods_for_their_metrics(kind: str) -> None:
    values = {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}}
    rendered = render(at(f"metrics.{kind[0].lower()}{kind[1:]}", values))
    found = rendered.one(kind)
    fields, endpoints, of_endpoint = _OF_OPERATOR[kind]

    assert found["apiVersion"] == "monitoring.coreos.com/v1"
    assert found["spec"].keys() == fields
    (endpoint,) = found["spec"][endpoints]
    assert endpoint.keys() == of_endpoint
    assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("metrics", "/metrics", "15s")
    assert found["metadata"]["labels"]["release"] == "prometheus"
    of_pods = rendered.one("DaemonSet")["spec"]["selector"]["matchLabels"]
    assert found["spec"]["selector"]["matchLabels"] == of_pods


def test_the_service_of_the_monitor_is_one_that_no_agent_programs() -> None:
    rendered = render(at("metrics.serviceMonitor.enabled", value=True))
    service = rendered.one("Service")

    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == rendered.one("DaemonSet")["spec"]["selector"]["matchLabels"]
    assert service["metadata"]["labels"].items() >= service["spec"]["selector"].items()


def test_the_rules_are_those_of_the_file() -> None:
    values = {"enabled": True, "labels": {"release": "prometheus"}}
    rule = render(at("metrics.prometheusRule", values)).one("PrometheusRule")
    _, groups, fields = _OF_OPERATOR["PrometheusRule"]

    assert rule["spec"] == yaml.safe_load((CHART / "rules" / "ipvsproxy.yaml").read_text())
    assert all(group.keys() <= fields for group in rule["spec"][groups])
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_the_dashboard_is_that_of_the_file() -> None:
    (dashboard,) = (
        each
        for each in render(at("metrics.dashboard.enabled", value=True)).all("ConfigMap")
        if each["metadata"]["name"] == "ipvsproxy-dashboard"
    )

    in_file = json.loads((CHART / "dashboards" / "ipvsproxy.json").read_text())
    assert {name: json.loads(text) for name, text in dashboard["data"].items()} == {"ipvsproxy.json": in_file}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert_the_api_takes(dashboard)


def test_nothing_is_made_for_monitoring_unasked() -> None:
    assert {each["kind"] for each in render().objects} == {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
        "ServiceAccount",
    }
