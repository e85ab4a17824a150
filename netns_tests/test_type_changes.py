"""A Service changes its type, in every direction: what stays goes on, what comes is served, what goes is gone."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.objects import Protocol, ServiceType
from netns_tests import tables
from netns_tests.addressing import Via
from netns_tests.deadline import await_that
from netns_tests.traffic import Connection, Failure, failure_of, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import Cluster, ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

CLUSTER_IP, NODE_PORT, LOAD_BALANCER = (
    ServiceType.CLUSTER_IP,
    ServiceType.NODE_PORT,
    ServiceType.LOAD_BALANCER,
)
WAYS = {
    CLUSTER_IP: {Via.CLUSTER_IP},
    NODE_PORT: {Via.CLUSTER_IP, Via.NODE_PORT},
    LOAD_BALANCER: {Via.CLUSTER_IP, Via.NODE_PORT, Via.LOAD_BALANCER_IP, Via.EXTERNAL_IP},
}
CHANGES = pytest.mark.parametrize(
    ("before", "after"),
    list(itertools.permutations(WAYS, 2)),
    ids=str,
)


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.SCTP], ids=lambda protocol: protocol.name)
@CHANGES
def test_a_change_of_type_leaves_a_connection_to_the_cluster_ip_alone(
    cluster: Cluster,
    new_service: NewService,
    before: ServiceType,
    after: ServiceType,
    family: Family,
    protocol: Protocol,
) -> None:
    service = new_service("web-1", "web-3")
    become(service, before)
    with Connection(cluster["client"], service.target(family, protocol)) as connection:
        server = connection.ask().server
        become(service, after)
        assert [connection.ask().server for _ in range(3)] == [server] * 3


@CHANGES
def test_after_a_change_of_type_the_addresses_of_the_new_type_answer_and_no_others(
    cluster: Cluster, new_service: NewService, before: ServiceType, after: ServiceType, family: Family
) -> None:
    service = new_service("web-1")
    become(service, before)
    gone = [service.target(family, via=via) for via in WAYS[before] - WAYS[after]]
    become(service, after)
    for via in WAYS[after]:
        assert request(cluster["outside"], service.target(family, via=via)).server == "web-1"
    await_that(
        lambda: tables.virtual_servers(cluster.node).keys().isdisjoint(gone),
        f"virtual servers of type {before} are gone",
    )
    for target in gone:
        assert failure_of(cluster["outside"], target) in {Failure.REFUSED, Failure.UNREACHABLE}


@pytest.mark.parametrize("type_", WAYS, ids=str)
def test_a_service_that_becomes_an_external_name_is_gone_and_is_back_when_it_becomes_what_it_was(
    cluster: Cluster, new_service: NewService, type_: ServiceType, family: Family
) -> None:
    service = new_service("web-1")
    become(service, type_)
    targets = [service.target(family, via=via) for via in WAYS[type_]]
    service.become(ServiceType.EXTERNAL_NAME)
    await_that(
        lambda: tables.virtual_servers(cluster.node).keys().isdisjoint(targets),
        "nothing is served of a Service of type ExternalName",
    )
    become(service, type_)
    assert {request(cluster["outside"], target).server for target in targets} == {"web-1"}


def become(service: ServiceUnderTest, type_: ServiceType) -> None:
    """Change the type, and wait until the node serves all of its addresses."""
    pods = service.pods
    service.become(type_)
    for via in WAYS[type_]:
        service.await_pods(*pods, via=via)
