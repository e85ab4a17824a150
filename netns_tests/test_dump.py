"""What `ipvsproxy dump` says of a node: the kernel's truth at this moment, beside what the agent wants."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType, TrafficPolicy
from netns_tests import others, tables
from netns_tests.addressing import Via, external_ip
from netns_tests.cluster import Cluster
from netns_tests.deadline import await_that
from netns_tests.program import PROGRAM, run_to_end
from netns_tests.servers import HTTP_PORT
from netns_tests.tables import Tables
from netns_tests.traffic import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from netns_tests.cluster import ServiceUnderTest
    from netns_tests.traffic import Target

    NewService = Callable[..., ServiceUnderTest]

FAMILIES = pytest.mark.parametrize("family", list(Family), ids=lambda family: family.name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # What others change stays as it is while it is looked at.
    with Cluster.built(tmp_path_factory.mktemp("cluster"), sync_period="1h") as built:
        built.agent.start()
        yield built


def dump(cluster: Cluster, *options: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(cluster.agent.dump("-o", "json", *options))
    return shown


def sentences(cluster: Cluster) -> list[str]:
    return [difference["sentence"] for difference in dump(cluster)["differences"]]


def virtual_server(shown: dict[str, Any], target: Target) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = (
        each
        for each in shown["virtualServers"]
        if (each["address"], each["port"], each["protocol"])
        == (target.address, target.port, target.protocol.name)
    )
    return found


def real_servers(shown: dict[str, Any], target: Target) -> dict[str, dict[str, Any]]:
    return {each["address"]: each for each in virtual_server(shown, target)["realServers"]}


@FAMILIES
def test_nothing_differs_on_a_node_where_nobody_changed_anything(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1", "web-3")
    new_service()
    with Connection(cluster["client"], service.target(family)) as connection:
        server = connection.ask().server
        shown = dump(cluster)
    assert (shown["differences"], shown["rejections"], shown["failures"]) == ([], [], [])
    assert (shown["agent"]["nodeName"], shown["agent"]["synced"], shown["firewall"]["intact"]) == (
        cluster.node.name,
        True,
        True,
    )
    found = real_servers(shown, service.target(family))
    assert {each["state"] for each in found.values()} == {"serving"}
    assert {address: each["actual"]["activeConnections"] for address, each in found.items()} == {
        cluster[pod].addresses[family]: int(pod == server) for pod in ("web-1", "web-3")
    }


@FAMILIES
def test_an_endpoint_that_does_not_serve_is_there_with_the_reason_and_one_that_left_with_its_time(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1")
    target = service.target(family)
    with Connection(cluster["client"], target) as connection:
        connection.ask()
        not_ready = cluster.endpoint("web-3", family, ready=False)
        service.write([service.slice(family, [cluster.endpoint("web-2", family), not_ready])])
        service.await_real_servers(target, {(cluster["web-2"].addresses[family], HTTP_PORT)})
        shown = dump(cluster, "--service", f"default/{service.name}")
    found = real_servers(shown, target)
    assert {address: (each["state"], each["reason"]) for address, each in found.items()} == {
        cluster["web-1"].addresses[family]: ("draining", None),
        cluster["web-2"].addresses[family]: ("serving", "ready"),
        cluster["web-3"].addresses[family]: ("excluded", "not ready"),
    }
    drains = found[cluster["web-1"].addresses[family]]
    assert drains["actual"]["activeConnections"] == 1
    assert 0 <= drains["drainSeconds"] <= 900
    # Each is rounded.
    assert abs(drains["drainSeconds"] + drains["drainSecondsLeft"] - 900) <= 1
    assert shown["differences"] == []


@FAMILIES
def test_every_kind_of_address_is_there_with_what_becomes_of_its_clients(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-3")
    refused = "192.0.2.77" if family is Family.IPV4 else "2001:db8:77::1"
    service.become(
        ServiceType.LOAD_BALANCER,
        external_ips=(external_ip(service.number, family), refused),
        external_traffic_policy=TrafficPolicy.LOCAL,
        annotations=(("ipvsproxy.io/maximum-connections-per-endpoint", "7"),),
    )
    targets = {
        via: service.target(family, via=via)
        for via in (Via.CLUSTER_IP, Via.LOAD_BALANCER_IP, Via.EXTERNAL_IP, Via.NODE_PORT)
    }
    # Addresses come last of all.
    for via in (Via.LOAD_BALANCER_IP, Via.EXTERNAL_IP):
        address = targets[via].address
        await_that(partial(tables.has_address, cluster.node, address), f"{address} is bound")
    shown = dump(cluster, "--service", f"default/{service.name}")
    found = {via: virtual_server(shown, target) for via, target in targets.items()}
    assert {via: (each["kind"], each["trafficPolicy"], each["state"]) for via, each in found.items()} == {
        Via.CLUSTER_IP: ("clusterIP", "Cluster", "serving"),
        Via.LOAD_BALANCER_IP: ("loadBalancerIP", "Local", "dropping"),
        Via.EXTERNAL_IP: ("externalIP", "Local", "dropping"),
        Via.NODE_PORT: ("nodePort", "Local", "dropping"),
    }
    not_local = "on another node, and externalTrafficPolicy is Local"
    assert {via: [each["reason"] for each in found[via]["realServers"]] for via in found} == {
        Via.CLUSTER_IP: ["ready"],
        Via.LOAD_BALANCER_IP: [not_local],
        Via.EXTERNAL_IP: [not_local],
        Via.NODE_PORT: [not_local],
    }
    (serving,) = found[Via.CLUSTER_IP]["realServers"]
    assert serving["actual"]["maximumConnections"] == 7
    assert [(each["field"], each["reason"].partition(" ")[0]) for each in shown["rejections"]] == [
        ("spec.externalIPs", refused)
    ]
    assert shown["differences"] == []


@FAMILIES
def test_what_others_change_is_named(cluster: Cluster, new_service: NewService, family: Family) -> None:
    service = new_service("web-1")
    target, pod = service.target(family), cluster["web-1"].addresses[family]
    address = f"[{target.address}]" if family is Family.IPV6 else target.address
    real_server = f"[{pod}]:{HTTP_PORT}" if family is Family.IPV6 else f"{pod}:{HTTP_PORT}"
    others.set_weight(cluster.node, target, pod, HTTP_PORT, weight=7)
    assert sentences(cluster) == [
        f"real server {real_server} of virtual server {address}:80/tcp has weight 7 instead of 1",
    ]
    others.delete_virtual_server(cluster.node, target)
    assert f"virtual server {address}:80/tcp is missing" in sentences(cluster)
    others.nft(cluster.node, f"flush table {tables.TABLE}")
    assert f"table {tables.TABLE} is not as the agent makes it" in sentences(cluster)
    restart(cluster)
    assert sentences(cluster) == []


def test_without_the_agent_the_kernel_is_shown_alone(cluster: Cluster, new_service: NewService) -> None:
    service = new_service("web-1", "web-2")
    cluster.agent.kill()
    try:
        shown = dump(cluster)
    finally:
        cluster.agent.start()
    assert (shown["agent"], shown["services"], shown["differences"]) == (None, None, None)
    for family in Family:
        found = real_servers(shown, service.target(family))
        assert {address: each["actual"]["weight"] for address, each in found.items()} == {
            cluster[pod].addresses[family]: 1 for pod in ("web-1", "web-2")
        }


def test_a_virtual_server_of_somebody_else_is_never_shown(cluster: Cluster) -> None:
    theirs = cluster.reserve_service().target(Family.IPV4)
    others.add_virtual_server(cluster.node, theirs, "rr", [])
    assert theirs.address not in cluster.agent.dump("-o", "wide")
    cluster.agent.kill()
    try:
        assert theirs.address not in cluster.agent.dump("-o", "wide")
    finally:
        cluster.agent.start()
    others.delete_virtual_server(cluster.node, theirs)


def test_one_line_says_that_no_agent_runs_or_that_it_knows_no_such_service(
    cluster: Cluster, tmp_path: Path
) -> None:
    alone = run(cluster, f"--run-directory={tmp_path}")
    assert (alone.returncode, len(alone.stderr.splitlines())) == (0, 1)
    assert f"nobody listens on {tmp_path}/agent.sock: this is the kernel's state alone" in alone.stderr
    one_service = run(cluster, f"--run-directory={tmp_path}", "--service=default/web")
    assert (one_service.returncode, one_service.stdout, len(one_service.stderr.splitlines())) == (1, "", 1)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        cluster.agent.dump("--service=default/nope")
    assert (failed.value.returncode, failed.value.stdout) == (2, "")
    assert failed.value.stderr.startswith(
        "ipvsproxy: --service default/nope: the agent knows no such Service"
    )


def test_looking_changes_nothing(cluster: Cluster, new_service: NewService) -> None:
    new_service("web-1", "web-3")
    before = Tables.of(cluster.node)
    dump(cluster)
    assert Tables.of(cluster.node) == before


def restart(cluster: Cluster) -> None:
    """Let the agent compare everything with the kernel, and repair it."""
    cluster.agent.kill()
    cluster.agent.start()


def run(cluster: Cluster, *options: str) -> subprocess.CompletedProcess[str]:
    with cluster.node.namespace.entered():
        return run_to_end([*PROGRAM, "dump", *options])
