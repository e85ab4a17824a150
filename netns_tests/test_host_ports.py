"""Traffic to Services where other programs redirect the same ports of the node: portmap's hostPorts, Docker's `-p`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.objects import ServiceType
from netns_tests import tables
from netns_tests.addressing import Via
from netns_tests.host_ports import HostPort, Writer, redirected
from netns_tests.traffic import Answer, Failure, Target, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import Cluster, ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

CLIENTS = ("client", "node-a", "outside")
WAYS = (Via.CLUSTER_IP, Via.EXTERNAL_IP, Via.LOAD_BALANCER_IP, Via.NODE_PORT)
ONLY_HOST_PORT = 7777
"""A port that no Service has."""


@pytest.fixture(params=list(Writer), ids=str)
def writer(request: pytest.FixtureRequest) -> Writer:
    return Writer(request.param)


@pytest.fixture(params=["before the agent's table", "after it"])
def service(
    cluster: Cluster,
    new_service: NewService,
    family: Family,
    writer: Writer,
    request: pytest.FixtureRequest,
) -> Iterator[ServiceUnderTest]:
    """Have a Service of web-1, and each of its ports and node ports redirected to web-2 by somebody else."""
    # Who is refused again and again within a second is to hear of it each time: ICMP errors have a limit.
    cluster.node.namespace.sysctl("net/ipv4/icmp_ratelimit", "0")
    cluster.node.namespace.sysctl("net/ipv6/icmp/ratelimit", "0")
    service = new_service("web-1")
    service.become(ServiceType.LOAD_BALANCER)
    service.await_pods("web-1", via=Via.LOAD_BALANCER_IP)
    service.await_pods("web-1", via=Via.NODE_PORT)
    pod = cluster["web-2"].addresses[family]
    host_ports = [
        HostPort(each.protocol, port, pod, each.target)
        for each in service.ports
        for port in (each.port, each.node_port, ONLY_HOST_PORT + each.port)
    ]
    with redirected(cluster.node, family, host_ports, writer):
        if request.param.startswith("before"):
            # Of chains with one priority, the kernel asks those first that were there first.
            table = cluster.node.namespace.run("nft", "list", "table", *tables.TABLE.split())
            cluster.node.namespace.run("nft", "-f", "-", stdin=f"delete table {tables.TABLE}\n{table}")
        yield service


def test_service_traffic_does_not_meet_the_redirections_of_others(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    met = {
        (client, via, port.name): _met(cluster, client, service, family, via, port.name)
        for client, via, port in itertools.product(CLIENTS, WAYS, service.ports)
    }
    assert {each for each in met.items() if each[1] != "web-1"} == set()


def test_the_other_ports_of_service_addresses_stay_closed(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    met = {
        (client, via, port.name): failure_of(
            cluster[client],
            service.target(family, port.protocol, ONLY_HOST_PORT + port.port, via),
        )
        for client, via, port in itertools.product(CLIENTS, WAYS[:3], service.ports)
    }
    assert {each for each in met.items() if each[1] is not Failure.REFUSED} == set()


def test_the_redirections_go_on_working_at_the_nodes_own_address(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    address = cluster.node.addresses[family]
    met = {}
    for client, port in itertools.product(CLIENTS, service.ports):
        for number in (port.port, ONLY_HOST_PORT + port.port):
            answer = failure_of(cluster[client], Target(address, number, port.protocol))
            met[client, port.name, number] = answer.server if isinstance(answer, Answer) else answer
    assert {each for each in met.items() if each[1] != "web-2"} == set()


def _met(
    cluster: Cluster, client: str, service: ServiceUnderTest, family: Family, via: Via, name: str
) -> Failure | str:
    """Return which server answers, or what the client meets instead."""
    port = next(each for each in service.ports if each.name == name)
    number = port.node_port if via is Via.NODE_PORT else port.port
    met = failure_of(cluster[client], service.target(family, port.protocol, number, via))
    return met.server if isinstance(met, Answer) else met
