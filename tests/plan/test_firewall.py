"""What the rules do with packets, and where they stand between conntrack, IPVS and the host's own firewall."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipvsproxy.model.addresses import family, parse_network
from ipvsproxy.model.firewall import FirewallSet
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.firewall import ICMP, ICMPV6, FirewallSettings, PodInterfaces, PodNetworks, ruleset
from ipvsproxy.plan.rules import ArrivesBy, ConnectionState, GoTo, Verdict
from ipvsproxy.plan.source_ranges import NOBODY
from tests.builders import address, key, source_list
from tests.plan.rule_walker import Packet, Passage, pass_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.model.firewall import ElementFields
    from ipvsproxy.plan.rules import Rule
    from tests.plan.rule_walker import Elements

GRE = 47
BIT_14 = 0x4000
LONGEST_COMMENT = 127  # NFTNL_UDATA_COMMENT_MAXLEN, less the zero at its end


def of_networks(*networks: str) -> FirewallSettings:
    return FirewallSettings(PodNetworks(tuple(map(parse_network, networks))))


NETWORKS = of_networks("10.244.0.0/16", "fd00:244::/56")
INTERFACES = FirewallSettings(PodInterfaces("cali*"))
UNKNOWN_PODS = FirewallSettings()
ALL_SETTINGS = [
    settings._replace(masquerade_all=masquerade_all)
    for settings in (NETWORKS, INTERFACES, UNKNOWN_PODS)
    for masquerade_all in (False, True)
]


class Hosts(NamedTuple):
    """Addresses of one family, and how clients know them.

    `service` is a ClusterIP; `local` and `cluster` are load balancers' addresses, under externalTrafficPolicy Local and
    Cluster, and `restricted` is one under Cluster that only `outside` may use, of those outside the cluster. `pod` is
    an endpoint of this node.
    """

    service: str
    local: str
    cluster: str
    restricted: str
    pod: str
    outside: str
    elsewhere: str
    node: str


IPV4 = Hosts(
    service="10.96.0.1",
    local="203.0.113.1",
    cluster="203.0.113.2",
    restricted="203.0.113.3",
    pod="10.244.1.2",
    outside="192.0.2.1",
    elsewhere="192.0.2.129",
    node="198.51.100.1",
)
IPV6 = Hosts(
    service="fd00:96::1",
    local="2001:db8:1::1",
    cluster="2001:db8:1::2",
    restricted="2001:db8:1::3",
    pod="fd00:244::2",
    outside="2001:db8::1",
    elsewhere="2001:db8:2::1",
    node="2001:db8:64::1",
)

# NF_INET_LOCAL_IN in net/netfilter/ipvs/ip_vs_core.c.
IPVS_AT_INPUT = 99

# A port that the agent itself answers at.
AGENTS = 10256

# Service ports without endpoints, without any of this node, and of a Service that lets no source in.
NOBODYS, OTHERS, CLOSED = 81, 82, 83
NODE_PORT, LOCAL_NODE_PORT, NOBODYS_NODE_PORT, OTHERS_NODE_PORT, TURNED_NODE_PORT = range(30000, 30005)


def elements_of(hosts: Hosts) -> dict[FirewallSet, set[ElementFields]]:
    service, local, cluster, restricted, pod, *_, node = hosts
    others = {key(local, OTHERS), key(node, OTHERS_NODE_PORT)}
    local_ports = others | {key(local), key(local, CLOSED)}
    local_ports |= {key(node, LOCAL_NODE_PORT), key(node, TURNED_NODE_PORT)}
    without_endpoints = {key(service, NOBODYS), key(node, NOBODYS_NODE_PORT)}
    masqueraded = {key(cluster), key(restricted), key(node, NODE_PORT), key(node, NOBODYS_NODE_PORT)}
    sources = source_list(SOURCES[hosts], of=family(address(node)), admits_node=True)
    internal = {key(service), key(service, OTHERS), key(service, 53, Protocol.UDP)}
    return {
        FirewallSet.SERVICE_ADDRESSES: {(address(each),) for each in (service, local, cluster, restricted)},
        FirewallSet.SERVICE_PORTS: {*internal, *without_endpoints, *local_ports, *masqueraded},
        FirewallSet.PORTS_WITHOUT_ENDPOINTS: {*without_endpoints},
        FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS: {*others},
        FirewallSet.MASQUERADED_PORTS: {*masqueraded},
        FirewallSet.LOCAL_PORTS: {*local_ports},
        FirewallSet.KEPT_PORTS: {*local_ports, *masqueraded},
        FirewallSet.RESTRICTED_PORTS: {
            (*key(restricted), sources.name),
            (*key(local, CLOSED), NOBODY[sources.family].name),
        },
        FirewallSet.SOURCE_LISTS: {(sources,), (NOBODY[sources.family],)},
        FirewallSet.IN_CLUSTER_DESTINATIONS: {
            (*key(local, port), address(service), port) for port in (80, NOBODYS, OTHERS, CLOSED)
        },
        FirewallSet.OUTSIDE_DESTINATIONS: {(*key(node, TURNED_NODE_PORT), address(service), 80)},
        FirewallSet.AGENT_PORTS: {(Protocol.TCP, AGENTS)},
        FirewallSet.LOCAL_ENDPOINTS: {(address(each), address(each)) for each in (pod, node)},
    }


SOURCES = {IPV4: "192.0.2.0/25", IPV6: "2001:db8::/64"}
OF_IPV4, OF_IPV6 = elements_of(IPV4), elements_of(IPV6)
ELEMENTS: Elements = {each: OF_IPV4[each] | OF_IPV6[each] for each in FirewallSet}


def at(hook: str, packet: Packet, settings: FirewallSettings = NETWORKS) -> Passage:
    return pass_hook(hook, packet, ruleset(settings), ELEMENTS)


def marked(hook: str, packet: Packet, settings: FirewallSettings = NETWORKS) -> bool:
    """Say whether the packet leaves the hook to be masqueraded; it must not be dropped there."""
    verdict, mark, _ = at(hook, packet, settings)
    assert verdict is None
    assert mark in {0, BIT_14}
    return mark == BIT_14


REFUSALS = {
    (ConnectionState.UNTRACKED, Protocol.TCP): Verdict.REJECT_WITH_RESET,
    **{(ConnectionState.INVALID, protocol): Verdict.DROP for protocol in (*Protocol, GRE)},
}
UNKNOWN = (ConnectionState.UNTRACKED, ConnectionState.INVALID)

for_both_families = pytest.mark.parametrize("hosts", [IPV4, IPV6], ids=["ipv4", "ipv6"])
for_both_hooks = pytest.mark.parametrize("hook", ["prerouting", "output"])


@for_both_families
class TestMarking:
    @for_both_hooks
    def test_traffic_from_outside_the_pods_networks_is_masqueraded(self, hosts: Hosts, hook: str) -> None:
        assert marked(hook, Packet(hosts.outside, hosts.service))
        assert marked(hook, Packet(hosts.node, hosts.service, 53, Protocol.UDP))
        assert not marked(hook, Packet(hosts.pod, hosts.service))

    def test_traffic_that_does_not_arrive_by_the_pods_interfaces_is_masqueraded(self, hosts: Hosts) -> None:
        bridge = FirewallSettings(PodInterfaces("cni0"))
        for settings, interface, is_of_pods in (
            (INTERFACES, "cali0123456789a", True),
            (INTERFACES, "eth0", False),
            (bridge, "cni0", True),
            (bridge, "cni01", False),
        ):
            packet = Packet(hosts.pod, hosts.service, arrives_by=interface)
            assert marked("prerouting", packet, settings) is not is_of_pods

    def test_a_process_of_the_node_comes_by_no_interface_of_pods(self, hosts: Hosts) -> None:
        assert marked("output", Packet(hosts.node, hosts.service, arrives_by=""), INTERFACES)

    def test_a_process_of_the_node_that_is_sent_to_a_cluster_ip_is_masqueraded(self, hosts: Hosts) -> None:
        for settings in ALL_SETTINGS:
            for source in (hosts.node, hosts.local):
                assert marked("output", Packet(source, hosts.local), settings)

    @pytest.mark.parametrize("settings", [UNKNOWN_PODS, INTERFACES, NETWORKS])
    @for_both_hooks
    def test_under_external_traffic_policy_cluster_every_client_is_masqueraded(
        self, hosts: Hosts, hook: str, settings: FirewallSettings
    ) -> None:
        for source in (hosts.outside, hosts.pod, hosts.node):
            assert marked(hook, Packet(source, hosts.cluster, arrives_by="cali1"), settings)
            assert marked(hook, Packet(source, hosts.node, NODE_PORT), settings)

    @pytest.mark.parametrize("settings", ALL_SETTINGS)
    def test_under_external_traffic_policy_local_outside_clients_keep_their_address(
        self, hosts: Hosts, settings: FirewallSettings
    ) -> None:
        assert not marked("prerouting", Packet(hosts.outside, hosts.local), settings)
        assert not marked("prerouting", Packet(hosts.outside, hosts.node, LOCAL_NODE_PORT), settings)

    def test_where_traffic_comes_from_does_not_matter_if_pods_are_not_known(self, hosts: Hosts) -> None:
        assert not marked("prerouting", Packet(hosts.outside, hosts.service), UNKNOWN_PODS)
        assert not marked("prerouting", Packet(hosts.pod, hosts.service), UNKNOWN_PODS)
        assert not marked("output", Packet(hosts.node, hosts.service), UNKNOWN_PODS)

    @pytest.mark.parametrize("settings", ALL_SETTINGS[1::2])
    def test_all_traffic_to_cluster_ips_is_masqueraded_on_request(
        self, hosts: Hosts, settings: FirewallSettings
    ) -> None:
        assert marked("prerouting", Packet(hosts.pod, hosts.service, arrives_by="cali1"), settings)
        assert marked("prerouting", Packet(hosts.outside, hosts.service), settings)
        assert marked("output", Packet(hosts.node, hosts.service, arrives_by=""), settings)
        assert not marked("prerouting", Packet(hosts.outside, hosts.pod), settings)

    @pytest.mark.parametrize("settings", ALL_SETTINGS[1::2])
    def test_pods_that_use_a_port_of_the_policy_local_keep_their_address_all_the_same(
        self, hosts: Hosts, settings: FirewallSettings
    ) -> None:
        assert not marked("prerouting", Packet(hosts.pod, hosts.local, arrives_by="cali1"), settings)

    @pytest.mark.parametrize("settings", ALL_SETTINGS)
    def test_a_process_of_the_node_that_has_a_service_address_for_its_source_is_masqueraded(
        self, hosts: Hosts, settings: FirewallSettings
    ) -> None:
        assert marked("output", Packet(hosts.service, hosts.service), settings)
        assert marked("output", Packet(hosts.local, hosts.local), settings)
        assert marked("output", Packet(hosts.service, hosts.outside), settings)
        assert not marked("output", Packet(hosts.node, hosts.pod), settings)

    @for_both_hooks
    def test_traffic_to_anything_but_service_ports_is_none_of_ours(self, hosts: Hosts, hook: str) -> None:
        assert not marked(hook, Packet(hosts.outside, hosts.service, 99))
        assert not marked(hook, Packet(hosts.outside, hosts.service, 80, Protocol.UDP))
        assert not marked(hook, Packet(hosts.outside, hosts.pod))
        assert not marked(hook, Packet(hosts.outside, hosts.node))

    def test_what_follows_the_first_packet_is_not_marked(self, hosts: Hosts) -> None:
        assert not marked(
            "prerouting", Packet(hosts.outside, hosts.service, state=ConnectionState.ESTABLISHED)
        )
        assert not marked(
            "prerouting", Packet(hosts.outside, hosts.cluster, state=ConnectionState.ESTABLISHED)
        )
        assert not marked("output", Packet(hosts.service, hosts.node, state=ConnectionState.ESTABLISHED))

    def test_a_packet_that_ipvs_has_rewritten_is_left_as_it_is(self, hosts: Hosts) -> None:
        assert not marked("output", Packet(hosts.outside, hosts.pod, 8080))
        assert marked("output", Packet(hosts.service, hosts.pod, 8080, mark=BIT_14))


def test_several_networks_of_pods_of_a_family_are_one_inside() -> None:
    settings = of_networks("10.244.0.0/16", "10.1.0.0/16")
    assert not marked("prerouting", Packet("10.244.0.1", IPV4.service), settings)
    assert not marked("prerouting", Packet("10.1.0.1", IPV4.service), settings)
    assert marked("prerouting", Packet("10.2.0.1", IPV4.service), settings)
    for source, redirected_to in (
        ("10.244.0.1", IPV4.service),
        ("10.1.0.1", IPV4.service),
        ("10.2.0.1", None),
    ):
        assert at("prerouting", Packet(source, IPV4.local), settings).redirected_to == redirected_to


def test_a_family_without_networks_of_pods_knows_no_origin() -> None:
    settings = of_networks("10.244.0.0/16")
    assert marked("prerouting", Packet(IPV4.outside, IPV4.service), settings)
    assert not marked("prerouting", Packet(IPV6.outside, IPV6.service), settings)
    assert at("prerouting", Packet(IPV4.pod, IPV4.local), settings).redirected_to == IPV4.service
    assert at("prerouting", Packet(IPV6.pod, IPV6.local), settings).redirected_to is None


@for_both_families
class TestSourceRanges:
    @for_both_hooks
    def test_other_sources_are_dropped(self, hosts: Hosts, hook: str) -> None:
        for source in (hosts.elsewhere, hosts.pod, hosts.node):
            assert at(hook, Packet(source, hosts.restricted)).verdict is Verdict.DROP

    @for_both_hooks
    def test_sources_in_a_range_go_on_and_are_masqueraded_as_ever(self, hosts: Hosts, hook: str) -> None:
        assert marked(hook, Packet(hosts.outside, hosts.restricted))
        # So says the element for the address itself: a process of the node has that as its source.
        assert marked(hook, Packet(hosts.restricted, hosts.restricted))

    @for_both_hooks
    def test_the_port_that_a_client_asked_for_decides_and_not_the_cluster_ip(
        self, hosts: Hosts, hook: str
    ) -> None:
        for source in (hosts.pod, hosts.local):
            assert at(hook, Packet(source, hosts.local, CLOSED)).verdict is Verdict.DROP

    @for_both_hooks
    def test_other_ports_and_protocols_are_open(self, hosts: Hosts, hook: str) -> None:
        assert at(hook, Packet(hosts.elsewhere, hosts.cluster)).verdict is None
        assert at(hook, Packet(hosts.elsewhere, hosts.restricted, 81)).verdict is None
        assert at(hook, Packet(hosts.elsewhere, hosts.restricted, 80, Protocol.UDP)).verdict is None

    @for_both_hooks
    def test_a_connection_that_was_let_in_goes_on(self, hosts: Hosts, hook: str) -> None:
        assert at(
            hook, Packet(hosts.elsewhere, hosts.restricted, state=ConnectionState.ESTABLISHED)
        ) == Passage(None, 0)


@for_both_families
class TestRedirecting:
    def test_pods_and_processes_are_sent_to_the_cluster_ip(self, hosts: Hosts) -> None:
        assert at("prerouting", Packet(hosts.pod, hosts.local)) == Passage(None, 0, hosts.service)
        by_interface = Packet(hosts.outside, hosts.local, arrives_by="cali1")
        assert at("prerouting", by_interface, INTERFACES) == Passage(None, 0, hosts.service)
        for settings in ALL_SETTINGS:
            process = Packet(hosts.local, hosts.local, arrives_by="")
            assert at("output", process, settings) == Passage(None, BIT_14, hosts.service)

    def test_clients_outside_are_sent_there_where_the_roles_are_turned_round(self, hosts: Hosts) -> None:
        for settings, packet in (
            (NETWORKS, Packet(hosts.outside, hosts.node, TURNED_NODE_PORT)),
            (INTERFACES, Packet(hosts.pod, hosts.node, TURNED_NODE_PORT, arrives_by="eth0")),
            (UNKNOWN_PODS, Packet(hosts.pod, hosts.node, TURNED_NODE_PORT)),
        ):
            assert at("prerouting", packet, settings) == Passage(None, 0, hosts.service)
        pod = Packet(hosts.pod, hosts.node, TURNED_NODE_PORT)
        assert at("prerouting", pod) == Passage(None, 0)
        by_interface = Packet(hosts.outside, hosts.node, TURNED_NODE_PORT, arrives_by="cali1")
        assert at("prerouting", by_interface, INTERFACES) == Passage(None, 0)
        for settings in ALL_SETTINGS:
            process = Packet(hosts.node, hosts.node, TURNED_NODE_PORT, arrives_by="")
            assert at("output", process, settings) == Passage(None, BIT_14)

    def test_outside_clients_are_not(self, hosts: Hosts) -> None:
        assert at("prerouting", Packet(hosts.outside, hosts.local)) == Passage(None, 0)
        by_interface = Packet(hosts.pod, hosts.local, arrives_by="eth0")
        assert at("prerouting", by_interface, INTERFACES) == Passage(None, 0)

    def test_nobody_is_whose_kind_is_not_known(self, hosts: Hosts) -> None:
        for source in (hosts.pod, hosts.outside):
            assert at("prerouting", Packet(source, hosts.local), UNKNOWN_PODS) == Passage(None, 0)

    @for_both_hooks
    def test_other_ports_stay_where_they_are(self, hosts: Hosts, hook: str) -> None:
        for packet in (
            Packet(hosts.pod, hosts.cluster),
            Packet(hosts.pod, hosts.local, 80, Protocol.UDP),
            Packet(hosts.pod, hosts.node, LOCAL_NODE_PORT),
        ):
            assert at(hook, packet).redirected_to is None

    def test_what_the_cluster_ip_has_decides_for_processes_of_the_node(self, hosts: Hosts) -> None:
        assert at("output", Packet(hosts.local, hosts.local, OTHERS)).verdict is None
        assert at("output", Packet(hosts.local, hosts.local, NOBODYS)).verdict is Verdict.REJECT_WITH_RESET


@for_both_families
class TestMasquerading:
    def test_what_is_marked_is_masqueraded_and_loses_the_mark(self, hosts: Hosts) -> None:
        for source in (hosts.outside, hosts.node):
            packet = Packet(source, hosts.pod, 8080, mark=BIT_14 | 0x1)
            assert at("postrouting", packet) == Passage(Verdict.MASQUERADE, 0x1)

    def test_an_endpoint_that_reaches_itself_is_masqueraded(self, hosts: Hosts) -> None:
        assert at("postrouting", Packet(hosts.pod, hosts.pod, 8080)) == Passage(Verdict.MASQUERADE, 0)
        assert at("postrouting", Packet(hosts.pod, hosts.service)) == Passage(None, 0)
        assert at("postrouting", Packet(hosts.outside, hosts.node)) == Passage(None, 0)

    def test_no_other_traffic_is_touched(self, hosts: Hosts) -> None:
        for packet in (
            Packet(hosts.pod, hosts.outside),
            Packet(hosts.outside, hosts.pod),
            Packet(hosts.service, hosts.node),
        ):
            assert at("postrouting", packet) == Passage(None, 0)

    def test_the_mark_is_cleared_on_packets_that_the_nat_chain_does_not_see(self, hosts: Hosts) -> None:
        (unmarking,) = (chain for chain in ruleset(NETWORKS) if chain.name == "unmarking")
        for state in ConnectionState:
            packet = Packet(hosts.outside, hosts.pod, mark=0xFFFFFFFF, state=state)
            assert pass_hook("postrouting", packet, [unmarking], ELEMENTS) == Passage(
                None, 0xFFFFFFFF ^ BIT_14
            )


def test_a_node_that_talks_to_its_own_address_keeps_its_source_port() -> None:
    node = IPV4.node
    assert at("postrouting", Packet(node, node, 8080, leaves_by="lo")) == Passage(None, 0)
    assert at("postrouting", Packet(node, node, 8080)) == Passage(Verdict.MASQUERADE, 0)


def test_the_mark_is_the_bit_of_the_settings() -> None:
    settings = NETWORKS._replace(masquerade_bit=31)
    service, pod, outside = IPV4.service, IPV4.pod, IPV4.outside
    assert at("prerouting", Packet(outside, service, mark=BIT_14), settings).mark == 0x80000000 | BIT_14
    assert at("prerouting", Packet(outside, IPV4.cluster), settings).mark == 0x80000000
    assert at("output", Packet(service, service), settings).mark == 0x80000000
    assert at("postrouting", Packet(outside, pod, mark=0x80000000), settings) == Passage(
        Verdict.MASQUERADE, 0
    )
    assert at("postrouting", Packet(outside, pod, mark=BIT_14), settings) == Passage(None, BIT_14)


@for_both_families
class TestRefusing:
    def test_service_ports_are_left_to_ipvs(self, hosts: Hosts) -> None:
        for source in (hosts.pod, hosts.outside, hosts.node):
            assert at("input", Packet(source, hosts.service)) == Passage(None, 0)
            assert at("input", Packet(source, hosts.service, 53, Protocol.UDP)) == Passage(None, 0)

    def test_the_nodes_own_ports_are_closed_on_service_addresses(self, hosts: Hosts) -> None:
        for source in (hosts.pod, hosts.outside, hosts.node, hosts.service):
            assert at("input", Packet(source, hosts.service, 22)).verdict is Verdict.REJECT_WITH_RESET
            for protocol in (Protocol.UDP, Protocol.SCTP, GRE):
                assert (
                    at("input", Packet(source, hosts.service, 22, protocol)).verdict
                    is Verdict.REJECT_WITH_ICMP
                )

    def test_what_the_agent_answers_is_open_on_service_addresses(self, hosts: Hosts) -> None:
        for source in (hosts.pod, hosts.outside, hosts.node, hosts.service):
            for destination in (hosts.service, hosts.local):
                for state in ConnectionState:
                    packet = Packet(source, destination, AGENTS, state=state, arrives_by="lo")
                    assert at("input", packet) == Passage(None, 0)
            datagram = Packet(source, hosts.service, AGENTS, Protocol.UDP)
            assert at("input", datagram).verdict is Verdict.REJECT_WITH_ICMP

    def test_the_nodes_own_addresses_are_open(self, hosts: Hosts) -> None:
        for port in (22, 80):
            assert at("input", Packet(hosts.outside, hosts.node, port)) == Passage(None, 0)
            assert at("input", Packet(hosts.pod, hosts.node, port)) == Passage(None, 0)

    def test_service_addresses_answer_pings(self, hosts: Hosts) -> None:
        for protocol in (ICMP, ICMPV6):
            assert at("input", Packet(hosts.outside, hosts.service, 0, protocol)) == Passage(None, 0)
            assert at("input", Packet(hosts.pod, hosts.service, 0, protocol)) == Passage(None, 0)

    def test_ports_without_endpoints_are_refused_before_ipvs_sees_them(self, hosts: Hosts) -> None:
        for destination, port in ((hosts.service, NOBODYS), (hosts.node, NOBODYS_NODE_PORT)):
            for source in (hosts.outside, hosts.pod):
                packet = Packet(source, destination, port)
                assert at("input", packet).verdict is Verdict.REJECT_WITH_RESET
            for source in (hosts.service, hosts.node):
                packet = Packet(source, destination, port)
                assert at("output", packet).verdict is Verdict.REJECT_WITH_RESET

    def test_ports_that_only_other_nodes_serve_are_dropped_for_clients_outside(self, hosts: Hosts) -> None:
        for destination, port in ((hosts.local, OTHERS), (hosts.node, OTHERS_NODE_PORT)):
            for state in (ConnectionState.NEW, *UNKNOWN):
                packet = Packet(hosts.outside, destination, port, state=state)
                assert at("prerouting", packet).verdict is Verdict.DROP
            by_interface = Packet(hosts.pod, destination, port, arrives_by="eth0")
            assert at("prerouting", by_interface, INTERFACES).verdict is Verdict.DROP
            assert (
                at("prerouting", Packet(hosts.pod, destination, port), UNKNOWN_PODS).verdict is Verdict.DROP
            )

    def test_they_are_not_for_pods_and_processes_of_the_node(self, hosts: Hosts) -> None:
        for destination, port in ((hosts.local, OTHERS), (hosts.node, OTHERS_NODE_PORT)):
            assert at("prerouting", Packet(hosts.pod, destination, port)).verdict is None
            by_interface = Packet(hosts.outside, destination, port, arrives_by="cali1")
            assert at("prerouting", by_interface, INTERFACES).verdict is None
            for settings in ALL_SETTINGS:
                assert at("output", Packet(hosts.node, destination, port), settings).verdict is None

    def test_node_ports_are_left_to_ipvs(self, hosts: Hosts) -> None:
        for port in (NODE_PORT, LOCAL_NODE_PORT):
            assert at("input", Packet(hosts.outside, hosts.node, port)) == Passage(None, 0)

    def test_connections_that_are_known_go_on(self, hosts: Hosts) -> None:
        for hook in ("input", "output"):
            for packet in (
                Packet(hosts.outside, hosts.service, NOBODYS, state=ConnectionState.ESTABLISHED),
                Packet(hosts.outside, hosts.local, OTHERS, state=ConnectionState.ESTABLISHED),
                Packet(hosts.pod, hosts.service, 40000, state=ConnectionState.ESTABLISHED),
            ):
                assert at(hook, packet) == Passage(None, 0)
        # The reply to a process of the node that has a service address for its source.
        assert at(
            "input", Packet(hosts.node, hosts.service, 40000, state=ConnectionState.ESTABLISHED)
        ) == Passage(None, 0)


@pytest.mark.parametrize("state", UNKNOWN, ids=lambda state: state.name)
@for_both_families
class TestWithoutConntrack:
    """Packets that conntrack does not know: somebody's rule keeps them from it, or they fit no connection."""

    @for_both_hooks
    def test_sources_outside_the_ranges_are_dropped(
        self, hosts: Hosts, state: ConnectionState, hook: str
    ) -> None:
        assert at(hook, Packet(hosts.elsewhere, hosts.restricted, state=state)).verdict is Verdict.DROP
        assert at(hook, Packet(hosts.outside, hosts.restricted, state=state)).verdict is None

    def test_the_nodes_own_ports_are_closed_on_service_addresses(
        self, hosts: Hosts, state: ConnectionState
    ) -> None:
        for source in (hosts.pod, hosts.outside, hosts.node):
            for protocol in (*Protocol, GRE):
                packet = Packet(source, hosts.service, 22, protocol, state=state)
                assert at("input", packet).verdict is REFUSALS.get(
                    (state, protocol), Verdict.REJECT_WITH_ICMP
                )

    def test_the_guard_is_behind_ipvs_which_knows_the_connections(
        self, hosts: Hosts, state: ConnectionState
    ) -> None:
        before = [chain for chain in ruleset(NETWORKS) if chain.hook and chain.hook.priority < IPVS_AT_INPUT]
        before += [chain for chain in ruleset(NETWORKS) if not chain.hook]
        for port in (80, NOBODYS, OTHERS, 22):
            packet = Packet(hosts.outside, hosts.service, port, state=state)
            assert pass_hook("input", packet, before, ELEMENTS) == Passage(None, 0)

    def test_a_service_answers_a_process_of_the_node(self, hosts: Hosts, state: ConnectionState) -> None:
        answer = Packet(hosts.service, hosts.local, 40000, state=state, arrives_by="lo", source_port=80)
        assert at("input", answer) == Passage(None, 0)
        assert (
            at("input", dataclasses.replace(answer, source_port=22)).verdict is REFUSALS[state, Protocol.TCP]
        )

    def test_a_reset_is_not_answered_with_another_one(self, hosts: Hosts, state: ConnectionState) -> None:
        packet = Packet(hosts.pod, hosts.service, 40000, state=state, is_reset=True)
        assert at("input", packet) == Passage(None, 0)

    def test_nobody_else_sends_with_a_service_address_as_source(
        self, hosts: Hosts, state: ConnectionState
    ) -> None:
        packet = Packet(hosts.service, hosts.local, 22, state=state, source_port=80)
        assert at("input", packet).verdict is Verdict.DROP

    def test_service_addresses_answer_pings_and_hear_of_errors(
        self, hosts: Hosts, state: ConnectionState
    ) -> None:
        for protocol in (ICMP, ICMPV6):
            assert at("input", Packet(hosts.outside, hosts.service, 0, protocol, state=state)) == Passage(
                None, 0
            )


@pytest.mark.parametrize("settings", ALL_SETTINGS)
def test_rules_lead_only_to_chains_without_a_hook_that_come_before(settings: FirewallSettings) -> None:
    seen: set[str] = set()
    for chain in ruleset(settings):
        for rule in chain.rules:
            if isinstance(rule.statement, GoTo):
                assert rule.statement.chain in seen
        if not chain.hook:
            seen.add(chain.name)


@pytest.mark.parametrize("settings", ALL_SETTINGS)
def test_the_interface_that_a_packet_arrived_by_is_asked_for_where_it_is_known(
    settings: FirewallSettings,
) -> None:
    for chain in ruleset(settings):
        for rule in chain.rules:
            if any(isinstance(match, ArrivesBy) for match in rule.matches):
                assert chain.hook
                assert chain.hook.name in {"prerouting", "input"}


def rules() -> Iterator[Rule]:
    for settings in ALL_SETTINGS:
        for chain in ruleset(settings):
            yield from chain.rules


def test_every_duty_fits_into_a_comment_of_nft() -> None:
    for rule in rules():
        assert 0 < len(rule.duty.encode()) <= LONGEST_COMMENT
        assert '"' not in rule.duty
        assert "\\" not in rule.duty
