"""The health check node port, as a load balancer outside the cluster asks it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ipvsproxy.model.objects import ServiceType, TrafficPolicy
from netns_tests import addressing
from netns_tests.addressing import Via
from netns_tests.deadline import PATIENCE, await_that
from netns_tests.servers import HTTP_PORT
from netns_tests.traffic import Connection, Failure, NoAnswerError, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import Cluster, ServiceUnderTest
    from netns_tests.topology import Host

    NewService = Callable[..., ServiceUnderTest]


class Health(NamedTuple):
    """What the server says: its status, the endpoints of this node by header and by body, and the rest of the body."""

    status: int
    weight: str | None
    local_endpoints: int
    service: str
    proxy_healthy: bool


class HealthChecker:
    """A load balancer that asks a node on one connection, which is kept alive."""

    def __init__(self, origin: Host, address: str, port: int) -> None:
        """Connect; OSError if nobody listens."""
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        with origin.namespace.entered():
            client = socket.socket(kind, socket.SOCK_STREAM)
        client.settimeout(PATIENCE)
        try:
            client.connect((address, port))
        except OSError:
            client.close()
            raise
        self._connection = http.client.HTTPConnection(address, port)
        self._connection.sock = client

    def ask(self) -> Health:
        """Ask once."""
        self._connection.request("GET", "/")
        response = self._connection.getresponse()
        body: dict[str, Any] = json.loads(response.read())
        return Health(
            response.status,
            response.getheader("X-Load-Balancing-Endpoint-Weight"),
            body["localEndpoints"],
            f"{body['service']['namespace']}/{body['service']['name']}",
            body["serviceProxyHealthy"],
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def health(cluster: Cluster, service: ServiceUnderTest, family: Family) -> Health | None:
    """Ask on a connection of its own; None if nobody listens."""
    port = addressing.health_check_node_port(service.number)
    try:
        checker = HealthChecker(cluster["outside"], cluster.node.addresses[family], port)
    except ConnectionRefusedError:
        return None
    with contextlib.closing(checker):
        return checker.ask()


def expected(service: ServiceUnderTest, local_endpoints: int) -> Health:
    status = 200 if local_endpoints else 503
    name = f"default/{service.name}"
    return Health(status, str(local_endpoints), local_endpoints, name, proxy_healthy=True)


def await_health(cluster: Cluster, service: ServiceUnderTest, family: Family, answer: Health | None) -> None:
    def is_answered() -> bool:
        try:
            return health(cluster, service, family) == answer
        except (ConnectionResetError, json.JSONDecodeError):
            # The port was given up after the kernel had accepted the connection: cut off, or a 404.
            return False

    await_that(is_answered, f"the health of {service.name} is {answer}")


@pytest.fixture
def service(new_service: NewService) -> ServiceUnderTest:
    """Return a Service with a health check node port, and two endpoints on this node."""
    service = new_service("web-1", "web-2", "web-3")
    become_checked(service)
    for via in (Via.EXTERNAL_IP, Via.LOAD_BALANCER_IP):
        service.await_pods("web-1", "web-2", via=via)
    return service


@pytest.fixture(scope="module", autouse=True)
def _node_servers(cluster: Cluster) -> None:
    """Have servers of the node's own, which service addresses must not lead to."""
    cluster.servers.start(cluster.node)


def become_checked(service: ServiceUnderTest) -> None:
    service.become(
        ServiceType.LOAD_BALANCER,
        external_traffic_policy=TrafficPolicy.LOCAL,
        health_check_node_port=addressing.health_check_node_port(service.number),
    )


def test_it_answers_200_with_local_endpoints_and_503_without(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    await_health(cluster, service, family, expected(service, 2))
    service.write_pods("web-1", "web-3")
    await_health(cluster, service, family, expected(service, 1))
    service.write_pods("web-3")
    await_health(cluster, service, family, expected(service, 0))
    service.write_pods("web-1")
    await_health(cluster, service, family, expected(service, 1))


def test_an_endpoint_that_terminates_and_still_serves_does_not_count(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    await_health(cluster, service, family, expected(service, 2))
    terminating = cluster.endpoint("web-1", family, ready=False, serving=True, terminating=True)
    service.write([service.slice(family, [terminating])])
    await_health(cluster, service, family, expected(service, 0))


def test_it_is_closed_when_the_policy_is_cluster_or_the_service_is_gone(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    await_health(cluster, service, family, expected(service, 2))
    service.become(ServiceType.LOAD_BALANCER)
    await_health(cluster, service, family, None)
    become_checked(service)
    await_health(cluster, service, family, expected(service, 2))
    service.remove()
    await_health(cluster, service, family, None)


def test_a_connection_is_answered_all_the_time_while_other_services_come_and_go(
    cluster: Cluster, service: ServiceUnderTest, new_service: NewService, family: Family
) -> None:
    await_health(cluster, service, family, expected(service, 2))
    checker = HealthChecker(
        cluster["outside"],
        cluster.node.addresses[family],
        addressing.health_check_node_port(service.number),
    )
    for _ in range(3):
        other = new_service("web-1")
        become_checked(other)
        await_health(cluster, other, family, expected(other, 1))
        assert checker.ask() == expected(service, 2)
        other.remove()
        await_health(cluster, other, family, None)
        assert checker.ask() == expected(service, 2)
    checker.close()


SERVICE_ADDRESSES = (Via.CLUSTER_IP, Via.EXTERNAL_IP, Via.LOAD_BALANCER_IP)


def status_of(cluster: Cluster, client: str, address: str, port: int) -> int | Failure:
    """Ask for the health from a host; return the status, or what it meets instead."""
    try:
        with Connection(cluster[client], Target(address, port)) as connection:
            return connection.status("/healthz")
    except NoAnswerError as error:
        return error.failure


@pytest.mark.parametrize("client", ["outside", "client", "node-a"])
def test_it_answers_at_service_addresses_as_at_the_nodes_until_it_is_closed(
    cluster: Cluster, service: ServiceUnderTest, new_service: NewService, family: Family, client: str
) -> None:
    await_health(cluster, service, family, expected(service, 2))
    port = addressing.health_check_node_port(service.number)
    # Of this Service, and of another one.
    addresses = [service.target(family, via=via).address for via in SERVICE_ADDRESSES]
    addresses.append(new_service("web-3").target(family).address)
    assert [status_of(cluster, client, each, port) for each in addresses] == [200] * 4
    service.write_pods("web-3")
    await_health(cluster, service, family, expected(service, 0))
    assert [status_of(cluster, client, each, port) for each in addresses] == [503] * 4
    assert status_of(cluster, client, addresses[0], HTTP_PORT) is Failure.REFUSED
    service.become(ServiceType.LOAD_BALANCER)
    await_health(cluster, service, family, None)
    assert [status_of(cluster, client, each, port) for each in addresses] == [Failure.REFUSED] * 4


@pytest.mark.parametrize("client", ["outside", "client", "node-a"])
def test_the_agents_own_health_is_answered_at_service_addresses(
    cluster: Cluster, service: ServiceUnderTest, family: Family, client: str
) -> None:
    addresses = [service.target(family, via=via).address for via in SERVICE_ADDRESSES]
    assert [status_of(cluster, client, each, 10256) for each in addresses] == [200] * 3
