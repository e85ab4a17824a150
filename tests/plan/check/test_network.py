"""What stands in the way of service traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.plan.check.finding import Severity
from ipvsproxy.plan.check.network import (
    Arp,
    Bridge,
    judge_arp,
    judge_bridges,
    judge_host_firewall,
    judge_ipv6,
    judge_node_ports,
)
from ipvsproxy.plan.host_firewall import find_drops
from tests.builders import address, addresses, networks
from tests.host_tables import tables

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Address

(DROP,) = find_drops(tables(INPUT="DROP"), ())
(DROPS_ANSWERS,) = find_drops(tables(FORWARD="DROP"), ())
SHARED = [address("198.51.100.1")]
LOOSE, STRICT = Arp(0, 0, ()), Arp(1, 2, ())
BRIDGE = Bridge("cni0", networks("10.244.1.0/24", "fd00:1::/64"), 2, ipv4_filtered=False, ipv6_filtered=True)


def test_a_firewall_that_drops_has_the_words_of_the_log_and_of_dump() -> None:
    (found,) = judge_host_firewall([DROP], [])
    assert (found.severity, found.about) == (Severity.WARNING, "ip filter INPUT")
    assert str(DROP).startswith(found.meaning)
    assert found.mend.startswith(DROP.command)


def test_answers_that_an_agent_would_accept_are_no_warning_before_there_is_one() -> None:
    (before,) = judge_host_firewall([DROPS_ANSWERS], [], agent_mends=True)
    (after,) = judge_host_firewall([DROPS_ANSWERS], [])
    (input_,) = judge_host_firewall([DROP], [], agent_mends=True)
    assert (before.severity, before.mend) == (Severity.INFO, "")
    assert (after.severity, after.mend) == (Severity.WARNING, DROPS_ANSWERS.command)
    assert input_.severity is Severity.WARNING


def test_a_chain_that_the_agent_could_not_make_is_an_error() -> None:
    (found,) = judge_host_firewall([], [], ["the chain can't be made: no program"])
    assert (found.severity, found.meaning) == (Severity.ERROR, "the chain can't be made: no program")


def test_a_firewall_that_could_not_be_seen_is_unknown_and_not_fine() -> None:
    (found,) = judge_host_firewall([], ["nftables can't be looked at"])
    assert (found.severity, found.meaning) == (Severity.UNKNOWN, "nftables can't be looked at")
    assert [each.severity for each in judge_host_firewall([], [])] == [Severity.OK]


@pytest.mark.parametrize(
    ("arp", "severity"),
    [
        (STRICT, Severity.OK),
        (LOOSE, Severity.INFO),
        (LOOSE._replace(answering=("eth0",)), Severity.WARNING),
        (Arp(1, 1, ("eth0",)), Severity.WARNING),
        (Arp(0, 2, ("eth0",)), Severity.WARNING),
        (Arp(1, 2, ("eth0",)), Severity.OK),
    ],
)
def test_shared_addresses_need_strict_arp_where_a_program_answers_arp(arp: Arp, severity: Severity) -> None:
    assert judge_arp(arp, SHARED).severity is severity


def test_without_shared_addresses_arp_harms_nobody_and_without_the_agent_nobody_knows() -> None:
    assert judge_arp(LOOSE._replace(answering=("eth0",)), []).severity is Severity.OK
    assert judge_arp(LOOSE, None).severity is Severity.UNKNOWN
    assert judge_arp(STRICT, None).severity is Severity.OK


def test_of_many_shared_addresses_a_few_are_named() -> None:
    many = [address(f"198.51.100.{number}") for number in range(1, 6)]
    assert "198.51.100.1, 198.51.100.2, 198.51.100.3 and 2 more" in judge_arp(LOOSE, many).meaning


@pytest.mark.parametrize(
    ("pods", "severity"),
    [
        (addresses("10.244.1.9"), Severity.ERROR),
        (addresses("10.244.2.9", "fd00:1::9"), Severity.OK),
        ((), Severity.OK),
        (None, Severity.INFO),
    ],
)
def test_a_bridge_past_netfilter_is_an_error_where_pods_are_on_it(
    pods: tuple[Address, ...] | None, severity: Severity
) -> None:
    (found,) = judge_bridges([BRIDGE], pods, masquerade_all=False)
    assert found.severity is severity


def test_each_family_has_a_setting_of_its_own() -> None:
    bridge = BRIDGE._replace(ipv4_filtered=True, ipv6_filtered=False)
    (found,) = judge_bridges([bridge], addresses("10.244.1.9", "fd00:1::9"), masquerade_all=False)
    assert (found.severity, found.about) == (Severity.ERROR, "cni0 fd00:1::/64")
    assert found.mend.endswith("sysctl -w net.bridge.bridge-nf-call-ip6tables=1")


def test_a_bridge_without_ports_or_with_all_traffic_masqueraded_is_fine() -> None:
    pods = addresses("10.244.1.9")
    assert judge_bridges([BRIDGE._replace(ports=0)], pods, masquerade_all=False)[0].severity is Severity.OK
    assert judge_bridges([BRIDGE], pods, masquerade_all=True)[0].severity is Severity.OK


@pytest.mark.parametrize(
    ("disabled", "wanted", "severity"),
    [
        (True, 0, Severity.OK),
        (None, 0, Severity.OK),
        (False, 2, Severity.OK),
        (True, 2, Severity.ERROR),
        (None, 2, Severity.ERROR),
    ],
)
def test_ipv6_is_missed_only_where_services_have_it(
    *, disabled: bool | None, wanted: int, severity: Severity
) -> None:
    assert judge_ipv6(disabled=disabled, wanted=wanted).severity is severity


@pytest.mark.parametrize(
    ("ports", "local", "reserved", "open_ports"),
    [
        ({30080, 32767}, "32768\t60999", "", []),
        ({30080, 40000}, "32768\t60999", "", [40000]),
        ({1024, 65535}, "1024 65535", "", [1024, 65535]),
        ({30080, 30443, 30444}, "1024 65535", "30000-30100,30443\n", [30444]),
        ({30080}, "1024 65535", "30000-32767", []),
        (set(), "1024 65535", "", []),
    ],
)
def test_node_ports_that_the_nodes_own_connections_may_begin_at_are_a_warning(
    ports: set[int], local: str, reserved: str, open_ports: list[int]
) -> None:
    found = judge_node_ports(ports, local, reserved)
    assert found.severity is (Severity.WARNING if open_ports else Severity.OK)
    if open_ports:
        wanted = ",".join(filter(None, (reserved.strip(), *map(str, open_ports))))
        assert found.mend.startswith(f"sysctl -w net.ipv4.ip_local_reserved_ports={wanted};")


def test_that_no_node_port_is_known_is_not_taken_for_one_that_is_safe() -> None:
    without, safe = (judge_node_ports(ports, "32768 60999", "") for ports in (set[int](), {30080}))
    assert without.meaning != safe.meaning
