"""Node ports follow the node's addresses as they come and go, at once: the sync period here is longer than any test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType, TrafficPolicy
from netns_tests import others, tables
from netns_tests.addressing import Via
from netns_tests.cluster import Cluster
from netns_tests.deadline import await_that
from netns_tests.servers import HTTP_PORT
from netns_tests.traffic import Connection, Failure, Target, failure_of, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.cluster import ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

MORE_ADDRESSES = {Family.IPV4: "198.51.100.65", Family.IPV6: "2001:db8:64:1::65"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.built(tmp_path_factory.mktemp("cluster"), sync_period="1h") as built:
        built.agent.start()
        yield built


@pytest.fixture
def service(new_service: NewService) -> ServiceUnderTest:
    """Return a Service with node ports at the addresses that the node has from the start."""
    service = new_service("web-1", "web-3")
    service.become(ServiceType.NODE_PORT)
    service.await_pods("web-1", "web-3", via=Via.NODE_PORT)
    return service


@pytest.fixture
def address(cluster: Cluster, family: Family) -> Iterator[str]:
    """Return an address that the node may get; it has none such after the test."""
    yield MORE_ADDRESSES[family]
    if tables.has_address(cluster.node, MORE_ADDRESSES[family]):
        others.delete_node_address(cluster.node, MORE_ADDRESSES[family])


def test_a_node_port_is_served_at_an_address_once_the_node_has_it_and_until_it_is_gone(
    cluster: Cluster, service: ServiceUnderTest, family: Family, address: str
) -> None:
    target = service.target(family, via=Via.NODE_PORT)._replace(address=address)
    assert target not in tables.virtual_servers(cluster.node)
    others.add_node_address(cluster.node, address)
    await_endpoints(cluster, service, target)
    assert {request(cluster["outside"], target).server for _ in range(4)} == {"web-1", "web-3"}
    others.delete_node_address(cluster.node, address)
    await_that(lambda: target not in tables.virtual_servers(cluster.node), f"{target} is gone")
    assert {
        request(cluster["outside"], service.target(family, via=Via.NODE_PORT)).server for _ in range(4)
    } == {
        "web-1",
        "web-3",
    }


def test_connections_at_other_addresses_do_not_notice_that_an_address_comes_and_goes(
    cluster: Cluster, service: ServiceUnderTest, family: Family, address: str
) -> None:
    target = service.target(family, via=Via.NODE_PORT)
    with Connection(cluster["outside"], target) as connection:
        server = connection.ask().server
        others.add_node_address(cluster.node, address)
        await_endpoints(cluster, service, target._replace(address=address))
        others.delete_node_address(cluster.node, address)
        await_that(
            lambda: target._replace(address=address) not in tables.virtual_servers(cluster.node),
            f"nothing is served at {address}",
        )
        assert connection.ask().server == server


def test_a_node_port_is_served_at_twenty_addresses(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    prefix = MORE_ADDRESSES[family].removesuffix("65")
    addresses = [f"{prefix}{number}" for number in range(70, 90)]
    for each in addresses:
        others.add_node_address(cluster.node, each)
    target = service.target(family, via=Via.NODE_PORT)
    for each in addresses:
        await_endpoints(cluster, service, target._replace(address=each))
        assert request(cluster["outside"], target._replace(address=each)).server in {"web-1", "web-3"}
    for each in addresses:
        others.delete_node_address(cluster.node, each)
    await_that(
        lambda: {each.address for each in tables.virtual_servers(cluster.node)}.isdisjoint(addresses),
        "nothing is served at the addresses any more",
    )


def test_the_nodes_own_ports_stay_open_at_an_address_with_a_node_port(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    cluster.servers.start(cluster.node)
    target = Target(cluster.node.addresses[family], HTTP_PORT)
    assert request(cluster["outside"], target).server == cluster.node.name
    assert request(cluster["client"], target).server == cluster.node.name
    assert request(cluster["outside"], service.target(family, via=Via.NODE_PORT)).server != cluster.node.name
    cluster.servers.leave(cluster.node)


def test_a_node_port_that_loses_its_local_endpoints_is_dropped_until_it_has_one_again(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1", "web-3")
    service.become(ServiceType.NODE_PORT, external_traffic_policy=TrafficPolicy.LOCAL)
    service.await_pods("web-1", via=Via.NODE_PORT)
    target = service.target(family, via=Via.NODE_PORT)
    assert request(cluster["outside"], target).server == "web-1"
    service.write_pods("web-3")
    service.await_pods(via=Via.NODE_PORT)
    assert failure_of(cluster["outside"], target, patience=1) is Failure.SILENCE
    service.write_pods("web-2", "web-3")
    service.await_pods("web-2", via=Via.NODE_PORT)
    answer = request(cluster["outside"], target)
    assert (answer.server, answer.source) == ("web-2", cluster["outside"].addresses[family])


def await_endpoints(cluster: Cluster, service: ServiceUnderTest, target: Target) -> None:
    """Wait until a target is served by all of the Service's pods."""
    service.await_real_servers(
        target, {(cluster[pod].addresses[target.family], HTTP_PORT) for pod in service.pods}
    )
