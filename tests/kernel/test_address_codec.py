"""Our rtnetlink bytes against pyroute2's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from ipvsproxy.kernel.address_codec import (
    InterfaceAddress,
    Link,
    decode_address,
    decode_link,
    encode_changes,
    encode_get_addresses,
    encode_get_link,
    encode_new_dummy,
)
from ipvsproxy.kernel.netlink_codec import HEADER
from ipvsproxy.model.addresses import Address, Family, Holding, family, format_address
from tests.builders import address

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST, NEW = 0x1, 0x601
# linux/if_addr.h, IFA_F_*; the first two share a bit.
SECONDARY, TEMPORARY, PERMANENT = 0x01, 0x01, 0x80
NEVER_PREFERRED = {"ifa_preferred": 0, "ifa_valid": 0xFFFFFFFF, "cstamp": 0, "tstamp": 0}
ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)).map(Address)
INDEXES = st.integers(1, 0x7FFFFFFF)


def encoded(
    kind: Callable[[], Any],
    message_type: int,
    header_flags: int,
    *attributes: tuple[str, str | dict[str, list[tuple[str, str]]]],
    **fields: int,
) -> bytes:
    message = kind()
    message["header"]["type"], message["header"]["flags"] = message_type, header_flags
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data)


def pyroute2_change(message_type: int, flags: int, index: int, changed: Address) -> bytes:
    ipv6 = family(changed) is Family.IPV6
    return encoded(
        ifaddrmsg,
        message_type,
        flags,
        *((("IFA_CACHEINFO", NEVER_PREFERRED),) if ipv6 else ()),
        ("IFA_LOCAL", format_address(changed)),
        family=family(changed),
        prefixlen=family(changed).bits,
        flags=0x2 if ipv6 else 0,  # IFA_F_NODAD
        scope=0 if ipv6 else 254,  # RT_SCOPE_UNIVERSE, RT_SCOPE_HOST
        index=index,
    )


@given(INDEXES, st.lists(ADDRESSES), st.lists(ADDRESSES))
def test_changes_have_the_bytes_that_pyroute2_gives_them_removals_first(
    index: int, add: list[Address], remove: list[Address]
) -> None:
    assert list(encode_changes(index, add, remove)) == [
        *(pyroute2_change(21, REQUEST, index, each) for each in remove),
        *(pyroute2_change(20, NEW, index, each) for each in add),
    ]


@pytest.mark.parametrize("index", [0, 7])
def test_the_request_for_a_dump_names_the_interface(index: int) -> None:
    assert encode_get_addresses(index) == encoded(ifaddrmsg, 22, REQUEST, index=index)


def test_an_interface_is_asked_for_by_name() -> None:
    expected = encoded(ifinfmsg, 18, REQUEST, ("IFLA_IFNAME", "kube-ipvs0"))
    assert encode_get_link("kube-ipvs0") == expected


def test_a_new_dummy_interface_has_the_bytes_that_pyroute2_gives_it() -> None:
    kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "dummy")]})
    expected = encoded(ifinfmsg, 16, NEW, ("IFLA_IFNAME", "kube-ipvs0"), kind)
    assert encode_new_dummy("kube-ipvs0") == expected


def payload(message: bytes) -> bytes:
    return message[HEADER.size :]


def dumped(found: Address, peer: str | None = None, prefix: int = 0, flags: int = 0) -> bytes:
    """Return the answer of a dump: IPv6 has no local address unless there is a peer."""
    own = format_address(found)
    attributes = [("IFA_ADDRESS", peer or own)]
    if peer or family(found) is Family.IPV4:
        attributes.append(("IFA_LOCAL", own))
    return payload(
        encoded(ifaddrmsg, 20, 0, *attributes, family=family(found), prefixlen=prefix, flags=flags, index=7)
    )


@pytest.mark.parametrize("text", ["10.96.0.1", "169.254.20.10", "fd00:96::1", "fec0::1", "ff02::1"])
def test_an_address_is_read_with_its_interface(text: str) -> None:
    assert decode_address(dumped(address(text))) == InterfaceAddress(7, address(text), Holding.WITH_NETWORK)


@pytest.mark.parametrize(
    ("text", "prefix", "flags", "holding"),
    [
        ("192.0.2.1", 24, 0, Holding.WITH_NETWORK),
        ("192.0.2.1", 31, PERMANENT, Holding.WITH_NETWORK),
        ("192.0.2.1", 32, PERMANENT, Holding.ALONE),
        ("192.0.2.1", 24, PERMANENT | SECONDARY, Holding.ALONE),
        ("2001:db8::1", 64, 0, Holding.WITH_NETWORK),
        ("2001:db8::1", 128, PERMANENT, Holding.ALONE),
        ("2001:db8::1", 64, TEMPORARY, Holding.WITH_NETWORK),
    ],
)
def test_an_address_that_brings_no_network_is_held_alone(
    text: str, prefix: int, flags: int, holding: Holding
) -> None:
    found = decode_address(dumped(address(text), prefix=prefix, flags=flags))
    assert found == InterfaceAddress(7, address(text), holding)


@pytest.mark.parametrize(("text", "peer"), [("10.96.0.1", "10.96.0.2"), ("fd00:96::1", "fd00:96::2")])
def test_of_a_point_to_point_address_the_own_end_counts(text: str, peer: str) -> None:
    assert decode_address(dumped(address(text), peer)) == InterfaceAddress(
        7, address(text), Holding.WITH_NETWORK
    )


@pytest.mark.parametrize("text", ["fe80::1", "febf:ffff::1"])
def test_an_ipv6_link_local_address_is_left_out(text: str) -> None:
    assert decode_address(dumped(address(text))) is None


def test_an_interfaces_index_and_kind_are_read() -> None:
    kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "dummy")]})
    answer = encoded(ifinfmsg, 16, 0, ("IFLA_IFNAME", "kube-ipvs0"), kind, index=7)
    assert decode_link(payload(answer)) == Link(7, "dummy")


def test_a_physical_interface_has_no_kind() -> None:
    answer = encoded(ifinfmsg, 16, 0, ("IFLA_IFNAME", "eth0"), index=2)
    assert decode_link(payload(answer)) == Link(2, "")
