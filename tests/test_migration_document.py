"""docs/migration.md against the program: the commands, flags, metrics and links that it names are there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from ipvsproxy.cli.arguments import parse

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "migration.md").read_text()
BLOCK = r"(?m)^```\w*\n((?:.*\n)*?)```$"
CODE = "\n".join([*re.findall(BLOCK, PAGE), *re.findall(r"`([^`\n]+)`", re.sub(BLOCK, "", PAGE))])
# Alone on a line, or what a container is to run.
COMMANDS = sorted(
    set(
        re.findall(
            r"(?m)(?:^|-- |\| )(ipvsproxy (?:check|cleanup|config|dump|explain|run|top)\b[^<\n]*)", CODE
        )
    )
)
FILES = ("config.conf", "/dev/stdin")


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_have_these_flags(command: str, tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n")
    _, *words = shlex.split(command)
    parse([str(file) if word in FILES else word for word in words], hostname="node-1")


def test_its_commands_are_found_here() -> None:
    names = {command.split()[1] for command in COMMANDS}
    assert names == {"check", "cleanup", "config", "dump", "explain"}
    assert {"ipvsproxy cleanup", "ipvsproxy cleanup --kube-proxy"} <= set(COMMANDS)


def test_its_flags_of_run_are_there() -> None:
    """Those in a sentence, with a value or without; the others of a command line are read as commands."""
    flags = set(re.findall(r"`(--[a-z-]+)", re.sub(BLOCK, "", PAGE)))
    configuration = (REPOSITORY / "docs" / "configuration.md").read_text()
    assert flags
    assert [flag for flag in flags if f"`{flag}" not in configuration] == []


def test_it_has_a_section_for_each_distribution_that_its_table_names() -> None:
    distributions = PAGE.partition("## By distribution\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \|", distributions, re.MULTILINE)

    assert rows == ["kubeadm", "kubespray", "k3s", "RKE2", "kOps"]
    sections = re.split(r"(?m)^### (\w+)$", distributions)[1:]
    assert sections[::2] == rows
    for text in sections[1::2]:
        assert "**Ending it" in text
        assert "**Keeping it off**" in text
        assert text.count("\n") > 4


def test_each_difference_is_told_for_each_mode_that_kube_proxy_has() -> None:
    tables = PAGE.partition("## What users may notice\n")[2]
    rows = [line.split("|")[1:-1] for line in tables.splitlines() if line.startswith("| ")]

    assert len(rows) > 30
    assert {len(row) for row in rows} == {3, 5}
    assert [row for row in rows if not row[-1].strip()] == []


# As k3s and RKE2, kOps, and kubeadm and kubespray start kube-proxy.
COMMAND_LINES = {
    "k3s": """--proxy-mode=ipvs --healthz-bind-address=127.0.0.1 --kubeconfig=/k --cluster-cidr=10.42.0.0/16
        --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s
        --hostname-override=n --v=2 --vmodule=a=3 --log_file=/l --alsologtostderr=true""",
    "kOps": """--cluster-cidr=100.96.0.0/11 --conntrack-max-per-core=131072 --hostname-override=n --kubeconfig=/k
        --master=https://127.0.0.1 --oom-score-adj=-998 --v=2 --logtostderr=false --alsologtostderr
        --log-file=/var/log/kube-proxy.log --proxy-mode=ipvs --ipvs-exclude-cidrs=10.0.0.0/8 --feature-gates=A=true""",
    "kubeadm": "--config=config.conf --hostname-override=node-1",
}


@pytest.mark.parametrize("distribution", COMMAND_LINES)
def test_the_command_lines_of_the_distributions_start_an_agent(distribution: str, tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n")
    words = COMMAND_LINES[distribution].replace("config.conf", str(file)).split()
    parse(["run", *words], hostname="node-1")


def test_its_metrics_are_there() -> None:
    metrics = (REPOSITORY / "docs" / "metrics.md").read_text()
    names = set(re.findall(r"`(ipvsproxy_[a-z_]+)`", PAGE))
    assert names
    assert [name for name in names if f"### {name}\n" not in metrics] == []


def test_its_patches_can_be_read() -> None:
    patches = [json.loads(patch) for patch in re.findall(r"(?m)^kubectl .* patch .* -p '(.*)'$", CODE)]
    assert [type(patch) for patch in patches] == [dict, list]


def test_its_links_lead_somewhere() -> None:
    for target, _, section in re.findall(r"\]\(([^)#]+)(#([a-z-]+))?\)", PAGE):
        text = (REPOSITORY / "docs" / target).read_text()
        headings = re.findall(r"(?m)^#+ (.*)$", text)
        assert not section or section in {
            re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings
        }
