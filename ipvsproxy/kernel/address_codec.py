"""Interfaces and their addresses as bytes of rtnetlink messages, and back, without I/O.

A service address is bound as /32 or /128, and in such a way that the kernel never chooses it as the source of other
traffic: every node of the cluster has it. An IPv4 one has the scope of the host, an IPv6 one no preferred lifetime. An
IPv6 one skips duplicate address detection too: until that is over, which it never is on an interface that is down, the
address does not serve.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.netlink_codec import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    decode_attributes,
    encode_attribute,
    encode_message,
)
from ipvsproxy.model.addresses import Address, Family, Holding, family, parse_network

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# linux/rtnetlink.h
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_HOST = 254

# linux/if_addr.h
IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_CACHEINFO = 6
IFA_F_SECONDARY = 0x01  # of IPv4; IPv6 has IFA_F_TEMPORARY here
IFA_F_NODAD = 0x02
IFA_F_DADFAILED = 0x08

# linux/if_link.h
IFLA_IFNAME = 3
IFLA_LINKINFO = 18
IFLA_INFO_KIND = 1

# struct ifaddrmsg: family, prefix length, flags, scope, interface index.
_ADDRESS_HEADER = struct.Struct("=BBBBI")
# struct ifa_cacheinfo: preferred and valid lifetime in seconds, and two times that the kernel fills in.
_LIFETIMES = struct.Struct("=IIII")
_FOR_EVER = 0xFFFFFFFF
# struct ifinfomsg: family, device type, interface index, flags, mask of the flags.
_LINK_HEADER = struct.Struct("=BxHiII")

_LINK_LOCAL = parse_network("fe80::/10")


class Link(NamedTuple):
    """A network interface: its index, and its driver's name, "" for one that is not virtual."""

    interface_index: int
    kind: str


class InterfaceAddress(NamedTuple):
    """An address, with the index of the interface that has it, and how the interface holds it."""

    interface_index: int
    address: Address
    holding: Holding


def encode_changes(
    interface_index: int, add: Collection[Address], remove: Collection[Address]
) -> Iterator[bytes]:
    """Yield the messages that remove addresses from the interface, then those that add addresses."""
    removals = {each: _encode_change(RTM_DELADDR, 0, interface_index, each) for each in Family}
    additions = {
        each: _encode_change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, interface_index, each) for each in Family
    }
    for address in remove:
        yield removals[family(address)] + address
    for address in add:
        yield additions[family(address)] + address


def encode_get_addresses(interface_index: int = 0) -> bytes:
    """Return the request for a dump of the addresses of the interface of that index; 0 for those of all."""
    return encode_message(RTM_GETADDR, 0, _ADDRESS_HEADER.pack(0, 0, 0, 0, interface_index))


def encode_get_link(name: str) -> bytes:
    """Return the request for the interface of that name."""
    return encode_message(RTM_GETLINK, 0, _LINK_HEADER.pack(0, 0, 0, 0, 0) + _encode_name(name))


def encode_delete_link(name: str) -> bytes:
    """Return the request to remove the interface of that name."""
    return encode_message(RTM_DELLINK, 0, _LINK_HEADER.pack(0, 0, 0, 0, 0) + _encode_name(name))


def encode_new_dummy(name: str) -> bytes:
    """Return the request for a new dummy interface; it is down, without ARP, as the driver makes it."""
    kind = encode_attribute(IFLA_INFO_KIND, b"dummy\0")
    return encode_message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        _LINK_HEADER.pack(0, 0, 0, 0, 0) + _encode_name(name) + encode_attribute(IFLA_LINKINFO, kind),
    )


def decode_address(payload: bytes) -> InterfaceAddress | None:
    """Return the address of a GETADDR answer; None for an IPv6 one that is link-local, or another host's.

    No Service has a link-local address. Another host's is what duplicate address detection says of it, once it is over:
    before that the address counts, since IPVS needs no socket that is bound to it.
    """
    flags: int = _ADDRESS_HEADER.unpack_from(payload)[2]
    return None if flags & IFA_F_DADFAILED else decode_changed_address(payload)


def decode_changed_address(payload: bytes) -> InterfaceAddress | None:
    """Return the address of a NEWADDR or DELADDR message; None for an IPv6 link-local one."""
    _, prefix_length, flags, _, interface_index = _ADDRESS_HEADER.unpack_from(payload)
    address = _local_address(payload)
    if _LINK_LOCAL.contains(address):
        return None
    of = family(address)
    alone = prefix_length == of.bits or (of is Family.IPV4 and flags & IFA_F_SECONDARY)
    return InterfaceAddress(interface_index, address, Holding.ALONE if alone else Holding.WITH_NETWORK)


def decode_interface_index(payload: bytes) -> int:
    """Return the interface index in the header of a message about an address or a link: both have it in one place."""
    interface_index: int = _ADDRESS_HEADER.unpack_from(payload)[-1]
    return interface_index


def decode_link_name(payload: bytes) -> str:
    """Return the interface's name in a NEWLINK or DELLINK message."""
    return decode_attributes(payload, _LINK_HEADER.size)[IFLA_IFNAME].rstrip(b"\0").decode()


def decode_link(payload: bytes) -> Link:
    """Return the interface of a GETLINK answer."""
    _, _, interface_index, _, _ = _LINK_HEADER.unpack_from(payload)
    attributes = decode_attributes(payload, _LINK_HEADER.size)
    information = decode_attributes(attributes.get(IFLA_LINKINFO, b""))
    return Link(interface_index, information.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode())


def _encode_change(message_type: int, flags: int, interface_index: int, address_family: Family) -> bytes:
    """Return the message to add or remove an address, up to the address itself."""
    no_address = bytes(address_family.bits // 8)
    if address_family is Family.IPV4:
        address_flags, scope, lifetimes = 0, RT_SCOPE_HOST, b""
    else:
        address_flags, scope = IFA_F_NODAD, RT_SCOPE_UNIVERSE
        lifetimes = encode_attribute(IFA_CACHEINFO, _LIFETIMES.pack(0, _FOR_EVER, 0, 0))
    header = _ADDRESS_HEADER.pack(address_family, address_family.bits, address_flags, scope, interface_index)
    attributes = lifetimes + encode_attribute(IFA_LOCAL, no_address)
    return encode_message(message_type, flags, header + attributes)[: -len(no_address)]


def _local_address(payload: bytes) -> Address:
    """Return the address in a message about one."""
    attributes = decode_attributes(payload, _ADDRESS_HEADER.size)
    # IFA_ADDRESS is the other end's on a point-to-point interface, and all that IPv6 has elsewhere.
    return Address(attributes.get(IFA_LOCAL) or attributes[IFA_ADDRESS])


def _encode_name(name: str) -> bytes:
    """Return the attribute with an interface's name."""
    return encode_attribute(IFLA_IFNAME, name.encode() + b"\0")
