"""The agent's configuration as the pods have it, read by the agent's own code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.run import RunArguments
from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.model.addresses import format_address
from tests.chart.engine import (
    CHART,
    GIVEN,
    at,
    container,
    helm,
    merged,
    named,
    pod,
    refusal,
    render,
    render_exactly,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ipvsproxy.cli.arguments.run import RunArguments as Arguments
    from ipvsproxy.config.settings import Config
    from tests.chart.engine import Rendered

# What kubeadm 1.34 writes.
KUBEADM = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ipvs
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"""


# What kubespray gives to kubeadm, with its defaults, for the mode ipvs with strict ARP.
KUBESPRAY = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: "0.0.0.0"
clientConnection:
  acceptContentTypes:
  burst: 10
  contentType: application/vnd.kubernetes.protobuf
  kubeconfig: /etc/kubernetes/kube-proxy-kubeconfig.yaml
  qps: 5
clusterCIDR: "10.233.64.0/18"
configSyncPeriod: 15m0s
conntrack:
  maxPerCore: 32768
  min: 131072
  tcpCloseWaitTimeout: 1h0m0s
  tcpEstablishedTimeout: 24h0m0s
enableProfiling: False
healthzBindAddress: "0.0.0.0:10256"
hostnameOverride: "node1"
iptables:
  masqueradeAll: False
  masqueradeBit: 14
  minSyncPeriod: 0s
  syncPeriod: 30s
ipvs:
  excludeCIDRs: []
  minSyncPeriod: 0s
  scheduler: rr
  syncPeriod: 30s
  strictARP: True
  tcpTimeout: 0s
  tcpFinTimeout: 0s
  udpTimeout: 0s
metricsBindAddress: "127.0.0.1:10249"
mode: ipvs
nodePortAddresses: []
oomScoreAdj: -999
portRange:
"""
# What RKE2's chart of kube-proxy wrote, and a field of a release to come.
RKE2 = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: "0.0.0.0"
clientConnection:
  acceptContentTypes: ""
  burst: 10
  contentType: "application/vnd.kubernetes.protobuf"
  kubeconfig: "/var/lib/rancher/rke2/agent/kubeproxy.kubeconfig"
  qps: 5
clusterCIDR: "10.42.0.0/16"
configSyncPeriod: 15m0s
conntrack:
  maxPerCore: 32768
  min: 131072
  tcpCloseWaitTimeout: "1h0m0s"
  tcpEstablishedTimeout: "24h0m0s"
detectLocalMode:
enableProfiling:
healthzBindAddress: "0.0.0.0:10256"
hostnameOverride:
iptables:
  masqueradeAll:
  masqueradeBit: 14
  syncPeriod: 30s
ipvs:
  excludeCIDRs:
  scheduler:
  strictARP:
  syncPeriod: 30s
kind: KubeProxyConfiguration
metricsBindAddress: "127.0.0.1:10249"
mode: "iptables"
nodePortAddresses: null
oomScoreAdj: -999
portRange: ""
showHiddenMetricsForVersion: ""
udpIdleTimeout: "250ms"
featureGates:
winkernel:
  enableDSR: false
  networkName: ""
  sourceVip: ""
fieldOfTheFuture:
  a: 1
"""


def arguments(
    rendered: Rendered, directory: Path, node: str = "node-1", pod_ip: str = "192.0.2.7"
) -> Arguments:
    """Read the container's arguments as the program does."""
    file = directory / "config.conf"
    file.write_text(rendered.one("ConfigMap")["data"]["config.conf"])
    given = {"$(NODE_NAME)": node, "$(POD_IP)": pod_ip, "/etc/ipvsproxy/config.conf": str(file)}
    words = list(container(rendered)["args"])
    for written, meant in given.items():
        words = [word.replace(written, meant) for word in words]
    found = parse(words)
    assert isinstance(found, RunArguments)
    return found


def config(rendered: Rendered, directory: Path) -> Config:
    return arguments(rendered, directory).config


def defaults() -> dict[str, Any]:
    return {name: setting.read("") for name, setting in SETTINGS.items()}


# `config:` with nothing but comments below it is null.
@pytest.mark.parametrize("values", [{}, {"config": None}, {"config": {"ipvs": None}}])
def test_the_agent_has_its_defaults_if_no_value_is_given(values: dict[str, Any], tmp_path: Path) -> None:
    found = arguments(render(values), tmp_path)

    assert found.effective.ignored == ()
    assert {name: getattr(found.config, name) for name in SETTINGS} == defaults() | {"node_name": "node-1"}


def test_the_configuration_is_what_the_values_say(tmp_path: Path) -> None:
    values = {
        "config": {
            "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
            "ipvs": {"scheduler": "wlc", "strictARP": True, "syncPeriod": "10s"},
            "conntrack": {"min": 1048576},
        },
        "agent": {
            "drainTimeout": "1m",
            "allowedExternalIPs": [],
            "acceptForwarded": False,
            "logLevel": "warning",
        },
    }

    found = config(render(values), tmp_path)

    assert [str(network) for network in found.cluster_cidrs] == ["10.244.0.0/16", "fd00:10:244::/56"]
    assert (found.scheduler, found.strict_arp, found.sync_period) == ("wlc", True, 10)
    assert found.conntrack_min == 1048576
    assert (found.drain_timeout, found.allowed_external_ips, found.log_level) == (60, (), "warning")
    assert not found.accept_forwarded


@pytest.mark.parametrize(
    ("pasted", "cluster_cidr", "left_out"),
    [
        (KUBEADM, "10.244.0.0/16", {"clientConnection.kubeconfig"}),
        (KUBEADM.replace("mode: ipvs", 'mode: ""'), "10.244.0.0/16", {"clientConnection.kubeconfig"}),
        (
            KUBEADM.replace("mode: ipvs", "mode: nftables"),
            "10.244.0.0/16",
            {"clientConnection.kubeconfig", "mode"},
        ),
        (KUBESPRAY, "10.233.64.0/18", {"clientConnection.kubeconfig", "hostnameOverride"}),
        (RKE2, "10.42.0.0/16", {"clientConnection.kubeconfig", "mode"}),
    ],
)
def test_a_file_of_kube_proxys_can_be_pasted_and_what_the_chart_decides_is_left_out_with_a_note(
    pasted: str, cluster_cidr: str, left_out: set[str], tmp_path: Path
) -> None:
    rendered = render({"config": yaml.safe_load(pasted)})
    found = arguments(rendered, tmp_path)

    assert set(re.findall(r"(?m)^- ([\w.]+): ", rendered.notes)) == left_out
    assert [str(network) for network in found.config.cluster_cidrs] == [cluster_cidr]
    assert found.config.node_name == "node-1"
    assert found.config.kubeconfig is None
    assert found.effective.ignored == ()
    assert len(found.effective.remarks) == ("fieldOfTheFuture" in pasted)


def test_the_notes_name_the_fields_that_the_agents_pass_over(tmp_path: Path) -> None:
    values = {
        "config": {
            "clusterCidr": "10.0.0.0/8",
            "ipvs": {"strictArp": True, "scheduler": "lc"},
            "featureGates": {"Any": True},
            "logging": {"options": {"text": {"x": 1}}},
            "bogus": {"a": 1},
        }
    }
    rendered = render(values)
    named_in_notes = re.findall(r"(?m)^- ([\w.]+)$", rendered.notes)

    assert named_in_notes == ["bogus", "clusterCidr", "ipvs.strictArp", "logging.options.text.x"]
    remarks = arguments(rendered, tmp_path).effective.remarks
    assert {remark.partition(":")[0] for remark in remarks} == set(named_in_notes)
    assert "pass over" not in render().notes


@pytest.mark.parametrize("monitor", ["podMonitor", "serviceMonitor"])
@pytest.mark.parametrize("address", ["127.0.0.1:10249", "127.0.0.2:9000", "[::1]:10249"])
def test_loopback_metrics_of_a_pasted_file_give_way_to_a_monitor_with_a_note(
    monitor: str, address: str, tmp_path: Path
) -> None:
    values = merged(at("config.metricsBindAddress", address), at(f"metrics.{monitor}.enabled", value=True))
    rendered = render(values)
    listening = config(rendered, tmp_path).metrics_bind_address

    assert listening is not None
    assert (format_address(listening[0]), listening[1]) == ("192.0.2.7", 10249)
    assert named(container(rendered)["ports"])["metrics"]["containerPort"] == 10249
    assert re.findall(r"(?m)^- ([\w.]+): ", rendered.notes) == ["metricsBindAddress"]
    assert "- metricsBindAddress" not in render(at("config.metricsBindAddress", address)).notes


def test_flags_go_before_what_the_chart_says(tmp_path: Path) -> None:
    found = arguments(render({"extraArgs": ["--drain-timeout=1m", "--ipvs-scheduler=lc", "--v=2"]}), tmp_path)

    assert (found.config.drain_timeout, found.config.scheduler) == (60, "lc")
    assert len(found.layers.without_effect) == 1


def test_each_setting_that_the_configuration_has_no_field_for_is_a_value_or_the_charts_to_set() -> None:
    charts = {
        "run_directory": "mounted where it is by default",
        "log_format": "JSON off a terminal",
        "master": "named by apiServer",
    }
    words = {word.partition("=")[0] for word in container(render())["args"]}

    missing = {
        name
        for name, setting in SETTINGS.items()
        if not setting.path and not words.intersection(setting.flags)
    }

    assert missing == charts.keys()


@pytest.mark.parametrize(
    ("address", "port", "host"),
    [
        ("", 10256, None),
        ("0.0.0.0:10256", 10256, None),
        ("[::]:11256", 11256, None),
        ("127.0.0.1:10256", 10256, "127.0.0.1"),
        ("[fd00::7]:10256", 10256, "fd00::7"),
    ],
)
def test_the_kubelet_asks_for_health_where_the_agent_answers(
    address: str, port: int, host: str | None, tmp_path: Path
) -> None:
    rendered = render(at("config.healthzBindAddress", address))
    found, ports = container(rendered), named(container(rendered)["ports"])

    listening = config(rendered, tmp_path).healthz_bind_address
    assert listening is not None
    assert listening[1] == ports["healthz"]["containerPort"] == port
    assert host in (None, format_address(listening[0]))
    for probe, path in (
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ):
        place = {"path": path, "port": "healthz"}
        assert found[probe]["httpGet"] == (place | {"host": host} if host else place)


def test_metrics_are_for_the_node_itself_without_a_monitor(tmp_path: Path) -> None:
    listening = config(render(), tmp_path).metrics_bind_address

    assert listening is not None
    assert (format_address(listening[0]), listening[1]) == ("127.0.0.1", 10249)


@pytest.mark.parametrize("monitor", ["podMonitor", "serviceMonitor"])
@pytest.mark.parametrize("pod_ip", ["192.0.2.7", "fd00::7"])
def test_metrics_are_at_the_pods_address_with_a_monitor(monitor: str, pod_ip: str, tmp_path: Path) -> None:
    rendered = render(at(f"metrics.{monitor}.enabled", value=True))

    listening = arguments(rendered, tmp_path, pod_ip=pod_ip).config.metrics_bind_address
    assert listening is not None
    assert format_address(listening[0]) == pod_ip
    assert listening[1] == named(container(rendered)["ports"])["metrics"]["containerPort"] == 10249
    assert named(container(rendered)["env"])["POD_IP"] == {
        "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}
    }


def test_metrics_are_where_the_configuration_says_with_a_monitor_too(tmp_path: Path) -> None:
    values = merged(
        at("config.metricsBindAddress", "0.0.0.0:9249"), at("metrics.serviceMonitor.enabled", value=True)
    )
    rendered = render(values)

    listening = config(rendered, tmp_path).metrics_bind_address
    assert listening is not None
    assert listening[1] == 9249
    assert named(container(rendered)["ports"])["metrics"]["containerPort"] == 9249
    assert rendered.one("Service")["spec"]["ports"][0]["port"] == 9249


def test_without_metrics_there_is_no_port_for_them() -> None:
    assert named(container(render(at("config.metricsBindAddress", "none")))["ports"]).keys() == {"healthz"}


def checksum(values: dict[str, Any]) -> str:
    template = render(values).one("DaemonSet")["spec"]["template"]
    return str(template["metadata"]["annotations"]["checksum/config"])


def test_a_change_of_the_configuration_rolls_the_pods() -> None:
    assert checksum({}) != checksum(at("config.ipvs.strictARP", value=True))


def test_a_change_of_anything_else_of_the_chart_leaves_the_pods_as_they_are() -> None:
    def template(values: dict[str, Any]) -> Any:  # noqa: ANN401 - a manifest
        return render(values).one("DaemonSet")["spec"]["template"]

    assert template({}) == template(
        merged(at("updateStrategy.maxUnavailable", 5), at("readPods", value=True))
    )
    assert (
        yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
        not in template({})["metadata"]["labels"].values()
    )


def test_a_running_agents_file_does_not_change() -> None:
    mount = next(each for each in container(render())["volumeMounts"] if each["name"] == "config")

    assert mount["subPath"] == "config.conf"
    assert named(pod(render())["volumes"])["config"] == {"configMap": {"name": "ipvsproxy"}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ipvs.scheduler", "rr"),
        ("ipvs.scheduler", "random"),
        ("ipvs.strictARP", "yes"),
        ("ipvs.strictArp", True),
        ("ipvs.syncPeriod", "1m30s"),
        ("ipvs.syncPeriod", "30"),
        ("ipvs.syncPeriod", "-1s"),
        ("ipvs.syncPeriod", 30),
        ("ipvs.tcpTimeout", ".5h"),
        ("ipvs.excludeCIDRs", ["10.0.0.0/8"]),
        ("ipvs.excludeCIDRs", "10.0.0.0/8"),
        ("detectLocalMode", "NodeCIDR"),
        ("detectLocalMode", "nodecidr"),
        ("clusterCIDR", "10.244.0.0/16,fd00::/56"),
        ("clusterCIDR", "10.244.0.0"),
        ("clusterCIDR", "10.244.0.0/33"),
        ("clusterCIDR", "fd00::/129"),
        ("clusterCIDR", "everything"),
        ("nodePortAddresses", ["primary"]),
        ("nodePortAddresses", ["192.0.2.0/24", "2001:db8::/64"]),
        ("nodePortAddresses", ["secondary"]),
        ("nodePortAddresses", "primary"),
        ("healthzBindAddress", "[::]:10256"),
        ("healthzBindAddress", "0.0.0.0:65536"),
        ("healthzBindAddress", "0.0.0.256:10256"),
        ("healthzBindAddress", "localhost:10256"),
        ("metricsBindAddress", "none"),
        ("metricsBindAddress", "0.0.0.0:0"),
        ("iptables.masqueradeBit", 31),
        ("iptables.masqueradeBit", 32),
        ("iptables.masqueradeAll", "true"),
        ("conntrack.maxPerCore", 0),
        ("conntrack.maxPerCore", -1),
        ("conntrack.min", "many"),
        ("conntrack.tcpEstablishedTimeout", "24h"),
        ("mode", "iptables"),
        ("mod", "ipvs"),
        ("featureGates", {"Some": True}),
        ("featureGates", {"Some": "true"}),
        ("logging.verbosity", "2"),
        ("apiVersion", "kubeproxy.config.k8s.io/v1beta1"),
        ("kind", "KubeletConfiguration"),
    ],
)
def test_the_schema_takes_of_the_configuration_what_the_agent_takes(
    path: str, value: object, tmp_path: Path
) -> None:
    values = at(f"config.{path}", value)
    file = tmp_path / "config.conf"
    document = merged(
        {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}, values["config"]
    )
    file.write_text(yaml.safe_dump(document))

    assert (refusal(merged(GIVEN, values)) == "") is taken(file)


def taken(file: Path) -> bool:
    """Say whether the agent takes the file."""
    try:
        parse(["run", "--config", str(file)])
    except IpvsProxyError:
        return False
    return True


def test_large_numbers_of_a_values_file_stay_whole() -> None:
    values = helm.values_from_yaml("config: {conntrack: {min: 1048576}}")

    assert "min: 1048576\n" in render_exactly(merged(GIVEN, values)).manifest
