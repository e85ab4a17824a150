"""docs/migration.md, step by step under load: from kube-proxy in each of its modes to ipvsproxy, and back."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol, ServiceType
from netns_tests import kube_proxy, tables
from netns_tests.addressing import Via
from netns_tests.agent import Agent
from netns_tests.cluster import TOPOLOGY, Cluster
from netns_tests.load import Load, Style
from netns_tests.servers import Servers
from netns_tests.test_least_privileges import AgentInContainer
from netns_tests.topology import CLUSTER_CIDRS, SERVICE_CIDRS, Kind
from netns_tests.traffic import Connection, NoAnswerError
from netns_tests.traffic import request as ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.cluster import ServiceUnderTest
    from netns_tests.kube_proxy import Served

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text()
PODS = ("web-1", "web-3")
# Seconds between two requests of a client: what else runs meanwhile takes long enough for hundreds of them.
PAUSE = 0.02
# What kubeadm writes, shortened.
CONFIGURATION = f"""\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection:
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
clusterCIDR: {",".join(CLUSTER_CIDRS)}
mode: ipvs
nodePortAddresses: null
"""


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster of the test's own, whose agent, of the kind of the parameter, is yet to be started."""
    kind: type[Agent] = getattr(request, "param", Agent)
    with TOPOLOGY.build() as network, Servers() as servers:
        for host in network.of(Kind.POD):
            servers.start(host)
        with kind(network["node-a"], tmp_path, "2s") as agent:
            yield Cluster(network, servers, agent)


@pytest.fixture
def service(cluster: Cluster) -> ServiceUnderTest:
    """Return a Service with node ports of which no agent knows yet."""
    service = cluster.reserve_service()
    service.write_pods(*PODS)
    service.become(ServiceType.NODE_PORT)
    return service


class Clients:
    """Clients of a Service from a pod, from outside and on the node itself, until the end of a `with` block.

    Some connect anew for each request; others keep their connections, and single ones are open all the time.
    """

    def __init__(self, cluster: Cluster, service: ServiceUnderTest, *, on_node: bool = True) -> None:
        """Prepare them; without `on_node` none is a process of the node."""
        pod, outside, node = cluster["client"], cluster["outside"], cluster.node
        cluster_ip = {family: service.target(family) for family in Family}
        node_port = {family: service.target(family, via=Via.NODE_PORT) for family in Family}
        self._loads = [
            Load(pod, cluster_ip[Family.IPV4], Style.EACH_ITS_OWN, 1, PAUSE),
            Load(outside, node_port[Family.IPV6], Style.EACH_ITS_OWN, 1, PAUSE),
        ]
        kept = [(pod, cluster_ip), (outside, node_port)]
        if on_node:
            self._loads.append(Load(node, cluster_ip[Family.IPV6], Style.KEPT_ALIVE, 1, PAUSE))
            kept.append((node, cluster_ip))
        self._open = [(origin, target) for origin, targets in kept for target in targets.values()]
        self._connections: list[Connection] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start them."""
        with contextlib.ExitStack() as stack:
            self._connections = [stack.enter_context(Connection(*each)) for each in self._open]
            for load in self._loads:
                stack.enter_context(load)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        self._stack.close()

    def go_on(self) -> None:
        """Return once all of them were answered several times more, and none of them was not."""
        for load in self._loads:
            load.go_on(10)
        for connection in self._connections:
            assert connection.ask().server in PODS
        assert [failure for load in self._loads for failure in load.failures] == []


def findings(cluster: Cluster, *options: str) -> dict[str, str]:
    """Return the worst finding of each check of `ipvsproxy check`, which has the worst first: its severity."""
    answer = cluster.agent.ask("check", "-o", "json", *options)
    assert answer.stderr == ""
    found: dict[str, str] = {}
    for finding in json.loads(answer.stdout)["findings"]:
        found.setdefault(finding["check"], finding["severity"])
    return found


def let_the_nodes_processes_out(cluster: Cluster) -> None:
    """Give them a route to ClusterIPs, which they need where rules send their packets elsewhere after routing."""
    for network in SERVICE_CIDRS:
        cluster.node.namespace.run("ip", "route", "del", "unreachable", network)


def of_tcp(services: list[Served]) -> list[Served]:
    return [each for each in services if each.target.protocol is Protocol.TCP]


def leave_mode_ipvs(cluster: Cluster, services: list[Served]) -> None:
    kube_proxy.leave_ipvs(cluster.node, services)


def leave_mode_iptables(cluster: Cluster, services: list[Served]) -> None:
    let_the_nodes_processes_out(cluster)
    kube_proxy.leave_iptables(cluster.node, of_tcp(services))


def leave_mode_nftables(cluster: Cluster, services: list[Served]) -> None:
    let_the_nodes_processes_out(cluster)
    kube_proxy.leave_nftables(cluster.node, of_tcp(services))


def test_the_preflight_by_kube_proxys_own_file_tells_what_is_to_be_done(
    cluster: Cluster, service: ServiceUnderTest, tmp_path: Path
) -> None:
    leave_mode_ipvs(cluster, kube_proxy.services_of(cluster, [service]))
    configuration = tmp_path / "config.conf"
    configuration.write_text(CONFIGURATION)
    found = findings(cluster, f"--config={configuration}")
    assert found["kube-proxy-leftovers"] == "warning"
    assert found["nft"] == found["privilege"] == found["kernel-module"] == "ok"


@pytest.mark.parametrize(
    ("cluster", "leave", "removed"),
    [
        # In the chart's container, where the page runs the command.
        (AgentInContainer, leave_mode_ipvs, "28 chains, 34 ipsets"),
        (Agent, leave_mode_iptables, "40 chains"),
        (Agent, leave_mode_nftables, "the nftables table ip kube-proxy, the nftables table ip6 kube-proxy"),
    ],
    ids=["ipvs", "iptables", "nftables"],
    indirect=["cluster"],
)
def test_a_node_changes_over_without_a_failed_request_or_a_cut_connection(
    cluster: Cluster,
    service: ServiceUnderTest,
    leave: Callable[[Cluster, list[Served]], None],
    removed: str,
) -> None:
    agent, node = cluster.agent, cluster.node
    leave(cluster, kube_proxy.services_of(cluster, [service]))
    before = set(tables.virtual_servers(node))
    with Clients(cluster, service) as clients:
        agent.start()
        clients.go_on()
        cleaned = agent.ask("cleanup", "--kube-proxy", "--yes")
        assert (cleaned.returncode, cleaned.stderr) == (0, "")
        clients.go_on()
    assert cleaned.stdout.endswith(f"\nRemoved: {removed}.\n")
    if before:
        assert "takes these over, or removes what no Service asks for:\n  16 virtual " in cleaned.stdout
        assert set(tables.virtual_servers(node)) == before
    found = findings(cluster)
    assert found["kube-proxy-leftovers"] == found["differences"] == "ok"
    assert "KUBE-" not in kube_proxy.saved(node)


def test_a_node_goes_back_to_mode_ipvs_without_a_failed_request_or_a_cut_connection(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    agent, node = cluster.agent, cluster.node
    agent.start()
    with Clients(cluster, service) as clients:
        agent.terminate()
        leave_mode_ipvs(cluster, kube_proxy.services_of(cluster, [service]))
        clients.go_on()
        before = set(tables.virtual_servers(node))
        cleaned = agent.cleanup("--yes")
        assert (cleaned.returncode, cleaned.stderr) == (0, "")
        clients.go_on()
    assert "kube-proxy's ipsets are here: its mode ipvs serves by what stays" in cleaned.stdout
    assert cleaned.stdout.endswith("\nRemoved: the nftables table inet ipvsproxy.\n")
    assert set(tables.virtual_servers(node)) == before
    assert tables.ruleset(node) == ""


def test_a_node_goes_back_to_mode_iptables_and_connections_go_on_until_the_cleanup(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    agent, node = cluster.agent, cluster.node
    agent.start()
    with Clients(cluster, service) as clients:
        agent.terminate()
        leave_mode_iptables(cluster, kube_proxy.services_of(cluster, [service]))
        clients.go_on()
        let_kube_proxy_translate(cluster)
        clients.go_on()
    # A process of the node has the ClusterIP for its own address, too, as long as the interface has it.
    with Clients(cluster, service, on_node=False) as clients:
        cleaned = agent.cleanup("--yes")
        assert (cleaned.returncode, cleaned.stderr) == (0, "")
        clients.go_on()
    with Clients(cluster, service) as clients:
        clients.go_on()
    assert "24 virtual servers, the interface kube-ipvs0, the nftables table" in cleaned.stdout
    assert tables.virtual_servers(node) == {}


def let_kube_proxy_translate(cluster: Cluster) -> None:
    """Run the commands of the page by which kube-proxy's destination NAT has new connections."""
    commands = re.findall(r"(?m)^nft flush chain .+$", PAGE)
    assert len(commands) == 2
    for command in commands:
        cluster.node.namespace.run(*command.split())


def test_mode_nftables_ends_what_it_finds_and_serves_beside_what_the_cleanup_removes(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    agent, node = cluster.agent, cluster.node
    agent.start()
    agent.terminate()
    with Connection(cluster["outside"], service.target(Family.IPV4, via=Via.NODE_PORT), patience=2.0) as cut:
        cut.ask()
        kube_proxy.flush(node)
        leave_mode_nftables(cluster, kube_proxy.services_of(cluster, [service]))
        with pytest.raises(NoAnswerError):
            cut.ask()
    let_kube_proxy_translate(cluster)
    with Clients(cluster, service) as clients:
        cleaned = agent.cleanup("--yes")
        assert (cleaned.returncode, cleaned.stderr) == (0, "")
        clients.go_on()
    assert cleaned.stdout.endswith("\nRemoved: the nftables table inet ipvsproxy.\n")
    assert tables.ruleset(node) == ""


@pytest.mark.parametrize(
    ("mode", "leave"),
    [("ipvs", leave_mode_ipvs), ("iptables", leave_mode_iptables), ("nftables", leave_mode_nftables)],
)
def test_the_command_of_the_page_tells_whether_kube_proxy_has_synced(
    cluster: Cluster,
    service: ServiceUnderTest,
    mode: str,
    leave: Callable[[Cluster, list[Served]], None],
) -> None:
    (command,) = re.findall(rf"(?m)^\| {mode} \| `([^`]+)` \|", PAGE)
    cluster.agent.start()
    cluster.agent.terminate()

    def has_synced() -> bool:
        if mode == "ipvs":
            assert command == "ipvsproxy cleanup --dry-run"
            goes, _, stays = cluster.agent.cleanup("--dry-run").stdout.partition("These stay:")
            return "kube-proxy's ipsets are here" in stays and "virtual server" not in goes
        shown = cluster.node.namespace.run("sh", "-c", f"{command.replace(chr(92), '')} 2>&1 || true")
        return int(shown) > 0 if mode == "iptables" else "elements = {" in shown

    assert not has_synced()
    leave(cluster, kube_proxy.services_of(cluster, [service]))
    assert has_synced()


def test_until_the_cleanup_what_had_no_endpoints_stays_refused_under_kube_proxy(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    agent, client, target = cluster.agent, cluster["client"], service.target(Family.IPV4)
    service.write_pods()
    agent.start()
    agent.terminate()
    service.pods = PODS
    leave_mode_ipvs(cluster, kube_proxy.services_of(cluster, [service]))
    with pytest.raises(NoAnswerError, match="refused"):
        ask(client, target)
    assert agent.cleanup("--yes").returncode == 0
    assert ask(client, target).server in PODS
