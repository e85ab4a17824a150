"""externalTrafficPolicy while it changes and while endpoints move, and what the replies look like on the wire."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Self

import pytest

from ipvsproxy.model.objects import Protocol, ServiceType, TrafficPolicy
from netns_tests import others, tables
from netns_tests.addressing import Via
from netns_tests.deadline import await_that
from netns_tests.servers import HTTP_PORT
from netns_tests.traffic import Connection, Failure, Flow, failure_of, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import Cluster, ServiceUnderTest
    from netns_tests.topology import Host

    NewService = Callable[..., ServiceUnderTest]

WAYS = pytest.mark.parametrize("via", [Via.NODE_PORT, Via.EXTERNAL_IP, Via.LOAD_BALANCER_IP], ids=str)

_EVERY_PACKET = 0x0003  # ETH_P_ALL, linux/if_ether.h
# Of IPv4's and IPv6's headers, by EtherType: where they have the protocol and the source.
_PROTOCOLS, _SOURCES = {0x0800: 9, 0x86DD: 6}, {0x0800: slice(12, 16), 0x86DD: slice(8, 24)}


class Capture:
    """The packets of one protocol that come to a host, from the start to the end of a `with` block."""

    def __init__(self, host: Host, protocol: Protocol) -> None:
        """Listen in the host's namespace."""
        self._protocol = protocol
        with host.namespace.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PACKET))
        self._socket.settimeout(0)

    def __enter__(self) -> Self:
        """Return the capture, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._socket.close()

    def sources(self) -> set[str]:
        """Return the source addresses of what came so far."""
        found: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
        while True:
            try:
                packet, (_, ether_type, kind, *_) = self._socket.recvfrom(65536)
            except BlockingIOError:
                return {str(each) for each in found}
            if kind != socket.PACKET_HOST or ether_type not in _PROTOCOLS:
                continue
            if packet[_PROTOCOLS[ether_type]] == self._protocol:
                found.add(ipaddress.ip_address(packet[_SOURCES[ether_type]]))


def local_service(new_service: NewService, *pods: str) -> ServiceUnderTest:
    """Make a Service of these pods with every kind of address and externalTrafficPolicy Local."""
    service = new_service(*pods)
    service.become(ServiceType.LOAD_BALANCER, external_traffic_policy=TrafficPolicy.LOCAL)
    service.await_pods(*pods)
    for via in (Via.NODE_PORT, Via.EXTERNAL_IP, Via.LOAD_BALANCER_IP):
        service.await_pods(*(pod for pod in pods if pod in {"web-1", "web-2"}), via=via)
    # At its end the agent has UDP flows to addresses that are redirected now begin anew, and these are.
    service.await_sync()
    return service


@WAYS
def test_replies_to_clients_outside_have_the_address_that_they_connected_to(
    cluster: Cluster, new_service: NewService, family: Family, protocol: Protocol, via: Via
) -> None:
    target = local_service(new_service, "web-1", "web-3").target(family, protocol, via=via)
    with Capture(cluster["outside"], protocol) as capture:
        assert [request(cluster["outside"], target).server for _ in range(4)] == ["web-1"] * 4
        assert capture.sources() == {target.address}


@pytest.mark.parametrize("client", ["client", "web-1", "web-4"])
@pytest.mark.parametrize("via", [Via.EXTERNAL_IP, Via.LOAD_BALANCER_IP], ids=str)
def test_replies_to_pods_have_the_address_that_they_connected_to(
    cluster: Cluster, new_service: NewService, client: str, family: Family, protocol: Protocol, via: Via
) -> None:
    # A pod of the other node would get replies of its node's pods directly.
    pods = ("web-1", "web-2") if client == "web-4" else ("web-2", "web-3")
    target = local_service(new_service, *pods).target(family, protocol, via=via)
    with Capture(cluster[client], protocol) as capture:
        assert {request(cluster[client], target).server for _ in range(4)} == set(pods)
        assert capture.sources() == {target.address}


@WAYS
def test_a_change_of_policy_leaves_connections_alone_and_new_ones_go_by_it(
    cluster: Cluster, new_service: NewService, family: Family, via: Via
) -> None:
    outside = cluster["outside"]
    service = new_service("web-1", "web-3")
    service.become(ServiceType.LOAD_BALANCER)
    service.await_pods("web-1", "web-3", via=via)
    target = service.target(family, via=via)
    with Connection(outside, target) as one, Connection(outside, target) as another:
        before = one.ask(), another.ask()
        assert {answer.server for answer in before} == {"web-1", "web-3"}

        service.become(ServiceType.LOAD_BALANCER, external_traffic_policy=TrafficPolicy.LOCAL)
        service.await_pods("web-1", via=via)
        cluster.agent.finish_change()
        answers = [request(outside, target) for _ in range(4)]
        assert {(each.server, each.source) for each in answers} == {("web-1", outside.addresses[family])}
        assert (one.ask(), another.ask()) == before

        service.become(ServiceType.LOAD_BALANCER)
        service.await_pods("web-1", "web-3", via=via)
        cluster.agent.finish_change()
        answers = [request(outside, target) for _ in range(4)]
        assert {each.server for each in answers} == {"web-1", "web-3"}
        assert outside.addresses[family] not in {each.source for each in answers}
        assert (one.ask(), another.ask()) == before


@WAYS
@pytest.mark.parametrize("policy", TrafficPolicy, ids=str)
def test_clients_keep_what_they_have_and_get_what_is_theirs_while_internal_traffic_policy_changes(
    cluster: Cluster, new_service: NewService, family: Family, via: Via, policy: TrafficPolicy
) -> None:
    outside, client = cluster["outside"], cluster["client"]
    service = local_service(new_service, "web-1", "web-3")
    if policy is TrafficPolicy.LOCAL:
        become_local(service, policy)
    streams, datagrams = (service.target(family, each, via=via) for each in (Protocol.TCP, Protocol.UDP))
    with (
        Connection(outside, streams) as connection,
        Flow(outside, datagrams) as flow,
        Flow(client, datagrams) as inside,
    ):
        for _ in range(2):
            assert connection.ask() == ("web-1", outside.addresses[family], HTTP_PORT)
            assert flow.ask().server == "web-1"
            assert inside.ask().server in {"web-1", "web-3"}
            for target in (streams, datagrams):
                answers = [request(outside, target) for _ in range(4)]
                assert {each[:2] for each in answers} == {("web-1", outside.addresses[family])}
                assert {request(client, target).server for _ in range(4)} == {"web-1", "web-3"}
            become_local(service, next(each for each in TrafficPolicy if each is not policy))


def become_local(service: ServiceUnderTest, internal: TrafficPolicy) -> None:
    """Give it an internalTrafficPolicy beside externalTrafficPolicy Local."""
    service.become(
        ServiceType.LOAD_BALANCER,
        external_traffic_policy=TrafficPolicy.LOCAL,
        internal_traffic_policy=internal,
    )
    service.await_pods(*(["web-1"] if internal is TrafficPolicy.LOCAL else ["web-1", "web-3"]))
    service.await_sync()


@WAYS
def test_when_the_last_local_endpoint_goes_its_connections_go_on_and_new_ones_are_dropped(
    cluster: Cluster, new_service: NewService, family: Family, via: Via
) -> None:
    outside = cluster["outside"]
    service = local_service(new_service, "web-1", "web-3")
    target = service.target(family, via=via)
    with Connection(outside, target) as connection:
        connection.ask()
        service.write_pods("web-3")
        service.await_pods(via=via)
        assert connection.ask().server == "web-1"
        assert failure_of(outside, target, patience=1) is Failure.SILENCE
        service.write_pods()
        service.await_pods()
        assert failure_of(outside, target) is Failure.REFUSED
        assert connection.ask().server == "web-1"
        service.write_pods("web-2", "web-3")
        service.await_pods("web-2", via=via)
        assert request(outside, target).server == "web-2"
        assert connection.ask().server == "web-1"


def test_an_address_that_an_interface_of_the_node_has_already_is_served_there_and_bound_once_it_is_gone(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    """As those who announce load balancers' addresses from a node do, such as kube-vip."""
    service = new_service("web-1")
    service.become(ServiceType.LOAD_BALANCER)
    service.await_pods("web-1", via=Via.LOAD_BALANCER_IP)
    target = service.target(family, via=Via.LOAD_BALANCER_IP)
    others.add_node_address(cluster.node, target.address)
    await_that(lambda: target.address not in bound(cluster), f"{target.address} is not bound twice")
    assert request(cluster["outside"], target).server == "web-1"
    others.delete_node_address(cluster.node, target.address)
    await_that(lambda: target.address in bound(cluster), f"{target.address} is bound")
    assert request(cluster["outside"], target).server == "web-1"


def bound(cluster: Cluster) -> set[str]:
    return {each.address for each in tables.service_addresses(cluster.node)}
