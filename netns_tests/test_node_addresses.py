"""What the kernel says of the node's addresses as they come and go, and what of it counts."""

from __future__ import annotations

import dataclasses
import os
import queue
from typing import TYPE_CHECKING

import pytest
import structlog

from ipvsproxy.kernel.address_notices import NOTHING, AddressChange, AddressNotices, NoticeQueue
from ipvsproxy.kernel.addresses import DummyInterface
from ipvsproxy.model.addresses import Family, parse_address
from netns_tests.deadline import PATIENCE, await_that
from netns_tests.namespaces import Namespace
from netns_tests.tables import INTERFACE

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
SERVICE_ADDRESSES = {
    Family.IPV4: ("10.96.0.1", "10.96.0.2"),
    Family.IPV6: ("fd00:96::1", "fd00:96::2"),
}


@dataclasses.dataclass(frozen=True)
class Node:
    """A namespace with the agent's view of its addresses; eth0 leads nowhere."""

    namespace: Namespace
    dummy: DummyInterface
    notices: NoticeQueue

    def ip(self, command: str) -> None:
        self.namespace.run("ip", *command.split())

    def add(self, text: str, interface: str = "eth0") -> None:
        # The addresses of IPv6 are there at once without duplicate address detection.
        self.ip(f"address add {text} dev {interface}" + (" nodad" if ":" in text else ""))

    def changed(self) -> bool:
        """Say whether addresses of other interfaces than the agent's changed."""
        return self.change().elsewhere

    def change(self) -> AddressChange:
        """Return what the notices say; the kernel sends them before the command that makes the change ends."""
        return self.notices.wait(0)


@pytest.fixture
def node() -> Iterator[Node]:
    with Namespace("node") as namespace, namespace.entered(), DummyInterface(INTERFACE) as dummy:
        notices = NoticeQueue(INTERFACE)
        node = Node(namespace, dummy, notices)
        node.ip("link add eth0 type veth peer name other")
        dummy.ensure_interface()
        assert not node.changed()
        yield node
        notices.close()


def test_an_address_that_comes_and_goes_is_a_change(node: Node, family: Family) -> None:
    node.add(TEXT[family])
    assert node.changed()
    assert parse_address(TEXT[family]) in node.dummy.elsewhere()
    node.ip(f"address delete {TEXT[family]} dev eth0")
    assert node.changed()
    assert parse_address(TEXT[family]) not in node.dummy.elsewhere()


def test_the_addresses_of_an_interface_that_is_deleted_go_with_it(node: Node, family: Family) -> None:
    node.add(TEXT[family])
    assert node.changed()
    node.ip("link delete eth0")
    assert node.changed()
    assert node.dummy.elsewhere() == {}


def test_the_addresses_of_an_interface_that_is_moved_away_go_with_it(node: Node, family: Family) -> None:
    node.add(TEXT[family])
    assert node.changed()
    with Namespace("other") as other:
        node.ip(f"link set eth0 netns /proc/{os.getpid()}/fd/{other.descriptor}")
        assert node.changed()
    assert node.dummy.elsewhere() == {}


def test_ipv6_addresses_that_go_down_with_their_interface_are_a_change(node: Node) -> None:
    node.ip("link set eth0 up")
    node.add(TEXT[Family.IPV6])
    assert node.changed()
    node.ip("link set eth0 down")
    assert node.changed()
    assert node.dummy.elsewhere() == {}


def test_service_addresses_are_no_change_however_many(node: Node) -> None:
    addresses = [
        parse_address(f"{prefix}{number:x}") for prefix in ("fd00:96::",) for number in range(1, 400)
    ]
    addresses += [parse_address(f"10.96.{number // 250}.{number % 250}") for number in range(400)]
    assert node.dummy.apply(addresses, ()) == {}
    assert not node.changed()
    assert node.dummy.apply((), addresses) == {}
    assert not node.changed()


def test_service_addresses_that_go_are_named(node: Node, family: Family) -> None:
    gone, stays = (parse_address(text) for text in SERVICE_ADDRESSES[family])
    assert node.dummy.apply([gone, stays], ()) == {}
    assert node.change() == NOTHING
    node.ip(f"address delete {SERVICE_ADDRESSES[family][0]} dev {INTERFACE}")
    assert node.change() == AddressChange(deleted=frozenset({gone}))
    node.ip(f"address flush dev {INTERFACE}")
    assert node.change() == AddressChange(deleted=frozenset({stays}))


def test_the_end_of_the_dummy_interface_is_told(node: Node, family: Family) -> None:
    address = parse_address(SERVICE_ADDRESSES[family][0])
    assert node.dummy.apply([address], ()) == {}
    node.ip(f"link delete {INTERFACE}")
    change = node.change()
    assert change.any_deleted
    assert not change.elsewhere


def test_a_dummy_interface_that_is_made_anew_is_the_own_one(node: Node, family: Family) -> None:
    node.add(TEXT[family], INTERFACE)
    node.ip(f"link delete {INTERFACE}")
    node.ip("link add eth1 type dummy")
    node.dummy.ensure_interface()
    node.add(TEXT[family], INTERFACE)
    assert not node.changed()
    node.add(TEXT[family], "eth1")
    assert node.changed()


def test_an_interface_that_takes_the_index_of_the_dummy_one_is_another(node: Node, family: Family) -> None:
    (index,) = node.namespace.run("ip", "-oneline", "link", "show", INTERFACE).split(":")[:1]
    node.ip(f"link delete {INTERFACE}")
    node.ip(f"link add eth1 index {index} type dummy")
    node.add(TEXT[family], "eth1")
    assert node.changed()


def test_names_that_move_from_one_interface_to_another_are_followed(node: Node, family: Family) -> None:
    node.ip(f"link set {INTERFACE} name old")
    # Its addresses are those of another interface from now on.
    assert node.changed()
    node.ip(f"link add {INTERFACE} type dummy")
    node.add(TEXT[family], INTERFACE)
    assert not node.changed()
    node.add(TEXT[family], "old")
    assert node.changed()


def test_a_dummy_interface_that_leaves_a_bridge_stays_the_own_one(node: Node, family: Family) -> None:
    node.ip("link add bridge type bridge")
    node.ip(f"link set {INTERFACE} master bridge")
    node.ip(f"link set {INTERFACE} nomaster")
    assert not node.changed()
    node.add(TEXT[family], INTERFACE)
    assert not node.changed()


def test_notices_that_do_not_fit_count_as_a_change_and_the_own_interface_is_found_again(
    node: Node, family: Family
) -> None:
    # The socket has room for a few thousand.
    address = parse_address("10.96.0.1")
    for _ in range(3000):
        assert node.dummy.apply([address], ()) == {}
        assert node.dummy.apply((), [address]) == {}
    assert node.changed()
    assert not node.changed()
    node.add(TEXT[family], INTERFACE)
    assert not node.changed()


def test_an_address_counts_while_it_is_checked_and_no_more_once_another_host_has_it(node: Node) -> None:
    address = parse_address(TEXT[Family.IPV6])
    with Namespace("neighbour") as neighbour:
        node.ip(f"link set other netns /proc/{os.getpid()}/fd/{neighbour.descriptor}")
        neighbour.run("ip", "address", "add", f"{TEXT[Family.IPV6]}/64", "dev", "other", "nodad")
        neighbour.run("ip", "link", "set", "other", "up")
        # Detection begins when there is somebody to ask.
        node.ip(f"address add {TEXT[Family.IPV6]}/64 dev eth0")
        assert node.changed()
        assert address in node.dummy.elsewhere()
        node.ip("link set eth0 up")
        await_that(lambda: address not in node.dummy.elsewhere(), "a duplicate address is left out")
        await_that(node.changed, "the end of the detection is a change")


def test_the_thread_tells_of_changes_in_the_namespace_that_it_was_made_in(family: Family) -> None:
    calls: queue.Queue[None] = queue.Queue()
    with Namespace("node") as namespace:
        with namespace.entered():
            notices = AddressNotices(lambda _: calls.put(None), structlog.get_logger(), INTERFACE)
        notices.start()
        namespace.run("ip", "address", "add", TEXT[family], "dev", "lo")
        calls.get(timeout=PATIENCE)
        notices.stop()
        notices.join(PATIENCE)
