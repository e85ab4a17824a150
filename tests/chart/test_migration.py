"""The values and patches of docs/migration.md, in the hands of Helm's engine."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.chart.engine import merged, pod, render_exactly
from tests.chart.test_configuration import KUBEADM

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()
(VALUES,) = re.findall(r"(?m)^```yaml\n((?:.*\n)*?)```$", PAGE)
LABEL = "service-proxy"


def test_its_values_bring_the_agent_to_nodes_with_the_label_alone() -> None:
    rendered = render_exactly(yaml.safe_load(VALUES))
    assert pod(rendered)["nodeSelector"] == {"kubernetes.io/os": "linux", LABEL: "ipvsproxy"}
    assert f"kubectl label node NODE {LABEL}=ipvsproxy --overwrite" in PAGE


def test_kube_proxys_file_becomes_values_by_its_command(tmp_path: Path) -> None:
    (command,) = re.findall(r"(?m)^\{ echo config:.*$", PAGE)
    (tmp_path / "config.conf").write_text(KUBEADM.lstrip())
    subprocess.run(["sh", "-c", command], check=True, cwd=tmp_path)
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())

    assert values == {"config": yaml.safe_load(KUBEADM)}
    assert render_exactly(merged(values, yaml.safe_load(VALUES))).one("DaemonSet")


def test_without_its_node_selector_every_node_gets_an_agent() -> None:
    values = yaml.safe_load(VALUES)
    del values["nodeSelector"]
    assert pod(render_exactly(values))["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_its_pods_are_found_by_the_selector_that_it_waits_with() -> None:
    selector: dict[str, Any] = render_exactly(yaml.safe_load(VALUES)).one("DaemonSet")["spec"]["selector"]
    waited = set(re.findall(r"--selector (app\.kubernetes\.io/\S+)", PAGE))
    assert waited == {f"app.kubernetes.io/name={selector['matchLabels']['app.kubernetes.io/name']}"}


def test_its_patch_keeps_kube_proxy_off_nodes_with_the_label() -> None:
    (patch,) = re.findall(r"(?m)^kubectl .* patch daemonset kube-proxy -p '(.*)'$", PAGE)
    affinity = json.loads(patch)["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchExpressions": [{"key": LABEL, "operator": "DoesNotExist"}]}
