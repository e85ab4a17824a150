"""Service addresses that others delete: bound again at once, but not as often as they are deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.kernel.address_notices import AddressChange
from ipvsproxy.kernel.fake import AddressOperation
from ipvsproxy.model.objects import ObjectKey
from tests.builders import address, addresses, endpoint_slice, service
from tests.reconcile.world import World

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Address

FOUR, SIX = addresses("10.96.0.1", "fd00:96::1")
OTHER = address("10.96.0.2")


@pytest.fixture
def world() -> World:
    world = World()
    world.list_objects(
        service("10.96.0.1", "fd00:96::1"),
        service("10.96.0.2")._replace(key=ObjectKey("default", "other")),
        endpoint_slice("10.244.0.1"),
    )
    return world


def events(world: World, event: str) -> list[Any]:
    return [each for each in world.events.entries if each["event"] == event]


@pytest.mark.parametrize("deleted", [(FOUR,), (SIX,), (FOUR, SIX)])
def test_an_address_that_somebody_deletes_is_bound_again_at_once_and_nothing_else_is_done(
    world: World, deleted: tuple[Address, ...]
) -> None:
    world.delete_addresses(*deleted)
    assert set(world.log) == {AddressOperation(each, bound=True) for each in deleted}
    (line,) = events(world, "repaired what others changed")
    assert line["addresses_added"] == len(deleted)


def test_an_interface_that_somebody_deletes_is_made_again_with_all_addresses(world: World) -> None:
    world.addresses.delete_interface()
    world.controller.addresses_changed(AddressChange(any_deleted=True))
    world.settle()
    assert world.addresses.bound() == {FOUR, SIX, OTHER}


def test_after_lost_notices_the_addresses_are_compared(world: World) -> None:
    world.addresses.apply((), [SIX])
    world.log.clear()
    world.controller.addresses_changed(AddressChange(any_deleted=True))
    world.settle()
    assert world.log == [AddressOperation(SIX, bound=True)]


def test_what_the_agent_deletes_itself_stays_deleted_and_is_no_repair(world: World) -> None:
    world.store.remove_service(ObjectKey("default", "other"))
    world.settle()
    world.log.clear()
    world.controller.addresses_changed(AddressChange(deleted=frozenset({OTHER})))
    world.settle()
    world.controller.addresses_changed(AddressChange(any_deleted=True))
    world.settle()
    assert world.log == []
    assert world.addresses.bound() == {FOUR, SIX}
    assert events(world, "repaired what others changed") == []


def test_a_late_notice_of_an_address_that_the_agent_has_bound_again_is_no_repair(world: World) -> None:
    world.log.clear()
    world.controller.addresses_changed(AddressChange(deleted=frozenset({FOUR})))
    world.settle()
    assert world.log == []
    assert events(world, "repaired what others changed") == []


def repairs_of_a_fight(world: World, seconds: float) -> int:
    """Have somebody delete an address every tenth of a second; return how often it came back."""
    repairs = 0
    for _ in range(round(seconds * 10)):
        if FOUR in world.addresses.bound():
            repairs += 1
            world.delete_addresses(FOUR)
        world.advance(0.1)
    return repairs


def test_a_fight_is_told_once_and_left_to_the_resync(world: World) -> None:
    first, *later = (repairs_of_a_fight(world, 60) for _ in range(3))
    assert 5 < first < 20
    # The resync comes every 30 s.
    assert max(later) <= 3
    assert len(events(world, "service addresses are deleted again and again")) == 1


def test_after_a_minute_of_calm_a_repair_is_made_at_once_again(world: World) -> None:
    repairs_of_a_fight(world, 25)
    world.advance(30)
    for _ in range(3):
        world.advance(30)
    world.delete_addresses(FOUR)
    assert world.log == [AddressOperation(FOUR, bound=True)]


def test_an_interface_of_another_kind_is_left_to_the_resync_and_the_loop_goes_on(world: World) -> None:
    world.addresses.delete_interface()
    world.addresses.kind = "bridge"
    world.controller.addresses_changed(AddressChange(any_deleted=True))
    world.settle()
    assert events(world, "kernel unreachable")
    world.addresses.kind = None
    world.advance(30)
    assert world.addresses.bound() == {FOUR, SIX, OTHER}
