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
    flags = set(re.findall(r"`(--[a-z-]+)`", PAGE)) - {"--cleanup"}
    configuration = (REPOSITORY / "docs" / "configuration.md").read_text()
    assert flags
    assert [flag for flag in flags if f"{flag} " not in configuration] == []


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
