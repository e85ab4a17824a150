"""Clients who came before this node had the Service are served as soon as it is there.

What they sent is tracked as not translated, and each of their packets renews that.
"""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.iproute.linux import IPRoute

from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.objects import Protocol, ServiceType
from netns_tests.addressing import Via
from netns_tests.deadline import await_that
from netns_tests.test_conntrack_contract import read_entries
from netns_tests.topology import EXTERNAL_CIDRS, SERVICE_CIDRS
from netns_tests.traffic import Flow, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.kernel.fake_conntrack import ConntrackEntry
    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import Cluster, ServiceUnderTest
    from netns_tests.traffic import Target

    NewService = Callable[..., ServiceUnderTest]

VIAS = pytest.mark.parametrize("via", [Via.CLUSTER_IP, Via.LOAD_BALANCER_IP, Via.EXTERNAL_IP], ids=str)
CONNECTIONS = pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.SCTP], ids=lambda each: each.name)

_ROUTES = 1 << 6 | 1 << 10  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE, linux/rtnetlink.h


@pytest.fixture(scope="module", autouse=True)
def void(cluster: Cluster) -> Iterator[None]:
    """Let the node send on what comes for service addresses that it has not, to where nobody answers."""
    run = cluster.node.namespace.run
    run("ip", "link", "add", "void", "type", "dummy")
    run("ip", "link", "set", "void", "up", "arp", "off")
    for network in (*SERVICE_CIDRS, *EXTERNAL_CIDRS):
        family = "-6" if ":" in network else "-4"
        run("ip", family, "route", "del", "unreachable", network)
        run("ip", family, "route", "add", network, "dev", "void")
    yield
    run("ip", "link", "del", "void")


@pytest.fixture
def service(cluster: Cluster) -> Iterator[ServiceUnderTest]:
    """Return a Service with every kind of address, which is not written yet."""
    service = cluster.reserve_service()
    service.become(ServiceType.LOAD_BALANCER)
    yield service
    service.remove()


def entries_to(cluster: Cluster, target: Target) -> list[ConntrackEntry]:
    """Return what the node tracks of clients of the target."""
    with cluster.node.namespace.entered():
        return [
            each
            for each in read_entries(target.family)
            if (format_address(each.destination.address), *each.destination[1:])
            == (target.address, target.protocol, target.port)
        ]


@VIAS
@CONNECTIONS
def test_a_client_that_knocked_before_is_let_in_with_its_next_packet(
    cluster: Cluster, service: ServiceUnderTest, family: Family, protocol: Protocol, via: Via
) -> None:
    target = service.target(family, protocol, via=via)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        early = pool.submit(request, cluster["outside"], target)
        await_that(lambda: entries_to(cluster, target), "the node tracks what it sent on")
        # Its answers come back by way of this node only if they are masqueraded.
        service.set_endpoints("web-3")
        answer = early.result()
    assert answer.server == "web-3"
    assert answer.source in cluster.node.own(family)


def await_local(notices: IPRoute, address: str) -> None:
    """Return at the moment at which the address becomes the node's, by the kernel's notices of routes."""
    notices_of: Any = notices
    while not any(
        notice["event"] == "RTM_NEWROUTE" and notice.get_attr("RTA_DST") == address
        for notice in notices_of.get()
    ):
        pass


@VIAS
def test_a_datagram_is_answered_from_the_moment_that_the_address_is_bound(
    cluster: Cluster, service: ServiceUnderTest, family: Family, via: Via
) -> None:
    target = service.target(family, Protocol.UDP, via=via)
    with Flow(cluster["outside"], target) as flow, cluster.node.namespace.netlink(IPRoute) as notices:
        flow.tell()
        await_that(lambda: entries_to(cluster, target), "the node tracks what it sent on")
        notices.bind(_ROUTES)
        service.write_pods("web-3")
        await_local(notices, target.address)
        answer = flow.ask()
    assert answer.server == "web-3"
    assert answer.source in cluster.node.own(family)
