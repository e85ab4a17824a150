"""Our bytes against pyroute2's: its encoding of the same values, and its decoding of ours."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.ipvs import ipvsmsg

from ipvsproxy.kernel.interface import ConnectionTimeouts
from ipvsproxy.kernel.ipvs_codec import (
    decode_real_server,
    decode_real_server_statistics,
    decode_virtual_server,
    decode_virtual_server_statistics,
    encode_get_destinations,
    encode_get_info,
    encode_get_service,
    encode_get_services,
    encode_operations,
    encode_set_timeouts,
)
from ipvsproxy.kernel.netlink_codec import HEADER, NLM_F_REQUEST, encode_attribute
from ipvsproxy.model.addresses import Address, Family, family, format_address
from ipvsproxy.model.ipvs import (
    Command,
    IpvsOperation,
    RealServer,
    RealServerStatus,
    Statistics,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)
from ipvsproxy.model.objects import Protocol
from tests.builders import key, real_server, virtual_server

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    Attributes = list[tuple[str, Any]]

FAMILY_ID = 0x25
HASHED = 0x2
# What pyroute2 takes for a netmask is a prefix length to the kernel, in the host's byte order.
PREFIX_128 = socket.inet_ntoa((128).to_bytes(4, "little"))

PORTS = st.integers(0, 0xFFFF)
UINT32 = st.integers(0, 0xFFFFFFFF)
INT32 = st.integers(0, 0x7FFFFFFF)
ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)).map(Address)
KEYS = st.builds(VirtualServerKey, ADDRESSES, st.sampled_from(Protocol), PORTS)
VIRTUAL_SERVERS = st.builds(
    VirtualServer,
    KEYS,
    st.text("abcdefghijklmnopqrstuvwxyz_", max_size=15),
    UINT32.map(lambda flags: flags & ~HASHED),
    UINT32,
    st.just(()),
)
REAL_SERVERS = st.builds(RealServer, ADDRESSES, PORTS, INT32, UINT32, UINT32)
STATUSES = st.builds(RealServerStatus, REAL_SERVERS, UINT32, UINT32, UINT32)
UINT64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
WIDE_STATISTICS = st.builds(Statistics, *[st.builds(Traffic, *[UINT64] * 5)] * 2)
NARROW_STATISTICS = st.builds(
    Statistics, st.builds(Traffic, *[UINT32] * 3, *[UINT64] * 2), st.builds(Traffic, *[UINT32] * 5)
)
STATISTICS_NAMES = (
    "CONNS",
    "INPKTS",
    "OUTPKTS",
    "INBYTES",
    "OUTBYTES",
    "CPS",
    "INPPS",
    "OUTPPS",
    "INBPS",
    "OUTBPS",
)
SERVICE_COMMANDS = st.sampled_from([Command.NEW_SERVICE, Command.SET_SERVICE, Command.DEL_SERVICE])
DESTINATION_COMMANDS = st.sampled_from([Command.NEW_DEST, Command.SET_DEST, Command.DEL_DEST])
OPERATIONS = st.one_of(
    st.builds(IpvsOperation, SERVICE_COMMANDS, VIRTUAL_SERVERS, st.none()),
    st.builds(IpvsOperation, DESTINATION_COMMANDS, VIRTUAL_SERVERS, REAL_SERVERS),
)


def key_attributes(of: VirtualServerKey) -> Attributes:
    return [
        ("IPVS_SVC_ATTR_AF", family(of.address)),
        ("IPVS_SVC_ATTR_PROTOCOL", of.protocol),
        ("IPVS_SVC_ATTR_ADDR", format_address(of.address)),
        ("IPVS_SVC_ATTR_PORT", of.port),
    ]


def service_attributes(described: VirtualServer, extra_flags: int = 0) -> Attributes:
    ipv4 = family(described.key.address) is Family.IPV4
    return [
        *key_attributes(described.key),
        ("IPVS_SVC_ATTR_SCHED_NAME", described.scheduler),
        ("IPVS_SVC_ATTR_FLAGS", {"flags": described.flags | extra_flags, "mask": 0xFFFFFFFF}),
        ("IPVS_SVC_ATTR_TIMEOUT", described.timeout),
        ("IPVS_SVC_ATTR_NETMASK", "255.255.255.255" if ipv4 else PREFIX_128),
    ]


def destination_attributes(described: RealServer) -> Attributes:
    return [
        ("IPVS_DEST_ATTR_ADDR_FAMILY", family(described.address)),
        ("IPVS_DEST_ATTR_ADDR", format_address(described.address)),
        ("IPVS_DEST_ATTR_PORT", described.port),
        ("IPVS_DEST_ATTR_FWD_METHOD", 0),
        ("IPVS_DEST_ATTR_WEIGHT", described.weight),
        ("IPVS_DEST_ATTR_U_THRESH", described.upper_threshold),
        ("IPVS_DEST_ATTR_L_THRESH", described.lower_threshold),
    ]


def pyroute2_message(command: int, **parts: Attributes) -> bytes:
    """Encode with pyroute2; `parts` are SERVICE and DEST."""
    make: Callable[[], Any] = ipvsmsg
    message = make()
    message["header"]["type"] = FAMILY_ID
    message["header"]["flags"] = NLM_F_REQUEST
    message["cmd"], message["version"] = command, 1
    message["attrs"] = [
        (f"IPVS_CMD_ATTR_{name}", {"attrs": attributes}) for name, attributes in parts.items()
    ]
    message.encode()
    return bytes(message.data)


def pyroute2_operation(operation: IpvsOperation) -> bytes:
    command, described, server = operation
    if server:
        service, destination = key_attributes(described.key), destination_attributes(server)
        return pyroute2_message(command, SERVICE=service, DEST=destination)
    if command is Command.DEL_SERVICE:
        return pyroute2_message(command, SERVICE=key_attributes(described.key))
    return pyroute2_message(command, SERVICE=service_attributes(described))


def pyroute2_values(message: bytes, part: str) -> dict[str, Any]:
    """Decode with pyroute2; return the attributes of SERVICE or DEST."""
    make: Callable[[bytes], Any] = ipvsmsg
    decoded = make(message)
    decoded.decode()
    return dict(decoded.get(f"IPVS_CMD_ATTR_{part}")["attrs"])


def payload(message: bytes) -> bytes:
    return message[HEADER.size :]


@given(OPERATIONS)
def test_every_operation_has_the_bytes_that_pyroute2_gives_it(operation: IpvsOperation) -> None:
    assert list(encode_operations([operation], FAMILY_ID)) == [pyroute2_operation(operation)]


@given(st.lists(OPERATIONS, max_size=12), st.randoms(use_true_random=False))
def test_a_message_does_not_depend_on_its_neighbours(
    operations: list[IpvsOperation], shuffling: random.Random
) -> None:
    described = virtual_server(key("10.96.0.1"))
    ipv4, ipv6 = real_server("10.244.0.1"), real_server("fd00:244::1")
    mixed = [
        *operations,
        *(IpvsOperation(Command.NEW_DEST, described, each) for each in (ipv4, ipv6)),
        *(IpvsOperation(Command.DEL_DEST, described, each) for each in (ipv4, ipv6)),
    ] * 2
    shuffling.shuffle(mixed)
    together = list(encode_operations(mixed, FAMILY_ID))
    assert together == [next(encode_operations([each], FAMILY_ID)) for each in mixed]


@given(VIRTUAL_SERVERS)
def test_pyroute2_reads_the_virtual_server_that_was_written(described: VirtualServer) -> None:
    (message,) = encode_operations([IpvsOperation(Command.NEW_SERVICE, described)], FAMILY_ID)
    values = pyroute2_values(message, "SERVICE")
    assert values.pop("IPVS_SVC_ATTR_FLAGS") == {"flags": described.flags, "mask": 0xFFFFFFFF}
    assert values == {
        name: value for name, value in service_attributes(described) if name != "IPVS_SVC_ATTR_FLAGS"
    }


@given(VIRTUAL_SERVERS, REAL_SERVERS)
def test_pyroute2_reads_the_real_server_that_was_written(
    described: VirtualServer, server: RealServer
) -> None:
    (message,) = encode_operations([IpvsOperation(Command.SET_DEST, described, server)], FAMILY_ID)
    assert pyroute2_values(message, "SERVICE") == dict(key_attributes(described.key))
    assert pyroute2_values(message, "DEST") == dict(destination_attributes(server))


@given(VIRTUAL_SERVERS)
def test_a_virtual_server_survives_the_round_trip(described: VirtualServer) -> None:
    (message,) = encode_operations([IpvsOperation(Command.NEW_SERVICE, described)], FAMILY_ID)
    assert decode_virtual_server(payload(message)) == described


@given(VIRTUAL_SERVERS)
def test_the_kernels_hashed_flag_is_left_out(described: VirtualServer) -> None:
    message = pyroute2_message(1, SERVICE=service_attributes(described, extra_flags=HASHED))
    assert decode_virtual_server(payload(message)) == described


@given(STATUSES)
def test_a_real_server_that_pyroute2_wrote_is_read(status: RealServerStatus) -> None:
    counts = [
        ("IPVS_DEST_ATTR_ACTIVE_CONNS", status.active_connections),
        ("IPVS_DEST_ATTR_INACT_CONNS", status.inactive_connections),
        ("IPVS_DEST_ATTR_PERSIST_CONNS", status.persistent_connections),
    ]
    message = pyroute2_message(Command.NEW_DEST, DEST=destination_attributes(status.real_server) + counts)
    assert decode_real_server(payload(message)) == status


def dumped_attributes(status: RealServerStatus) -> list[bytes]:
    """Return a real server's attributes as Linux from 5.3 on orders them in a dump."""
    server, active, inactive, persistent = status
    # A whole union nf_inet_addr, for IPv4, too.
    attributes = [encode_attribute(1, server.address.ljust(16, b"\0"))]
    attributes += [encode_attribute(2, server.port.to_bytes(2, "big"))]
    attributes += [encode_attribute(3, bytes(4)), encode_attribute(4, struct.pack("=i", server.weight))]
    attributes += [
        encode_attribute(13, b"\0"),
        encode_attribute(14, bytes(2)),
        encode_attribute(15, bytes(2)),
    ]
    numbers = (server.upper_threshold, server.lower_threshold, active, inactive, persistent)
    attributes += [
        encode_attribute(kind, struct.pack("=I", number)) for kind, number in enumerate(numbers, 5)
    ]
    attributes += [encode_attribute(11, struct.pack("=H", family(server.address)))]
    return [*attributes, encode_attribute(10, encode_attribute(1, bytes(4)))]


def dumped(attributes: list[bytes]) -> bytes:
    return struct.pack("=BBH", Command.NEW_DEST, 1, 0) + encode_attribute(2, b"".join(attributes))


@given(STATUSES)
def test_a_dumped_real_server_is_read(status: RealServerStatus) -> None:
    assert decode_real_server(dumped(dumped_attributes(status))) == status


@given(STATUSES, st.randoms(use_true_random=False))
def test_a_dumped_real_server_is_read_whatever_the_order(
    status: RealServerStatus, shuffling: random.Random
) -> None:
    attributes = dumped_attributes(status)
    shuffling.shuffle(attributes)
    assert decode_real_server(dumped(attributes)) == status


@given(STATUSES)
def test_a_real_server_of_a_kernel_without_tunnel_options_is_read(status: RealServerStatus) -> None:
    attributes = dumped_attributes(status)
    assert decode_real_server(dumped(attributes[:4] + attributes[7:-1])) == status


def statistics_attribute(name: str, statistics: Statistics) -> tuple[str, Any]:
    """Return pyroute2's attribute of that name, such as IPVS_SVC_ATTR_STATS64."""
    numbers = zip(STATISTICS_NAMES, (*statistics.total, *statistics.per_second), strict=True)
    return name, {"attrs": [(f"IPVS_STATS_ATTR_{each}", number) for each, number in numbers]}


@given(VIRTUAL_SERVERS, NARROW_STATISTICS, WIDE_STATISTICS)
def test_the_counters_of_a_virtual_server_are_those_of_64_bits_and_with_an_old_kernel_those_of_32(
    described: VirtualServer, narrow: Statistics, wide: Statistics
) -> None:
    attributes = [*service_attributes(described), statistics_attribute("IPVS_SVC_ATTR_STATS", narrow)]
    message = pyroute2_message(1, SERVICE=attributes)
    assert decode_virtual_server_statistics(payload(message)) == (described.key, narrow)
    attributes.append(statistics_attribute("IPVS_SVC_ATTR_STATS64", wide))
    message = pyroute2_message(1, SERVICE=attributes)
    assert decode_virtual_server_statistics(payload(message)) == (described.key, wide)


@given(REAL_SERVERS, NARROW_STATISTICS, WIDE_STATISTICS)
def test_the_counters_of_a_real_server_are_those_of_64_bits_and_with_an_old_kernel_those_of_32(
    server: RealServer, narrow: Statistics, wide: Statistics
) -> None:
    place = (server.address, server.port)
    attributes = [*destination_attributes(server), statistics_attribute("IPVS_DEST_ATTR_STATS", narrow)]
    message = pyroute2_message(5, DEST=attributes)
    assert decode_real_server_statistics(payload(message)) == (place, narrow)
    attributes.append(statistics_attribute("IPVS_DEST_ATTR_STATS64", wide))
    message = pyroute2_message(5, DEST=attributes)
    assert decode_real_server_statistics(payload(message)) == (place, wide)


def test_counters_that_a_kernel_aligns_to_8_bytes_are_read() -> None:
    numbers = range(1, 11)
    padding = encode_attribute(11, b"")
    aligned = b"".join(padding + encode_attribute(kind, struct.pack("=Q", kind)) for kind in numbers)
    service = b"".join(
        (
            encode_attribute(1, struct.pack("=H", socket.AF_INET)),
            encode_attribute(2, struct.pack("=H", Protocol.TCP)),
            encode_attribute(3, key("10.96.0.1").address.ljust(16, b"\0")),
            encode_attribute(4, (80).to_bytes(2, "big")),
            encode_attribute(12, aligned),
        )
    )
    message = struct.pack("=BBH", Command.NEW_SERVICE, 1, 0) + encode_attribute(1, service)
    expected = Statistics(Traffic(*numbers[:5]), Traffic(*numbers[5:]))
    assert decode_virtual_server_statistics(message) == (key("10.96.0.1"), expected)


def test_a_virtual_server_by_firewall_mark_is_nobodys_key() -> None:
    described = virtual_server(key("0.0.0.0"))
    mark = [("IPVS_SVC_ATTR_AF", socket.AF_INET), ("IPVS_SVC_ATTR_FWMARK", 7)]
    message = pyroute2_message(Command.NEW_SERVICE, SERVICE=mark + service_attributes(described)[4:])
    assert decode_virtual_server(payload(message)) is None
    assert decode_virtual_server_statistics(payload(message)) is None


def test_a_virtual_server_of_another_protocol_is_nobodys_key() -> None:
    attributes = dict(service_attributes(virtual_server(key("10.96.0.1")))) | {
        "IPVS_SVC_ATTR_PROTOCOL": socket.IPPROTO_ESP
    }
    message = pyroute2_message(Command.NEW_SERVICE, SERVICE=list(attributes.items()))
    assert decode_virtual_server(payload(message)) is None


def test_a_real_server_is_always_masqueraded_and_an_ipv6_service_has_a_prefix_length() -> None:
    described = virtual_server(key("fd00:96::1"))
    new, destination = encode_operations(
        [
            IpvsOperation(Command.NEW_SERVICE, described),
            IpvsOperation(Command.NEW_DEST, described, real_server("fd00:244::1")),
        ],
        FAMILY_ID,
    )
    assert new.endswith(encode_attribute(9, (128).to_bytes(4, sys.byteorder)))
    assert encode_attribute(3, bytes(4)) in destination


@pytest.mark.parametrize(
    ("request_bytes", "command", "of"),
    [
        (encode_get_services(FAMILY_ID), 4, None),
        (encode_get_service(key("10.96.0.1"), FAMILY_ID), 4, key("10.96.0.1")),
        (encode_get_destinations(key("fd00:96::1"), FAMILY_ID), 8, key("fd00:96::1")),
        (encode_get_info(FAMILY_ID), 15, None),
    ],
)
def test_questions_have_the_bytes_that_pyroute2_gives_them(
    request_bytes: bytes, command: int, of: VirtualServerKey | None
) -> None:
    parts = {"SERVICE": key_attributes(of)} if of else {}
    assert request_bytes == pyroute2_message(command, **parts)


def test_timeouts_have_the_bytes_that_pyroute2_gives_them() -> None:
    names = ("IPVS_CMD_ATTR_TIMEOUT_TCP", "IPVS_CMD_ATTR_TIMEOUT_TCP_FIN", "IPVS_CMD_ATTR_TIMEOUT_UDP")
    timeouts = ConnectionTimeouts(tcp=7200, tcp_fin=0, udp=0x7FFFFFFF)
    make: Callable[[], Any] = ipvsmsg
    message = make()
    message["header"]["type"], message["header"]["flags"] = FAMILY_ID, NLM_F_REQUEST
    message["cmd"], message["version"] = 12, 1
    # It takes these attributes for bytes of no meaning.
    message["attrs"] = [(name, struct.pack("=I", value)) for name, value in zip(names, timeouts, strict=True)]
    message.encode()
    assert encode_set_timeouts(timeouts, FAMILY_ID) == bytes(message.data)


@pytest.mark.parametrize("port", [-1, 0x10000])
def test_a_port_that_does_not_fit_is_an_error(port: int) -> None:
    of = virtual_server(key("10.96.0.1"))
    with pytest.raises((OverflowError, ValueError, struct.error)):
        list(
            encode_operations(
                [IpvsOperation(Command.NEW_DEST, of, real_server("10.244.0.1", port))], FAMILY_ID
            )
        )
