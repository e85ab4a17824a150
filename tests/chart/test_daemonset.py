"""What the pods are, by the values."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.kernel.sysctl import MOUNTED, find_root
from ipvsproxy.plan.sysctls import ConntrackSettings, Ipv6Found, KernelVersion, SysctlSettings, sysctl_plan
from tests.chart.engine import FROM_KUBECONFIG, at, container, helm, named, pod, render, render_exactly

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chart.engine import Rendered

PRIVILEGED = {"privileged": True}


def daemonset(rendered: Rendered) -> dict[str, Any]:
    return dict(rendered.one("DaemonSet")["spec"])


def init_container(rendered: Rendered) -> dict[str, Any]:
    (found,) = pod(rendered)["initContainers"]
    return dict(found)


def environment(rendered: Rendered) -> dict[str, Any]:
    return {
        name: each.get("value", each.get("valueFrom"))
        for name, each in named(container(rendered)["env"]).items()
    }


def mounts(found: dict[str, Any]) -> dict[str, Any]:
    return {each["mountPath"]: each for each in found["volumeMounts"]}


def capabilities(found: dict[str, Any]) -> dict[str, Any]:
    return dict(found["securityContext"]["capabilities"])


def host_paths(rendered: Rendered) -> dict[str, Any]:
    return {
        name: each["hostPath"]["path"]
        for name, each in named(pod(rendered)["volumes"]).items()
        if "hostPath" in each
    }


def test_every_node_gets_an_agent_before_all_else_whatever_its_taints() -> None:
    spec = pod(render())

    assert spec["hostNetwork"] is True
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_names_are_resolved_without_any_service() -> None:
    assert pod(render())["dnsPolicy"] == "Default"


def test_nodes_get_a_new_agent_one_at_a_time_after_the_old_one_has_ended() -> None:
    strategy = daemonset(render())["updateStrategy"]

    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def test_nodes_get_a_new_agent_when_their_pod_is_deleted() -> None:
    assert daemonset(render(at("updateStrategy.type", "OnDelete")))["updateStrategy"] == {"type": "OnDelete"}


def test_a_large_number_of_a_values_file_stays_whole() -> None:
    values = helm.values_from_yaml("updateStrategy: {maxUnavailable: 1000000}")

    assert max_unavailable(render(values)) == 1000000


def test_an_agent_has_time_to_end() -> None:
    assert pod(render())["terminationGracePeriodSeconds"] == 10


def test_the_agent_may_change_the_network_and_nothing_else() -> None:
    agent = container(render())

    assert capabilities(agent) == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert agent["securityContext"] | {"capabilities": None} == {
        "allowPrivilegeEscalation": False,
        "capabilities": None,
        "readOnlyRootFilesystem": True,
        "runAsUser": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_modules_are_loaded_by_a_container_that_may_do_nothing_else() -> None:
    loader = init_container(render())

    assert capabilities(loader) == {"drop": ["ALL"], "add": ["SYS_MODULE"]}
    assert mounts(loader) == {
        "/lib/modules": {"name": "lib-modules", "mountPath": "/lib/modules", "readOnly": True}
    }
    assert loader["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(
    ("scheduler", "module"), [("wlc", "ip_vs_wlc"), ("", "ip_vs_rr"), (None, "ip_vs_rr")]
)
def test_the_module_of_the_scheduler_is_loaded(scheduler: str | None, module: str) -> None:
    command = init_container(render(at("config.ipvs.scheduler", scheduler)))["command"]

    assert command[4:] == ["ip_vs", module, "dummy", "nf_tables", "nf_conntrack_netlink"]


@pytest.mark.parametrize("code", [0, 1])
def test_a_module_that_cannot_be_loaded_does_not_keep_the_agent_away(code: int, tmp_path: Path) -> None:
    modprobe = tmp_path / "modprobe"
    modprobe.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    modprobe.chmod(0o755)

    ended = subprocess.run(
        init_container(render())["command"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0
    assert ended.stdout == "--all ip_vs ip_vs_rr dummy nf_tables nf_conntrack_netlink\n"
    assert ended.stderr == "not all modules were loaded, the agent says what it misses\n" * code


def test_without_module_loading_nobody_may_load_modules() -> None:
    rendered = render({"loadModules": False})

    assert "initContainers" not in pod(rendered)
    assert "SYS_MODULE" not in rendered.manifest
    assert "/lib/modules" not in rendered.manifest


def test_privileged_containers_are_so_altogether() -> None:
    rendered = render(PRIVILEGED)

    for each in (container(rendered), init_container(rendered)):
        assert each["securityContext"] == {"privileged": True, "readOnlyRootFilesystem": True, "runAsUser": 0}


def test_the_agent_writes_its_run_directory_the_lock_of_iptables_and_the_networks_settings_alone() -> None:
    rendered = render()

    assert host_paths(rendered) == {
        "run": "/run/ipvsproxy",
        "xtables-lock": "/run/xtables.lock",
        "proc-sys-net": "/proc/sys/net",
        "lib-modules": "/lib/modules",
    }
    assert {path for path, each in mounts(container(rendered)).items() if not each.get("readOnly")} == {
        "/run/ipvsproxy",
        "/run/xtables.lock",
        "/host/proc/sys/net",
    }


def test_kernel_settings_are_mounted_where_the_agent_looks_for_them_and_all_of_them_are_below() -> None:
    settings = SysctlSettings(
        KernelVersion(5, 4),
        Ipv6Found("0", {"eth0": "1"}),
        strict_arp=True,
        conntrack=ConntrackSettings(1, 1, 1, tcp_be_liberal=True, udp_timeout=1, udp_stream_timeout=1),
    )

    assert str(MOUNTED / "net") in mounts(container(render()))
    assert {setting.name[:4] for setting in sysctl_plan(settings)} <= {"net.", "net/"}


def test_the_agent_writes_kernel_settings_where_they_are_mounted_and_else_where_they_are(
    tmp_path: Path,
) -> None:
    (tmp_path / "mounted" / "net").mkdir(parents=True)

    assert find_root(tmp_path / "mounted") == tmp_path / "mounted"
    assert str(find_root(tmp_path / "nowhere")) == "/proc/sys"


def test_a_privileged_agent_writes_kernel_settings_where_they_are() -> None:
    assert "/proc/sys" not in render(PRIVILEGED).manifest


def test_the_socket_and_the_lock_are_where_the_commands_look_for_them() -> None:
    assert SETTINGS["run_directory"].default in mounts(container(render()))
    assert not [each for each in container(render())["args"] if each.startswith("--run-directory")]


def test_the_agent_knows_its_node_by_the_name_that_the_api_has() -> None:
    assert environment(render())["NODE_NAME"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert "--hostname-override=$(NODE_NAME)" in container(render())["args"]


def test_the_api_server_is_reached_without_its_service() -> None:
    found = environment(render({"apiServer": {"host": "fd00::10", "port": 443}}))

    assert (found["KUBERNETES_SERVICE_HOST"], found["KUBERNETES_SERVICE_PORT"]) == ("fd00::10", "443")
    assert pod(render())["automountServiceAccountToken"] is True


def test_the_services_of_the_namespace_are_not_in_the_environment() -> None:
    """Some 2,000 of them are longer than a program's environment can be."""
    for rendered in (render(), render_exactly(FROM_KUBECONFIG)):
        assert pod(rendered)["enableServiceLinks"] is False


def test_the_api_server_is_reached_as_a_kubeconfig_of_the_node_says() -> None:
    rendered = render_exactly(FROM_KUBECONFIG)

    assert host_paths(rendered)["kubeconfig"] == "/var/lib/kube-proxy/kubeconfig"
    assert mounts(container(rendered))["/etc/ipvsproxy/kubeconfig"]["readOnly"] is True
    assert "--kubeconfig=/etc/ipvsproxy/kubeconfig" in container(rendered)["args"]
    assert pod(rendered)["automountServiceAccountToken"] is False
    assert environment(rendered).keys() == {"NODE_NAME"}
    assert rendered.all("ClusterRoleBinding") == []


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, "ipvsproxy:0.1.0"),
        (
            {"repository": "registry.example.com:5000/net/ipvsproxy", "tag": "1.2.3"},
            "registry.example.com:5000/net/ipvsproxy:1.2.3",
        ),
        ({"tag": "1.2.3", "digest": f"sha256:{'a' * 64}"}, f"ipvsproxy@sha256:{'a' * 64}"),
    ],
    ids=["of the chart's version", "of a registry", "by digest"],
)
def test_both_containers_have_the_image(values: dict[str, str], image: str) -> None:
    rendered = render({"image": {**values, "pullPolicy": "Always"}})

    for each in (container(rendered), init_container(rendered)):
        assert (each["image"], each["imagePullPolicy"]) == (image, "Always")


def test_the_image_is_pulled_with_the_secrets() -> None:
    assert pod(render({"imagePullSecrets": ["one", "two"]}))["imagePullSecrets"] == [
        {"name": "one"},
        {"name": "two"},
    ]


def of_pod(key: str) -> Callable[[Rendered], object]:
    return lambda rendered: pod(rendered).get(key)


def of_container(key: str) -> Callable[[Rendered], object]:
    return lambda rendered: container(rendered).get(key)


def max_unavailable(rendered: Rendered) -> object:
    return daemonset(rendered)["updateStrategy"]["rollingUpdate"]["maxUnavailable"]


WITHOUT_FARGATE = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {
                    "matchExpressions": [
                        {"key": "eks.amazonaws.com/compute-type", "operator": "NotIn", "values": ["fargate"]}
                    ]
                }
            ]
        }
    }
}
FROM_SECRET = {"name": "B", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "key"}}}
TOLERATION = {"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("priorityClassName", "system-cluster-critical", of_pod("priorityClassName")),
        ("tolerations", [TOLERATION], of_pod("tolerations")),
        ("tolerations", [], lambda rendered: pod(rendered).get("tolerations", [])),
        ("nodeSelector", {"kubernetes.io/os": "linux", "a.example/b": "c"}, of_pod("nodeSelector")),
        ("affinity", WITHOUT_FARGATE, of_pod("affinity")),
        ("affinity", {}, lambda rendered: pod(rendered).get("affinity", {})),
        ("resources", {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {}}, of_container("resources")),
        ("updateStrategy.maxUnavailable", "10%", max_unavailable),
        ("updateStrategy.maxUnavailable", 3, max_unavailable),
        ("extraArgs", ["--v=2", "--conntrack-min=1000"], lambda rendered: container(rendered)["args"][-2:]),
        (
            "extraEnv",
            [{"name": "A", "value": "1"}, FROM_SECRET],
            lambda rendered: container(rendered)["env"][-2:],
        ),
    ],
)
def test_a_value_gets_where_it_belongs(path: str, value: object, where: Callable[[Rendered], object]) -> None:
    assert where(render(at(path, value))) == value


def test_pods_have_labels_and_annotations_beside_the_charts_own() -> None:
    own = daemonset(render())["template"]["metadata"]
    labels, annotations = {"team": "network", "a.example/b": ""}, {"a.example/b": "any text: 1"}
    found = daemonset(render({"podLabels": labels, "podAnnotations": annotations}))

    assert found["template"]["metadata"]["labels"] == own["labels"] | labels
    assert found["template"]["metadata"]["annotations"] == own["annotations"] | annotations
    assert found["selector"] == daemonset(render())["selector"]


def test_another_container_may_be_the_one_that_kubectl_looks_into() -> None:
    key = "kubectl.kubernetes.io/default-container"

    annotations = daemonset(render({"podAnnotations": {key: "x"}}))["template"]["metadata"]["annotations"]
    assert annotations[key] == "x"


def test_no_probe_fails_while_an_agent_starts_as_a_rule_and_a_slow_one_has_ten_minutes() -> None:
    """The first probe comes after the delay, and each that fails writes a Warning Event."""
    startup = container(render())["startupProbe"]

    assert startup["initialDelaySeconds"] >= 5
    assert startup["initialDelaySeconds"] + startup["periodSeconds"] <= 6
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 600


@pytest.mark.parametrize(
    ("name", "value", "argument"),
    [
        ("drainTimeout", "1m30s", "--drain-timeout=1m30s"),
        ("allowedExternalIPs", ["192.0.2.0/24", "::/0"], "--allowed-external-ips=192.0.2.0/24,::/0"),
        ("allowedExternalIPs", [], "--allowed-external-ips=none"),
        ("acceptForwarded", False, "--accept-forwarded=false"),
        ("logLevel", "debug", "--log-level=debug"),
        ("serviceTrafficMetrics", 2000000, "--service-traffic-metrics=2000000"),
    ],
)
def test_what_has_no_field_in_the_configuration_is_a_flag(name: str, value: object, argument: str) -> None:
    assert argument in container(render(at(f"agent.{name}", value)))["args"]
