"""Service traffic that somebody's rules keep from connection tracking: what must be closed is closed all the same."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol, ServiceType
from netns_tests.addressing import Via
from netns_tests.case_language import SERVER_PORTS
from netns_tests.servers import DATAGRAM_PORT
from netns_tests.traffic import Answer, Failure, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.cluster import Cluster, ServiceUnderTest
    from netns_tests.topology import Host

    NewService = Callable[..., ServiceUnderTest]

OUTSIDE_ONLY = ("192.0.2.0/26", "2001:db8:1::/64")
SERVICE_ADDRESSES = (Via.CLUSTER_IP, Via.EXTERNAL_IP, Via.LOAD_BALANCER_IP)
PATIENCE = 1.0
PROGRAMS = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
DNS = tuple(
    f"{protocol} --{side} {port}"
    for protocol in ("udp", "tcp")
    for side in ("dport", "sport")
    for port in (53, DATAGRAM_PORT)
)


@contextlib.contextmanager
def untracked_by_iptables(node: Host, variant: str, of: Family, matches: tuple[str, ...]) -> Iterator[None]:
    """Have the packets kept from connection tracking as DNS hosts do it, for the block."""
    program = f"{PROGRAMS[of]}-{variant}"
    for chain, match in itertools.product(("PREROUTING", "OUTPUT"), matches):
        options = ("-p", *match.split()) if match else ()
        node.namespace.run(program, "-t", "raw", "-A", chain, *options, "-j", "NOTRACK")
    try:
        yield
    finally:
        node.namespace.run(program, "-t", "raw", "-F")


@contextlib.contextmanager
def untracked_by_nft(node: Host) -> Iterator[None]:
    """Have all packets kept from connection tracking, for the block."""
    chains = "".join(
        f"chain {hook} {{ type filter hook {hook} priority raw; notrack; }}\n"
        for hook in ("prerouting", "output")
    )
    node.namespace.run("nft", "-f", "-", stdin=f"table inet stateless {{\n{chains}}}")
    try:
        yield
    finally:
        node.namespace.run("nft", "delete", "table", "inet", "stateless")


@pytest.fixture(params=["iptables-legacy", "iptables-nft", "nft"])
def untracked(cluster: Cluster, family: Family, request: pytest.FixtureRequest) -> Iterator[None]:
    """Have nothing tracked; nothing but DNS, where a program's rules for that are at hand."""
    if request.param == "nft":
        way = untracked_by_nft(cluster.node)
    else:
        way = untracked_by_iptables(cluster.node, request.param.removeprefix("iptables-"), family, ("",))
    with way:
        yield


@pytest.fixture
def service(cluster: Cluster, new_service: NewService) -> ServiceUnderTest:
    """Return a Service whose load balancer's IP is open to the host outside, and whose node has servers of its own."""
    # Who is refused again and again within a second is to hear of it each time: ICMP errors have a limit.
    cluster.node.namespace.sysctl("net/ipv4/icmp_ratelimit", "0")
    cluster.node.namespace.sysctl("net/ipv6/icmp/ratelimit", "0")
    service = new_service("web-1")
    service.become(ServiceType.LOAD_BALANCER, source_ranges=OUTSIDE_ONLY)
    service.await_pods("web-1", via=Via.LOAD_BALANCER_IP)
    return service


@pytest.fixture(scope="module", autouse=True)
def _node_servers(cluster: Cluster) -> None:
    cluster.servers.start(cluster.node)


@pytest.mark.usefixtures("untracked")
def test_other_sources_than_those_of_the_ranges_get_no_answer(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    met = {
        (client, protocol): failure_of(
            cluster[client], service.target(family, protocol, via=Via.LOAD_BALANCER_IP), PATIENCE
        )
        for client, protocol in itertools.product(("client", "stranger", "node-a"), Protocol)
    }
    assert {each for each in met.items() if each[1] is not Failure.SILENCE} == set()


@pytest.mark.usefixtures("untracked")
def test_the_nodes_own_ports_stay_closed_on_service_addresses(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    met = {
        (client, protocol, via): failure_of(
            cluster[client], service.target(family, protocol, SERVER_PORTS[protocol], via), 3
        )
        for client, protocol, via in itertools.product(
            ("client", "node-a", "outside"), (Protocol.TCP, Protocol.UDP), SERVICE_ADDRESSES
        )
    }
    assert {each for each in met.items() if each[1] is not Failure.REFUSED} == set()


@pytest.mark.usefixtures("untracked")
def test_whoever_may_come_is_answered_and_refused_where_nobody_serves(
    cluster: Cluster, service: ServiceUnderTest, family: Family
) -> None:
    for client, protocol, via in itertools.product(
        ("client", "node-a", "outside"), Protocol, (Via.CLUSTER_IP, Via.EXTERNAL_IP)
    ):
        met = failure_of(cluster[client], service.target(family, protocol, via=via), 3)
        assert isinstance(met, Answer), (client, protocol, via, met)
        assert met.server == "web-1"
    service.set_endpoints()
    for client, protocol in itertools.product(("client", "node-a", "outside"), (Protocol.TCP, Protocol.UDP)):
        # IPVS refuses with an ICMP error, which a socket forgets that is still in connect(2).
        refused = failure_of(cluster[client], service.target(family, protocol))
        assert refused in {Failure.REFUSED, Failure.REFUSED_LATE}


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_where_dns_is_not_tracked_it_is_as_closed_as_everything_else(
    cluster: Cluster, service: ServiceUnderTest, family: Family, variant: str
) -> None:
    target = service.target(family, Protocol.UDP, via=Via.LOAD_BALANCER_IP)
    assert target.port == 53
    with untracked_by_iptables(cluster.node, variant, family, DNS):
        for client in ("client", "stranger", "node-a"):
            assert failure_of(cluster[client], target, PATIENCE) is Failure.SILENCE
        answer = failure_of(cluster["outside"], target)
        assert isinstance(answer, Answer)
        for client in ("client", "node-a", "outside"):
            cluster_ip = failure_of(cluster[client], service.target(family, Protocol.UDP))
            assert isinstance(cluster_ip, Answer), (client, cluster_ip)
