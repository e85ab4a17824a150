"""Who may use a load balancer's address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.addresses import Address, Family, parse_network
from ipvsproxy.plan.source_ranges import NOBODY, allowed_sources
from tests.builders import address, addresses, networks, source_list

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Network

IPV4, IPV6 = address("203.0.113.1"), address("2001:db8::1")


def test_without_ranges_every_source_is_let_in() -> None:
    assert allowed_sources(None, IPV4, ()) is None


def test_ranges_that_no_source_is_in_let_nobody_in() -> None:
    assert allowed_sources((), IPV4, addresses("198.51.100.1")) == NOBODY[Family.IPV4]


def test_ranges_of_one_family_alone_close_the_other() -> None:
    assert allowed_sources(networks("192.0.2.0/24"), IPV6, ()) == NOBODY[Family.IPV6]


def test_a_range_of_a_whole_family_opens_that_family() -> None:
    assert allowed_sources(networks("0.0.0.0/0", "2001:db8:1::/48"), IPV4, ()) is None
    assert allowed_sources(networks("0.0.0.0/0", "::/0"), IPV6, ()) is None
    assert allowed_sources(networks("0.0.0.0/0"), IPV6, ()) == NOBODY[Family.IPV6]


def test_a_range_within_another_is_left_out() -> None:
    found = allowed_sources(networks("10.1.0.0/16", "10.0.0.0/8", "192.0.2.0/24", "10.0.0.0/8"), IPV4, ())
    assert found == source_list("10.0.0.0/8", "192.0.2.0/24")


def test_the_node_reaches_the_address_if_one_of_its_own_is_in_a_range() -> None:
    node = addresses("198.51.100.1", "2001:db8:64::1")
    for ranges, at, admits_node in (
        (("198.51.100.0/24",), IPV4, True),
        (("192.0.2.0/24",), IPV4, False),
        (("2001:db8:64::/64",), IPV6, True),
        (("198.51.100.0/24", "2001:db8::/64"), IPV6, False),
    ):
        found = allowed_sources(networks(*ranges), at, node)
        assert found is not None
        assert found.admits_node is admits_node
        assert {str(network) for network in found.networks} <= set(ranges)


def test_addresses_and_services_with_the_same_ranges_share_a_list() -> None:
    node = addresses("198.51.100.1")
    first = allowed_sources(networks("198.51.100.0/24", "192.0.2.0/24"), IPV4, node)
    again = allowed_sources(networks("192.0.2.0/24", "198.51.100.0/24"), address("203.0.113.9"), node)
    assert first == again
    assert first != allowed_sources(networks("198.51.100.0/24", "192.0.2.0/24"), IPV4, ())


def test_a_process_may_use_an_address_that_another_interface_has_as_well() -> None:
    """Its source is that address, which is not among the service addresses then."""
    node = (IPV4, address("198.51.100.1"))
    found = allowed_sources(networks("198.51.100.0/24"), IPV4, node)
    assert found == source_list("198.51.100.0/24", "203.0.113.1/32", admits_node=True)
    assert allowed_sources(networks("192.0.2.0/24"), IPV4, node) == source_list("192.0.2.0/24")


NETWORKS = st.builds(
    lambda number, length: parse_network(f"{number >> 24}.{number >> 16 & 255}.0.0/{length}"),
    st.integers(0, 2**32 - 1),
    st.integers(1, 16),
)


@given(st.lists(NETWORKS, max_size=6), st.binary(min_size=4, max_size=4))
def test_exactly_the_sources_of_the_ranges_are_let_in_and_no_network_overlaps_another(
    ranges: list[Network], source: bytes
) -> None:
    found = allowed_sources(tuple(ranges), IPV4, ())
    assert found is not None
    kept = found.networks
    client = Address(source)
    assert sum(network.contains(client) for network in kept) == any(each.contains(client) for each in ranges)
    assert [a for a in kept for b in kept if a is not b and b.contains(a.address)] == []
