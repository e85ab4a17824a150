"""Connections outlive their endpoint's place in a Service: as long as they last, or as long as the Service allows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.objects import Protocol, ServiceType
from netns_tests import tables
from netns_tests.addressing import Via
from netns_tests.deadline import await_that
from netns_tests.traffic import Connection, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import Cluster, ServiceUnderTest
    from netns_tests.tables import RealServer
    from netns_tests.traffic import Target

    NewService = Callable[..., ServiceUnderTest]

DRAIN_TIMEOUT = "ipvsproxy.io/drain-timeout"
CONNECTED = pytest.mark.parametrize(
    "protocol", [Protocol.TCP, Protocol.SCTP], ids=lambda protocol: protocol.name
)
WAYS = pytest.mark.parametrize("via", [Via.CLUSTER_IP, Via.NODE_PORT, Via.LOAD_BALANCER_IP], ids=str)


@CONNECTED
@WAYS
def test_a_connection_goes_on_while_its_endpoint_drains_and_new_ones_go_elsewhere(
    cluster: Cluster, new_service: NewService, family: Family, protocol: Protocol, via: Via
) -> None:
    service = new_service("web-1")
    service.become(ServiceType.LOAD_BALANCER)
    service.await_pods("web-1", via=via)
    target = service.target(family, protocol, via=via)
    with Connection(cluster["outside"], target) as connection:
        connection.ask()
        service.write_pods("web-3")
        service.await_pods("web-3", via=via)
        assert [connection.ask().server for _ in range(3)] == ["web-1"] * 3
        assert [request(cluster["outside"], target).server for _ in range(3)] == ["web-3"] * 3


@CONNECTED
def test_an_endpoint_that_flaps_keeps_its_connections_and_its_place(
    cluster: Cluster, new_service: NewService, family: Family, protocol: Protocol
) -> None:
    service = new_service("web-1", "web-2")
    target = service.target(family, protocol)
    with Connection(cluster["client"], target) as one, Connection(cluster["client"], target) as another:
        servers = one.ask().server, another.ask().server
        assert set(servers) == {"web-1", "web-2"}
        for _ in range(3):
            service.set_endpoints("web-2")
            assert (one.ask().server, another.ask().server) == servers
            service.set_endpoints("web-1", "web-2")
            assert (one.ask().server, another.ask().server) == servers
        found = real_servers(cluster, target)
    assert [(server.weight, server.active_connections) for server in found] == [(1, 1), (1, 1)]


def test_a_drain_timeout_of_0_removes_an_endpoint_at_once(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service()
    service.become(ServiceType.CLUSTER_IP, annotations=((DRAIN_TIMEOUT, "0s"),))
    service.set_endpoints("web-1", "web-2")
    target = service.target(family)
    with Connection(cluster["client"], target) as connection:
        gone = connection.ask().server
        stays = {"web-1": "web-2", "web-2": "web-1"}[gone]
        service.set_endpoints(stays)
        assert [server.address for server in real_servers(cluster, target)] == [
            cluster[stays].addresses[family]
        ]


def test_a_drain_timeout_ends_the_drain_though_the_connection_lasts(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service()
    service.become(ServiceType.CLUSTER_IP, annotations=((DRAIN_TIMEOUT, "1s"),))
    service.set_endpoints("web-1")
    target = service.target(family)
    with Connection(cluster["client"], target) as connection:
        connection.ask()
        service.set_endpoints("web-2")
        assert [server.weight for server in real_servers(cluster, target)] == [0, 1]
        await_that(lambda: len(real_servers(cluster, target)) == 1, "the drain of web-1 has ended")


@CONNECTED
def test_a_drain_survives_a_restart_of_the_agent(
    cluster: Cluster, new_service: NewService, family: Family, protocol: Protocol
) -> None:
    service = new_service("web-1")
    target = service.target(family, protocol)
    with Connection(cluster["client"], target) as connection:
        connection.ask()
        service.set_endpoints("web-2")
        cluster.agent.kill()
        cluster.agent.start()
        assert [server.weight for server in real_servers(cluster, target)] == [0, 1]
        assert connection.ask().server == "web-1"
        service.set_endpoints("web-1", "web-2")
        assert [server.weight for server in real_servers(cluster, target)] == [1, 1]
        assert connection.ask().server == "web-1"


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("5m", 300), ("87600h", 315_360_000)], ids=["minutes", "as good as endless"]
)
def test_dump_shows_what_drains_since_when_and_until_when_and_with_how_many_connections(
    cluster: Cluster, new_service: NewService, family: Family, timeout: str, seconds: int
) -> None:
    service = new_service()
    service.become(ServiceType.CLUSTER_IP, annotations=((DRAIN_TIMEOUT, timeout),))
    service.set_endpoints("web-1")
    with Connection(cluster["client"], service.target(family)) as connection:
        connection.ask()
        service.set_endpoints("web-2")
        [leaving] = [
            server
            for server in shown_real_servers(cluster, service, service.target(family))
            if server["state"] == "draining"
        ]
    assert leaving["address"] == cluster["web-1"].addresses[family]
    assert leaving["actual"]["activeConnections"] == 1
    assert seconds - 300 < leaving["drainSecondsLeft"] <= seconds


def real_servers(cluster: Cluster, target: Target) -> list[RealServer]:
    return sorted(tables.virtual_servers(cluster.node)[target].real_servers)


def shown_real_servers(cluster: Cluster, service: ServiceUnderTest, target: Target) -> list[dict[str, Any]]:
    """Return the real servers of a virtual server as dump shows them."""
    shown = json.loads(cluster.agent.dump("-o", "json", "--service", f"default/{service.name}"))
    [found] = [
        each["realServers"]
        for each in shown["virtualServers"]
        if (each["address"], each["port"], each["protocol"])
        == (target.address, target.port, target.protocol.name)
    ]
    real_servers_shown: list[dict[str, Any]] = found
    return real_servers_shown
