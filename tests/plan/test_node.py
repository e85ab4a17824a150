"""What the plans of Services depend on of the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.addresses import Holding
from ipvsproxy.model.selection import NodePortAddresses
from ipvsproxy.plan.node import Dependency, NodeInputs, Reservation, changes, node_facts
from tests.builders import NODE, address, addresses, networks, node

if TYPE_CHECKING:
    from ipvsproxy.plan.node import NodeFacts

ALL = NodePortAddresses()
OWN = addresses("198.51.100.1", "2001:db8::1")
HELD = dict.fromkeys(OWN, Holding.WITH_NETWORK)


def facts(**inputs: Any) -> NodeFacts:  # noqa: ANN401 - those of NodeInputs
    return node_facts(NODE, ALL, networks("10.244.0.0/16"), NodeInputs(**inputs))


def test_without_its_node_object_a_node_has_its_name_and_its_interfaces_addresses() -> None:
    found = facts(interface_addresses=HELD)
    assert found.here == (NODE, "")
    assert found.addresses == found.node_port_addresses == set(OWN)
    assert found.reserved == dict.fromkeys(OWN, Reservation.THIS_NODE)


def test_the_zone_is_the_nodes() -> None:
    assert facts(node=node(zone="zone-a")).here.zone == "zone-a"


def test_addresses_that_the_node_names_are_its_own_and_reserved() -> None:
    held = {address("10.0.0.1"): Holding.WITH_NETWORK, address("198.51.100.1"): Holding.ALONE}
    found = facts(node=node(ips=("198.51.100.1",)), interface_addresses=held)
    assert found.addresses == set(addresses("198.51.100.1", "10.0.0.1"))
    assert found.reserved == dict.fromkeys(found.addresses, Reservation.THIS_NODE)


def test_an_address_that_an_interface_holds_alone_is_told_from_the_nodes_own() -> None:
    found = facts(interface_addresses=dict.fromkeys(OWN, Holding.ALONE))
    assert found.addresses == found.node_port_addresses == set(OWN)
    assert found.reserved == dict.fromkeys(OWN, Reservation.INTERFACE)


def test_whose_an_address_is_says_the_nearest_owner() -> None:
    everywhere = addresses("192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1", "198.51.100.2")
    found = facts(
        nodes=frozenset(everywhere),
        api_peers=frozenset(addresses("192.0.2.1", "192.0.2.3", "198.51.100.1")),
        api_servers=frozenset(addresses("192.0.2.1", "198.51.100.1")),
        node=node(ips=("198.51.100.1",)),
        interface_addresses={
            **dict.fromkeys(addresses("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"), Holding.ALONE),
            address("198.51.100.2"): Holding.WITH_NETWORK,
        },
    )
    assert found.reserved == {
        address("192.0.2.4"): Reservation.INTERFACE,
        address("192.0.2.2"): Reservation.OTHER_NODE,
        address("192.0.2.3"): Reservation.API_PEER,
        address("192.0.2.1"): Reservation.API_SERVER,
        address("198.51.100.1"): Reservation.THIS_NODE,
        address("198.51.100.2"): Reservation.THIS_NODE,
    }


def test_no_service_may_take_over_an_address_of_the_pods() -> None:
    found = facts(node=node(pod_cidrs=("fd00:10:244:1::/64",)))
    for text in ("10.244.9.9", "fd00:10:244:1::9"):
        assert found.reservation(address(text)) is Reservation.POD_NETWORK
    assert found.reservation(address("203.0.113.1")) is None


@pytest.mark.parametrize(
    ("after", "concerned"),
    [
        (facts(), Dependency(0)),
        (facts(node=node(zone="zone-a")), Dependency.ZONE),
        (facts(interface_addresses=HELD), Dependency.ADDRESSES),
        (facts(interface_addresses=dict.fromkeys(OWN, Holding.ALONE)), Dependency.ADDRESSES),
        (facts(api_peers=frozenset(OWN)), Dependency.ADDRESSES),
        (facts(nodes=frozenset(OWN)), Dependency.ADDRESSES),
        (facts(node=node(zone="zone-a", ips=("198.51.100.1",))), Dependency.ZONE | Dependency.ADDRESSES),
    ],
)
def test_a_change_concerns_the_plans_that_depend_on_what_changed(
    after: NodeFacts, concerned: Dependency
) -> None:
    assert changes(facts(), after) == concerned
    assert changes(after, facts()) == concerned
