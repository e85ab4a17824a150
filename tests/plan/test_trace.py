"""Who answers a connection, and with which source address: the planned rules and tables, followed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipvsproxy.model.addresses import format_address, parse_network
from ipvsproxy.model.objects import AddressKind, Clients, Protocol, TrafficPolicy
from ipvsproxy.plan.desired import elements_of
from ipvsproxy.plan.firewall import ICMP, ICMPV6, FirewallSettings, PodInterfaces, PodNetworks, ruleset
from ipvsproxy.plan.services import PlannedVirtualServer, Redirect
from ipvsproxy.plan.trace import trace
from ipvsproxy.plan.trace.table import FirewallTable
from ipvsproxy.plan.trace.values import Answer, KernelReason, Outcome, Packet, SourceSeen, TracedState
from tests.builders import address, addresses, key, networks, real_server, source_list, virtual_server

if TYPE_CHECKING:
    from collections.abc import Collection

    from ipvsproxy.model.ipvs import RealServer
    from ipvsproxy.plan.trace.values import Trace

POD_NETWORKS = FirewallSettings(PodNetworks(networks("10.244.0.0/16", "fd00:244::/56")))
CLIENT, MASQUERADED = SourceSeen.CLIENT, SourceSeen.MASQUERADED


class Hosts(NamedTuple):
    """Addresses of one family; `pod` and `neighbour` run on this node, `remote` on another."""

    cluster_ip: str
    balancer_ip: str
    node: str
    pod: str
    neighbour: str
    remote: str
    outside: str
    loopback: str
    ping: int


IPV4 = Hosts(
    "10.96.0.1",
    "203.0.113.10",
    "198.51.100.1",
    "10.244.1.2",
    "10.244.1.3",
    "10.244.2.2",
    "192.0.2.1",
    "127.0.0.1",
    ICMP,
)
IPV6 = Hosts(
    "fd00:96::1",
    "2001:db8:10::1",
    "2001:db8:64::1",
    "fd00:244:0:1::2",
    "fd00:244:0:1::3",
    "fd00:244:0:2::2",
    "2001:db8::1",
    "::1",
    ICMPV6,
)
for_both_families = pytest.mark.parametrize("hosts", [IPV4, IPV6], ids=["ipv4", "ipv6"])


def state(
    hosts: Hosts,
    *planned: PlannedVirtualServer,
    settings: FirewallSettings = POD_NETWORKS,
    listening: Collection[tuple[int, int]] = (),
) -> TracedState:
    elements = {element for each in planned for element in elements_of(each)}
    bound = {each.virtual_server.key.address for each in planned if each.kind is not AddressKind.NODE_PORT}
    return TracedState(
        FirewallTable(ruleset(settings), elements),
        {each.virtual_server.key: each.virtual_server for each in planned},
        bound,
        addresses(hosts.loopback, hosts.node),
        frozenset(listening),
    )


def cluster_ip(hosts: Hosts, *servers: RealServer, protocol: Protocol = Protocol.TCP) -> PlannedVirtualServer:
    local = {address(hosts.pod), address(hosts.neighbour), address(hosts.node)}
    return PlannedVirtualServer(
        virtual_server(key(hosts.cluster_ip, 80, protocol), *servers),
        tuple(server.address for server in servers if server.address in local),
    )


def balancer(
    hosts: Hosts, policy: TrafficPolicy, *servers: str, only_remote: bool = False, sources: str | None = None
) -> PlannedVirtualServer:
    return PlannedVirtualServer(
        virtual_server(key(hosts.balancer_ip), *map(real_server, servers)),
        kind=AddressKind.LOAD_BALANCER_IP,
        policy=policy,
        only_remote_endpoints=only_remote,
        redirect=to_cluster_ip(hosts) if policy is TrafficPolicy.LOCAL else None,
        allowed_sources=None if sources is None else source_list(sources, of=parse_network(sources).family),
    )


def node_port(
    hosts: Hosts, policy: TrafficPolicy, *servers: str, only_remote: bool = False
) -> PlannedVirtualServer:
    return PlannedVirtualServer(
        virtual_server(key(hosts.node, 30080), *map(real_server, servers)),
        kind=AddressKind.NODE_PORT,
        policy=policy,
        only_remote_endpoints=only_remote,
        redirect=to_cluster_ip(hosts) if policy is TrafficPolicy.LOCAL else None,
    )


def to_cluster_ip(hosts: Hosts) -> Redirect:
    return Redirect(Clients.INSIDE, address(hosts.cluster_ip), 80)


def from_pod(hosts: Hosts, to: str, port: int = 80, protocol: int = Protocol.TCP) -> Packet:
    return Packet(address(to), protocol, port, address(hosts.pod), "pod0")


def from_outside(hosts: Hosts, to: str, port: int = 80, protocol: int = Protocol.TCP) -> Packet:
    return Packet(address(to), protocol, port, address(hosts.outside), "eth0")


def from_process(to: str, port: int = 80, protocol: int = Protocol.TCP) -> Packet:
    return Packet(address(to), protocol, port)


def answers(found: Trace) -> dict[str, SourceSeen]:
    """Return who answers and what they see as the source; a connection that fails at times is no answer."""
    assert found.outcome is Outcome.ANSWERED, lines(found)
    return {format_address(each.address): each.source for each in found.answers}


def lines(found: Trace) -> list[str]:
    return [str(step) for step in found.steps]


@for_both_families
class TestClusterIP:
    def test_a_pod_reaches_all_endpoints_with_its_own_address(self, hosts: Hosts) -> None:
        planned = cluster_ip(hosts, real_server(hosts.neighbour), real_server(hosts.remote, 9090))
        found = trace(from_pod(hosts, hosts.cluster_ip), state(hosts, planned))
        assert found.outcome is Outcome.ANSWERED
        assert set(found.answers) == {
            Answer(address(hosts.neighbour), 8080, CLIENT),
            Answer(address(hosts.remote), 9090, CLIENT),
        }

    def test_a_client_from_outside_the_clusters_pods_is_masqueraded(self, hosts: Hosts) -> None:
        planned = cluster_ip(hosts, real_server(hosts.pod), real_server(hosts.remote))
        found = trace(from_outside(hosts, hosts.cluster_ip), state(hosts, planned))
        assert answers(found) == {hosts.pod: MASQUERADED, hosts.remote: MASQUERADED}

    def test_a_process_of_the_node_has_the_service_address_for_its_source_and_is_masqueraded(
        self, hosts: Hosts
    ) -> None:
        planned = cluster_ip(hosts, real_server(hosts.pod), real_server(hosts.remote))
        for settings in (POD_NETWORKS, FirewallSettings()):
            found = trace(from_process(hosts.cluster_ip), state(hosts, planned, settings=settings))
            assert found.source == address(hosts.cluster_ip)
            assert answers(found) == {hosts.pod: MASQUERADED, hosts.remote: MASQUERADED}

    def test_a_pod_that_gets_itself_is_masqueraded_and_only_then(self, hosts: Hosts) -> None:
        planned = cluster_ip(hosts, real_server(hosts.pod), real_server(hosts.neighbour))
        found = trace(from_pod(hosts, hosts.cluster_ip), state(hosts, planned))
        assert answers(found) == {hosts.pod: MASQUERADED, hosts.neighbour: CLIENT}

    def test_an_endpoint_on_the_nodes_own_network_sees_clients_as_they_are_but_for_processes(
        self, hosts: Hosts
    ) -> None:
        found_by = state(hosts, cluster_ip(hosts, real_server(hosts.node)))
        for packet in (from_outside(hosts, hosts.cluster_ip), from_pod(hosts, hosts.cluster_ip)):
            assert answers(trace(packet, found_by)) == {hosts.node: CLIENT}
        assert answers(trace(from_process(hosts.cluster_ip), found_by)) == {hosts.node: MASQUERADED}

    def test_a_draining_endpoint_gets_no_connection(self, hosts: Hosts) -> None:
        planned = cluster_ip(hosts, real_server(hosts.pod, weight=0), real_server(hosts.remote))
        found = trace(from_outside(hosts, hosts.cluster_ip), state(hosts, planned))
        assert answers(found) == {hosts.remote: MASQUERADED}

    def test_while_all_endpoints_drain_ipvs_refuses(self, hosts: Hosts) -> None:
        found_by = state(hosts, cluster_ip(hosts, real_server(hosts.pod, weight=0)))
        for packet in (from_outside(hosts, hosts.cluster_ip), from_process(hosts.cluster_ip)):
            found = trace(packet, found_by)
            assert (found.outcome, found.answers) == (Outcome.REFUSED, ())
            assert found.steps[-1].reason is KernelReason.NO_REAL_SERVERS

    def test_without_endpoints_everybody_is_refused_by_a_rule(self, hosts: Hosts) -> None:
        found_by = state(hosts, cluster_ip(hosts))
        for packet in (
            from_pod(hosts, hosts.cluster_ip),
            from_outside(hosts, hosts.cluster_ip),
            from_process(hosts.cluster_ip),
        ):
            found = trace(packet, found_by)
            assert (found.outcome, found.answers) == (Outcome.REFUSED, ())
            assert found.steps[-1].effect == "refused with a TCP reset"

    @pytest.mark.parametrize("protocol", [Protocol.UDP, Protocol.SCTP])
    def test_udp_and_sctp_go_the_way_of_tcp(self, hosts: Hosts, protocol: Protocol) -> None:
        found_by = state(hosts, cluster_ip(hosts, real_server(hosts.pod), protocol=protocol))
        found = trace(from_pod(hosts, hosts.cluster_ip, protocol=protocol), found_by)
        assert answers(found) == {hosts.pod: MASQUERADED}
        assert trace(from_pod(hosts, hosts.cluster_ip), found_by).outcome is Outcome.REFUSED

    def test_the_nodes_own_ports_are_refused_on_it_but_pings_are_answered(self, hosts: Hosts) -> None:
        ssh = (Protocol.TCP, 22)
        found_by = state(hosts, cluster_ip(hosts, real_server(hosts.pod)), listening=[ssh])
        for port, protocol, outcome in ((22, Protocol.TCP, Outcome.REFUSED), (0, hosts.ping, Outcome.NODE)):
            for packet in (
                from_pod(hosts, hosts.cluster_ip, port, protocol),
                from_outside(hosts, hosts.cluster_ip, port, protocol),
                from_process(hosts.cluster_ip, port, protocol),
            ):
                assert trace(packet, found_by).outcome is outcome

    def test_all_traffic_is_masqueraded_on_request(self, hosts: Hosts) -> None:
        settings = POD_NETWORKS._replace(masquerade_all=True)
        found_by = state(hosts, cluster_ip(hosts, real_server(hosts.remote)), settings=settings)
        assert answers(trace(from_pod(hosts, hosts.cluster_ip), found_by)) == {hosts.remote: MASQUERADED}

    def test_pods_may_be_known_by_their_interfaces(self, hosts: Hosts) -> None:
        settings = FirewallSettings(PodInterfaces("pod*"))
        found_by = state(hosts, cluster_ip(hosts, real_server(hosts.remote)), settings=settings)
        assert answers(trace(from_pod(hosts, hosts.cluster_ip), found_by)) == {hosts.remote: CLIENT}
        assert answers(trace(from_outside(hosts, hosts.cluster_ip), found_by)) == {hosts.remote: MASQUERADED}


@for_both_families
class TestLoadBalancer:
    def test_under_the_policy_cluster_outside_clients_reach_all_endpoints_masqueraded(
        self, hosts: Hosts
    ) -> None:
        planned = balancer(hosts, TrafficPolicy.CLUSTER, hosts.pod, hosts.remote)
        found = trace(from_outside(hosts, hosts.balancer_ip), state(hosts, planned))
        assert answers(found) == {hosts.pod: MASQUERADED, hosts.remote: MASQUERADED}

    def test_under_the_policy_local_outside_clients_reach_local_endpoints_with_their_own_address(
        self, hosts: Hosts
    ) -> None:
        found = trace(from_outside(hosts, hosts.balancer_ip), local_balancer(hosts, hosts.pod))
        assert answers(found) == {hosts.pod: CLIENT}

    def test_under_the_policy_local_clients_of_the_cluster_have_what_the_cluster_ip_has(
        self, hosts: Hosts
    ) -> None:
        for here in ((), (hosts.pod,)):
            found_by = local_balancer(hosts, *here)
            found = trace(from_pod(hosts, hosts.balancer_ip), found_by)
            assert answers(found) == {hosts.neighbour: CLIENT, hosts.remote: CLIENT}
            found = trace(from_process(hosts.balancer_ip), found_by)
            assert found.source == address(hosts.balancer_ip)
            assert answers(found) == {hosts.neighbour: MASQUERADED, hosts.remote: MASQUERADED}

    def test_under_the_policy_local_without_endpoints_here_outside_clients_are_dropped(
        self, hosts: Hosts
    ) -> None:
        found = trace(from_outside(hosts, hosts.balancer_ip), local_balancer(hosts))
        assert (found.outcome, found.answers) == (Outcome.DROPPED, ())

    def test_without_endpoints_anywhere_everybody_is_refused(self, hosts: Hosts) -> None:
        found_by = state(hosts, balancer(hosts, TrafficPolicy.LOCAL), cluster_ip(hosts))
        for packet in (
            from_outside(hosts, hosts.balancer_ip),
            from_pod(hosts, hosts.balancer_ip),
            from_process(hosts.balancer_ip),
        ):
            assert trace(packet, found_by).outcome is Outcome.REFUSED

    def test_only_sources_in_its_ranges_may_use_it(self, hosts: Hosts) -> None:
        for source, outcome in ((hosts.outside, Outcome.ANSWERED), (hosts.remote, Outcome.DROPPED)):
            sources = f"{source}/{24 if hosts is IPV4 else 64}"
            planned = balancer(hosts, TrafficPolicy.CLUSTER, hosts.pod, sources=sources)
            found_by = state(hosts, planned)
            assert trace(from_outside(hosts, hosts.balancer_ip), found_by).outcome is outcome
            assert trace(from_process(hosts.balancer_ip), found_by).outcome is Outcome.DROPPED


def local_balancer(hosts: Hosts, *here: str) -> TracedState:
    """Return the state with a load balancer's address, with these endpoints, and a ClusterIP, with other two."""
    return state(
        hosts,
        balancer(hosts, TrafficPolicy.LOCAL, *here, only_remote=not here),
        cluster_ip(hosts, real_server(hosts.neighbour), real_server(hosts.remote)),
    )


@for_both_families
class TestNodePort:
    def test_under_the_policy_cluster_all_endpoints_answer_masqueraded(self, hosts: Hosts) -> None:
        found_by = state(hosts, node_port(hosts, TrafficPolicy.CLUSTER, hosts.pod, hosts.remote))
        for packet in (from_outside(hosts, hosts.node, 30080), from_process(hosts.node, 30080)):
            found = trace(packet, found_by)
            assert answers(found) == {hosts.pod: MASQUERADED, hosts.remote: MASQUERADED}

    def test_under_the_policy_local_outside_clients_keep_their_address(self, hosts: Hosts) -> None:
        found_by = state(hosts, node_port(hosts, TrafficPolicy.LOCAL, hosts.pod))
        assert answers(trace(from_outside(hosts, hosts.node, 30080), found_by)) == {hosts.pod: CLIENT}

    def test_under_the_policy_local_without_endpoints_here_outside_clients_are_dropped(
        self, hosts: Hosts
    ) -> None:
        found_by = state(hosts, node_port(hosts, TrafficPolicy.LOCAL, only_remote=True))
        assert trace(from_outside(hosts, hosts.node, 30080), found_by).outcome is Outcome.DROPPED

    def test_the_nodes_own_ports_stay_what_they_are(self, hosts: Hosts) -> None:
        ssh = (Protocol.TCP, 22)
        found_by = state(hosts, node_port(hosts, TrafficPolicy.CLUSTER, hosts.pod), listening=[ssh])
        for port, outcome in ((22, Outcome.NODE), (23, Outcome.REFUSED)):
            assert trace(from_outside(hosts, hosts.node, port), found_by).outcome is outcome
            assert trace(from_process(hosts.node, port), found_by).outcome is outcome
        ping = from_outside(hosts, hosts.node, 0, hosts.ping)
        assert trace(ping, found_by).outcome is Outcome.NODE


@for_both_families
def test_other_hosts_addresses_are_none_of_ours(hosts: Hosts) -> None:
    found_by = state(hosts, cluster_ip(hosts, real_server(hosts.pod)))
    assert trace(from_pod(hosts, hosts.outside), found_by).outcome is Outcome.NOT_OURS
    found = trace(from_process(hosts.outside), found_by)
    assert (found.outcome, found.source) == (Outcome.NOT_OURS, address(hosts.node))


def test_a_process_can_not_send_in_a_family_that_the_node_has_no_address_of() -> None:
    found = trace(from_process(IPV6.outside), state(IPV4)._replace(own=addresses(IPV4.node, "::1")))
    assert (found.outcome, found.source) == (Outcome.NOT_OURS, None)
    assert [step.reason for step in found.steps] == [KernelReason.NO_SOURCE]


def test_a_packet_that_can_not_be_is_refused() -> None:
    with pytest.raises(ValueError, match="has a source"):
        Packet(address("10.96.0.1"), Protocol.TCP, 80, None, "eth0")
    with pytest.raises(ValueError, match="one family"):
        Packet(address("10.96.0.1"), Protocol.TCP, 80, address("::1"))


def test_every_step_says_where_why_and_what() -> None:
    found = trace(from_outside(IPV4, "10.96.0.1"), state(IPV4, cluster_ip(IPV4, real_server(IPV4.remote))))
    assert lines(found) == [
        (
            "prerouting, chain prerouting: masquerade sources outside the cluster's pods"
            " (element 10.96.0.1 . tcp . 80 of set service-ports-ipv4): marked (bit 14)"
        ),
        (
            "prerouting, chain destinations: service traffic is not for others' destination NAT"
            " (element 10.96.0.1 of set service-addresses-ipv4): the destination stays"
        ),
        "routing: the destination is bound on the dummy interface: for the node",
        (
            "input, chain input: service addresses have a chain of their own"
            " (element 10.96.0.1 of set service-addresses-ipv4): goes on in chain to-service-address"
        ),
        (
            "input, chain to-service-address: service ports are for IPVS"
            " (element 10.96.0.1 . tcp . 80 of set service-ports-ipv4): accepted"
        ),
        (
            "IPVS: the virtual server has a real server with a weight above 0"
            " (virtual server 10.96.0.1:80/tcp): the destination becomes 10.244.2.2:8080"
        ),
        "postrouting, chain masquerading: masquerade what is marked: the source becomes an address of the node",
        "postrouting, chain unmarking: the mark has served: mark cleared (bit 14)",
    ]


def test_the_steps_after_ipvs_say_which_real_server_they_are_about() -> None:
    servers = real_server(IPV4.pod), real_server(IPV4.remote)
    found = trace(from_pod(IPV4, "10.96.0.1"), state(IPV4, cluster_ip(IPV4, *servers)))
    masquerading = [step for step in found.steps if step.chain == "masquerading"]
    assert [step.real_server for step in masquerading] == [real_server(IPV4.pod)]
    assert "unmarking" not in {step.chain for step in found.steps}
    assert [step.real_server for step in found.steps if step.stage == "IPVS"] == list(servers)
    assert {step.real_server for step in found.steps if step.stage == "input"} == {None}


@for_both_families
def test_a_full_real_server_is_not_chosen_and_without_another_one_clients_are_refused(hosts: Hosts) -> None:
    servers = real_server(hosts.neighbour), real_server(hosts.remote)
    planned = cluster_ip(hosts, *servers)
    key_, everybody = planned.virtual_server.key, state(hosts, planned)
    one = trace(from_pod(hosts, hosts.cluster_ip), everybody._replace(full={(key_, servers[0])}))
    assert [answer.address for answer in one.answers] == [address(hosts.remote)]
    assert one.outcome is Outcome.ANSWERED
    full = {(key_, server) for server in servers}
    nobody = trace(from_pod(hosts, hosts.cluster_ip), everybody._replace(full=full))
    assert (nobody.outcome, nobody.answers) == (Outcome.REFUSED, ())
    assert nobody.steps[-1].reason == KernelReason.FULL


@for_both_families
@pytest.mark.parametrize(
    ("reason", "outcome"),
    [(KernelReason.NO_ROUTE, Outcome.REFUSED), (KernelReason.LINK_DOWN, Outcome.DROPPED)],
)
def test_a_real_server_that_the_node_has_no_way_to_does_not_answer(
    hosts: Hosts, reason: KernelReason, outcome: Outcome
) -> None:
    servers = map(real_server, (hosts.pod, hosts.remote))
    found_by = state(hosts, cluster_ip(hosts, *servers))._replace(unreached={address(hosts.remote): reason})
    for source, interface in ((address(hosts.neighbour), "veth0"), (None, None)):
        packet = Packet(address(hosts.cluster_ip), Protocol.TCP, 80, source, interface)
        traced = trace(packet, found_by)
        assert (traced.outcome, [answer.address for answer in traced.answers]) == (
            outcome,
            [address(hosts.pod)],
        )
        assert traced.steps[-1].reason == reason
