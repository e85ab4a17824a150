from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.addresses import (
    Address,
    Family,
    Network,
    family,
    format_address,
    format_endpoint,
    parse_address,
    parse_network,
    parse_stored_address,
    parse_stored_network,
)

addresses = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)).map(Address)


@given(addresses)
def test_an_address_is_written_as_the_standard_library_writes_it_and_read_back(address: Address) -> None:
    text = format_address(address)
    assert ipaddress.ip_address(text).packed == address
    assert parse_address(text) == address


@given(addresses)
def test_every_spelling_that_the_standard_library_knows_is_read(address: Address) -> None:
    assert parse_address(ipaddress.ip_address(bytes(address)).exploded.upper()) == address


@given(st.text() | st.from_regex(r"[0-9a-fA-F:.]{1,40}", fullmatch=True))
def test_what_the_standard_library_does_not_take_for_an_address_is_refused(text: str) -> None:
    try:
        expected = ipaddress.ip_address(text).packed
    except ValueError:
        with pytest.raises(ValueError, match="is not an IP address"):
            parse_address(text)
    else:
        assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0",
        "10.0.0.256",
        "010.0.0.1",
        "10.0.0.1 ",
        "10.0.0.1/32",
        "fe80::1%eth0",
        "[::1]",
        "::1::",
        "a\0b",
        "\ud800",
    ],
)
def test_something_like_an_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not an IP address"):
        parse_address(text)


@given(addresses, st.integers(0, 5))
def test_a_stored_address_may_have_leading_zeros(address: Address, zeros: int) -> None:
    text = format_address(address)
    padded = re.sub(r"(?<![0-9a-f])(?=[0-9a-f])", "0" * zeros, text)
    assert parse_stored_address(padded) == parse_stored_address(text)


@given(st.binary(min_size=4, max_size=4), st.integers(0, 32))
def test_a_stored_ipv4_mapped_address_is_an_ipv4_address(address: bytes, length: int) -> None:
    text = format_address(Address(address))
    assert parse_stored_address(f"::ffff:{text}") == address
    assert parse_stored_network(f"::ffff:{text}/{96 + length}") == parse_network(f"{text}/{length}")


@given(addresses)
def test_any_other_stored_address_is_what_it_is(address: Address) -> None:
    text = format_address(address)
    expected = address[-4:] if text.startswith("::ffff:") and "." in text else address
    assert parse_stored_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "00", "0x10.0.0.1", "10.0.0.0256", "10.0.0", "010.0.0.1 ", "fe80::1%eth0"]
)
def test_something_like_a_stored_address_is_refused_by_its_own_text(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(text))} is not an IP address$"):
        parse_stored_address(text)


def test_the_length_says_the_family() -> None:
    assert family(parse_address("10.96.0.1")) is Family.IPV4
    assert family(parse_address("fd00::1")) is Family.IPV6
    assert (Family.IPV4.bits, Family.IPV6.bits) == (32, 128)


def test_addresses_of_a_family_sort_by_number() -> None:
    texts = ["9.255.0.1", "10.0.0.2", "10.0.0.10", "172.16.0.1"]
    assert sorted(map(parse_address, reversed(texts))) == [parse_address(text) for text in texts]


def test_an_ipv6_address_has_brackets_beside_a_port() -> None:
    assert format_endpoint(parse_address("10.96.0.1"), 80) == "10.96.0.1:80"
    assert format_endpoint(parse_address("fd00:0::1"), 443) == "[fd00::1]:443"


@given(addresses, addresses, st.data())
def test_a_network_contains_what_the_standard_library_says(
    first: Address, second: Address, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, family(first).bits))
    network = parse_network(f"{format_address(first)}/{length}")
    expected = ipaddress.ip_network((bytes(first), length), strict=False)
    assert str(network) == str(expected)
    assert network.family is family(first)
    assert network.contains(first)
    assert network.contains(second) is (ipaddress.ip_address(bytes(second)) in expected)


def test_the_bits_behind_the_prefix_are_dropped() -> None:
    assert parse_network("10.96.7.9/16") == Network(parse_address("10.96.0.0"), 16)


def test_a_network_of_everything_contains_its_own_family_only() -> None:
    everything = parse_network("0.0.0.0/0")
    assert everything.contains(parse_address("255.255.255.255"))
    assert not everything.contains(parse_address("::"))


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0",
        "10.0.0.0/",
        "10.0.0.0/33",
        "fd00::/129",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.0/٨",
        "/8",
        "x/8",
        "",
    ],
)
def test_what_is_not_a_network_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a network in CIDR notation"):
        parse_network(text)
