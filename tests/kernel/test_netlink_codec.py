from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nlmsg

from ipvsproxy.kernel.interface import KernelError
from ipvsproxy.kernel.netlink_codec import (
    HEADER,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    Message,
    decode_attributes,
    decode_error,
    decode_messages,
    encode_attribute,
    encode_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ATTRIBUTES = st.dictionaries(st.integers(1, 0x1FFF), st.binary(max_size=40))
REQUEST_HEADER = HEADER.pack(36, 20, NLM_F_REQUEST, 7, 0)


def error(code: int, flags: int = NLM_F_CAPPED, rest: bytes = b"") -> Message:
    payload = (-code).to_bytes(4, "little", signed=True) + REQUEST_HEADER + rest
    return Message(NLMSG_ERROR, flags, 7, payload)


@given(ATTRIBUTES)
def test_attributes_survive_the_round_trip(values: dict[int, bytes]) -> None:
    encoded = b"".join(encode_attribute(kind, value) for kind, value in values.items())
    assert len(encoded) % 4 == 0
    assert decode_attributes(b"head" + encoded, 4) == values


def test_an_attributes_flags_are_no_part_of_its_type() -> None:
    nested, network_byte_order = 0x8000, 0x4000
    assert decode_attributes(encode_attribute(nested | network_byte_order | 5, b"x")) == {5: b"x"}


def test_the_padding_of_the_last_attribute_may_be_missing() -> None:
    assert decode_attributes(encode_attribute(1, b"abc")[:-1]) == {1: b"abc"}


@pytest.mark.parametrize("cut", [b"\x03\x00\x01\x00", b"\x00\x00\x00\x00", b"\x09\x00\x01\x00abcd"])
def test_a_malformed_attribute_is_a_value_error(cut: bytes) -> None:
    with pytest.raises(ValueError, match="cut short"):
        decode_attributes(cut)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF), st.binary(max_size=40).map(lambda text: text + bytes(-len(text) % 4))
        )
    )
)
def test_the_messages_of_a_datagram_survive_the_round_trip(messages: list[tuple[int, bytes]]) -> None:
    datagram = b"".join(encode_message(kind, NLM_F_CREATE, payload) for kind, payload in messages)
    assert list(decode_messages(datagram)) == [
        Message(kind, NLM_F_CREATE | NLM_F_REQUEST, 0, payload) for kind, payload in messages
    ]


@given(st.binary(max_size=60))
def test_any_bytes_are_messages_or_a_value_error(datagram: bytes) -> None:
    try:
        messages = list(decode_messages(datagram))
    except ValueError:
        return
    assert sum(len(message.payload) + HEADER.size for message in messages) <= len(datagram)


def test_a_message_is_encoded_as_pyroute2_does() -> None:
    make: Callable[[], Any] = nlmsg
    reference = make()
    reference["header"]["type"] = 20
    reference["header"]["flags"] = NLM_F_REQUEST | NLM_F_CREATE
    reference.encode()
    assert encode_message(20, NLM_F_CREATE, b"") == bytes(reference.data)


def test_an_acknowledgement_has_code_0() -> None:
    assert decode_error(error(0)) == KernelError(0)


def test_the_extended_acknowledgements_text_is_in_the_error() -> None:
    text = encode_attribute(2, b"\x18\0\0\0") + encode_attribute(
        NLMSGERR_ATTR_MSG, b"Invalid prefix length\0"
    )
    refusal = error(errno.EINVAL, NLM_F_CAPPED | NLM_F_ACK_TLVS, text)
    assert decode_error(refusal) == KernelError(errno.EINVAL, "Invalid prefix length")


def test_an_error_without_a_text_has_the_code_alone() -> None:
    other = encode_attribute(2, b"\x18\0\0\0")
    assert decode_error(error(errno.EEXIST)) == KernelError(errno.EEXIST)
    assert decode_error(error(errno.EEXIST, NLM_F_CAPPED | NLM_F_ACK_TLVS, other)) == KernelError(
        errno.EEXIST
    )


def test_a_request_repeated_in_the_error_is_not_taken_for_its_text() -> None:
    request = encode_attribute(NLMSGERR_ATTR_MSG, b"mine")
    assert decode_error(error(errno.EPERM, NLM_F_ACK_TLVS, request)) == KernelError(errno.EPERM)
