"""Values that are wrong are refused at install, with their path."""

from __future__ import annotations

import json

import pytest

from tests.chart.engine import FROM_KUBECONFIG, GIVEN, at, merged, refusal

TRUE_AS_TEXT = "got string, want boolean"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # A key that does not exist, of each object.
        ("replicas", 2, "at '': additional properties 'replicas' not allowed"),
        ("image.repo", "x", "at '/image': additional properties 'repo' not allowed"),
        ("apiServer.address", "x", "at '/apiServer': additional properties 'address' not allowed"),
        ("agent.verbosity", 2, "at '/agent': additional properties 'verbosity' not allowed"),
        ("extraEnv", [{"name": "A", "values": "b"}], "at '/extraEnv/0': additional properties 'values' not allowed"),
        ("resources.limit", {}, "at '/resources': additional properties 'limit' not allowed"),
        ("resources.limits.disk", 1, "at '/resources/limits': additional properties 'disk' not allowed"),
        ("updateStrategy.maxSurge", 1, "at '/updateStrategy': additional properties 'maxSurge' not allowed"),
        ("metrics.enabled", True, "at '/metrics': additional properties 'enabled' not allowed"),
        ("metrics.podMonitor.path", "/", "at '/metrics/podMonitor': additional properties 'path' not allowed"),
        ("metrics.serviceMonitor.x", 1, "at '/metrics/serviceMonitor': additional properties 'x' not allowed"),
        ("metrics.prometheusRule.x", 1, "at '/metrics/prometheusRule': additional properties 'x' not allowed"),
        ("metrics.dashboard.x", 1, "at '/metrics/dashboard': additional properties 'x' not allowed"),
        ("tolerations", [{"keys": "a"}], "at '/tolerations/0': additional properties 'keys' not allowed"),
        ("affinity.nodeAfinity", {}, "at '/affinity': additional properties 'nodeAfinity' not allowed"),
        # A value of another type.
        ("privileged", "true", f"at '/privileged': {TRUE_AS_TEXT}"),
        ("loadModules", "false", f"at '/loadModules': {TRUE_AS_TEXT}"),
        ("readPods", "no", f"at '/readPods': {TRUE_AS_TEXT}"),
        ("metrics.dashboard.enabled", "yes", f"at '/metrics/dashboard/enabled': {TRUE_AS_TEXT}"),
        ("apiServer.port", "6443", "at '/apiServer/port': got string, want integer"),
        ("image.tag", 1.2, "at '/image/tag': got number, want string"),
        ("nodeSelector.zone", 1, "at '/nodeSelector/zone': got number, want string"),
        ("tolerations", {"operator": "Exists"}, "at '/tolerations': got object, want array"),
        ("imagePullSecrets", [{"name": "x"}], "at '/imagePullSecrets/0': got object, want string"),
        ("config", "file", "at '/config': got string, want object"),
        ("config.nodePortAddresses", "primary", "at '/config/nodePortAddresses': got string, want null or array"),
        # A value that can't be.
        ("apiServer.port", 65536, "at '/apiServer/port': maximum: got 65,536, want 65,535"),
        ("apiServer.host", "https://api.example.com", "at '/apiServer/host': 'https://api.example.com' does not match"),
        ("apiServer.host", "192.0.2.1:6443", "at '/apiServer/host': '192.0.2.1:6443' does not match"),
        ("apiServer.host", "[fd00::1]", "at '/apiServer/host': '[fd00::1]' does not match"),
        ("apiServer.kubeconfig", "kube.conf", "at '/apiServer/kubeconfig': 'kube.conf' does not match"),
        ("image.repository", "", "at '/image/repository': '' does not match"),
        ("image.repository", "a//b", "at '/image/repository': 'a//b' does not match"),
        ("image.repository", "ipvsproxy:1.2", "at '/image/repository': 'ipvsproxy:1.2' does not match"),
        ("image.digest", "abc", "at '/image/digest': 'abc' does not match"),
        ("apiServer.kubeconfig", "/a/../b", "at '/apiServer/kubeconfig': '/a/../b' does not match"),
        ("image.pullPolicy", "always", "at '/image/pullPolicy': value must be one of 'IfNotPresent'"),
        ("imagePullSecrets", ["My Secret"], "at '/imagePullSecrets/0': 'My Secret' does not match"),
        ("priorityClassName", "a..b", "at '/priorityClassName': 'a..b' does not match"),
        ("priorityClassName", "", "at '/priorityClassName': '' does not match"),
        ("agent.logLevel", "warn", "at '/agent/logLevel': value must be one of 'debug', 'info', 'warning', 'error'"),
        ("agent.drainTimeout", "15", "at '/agent/drainTimeout': '15' does not match"),
        ("agent.serviceTrafficMetrics", -1, "at '/agent/serviceTrafficMetrics': minimum: got -1, want 0"),
        ("agent.allowedExternalIPs", ["192.0.2.1"], "at '/agent/allowedExternalIPs/0': '192.0.2.1' does not match"),
        ("config.ipvs.scheduler", "random", "at '/config/ipvs/scheduler': value must be one of"),
        ("config.detectLocalMode", "Bridge", "at '/config/detectLocalMode': value must be one of"),
        ("agent.allowedExternalIPs", ["10.0.0.0/33"], "at '/agent/allowedExternalIPs/0': '10.0.0.0/33' does not match"),
        ("config.clusterCIDR", "10.256.0.0/16", "at '/config/clusterCIDR': '10.256.0.0/16' does not match"),
        ("config.clusterCIDR", "10.244.0.0", "at '/config/clusterCIDR': '10.244.0.0' does not match"),
        ("config.healthzBindAddress", "none", "at '/config/healthzBindAddress': 'none' does not match"),
        ("config.healthzBindAddress", "0.0.0.0", "at '/config/healthzBindAddress': '0.0.0.0' does not match"),
        ("extraArgs", ["v=2"], "at '/extraArgs/0': 'v=2' does not match"),
        *(
            ("extraArgs", ["--v=2", flag], "extraArgs: --")
            for flag in ("--config=/a", "--hostname_override=node-1", "--hostname-override", "--kubeconfig=/a")
        ),
        ("extraArgs", "--v=2", "at '/extraArgs': got string, want array"),
        ("extraEnv", [{"value": "b"}], "at '/extraEnv/0': missing property 'name'"),
        ("extraEnv", [{"name": "A", "value": 1}], "at '/extraEnv/0/value': got number, want string"),
        ("extraEnv", [{"name": "a=b"}], "at '/extraEnv/0/name': 'a=b' does not match"),
        ("podLabels", {"a": "b c"}, "at '/podLabels/a': 'b c' does not match"),
        ("podAnnotations", {"a": 1}, "at '/podAnnotations/a': got number, want string"),
        ("config.kind", "KubeletConfiguration", "at '/config/kind': value must be 'KubeProxyConfiguration'"),
        ("updateStrategy.type", "Recreate", "at '/updateStrategy/type': value must be one of 'RollingUpdate'"),
        ("updateStrategy.maxUnavailable", 0, "at '/updateStrategy/maxUnavailable': minimum: got 0, want 1"),
        ("updateStrategy.maxUnavailable", "0%", "at '/updateStrategy/maxUnavailable': '0%' does not match"),
        ("tolerations", [{"operator": "In"}], "at '/tolerations/0/operator': value must be one of 'Exists', 'Equal'"),
        ("tolerations", [{"key": "a b"}], "at '/tolerations/0/key': 'a b' does not match"),
        ("tolerations", [{"effect": "NoExecute"}], "at '/tolerations/0': missing property 'operator'"),
        ("tolerations", [{"operator": "Equal"}], "at '/tolerations/0/operator': value must be 'Exists'"),
        ("tolerations", [{"operator": "Exists", "value": "a"}], "at '/tolerations/0/value': value must be ''"),
        ("tolerations", [{"key": "a", "tolerationSeconds": 9}], "at '/tolerations/0': missing property 'effect'"),
        ("nodeSelector", {"a..b/c": "d"}, "at '/nodeSelector': additional properties 'a..b/c' not allowed"),
        ("resources.requests.memory", "128 MB", "at '/resources/requests/memory': '128 MB' does not match"),
        ("metrics.podMonitor.interval", "30", "at '/metrics/podMonitor/interval': '30' does not match"),
        ("metrics.podMonitor.labels", {"a b": "c"}, "at '/metrics/podMonitor/labels': additional properties 'a b'"),
        ("metrics.dashboard.labels", {"a": "b c"}, "at '/metrics/dashboard/labels/a': 'b c' does not match"),
        ("updateStrategy.maxUnavailable", 2**31, "at '/updateStrategy/maxUnavailable': maximum: got"),
        # A section that is taken away.
        ("metrics", None, "at '': missing property 'metrics'"),
        ("metrics.podMonitor", None, "at '/metrics': missing property 'podMonitor'"),
        ("agent.drainTimeout", None, "at '/agent': missing property 'drainTimeout'"),
        # What the schema can't say.
        ("apiServer.host", "", "apiServer.host: give the address of the API server as nodes know it"),
        ("podLabels", {"app.kubernetes.io/name": "x"}, "podLabels: app.kubernetes.io/name is"),
        ("podAnnotations", {"checksum/config": "x"}, "podAnnotations: checksum/config"),
        ("extraEnv", [{"name": "NODE_NAME", "value": "x"}], "extraEnv: NODE_NAME is the chart's to set"),
    ],
    ids=lambda each: each if isinstance(each, str) else json.dumps(each),
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_path(path: str, value: object, message: str) -> None:
    assert message in refusal(merged(GIVEN, at(path, value)))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"key": "a", "operator": "in"}, "/operator': value must be one of 'In'"),
        ({"key": "a", "operator": "In", "values": [1]}, "/values/0': got number, want string"),
        ({"key": "a", "operator": "In", "value": "b"}, "': additional properties 'value' not allowed"),
        ({"operator": "Exists"}, "': missing property 'key'"),
        ({"key": "a b", "operator": "Exists"}, "/key': 'a b' does not match"),
        ({"key": "a", "operator": "In"}, "': missing property 'values'"),
        ({"key": "a", "operator": "NotIn", "values": []}, "/values': minItems: got 0, want 1"),
        ({"key": "a", "operator": "Exists", "values": ["b"]}, "/values': maxItems: got 1, want 0"),
        ({"key": "a", "operator": "Gt", "values": ["1", "2"]}, "/values': maxItems: got 2, want 1"),
    ],
)
def test_an_affinity_that_the_api_does_not_know_is_refused(expression: object, message: str) -> None:
    path = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    place = f"at '/{path.replace('.', '/')}/0/matchExpressions/0"

    assert f"{place}{message}" in refusal(merged(GIVEN, at(path, [{"matchExpressions": [expression]}])))


def test_the_api_server_is_not_named_twice() -> None:
    assert "apiServer.kubeconfig: names the API server already" in refusal(merged(GIVEN, FROM_KUBECONFIG))


@pytest.mark.parametrize("monitor", ["podMonitor", "serviceMonitor"])
def test_no_metrics_are_refused_with_a_monitor(monitor: str) -> None:
    none = at("config.metricsBindAddress", "none")

    assert "config.metricsBindAddress: Prometheus can't ask" in refusal(
        merged(GIVEN, merged(none, at(f"metrics.{monitor}.enabled", value=True)))
    )
    assert refusal(merged(GIVEN, none)) == ""


@pytest.mark.parametrize(
    "values",
    [
        at("config.healthzBindAddress", "127.0.0.1:10249"),
        {"config": {"metricsBindAddress": "127.0.0.1:9000", "healthzBindAddress": "[::]:9000"}},
    ],
)
def test_health_and_metrics_are_not_at_the_same_port(values: dict[str, object]) -> None:
    assert "config.metricsBindAddress: the port is that of config.healthzBindAddress" in refusal(
        merged(GIVEN, values)
    )
    assert refusal(merged(GIVEN, merged(values, at("config.metricsBindAddress", "none")))) == ""


@pytest.mark.parametrize(
    "repository",
    [
        "ipvsproxy",
        "localhost:5000/ipvsproxy",
        "registry.example.com/net-work/a__b/c-d.e",
        "192.0.2.1:443/x/y",
    ],
)
def test_the_image_may_be_in_any_registry(repository: str) -> None:
    assert refusal(merged(GIVEN, at("image.repository", repository))) == ""


@pytest.mark.parametrize(
    "toleration",
    [
        {"operator": "Exists", "effect": "NoSchedule"},
        {"key": "a.example/b", "operator": "Exists", "value": ""},
        {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5},
    ],
)
def test_taints_may_be_tolerated_one_by_one(toleration: object) -> None:
    assert refusal(merged(GIVEN, at("tolerations", [toleration]))) == ""


@pytest.mark.parametrize("host", ["192.0.2.1", "fd00::10", "::1", "api.example.com", "localhost"])
def test_the_api_server_may_be_an_address_of_either_family_or_a_name(host: str) -> None:
    assert refusal(at("apiServer.host", host)) == ""


def test_a_chart_that_this_one_is_part_of_may_have_global_values() -> None:
    assert refusal(merged(GIVEN, {"global": {"of": "others"}})) == ""
