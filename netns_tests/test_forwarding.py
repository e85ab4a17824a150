"""Hosts whose firewall drops what it forwards, answers of endpoints included: what clients meet, and what stays."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from netns_tests.addressing import Via
from netns_tests.cluster import TOPOLOGY, Cluster
from netns_tests.deadline import await_that
from netns_tests.host_firewalls import COMMANDS, DOCKER, NFTABLES, UFW, restore
from netns_tests.servers import Servers
from netns_tests.test_least_privileges import AgentInContainer
from netns_tests.topology import SERVICE_CIDRS, Kind
from netns_tests.traffic import NoAnswerError, Target
from netns_tests.traffic import request as ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from netns_tests.cluster import ServiceUnderTest

PODS = ("web-1", "web-3")


class Firewall(NamedTuple):
    """A way to have a firewall: a variant of iptables, or nftables' own."""

    variant: str

    def set_up(self, cluster: Cluster, rules: str = DOCKER) -> None:
        """Have the firewall on the node."""
        if self.variant == "nftables":
            cluster.node.namespace.run("nft", "-f", "-", stdin=NFTABLES)
            return
        for family, cidr in zip(Family, SERVICE_CIDRS, strict=True):
            icmp = "ipv6-icmp" if family is Family.IPV6 else "icmp"
            text = rules.replace("{service_cidr}", cidr).replace("{icmp}", icmp)
            restore(cluster.node.namespace, self.variant, family, text)

    def flush_forward(self, cluster: Cluster) -> None:
        """Flush the chain by hand, as people and programs do; what drops stays."""
        if self.variant == "nftables":
            cluster.node.namespace.run("nft", "flush", "chain", "inet", "filter", "forward")
            return
        for command in COMMANDS.values():
            cluster.node.namespace.run(f"{command}-{self.variant}", "-F", "FORWARD")

    def shown(self, cluster: Cluster) -> str:
        """Return all rules, without counters."""
        if self.variant == "nftables":
            return cluster.node.namespace.run("nft", "list", "table", "inet", "filter")
        return "".join(
            cluster.node.namespace.run(f"{each}-{self.variant}", "-S") for each in COMMANDS.values()
        )

    @property
    def chains(self) -> list[str]:
        """The agent's chains, as `dump` has them."""
        if self.variant == "nftables":
            return ["chain ipvsproxy-forward of table inet filter (nftables)"]
        return [
            f"chain IPVSPROXY-FORWARD of table {family} filter (iptables-{self.variant})"
            for family in ("ip", "ip6")
        ]


@pytest.fixture(params=["legacy", "nft", "nftables"])
def firewall(request: pytest.FixtureRequest) -> Firewall:
    """Return each way to have a firewall."""
    if request.param != "nftables" and shutil.which(f"iptables-{request.param}") is None:
        pytest.skip(f"iptables-{request.param} is not installed")
    return Firewall(request.param)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster of the test's own, whose agent, with the chart's privileges, is yet to be started."""
    with TOPOLOGY.build() as network, Servers() as servers:
        for host in network.of(Kind.POD):
            servers.start(host)
        with AgentInContainer(network["node-a"], tmp_path, "2s") as agent:
            yield Cluster(network, servers, agent)


@pytest.fixture
def service(cluster: Cluster) -> ServiceUnderTest:
    """Return a Service with node ports of which no agent knows yet."""
    service = cluster.reserve_service()
    service.write_pods(*PODS)
    service.become(ServiceType.NODE_PORT)
    return service


def assert_answered(cluster: Cluster, service: ServiceUnderTest) -> None:
    """See that pods, the node itself and hosts outside are answered, in both families."""
    for family in Family:
        for origin, via in (
            ("client", Via.CLUSTER_IP),
            ("node-a", Via.CLUSTER_IP),
            ("outside", Via.NODE_PORT),
        ):
            for _ in PODS:
                assert ask(cluster[origin], service.target(family, via=via)).server in PODS


def is_answered(cluster: Cluster, service: ServiceUnderTest) -> bool:
    try:
        assert_answered(cluster, service)
    except NoAnswerError:
        return False
    return True


def dumped(cluster: Cluster) -> list[str]:
    chains: list[str] = json.loads(cluster.agent.dump("-o", "json"))["hostFirewallChains"]
    return chains


def await_chains(cluster: Cluster, firewall: Firewall) -> None:
    await_that(lambda: dumped(cluster) == firewall.chains, "the agent has its chains in the host's firewall")


def test_answers_pass_a_firewall_that_was_there_before_the_agent(
    cluster: Cluster, service: ServiceUnderTest, firewall: Firewall
) -> None:
    firewall.set_up(cluster)
    before = firewall.shown(cluster)
    cluster.agent.start()
    await_chains(cluster, firewall)
    assert_answered(cluster, service)
    cluster.agent.kill()
    assert cluster.agent.cleanup("--yes").returncode == 0
    assert firewall.shown(cluster) == before


def test_answers_pass_a_firewall_that_comes_after_the_agent_and_one_that_is_flushed(
    cluster: Cluster, service: ServiceUnderTest, firewall: Firewall
) -> None:
    cluster.agent.start()
    assert_answered(cluster, service)
    firewall.set_up(cluster)
    await_chains(cluster, firewall)
    assert_answered(cluster, service)
    firewall.flush_forward(cluster)
    await_that(lambda: is_answered(cluster, service), "the agent has repaired what was flushed")
    # Docker puts its own rules first each time it starts.
    firewall.set_up(cluster)
    await_that(lambda: is_answered(cluster, service), "the agent has repaired what was replaced")


def test_a_firewall_that_accepts_known_connections_is_left_as_it_is(
    cluster: Cluster, service: ServiceUnderTest, firewall: Firewall
) -> None:
    if firewall.variant == "nftables":
        pytest.skip("these are rules of iptables")
    firewall.set_up(cluster, UFW)
    before = firewall.shown(cluster)
    cluster.agent.start()
    cluster.agent.await_event("first sync")
    for family in Family:
        assert ask(cluster["client"], service.target(family)).server in PODS
    assert dumped(cluster) == []
    assert firewall.shown(cluster) == before


KUBE_PROXYS = """\
*filter
:KUBE-FORWARD - [0:0]
-I FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_what_kube_proxy_brought_goes_without_a_gap_and_check_has_nothing_to_say_of_it(
    cluster: Cluster, service: ServiceUnderTest, variant: str
) -> None:
    firewall = Firewall(variant)
    firewall.set_up(cluster)
    for command in COMMANDS.values():
        cluster.node.namespace.run(f"{command}-{variant}-restore", "--noflush", stdin=KUBE_PROXYS)
    cluster.agent.start()
    assert_answered(cluster, service)
    await_chains(cluster, firewall)
    assert cluster.agent.cleanup("--kube-proxy", "--yes").returncode == 0
    assert "KUBE-FORWARD" not in firewall.shown(cluster)
    assert_answered(cluster, service)
    found = json.loads(cluster.agent.ask("check", "-o", "json").stdout)["findings"]
    concerned = {"host-firewall", "kube-proxy-leftovers", "agent-warning"}
    assert {(each["check"], each["severity"]) for each in found if each["check"] in concerned} == {
        ("host-firewall", "ok"),
        ("kube-proxy-leftovers", "ok"),
    }


def test_the_agents_chain_accepts_no_connection_that_the_firewall_would_not(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    firewall = Firewall("nft")
    firewall.set_up(cluster)
    cluster.agent.start()
    await_chains(cluster, firewall)
    pod = cluster.endpoint("web-1", Family.IPV4).address
    with pytest.raises(NoAnswerError):
        ask(cluster["outside"], Target(pod, 8080), patience=0.5)
    assert_answered(cluster, service)
    counted = cluster.node.namespace.run("iptables-nft", "-L", "IPVSPROXY-FORWARD", "-v", "-x", "-n")
    # Packets to services do not pass the forward hook: IPVS sends them on by the output hook.
    marked = [line for line in counted.splitlines() if "mark match" in line]
    assert [line.split()[0] for line in marked] == ["0"]


BEHIND_IPVS = "table inet late { chain input { type filter hook input priority 100; policy drop; }; }"


def test_behind_ipvs_the_input_hook_sees_answers_to_processes_and_no_packet_to_a_service(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    cluster.agent.start()
    assert_answered(cluster, service)
    cluster.node.namespace.run("nft", "-f", "-", stdin=BEHIND_IPVS)
    target = service.target(Family.IPV4)
    assert ask(cluster["client"], target).server in PODS
    with pytest.raises(NoAnswerError):
        ask(cluster.node, target, patience=0.5)
    told = {
        client: cluster.agent.ask("explain", client, "to", f"{target.address}:{target.port}").returncode
        for client in (cluster["client"].addresses[Family.IPV4], "node")
    }
    assert list(told.values()) == [0, 1]
