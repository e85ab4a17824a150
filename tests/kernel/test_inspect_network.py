"""Bridges, programs that answer ARP, and IPv6, from messages and files as the kernel writes them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.inspect_network import decode_links, read_arp, read_ipv6_disabled
from ipvsproxy.kernel.netlink_codec import encode_attribute
from ipvsproxy.model.addresses import family, parse_address
from ipvsproxy.plan.check.network import Arp, Bridge
from tests.builders import networks
from tests.kernel.settings_tree import settings_tree

if TYPE_CHECKING:
    from pathlib import Path

IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO = 3, 10, 18
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
PACKETS = """\
sk               RefCnt Type Proto  Iface R Rmem   User   Inode
(____ptrval____) 3      3    0806   2     1 0      0      58
(____ptrval____) 3      3    0003   3     1 0      0      59
(____ptrval____) 3      2    0806   0     1 0      0      60
"""


def link(index: int, name: str, *attributes: bytes) -> bytes:
    header = struct.pack("=BxHiII", 0, 1, index, 0, 0)
    return header + encode_attribute(IFLA_IFNAME, name.encode() + b"\0") + b"".join(attributes)


def bridge(index: int, name: str, options: bytes = b"") -> bytes:
    kind = encode_attribute(IFLA_INFO_KIND, b"bridge\0")
    return link(
        index, name, encode_attribute(IFLA_LINKINFO, kind + encode_attribute(IFLA_INFO_DATA, options))
    )


def port(index: int, name: str, master: int) -> bytes:
    return link(index, name, encode_attribute(IFLA_MASTER, struct.pack("=I", master)))


def on(index: int, text: str, prefix_length: int) -> bytes:
    address = parse_address(text)
    header = struct.pack("=BBBBI", family(address), prefix_length, 0, 0, index)
    return header + encode_attribute(1, address)


def test_a_bridge_has_its_networks_and_ports_and_other_interfaces_have_names_only() -> None:
    found = decode_links(
        [link(1, "lo"), bridge(2, "cni0"), port(3, "veth0", 2), port(4, "veth1", 2)],
        [on(1, "127.0.0.1", 8), on(2, "10.244.1.1", 24), on(2, "fd00:1::1", 64), on(2, "fe80::1", 64)],
        ipv4_called=False,
        ipv6_called=True,
    )
    assert found.names == {1: "lo", 2: "cni0", 3: "veth0", 4: "veth1"}
    assert found.bridges == (
        Bridge("cni0", networks("10.244.1.0/24", "fd00:1::/64"), 2, ipv4_filtered=False, ipv6_filtered=True),
    )


@pytest.mark.parametrize(("option", "filtered"), [(36, (True, False)), (37, (False, True))])
def test_a_bridge_can_call_netfilter_by_itself(option: int, filtered: tuple[bool, bool]) -> None:
    options = encode_attribute(option, b"\x01") + encode_attribute(73 - option, b"\x00")
    (found,) = decode_links([bridge(2, "cni0", options)], [], ipv4_called=False, ipv6_called=False).bridges
    assert (found.ipv4_filtered, found.ipv6_filtered) == filtered


def test_packet_sockets_for_arp_are_told_by_their_interfaces(tmp_path: Path) -> None:
    (tmp_path / "packet").write_text(PACKETS)
    settings = {"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}
    sysctls = settings_tree(tmp_path, settings)
    assert read_arp(sysctls, {2: "eth0", 3: "eth1"}, tmp_path) == Arp(1, 2, ("all interfaces", "eth0"))


def test_the_interfaces_own_setting_for_ipv6_goes_before_the_one_of_new_interfaces(tmp_path: Path) -> None:
    own, new = "net.ipv6.conf.kube-ipvs0.disable_ipv6", "net.ipv6.conf.default.disable_ipv6"
    assert read_ipv6_disabled(settings_tree(tmp_path, {})) is None
    assert read_ipv6_disabled(settings_tree(tmp_path, {new: "1"})) is True
    assert read_ipv6_disabled(settings_tree(tmp_path, {own: "0"})) is False
