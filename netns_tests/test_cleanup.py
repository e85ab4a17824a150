"""`ipvsproxy cleanup`: exactly what is ours goes, and what kube-proxy left; `test_migration` has it under load."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from netns_tests import kube_proxy, others, tables
from netns_tests.addressing import Via
from netns_tests.cluster import Cluster
from netns_tests.kube_proxy import Backend
from netns_tests.tables import Tables
from netns_tests.traffic import Connection, NoAnswerError, Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from netns_tests.cluster import ServiceUnderTest

PODS = ("web-1", "web-3")
NO_AGENT = (
    "ipvsproxy: no agent runs on this node: what kube-proxy served ends with this, connections included; "
    "to keep it, start the agent first, and then run this again\n"
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster of the test's own: what is cleaned up is gone for all tests."""
    with Cluster.built(tmp_path, sync_period="2s") as built:
        yield built


@pytest.fixture
def service(cluster: Cluster) -> ServiceUnderTest:
    """Return a Service with node ports of which no agent knows yet."""
    service = cluster.reserve_service()
    service.write_pods(*PODS)
    service.become(ServiceType.NODE_PORT)
    return service


@pytest.mark.parametrize("backend", list(Backend))
def test_all_of_kube_proxys_goes_and_the_kubelets_stays_whichever_iptables_made_it(
    cluster: Cluster, service: ServiceUnderTest, backend: Backend
) -> None:
    kube_proxy.leave_kubelets(cluster.node, backend)
    kubelets = kube_proxy.saved(cluster.node, backend)
    kube_proxy.leave_ipvs(cluster.node, kube_proxy.services_of(cluster, [service]), backend)
    cluster.agent.start()
    cleaned = cluster.agent.cleanup("--kube-proxy", "--yes")
    assert (cleaned.returncode, cleaned.stderr) == (0, "")
    assert kube_proxy.ipsets(cluster.node) == []
    assert kube_proxy.saved(cluster.node, backend) == kubelets


def test_a_virtual_server_of_kube_proxys_that_no_service_asks_for_goes_and_somebody_elses_stays(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    node_address = cluster.node.addresses[Family.IPV4]
    gone, theirs = Target(node_address, 30999), Target(node_address, 8888)
    kube_proxy.leave_ipvs(cluster.node, kube_proxy.services_of(cluster, [service]))
    cluster.node.namespace.run("ipset", "add", "KUBE-NODE-PORT-TCP", "30999")
    for target in (gone, theirs):
        others.add_virtual_server(cluster.node, target, "wlc", [("192.0.2.99", 80)])
    cluster.agent.start()
    cleaned = cluster.agent.cleanup("--kube-proxy", "--yes")
    assert (cleaned.returncode, cleaned.stderr) == (0, "")
    assert gone not in tables.virtual_servers(cluster.node)
    assert theirs in tables.virtual_servers(cluster.node)


def test_what_an_agent_does_not_hold_is_shown_and_left_and_goes_with_a_warning(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    kube_proxy.leave_ipvs(cluster.node, kube_proxy.services_of(cluster, [service]))
    before = state(cluster)
    shown = cluster.agent.cleanup("--kube-proxy", "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, NO_AGENT)
    assert state(cluster) == before
    node_port = service.target(Family.IPV4, via=Via.NODE_PORT)
    with Connection(cluster["outside"], node_port, patience=2.0) as connection:
        connection.ask()
        cleaned = cluster.agent.cleanup("--kube-proxy", "--yes")
        with pytest.raises(NoAnswerError):
            connection.ask()
    assert (cleaned.returncode, cleaned.stderr) == (0, NO_AGENT)
    assert cleaned.stdout.startswith(shown.stdout)
    assert "Removed: 2 addresses, 24 virtual servers, the interface kube-ipvs0, " in cleaned.stdout
    assert tables.virtual_servers(cluster.node) == {}
    assert kube_proxy.ipsets(cluster.node) == []


def test_exactly_what_is_ours_goes_and_somebody_elses_beside_it_is_untouched(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    theirs = Target(cluster.node.addresses[Family.IPV4], 8888)
    others.add_virtual_server(cluster.node, theirs, "wlc", [("192.0.2.99", 80)])
    others.nft(cluster.node, "add table inet somebody; add chain inet somebody theirs")
    before = state(cluster)
    cluster.agent.start()
    service.await_pods(*PODS, via=Via.NODE_PORT)
    refused = cluster.agent.cleanup("--yes")
    assert refused.returncode == 1
    assert re.fullmatch(
        r"ipvsproxy: the agent would put everything back: .*process \d+ holds .*\n", refused.stderr
    )
    assert cluster.agent.cleanup("--dry-run").returncode == 0
    cluster.agent.terminate()
    with_agents = state(cluster)
    shown = cluster.agent.cleanup("--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "  1 virtual server of somebody else's: 198.51.100.1:8888/tcp\n" in shown.stdout
    assert state(cluster) == with_agents
    cleaned = cluster.agent.cleanup("--yes")
    assert (cleaned.returncode, cleaned.stderr) == (0, "")
    assert cleaned.stdout == shown.stdout + (
        "Removed: 2 addresses, 24 virtual servers, the interface kube-ipvs0, "
        "the nftables table inet ipvsproxy.\n"
    )
    assert state(cluster) == before
    again = cluster.agent.cleanup("--yes")
    assert (again.returncode, again.stdout) == (0, "There is nothing of ipvsproxy's on this node.\n")


def test_one_that_is_killed_midway_is_made_up_for_by_the_next(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    before = state(cluster)
    cluster.agent.start()
    service.await_pods(*PODS, via=Via.NODE_PORT)
    cluster.agent.kill()
    # As far as it may have come: addresses and some virtual servers, and nothing of the record.
    others.delete_interface(cluster.node)
    others.delete_virtual_server(cluster.node, service.target(Family.IPV4))
    cleaned = cluster.agent.cleanup("--yes")
    assert (cleaned.returncode, cleaned.stderr) == (0, "")
    assert "Removed: 23 virtual servers, the nftables table inet ipvsproxy.\n" in cleaned.stdout
    assert state(cluster) == before


def test_without_a_terminal_nothing_is_removed_before_somebody_says_so(
    cluster: Cluster, service: ServiceUnderTest
) -> None:
    cluster.agent.start()
    service.await_pods(*PODS)
    cluster.agent.kill()
    before = state(cluster)
    refused = cluster.agent.cleanup()
    assert refused.returncode == 2
    assert refused.stderr == (
        "ipvsproxy: cleanup asks before it removes anything, and there is no terminal to ask on: "
        "add --yes, or --dry-run to see what would go\n"
    )
    assert state(cluster) == before


def state(cluster: Cluster) -> tuple[object, ...]:
    """Return all that the command could change, without counters."""
    run = cluster.node.namespace.run
    return (
        Tables.of(cluster.node),
        run("nft", "--stateless", "list", "ruleset"),
        run("ipset", "save"),
        run("ip", "-brief", "address"),
    )
