"""Which of the node's addresses serve node ports."""

from __future__ import annotations

import pytest

from ipvsproxy.model.addresses import parse_address, parse_network
from ipvsproxy.model.objects import Node
from ipvsproxy.model.selection import NodePortAddresses
from ipvsproxy.plan.node_addresses import node_port_addresses

INTERFACES = ("192.0.2.10", "192.0.2.11", "10.0.0.5", "2001:db8::10", "fd00::5")
NODE = ("192.0.2.10", "2001:db8::10", "192.0.2.11", "203.0.113.1")


def selected(
    selection: NodePortAddresses,
    interfaces: tuple[str, ...] = INTERFACES,
    node: tuple[str, ...] | None = NODE,
) -> set[str]:
    named = None if node is None else Node("node-1", addresses=tuple(map(parse_address, node)))
    addresses = {parse_address(address): address for address in {*interfaces, *(node or ())}}
    found = node_port_addresses(selection, named, frozenset(map(parse_address, interfaces)))
    return {addresses[address] for address in found}


def networks(*texts: str) -> NodePortAddresses:
    return NodePortAddresses(networks=tuple(map(parse_network, texts)))


def test_all_are_the_addresses_of_every_interface() -> None:
    assert selected(NodePortAddresses()) == set(INTERFACES)


def test_networks_select_the_addresses_within() -> None:
    assert selected(networks("192.0.2.0/24")) == {"192.0.2.10", "192.0.2.11"}
    assert selected(networks("10.0.0.0/8", "fd00::/8")) == {"10.0.0.5", "fd00::5"}
    assert selected(networks("198.51.100.0/24")) == set()


def test_a_network_of_everything_is_everything_of_its_family() -> None:
    assert selected(networks("0.0.0.0/0")) == {"192.0.2.10", "192.0.2.11", "10.0.0.5"}
    assert selected(networks("0.0.0.0/0", "::/0")) == set(INTERFACES)


def test_primary_is_the_first_address_of_each_family_that_the_node_names() -> None:
    assert selected(NodePortAddresses(primary=True)) == {"192.0.2.10", "2001:db8::10"}


def test_primary_addresses_need_no_interface_that_has_them() -> None:
    assert selected(NodePortAddresses(primary=True), interfaces=()) == {"192.0.2.10", "2001:db8::10"}


def test_primary_is_nothing_without_a_node() -> None:
    assert selected(NodePortAddresses(primary=True), node=None) == set()


def test_primary_and_networks_together_are_both() -> None:
    both = networks("10.0.0.0/8")._replace(primary=True)
    assert selected(both) == {"192.0.2.10", "2001:db8::10", "10.0.0.5"}


@pytest.mark.parametrize(
    "selection", [NodePortAddresses(), networks("0.0.0.0/0", "::/0"), networks("127.0.0.0/8", "::1/128")]
)
@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.0.1", "::1", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::"]
)
def test_an_address_that_ipvs_can_not_serve_is_never_selected(
    selection: NodePortAddresses, address: str
) -> None:
    assert selected(selection, interfaces=(address,)) == set()
    assert selected(NodePortAddresses(primary=True), node=(address,)) == set()


def test_a_link_local_ipv4_address_is_one_like_others() -> None:
    assert selected(NodePortAddresses(), interfaces=("169.254.20.10",)) == {"169.254.20.10"}


def test_loopback_networks_select_nothing_beside_others() -> None:
    interfaces = ("127.0.0.1", "192.0.2.10")
    assert selected(networks("127.0.0.0/8"), interfaces) == set()
    assert selected(networks("127.0.0.0/8", "192.0.2.0/24"), interfaces) == {"192.0.2.10"}
