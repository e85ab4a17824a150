"""What the image is and does: its program, what it says without privileges, and a packet that it serves."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import docker
import pytest

from ipvsproxy import __version__
from ipvsproxy.model.addresses import Family
from netns_tests import manifests
from netns_tests.bare_node import REPOSITORY
from netns_tests.deadline import PATIENCE, await_that
from netns_tests.manifests import Endpoint, ManifestDirectory, Port

if TYPE_CHECKING:
    from pathlib import Path

    from testcontainers.core.container import DockerContainer

    from netns_tests.container.conftest import Containers

RUN = ("run", "--manifests=/manifests", "--hostname-override=node-a", "--cluster-cidr=10.244.0.0/16")

# As the chart has it unless `privileged` is set.
AS_BY_THE_CHART = {
    "cap_drop": ["ALL"],
    "cap_add": ["NET_ADMIN"],
    "security_opt": ["no-new-privileges"],
    "read_only": True,
}


def test_the_entrypoint_is_the_program(containers: Containers) -> None:
    assert containers.run("--version") == (0, f"ipvsproxy {__version__}\n", "")


def test_its_labels_say_what_it_is(image: str) -> None:
    labels = docker.from_env().images.get(image).labels
    assert labels["org.opencontainers.image.title"] == "ipvsproxy"
    assert labels["org.opencontainers.image.version"] == __version__


class TestWithoutPrivileges:
    def test_the_agent_says_in_one_line_what_to_give_the_container(
        self, containers: Containers, tmp_path: Path
    ) -> None:
        ended = containers.run(*RUN, volumes=((str(tmp_path), "/manifests", "ro"),))
        assert (ended.code, ended.output) == (1, "")
        assert ended.errors == (
            "ipvsproxy: CAP_NET_ADMIN is missing: run as root, or give the container the capability NET_ADMIN\n"
        )

    def test_check_says_more(self, containers: Containers) -> None:
        ended = containers.run("check")
        assert (ended.code, ended.errors) == (1, "")
        assert "CAP_NET_ADMIN is missing: the agent can't run here" in " ".join(ended.output.split())
        assert "kernel-version" in ended.output


@pytest.fixture
def manifest_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    ports = [Port("http", 80, 8080)]
    ManifestDirectory(directory).write(
        "web",
        [
            manifests.service("web", ["10.96.0.10"], ports),
            manifests.endpoint_slice("web-1", "web", Family.IPV4, [Endpoint("10.244.0.10", "node-a")], ports),
        ],
    )
    return directory


@pytest.fixture(scope="module")
def node(containers: Containers) -> DockerContainer:
    """Run a node with a pod; the agent's container gets its network."""
    script = str(REPOSITORY / "netns_tests" / "container" / "node.sh")
    container = containers.start(
        "/node.sh",
        entrypoint=["sh"],
        volumes=((script, "/node.sh", "ro"),),
        privileged=True,
        # The machine's own network only where the machine goes with the test.
        network_mode=os.environ.get("IPVSPROXY_NODE_NETWORK", "none"),
    )
    _await_line(container, "ready")
    return container


def test_it_has_what_the_agent_and_the_chart_run_and_nothing_that_builds(node: DockerContainer) -> None:
    has = "sh nft modprobe ip conntrack iptables-legacy-save ip6tables-legacy-restore"
    has_not = "pip pip3 cc gcc make"
    found = _output(node, "sh", "-c", f"for each in {has} {has_not}; do command -v $each; done; :")
    assert [path.rpartition("/")[2] for path in found.split()] == has.split()


@pytest.mark.parametrize("module", ["json", "ipvsproxy"])
def test_nothing_has_to_be_compiled_at_its_start(node: DockerContainer, module: str) -> None:
    output = _output(node, "/opt/ipvsproxy/bin/python", "-v", "-c", f"import {module}")
    assert re.search(rf"{module}/__pycache__/__init__\S+ matches ", output)


@pytest.mark.parametrize("privileges", [{"privileged": True}, AS_BY_THE_CHART], ids=["privileged", "chart"])
def test_the_agent_in_its_container_serves_a_cluster_ip(
    containers: Containers,
    node: DockerContainer,
    manifest_directory: Path,
    tmp_path: Path,
    privileges: dict[str, object],
) -> None:
    network = os.environ.get("IPVSPROXY_NODE_NETWORK") or f"container:{node.get_wrapped_container().id}"
    run_directory = (str(tmp_path / "run"), "/run/ipvsproxy", "rw")
    volumes = [(str(manifest_directory), "/manifests", "ro"), run_directory]
    if "privileged" not in privileges:
        if network != "host":
            pytest.skip("only the host's /proc/sys/net can be mounted, and its network is not the test's")
        volumes.append(("/proc/sys/net", "/host/proc/sys/net", "rw"))
    agent = containers.start(*RUN, volumes=volumes, network_mode=network, **privileges)
    _await_line(agent, "first sync")
    get = "import urllib.request; print(urllib.request.urlopen('http://10.96.0.10').read().decode())"
    assert _output(agent, "python3", "-c", get) == "pod, asked by 10.244.0.1\n"
    assert "10.96.0.10" in _output(agent, "ipvsproxy", "dump")
    found = json.loads(_output(agent, "ipvsproxy", "check", "-o", "json"))["findings"]
    severities = {each["check"]: each["severity"] for each in found}
    assert "error" not in severities.values()
    assert severities["run-directory"] == "ok"
    _output(agent, "sh", "-c", "kill -TERM 1")
    assert agent.get_wrapped_container().wait(timeout=PATIENCE)["StatusCode"] == 0
    # The network may be the machine's: nothing is left in it.
    cleanup = containers.start("cleanup", "--yes", volumes=volumes, network_mode=network, **privileges)
    assert cleanup.get_wrapped_container().wait(timeout=PATIENCE)["StatusCode"] == 0
    assert "virtual server" in _log(cleanup)


def _await_line(container: DockerContainer, words: str) -> None:
    """Wait until a container's output has these words; AssertionError with the output if it ends before."""

    def is_there() -> bool:
        container.reload()
        ended = container.status == "exited"
        log = _log(container)
        assert words in log or not ended, log
        return words in log

    await_that(is_there, f"a container's output has {words!r}")


def _log(container: DockerContainer) -> str:
    output, errors = container.get_logs()
    return str((output + errors).decode())


def _output(container: DockerContainer, *command: str) -> str:
    ended = container.exec(list(command))
    assert ended.exit_code in {0, 3}, ended.output.decode()
    return str(ended.output.decode())
