"""The agent with no more privileges than the chart's container has: read from the chart's manifests, and enforced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from ipvsproxy.kernel.preflight import CAP_NET_ADMIN
from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol
from netns_tests.agent import Agent
from netns_tests.cluster import TOPOLOGY, Cluster
from netns_tests.servers import Servers
from netns_tests.topology import Kind
from netns_tests.traffic import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from netns_tests.cluster import ServiceUnderTest

_REPOSITORY = Path(__file__).parents[1]
_MANIFESTS = _REPOSITORY / "tests" / "chart" / "golden" / "default.yaml"
_CONTAINER = str(_REPOSITORY / "netns_tests" / "container.sh")
CAP_NET_RAW = 13
SETTINGS = ("net.ipv4.vs.conntrack", "net.ipv4.vs.expire_nodest_conn", "net.ipv4.ip_forward")


class Privileges(NamedTuple):
    """What is enforced of a container: its capabilities, and where it has the host's /proc/sys/net."""

    capabilities: str
    settings: str


def of_the_chart() -> Privileges:
    """Return what the chart gives the agent; fails if that is more than is enforced here."""
    documents = yaml.safe_load_all(_MANIFESTS.read_text())
    pod = next(each["spec"]["template"]["spec"] for each in documents if each["kind"] == "DaemonSet")
    (container,) = pod["containers"]
    context: dict[str, Any] = container["securityContext"]
    capabilities = ",".join(context["capabilities"]["add"])
    assert context["capabilities"]["drop"] == ["ALL"]
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert context.get("privileged", False) is False
    (settings,) = (each["mountPath"] for each in container["volumeMounts"] if each["name"] == "proc-sys-net")
    return Privileges(capabilities.lower(), settings)


class AgentInContainer(Agent):
    """An agent with these privileges, and its commands, too."""

    privileges = of_the_chart()

    def command(self, *words: str) -> list[str]:
        return self._in_container(super().command(*words))

    def _run_command(self) -> list[str]:
        return self._in_container(super()._run_command())

    def _in_container(self, command: Sequence[str]) -> list[str]:
        return ["sh", _CONTAINER, *self.privileges, *command]


class AgentWithoutSettings(AgentInContainer):
    """One whose container can write no kernel setting."""

    privileges = of_the_chart()._replace(settings="")


def build(directory: Path, kind: type[Agent]) -> Iterator[Cluster]:
    with TOPOLOGY.build() as network, Servers() as servers:
        for host in network.of(Kind.POD) + network.of(Kind.OUTSIDE):
            servers.start(host)
        for name in SETTINGS:
            network["node-a"].namespace.run("sysctl", "-q", "-w", f"{name}=0")
        with kind(network["node-a"], directory) as agent:
            agent.start()
            yield Cluster(network, servers, agent)


def settings(cluster: Cluster) -> list[str]:
    return cluster.node.namespace.run("sysctl", "-n", *SETTINGS).split()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from build(tmp_path_factory.mktemp("cluster"), AgentInContainer)


@pytest.fixture
def without_settings(tmp_path: Path) -> Iterator[Cluster]:
    yield from build(tmp_path, AgentWithoutSettings)


def test_the_agent_has_the_two_capabilities(cluster: Cluster) -> None:
    process = (cluster.agent.run_directory / "agent.lock").read_text().strip()
    status = Path(f"/proc/{process}/status").read_text()

    sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
    assert {int(sets[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {
        1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW
    }
    assert sets["NoNewPrivs"] == "1"


def test_the_kernel_settings_of_the_network_are_made(cluster: Cluster) -> None:
    assert settings(cluster) == ["1", "1", "1"]
    refused = {line["setting"] for line in cluster.agent.logged("kernel setting not made")}
    assert refused.isdisjoint(SETTINGS)


def test_services_are_served_to_pods_and_to_clients_outside(
    family: Family, cluster: Cluster, new_service: Callable[..., ServiceUnderTest]
) -> None:
    service = new_service("web-1", "web-3")

    for client in ("client", "node-a", "outside"):
        assert request(cluster[client], service.target(family)).server in {"web-1", "web-3"}


def test_udp_clients_move_on_when_their_endpoint_goes(
    cluster: Cluster, new_service: Callable[..., ServiceUnderTest]
) -> None:
    service = new_service("web-1")
    target = service.target(Family.IPV4, Protocol.UDP)
    assert request(cluster["client"], target).server == "web-1"

    service.set_endpoints("web-2")

    assert request(cluster["client"], target).server == "web-2"


def test_the_commands_in_the_container_see_the_agent_and_the_kernel(
    cluster: Cluster, new_service: Callable[..., ServiceUnderTest]
) -> None:
    service = new_service("web-1")

    assert service.name in cluster.agent.dump()
    assert cluster.agent.ask("dump", "--diff").returncode == 0


def test_settings_that_cannot_be_made_are_reported_and_services_are_served(without_settings: Cluster) -> None:
    service = without_settings.new_service("web-1")

    assert settings(without_settings) == ["0", "0", "0"]
    refused = {
        line["setting"]: line["reason"] for line in without_settings.agent.logged("kernel setting not made")
    }
    assert refused.keys() >= set(SETTINGS)
    assert "EROFS" in refused["net.ipv4.vs.conntrack"] or "Read-only" in refused["net.ipv4.vs.conntrack"]
    assert service.name in without_settings.agent.dump()
