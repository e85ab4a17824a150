"""Session affinity while the Service changes: the timeout in place, and the endpoint that a client was bound to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.objects import ServiceType
from netns_tests import tables
from netns_tests.addressing import Via
from netns_tests.deadline import await_that
from netns_tests.traffic import Connection, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Family
    from ipvsproxy.model.objects import Protocol
    from netns_tests.cluster import Cluster, ServiceUnderTest
    from netns_tests.traffic import Target

    NewService = Callable[..., ServiceUnderTest]


@pytest.fixture
def service(new_service: NewService) -> ServiceUnderTest:
    """Return a Service of two pods with session affinity."""
    service = new_service()
    service.become(ServiceType.LOAD_BALANCER, session_affinity_timeout=600)
    service.set_endpoints("web-1", "web-2")
    service.await_pods("web-1", "web-2", via=Via.LOAD_BALANCER_IP)
    return service


def test_the_timeout_changes_in_place(
    cluster: Cluster, service: ServiceUnderTest, family: Family, protocol: Protocol
) -> None:
    target = service.target(family, protocol)
    server = request(cluster["client"], target).server
    await_that(lambda: tables.accepted_connections(cluster.node)[target] == 1, "the kernel has counted")
    ticks_per_second = timeout(cluster, target) // 600
    service.become(ServiceType.LOAD_BALANCER, session_affinity_timeout=900)
    await_that(lambda: timeout(cluster, target) == 900 * ticks_per_second, "the timeout is 900 s")
    # A virtual server that was made again would have lost its count, and whom the client is bound to.
    assert tables.accepted_connections(cluster.node)[target] == 1
    assert {request(cluster["client"], target).server for _ in range(6)} == {server}


def test_affinity_comes_and_goes_in_place(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    target = service.target(family)
    with Connection(cluster["client"], target) as connection:
        server = connection.ask().server
        service.become(ServiceType.LOAD_BALANCER)
        await_that(lambda: settings(cluster, target) == "rr", "there is no affinity any more")
        assert {request(cluster["client"], target).server for _ in range(4)} == {"web-1", "web-2"}
        service.become(ServiceType.LOAD_BALANCER, session_affinity_timeout=600)
        await_that(lambda: "persistent" in settings(cluster, target), "there is affinity again")
        assert len({request(cluster["client"], target).server for _ in range(4)}) == 1
        assert connection.ask().server == server


@pytest.mark.parametrize("via", [Via.CLUSTER_IP, Via.LOAD_BALANCER_IP], ids=str)
def test_a_client_moves_on_at_once_when_its_endpoint_is_gone(
    cluster: Cluster, service: ServiceUnderTest, family: Family, protocol: Protocol, via: Via
) -> None:
    target = service.target(family, protocol, via=via)
    server = request(cluster["outside"], target).server
    other = {"web-1": "web-2", "web-2": "web-1"}[server]
    service.write_pods(other)
    service.await_pods(other, via=via)
    assert [request(cluster["outside"], target).server for _ in range(4)] == [other] * 4


def timeout(cluster: Cluster, target: Target) -> int:
    """Return the timeout of a virtual server's affinity in the kernel's ticks, which differ from kernel to kernel."""
    return int(settings(cluster, target).partition("persistent ")[2].split()[0])


def settings(cluster: Cluster, target: Target) -> str:
    """Return the scheduler, flags and timeout of a virtual server."""
    return tables.virtual_servers(cluster.node)[target].settings
