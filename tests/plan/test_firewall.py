"""What the rules do with packets, and where they stand between conntrack, IPVS and the host's own firewall."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, assert_never

import pytest

from ipvsproxy.model.addresses import family, parse_network
from ipvsproxy.model.firewall import FirewallSet
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.firewall import (
    ICMP,
    ICMPV6,
    ClearMark,
    ConnectionIsNew,
    Field,
    FieldsInSet,
    FirewallSettings,
    GoTo,
    Hook,
    LeavesByOtherThan,
    Marked,
    ProtocolIs,
    SetMark,
    SourceOutside,
    Verdict,
    ruleset,
)
from tests.builders import address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.plan.firewall import Chain, Match, Rule

GRE = 47
BIT_14 = 0x4000
LONGEST_COMMENT = 127  # NFTNL_UDATA_COMMENT_MAXLEN, less the zero at its end

CLUSTER_CIDRS = FirewallSettings((parse_network("10.244.0.0/16"), parse_network("fd00:244::/56")))
NO_CLUSTER_CIDR = FirewallSettings()
MASQUERADE_ALL = FirewallSettings(masquerade_all=True)

SERVICE, SERVICE6 = "10.96.0.1", "fd00:96::1"
POD, POD6 = "10.244.1.2", "fd00:244::2"
OUTSIDE, OUTSIDE6 = "192.0.2.1", "2001:db8::1"
NODE, NODE6 = "198.51.100.1", "2001:db8:64::1"

SETS: dict[FirewallSet, set[tuple[object, ...]]] = {
    FirewallSet.SERVICE_ADDRESSES: {(address(SERVICE),), (address(SERVICE6),)},
    FirewallSet.SERVICE_PORTS: {
        (address(each), protocol, port)
        for each in (SERVICE, SERVICE6)
        for protocol, port in ((Protocol.TCP, 80), (Protocol.UDP, 53), (Protocol.TCP, 81))
    },
    FirewallSet.PORTS_WITHOUT_ENDPOINTS: {(address(each), Protocol.TCP, 81) for each in (SERVICE, SERVICE6)},
    FirewallSet.LOCAL_ENDPOINTS: {(address(each), address(each)) for each in (POD, POD6, NODE)},
}


@dataclasses.dataclass(frozen=True)
class Packet:
    """A packet at one hook; `interface` is the one that it leaves by."""

    source: str
    destination: str
    port: int = 80
    protocol: int = Protocol.TCP
    new: bool = True
    mark: int = 0
    interface: str = "eth0"


class Passage(NamedTuple):
    """What became of a packet at a hook: the last word, None if no rule had one, and the mark that it left with."""

    verdict: Verdict | None
    mark: int


def holds(match: Match, packet: Packet) -> bool:
    source, destination = address(packet.source), address(packet.destination)
    match match:
        case ConnectionIsNew(new):
            return packet.new is new
        case FieldsInSet(of, fields, in_set):
            values = {
                Field.SOURCE: source,
                Field.DESTINATION: destination,
                Field.PROTOCOL: packet.protocol,
                Field.DESTINATION_PORT: packet.port,
            }
            return family(source) is of and tuple(values[field] for field in fields) in SETS[in_set]
        case SourceOutside(network):
            return family(source) is network.family and not network.contains(source)
        case ProtocolIs(number):
            return packet.protocol == number
        case Marked(bit):
            return bool(packet.mark >> bit & 1)
        case LeavesByOtherThan(interface):
            return packet.interface != interface
        case _:
            assert_never(match)


def walk(chain: Chain, chains: dict[str, Chain], packet: Packet) -> Passage:
    mark = packet.mark
    for rule in chain.rules:
        if not all(holds(match, dataclasses.replace(packet, mark=mark)) for match in rule.matches):
            continue
        match rule.statement:
            case Verdict.RETURN:
                return Passage(None, mark)
            case Verdict():
                return Passage(rule.statement, mark)
            case GoTo(name):
                return walk(chains[name], chains, dataclasses.replace(packet, mark=mark))
            case SetMark(bit):
                mark |= 1 << bit
            case ClearMark(bit):
                mark &= ~(1 << bit)
            case _:
                assert_never(rule.statement)
    return Passage(None, mark)


def at(hook: str, packet: Packet, settings: FirewallSettings = CLUSTER_CIDRS) -> Passage:
    """Lead a packet through the chains at a hook, in the order of their priorities, until one drops it."""
    chains = {chain.name: chain for chain in ruleset(settings)}
    masqueraded = None
    for chain in sorted((chain for chain in chains.values() if hook_of(chain).name == hook), key=priority):
        verdict, mark = walk(chain, chains, packet)
        packet = dataclasses.replace(packet, mark=mark)
        if verdict is Verdict.MASQUERADE:
            masqueraded = verdict
        elif verdict:
            return Passage(verdict, mark)
    return Passage(masqueraded, packet.mark)


def hook_of(chain: Chain) -> Hook:
    return chain.hook or Hook("", "", 0)


def priority(chain: Chain) -> int:
    return hook_of(chain).priority


def marked(hook: str, packet: Packet, settings: FirewallSettings = CLUSTER_CIDRS) -> bool:
    """Say whether the packet leaves the hook to be masqueraded, and nothing else happened to it."""
    passage = at(hook, packet, settings)
    assert passage in {Passage(None, 0), Passage(None, BIT_14)}
    return passage.mark == BIT_14


class Hosts(NamedTuple):
    """Addresses of one family: of a service, of a pod of this node, of a host outside the cluster, of the node."""

    service: str
    pod: str
    outside: str
    node: str


for_both_families = pytest.mark.parametrize(
    "hosts",
    [Hosts(SERVICE, POD, OUTSIDE, NODE), Hosts(SERVICE6, POD6, OUTSIDE6, NODE6)],
    ids=["ipv4", "ipv6"],
)


@for_both_families
class TestMarking:
    @pytest.mark.parametrize("hook", ["prerouting", "output"])
    def test_traffic_from_outside_the_clusters_pods_is_masqueraded(self, hosts: Hosts, hook: str) -> None:
        assert marked(hook, Packet(hosts.outside, hosts.service))
        assert marked(hook, Packet(hosts.node, hosts.service, 53, Protocol.UDP))
        assert not marked(hook, Packet(hosts.pod, hosts.service))

    def test_without_cluster_cidrs_where_traffic_comes_from_does_not_matter(self, hosts: Hosts) -> None:
        assert not marked("prerouting", Packet(hosts.outside, hosts.service), NO_CLUSTER_CIDR)
        assert not marked("prerouting", Packet(hosts.pod, hosts.service), NO_CLUSTER_CIDR)
        assert not marked("output", Packet(hosts.node, hosts.service), NO_CLUSTER_CIDR)

    def test_all_traffic_to_services_is_masqueraded_on_request(self, hosts: Hosts) -> None:
        for settings in (MASQUERADE_ALL, CLUSTER_CIDRS._replace(masquerade_all=True)):
            assert marked("prerouting", Packet(hosts.pod, hosts.service), settings)
            assert marked("prerouting", Packet(hosts.outside, hosts.service), settings)
            assert marked("output", Packet(hosts.node, hosts.service), settings)
            assert not marked("prerouting", Packet(hosts.outside, hosts.pod), settings)

    @pytest.mark.parametrize("settings", [CLUSTER_CIDRS, NO_CLUSTER_CIDR, MASQUERADE_ALL])
    def test_a_process_of_the_node_that_has_a_service_address_for_its_source_is_masqueraded(
        self, hosts: Hosts, settings: FirewallSettings
    ) -> None:
        assert marked("output", Packet(hosts.service, hosts.service), settings)
        assert marked("output", Packet(hosts.service, hosts.outside), settings)
        assert not marked("output", Packet(hosts.node, hosts.pod), settings)

    def test_traffic_to_anything_but_service_ports_is_none_of_ours(self, hosts: Hosts) -> None:
        for hook in ("prerouting", "output"):
            assert not marked(hook, Packet(hosts.outside, hosts.service, 99))
            assert not marked(hook, Packet(hosts.outside, hosts.service, 80, Protocol.UDP))
            assert not marked(hook, Packet(hosts.outside, hosts.pod))
            assert not marked(hook, Packet(hosts.outside, hosts.node))

    def test_what_follows_the_first_packet_is_not_marked(self, hosts: Hosts) -> None:
        assert not marked("prerouting", Packet(hosts.outside, hosts.service, new=False))
        assert not marked("prerouting", Packet(hosts.pod, hosts.outside, new=False))
        assert not marked("output", Packet(hosts.service, hosts.node, new=False))

    def test_a_packet_that_ipvs_has_rewritten_is_left_as_it_is(self, hosts: Hosts) -> None:
        assert not marked("output", Packet(hosts.outside, hosts.pod, 8080))
        assert marked("output", Packet(hosts.service, hosts.pod, 8080, mark=BIT_14))


def test_several_cluster_cidrs_of_a_family_are_one_inside() -> None:
    settings = FirewallSettings((parse_network("10.244.0.0/16"), parse_network("10.1.0.0/16")))
    assert not marked("prerouting", Packet("10.244.0.1", SERVICE), settings)
    assert not marked("prerouting", Packet("10.1.0.1", SERVICE), settings)
    assert marked("prerouting", Packet("10.2.0.1", SERVICE), settings)


def test_a_family_without_a_cluster_cidr_is_not_masqueraded_by_origin() -> None:
    settings = FirewallSettings((parse_network("10.244.0.0/16"),))
    assert marked("prerouting", Packet(OUTSIDE, SERVICE), settings)
    assert not marked("prerouting", Packet(OUTSIDE6, SERVICE6), settings)


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
        (unmarking,) = (chain for chain in ruleset(CLUSTER_CIDRS) if chain.name == "unmarking")
        for new in (True, False):
            packet = Packet(hosts.outside, hosts.pod, mark=0xFFFFFFFF, new=new)
            assert walk(unmarking, {}, packet) == Passage(None, 0xFFFFFFFF ^ BIT_14)


def test_a_node_that_talks_to_its_own_address_keeps_its_source_port() -> None:
    assert at("postrouting", Packet(NODE, NODE, 8080, interface="lo")) == Passage(None, 0)
    assert at("postrouting", Packet(NODE, NODE, 8080)) == Passage(Verdict.MASQUERADE, 0)


def test_the_mark_is_the_bit_of_the_settings() -> None:
    settings = CLUSTER_CIDRS._replace(masquerade_bit=31)
    assert at("prerouting", Packet(OUTSIDE, SERVICE, mark=BIT_14), settings).mark == 0x80000000 | BIT_14
    assert at("output", Packet(SERVICE, SERVICE), settings).mark == 0x80000000
    assert at("postrouting", Packet(OUTSIDE, POD, mark=0x80000000), settings) == (Verdict.MASQUERADE, 0)
    assert at("postrouting", Packet(OUTSIDE, POD, mark=BIT_14), settings) == (None, BIT_14)


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

    def test_the_nodes_own_addresses_are_open(self, hosts: Hosts) -> None:
        for port in (22, 80):
            assert at("input", Packet(hosts.outside, hosts.node, port)) == Passage(None, 0)
            assert at("input", Packet(hosts.pod, hosts.node, port)) == Passage(None, 0)

    def test_service_addresses_answer_pings(self, hosts: Hosts) -> None:
        for protocol in (ICMP, ICMPV6):
            assert at("input", Packet(hosts.outside, hosts.service, 0, protocol)) == Passage(None, 0)
            assert at("input", Packet(hosts.pod, hosts.service, 0, protocol)) == Passage(None, 0)

    def test_ports_without_endpoints_are_refused_before_ipvs_sees_them(self, hosts: Hosts) -> None:
        assert at("input", Packet(hosts.outside, hosts.service, 81)).verdict is Verdict.REJECT_WITH_RESET
        assert at("input", Packet(hosts.pod, hosts.service, 81)).verdict is Verdict.REJECT_WITH_RESET
        assert at("output", Packet(hosts.service, hosts.service, 81)).verdict is Verdict.REJECT_WITH_RESET
        assert at("output", Packet(hosts.node, hosts.service, 81)).verdict is Verdict.REJECT_WITH_RESET

    def test_connections_that_are_known_go_on(self, hosts: Hosts) -> None:
        for hook in ("input", "output"):
            for packet in (
                Packet(hosts.outside, hosts.service, 81, new=False),
                Packet(hosts.pod, hosts.service, 40000, new=False),
            ):
                assert at(hook, packet) == Passage(None, 0)
        # The reply to a process of the node that has a service address for its source.
        assert at("input", Packet(hosts.node, hosts.service, 40000, new=False)) == Passage(None, 0)


ALL_SETTINGS = [CLUSTER_CIDRS, NO_CLUSTER_CIDR, MASQUERADE_ALL]


@pytest.mark.parametrize("settings", ALL_SETTINGS)
def test_chains_stand_between_conntrack_and_ipvs_and_before_the_hosts_firewall(
    settings: FirewallSettings,
) -> None:
    hooks = [chain.hook for chain in ruleset(settings) if chain.hook]
    priorities = {hook.name: hook.priority for hook in hooks if hook.name != "postrouting"}
    assert -200 < priorities["prerouting"] < -100  # conntrack, destination NAT
    assert -200 < priorities["output"] < -99  # conntrack, IPVS
    assert priorities["input"] < 0  # the host's filter chains
    assert [hook[::2] for hook in hooks if hook.name == "postrouting"] == [("nat", 100), ("filter", 101)]


@pytest.mark.parametrize("settings", ALL_SETTINGS)
def test_rules_lead_only_to_chains_without_a_hook_that_come_before(settings: FirewallSettings) -> None:
    seen: set[str] = set()
    for chain in ruleset(settings):
        for rule in chain.rules:
            if isinstance(rule.statement, GoTo):
                assert rule.statement.chain in seen
        if not chain.hook:
            seen.add(chain.name)


def rules() -> Iterator[Rule]:
    for settings in ALL_SETTINGS:
        for chain in ruleset(settings):
            yield from chain.rules


def test_every_duty_fits_into_a_comment_of_nft() -> None:
    for rule in rules():
        assert 0 < len(rule.duty.encode()) <= LONGEST_COMMENT
        assert '"' not in rule.duty
        assert "\\" not in rule.duty
