"""Connection tracking entries as bytes of ctnetlink messages, and back, without I/O.

An entry has two tuples of addresses and ports. The original one is that of the client's first packet: its destination
is what the client sent to. The reply one is that of the answers: its source is who gives them, which IPVS sets to the
endpoint that it chose (net.ipv4.vs.conntrack).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ipvsproxy.kernel.netlink_codec import ATTRIBUTE, decode_attributes, encode_attribute, encode_message
from ipvsproxy.model.addresses import Address, Family, family
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.objects import Protocol

# linux/netlink.h
NLA_F_NESTED = 0x8000

# linux/netfilter/nfnetlink.h
NFNL_SUBSYS_CTNETLINK = 1

# linux/netfilter/nfnetlink_conntrack.h
IPCTNL_MSG_CT_GET = 1
IPCTNL_MSG_CT_DELETE = 2

CTA_TUPLE_ORIG = 1
CTA_TUPLE_REPLY = 2
CTA_STATUS = 3
CTA_ID = 12
CTA_ZONE = 18
CTA_FILTER = 25
CTA_STATUS_MASK = 26

# linux/netfilter/nf_conntrack_common.h
IPS_SEEN_REPLY = 1 << 1

CTA_TUPLE_IP = 1
CTA_TUPLE_PROTO = 2
CTA_TUPLE_ZONE = 3

CTA_IP_V4_SRC = 1
CTA_IP_V4_DST = 2
CTA_IP_V6_SRC = 3
CTA_IP_V6_DST = 4

CTA_PROTO_NUM = 1
CTA_PROTO_SRC_PORT = 2
CTA_PROTO_DST_PORT = 3

CTA_FILTER_ORIG_FLAGS = 1

# net/netfilter/nf_internals.h: the fields of a tuple that a dump is filtered by.
CTA_FILTER_F_CTA_IP_DST = 1 << 1
CTA_FILTER_F_CTA_PROTO_NUM = 1 << 3
CTA_FILTER_F_CTA_PROTO_DST_PORT = 1 << 5

# struct nfgenmsg: family, version 0 and a resource identifier that ctnetlink does not use.
_HEADER_SIZE = 4
_UINT32 = struct.Struct("=I")
_PORT = struct.Struct("!H")

_DESTINATION_FLAGS = CTA_FILTER_F_CTA_IP_DST | CTA_FILTER_F_CTA_PROTO_NUM | CTA_FILTER_F_CTA_PROTO_DST_PORT
_SOURCE_ADDRESS = {Family.IPV4: CTA_IP_V4_SRC, Family.IPV6: CTA_IP_V6_SRC}
_DESTINATION_ADDRESS = {Family.IPV4: CTA_IP_V4_DST, Family.IPV6: CTA_IP_V6_DST}
_PROTOCOLS = {protocol.value: protocol for protocol in Protocol}


class _OriginalLayout(NamedTuple):
    """How the kernel begins an entry of a dump: a header, then the original tuple, in attributes of constant size.

    `headers` are those of the attributes that hold what `structure` reads.
    """

    structure: struct.Struct
    headers: tuple[bytes, ...]


def _original_layout(of_family: Family) -> _OriginalLayout:
    size = of_family.bits // 8
    return _OriginalLayout(
        struct.Struct(f"!4x12s{size}x4s{size}s8sB3x4s4x4sH2x"),
        (
            ATTRIBUTE.pack(2 * size + 44, CTA_TUPLE_ORIG | NLA_F_NESTED)
            + ATTRIBUTE.pack(2 * size + 12, CTA_TUPLE_IP | NLA_F_NESTED)
            + ATTRIBUTE.pack(size + 4, _SOURCE_ADDRESS[of_family]),
            ATTRIBUTE.pack(size + 4, _DESTINATION_ADDRESS[of_family]),
            ATTRIBUTE.pack(28, CTA_TUPLE_PROTO | NLA_F_NESTED) + ATTRIBUTE.pack(5, CTA_PROTO_NUM),
            ATTRIBUTE.pack(6, CTA_PROTO_SRC_PORT),
            ATTRIBUTE.pack(6, CTA_PROTO_DST_PORT),
        ),
    )


_ORIGINAL_LAYOUTS: dict[int, _OriginalLayout] = {each: _original_layout(each) for each in Family}


class Entry(NamedTuple):
    """An entry of zone 0.

    `destination` is what the client sent to, `endpoint` who answers, and `answered` whether there was an answer yet.
    `original` and `identifier` name the entry to the kernel, as it wrote them.
    """

    destination: VirtualServerKey
    endpoint: tuple[Address, int]
    answered: bool
    original: bytes
    identifier: bytes


def encode_get_destination(destination: VirtualServerKey, *, unanswered: bool = False) -> bytes:
    """Return the request for a dump of the entries with that original destination, or of its unanswered ones only.

    More may come. An IPv6 one asks for the port alone, whatever the address: the kernel's comparison of IPv6 addresses
    is the wrong way round (ctnetlink_filter_match_tuple() from 5.8 on). The ports of SCTP are not compared, before 5.15
    answers are not looked at, and before 5.8 only the address family is.
    """
    of_family = family(destination.address)
    protocol_and_port = _encode_protocol(destination.protocol) + encode_attribute(
        CTA_PROTO_DST_PORT, _PORT.pack(destination.port)
    )
    original = encode_attribute(CTA_TUPLE_PROTO, protocol_and_port)
    flags = CTA_FILTER_F_CTA_PROTO_NUM | CTA_FILTER_F_CTA_PROTO_DST_PORT
    if of_family is Family.IPV4:
        address = encode_attribute(CTA_IP_V4_DST, destination.address)
        original = encode_attribute(CTA_TUPLE_IP, address) + original
        flags |= CTA_FILTER_F_CTA_IP_DST
    return _encode_get(of_family, original, flags, unanswered=unanswered)


def encode_get_protocol(of_family: Family, protocol: Protocol, *, unanswered: bool = False) -> bytes:
    """Return the request for a dump of all entries of an address family and a protocol, or of the unanswered ones only.

    More may come from kernels before 5.15, as from `encode_get_destination`.
    """
    return _encode_get(
        of_family,
        encode_attribute(CTA_TUPLE_PROTO, _encode_protocol(protocol)),
        CTA_FILTER_F_CTA_PROTO_NUM,
        unanswered=unanswered,
    )


def encode_delete(entry: Entry) -> bytes:
    """Return the request to delete this entry; if it is gone that is ENOENT, even if a new one has its tuple."""
    attributes = encode_attribute(CTA_TUPLE_ORIG, entry.original) + encode_attribute(CTA_ID, entry.identifier)
    return _encode(IPCTNL_MSG_CT_DELETE, family(entry.destination.address), attributes)


def decode_destination(payload: bytes) -> VirtualServerKey | None:
    """Return the original destination of a dumped entry, whatever its zone.

    It takes a tenth of the time of `decode_entry`, and most entries of a dump may be none of ours.
    """
    structure, headers = _ORIGINAL_LAYOUTS[payload[0]]
    if len(payload) >= structure.size:
        outer, first, address, second, protocol, third, fourth, port = structure.unpack_from(payload)
        if (outer, first, second, third, fourth) == headers and protocol in _PROTOCOLS:
            return VirtualServerKey(address, _PROTOCOLS[protocol], port)
    entry = decode_entry(payload)
    return entry.destination if entry else None


def decode_entry(payload: bytes) -> Entry | None:
    """Return a dumped entry; None for one of another zone, or of a protocol that Kubernetes does not know."""
    of_family = Family(payload[0])
    values = decode_attributes(payload, _HEADER_SIZE)
    original = decode_attributes(values[CTA_TUPLE_ORIG])
    reply = decode_attributes(values[CTA_TUPLE_REPLY])
    # Zone 0 is never written; another one may be that of a single direction.
    if CTA_ZONE in values or CTA_TUPLE_ZONE in original or CTA_TUPLE_ZONE in reply:
        return None
    ports = decode_attributes(original[CTA_TUPLE_PROTO])
    (number,) = ports[CTA_PROTO_NUM]
    if number not in _PROTOCOLS:
        return None
    addresses = decode_attributes(original[CTA_TUPLE_IP])
    (port,) = _PORT.unpack(ports[CTA_PROTO_DST_PORT])
    reply_addresses = decode_attributes(reply[CTA_TUPLE_IP])
    (reply_port,) = _PORT.unpack(decode_attributes(reply[CTA_TUPLE_PROTO])[CTA_PROTO_SRC_PORT])
    return Entry(
        VirtualServerKey(Address(addresses[_DESTINATION_ADDRESS[of_family]]), _PROTOCOLS[number], port),
        (Address(reply_addresses[_SOURCE_ADDRESS[of_family]]), reply_port),
        bool(int.from_bytes(values[CTA_STATUS]) & IPS_SEEN_REPLY),
        values[CTA_TUPLE_ORIG],
        values[CTA_ID],
    )


def _encode_protocol(protocol: Protocol) -> bytes:
    return encode_attribute(CTA_PROTO_NUM, bytes((protocol,)))


def _encode_get(of_family: Family, original: bytes, flags: int, *, unanswered: bool) -> bytes:
    """Return the request for a dump, filtered by those fields of the original tuple that the flags name."""
    filtered_by = encode_attribute(CTA_FILTER_ORIG_FLAGS, _UINT32.pack(flags))
    # This attribute alone has to be marked as one that holds others.
    attributes = encode_attribute(CTA_TUPLE_ORIG, original) + encode_attribute(
        CTA_FILTER | NLA_F_NESTED, filtered_by
    )
    if unanswered:
        attributes += encode_attribute(CTA_STATUS, bytes(4))
        attributes += encode_attribute(CTA_STATUS_MASK, IPS_SEEN_REPLY.to_bytes(4))
    return _encode(IPCTNL_MSG_CT_GET, of_family, attributes)


def _encode(command: int, of_family: Family, attributes: bytes) -> bytes:
    header = bytes((of_family, 0, 0, 0))
    return encode_message(NFNL_SUBSYS_CTNETLINK << 8 | command, 0, header + attributes)
