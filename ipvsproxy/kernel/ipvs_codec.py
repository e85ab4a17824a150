"""IPVS virtual servers and real servers as bytes of generic netlink messages, and back, without I/O.

One Service may have thousands of real servers, so a message to change one is a prefix, the same for all real servers of
one virtual server, and one precompiled structure.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

from ipvsproxy.kernel.netlink_codec import (
    ATTRIBUTE,
    decode_attributes,
    encode_attribute,
    encode_message,
)
from ipvsproxy.model.addresses import Address, Family
from ipvsproxy.model.ipvs import (
    Command,
    RealServer,
    RealServerStatus,
    Statistics,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ipvsproxy.kernel.interface import ConnectionTimeouts
    from ipvsproxy.model.ipvs import IpvsOperation

# include/uapi/linux/ip_vs.h
IPVS_GENL_NAME = "IPVS"
IPVS_GENL_VERSION = 1

IPVS_CMD_GET_SERVICE = 4
IPVS_CMD_GET_DEST = 8
IPVS_CMD_SET_CONFIG = 12
IPVS_CMD_GET_INFO = 15

IPVS_CMD_ATTR_SERVICE = 1
IPVS_CMD_ATTR_DEST = 2
IPVS_CMD_ATTR_TIMEOUT_TCP = 4
IPVS_CMD_ATTR_TIMEOUT_TCP_FIN = 5
IPVS_CMD_ATTR_TIMEOUT_UDP = 6

IPVS_SVC_ATTR_AF = 1
IPVS_SVC_ATTR_PROTOCOL = 2
IPVS_SVC_ATTR_ADDR = 3
IPVS_SVC_ATTR_PORT = 4
IPVS_SVC_ATTR_SCHED_NAME = 6
IPVS_SVC_ATTR_FLAGS = 7
IPVS_SVC_ATTR_TIMEOUT = 8
IPVS_SVC_ATTR_NETMASK = 9
IPVS_SVC_ATTR_STATS = 10
IPVS_SVC_ATTR_STATS64 = 12

IPVS_DEST_ATTR_ADDR = 1
IPVS_DEST_ATTR_PORT = 2
IPVS_DEST_ATTR_FWD_METHOD = 3
IPVS_DEST_ATTR_WEIGHT = 4
IPVS_DEST_ATTR_U_THRESH = 5
IPVS_DEST_ATTR_L_THRESH = 6
IPVS_DEST_ATTR_ACTIVE_CONNS = 7
IPVS_DEST_ATTR_INACT_CONNS = 8
IPVS_DEST_ATTR_PERSIST_CONNS = 9
IPVS_DEST_ATTR_STATS = 10
IPVS_DEST_ATTR_ADDR_FAMILY = 11
IPVS_DEST_ATTR_STATS64 = 12
IPVS_DEST_ATTR_TUN_TYPE = 13
IPVS_DEST_ATTR_TUN_PORT = 14
IPVS_DEST_ATTR_TUN_FLAGS = 15

# IPVS_STATS_ATTR_CONNS to IPVS_STATS_ATTR_OUTBPS: the five counters, then the five rates, in the order of Traffic.
_STATISTICS_ATTRIBUTES = range(1, 11)

IP_VS_SVC_F_HASHED = 0x2
IP_VS_CONN_F_MASQ = 0

_GENL_HEADER = struct.Struct("=BBH")
_UINT16 = struct.Struct("=H")
_UINT32 = struct.Struct("=I")
_INT32 = struct.Struct("=i")
_PORT = struct.Struct("!H")
# struct ip_vs_flags: the flags, and which of them are meant.
_FLAGS = struct.Struct("=II")
_ALL_FLAGS = 0xFFFFFFFF

_FAMILIES = {4: Family.IPV4, 16: Family.IPV6}
_PROTOCOLS = {protocol.value: protocol for protocol in Protocol}

# The kernel groups the clients of a persistent virtual server by this part of their address: here by all of it.
# It holds a mask for IPv4, a prefix length for IPv6, and has to be there without persistence, too.
_NETMASKS = {
    4: encode_attribute(IPVS_SVC_ATTR_NETMASK, b"\xff" * 4),
    16: encode_attribute(IPVS_SVC_ATTR_NETMASK, _UINT32.pack(Family.IPV6.bits)),
}

# A real server from its address on: the attributes' headers are constant.
_REAL_SERVERS = {length: struct.Struct(f"={length}s4sH2x12si4sI4sI") for length in _FAMILIES}
_PORT_HEADER = ATTRIBUTE.pack(ATTRIBUTE.size + 2, IPVS_DEST_ATTR_PORT)
_MASQUERADE_AND_WEIGHT_HEADER = encode_attribute(
    IPVS_DEST_ATTR_FWD_METHOD, _UINT32.pack(IP_VS_CONN_F_MASQ)
) + ATTRIBUTE.pack(ATTRIBUTE.size + 4, IPVS_DEST_ATTR_WEIGHT)
_UPPER_THRESHOLD_HEADER = ATTRIBUTE.pack(ATTRIBUTE.size + 4, IPVS_DEST_ATTR_U_THRESH)
_LOWER_THRESHOLD_HEADER = ATTRIBUTE.pack(ATTRIBUTE.size + 4, IPVS_DEST_ATTR_L_THRESH)

# What ip_vs_genl_fill_dest() writes from Linux 5.3 on: attributes of constant size in this order, then statistics.
# Read in one go it takes less than a third of the time of a walk from attribute to attribute.
_DUMPED_FIELDS = (
    (IPVS_DEST_ATTR_ADDR, "16s"),
    (IPVS_DEST_ATTR_PORT, "H"),
    (IPVS_DEST_ATTR_FWD_METHOD, "I"),
    (IPVS_DEST_ATTR_WEIGHT, "i"),
    (IPVS_DEST_ATTR_TUN_TYPE, "B"),
    (IPVS_DEST_ATTR_TUN_PORT, "H"),
    (IPVS_DEST_ATTR_TUN_FLAGS, "H"),
    (IPVS_DEST_ATTR_U_THRESH, "I"),
    (IPVS_DEST_ATTR_L_THRESH, "I"),
    (IPVS_DEST_ATTR_ACTIVE_CONNS, "I"),
    (IPVS_DEST_ATTR_INACT_CONNS, "I"),
    (IPVS_DEST_ATTR_PERSIST_CONNS, "I"),
    (IPVS_DEST_ATTR_ADDR_FAMILY, "H"),
)
_DUMPED = struct.Struct(
    "=" + "".join("4s" + code + "x" * (-struct.calcsize("=" + code) % 4) for _, code in _DUMPED_FIELDS)
)
_DUMPED_HEADERS = tuple(
    ATTRIBUTE.pack(ATTRIBUTE.size + struct.calcsize("=" + code), kind) for kind, code in _DUMPED_FIELDS
)
_DUMPED_OFFSET = _GENL_HEADER.size + ATTRIBUTE.size

# The counters of 64 bits, where the kernel needs no padding to align them.
_STATISTICS = struct.Struct("=" + "4sQ" * len(_STATISTICS_ATTRIBUTES))
_STATISTICS_HEADERS = tuple(ATTRIBUTE.pack(ATTRIBUTE.size + 8, kind) for kind in _STATISTICS_ATTRIBUTES)


def encode_operations(operations: Iterable[IpvsOperation], message_type: int) -> Iterator[bytes]:
    """Yield a message for each operation; `message_type` is the number of the generic netlink family IPVS.

    Operations on one virtual server object that follow each other share its encoding. A number that does not fit
    its field (32 bits; a port 16) raises struct.error or OverflowError.
    """
    host_to_network = socket.htons
    prefix = b""
    pack = _REAL_SERVERS[4].pack
    previous_command, previous_virtual_server, previous_length = None, None, 0
    for command, virtual_server, real_server in operations:
        if real_server is None:
            yield _encode_service_operation(command, virtual_server, message_type)
            continue
        address, port, weight, upper_threshold, lower_threshold = real_server
        if (
            virtual_server is not previous_virtual_server
            or command is not previous_command
            or len(address) != previous_length
        ):
            previous_command, previous_virtual_server, previous_length = command, virtual_server, len(address)
            prefix = _encode_prefix(command, virtual_server.key, previous_length, message_type)
            pack = _REAL_SERVERS[previous_length].pack
        yield prefix + pack(
            address,
            _PORT_HEADER,
            host_to_network(port),
            _MASQUERADE_AND_WEIGHT_HEADER,
            weight,
            _UPPER_THRESHOLD_HEADER,
            upper_threshold,
            _LOWER_THRESHOLD_HEADER,
            lower_threshold,
        )


def encode_get_services(message_type: int) -> bytes:
    """Return the request for a dump of all virtual servers."""
    return _encode_command(IPVS_CMD_GET_SERVICE, message_type, b"")


def encode_get_service(key: VirtualServerKey, message_type: int) -> bytes:
    """Return the request for one virtual server."""
    return _encode_command(IPVS_CMD_GET_SERVICE, message_type, _encode_service(_encode_key(key)))


def encode_get_destinations(key: VirtualServerKey, message_type: int) -> bytes:
    """Return the request for a dump of one virtual server's real servers; without the virtual server it is empty."""
    return _encode_command(IPVS_CMD_GET_DEST, message_type, _encode_service(_encode_key(key)))


def encode_get_info(message_type: int) -> bytes:
    """Return the request for the version of IPVS and the size of its connection table."""
    return _encode_command(IPVS_CMD_GET_INFO, message_type, b"")


def encode_set_timeouts(timeouts: ConnectionTimeouts, message_type: int) -> bytes:
    """Return the request to set how long idle connections are kept; to the kernel, too, 0 is "as it is"."""
    attributes = (
        encode_attribute(IPVS_CMD_ATTR_TIMEOUT_TCP, _UINT32.pack(timeouts.tcp))
        + encode_attribute(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, _UINT32.pack(timeouts.tcp_fin))
        + encode_attribute(IPVS_CMD_ATTR_TIMEOUT_UDP, _UINT32.pack(timeouts.udp))
    )
    return _encode_command(IPVS_CMD_SET_CONFIG, message_type, attributes)


def decode_virtual_server(payload: bytes) -> VirtualServer | None:
    """Return the virtual server of a GET_SERVICE answer, without real servers.

    None for one that no key identifies: by firewall mark, or of a protocol that Kubernetes does not know.
    """
    values = _decode_nested(payload)
    key = _decode_key(values)
    if key is None:
        return None
    flags, _ = _FLAGS.unpack(values[IPVS_SVC_ATTR_FLAGS])
    (timeout,) = _UINT32.unpack(values[IPVS_SVC_ATTR_TIMEOUT])
    return VirtualServer(
        key,
        values[IPVS_SVC_ATTR_SCHED_NAME].rstrip(b"\0").decode(),
        flags & ~IP_VS_SVC_F_HASHED,
        timeout,
    )


def decode_real_server(payload: bytes) -> RealServerStatus:
    """Return the real server of a GET_DEST answer, with its connections."""
    fields = (
        _DUMPED.unpack_from(payload, _DUMPED_OFFSET) if len(payload) >= _DUMPED.size + _DUMPED_OFFSET else ()
    )
    if fields[::2] == _DUMPED_HEADERS:
        address, port, _, weight, _, _, _, upper, lower, active, inactive, persistent, family = fields[1::2]
        port = socket.ntohs(port)
    else:
        values = _decode_nested(payload)
        address = values[IPVS_DEST_ATTR_ADDR]
        (port,) = _PORT.unpack(values[IPVS_DEST_ATTR_PORT])
        (weight,) = _INT32.unpack(values[IPVS_DEST_ATTR_WEIGHT])
        (upper,) = _UINT32.unpack(values[IPVS_DEST_ATTR_U_THRESH])
        (lower,) = _UINT32.unpack(values[IPVS_DEST_ATTR_L_THRESH])
        (active,) = _UINT32.unpack(values[IPVS_DEST_ATTR_ACTIVE_CONNS])
        (inactive,) = _UINT32.unpack(values[IPVS_DEST_ATTR_INACT_CONNS])
        (persistent,) = _UINT32.unpack(values[IPVS_DEST_ATTR_PERSIST_CONNS])
        (family,) = _UINT16.unpack(values[IPVS_DEST_ATTR_ADDR_FAMILY])
    if family == Family.IPV4:
        address = address[:4]
    return RealServerStatus(RealServer(address, port, weight, upper, lower), active, inactive, persistent)


def decode_virtual_server_statistics(payload: bytes) -> tuple[VirtualServerKey, Statistics] | None:
    """Return the counters of a GET_SERVICE answer; None where `decode_virtual_server` returns None."""
    values = _decode_nested(payload)
    key = _decode_key(values)
    if key is None:
        return None
    return key, _decode_statistics(values, IPVS_SVC_ATTR_STATS64, IPVS_SVC_ATTR_STATS)


def decode_real_server_statistics(payload: bytes) -> tuple[tuple[Address, int], Statistics]:
    """Return the counters of a GET_DEST answer, with the real server's address and port."""
    values = _decode_nested(payload)
    (address_family,) = _UINT16.unpack(values[IPVS_DEST_ATTR_ADDR_FAMILY])
    address = _decode_address(values[IPVS_DEST_ATTR_ADDR], address_family)
    (port,) = _PORT.unpack(values[IPVS_DEST_ATTR_PORT])
    return (address, port), _decode_statistics(values, IPVS_DEST_ATTR_STATS64, IPVS_DEST_ATTR_STATS)


def _decode_statistics(values: Mapping[int, bytes], wide: int, narrow: int) -> Statistics:
    """Return the counters of 64 bits; before Linux 4.1 there are only those of 32 bits, with bytes in 64."""
    value = values[wide] if wide in values else values[narrow]
    fields = _STATISTICS.unpack(value) if len(value) == _STATISTICS.size else ()
    if fields[::2] == _STATISTICS_HEADERS:
        counters = fields[1::2]
    else:
        numbers = decode_attributes(value)
        counters = tuple(int.from_bytes(numbers[kind], sys.byteorder) for kind in _STATISTICS_ATTRIBUTES)
    return Statistics(Traffic(*counters[:5]), Traffic(*counters[5:]))


def _decode_nested(payload: bytes) -> dict[int, bytes]:
    """Return the attributes of the one virtual server or real server that an answer has."""
    (nested,) = decode_attributes(payload, _GENL_HEADER.size).values()
    return decode_attributes(nested)


def _decode_key(values: Mapping[int, bytes]) -> VirtualServerKey | None:
    """Return the key of a virtual server, None if it is by firewall mark or of an unknown protocol."""
    if IPVS_SVC_ATTR_ADDR not in values:
        return None
    (protocol,) = _UINT16.unpack(values[IPVS_SVC_ATTR_PROTOCOL])
    if protocol not in _PROTOCOLS:
        return None
    (address_family,) = _UINT16.unpack(values[IPVS_SVC_ATTR_AF])
    (port,) = _PORT.unpack(values[IPVS_SVC_ATTR_PORT])
    return VirtualServerKey(
        _decode_address(values[IPVS_SVC_ATTR_ADDR], address_family), _PROTOCOLS[protocol], port
    )


def _decode_address(value: bytes, address_family: int) -> Address:
    """Return the address of a `union nf_inet_addr`, whose first 4 bytes are used for IPv4."""
    return Address(value[:4] if address_family == Family.IPV4 else value)


def _encode_service_operation(command: Command, virtual_server: VirtualServer, message_type: int) -> bytes:
    """Return the message of a *_SERVICE operation."""
    attributes = _encode_key(virtual_server.key)
    if command is not Command.DEL_SERVICE:
        attributes += (
            encode_attribute(IPVS_SVC_ATTR_SCHED_NAME, virtual_server.scheduler.encode() + b"\0")
            + encode_attribute(IPVS_SVC_ATTR_FLAGS, _FLAGS.pack(virtual_server.flags, _ALL_FLAGS))
            + encode_attribute(IPVS_SVC_ATTR_TIMEOUT, _UINT32.pack(virtual_server.timeout))
            + _NETMASKS[len(virtual_server.key.address)]
        )
    return _encode_command(command, message_type, _encode_service(attributes))


def _encode_prefix(command: Command, key: VirtualServerKey, address_length: int, message_type: int) -> bytes:
    """Return the message of a *_DEST operation up to the real server's address."""
    rest = bytes(_REAL_SERVERS[address_length].size)
    destination = (
        encode_attribute(IPVS_DEST_ATTR_ADDR_FAMILY, _UINT16.pack(_FAMILIES[address_length]))
        + ATTRIBUTE.pack(ATTRIBUTE.size + address_length, IPVS_DEST_ATTR_ADDR)
        + rest
    )
    payload = _encode_service(_encode_key(key)) + encode_attribute(IPVS_CMD_ATTR_DEST, destination)
    return _encode_command(command, message_type, payload)[: -len(rest)]


def _encode_key(key: VirtualServerKey) -> bytes:
    """Return the attributes that identify a virtual server."""
    return (
        encode_attribute(IPVS_SVC_ATTR_AF, _UINT16.pack(_FAMILIES[len(key.address)]))
        + encode_attribute(IPVS_SVC_ATTR_PROTOCOL, _UINT16.pack(key.protocol))
        + encode_attribute(IPVS_SVC_ATTR_ADDR, key.address)
        + encode_attribute(IPVS_SVC_ATTR_PORT, _PORT.pack(key.port))
    )


def _encode_service(attributes: bytes) -> bytes:
    """Return the attribute that holds those of a virtual server."""
    return encode_attribute(IPVS_CMD_ATTR_SERVICE, attributes)


def _encode_command(command: int, message_type: int, attributes: bytes) -> bytes:
    """Return the message of an IPVS_CMD_*."""
    return encode_message(message_type, 0, _GENL_HEADER.pack(command, IPVS_GENL_VERSION, 0) + attributes)
