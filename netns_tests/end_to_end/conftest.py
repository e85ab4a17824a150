"""Each test has each control plane that can be had here; the reason stands where one can't."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from netns_tests.end_to_end import assets, k3s
from netns_tests.end_to_end.assets import Assets
from netns_tests.end_to_end.control_plane import account
from netns_tests.end_to_end.k3s import K3s
from netns_tests.end_to_end.own_server import OwnServer
from netns_tests.end_to_end.pod import Pod
from netns_tests.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from netns_tests.end_to_end.control_plane import ControlPlane

OWN, OWN_WITHOUT_INITIAL_EVENTS = "test server", "test server without initial events"
ASSETS, K3S = "kube-apiserver", "k3s"
CONTROL_PLANES = (OWN, ASSETS, K3S)

_WHY_NOT: Mapping[str, Callable[[], str | None]] = {ASSETS: assets.why_not, K3S: k3s.why_not}


@contextlib.contextmanager
def running(name: str, directory: Path) -> Iterator[ControlPlane]:
    """Run one of them; the test is skipped if it can't be had."""
    if name in _WHY_NOT and (reason := _WHY_NOT[name]()):
        pytest.skip(reason)
    if name == K3S:
        with K3s(directory) as in_container:
            yield in_container
        return
    with Namespace("node-a") as namespace:
        namespace.run("ip", "link", "set", "lo", "up")
        if name == ASSETS:
            with Assets(Path(os.environ[assets.VARIABLE]), namespace, directory) as programs:
                yield programs
        else:
            with OwnServer(namespace, directory, initial_events=name == OWN) as own:
                yield own


@pytest.fixture(params=CONTROL_PLANES)
def control_plane(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlPlane]:
    """Return an API server that has the agent's ServiceAccount and its rights."""
    with running(request.param, tmp_path) as found:
        found.put(*account())
        yield found


@pytest.fixture
def pod(control_plane: ControlPlane, tmp_path: Path) -> Pod:
    (tmp_path / "pod").mkdir()
    return Pod(control_plane, tmp_path / "pod")
