"""Which way the node sends packets, and whether that way is open, asked of the kernel over rtnetlink.

Each question has one answer, and nothing is changed. Rules for policy routing are the kernel's to follow: whoever asks
names the source and the mark that the packet will have.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.address_codec import encode_get_link
from ipvsproxy.kernel.netlink import NETLINK_ROUTE, NetlinkClient, open_socket
from ipvsproxy.kernel.netlink_codec import decode_attributes, encode_attribute, encode_message
from ipvsproxy.model.addresses import Address, family

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.kernel.netlink import DatagramSocket

# linux/rtnetlink.h
RTM_GETROUTE = 26
RTM_GETNEIGH = 30
RTA_DST = 1
RTA_SRC = 2
RTA_IIF = 3
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PREFSRC = 7
RTA_MARK = 16
RTA_VIA = 18
RTN_UNICAST = 1
RTN_LOCAL = 2
# linux/if.h
IFF_UP = 0x1
IFF_LOWER_UP = 0x10000
# linux/neighbour.h
NDA_DST = 1
NUD_INCOMPLETE = 0x01
NUD_FAILED = 0x20

# struct rtmsg: family, length of destination and source, type of service, table, protocol, scope, type, flags.
_HEADER = struct.Struct("=BBBBBBBBI")
_TYPE_OFFSET = 7
_INDEX = struct.Struct("=I")
# struct ifinfomsg
_FLAGS_OFFSET = 8
# struct ndmsg: family, index of the interface, state, flags, type.
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_STATE_OFFSET = 8
_STATE = struct.Struct("=H")
# struct rtvia begins with the family of the address, which is another one than that of the route.
_VIA_OFFSET = 2

# EXDEV is the answer where the source is one that the interface may not bring (rp_filter), ENODEV where that is gone.
_NO_ROUTE = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EXDEV, errno.ENODEV)
)


class Sender(NamedTuple):
    """Whose packet it is: its source, its mark, and the interface that it arrived by, "" if a process sent it."""

    source: Address
    mark: int = 0
    arrived_by: str = ""


class Route(NamedTuple):
    """The way to an address: the interface that leads there, and the source that the node's own packets have then.

    `local` if the address is one of the node itself. `interface` is "" for one that went away in the meantime.
    `next_hop` is the router that gets the packet, None where the address itself is behind the interface.
    """

    interface: str
    source: Address | None
    local: bool
    next_hop: Address | None = None


class Routes:
    """The routes of one network namespace: that of the thread that makes the object and calls it."""

    def __init__(self, open_socket: Callable[[int], DatagramSocket] = open_socket) -> None:
        """Open a netlink socket."""
        self._client = NetlinkClient(NETLINK_ROUTE, open_socket)

    def close(self) -> None:
        """Close the socket."""
        self._client.close()

    def to(self, address: Address, sender: Sender | None = None) -> Route | None:
        """Return the way to an address; None if there is none, or it leads nowhere. OSError if the kernel can't say.

        Without a sender it is the way of a packet whose source and mark do not matter, as IPVS asks for it.
        """
        bits = len(address) * 8
        header = _HEADER.pack(family(address), bits, bits if sender else 0, 0, 0, 0, 0, 0, 0)
        attributes = encode_attribute(RTA_DST, address)
        try:
            if sender:
                attributes += encode_attribute(RTA_SRC, sender.source)
                attributes += encode_attribute(RTA_MARK, _INDEX.pack(sender.mark))
                if sender.arrived_by:
                    attributes += encode_attribute(RTA_IIF, _INDEX.pack(_index(sender.arrived_by)))
            (answer,) = self._client.ask(encode_message(RTM_GETROUTE, 0, header + attributes))
        except OSError as error:
            if error.errno not in _NO_ROUTE:
                raise
            return None
        return decode_route(answer)

    def is_up(self, interface: str) -> bool:
        """Say whether an interface is up and has a carrier; one that is not there is neither."""
        try:
            (answer,) = self._client.ask(encode_get_link(interface))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        flags: int = _INDEX.unpack_from(answer, _FLAGS_OFFSET)[0]
        return bool(flags & IFF_UP and flags & IFF_LOWER_UP)

    def is_silent(self, neighbour: Address, interface: str) -> bool:
        """Say whether a neighbour did not answer when the kernel last asked for its link layer address.

        Nobody knows of one that was not asked for lately.
        """
        try:
            header = _NEIGHBOUR.pack(family(neighbour), _index(interface), 0, 0, 0)
            (answer,) = self._client.ask(
                encode_message(RTM_GETNEIGH, 0, header + encode_attribute(NDA_DST, neighbour))
            )
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EINVAL}:
                raise
            return False
        return bool(_STATE.unpack_from(answer, _STATE_OFFSET)[0] & (NUD_INCOMPLETE | NUD_FAILED))


def decode_route(answer: bytes) -> Route | None:
    """Return the route that the payload of an answer tells of; None for one that leads nowhere."""
    kind = answer[_TYPE_OFFSET]
    if kind not in {RTN_UNICAST, RTN_LOCAL}:
        return None
    attributes = decode_attributes(answer, _HEADER.size)
    interface = ""
    with contextlib.suppress(OSError):
        interface = socket.if_indextoname(_INDEX.unpack(attributes[RTA_OIF])[0])
    source, next_hop = attributes.get(RTA_PREFSRC), attributes.get(RTA_GATEWAY)
    if RTA_VIA in attributes:
        next_hop = attributes[RTA_VIA][_VIA_OFFSET:]
    return Route(
        interface,
        Address(bytes(source)) if source else None,
        kind == RTN_LOCAL,
        Address(bytes(next_hop)) if next_hop else None,
    )


def _index(interface: str) -> int:
    """Return an interface's index; OSError ENODEV if there is none of the name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error
