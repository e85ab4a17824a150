"""What one hook does with a packet, and how the hooks follow each other, with small tables made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.addresses import Family, parse_network
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import ServiceFlag
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.rules import (
    ArrivesBy,
    AskSourceList,
    Chain,
    ClearMark,
    ConnectionIs,
    ConnectionState,
    Field,
    FieldsInSet,
    GoTo,
    Hook,
    KeepDestination,
    LeavesByOtherThan,
    Marked,
    ProtocolIs,
    Rule,
    SetDestination,
    SetMark,
    SourceIn,
    SourceListed,
    Verdict,
)
from ipvsproxy.plan.trace import trace
from ipvsproxy.plan.trace.table import FirewallTable, HookPacket
from ipvsproxy.plan.trace.values import Answer, Outcome, Packet, SourceSeen, TracedState
from tests.builders import address, addresses, key, real_server, source_list, virtual_server

if TYPE_CHECKING:
    from ipvsproxy.model.ipvs import VirtualServer
    from ipvsproxy.plan.rules import Match, Statement
    from ipvsproxy.plan.trace.table import Passage

SERVICE, OTHER_SERVICE = "10.96.0.1", "10.96.0.2"
POD, REMOTE = "10.244.1.2", "10.244.2.2"
OUTSIDE, NODE = "192.0.2.1", "198.51.100.1"
PORT = (Field.DESTINATION, Field.PROTOCOL, Field.DESTINATION_PORT)
REDIRECT = SetDestination(Family.IPV4, PORT, FirewallSet.IN_CLUSTER_DESTINATIONS)
REDIRECTED = SetElement(
    FirewallSet.IN_CLUSTER_DESTINATIONS, (address(SERVICE), Protocol.TCP, 80, address(OTHER_SERVICE), 80)
)


def rule(statement: Statement, *matches: Match) -> Rule:
    return Rule(f"rule of {statement}", matches, statement)


def chain(hook: str, priority: int, *rules: Rule, of_type: str = "filter") -> Chain:
    return Chain(f"{of_type} {hook} {priority}", Hook(of_type, hook, priority), rules)


def packet(source: str = OUTSIDE, destination: str = SERVICE, port: int = 80) -> HookPacket:
    return HookPacket(address(source), address(destination), Protocol.TCP, port)


def holds(match: Match, of: HookPacket, *elements: SetElement) -> bool:
    """Say whether the match holds for the packet; it is put at a hook where it may stand."""
    hook = "postrouting" if isinstance(match, LeavesByOtherThan) else "output"
    table = FirewallTable([chain(hook, 0, rule(Verdict.DROP, match))], elements)
    return table.at_hook(hook, of).verdict is Verdict.DROP


class TestSourceLists:
    LIST = source_list("192.0.2.0/25")
    ELEMENTS = (
        SetElement(FirewallSet.SOURCE_LISTS, (LIST,)),
        SetElement(FirewallSet.RESTRICTED_PORTS, (*key(SERVICE), LIST.name)),
    )
    ASK = AskSourceList(Family.IPV4, PORT, FirewallSet.RESTRICTED_PORTS)

    def passage(self, of: HookPacket, *chains: Chain) -> Passage:
        asking = chain("output", 0, rule(self.ASK), rule(SetMark(3)))
        return FirewallTable([asking, *chains], self.ELEMENTS).at_hook("output", of)

    def test_a_source_that_is_let_in_goes_on_behind_the_rule_that_asked(self) -> None:
        assert self.passage(packet())[:2] == (None, replace(packet(), mark=8))

    def test_another_source_is_dropped_and_the_steps_name_the_list_and_why(self) -> None:
        verdict, _, steps = self.passage(packet("192.0.2.128"))
        assert verdict is Verdict.DROP
        assert [(step.chain, step.items) for step in steps] == [
            ("filter output 0", (self.ELEMENTS[1],)),
            (self.LIST.name, ()),
        ]

    def test_a_port_without_a_list_is_open(self) -> None:
        assert self.passage(packet("192.0.2.128", port=81)).verdict is None

    def test_the_chain_that_is_there_counts_whatever_the_list_says(self) -> None:
        emptied = Chain(self.LIST.name, None, ())
        assert self.passage(packet("192.0.2.128"), emptied).packet.mark == 8
        closed = Chain(self.LIST.name, None, (rule(Verdict.DROP),))
        assert self.passage(packet(), closed).verdict is Verdict.DROP


class TestMatches:
    def test_a_set_of_addresses_and_ports_holds_exactly_its_elements(self) -> None:
        element = SetElement(FirewallSet.SERVICE_PORTS, (address(SERVICE), Protocol.TCP, 80))
        match = FieldsInSet(Family.IPV4, PORT, FirewallSet.SERVICE_PORTS)
        assert holds(match, packet(), element)
        assert not holds(match, packet(port=81), element)
        assert not holds(match, packet(destination=OTHER_SERVICE), element)
        assert not holds(match, replace(packet(), protocol=Protocol.UDP), element)
        assert not holds(replace(match, set=FirewallSet.LOCAL_PORTS), packet(), element)

    def test_a_source_list_holds_the_sources_in_its_networks(self) -> None:
        sources = source_list("192.0.2.0/25", "198.51.100.1/32")
        element = SetElement(FirewallSet.SOURCE_LISTS, (sources,))
        for source, inside in ((OUTSIDE, True), (NODE, True), ("192.0.2.128", False)):
            assert holds(SourceListed(Family.IPV4, sources.name), packet(source), element) is inside
        assert not holds(SourceListed(Family.IPV6, sources.name), packet(), element)
        assert not holds(SourceListed(Family.IPV4, source_list().name), packet(), element)

    def test_a_match_on_a_set_is_for_its_family_only_also_outside_the_set(self) -> None:
        for inside in (True, False):
            match = FieldsInSet(Family.IPV6, (Field.SOURCE,), FirewallSet.SERVICE_ADDRESSES, inside)
            assert not holds(match, packet())

    def test_a_match_on_a_network_is_for_its_family_only_also_outside_the_network(self) -> None:
        for text, inside, result in (
            ("192.0.2.0/24", True, True),
            ("192.0.2.0/24", False, False),
            ("10.0.0.0/8", True, False),
            ("10.0.0.0/8", False, True),
            ("2001:db8::/32", True, False),
            ("2001:db8::/32", False, False),
        ):
            assert holds(SourceIn(parse_network(text), inside), packet()) is result

    @pytest.mark.parametrize(
        ("interface", "arrived_by", "result"),
        [
            ("eth0", "eth0", True),
            ("eth0", "eth01", False),
            ("eth*", "eth01", True),
            ("eth*", "wlan0", False),
            ("eth*", None, False),
        ],
    )
    def test_an_interface_is_known_by_its_name_or_the_beginning_of_it(
        self, interface: str, arrived_by: str | None, *, result: bool
    ) -> None:
        arrived = replace(packet(), arrived_by=arrived_by)
        assert holds(ArrivesBy(interface), arrived) is result
        assert holds(ArrivesBy(interface, inside=False), arrived) is not result

    def test_protocol_mark_connection_and_outgoing_interface(self) -> None:
        assert holds(ProtocolIs(Protocol.TCP), packet())
        assert not holds(ProtocolIs(Protocol.UDP), packet())
        assert holds(Marked(3), replace(packet(), mark=8))
        assert not holds(Marked(3), replace(packet(), mark=0xF7))
        answered = ConnectionIs(frozenset({ConnectionState.ESTABLISHED, ConnectionState.RELATED}))
        assert holds(ConnectionIs(frozenset({ConnectionState.NEW})), packet())
        assert not holds(answered, packet())
        assert holds(answered, replace(packet(), state=ConnectionState.RELATED))
        assert not holds(answered, replace(packet(), state=ConnectionState.UNTRACKED))
        assert not holds(LeavesByOtherThan("lo"), replace(packet(), leaves_by="lo"))
        assert holds(LeavesByOtherThan("lo"), packet())


class TestChains:
    def test_a_rule_holds_if_all_its_matches_do(self) -> None:
        table = FirewallTable(
            [chain("input", 0, rule(Verdict.DROP, ProtocolIs(Protocol.TCP), Marked(0)))], []
        )
        assert table.at_hook("input", packet()).verdict is None
        assert table.at_hook("input", replace(packet(), mark=1)).verdict is Verdict.DROP

    def test_marks_change_their_own_bit_for_the_rules_that_follow(self) -> None:
        table = FirewallTable(
            [
                chain("input", 1, rule(ClearMark(0)), rule(Verdict.DROP, Marked(1))),
                chain("input", 0, rule(SetMark(1))),
            ],
            [],
        )
        verdict, after, _ = table.at_hook("input", replace(packet(), mark=0x11))
        assert (verdict, after.mark) == (Verdict.DROP, 0x12)

    def test_who_leaves_a_chain_or_goes_to_another_does_not_come_back(self) -> None:
        for last in (rule(Verdict.RETURN), rule(ClearMark(0))):
            table = FirewallTable(
                [
                    Chain("more", None, (rule(SetMark(1)), last)),
                    chain("input", 0, rule(GoTo("more")), rule(Verdict.DROP)),
                    chain("input", 1, rule(SetMark(2))),
                ],
                [],
            )
            verdict, after, _ = table.at_hook("input", packet())
            assert (verdict, after.mark) == (None, 0b110)

    def test_a_dropped_packet_meets_no_further_chain(self) -> None:
        table = FirewallTable(
            [chain("input", -5, rule(Verdict.DROP)), chain("input", -4, rule(SetMark(0)))], []
        )
        verdict, after, steps = table.at_hook("input", packet())
        assert (verdict, after.mark, len(steps)) == (Verdict.DROP, 0, 1)

    def test_chains_of_type_nat_stand_where_the_kernels_nat_is(self) -> None:
        table = FirewallTable(
            [
                chain("postrouting", 99, rule(SetMark(0))),
                chain("postrouting", 50, rule(Verdict.MASQUERADE, Marked(0)), of_type="nat"),
            ],
            [],
        )
        assert table.at_hook("postrouting", packet()).packet.masqueraded

    def test_the_first_chain_of_type_nat_with_an_answer_settles_it(self) -> None:
        table = FirewallTable(
            [
                chain("postrouting", 110, rule(SetMark(0)), of_type="nat"),
                chain("postrouting", 100, rule(Verdict.MASQUERADE), of_type="nat"),
                chain("postrouting", 120, rule(SetMark(1))),
            ],
            [],
        )
        masqueraded = replace(packet(), masquerading=address(NODE))
        assert table.at_hook("postrouting", masqueraded).packet == replace(
            masqueraded, source=address(NODE), masqueraded=True, mark=2
        )
        assert table.at_hook("postrouting", packet(), settled=True).packet == replace(packet(), mark=2)

    def test_a_destination_that_the_map_does_not_lead_to_stays_and_the_next_rule_is_met(self) -> None:
        table = FirewallTable(
            [chain("output", -100, rule(REDIRECT), rule(SetMark(0)), of_type="nat")], [REDIRECTED]
        )
        assert table.at_hook("output", packet()).packet == packet(destination=OTHER_SERVICE)
        assert table.at_hook("output", packet(port=81)).packet == replace(packet(port=81), mark=1)


def state(
    *chains: Chain, servers: tuple[VirtualServer, ...] = (), bound: tuple[str, ...] = (SERVICE, OTHER_SERVICE)
) -> TracedState:
    return TracedState(
        FirewallTable(chains, [REDIRECTED]),
        {server.key: server for server in servers},
        set(addresses(*bound)),
        addresses(NODE),
        frozenset({(Protocol.TCP, 80)}),
    )


FROM_OUTSIDE = Packet(address(SERVICE), Protocol.TCP, 80, address(OUTSIDE), "eth0")
FROM_PROCESS = Packet(address(SERVICE), Protocol.TCP, 80)
ONE_ENDPOINT = virtual_server(key(SERVICE), real_server(REMOTE))


class TestWay:
    def test_without_rules_ipvs_alone_decides(self) -> None:
        for packet_sent in (FROM_OUTSIDE, FROM_PROCESS):
            found = trace(packet_sent, state(servers=(ONE_ENDPOINT,)))
            assert found.answers == (Answer(address(REMOTE), 8080, SourceSeen.CLIENT),)
            assert trace(packet_sent, state()).outcome is Outcome.NODE

    def test_ipvs_takes_from_the_network_only_what_is_for_the_node_but_all_of_processes(self) -> None:
        found_by = state(servers=(ONE_ENDPOINT,), bound=())
        assert trace(FROM_OUTSIDE, found_by).outcome is Outcome.NOT_OURS
        found = trace(FROM_PROCESS, found_by)
        assert (found.outcome, found.source) == (Outcome.ANSWERED, address(NODE))

    def test_a_process_may_choose_its_source(self) -> None:
        drop = chain("output", 0, rule(Verdict.DROP, SourceIn(parse_network(f"{NODE}/32"))))
        found_by = state(drop)
        assert trace(FROM_PROCESS, found_by).outcome is Outcome.NODE
        assert trace(replace(FROM_PROCESS, source=address(NODE)), found_by).outcome is Outcome.DROPPED

    def test_rules_of_input_and_output_see_what_ipvs_takes_only_before_it(self) -> None:
        for sent, hook, before in ((FROM_OUTSIDE, "input", 98), (FROM_PROCESS, "output", -99)):
            drop = rule(Verdict.DROP, SourceIn(parse_network("0.0.0.0/0")), ProtocolIs(Protocol.TCP))
            refused = trace(sent, state(chain(hook, before, drop), servers=(ONE_ENDPOINT,)))
            assert refused.outcome is Outcome.DROPPED
        behind = state(chain("input", 100, rule(Verdict.DROP)), servers=(ONE_ENDPOINT,))
        assert trace(FROM_OUTSIDE, behind).outcome is Outcome.ANSWERED
        assert trace(FROM_OUTSIDE, behind._replace(virtual_servers={})).outcome is Outcome.DROPPED

    def test_what_ipvs_sends_on_passes_output_with_its_mark_and_its_new_destination(self) -> None:
        element = SetElement(FirewallSet.SERVICE_ADDRESSES, (address(REMOTE),))
        at_endpoint = FieldsInSet(Family.IPV4, (Field.DESTINATION,), FirewallSet.SERVICE_ADDRESSES)
        chains = (
            chain("prerouting", -150, rule(SetMark(5))),
            chain(
                "output", -150, rule(Verdict.DROP, Marked(5), at_endpoint, ArrivesBy("eth0", inside=False))
            ),
        )
        found_by = state(servers=(ONE_ENDPOINT,))._replace(table=FirewallTable(chains, [element]))
        assert trace(FROM_OUTSIDE, found_by).outcome is Outcome.DROPPED

    def test_nat_decides_about_a_destination_once(self) -> None:
        redirecting = chain("prerouting", -100, rule(REDIRECT), of_type="nat")
        found_by = state(redirecting, servers=(virtual_server(key(OTHER_SERVICE), real_server(REMOTE)),))
        assert trace(FROM_OUTSIDE, found_by).outcome is Outcome.ANSWERED
        # What comes back through the loopback interface is as output has left it,
        found = trace(FROM_PROCESS, found_by)
        assert found.outcome is Outcome.NODE
        assert "prerouting" not in {step.stage for step in found.steps}
        # and so is what IPVS sends on.
        element = SetElement(
            FirewallSet.IN_CLUSTER_DESTINATIONS, (address(REMOTE), Protocol.TCP, 8080, address(POD), 8080)
        )
        table = FirewallTable([chain("output", -100, rule(REDIRECT), of_type="nat")], [element])
        for sent in (FROM_OUTSIDE, FROM_PROCESS):
            found = trace(sent, state(servers=(ONE_ENDPOINT,))._replace(table=table))
            assert found.answers == (Answer(address(REMOTE), 8080, SourceSeen.CLIENT),)

    def test_a_destination_that_is_kept_is_not_asked_of_later_chains(self) -> None:
        keeping = chain("prerouting", -110, rule(KeepDestination(Family.IPV4)), of_type="nat")
        redirecting = chain("prerouting", -100, rule(REDIRECT), of_type="nat")
        found_by = state(keeping, redirecting, servers=(ONE_ENDPOINT,))
        assert trace(FROM_OUTSIDE, found_by).answers == (Answer(address(REMOTE), 8080, SourceSeen.CLIENT),)

    def test_what_ipvs_leaves_to_the_node_comes_back_through_the_loopback_interface(self) -> None:
        chains = (
            chain("output", -150, rule(SetMark(0))),
            chain("postrouting", 100, rule(Verdict.MASQUERADE, Marked(0)), of_type="nat"),
            chain("postrouting", 101, rule(ClearMark(0))),
            chain(
                "prerouting", -150, rule(SetMark(1), ArrivesBy("lo"), SourceIn(parse_network(f"{NODE}/32")))
            ),
            chain("input", 0, rule(Verdict.DROP, Marked(1))),
        )
        assert trace(FROM_PROCESS, state(*chains)).outcome is Outcome.DROPPED
        assert trace(FROM_OUTSIDE, state(*chains)).outcome is Outcome.NODE

    def test_a_real_server_of_the_node_is_reached_by_no_postrouting_from_the_network(self) -> None:
        masquerade = chain("postrouting", 100, rule(Verdict.MASQUERADE), of_type="nat")
        found_by = state(masquerade, servers=(virtual_server(key(SERVICE), real_server(NODE)),))
        for sent, source in ((FROM_OUTSIDE, SourceSeen.CLIENT), (FROM_PROCESS, SourceSeen.MASQUERADED)):
            assert trace(sent, found_by).answers == (Answer(address(NODE), 8080, source),)

    def test_what_stays_on_the_node_leaves_by_the_loopback_interface(self) -> None:
        masquerade = chain(
            "postrouting", 100, rule(Verdict.MASQUERADE, LeavesByOtherThan("lo")), of_type="nat"
        )
        for server, source in ((NODE, SourceSeen.CLIENT), (REMOTE, SourceSeen.MASQUERADED)):
            found_by = state(masquerade, servers=(virtual_server(key(SERVICE), real_server(server)),))
            assert trace(FROM_PROCESS, found_by).answers == (Answer(address(server), 8080, source),)

    def test_a_real_server_with_a_service_address_is_the_node_itself(self) -> None:
        servers = virtual_server(key(SERVICE), real_server(OTHER_SERVICE, 80))
        for sent in (FROM_OUTSIDE, FROM_PROCESS):
            assert trace(sent, state(servers=(servers,))).outcome is Outcome.NODE

    @pytest.mark.parametrize(
        ("scheduler", "flags", "outcome"),
        [
            ("rr", 0, Outcome.ANSWERED),
            ("sh", 0, Outcome.REFUSED),
            ("sh", ServiceFlag.SCHEDULER_1 | ServiceFlag.PERSISTENT, Outcome.ANSWERED),
            ("mh", ServiceFlag.SCHEDULER_2, Outcome.REFUSED),
            ("mh", ServiceFlag.SCHEDULER_1, Outcome.ANSWERED),
            ("dh", ServiceFlag.SCHEDULER_1, Outcome.REFUSED),
        ],
    )
    def test_a_scheduler_that_hashes_without_a_fallback_refuses_some_while_a_real_server_drains(
        self, scheduler: str, flags: int, outcome: Outcome
    ) -> None:
        for weight, expected in ((0, outcome), (1, Outcome.ANSWERED)):
            servers = (real_server(POD, weight=weight), real_server(REMOTE))
            hashing = virtual_server(key(SERVICE), *servers, scheduler=scheduler, flags=flags)
            found = trace(FROM_OUTSIDE, state(servers=(hashing,)))
            assert found.outcome is expected
            assert Answer(address(REMOTE), 8080, SourceSeen.CLIENT) in found.answers

    def test_a_connection_is_answered_only_if_every_real_server_gets_it(self) -> None:
        two = virtual_server(key(SERVICE), real_server(POD), real_server(REMOTE))
        element = SetElement(FirewallSet.LOCAL_ENDPOINTS, (address(OUTSIDE), address(POD)))
        both = FieldsInSet(Family.IPV4, (Field.SOURCE, Field.DESTINATION), FirewallSet.LOCAL_ENDPOINTS)
        table = FirewallTable([chain("postrouting", 0, rule(Verdict.DROP, both))], [element])
        found = trace(FROM_OUTSIDE, state(servers=(two,))._replace(table=table))
        assert found.outcome is Outcome.DROPPED
        assert found.answers == (Answer(address(REMOTE), 8080, SourceSeen.CLIENT),)
