"""Defaults, the file and flags, put together; and what is said about a file that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.config.layers import combine
from ipvsproxy.config.settings import SETTINGS, Config, DetectLocalMode, LogFormat, LogLevel
from ipvsproxy.errors import UsageError
from ipvsproxy.model.addresses import parse_address, parse_network
from ipvsproxy.model.selection import NodePortAddresses

if TYPE_CHECKING:
    from ipvsproxy.config.layers import Effective

HEADER = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

# What kubeadm puts into the ConfigMap kube-proxy of a cluster that sets little: zeros and nulls everywhere.
KUBEADM = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: /var/lib/kubeconfig.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null,
  udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s,
  tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ipvs
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
"""
# What kube-proxy --write-config-to writes: every default spelt out, here with the fields of older releases.
KUBE_PROXY = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
clientConnection: {burst: 10, contentType: application/vnd.kubernetes.protobuf, qps: 5}
configSyncPeriod: 15m0s
conntrack: {maxPerCore: 32768, min: 131072, tcpCloseWaitTimeout: 1h0m0s, tcpEstablishedTimeout: 24h0m0s, max: null}
featureGates: {}
healthzBindAddress: 0.0.0.0:10256
iptables: {localhostNodePorts: true, masqueradeBit: 14, minSyncPeriod: 1s, syncPeriod: 30s}
ipvs: {excludeCIDRs: [], minSyncPeriod: 0s, syncPeriod: 30s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 5s, format: text}
metricsBindAddress: 127.0.0.1:10249
nftables: {masqueradeBit: 14, minSyncPeriod: 1s, syncPeriod: 30s}
oomScoreAdj: -999
resourceContainer: /kube-proxy
udpIdleTimeout: 250ms
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.yaml"


def effective(file: Path, text: str, **flags: object) -> Effective:
    file.write_text(text)
    return combine(flags, file, "node-1")


def refusal(file: Path, text: str | bytes) -> str:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as refused:
        combine({}, file, "node-1")
    message = str(refused.value)
    assert "\n" not in message
    return message.replace(str(file), "FILE")


def test_without_file_and_flags_all_is_at_its_default() -> None:
    assert combine({}, None, "Node-1")[:2] == (
        Config(
            kubeconfig=None,
            scheduler="rr",
            strict_arp=False,
            sync_period=30.0,
            min_sync_period=1.0,
            drain_timeout=900.0,
            ipvs_tcp_timeout=0,
            ipvs_tcp_fin_timeout=0,
            ipvs_udp_timeout=0,
            node_port_addresses=NodePortAddresses(),
            allowed_external_ips=(parse_network("0.0.0.0/0"), parse_network("::/0")),
            cluster_cidrs=(),
            detect_local_mode=DetectLocalMode.CLUSTER_CIDR,
            pod_bridge_interface="",
            pod_interface_name_prefix="",
            masquerade_all=False,
            masquerade_bit=14,
            conntrack_max_per_core=32768,
            conntrack_min=131072,
            conntrack_tcp_established_timeout=86400,
            conntrack_tcp_close_wait_timeout=3600,
            conntrack_tcp_be_liberal=False,
            conntrack_udp_timeout=0,
            conntrack_udp_stream_timeout=0,
            node_name="node-1",
            healthz_bind_address=(parse_address("0.0.0.0"), 10256),
            metrics_bind_address=(parse_address("127.0.0.1"), 10249),
            run_directory=Path("/run/ipvsproxy"),
            log_format=LogFormat.AUTO,
            log_level=LogLevel.INFO,
        ),
        (),
    )


def test_the_file_goes_before_the_default(file: Path) -> None:
    config, ignored, *_ = effective(
        file,
        HEADER
        + "clientConnection: {kubeconfig: /etc/kubeconfig}\n"
        + "clusterCIDR: 10.244.0.0/16,fd00::/64\n"
        + "hostnameOverride: Worker-7\n"
        + "ipvs: {scheduler: wlc, strictARP: true, syncPeriod: 1m, minSyncPeriod: 2s, tcpTimeout: 2h,\n"
        + "  tcpFinTimeout: 90s, udpTimeout: 5m}\n"
        + "iptables: {masqueradeAll: true, masqueradeBit: 0}\n"
        + "nodePortAddresses: [192.0.2.0/24, '2001:db8::/64']\n"
        + "detectLocalMode: BridgeInterface\n"
        + "detectLocal: {bridgeInterface: cni0}\n"
        + "conntrack: {maxPerCore: 65536, min: 10, tcpEstablishedTimeout: 2h, tcpCloseWaitTimeout: 60s,\n"
        + "  tcpBeLiberal: true, udpTimeout: 30s, udpStreamTimeout: 1m30s}\n"
        + "healthzBindAddress: '[::]:10300'\nmetricsBindAddress: none\n",
    )

    assert config == Config(
        kubeconfig=Path("/etc/kubeconfig"),
        scheduler="wlc",
        strict_arp=True,
        sync_period=60.0,
        min_sync_period=2.0,
        ipvs_tcp_timeout=7200,
        ipvs_tcp_fin_timeout=90,
        ipvs_udp_timeout=300,
        node_port_addresses=NodePortAddresses(
            networks=(parse_network("192.0.2.0/24"), parse_network("2001:db8::/64"))
        ),
        cluster_cidrs=(parse_network("10.244.0.0/16"), parse_network("fd00::/64")),
        detect_local_mode=DetectLocalMode.BRIDGE_INTERFACE,
        pod_bridge_interface="cni0",
        masquerade_all=True,
        masquerade_bit=0,
        conntrack_max_per_core=65536,
        conntrack_min=10,
        conntrack_tcp_established_timeout=7200,
        conntrack_tcp_close_wait_timeout=60,
        conntrack_tcp_be_liberal=True,
        conntrack_udp_timeout=30,
        conntrack_udp_stream_timeout=90,
        node_name="worker-7",
        healthz_bind_address=(parse_address("::"), 10300),
        metrics_bind_address=None,
    )
    assert ignored == ()


def test_a_flag_goes_before_the_file(file: Path) -> None:
    text = HEADER + "ipvs: {scheduler: wlc, strictARP: true}\n"

    config = effective(file, text, scheduler="sh", strict_arp=False).config

    assert (config.scheduler, config.strict_arp) == ("sh", False)


def test_the_zeros_and_nulls_of_kubeadms_file_are_defaults(file: Path) -> None:
    config, ignored, *_ = effective(file, KUBEADM)

    assert config == Config(
        kubeconfig=Path("/var/lib/kubeconfig.conf"),
        cluster_cidrs=(parse_network("10.244.0.0/16"),),
        min_sync_period=0.0,  # the one zero that is a value: kube-proxy's ipvs mode has no default for it
        node_name="node-1",
    )
    assert ignored == ()


def test_kube_proxys_own_defaults_spelt_out_are_no_reason_to_warn(file: Path) -> None:
    assert effective(file, KUBE_PROXY).ignored == ()


def test_zeros_of_connection_tracking_leave_what_the_kernel_has(file: Path) -> None:
    config, ignored, *_ = effective(
        file,
        HEADER + "conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}\n",
    )

    assert config == Config(
        conntrack_max_per_core=0,
        conntrack_min=0,
        conntrack_tcp_established_timeout=0,
        conntrack_tcp_close_wait_timeout=0,
        node_name="node-1",
    )
    assert ignored == ()


def test_a_list_of_the_file_may_have_words_and_networks(file: Path) -> None:
    text = HEADER + "nodePortAddresses:\n- primary\n- 10.0.0.0/8\n"

    assert effective(file, text).config.node_port_addresses == NodePortAddresses(
        primary=True, networks=(parse_network("10.0.0.0/8"),)
    )


def test_an_empty_list_of_the_file_is_as_good_as_none(file: Path) -> None:
    assert effective(file, HEADER + "nodePortAddresses: []\n") == combine({}, None, "node-1")


def test_a_section_or_field_without_a_value_is_as_good_as_none(file: Path) -> None:
    assert effective(file, HEADER + "ipvs:\nclusterCIDR:\n") == combine({}, None, "node-1")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("mode: iptables", "mode"),
        ("detectLocal: {bridgeInterface: br0}", "detectLocal.bridgeInterface"),
        (
            "detectLocalMode: NodeCIDR\ndetectLocal: {interfaceNamePrefix: cali}",
            "detectLocal.interfaceNamePrefix",
        ),
        ("conntrack: {max: 1000}", "conntrack.max"),
        ("ipvs: {excludeCIDRs: [10.0.0.0/8]}", "ipvs.excludeCIDRs"),
        ("iptables: {syncPeriod: 10s}", "iptables.syncPeriod"),
        ("nftables: {masqueradeAll: true}", "nftables.masqueradeAll"),
        ("featureGates: {Foo: false}", "featureGates"),
        ("logging: {vmodule: [{filePattern: a, verbosity: 3}]}", "logging.vmodule"),
        ("logging: {options: {json: {splitStream: true}}}", "logging.options.json.splitStream"),
        ("clientConnection: {qps: 20}", "clientConnection.qps"),
        ("oomScoreAdj: -500", "oomScoreAdj"),
        ("winkernel: {enableDSR: true}", "winkernel.enableDSR"),
    ],
)
def test_a_field_that_asks_for_something_and_has_no_effect_is_named(file: Path, text: str, path: str) -> None:
    assert effective(file, HEADER + text).ignored == (path,)


def test_all_fields_without_effect_are_named_together(file: Path) -> None:
    text = HEADER + "conntrack: {max: 1, min: 2}\nmode: nftables\ndetectLocal: {bridgeInterface: br0}\n"

    assert effective(file, text).ignored == ("mode", "conntrack.max", "detectLocal.bridgeInterface")


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("ipvs: {bogus: 1}", ["ipvs.bogus"]),
        ("ipvs: {bogus: null}", ["ipvs.bogus"]),
        ("bogus: {a: 1, b: 2}", ["bogus"]),
        ("clustercidr: 10.0.0.0/8", ["clustercidr"]),
        ("3: 4\ntrue: 5", ["3", "true"]),
        ("logging: {vmodule: [{filePattern: a}, {filePattern: b, level: 3}]}", ["logging.vmodule[1].level"]),
        (
            "logging: {options: {text: {bogus: 1}}}\nipvs: {bogus: 1}",
            ["logging.options.text.bogus", "ipvs.bogus"],
        ),
    ],
)
def test_a_field_that_nobody_knows_is_passed_over_and_named_with_its_path(
    file: Path, text: str, paths: list[str]
) -> None:
    config, _, _, remarks = effective(file, HEADER + text + "\nhostnameOverride: node-7\n")

    assert config == Config(node_name="node-7")
    assert [remark.partition(":")[0] for remark in remarks] == paths


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("ipvs: {scheduler: lc, scheduler: wlc}", ["ipvs.scheduler"]),
        ("ipvs: {scheduler: lc, strictARP: true}\nipvs: {scheduler: wlc}", ["ipvs"]),
        (
            "logging: {vmodule: [{verbosity: 1, verbosity: 2}]}\nipvs: {scheduler: wlc}",
            ["logging.vmodule[0].verbosity"],
        ),
    ],
)
def test_of_a_key_that_is_given_twice_the_last_value_counts_and_the_key_is_named(
    file: Path, text: str, paths: list[str]
) -> None:
    config, _, _, remarks = effective(file, HEADER + text)

    assert config == Config(scheduler="wlc", node_name="node-1")
    assert [remark.partition(":")[0] for remark in remarks] == paths


def test_a_wrong_value_beside_a_field_that_nobody_knows_is_an_error(file: Path) -> None:
    assert refusal(file, HEADER + "bogus: 1\nipvs: {strictARP: maybe}\n") == (
        "FILE: ipvs.strictARP: expected bool, got str"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ipvs: {syncPeriod: abc}", "FILE: ipvs.syncPeriod: 'abc' is not a duration such as 30s or 1m30s"),
        ("ipvs: {syncPeriod: 30}", "FILE: ipvs.syncPeriod: 30 is not a duration such as 30s or 1m30s"),
        (
            "conntrack: {udpTimeout: -1s}",
            "FILE: conntrack.udpTimeout: '-1s' is not a duration such as 30s or 1m30s",
        ),
        ("iptables: {masqueradeBit: x}", "FILE: iptables.masqueradeBit: expected int, got str"),
        (
            "iptables: {masqueradeBit: 32}",
            "FILE: iptables.masqueradeBit: '32' is not a bit of the packet mark: 0 to 31",
        ),
        ("iptables: {masqueradeAll: 'true'}", "FILE: iptables.masqueradeAll: expected bool, got str"),
        ("nodePortAddresses: [a, 3]", "FILE: nodePortAddresses[1]: expected str, got int"),
        ("ipvs: [rr]", "FILE: ipvs: expected object, got array"),
        (
            "clusterCIDR: 10.0.0.0",
            "FILE: clusterCIDR: '10.0.0.0' is not a network in CIDR notation: the prefix length is 0 to 32",
        ),
        ("clusterCIDR: a,b", "FILE: clusterCIDR: 'a' is not a network in CIDR notation"),
        (
            "nodePortAddresses: [all, b]",
            "FILE: nodePortAddresses: 'b' is not a network in CIDR notation, nor primary, localhost or all",
        ),
        ("conntrack: {maxPerCore: -1}", "FILE: conntrack.maxPerCore: '-1' is not a number: 0 to 2147483647"),
        (
            "detectLocalMode: Bridge",
            f"FILE: detectLocalMode: 'Bridge' is not one of {', '.join(DetectLocalMode)}",
        ),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_path(file: Path, text: str, message: str) -> None:
    assert refusal(file, HEADER + text) == message


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        (HEADER + "ipvs: a: b\n", "FILE: line 3: "),
        (HEADER + "\tipvs: {}\n", "FILE: line 3: "),
        (HEADER + "---\n" + HEADER, "FILE: line 3: "),
        (HEADER + "bindAddress: 2001-02-31\n", "FILE: is not YAML: "),
        (b"\xff\xfe\x00", "FILE: is not YAML: "),
    ],
)
def test_a_file_that_is_no_yaml_is_refused_with_the_line(
    file: Path, text: str | bytes, beginning: str
) -> None:
    assert refusal(file, text).startswith(beginning)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "bogus: " + "[" * 5000 + "]" * 5000, "FILE: is nested too deeply"),
        ("", "FILE: is not a KubeProxyConfiguration: there are no fields in it"),
        ("- a\n", "FILE: is not a KubeProxyConfiguration: there are no fields in it"),
        (
            "kind: KubeProxyConfiguration\n",
            "FILE: apiVersion: is missing, expected kubeproxy.config.k8s.io/v1alpha1",
        ),
        (
            HEADER.replace("v1alpha1", "v1alpha2"),
            "FILE: apiVersion: is 'kubeproxy.config.k8s.io/v1alpha2', expected kubeproxy.config.k8s.io/v1alpha1",
        ),
        (
            HEADER.replace("KubeProxy", "Kubelet"),
            "FILE: kind: is 'KubeletConfiguration', expected KubeProxyConfiguration",
        ),
    ],
)
def test_a_file_that_is_something_else_is_refused(file: Path, text: str | bytes, message: str) -> None:
    assert refusal(file, text) == message


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml: No such file or directory$"):
        combine({}, tmp_path / "absent.yaml", "node-1")
    with pytest.raises(UsageError, match=r"Is a directory$"):
        combine({}, tmp_path, "node-1")


def test_a_minimum_sync_period_longer_than_the_sync_period_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        combine({"sync_period": 60.0, "min_sync_period": 90.0}, None, "node-1")
    assert str(refused.value) == (
        "--min-sync-period (ipvs.minSyncPeriod) 1m30s is longer than --sync-period (ipvs.syncPeriod) 1m"
    )


@pytest.mark.parametrize(
    ("mode", "missing"),
    [
        (DetectLocalMode.BRIDGE_INTERFACE, "--pod-bridge-interface (detectLocal.bridgeInterface)"),
        (
            DetectLocalMode.INTERFACE_NAME_PREFIX,
            "--pod-interface-name-prefix (detectLocal.interfaceNamePrefix)",
        ),
    ],
)
def test_a_mode_that_recognises_pods_by_their_interface_needs_its_name(
    mode: DetectLocalMode, missing: str
) -> None:
    with pytest.raises(UsageError) as refused:
        combine({"detect_local_mode": mode}, None, "node-1")
    assert str(refused.value) == f"--detect-local-mode (detectLocalMode) {mode} needs {missing}"


@pytest.mark.parametrize("mode", [DetectLocalMode.CLUSTER_CIDR, DetectLocalMode.NODE_CIDR])
def test_a_mode_that_recognises_pods_by_their_networks_needs_nothing(mode: DetectLocalMode) -> None:
    assert combine({"detect_local_mode": mode}, None, "node-1").config.detect_local_mode is mode


def test_a_flag_may_have_what_the_mode_of_the_file_needs(file: Path) -> None:
    text = HEADER + "detectLocalMode: InterfaceNamePrefix\n"

    assert effective(file, text, pod_interface_name_prefix="cali").config.pod_interface_name_prefix == "cali"


def test_the_default_minimum_gives_way_to_a_shorter_sync_period() -> None:
    found = combine({"sync_period": 0.5}, None, "node-1")

    assert found.config.min_sync_period == 0.5
    assert str(found.origins["min_sync_period"]) == (
        "default, no longer than --sync-period (ipvs.syncPeriod)"
    )


def test_each_value_says_where_it_comes_from(file: Path) -> None:
    text = HEADER + "ipvs: {scheduler: wlc, strictARP: false, syncPeriod: 0s}\n"

    origins = effective(file, text, scheduler="sh").origins

    assert origins.keys() == SETTINGS.keys()
    assert {name: str(origin) for name, origin in origins.items() if str(origin) != "default"} == {
        "scheduler": "flag --ipvs-scheduler",
        "strict_arp": f"{file}: ipvs.strictARP",
        "node_name": "default, the host's name",
    }
