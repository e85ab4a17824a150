"""The cost follows the change: counted in what reaches the kernel, and in calls of Python functions, never in time."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.ipvs import Command, IpvsOperation, VirtualServerKey
from ipvsproxy.model.objects import ObjectKey, Protocol, ServiceType
from ipvsproxy.source.decode import read_node
from tests.builders import NODE, address, addresses, endpoint_slice, key, node, port, service
from tests.reconcile.world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from ipvsproxy.model.objects import EndpointSlice, Service

FEW, MANY = 20, 300
NODE_ADDRESSES = addresses(*(f"198.51.100.{number}" for number in range(1, 21)))
NODE_PORT = service("10.96.0.1", kind=ServiceType.NODE_PORT, ports=(port(80, node_port=30080),))
PODS = tuple(f"10.244.{number // 200}.{number % 200 + 1}" for number in range(250))
OF_ITS_OWN = ObjectKey("default", "of-its-own")
PLAIN = service("10.97.0.1", of=OF_ITS_OWN)


def others(count: int) -> list[Service | EndpointSlice]:
    """Return so many Services with a ClusterIP and two endpoints each."""
    objects: list[Service | EndpointSlice] = []
    for number in range(count):
        name, low = ObjectKey("default", f"other-{number}"), f"{number // 200}.{number % 200 + 1}"
        objects.append(service(f"10.98.{low}", of=name))
        objects.append(endpoint_slice(f"10.245.{low}", f"10.246.{low}", of=name, name=f"{name.name}-1"))
    return objects


def among(count: int) -> World:
    """Return a node with 20 addresses, so many Services, one of its own, and one with node ports and 250 endpoints."""
    world = World()
    world.addresses.other_addresses = set(NODE_ADDRESSES)
    mine = endpoint_slice("10.247.0.1", "10.247.0.2", of=OF_ITS_OWN, name="of-its-own-1")
    world.list_objects(
        NODE_PORT, endpoint_slice(*PODS), PLAIN, mine, *others(count), node=node(ips=("192.0.2.1",))
    )
    world.taken_log()
    return world


def calls(work: Callable[[], object]) -> int:
    """Return how many Python functions and built-in ones are called."""
    counted: Counter[str] = Counter()

    def count(_frame: FrameType, event: str, _argument: Any) -> None:  # noqa: ANN401 - as sys.setprofile has it
        counted[event] += 1

    before = sys.getprofile()
    # A collection may begin anywhere, and others have functions called then.
    gc.disable()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return counted["call"] + counted["c_call"]


@pytest.fixture
def worlds() -> tuple[World, World]:
    """Return a node with few Services and one with many."""
    return among(FEW), among(MANY)


def costs(worlds: tuple[World, World], change: Callable[[World], object]) -> list[int]:
    """Return what the same change costs on each of the nodes."""
    # The first look at whether a generator is a mapping costs some calls, once in a process.
    Counter(_ for _ in ())
    return [calls(lambda world=world: change(world)) for world in worlds]  # type: ignore[misc]


def same(few: int, many: int) -> bool:
    """Return whether the other Services cost nothing: what comes by chance is far less than a call for each."""
    return abs(many - few) < (MANY - FEW) / 10


def test_a_changed_endpoint_costs_the_same_among_many_services_as_among_few(
    worlds: tuple[World, World],
) -> None:
    leaves, returns = (
        endpoint_slice(*pods, of=OF_ITS_OWN, name="of-its-own-1")
        for pods in (("10.247.0.1",), ("10.247.0.1", "10.247.0.2"))
    )
    few, many = costs(worlds, lambda world: world.put(leaves))
    assert same(few, many)
    few, many = costs(worlds, lambda world: world.put(returns))
    assert same(few, many)


def test_a_service_that_comes_and_goes_costs_the_same_among_many_as_among_few(
    worlds: tuple[World, World],
) -> None:
    value = service("10.97.0.2", of=ObjectKey("default", "new"))
    few, many = costs(worlds, lambda world: world.put(value))
    assert same(few, many)

    def remove(world: World) -> None:
        world.store.remove_service(value.key)
        world.settle()

    few, many = costs(worlds, remove)
    assert same(few, many)


def test_an_endpoint_behind_node_ports_at_20_addresses_is_21_operations_and_nothing_else(
    worlds: tuple[World, World],
) -> None:
    world, _ = worlds
    world.taken_log()
    world.put(endpoint_slice(*PODS, "10.244.9.9"))
    places = [key("10.96.0.1"), *(VirtualServerKey(each, Protocol.TCP, 30080) for each in NODE_ADDRESSES)]
    done = [each for each in world.taken_log() if isinstance(each, IpvsOperation)]
    assert len(done) == len(places) == 21
    assert {each.virtual_server.key for each in done} == set(places)
    assert {each.command for each in done} == {Command.NEW_DEST}
    assert {str(each.real_server) for each in done} == {"10.244.9.9:8080"}
    world.put(endpoint_slice(*PODS))
    world.advance(5)
    done = [each for each in world.taken_log() if isinstance(each, IpvsOperation)]
    assert Counter(each.command for each in done) == {Command.SET_DEST: 21, Command.DEL_DEST: 21}


def test_who_serves_at_21_addresses_is_decided_once(worlds: tuple[World, World]) -> None:
    """The 250 endpoints are compared at each address: a third of what they cost behind a ClusterIP alone."""
    alone = World()
    alone.list_objects(service("10.96.0.1"), endpoint_slice(*PODS))
    after = endpoint_slice(*PODS, "10.244.9.9")
    once = calls(lambda: alone.put(after))
    few, many = costs(worlds, lambda world: world.put(after))
    assert same(few, many)
    assert many < 21 * once / 3


def test_a_drain_that_ends_with_others_costs_no_look_at_every_endpoint() -> None:
    def end_of(drains: int) -> int:
        world = World()
        world.list_objects(service("10.96.0.1"), endpoint_slice(*PODS))
        for pod in PODS[:drains]:
            world.ipvs.set_connections(key("10.96.0.1"), address(pod), 8080, 1)
        world.put(endpoint_slice(*PODS[drains:]))
        world.advance(5)
        for pod in PODS[:drains]:
            world.ipvs.set_connections(key("10.96.0.1"), address(pod), 8080, 0)
        assert len(world.ipvs.state()[key("10.96.0.1")].real_servers) == len(PODS)
        cost = calls(lambda: world.advance(5))
        assert len(world.ipvs.state()[key("10.96.0.1")].real_servers) == len(PODS) - drains
        return cost

    assert (end_of(60) - end_of(10)) / 50 < len(PODS) / 2


def test_a_heartbeat_of_the_node_costs_nothing(worlds: tuple[World, World]) -> None:
    beats = [
        read_node(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": NODE, "resourceVersion": str(number)},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                    "conditions": [{"type": "Ready", "lastHeartbeatTime": f"2026-01-01T00:00:0{number}Z"}],
                    "images": [{"names": ["registry.example/web"], "sizeBytes": number}],
                },
            }
        ).value
        for number in range(2)
    ]
    for world in worlds:
        world.store.wait(0)
        for beat in beats:
            assert beat is not None
            world.store.put_node(beat)
            assert not world.store.wait(0)
        world.settle()
        assert world.log == []


def test_an_address_that_the_node_gets_costs_work_for_services_with_node_ports_only(
    worlds: tuple[World, World],
) -> None:
    few, many = costs(worlds, lambda world: world.change_addresses(*NODE_ADDRESSES, address("198.51.100.99")))
    assert same(few, many)
    for world in worlds:
        done = [each for each in world.taken_log() if isinstance(each, IpvsOperation)]
        assert {str(each.virtual_server.key) for each in done} == {"198.51.100.99:30080/tcp"}
        assert len(done) == 1 + len(PODS)
    few, many = costs(worlds, lambda world: world.change_addresses(*NODE_ADDRESSES))
    assert same(few, many)
