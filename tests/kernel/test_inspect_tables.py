"""How full tables of connections are, from files as the kernel writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.inspect_tables import read_conntrack, read_conntrack_drops, read_ipvs
from ipvsproxy.plan.check.room import Conntrack, IpvsTable
from tests.kernel.settings_tree import settings_tree

if TYPE_CHECKING:
    from pathlib import Path

STATISTICS = """\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error
0000002a  00000000 00000000 00000000 00000000 00000000 00000000 00000001 00000000 00000000 0000000a 00000000 00000000
0000002a  00000000 00000000 00000000 00000000 00000000 00000000 00000001 00000000 00000000 00000001 00000000 00000000
"""
IP_VS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr
  -> 0AF4010A:1F90      Masq    1      2          5
  -> 0AF4010B:1F90      Masq    0      1          0
UDP  [fd00:0010:0096:0000:0000:0000:0000:0035]:0035 wlc persistent 10800
FWM  00000001 sh
"""


@pytest.fixture
def proc_net(tmp_path: Path) -> Path:
    (tmp_path / "stat").mkdir()
    (tmp_path / "stat" / "nf_conntrack").write_text(STATISTICS)
    (tmp_path / "ip_vs").write_text(IP_VS)
    return tmp_path


def test_drops_are_hexadecimal_and_added_up_over_the_processors(proc_net: Path) -> None:
    assert read_conntrack_drops(proc_net) == 11


def test_drops_since_before_are_told_apart(proc_net: Path) -> None:
    settings = {"net.netfilter.nf_conntrack_count": "42", "net.netfilter.nf_conntrack_max": "50"}
    found = read_conntrack(settings_tree(proc_net, settings), 9, proc_net)
    assert found == Conntrack(42, 50, 11, 2)


def test_connection_tracking_that_does_not_say_how_full_it_is_is_an_error(proc_net: Path) -> None:
    with pytest.raises(ValueError, match="does not say how many connections it has"):
        read_conntrack(settings_tree(proc_net, {"net.netfilter.nf_conntrack_max": "50"}), 0, proc_net)


def test_connections_and_schedulers_of_all_virtual_servers_are_read(proc_net: Path) -> None:
    found = read_ipvs(settings_tree(proc_net, {}), proc_net)
    assert found.table == IpvsTable(8, 4096, resizable=False)
    assert found.schedulers == {"rr", "wlc", "sh"}


def test_a_kernel_with_a_load_factor_makes_its_table_larger_by_itself(proc_net: Path) -> None:
    assert read_ipvs(settings_tree(proc_net, {"net.ipv4.vs.conn_lfactor": "-4"}), proc_net).table.resizable


@pytest.mark.parametrize("text", ["", "something else\n"])
def test_a_file_that_does_not_begin_with_the_size_is_an_error(proc_net: Path, text: str) -> None:
    (proc_net / "ip_vs").write_text(text)
    with pytest.raises(ValueError, match="does not begin with the table's size"):
        read_ipvs(settings_tree(proc_net, {}), proc_net)
