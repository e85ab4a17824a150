"""Which way the node sends packets, asked of the kernel over rtnetlink: one question, one answer, nothing changed."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.netlink import NETLINK_ROUTE, NetlinkClient, open_socket
from ipvsproxy.kernel.netlink_codec import decode_attributes, encode_attribute, encode_message
from ipvsproxy.model.addresses import Address, family

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.kernel.netlink import DatagramSocket

# linux/rtnetlink.h
RTM_GETROUTE = 26
RTA_DST = 1
RTA_OIF = 4
RTA_PREFSRC = 7
RTN_UNICAST = 1
RTN_LOCAL = 2

# struct rtmsg: family, length of destination and source, type of service, table, protocol, scope, type, flags.
_HEADER = struct.Struct("=BBBBBBBBI")
_TYPE_OFFSET = 7
_INDEX = struct.Struct("=I")

_NO_ROUTE = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL))


class Route(NamedTuple):
    """The way to an address: the interface that leads there, and the source that the node's own packets have then.

    `local` if the address is one of the node itself. `interface` is "" for one that went away in the meantime.
    """

    interface: str
    source: Address | None
    local: bool


class Routes:
    """The routes of one network namespace: that of the thread that makes the object and calls it."""

    def __init__(self, open_socket: Callable[[int], DatagramSocket] = open_socket) -> None:
        """Open a netlink socket."""
        self._client = NetlinkClient(NETLINK_ROUTE, open_socket)

    def close(self) -> None:
        """Close the socket."""
        self._client.close()

    def to(self, address: Address) -> Route | None:
        """Return the way to an address; None if there is none, OSError if the kernel can't say."""
        bits = len(address) * 8
        header = _HEADER.pack(family(address), bits, 0, 0, 0, 0, 0, 0, 0)
        try:
            (answer,) = self._client.ask(
                encode_message(RTM_GETROUTE, 0, header + encode_attribute(RTA_DST, address))
            )
        except OSError as error:
            if error.errno not in _NO_ROUTE:
                raise
            return None
        return decode_route(answer)


def decode_route(answer: bytes) -> Route | None:
    """Return the route that the payload of an answer tells of; None for one that leads nowhere."""
    kind = answer[_TYPE_OFFSET]
    if kind not in {RTN_UNICAST, RTN_LOCAL}:
        return None
    attributes = decode_attributes(answer, _HEADER.size)
    interface = ""
    with contextlib.suppress(OSError):
        interface = socket.if_indextoname(_INDEX.unpack(attributes[RTA_OIF])[0])
    source = attributes.get(RTA_PREFSRC)
    return Route(interface, Address(bytes(source)) if source else None, kind == RTN_LOCAL)
