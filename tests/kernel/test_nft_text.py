"""The text that nft reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.nft_text import add_text, remove_text, table_text
from ipvsproxy.model.addresses import Family, parse_network
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.rules import (
    ArrivesBy,
    AskSourceList,
    Chain,
    ClearMark,
    ConnectionIs,
    ConnectionState,
    DestinationIsLocal,
    Field,
    FieldsInSet,
    GoTo,
    Hook,
    IsReset,
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
from tests.builders import address, key
from tests.kernel.contract_firewall import (
    ADDRESS,
    ADDRESS6,
    AGENT_PORT,
    ENDPOINT,
    PORT,
    WITH_NODE,
    listing,
    redirection,
    restriction,
)

if TYPE_CHECKING:
    from ipvsproxy.plan.rules import Match, Statement

SERVICE_PORT = (Field.DESTINATION, Field.PROTOCOL, Field.DESTINATION_PORT)


DECLARATIONS = """\
\tset service-addresses-ipv4 { type ipv4_addr; }
\tset service-addresses-ipv6 { type ipv6_addr; }
\tset service-ports-ipv4 { type ipv4_addr . inet_proto . inet_service; }
\tset service-ports-ipv6 { type ipv6_addr . inet_proto . inet_service; }
\tset service-ports-without-endpoints-ipv4 { type ipv4_addr . inet_proto . inet_service; }
\tset service-ports-without-endpoints-ipv6 { type ipv6_addr . inet_proto . inet_service; }
\tset service-ports-without-local-endpoints-ipv4 { type ipv4_addr . inet_proto . inet_service; }
\tset service-ports-without-local-endpoints-ipv6 { type ipv6_addr . inet_proto . inet_service; }
\tset masqueraded-service-ports-ipv4 { type ipv4_addr . inet_proto . inet_service; }
\tset masqueraded-service-ports-ipv6 { type ipv6_addr . inet_proto . inet_service; }
\tset local-service-ports-ipv4 { type ipv4_addr . inet_proto . inet_service; }
\tset local-service-ports-ipv6 { type ipv6_addr . inet_proto . inet_service; }
\tset kept-service-ports-ipv4 { type ipv4_addr . inet_proto . inet_service; }
\tset kept-service-ports-ipv6 { type ipv6_addr . inet_proto . inet_service; }
\tmap restricted-service-ports-ipv4 { type ipv4_addr . inet_proto . inet_service : verdict; }
\tmap restricted-service-ports-ipv6 { type ipv6_addr . inet_proto . inet_service : verdict; }
\tmap in-cluster-destinations-ipv4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
\tmap in-cluster-destinations-ipv6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
\tmap outside-destinations-ipv4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
\tmap outside-destinations-ipv6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
\tset local-endpoints-ipv4 { type ipv4_addr . ipv4_addr; }
\tset local-endpoints-ipv6 { type ipv6_addr . ipv6_addr; }
\tset agent-ports { type inet_proto . inet_service; }
\tset sources-and-node-ipv4-e3b0c44298fc1c149afbf4c8996fb924 { type ipv4_addr; flags interval; }
\tset sources-and-node-ipv6-e3b0c44298fc1c149afbf4c8996fb924 { type ipv6_addr; flags interval; }
"""


def test_a_table_is_replaced_whole_whether_it_is_there_or_not() -> None:
    chains = (
        Chain("side", None, ()),
        Chain(
            "main",
            Hook("filter", "input", -10),
            (
                Rule("why", (ConnectionIs(frozenset({ConnectionState.NEW})), ProtocolIs(6)), GoTo("side")),
                Rule("else", (), SetMark(14)),
            ),
        ),
    )
    assert table_text(chains) == (
        "add table inet ipvsproxy\n"
        "delete table inet ipvsproxy\n"
        "table inet ipvsproxy {\n"
        f"{DECLARATIONS}"
        "\tchain side {\n"
        "\t}\n"
        "\tchain main {\n"
        "\t\ttype filter hook input priority -10; policy accept;\n"
        '\t\tct state new meta l4proto 6 goto side comment "why"\n'
        '\t\tmeta mark set meta mark | 0x00004000 comment "else"\n'
        "\t}\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("match", "text"),
    [
        (ConnectionIs(frozenset({ConnectionState.NEW})), "ct state new"),
        (IsReset(), "tcp flags rst"),
        (
            ConnectionIs(frozenset({ConnectionState.ESTABLISHED, ConnectionState.RELATED})),
            "ct state established,related",
        ),
        (
            FieldsInSet(Family.IPV4, (Field.SOURCE,), FirewallSet.SERVICE_ADDRESSES),
            "ip saddr @service-addresses-ipv4",
        ),
        (
            FieldsInSet(Family.IPV6, SERVICE_PORT, FirewallSet.SERVICE_PORTS),
            "ip6 daddr . meta l4proto . th dport @service-ports-ipv6",
        ),
        (
            FieldsInSet(Family.IPV6, (Field.SOURCE, Field.DESTINATION), FirewallSet.LOCAL_ENDPOINTS),
            "ip6 saddr . ip6 daddr @local-endpoints-ipv6",
        ),
        (
            FieldsInSet(Family.IPV4, SERVICE_PORT, FirewallSet.LOCAL_PORTS, inside=False),
            "ip daddr . meta l4proto . th dport != @local-service-ports-ipv4",
        ),
        (SourceListed(Family.IPV6, "sources-ipv6-0"), "ip6 saddr @sources-ipv6-0"),
        (SourceIn(parse_network("10.244.0.0/16")), "ip saddr 10.244.0.0/16"),
        (SourceIn(parse_network("10.244.0.0/16"), inside=False), "ip saddr != 10.244.0.0/16"),
        (SourceIn(parse_network("fd00:244::/56"), inside=False), "ip6 saddr != fd00:244::/56"),
        (ArrivesBy("cali*"), 'iifname "cali*"'),
        (ArrivesBy("cni0", inside=False), 'iifname != "cni0"'),
        (ProtocolIs(Protocol.SCTP), "meta l4proto 132"),
        (Marked(0), "meta mark & 0x00000001 != 0"),
        (Marked(31), "meta mark & 0x80000000 != 0"),
        (LeavesByOtherThan("lo"), 'oifname != "lo"'),
        (DestinationIsLocal(), "fib daddr type local"),
    ],
)
def test_matches(match: Match, text: str) -> None:
    assert rule_text(Rule("why", (match,), Verdict.RETURN)) == f'{text} return comment "why"'


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (Verdict.RETURN, "return"),
        (Verdict.MASQUERADE, "masquerade fully-random"),
        (Verdict.DROP, "drop"),
        (Verdict.REJECT_WITH_RESET, "reject with tcp reset"),
        (Verdict.REJECT_WITH_ICMP, "reject with icmpx type port-unreachable"),
        (GoTo("side"), "goto side"),
        (
            AskSourceList(Family.IPV6, SERVICE_PORT, FirewallSet.RESTRICTED_PORTS),
            "ip6 daddr . meta l4proto . th dport vmap @restricted-service-ports-ipv6",
        ),
        (
            SetDestination(Family.IPV4, SERVICE_PORT, FirewallSet.IN_CLUSTER_DESTINATIONS),
            "dnat ip addr . port to ip daddr . meta l4proto . th dport map @in-cluster-destinations-ipv4",
        ),
        (
            SetDestination(Family.IPV6, SERVICE_PORT, FirewallSet.IN_CLUSTER_DESTINATIONS),
            "dnat ip6 addr . port to ip6 daddr . meta l4proto . th dport map @in-cluster-destinations-ipv6",
        ),
        (KeepDestination(Family.IPV4), "dnat ip to ip daddr"),
        (KeepDestination(Family.IPV6), "dnat ip6 to ip6 daddr"),
        (SetMark(31), "meta mark set meta mark | 0x80000000"),
        (ClearMark(0), "meta mark set meta mark & 0xfffffffe"),
        (ClearMark(31), "meta mark set meta mark & 0x7fffffff"),
    ],
)
def test_statements(statement: Statement, text: str) -> None:
    assert rule_text(Rule("why", (), statement)) == f'{text} comment "why"'


@pytest.mark.parametrize(
    "name", ["", "*", "a b", 'x" accept comment "', "a\\*", "a*b", "a**", "a/b", "eth0:1", "x" * 16, "x\n"]
)
def test_a_name_that_no_interface_has_gets_into_no_rule(name: str) -> None:
    for match in (ArrivesBy(name), LeavesByOtherThan(name)):
        with pytest.raises(ValueError, match="neither an interface's name"):
            rule_text(Rule("why", (match,), Verdict.RETURN))


def rule_text(rule: Rule) -> str:
    (line,) = (line for line in table_text([Chain("main", None, (rule,))]).splitlines() if "comment" in line)
    return line.strip()


def test_elements_are_added_to_the_set_of_their_family_one_command_a_set() -> None:
    other = SetElement(FirewallSet.SERVICE_ADDRESSES, (address("10.96.0.2"),))
    sctp = SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, key("fd00:96::1", 65535, Protocol.SCTP))
    assert add_text([ADDRESS, PORT, other, ADDRESS6, sctp, ENDPOINT]) == (
        "add element inet ipvsproxy service-addresses-ipv4 { 10.96.0.1, 10.96.0.2 }\n"
        "add element inet ipvsproxy service-ports-ipv4 { 10.96.0.1 . 6 . 80 }\n"
        "add element inet ipvsproxy service-addresses-ipv6 { fd00:96::1 }\n"
        "add element inet ipvsproxy service-ports-without-endpoints-ipv6 { fd00:96::1 . 132 . 65535 }\n"
        "add element inet ipvsproxy local-endpoints-ipv4 { 10.244.1.2 . 10.244.1.2 }\n"
    )


def test_elements_are_added_before_they_are_deleted_so_that_they_are_there() -> None:
    assert remove_text([ADDRESS]) == (
        "add element inet ipvsproxy service-addresses-ipv4 { 10.96.0.1 }\n"
        "delete element inet ipvsproxy service-addresses-ipv4 { 10.96.0.1 }\n"
    )


def test_what_a_map_leads_to_comes_last() -> None:
    name = WITH_NODE.set_name
    assert add_text([restriction(WITH_NODE), redirection("10.96.0.1")]) == (
        f"add element inet ipvsproxy restricted-service-ports-ipv4 {{ 203.0.113.1 . 6 . 80 : jump {name} }}\n"
        "add element inet ipvsproxy in-cluster-destinations-ipv4 { 203.0.113.1 . 6 . 80 : 10.96.0.1 . 80 }\n"
    )


def test_a_source_list_is_a_set_and_a_chain_that_are_made_before_anything_leads_to_them() -> None:
    name = WITH_NODE.set_name
    text = add_text([restriction(WITH_NODE), WITH_NODE])
    assert text.splitlines() == [
        f"add set inet ipvsproxy {name} {{ type ipv4_addr; flags interval; }}",
        f"add chain inet ipvsproxy {name}",
        f"add element inet ipvsproxy {name} {{ 10.0.0.0/8 }}",
        f"flush chain inet ipvsproxy {name}",
        f'add rule inet ipvsproxy {name} ip saddr @{name} return comment "a source of the list"',
        f'add rule inet ipvsproxy {name} ip saddr @service-addresses-ipv4 return comment "a process of the node"',
        f'add rule inet ipvsproxy {name} drop comment "drop sources that the port is not open to"',
        *add_text([restriction(WITH_NODE)]).splitlines(),
    ]


def test_a_source_list_without_networks_lets_nobody_in() -> None:
    nobody = listing()
    assert [line for line in add_text([nobody]).splitlines() if line.startswith("add element")] == []
    assert "drop" in add_text([nobody])


def test_a_source_list_goes_after_what_leads_to_it() -> None:
    lines = remove_text([WITH_NODE, restriction(WITH_NODE)]).splitlines()
    name = WITH_NODE.set_name
    assert [line.split(" { ")[0] for line in lines] == [
        f"add set inet ipvsproxy {name}",
        f"add chain inet ipvsproxy {name}",
        "add element inet ipvsproxy restricted-service-ports-ipv4",
        "delete element inet ipvsproxy restricted-service-ports-ipv4",
        f"delete chain inet ipvsproxy {name}",
        f"delete set inet ipvsproxy {name}",
    ]


def test_a_set_of_no_family_has_no_address() -> None:
    assert add_text([AGENT_PORT]) == "add element inet ipvsproxy agent-ports { 6 . 10256 }\n"


def test_an_element_that_is_named_twice_is_deleted_once() -> None:
    assert remove_text([ADDRESS, ADDRESS]) == remove_text([ADDRESS])


def test_no_elements_are_no_text() -> None:
    assert add_text([]) + remove_text([]) == ""
