"""What others do to the node's tables: what is theirs is left alone, what is the agent's is repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipvsproxy.model.addresses import Family
from netns_tests import others, tables
from netns_tests.cluster import Cluster
from netns_tests.deadline import await_that
from netns_tests.servers import HTTP_PORT
from netns_tests.tables import Tables
from netns_tests.traffic import Failure, Target, failure_of, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.cluster import ServiceUnderTest
    from netns_tests.topology import Host

    NewService = Callable[..., ServiceUnderTest]

NOT_OURS = "is not ipvsproxy's"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.built(tmp_path_factory.mktemp("cluster"), sync_period="1s") as built:
        built.agent.start()
        yield built


class Damage(NamedTuple):
    """Something that somebody does to the tables of a Service's web-1."""

    title: str
    do: Callable[[Host, Target, Host], object]


DAMAGES = [
    Damage("the virtual server deleted", lambda node, target, _: others.delete_virtual_server(node, target)),
    Damage(
        "a real server deleted",
        lambda node, target, pod: others.delete_real_server(
            node, target, pod.addresses[target.family], HTTP_PORT
        ),
    ),
    Damage(
        "a real server without weight",
        lambda node, target, pod: others.set_weight(
            node, target, pod.addresses[target.family], HTTP_PORT, weight=0
        ),
    ),
    Damage("the nftables table deleted", lambda node, *_: others.nft(node, f"delete table {tables.TABLE}")),
    Damage("the nftables rules deleted", lambda node, *_: others.nft(node, f"flush table {tables.TABLE}")),
    Damage("all of nftables deleted", lambda node, *_: others.nft(node, "flush ruleset")),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.title)
def test_the_resync_repairs_what_somebody_damaged(
    cluster: Cluster, new_service: NewService, damage: Damage, family: Family
) -> None:
    target = new_service("web-1", "web-2").target(family)
    before = Tables.of(cluster.node).without_history()
    damage.do(cluster.node, target, cluster["web-1"])
    assert Tables.of(cluster.node).without_history() != before
    await_that(
        lambda: Tables.of(cluster.node).without_history() == before,
        f"the tables are as before: {damage.title}",
    )
    assert {request(cluster["outside"], target).server for _ in range(2)} == {"web-1", "web-2"}
    assert failure_of(cluster["outside"], target._replace(port=7777)) is Failure.REFUSED


def test_a_virtual_server_of_somebody_else_is_left_alone(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    theirs = Target(cluster.node.addresses[family], 8000)
    others.add_virtual_server(cluster.node, theirs, "sh", [(cluster["web-2"].addresses[family], HTTP_PORT)])
    before = tables.virtual_servers(cluster.node)[theirs]
    new_service("web-1").set_endpoints("web-2", "web-3")
    let_a_resync_pass(cluster, new_service("web-1"))
    cluster.agent.kill()
    cluster.agent.start()
    assert tables.virtual_servers(cluster.node)[theirs] == before
    assert request(cluster["outside"], theirs).server == "web-2"
    others.delete_virtual_server(cluster.node, theirs)


def test_a_service_address_that_carries_a_virtual_server_of_somebody_else_is_not_taken_over(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = cluster.reserve_service()
    theirs, address = service.target(family), service.addresses[family]
    others.add_virtual_server(cluster.node, theirs, "sh", [(cluster["web-2"].addresses[family], HTTP_PORT)])
    before = tables.virtual_servers(cluster.node)[theirs]
    service.write_pods("web-1")
    await_that(
        lambda: any(
            address in line["reason"] and line["reason"].endswith(NOT_OURS)
            for line in cluster.agent.logged("part of a service rejected")
        ),
        f"the agent says that it leaves {address} alone",
    )
    let_a_resync_pass(cluster, new_service("web-1"))
    assert tables.virtual_servers(cluster.node)[theirs] == before
    assert not tables.has_address(cluster.node, address)
    others.delete_virtual_server(cluster.node, theirs)
    service.await_pods("web-1")
    service.remove()


def let_a_resync_pass(cluster: Cluster, service: ServiceUnderTest) -> None:
    """Return once the agent has repaired a Service of web-1, which it does when it compares everything."""
    others.delete_virtual_server(cluster.node, service.target(Family.IPV4))
    service.await_pods("web-1")
