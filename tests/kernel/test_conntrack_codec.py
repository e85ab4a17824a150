"""Our ctnetlink bytes against pyroute2's, and entries as the kernel writes them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, nfct_msg

from ipvsproxy.kernel.conntrack_codec import (
    Entry,
    decode_destination,
    decode_entry,
    encode_delete,
    encode_get_destination,
    encode_get_protocol,
)
from ipvsproxy.kernel.fake_conntrack import ConntrackEntry
from ipvsproxy.kernel.netlink_codec import HEADER, NLM_F_REQUEST, encode_attribute
from ipvsproxy.model.addresses import Address, Family, family, format_address
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.objects import Protocol
from tests.kernel.conntrack_kernel import DELETE, GET, NEW, SEEN_REPLY, dumped, original_tuple
from tests.kernel.contract_conntrack import DNS, ENTRY, ENTRY6

if TYPE_CHECKING:
    from collections.abc import Callable

PORTS = st.integers(0, 0xFFFF)
IDENTIFIERS = st.integers(0, 0xFFFFFFFF)


def addresses(length: int) -> st.SearchStrategy[Address]:
    return st.binary(min_size=length, max_size=length).map(Address)


def entries_of(length: int) -> st.SearchStrategy[ConntrackEntry]:
    places = st.tuples(addresses(length), PORTS)
    destinations = st.builds(VirtualServerKey, addresses(length), st.sampled_from(Protocol), PORTS)
    return st.builds(ConntrackEntry, places, destinations, places, answered=st.booleans())


ENTRIES = st.one_of(entries_of(4), entries_of(16))


def pyroute2_message(message_type: int, of_family: int, **attributes: object) -> bytes:
    create: Callable[..., Any] = nfct_msg.create_from
    message = create(**attributes)
    message["header"]["type"], message["header"]["flags"] = message_type, NLM_F_REQUEST
    message["nfgen_family"] = of_family
    message.encode()
    return bytes(message.data)


def pyroute2_tuple(of_family: int, **fields: object) -> Any:  # noqa: ANN401 - pyroute2 has no types
    create: Callable[..., Any] = NFCTAttrTuple
    return create(family=of_family, **fields)


def pyroute2_filtered(of_family: int, *, unanswered: bool, **fields: object) -> bytes:
    original = pyroute2_tuple(of_family, **fields)
    original.attrs()
    flags = {"attrs": [("CTA_FILTER_ORIG_FLAGS", original.flags)]}
    status = {"status": 0, "status_mask": SEEN_REPLY} if unanswered else {}
    return pyroute2_message(GET, of_family, tuple_orig=original, cta_filter=flags, **status)


def tuples(entry: ConntrackEntry) -> dict[str, Any]:
    """Return both tuples of the entry as pyroute2 takes them."""
    of_family = family(entry.source[0])

    def one(source: tuple[Address, int], destination: tuple[Address, int]) -> Any:  # noqa: ANN401 - pyroute2 has no types
        return pyroute2_tuple(
            of_family,
            saddr=format_address(source[0]),
            sport=source[1],
            daddr=format_address(destination[0]),
            dport=destination[1],
            proto=entry.destination.protocol,
        )

    address, _, port = entry.destination
    return {
        "tuple_orig": one(entry.source, (address, port)),
        "tuple_reply": one(entry.endpoint, entry.source),
    }


def payload(message: bytes) -> bytes:
    return message[HEADER.size :]


@given(entry=entries_of(4), unanswered=st.booleans())
def test_an_ipv4_destination_is_asked_for_in_the_bytes_that_pyroute2_gives_it(
    entry: ConntrackEntry, *, unanswered: bool
) -> None:
    address, protocol, port = entry.destination
    fields = {"daddr": format_address(address), "proto": protocol, "dport": port}
    expected = pyroute2_filtered(Family.IPV4, unanswered=unanswered, **fields)
    assert encode_get_destination(entry.destination, unanswered=unanswered) == expected


@given(entry=entries_of(16), unanswered=st.booleans())
def test_an_ipv6_destination_is_asked_for_by_its_port(entry: ConntrackEntry, *, unanswered: bool) -> None:
    _, protocol, port = entry.destination
    expected = pyroute2_filtered(Family.IPV6, unanswered=unanswered, proto=protocol, dport=port)
    assert encode_get_destination(entry.destination, unanswered=unanswered) == expected


@pytest.mark.parametrize("of_family", Family)
@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("unanswered", [False, True])
def test_a_protocol_is_asked_for_in_the_bytes_that_pyroute2_gives_it(
    of_family: Family, protocol: Protocol, *, unanswered: bool
) -> None:
    expected = pyroute2_filtered(of_family, unanswered=unanswered, proto=protocol)
    assert encode_get_protocol(of_family, protocol, unanswered=unanswered) == expected


@given(ENTRIES, IDENTIFIERS)
def test_an_entry_that_pyroute2_wrote_is_read_and_deleted_in_its_bytes(
    entry: ConntrackEntry, identifier: int
) -> None:
    of_family = family(entry.source[0])
    status = SEEN_REPLY if entry.answered else 0
    written = pyroute2_message(NEW, of_family, **tuples(entry), status=status, id=identifier)
    found = decode_entry(payload(written))
    assert found is not None
    assert found[:3] == (entry.destination, entry.endpoint, entry.answered)
    assert decode_destination(payload(written)) == entry.destination
    original = tuples(entry)["tuple_orig"]
    assert encode_delete(found) == pyroute2_message(DELETE, of_family, tuple_orig=original, id=identifier)


@given(ENTRIES, IDENTIFIERS)
def test_an_entry_that_the_kernel_wrote_is_read(entry: ConntrackEntry, identifier: int) -> None:
    written = dumped(entry, identifier)
    assert decode_destination(written) == entry.destination
    assert decode_entry(written) == Entry(
        entry.destination, entry.endpoint, entry.answered, original_tuple(entry), identifier.to_bytes(4)
    )


@given(ENTRIES)
def test_the_beginning_of_an_entry_is_enough_to_know_its_destination(entry: ConntrackEntry) -> None:
    beginning = dumped(entry)[: 4 + 4 + len(original_tuple(entry))]
    assert decode_destination(beginning) == entry.destination


@given(ENTRIES)
def test_a_deletion_names_the_entry_in_the_kernels_own_bytes(entry: ConntrackEntry) -> None:
    found = decode_entry(dumped(entry, 0x01020304))
    assert found is not None
    attributes = encode_attribute(1, original_tuple(entry)) + encode_attribute(12, b"\1\2\3\4")
    assert payload(encode_delete(found)) == bytes((family(entry.source[0]), 0, 0, 0)) + attributes


@pytest.mark.parametrize("entry", [ENTRY, ENTRY6])
def test_an_entry_of_another_zone_is_left_out(entry: ConntrackEntry) -> None:
    assert decode_entry(dumped(entry._replace(zone=5))) is None


@pytest.mark.parametrize("direction", ["CTA_TUPLE_ORIG", "CTA_TUPLE_REPLY"])
def test_an_entry_with_a_zone_in_one_direction_is_left_out(direction: str) -> None:
    zone = encode_attribute(3, (5).to_bytes(2))
    original, reply = original_tuple(ENTRY), original_tuple(ENTRY)
    if direction == "CTA_TUPLE_ORIG":
        original += zone
    else:
        reply += zone
    written = encode_attribute(1, original) + encode_attribute(2, reply) + encode_attribute(12, bytes(4))
    assert decode_entry(bytes((Family.IPV4, 0, 0, 0)) + written) is None


@pytest.mark.parametrize("number", [socket.IPPROTO_GRE, socket.IPPROTO_UDPLITE])
def test_an_entry_of_another_protocol_with_ports_is_left_out(number: int) -> None:
    destination = DNS._replace(protocol=number)  # type: ignore[arg-type]
    written = dumped(ENTRY._replace(destination=destination))
    assert decode_destination(written) is None
    assert decode_entry(written) is None


def test_an_entry_without_ports_is_left_out() -> None:
    echo = {"saddr": "10.244.1.7", "daddr": "10.96.0.10", "proto": socket.IPPROTO_ICMP, "icmp_id": 1}
    original = pyroute2_tuple(Family.IPV4, **echo, icmp_type=8, icmp_code=0)
    written = payload(
        pyroute2_message(
            NEW, Family.IPV4, tuple_orig=original, tuple_reply=original.reverse(), status=0, id=1
        )
    )
    assert decode_destination(written) is None
    assert decode_entry(written) is None
