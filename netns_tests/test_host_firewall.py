"""Host firewalls as people and programs write them, found in a real kernel's tables."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.host_firewall import HostFirewall, HostFirewallReader
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.nft import NftTable
from ipvsproxy.plan.firewall import FirewallSettings
from ipvsproxy.plan.host_firewall import find_drops
from netns_tests.namespaces import Namespace
from tests.builders import key

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
# Answers to processes of the node meet each chain.
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
        ct state established accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state vmap { established : accept, related : accept }
    }
}
"""


def found(reader: HostFirewallReader) -> list[tuple[str, str]]:
    """Return the chains that drop packets to a Service, and by what."""
    firewall = reader.look()
    assert firewall.unseen == ()
    served = [key("10.96.0.10"), key("fd00:10:96::10")]
    return [(str(each.base), each.end.why) for each in find_drops(firewall.tables, served)]


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
    ("ruleset", "chain", "why"),
    [
        (POLICY_DROP, "chain input of table inet filter (nftables)", "policy drop"),
        (
            FIREWALLD,
            "chain filter_INPUT of table inet firewalld (nftables)",
            "rule `reject with icmpx 3` of chain filter_INPUT",
        ),
        (
            TWO_CHAINS_DOWN,
            "chain input of table ip filter (nftables)",
            'rule `log prefix "refused: " counter packets 0 bytes 0 drop comment "all that is left"` of chain refuse',
        ),
    ],
    ids=["policy drop", "firewalld", "two chains down"],
)
def test_a_firewall_that_drops_is_found_when_it_comes_and_gone_when_it_goes(
    host: Namespace, reader: HostFirewallReader, ruleset: str, chain: str, why: str
) -> None:
    assert found(reader) == []
    host.run("nft", "-f", "-", stdin=ruleset)
    assert found(reader) == [(chain, why)]
    host.run("nft", "flush", "ruleset")
    assert found(reader) == []


def test_a_firewall_that_drops_nothing_by_itself_is_no_finding(
    host: Namespace, reader: HostFirewallReader
) -> None:
    host.run("nft", "-f", "-", stdin=HARMLESS)
    assert found(reader) == []


@pytest.mark.parametrize("hook", ["prerouting", "input", "forward", "output", "postrouting"])
def test_each_hook_is_looked_at(host: Namespace, reader: HostFirewallReader, hook: str) -> None:
    base = f"type filter hook {hook} priority 10"
    host.run("nft", "-f", "-", stdin=f"table inet t {{ chain c {{ {base}; meta l4proto tcp drop; }}; }}")
    assert set(found(reader)) == {
        ("chain c of table inet t (nftables)", "rule `meta l4proto 6 drop` of chain c")
    }


def test_the_own_table_is_no_finding(nf_tables: NfTables, reader: HostFirewallReader) -> None:
    NftTable(FirewallSettings(), nf_tables).install(())
    assert reader.look() == HostFirewall()


def test_following_the_advice_of_a_finding_is_a_rule_that_nft_takes_and_the_end_of_it(
    host: Namespace, reader: HostFirewallReader
) -> None:
    host.run("nft", "-f", "-", stdin=POLICY_DROP)
    served = [key("10.96.0.10")]
    (finding,) = find_drops(reader.look().tables, served)
    host.run(*finding.command.replace("SERVICE-CIDR", "10.96.0.0/16").split())
    assert "ip daddr 10.96.0.0/16 accept" in host.run("nft", "list", "chain", "inet", "filter", "input")
    assert find_drops(reader.look().tables, served) == []
    host.run("nft", "insert rule inet filter input ip daddr 10.96.0.10 drop")
    (finding,) = find_drops(reader.look().tables, served)
    host.run(*finding.command.split())
    assert find_drops(reader.look().tables, served) == []


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("command", ["iptables", "ip6tables"])
class TestIptables:
    @pytest.fixture(autouse=True)
    def _needs_the_programs(self, command: str, variant: str) -> None:
        for program in (f"{command}-{variant}", f"{command}-{variant}-save"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")

    @pytest.fixture
    def iptables(self, command: str, variant: str) -> str:
        return f"{command}-{variant}"

    @pytest.fixture
    def family(self, command: str) -> str:
        return "ip6" if command == "ip6tables" else "ip"

    @pytest.fixture
    def backend(self, variant: str) -> str:
        return f"iptables-{variant}"

    @pytest.fixture
    def chain(self, family: str, backend: str) -> str:
        return f"chain INPUT of table {family} filter ({backend})"

    def test_a_policy_that_drops_is_found_until_what_is_advised_is_done(
        self, host: Namespace, reader: HostFirewallReader, iptables: str, chain: str, family: str
    ) -> None:
        host.run(iptables, "-P", "INPUT", "DROP")
        assert found(reader) == [(chain, "policy drop")]
        (finding,) = find_drops(reader.look().tables, ())
        cidr = "10.96.0.0/16" if family == "ip" else "fd00:10:96::/112"
        host.run(*finding.command.replace("SERVICE-CIDR", cidr).split())
        assert found(reader) == []

    def test_a_last_rule_that_rejects_is_found(
        self, host: Namespace, reader: HostFirewallReader, iptables: str, chain: str
    ) -> None:
        host.run(iptables, "-N", "LAST")
        host.run(iptables, "-A", "LAST", "-m", "comment", "--comment", "no -j ACCEPT", "-j", "REJECT")
        host.run(iptables, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
        host.run(iptables, "-A", "INPUT", "-p", "tcp", "--dport", "111", "-j", "DROP")
        assert found(reader) == []
        host.run(iptables, "-A", "INPUT", "-m", "comment", "--comment", "all the rest", "-j", "LAST")
        ((where, why),) = found(reader)
        assert where == chain
        assert why.startswith('rule `-A LAST -m comment --comment "no -j ACCEPT" -j REJECT')

    def test_a_single_rule_is_found_and_its_removal_is_the_advice(
        self, host: Namespace, reader: HostFirewallReader, iptables: str, family: str
    ) -> None:
        address = "10.96.0.10" if family == "ip" else "fd00:10:96::10"
        host.run(iptables, "-A", "INPUT", "-d", address, "-p", "tcp", "--dport", "80", "-j", "REJECT")
        served = [key("10.96.0.10"), key("fd00:10:96::10"), key("10.96.0.11"), key("fd00:10:96::11")]
        (finding,) = find_drops(reader.look().tables, served)
        assert finding.served == (str(key(address)),)
        host.run(*finding.command.split())
        assert find_drops(reader.look().tables, served) == []

    @pytest.mark.parametrize("table", ["raw", "mangle"])
    def test_other_tables_are_looked_at(
        self,
        host: Namespace,
        reader: HostFirewallReader,
        iptables: str,
        family: str,
        backend: str,
        table: str,
    ) -> None:
        host.run(iptables, "-t", table, "-A", "PREROUTING", "-p", "tcp", "-j", "DROP")
        assert {where for where, _ in found(reader)} == {
            f"chain PREROUTING of table {family} {table} ({backend})"
        }

    def test_a_rule_of_nfts_own_among_those_of_iptables_is_read_by_nft(
        self, host: Namespace, reader: HostFirewallReader, iptables: str, family: str, variant: str
    ) -> None:
        if variant == "legacy":
            pytest.skip("nft has no part in iptables-legacy")
        host.run(iptables, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
        pair = "10.96.0.10 . 80" if family == "ip" else "fd00:10:96::10 . 80"
        host.run("nft", f"add rule {family} filter INPUT {family} daddr . tcp dport {{ {pair} }} drop")
        host.run("nft", f"add rule {family} filter INPUT meta l4proto 6 drop")
        # As iptables-nft has it, the first of these would drop all of TCP.
        assert [why for _, why in found(reader)] == [
            f"rule `{line}` of chain INPUT"
            for line in host.run(f"{iptables}-save", "-t", "filter").splitlines()
            if line.startswith("-A INPUT -p tcp")
        ][1:]
