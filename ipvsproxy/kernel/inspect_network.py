"""What a network namespace has beside the agent's own: bridges, programs that answer ARP, the setting for IPv6."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.address_codec import (
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    RTM_GETLINK,
    decode_interface_index,
    decode_link_name,
    encode_get_addresses,
)
from ipvsproxy.kernel.netlink import NETLINK_ROUTE, NetlinkClient
from ipvsproxy.kernel.netlink_codec import decode_attributes, encode_message
from ipvsproxy.model.addresses import Address, format_address, parse_network
from ipvsproxy.plan.check.network import Arp, Bridge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ipvsproxy.kernel.interface import Sysctls
    from ipvsproxy.model.addresses import Network

# linux/if_link.h
IFLA_MASTER = 10
IFLA_INFO_DATA = 2
IFLA_BR_NF_CALL_IPTABLES = 36
IFLA_BR_NF_CALL_IP6TABLES = 37
# linux/if_addr.h
IFA_ADDRESS = 1
IFA_LOCAL = 2

# The sizes of struct ifinfomsg and struct ifaddrmsg; in the latter, the second byte is the prefix length.
_LINK_HEADER_SIZE = 16
_ADDRESS_HEADER_SIZE = 8
_INDEX = struct.Struct("=I")

_PROC_NET = Path("/proc/thread-self/net")
# linux/if_ether.h ETH_P_ARP, as /proc/net/packet writes it.
_ARP = "0806"
_LINK_LOCAL = parse_network("fe80::/10")


class Links(NamedTuple):
    """The names of the interfaces by their index, and those of them that are bridges."""

    names: Mapping[int, str]
    bridges: tuple[Bridge, ...]


def read_links(sysctls: Sysctls) -> Links:
    """Read the interfaces of the calling thread's network namespace; OSError."""
    with NetlinkClient(NETLINK_ROUTE) as client:
        links = client.dump(encode_message(RTM_GETLINK, 0, bytes(_LINK_HEADER_SIZE)))
        addresses = client.dump(encode_get_addresses())
    called = [
        sysctls.get(f"net.bridge.bridge-nf-call-{program}") == "1" for program in ("iptables", "ip6tables")
    ]
    return decode_links(
        [payload for chunk in links for payload in chunk],
        [payload for chunk in addresses for payload in chunk],
        ipv4_called=called[0],
        ipv6_called=called[1],
    )


def decode_links(
    links: Sequence[bytes], addresses: Sequence[bytes], *, ipv4_called: bool, ipv6_called: bool
) -> Links:
    """Return what GETLINK and GETADDR answers say; `called` is whether all bridges call netfilter (br_netfilter)."""
    names: dict[int, str] = {}
    ports: Counter[int] = Counter()
    options: dict[int, dict[int, bytes]] = {}
    for payload in links:
        index = decode_interface_index(payload)
        names[index] = decode_link_name(payload)
        attributes = decode_attributes(payload, _LINK_HEADER_SIZE)
        if IFLA_MASTER in attributes:
            ports[_INDEX.unpack(attributes[IFLA_MASTER])[0]] += 1
        information = decode_attributes(attributes.get(IFLA_LINKINFO, b""))
        if information.get(IFLA_INFO_KIND) == b"bridge\0":
            options[index] = decode_attributes(information.get(IFLA_INFO_DATA, b""))
    networks: dict[int, list[Network]] = {index: [] for index in options}
    for payload in addresses:
        index = decode_interface_index(payload)
        network = _network(payload)
        if index in networks and not _LINK_LOCAL.contains(network.address):
            networks[index].append(network)
    return Links(
        names,
        tuple(
            Bridge(
                names[index],
                tuple(dict.fromkeys(networks[index])),
                ports[index],
                ipv4_called or any(option.get(IFLA_BR_NF_CALL_IPTABLES, b"")),
                ipv6_called or any(option.get(IFLA_BR_NF_CALL_IP6TABLES, b"")),
            )
            for index, option in options.items()
        ),
    )


def read_arp(sysctls: Sysctls, names: Mapping[int, str], proc_net: Path = _PROC_NET) -> Arp:
    """Read who answers ARP; `names` are those of the interfaces by their index. OSError, ValueError.

    A line of /proc/net/packet is a packet socket: its protocol is the fourth word, its interface's index the fifth, 0
    for all interfaces.
    """
    ignore, announce = (
        int(sysctls.get(f"net.ipv4.conf.all.arp_{name}") or 0) for name in ("ignore", "announce")
    )
    answering = set()
    for line in (proc_net / "packet").read_text().splitlines()[1:]:
        _, _, _, protocol, index, *_ = line.split()
        if protocol == _ARP:
            answering.add(names.get(int(index), "all interfaces"))
    return Arp(ignore, announce, tuple(sorted(answering)))


def read_ipv6_disabled(sysctls: Sysctls) -> bool | None:
    """Return whether the dummy interface takes no IPv6 addresses, or would not; None if the kernel has no IPv6."""
    for interface in ("kube-ipvs0", "default"):
        value = sysctls.get(f"net.ipv6.conf.{interface}.disable_ipv6")
        if value is not None:
            return value == "1"
    return None


def _network(payload: bytes) -> Network:
    attributes = decode_attributes(payload, _ADDRESS_HEADER_SIZE)
    address = Address(attributes.get(IFA_LOCAL) or attributes[IFA_ADDRESS])
    return parse_network(f"{format_address(address)}/{payload[1]}")
