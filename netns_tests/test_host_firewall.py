"""Host firewalls as people and programs write them, found in a real kernel's tables."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.host_firewall import HostFirewall, HostFirewallReader
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.nft import NftTable
from ipvsproxy.plan.firewall import FirewallSettings
from ipvsproxy.plan.host_firewall import Backend, HostFirewallFinding
from netns_tests.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICY_DROP = """
table inet filter {
    chain input {
        type filter hook input priority filter + 10; policy drop;
        ct state established,related counter accept
        iifname "lo" accept
        tcp dport 22 accept
        limit rate 5/second log prefix "dropped: "
    }
}
"""

FIREWALLD = """
table inet firewalld {
    chain filter_IN_public {
        tcp dport 22 accept
    }
    chain filter_INPUT_ZONES {
        iifname "eth0" goto filter_IN_public
        goto filter_IN_public
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_INPUT_ZONES
        reject with icmpx admin-prohibited
    }
}
"""

TWO_CHAINS_DOWN = """
table ip filter {
    chain refuse {
        log prefix "refused: " counter drop comment "all that is left"
    }
    chain last {
        udp dport 53 accept
        goto refuse
    }
    chain input {
        type filter hook input priority filter; policy accept;
        ct state established accept
        counter jump last
    }
}
"""

# Every chain of it passes on what no condition fits, or is none that a packet to a service meets before IPVS.
HARMLESS = """
table inet filter {
    chain guard {
        ip saddr 192.0.2.0/24 drop
        tcp dport { 111, 2049 } reject
        meta nfproto ipv6 udp dport vmap { 53 : accept, 69 : drop }
        limit rate over 100/second drop
    }
    chain input {
        type filter hook input priority filter; policy accept;
        ct state invalid drop
        ct state new jump guard
        jump guard
    }
    chain open {
        type filter hook input priority filter + 5; policy drop;
        accept
    }
    chain late {
        type filter hook input priority 100; policy drop;
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
    }
    chain output {
        type filter hook output priority filter; policy drop;
    }
}
"""


def inet(table: str, chain: str, why: str) -> HostFirewallFinding:
    return HostFirewallFinding(Backend.NFTABLES, "inet", table, chain, 10, why)


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace("host") as namespace, namespace.entered():
        yield namespace


@pytest.fixture
def nf_tables(host: Namespace) -> Iterator[NfTables]:
    assert host.name
    opened = NfTables()
    yield opened
    opened.close()


@pytest.fixture
def reader(nf_tables: NfTables) -> HostFirewallReader:
    return HostFirewallReader(nf_tables)


@pytest.mark.parametrize(
    ("ruleset", "finding"),
    [
        (POLICY_DROP, inet("filter", "input", "policy drop")),
        (FIREWALLD, inet("firewalld", "filter_INPUT", "ends with reject")),
        (
            TWO_CHAINS_DOWN,
            HostFirewallFinding(
                Backend.NFTABLES,
                "ip",
                "filter",
                "input",
                0,
                "ends with drop in chain refuse, which it leads to",
            ),
        ),
    ],
    ids=["policy drop", "firewalld", "two chains down"],
)
def test_a_firewall_that_drops_is_found_when_it_comes_and_gone_when_it_goes(
    host: Namespace, reader: HostFirewallReader, ruleset: str, finding: HostFirewallFinding
) -> None:
    assert reader.look() == HostFirewall()
    host.run("nft", "-f", "-", stdin=ruleset)
    assert reader.look() == HostFirewall((finding,))
    host.run("nft", "flush", "ruleset")
    assert reader.look() == HostFirewall()


def test_a_firewall_that_drops_nothing_by_itself_is_no_finding(
    host: Namespace, reader: HostFirewallReader
) -> None:
    host.run("nft", "-f", "-", stdin=HARMLESS)
    assert reader.look() == HostFirewall()


def test_the_own_table_is_no_finding(nf_tables: NfTables, reader: HostFirewallReader) -> None:
    NftTable(FirewallSettings(), nf_tables).install(())
    assert reader.look() == HostFirewall()


def test_following_the_advice_of_a_finding_is_a_rule_that_nft_takes(
    host: Namespace, reader: HostFirewallReader
) -> None:
    host.run("nft", "-f", "-", stdin=POLICY_DROP)
    (finding,) = reader.look().findings
    advice = str(finding).split("`")[1].replace("SERVICE-CIDR", "10.96.0.0/16")
    host.run(*advice.split())
    assert "ip daddr 10.96.0.0/16 accept" in host.run("nft", "list", "chain", "inet", "filter", "input")


@pytest.mark.parametrize(("variant", "backend"), [("nft", Backend.NFTABLES), ("legacy", Backend.LEGACY)])
@pytest.mark.parametrize(("command", "family"), [("iptables", "ip"), ("ip6tables", "ip6")])
class TestIptables:
    @pytest.fixture(autouse=True)
    def _needs_the_programs(self, command: str, variant: str) -> None:
        for program in (f"{command}-{variant}", f"{command}-{variant}-save"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")

    def test_a_policy_that_drops_is_found(
        self,
        host: Namespace,
        reader: HostFirewallReader,
        command: str,
        variant: str,
        backend: Backend,
        family: str,
    ) -> None:
        host.run(f"{command}-{variant}", "-P", "INPUT", "DROP")
        finding = HostFirewallFinding(backend, family, "filter", "INPUT", 0, "policy drop")
        assert reader.look() == HostFirewall((finding,))

    def test_a_last_rule_that_rejects_is_found(
        self,
        host: Namespace,
        reader: HostFirewallReader,
        command: str,
        variant: str,
        backend: Backend,
        family: str,
    ) -> None:
        iptables = f"{command}-{variant}"
        host.run(iptables, "-N", "LAST")
        host.run(iptables, "-A", "LAST", "-m", "comment", "--comment", "no -j ACCEPT", "-j", "REJECT")
        host.run(iptables, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
        host.run(iptables, "-A", "INPUT", "-p", "tcp", "--dport", "111", "-j", "DROP")
        assert reader.look() == HostFirewall()
        host.run(iptables, "-A", "INPUT", "-m", "comment", "--comment", "all the rest", "-j", "LAST")
        why = "ends with reject in chain LAST, which it leads to"
        finding = HostFirewallFinding(backend, family, "filter", "INPUT", 0, why)
        assert reader.look() == HostFirewall((finding,))
