"""Netlink messages and attributes as bytes: the framing that every netlink family shares, without I/O.

A message is a header (`struct nlmsghdr`), the family's own header, and attributes (`struct nlattr`), each padded to
4 bytes. Numbers are in the host's byte order unless a family says otherwise. The names are those of linux/netlink.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.interface import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSGERR_ATTR_MSG = 1

# Its three upper bits are NLA_F_NESTED, NLA_F_NET_BYTEORDER and one that is reserved.
_NLA_TYPE_MASK = 0x1FFF

# Where a message's flags and its sequence number are.
FLAGS_OFFSET = 6
SEQUENCE_OFFSET = 8

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
# The code, then the header of the request: NETLINK_CAP_ACK leaves the rest of the request out.
_CAPPED_ERROR_LENGTH = _ERROR.size + HEADER.size


class Message(NamedTuple):
    """One message of a datagram; `payload` is what follows `struct nlmsghdr`."""

    type: int
    flags: int
    sequence: int
    payload: bytes


def encode_message(message_type: int, flags: int, payload: bytes) -> bytes:
    """Return the request with NLM_F_REQUEST set and sequence number 0, which the client fills in.

    The payload's length is a multiple of 4, as that of attributes is.
    """
    return HEADER.pack(HEADER.size + len(payload), message_type, flags | NLM_F_REQUEST, 0, 0) + payload


def encode_attribute(attribute_type: int, value: bytes) -> bytes:
    """Return the attribute, padded; a nested one has encoded attributes for its value."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), attribute_type) + value + bytes(-len(value) % 4)


def decode_messages(datagram: bytes) -> Iterator[Message]:
    """Yield the messages of one received datagram; ValueError if it is cut short."""
    offset, end = 0, len(datagram)
    unpack_header, header_size = HEADER.unpack_from, HEADER.size
    while offset < end:
        if offset + header_size > end:
            raise ValueError("a netlink message is cut short")
        length, message_type, flags, sequence, _ = unpack_header(datagram, offset)
        if length < header_size or offset + length > end:
            raise ValueError("a netlink message is cut short")
        yield Message(message_type, flags, sequence, datagram[offset + header_size : offset + length])
        offset += (length + 3) & ~3


def decode_attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the values of the attributes from `offset` on, by attribute type; ValueError if one is cut short."""
    values: dict[int, bytes] = {}
    end = len(data)
    unpack_attribute = ATTRIBUTE.unpack_from
    # Fewer than four bytes are padding.
    while offset + 4 <= end:
        length, attribute_type = unpack_attribute(data, offset)
        if length < ATTRIBUTE.size or offset + length > end:
            raise ValueError("a netlink attribute is cut short")
        values[attribute_type & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return values


def decode_error(message: Message) -> KernelError:
    """Return what an NLMSG_ERROR message says; its code is 0 for an acknowledgement.

    The text is that of the extended acknowledgement (NETLINK_EXT_ACK), "" without one.
    """
    (negative_code,) = _ERROR.unpack_from(message.payload)
    if not message.flags & NLM_F_ACK_TLVS or not message.flags & NLM_F_CAPPED:
        return KernelError(-negative_code)
    text = decode_attributes(message.payload, _CAPPED_ERROR_LENGTH).get(NLMSGERR_ATTR_MSG, b"")
    return KernelError(-negative_code, text.rstrip(b"\0").decode(errors="replace"))
