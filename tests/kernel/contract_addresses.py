"""What every implementation of `Addresses` does: run on the fake everywhere, and on a kernel in netns_tests.

A subclass named Test* provides the fixture `node`: a node without the dummy interface, and with no address but those of
the loopback interface.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

import pytest

from ipvsproxy.kernel.interface import KernelUnavailableError
from ipvsproxy.model.addresses import Holding
from tests.builders import address

if TYPE_CHECKING:
    from ipvsproxy.kernel.interface import Addresses
    from ipvsproxy.model.addresses import Address

IPV4, IPV6 = address("10.96.0.1"), address("fd00:96::1")
LOOPBACK = {address("127.0.0.1"): Holding.WITH_NETWORK, address("::1"): Holding.ALONE}


class Node(Protocol):
    """What surrounds the addresses under test; the dummy interface is kube-ipvs0."""

    @property
    def addresses(self) -> Addresses:
        """The implementation under test."""

    def bind_elsewhere(self, text: str) -> None:
        """Bind an address, alone or as ADDRESS/PREFIX with its network, to another interface, up or down."""

    def occupy_name(self) -> None:
        """Let a bridge have the dummy interface's name."""

    def delete_interface(self) -> None:
        """Delete the dummy interface."""

    def disable_ipv6(self) -> None:
        """Disable IPv6 on the dummy interface."""


def codes(addresses: Addresses, add: list[Address], remove: list[Address]) -> dict[Address, int]:
    """Apply the changes and return the errno of the refused ones."""
    return {each: error.code for each, error in addresses.apply(add, remove).items()}


class AddressesContract:
    def test_without_the_interface_nothing_is_bound_and_changes_are_enodev(self, node: Node) -> None:
        assert node.addresses.bound() == set()
        assert node.addresses.elsewhere() == LOOPBACK
        assert codes(node.addresses, [IPV4], [IPV6]) == {IPV4: errno.ENODEV, IPV6: errno.ENODEV}

    def test_the_interface_is_made_once_and_kept(self, node: Node) -> None:
        node.addresses.ensure_interface()
        assert node.addresses.apply([IPV4], []) == {}
        node.addresses.ensure_interface()
        assert node.addresses.bound() == {IPV4}

    def test_an_interface_of_another_kind_is_refused_by_name_and_kind(self, node: Node) -> None:
        node.occupy_name()
        with pytest.raises(KernelUnavailableError, match="kube-ipvs0 is of kind bridge, not dummy"):
            node.addresses.ensure_interface()

        with pytest.raises(KernelUnavailableError, match="kube-ipvs0 is of kind bridge, not dummy"):
            node.addresses.remove_interface()

    def test_the_interface_is_removed_with_its_addresses_and_nothing_is_no_error(self, node: Node) -> None:
        assert not node.addresses.has_interface()
        node.addresses.remove_interface()
        node.addresses.ensure_interface()
        assert node.addresses.apply([IPV4, IPV6], []) == {}
        assert node.addresses.has_interface()
        node.addresses.remove_interface()
        assert not node.addresses.has_interface()
        assert node.addresses.bound() == set()

    def test_addresses_are_bound_and_removed(self, node: Node) -> None:
        node.addresses.ensure_interface()
        assert node.addresses.apply([IPV4, IPV6], []) == {}
        assert node.addresses.bound() == {IPV4, IPV6}
        assert node.addresses.apply([address("10.96.0.2")], [IPV6]) == {}
        assert node.addresses.bound() == {IPV4, address("10.96.0.2")}

    def test_neighbouring_addresses_come_and_go_independently(self, node: Node) -> None:
        node.addresses.ensure_interface()
        neighbours = [address(f"10.96.0.{number}") for number in range(1, 9)]
        assert node.addresses.apply(neighbours, []) == {}
        assert node.addresses.apply([], neighbours[:4]) == {}
        assert node.addresses.bound() == set(neighbours[4:])

    def test_binding_twice_is_eexist_and_removing_a_missing_one_eaddrnotavail(self, node: Node) -> None:
        node.addresses.ensure_interface()
        assert node.addresses.apply([IPV4, IPV6], []) == {}
        missing = [address("10.96.0.2"), address("fd00:96::2")]
        expected = {IPV4: errno.EEXIST, IPV6: errno.EEXIST} | dict.fromkeys(missing, errno.EADDRNOTAVAIL)
        assert codes(node.addresses, [IPV4, IPV6], missing) == expected
        assert node.addresses.bound() == {IPV4, IPV6}

    def test_removals_come_before_additions(self, node: Node) -> None:
        node.addresses.ensure_interface()
        assert node.addresses.apply([IPV4, IPV6], []) == {}
        assert node.addresses.apply([IPV4, IPV6], [IPV4, IPV6]) == {}
        assert node.addresses.bound() == {IPV4, IPV6}

    @pytest.mark.parametrize("text", ["::", "::1", "ff02::1"])
    def test_an_ipv6_address_that_no_interface_takes_is_eaddrnotavail(self, node: Node, text: str) -> None:
        node.addresses.ensure_interface()
        bad = address(text)
        assert codes(node.addresses, [IPV6, bad, IPV4], []) == {bad: errno.EADDRNOTAVAIL}
        assert node.addresses.bound() == {IPV4, IPV6}

    def test_with_ipv6_disabled_its_addresses_are_eacces_and_the_others_are_bound(self, node: Node) -> None:
        node.addresses.ensure_interface()
        node.disable_ipv6()
        assert codes(node.addresses, [IPV6, IPV4], [address("fd00:96::2")]) == {
            IPV6: errno.EACCES,
            address("fd00:96::2"): errno.EADDRNOTAVAIL,
        }
        assert node.addresses.bound() == {IPV4}

    def test_the_addresses_of_other_interfaces_are_elsewhere(self, node: Node) -> None:
        for text in ("192.0.2.1", "2001:db8::1", "198.51.100.1/24", "2001:db8:1::1/64"):
            node.bind_elsewhere(text)
        node.addresses.ensure_interface()
        assert node.addresses.apply([IPV4, IPV6], []) == {}
        assert node.addresses.elsewhere() == LOOPBACK | {
            address("192.0.2.1"): Holding.ALONE,
            address("2001:db8::1"): Holding.ALONE,
            address("198.51.100.1"): Holding.WITH_NETWORK,
            address("2001:db8:1::1"): Holding.WITH_NETWORK,
        }
        assert node.addresses.bound() == {IPV4, IPV6}

    def test_one_more_address_of_a_network_is_held_alone_where_the_kernel_tells_it_apart(
        self, node: Node
    ) -> None:
        for text in ("192.0.2.1/24", "192.0.2.2/24", "2001:db8::1/64", "2001:db8::2/64"):
            node.bind_elsewhere(text)
        assert node.addresses.elsewhere() == LOOPBACK | {
            address("192.0.2.1"): Holding.WITH_NETWORK,
            address("192.0.2.2"): Holding.ALONE,
            address("2001:db8::1"): Holding.WITH_NETWORK,
            address("2001:db8::2"): Holding.WITH_NETWORK,
        }

    def test_an_address_may_be_on_both_sides(self, node: Node) -> None:
        node.addresses.ensure_interface()
        node.bind_elsewhere("10.96.0.1")
        assert node.addresses.apply([IPV4], []) == {}
        assert IPV4 in node.addresses.bound()
        assert IPV4 in node.addresses.elsewhere()

    def test_an_interface_that_vanished_is_made_anew(self, node: Node) -> None:
        node.addresses.ensure_interface()
        assert node.addresses.apply([IPV4], []) == {}
        node.delete_interface()
        assert node.addresses.bound() == set()
        node.addresses.ensure_interface()
        assert node.addresses.apply([IPV4], []) == {}
        assert node.addresses.bound() == {IPV4}

    def test_refused_addresses_among_many_are_named(self, node: Node) -> None:
        node.addresses.ensure_interface()
        many = [address(f"10.97.{number >> 8}.{number & 0xFF}") for number in range(600)]
        assert node.addresses.apply(many[::100], []) == {}
        assert codes(node.addresses, many, []) == dict.fromkeys(many[::100], errno.EEXIST)
        assert node.addresses.bound() == set(many)
        assert node.addresses.apply([], many) == {}
        assert node.addresses.bound() == set()
