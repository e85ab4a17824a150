"""An install in clusters of each version of Kubernetes, as far as nothing is written to them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from netns_tests.deadline import PATIENCE
from tests.chart.derived import GOLDEN, SETS
from tests.chart.engine import CHART, GIVEN, NAMESPACE, at, helm, merged

ROOT = Path(__file__).parents[2]
# The official client has the number of the newest Kubernetes that it was made from.
NEWEST = int(importlib.metadata.version("kubernetes").partition(".")[0])
VERSIONS = [f"1.{minor}" for minor in range(29, NEWEST + 1)]
TOO_OLD = "1.28"
INSTALLS = {
    **{version: (version, SETS["monitored"]) for version in VERSIONS},
    TOO_OLD: (TOO_OLD, GIVEN),
    "wrong values": (VERSIONS[-1], merged(GIVEN, at("agent.verbosity", "rr"))),
}


class Installed(NamedTuple):
    """The manifests of an install, or why there was none."""

    manifest: str
    refusal: str


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Installed]:
    """Do all the installs, in a process of its own: only its first environment says where Helm keeps its cache."""
    completed = subprocess.run(
        [sys.executable, "-m", "tests.chart.cluster", str(CHART), NAMESPACE],
        input=json.dumps(list(INSTALLS.values())),
        env=os.environ | {"KUBECACHEDIR": str(tmp_path_factory.mktemp("cache"))},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return dict(zip(INSTALLS, (Installed(*each) for each in json.loads(completed.stdout)), strict=True))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_is_installed_whatever_the_version(version: str, installed: dict[str, Installed]) -> None:
    found = installed[version]

    assert found.refusal == ""
    assert _by_name(found.manifest) == _by_name((GOLDEN / "monitored.yaml").read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_helm_knows_of_nothing_that_the_version_deprecates(version: str) -> None:
    report = helm.lint(CHART, dict(GIVEN), strict=True, kube_version=f"v{version}.0")

    assert report["errors"] == []


def test_older_versions_are_refused(installed: dict[str, Installed]) -> None:
    expected = "requires kubeVersion: >=1.29.0-0 which is incompatible with Kubernetes v1.28.0"
    assert expected in installed[TOO_OLD].refusal


def test_wrong_values_are_refused_at_install(installed: dict[str, Installed]) -> None:
    expected = "at '/agent': additional properties 'verbosity' not allowed"
    assert expected in installed["wrong values"].refusal


def _by_name(manifest: str) -> dict[tuple[str, str], object]:
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(manifest) if each}
