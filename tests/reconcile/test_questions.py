"""What other threads ask of the loop: its state, and to compare everything now."""

from __future__ import annotations

import concurrent.futures
import errno
import time
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.interface import FirewallError
from ipvsproxy.model.ipvs import Command, IpvsOperation
from tests.builders import address, endpoint_slice, key, service
from tests.reconcile.world import World

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ipvsproxy.plan.view import Comparison

PATIENCE = 60
WEB = key("10.96.0.1")


@pytest.fixture
def world() -> World:
    world = World()
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.1"))
    return world


def compare(world: World) -> Future[Comparison]:
    """Ask in a thread, and let the loop come to rest once the question is there."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    asked = pool.submit(world.controller.compare, PATIENCE)
    end = time.monotonic() + PATIENCE
    while not asked.done():
        world.settle()
        assert time.monotonic() < end
    pool.shutdown()
    return asked


def test_a_comparison_is_made_at_once_and_told_with_what_it_repaired(world: World) -> None:
    world.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, world.ipvs.state()[WEB])])
    found = compare(world).result()
    assert dict(found.done) == {"virtual servers created": 1, "real servers added": 1}
    assert found.failures == {}
    assert WEB in world.ipvs.state()


def test_nothing_to_repair_is_nothing_done(world: World) -> None:
    assert sum(compare(world).result().done.values()) == 0


def test_the_next_comparison_is_a_whole_period_later(world: World) -> None:
    world.advance(29)
    compare(world)
    before = world.successes
    world.advance(29)
    assert world.successes == before
    world.advance(1)
    assert world.successes == before + 1


def test_what_fails_is_tried_and_told(world: World) -> None:
    world.addresses.refuse(address("10.96.0.1"), errno.EACCES, times=100)
    world.addresses.delete_interface()
    found = compare(world).result()
    assert [failure.reason for failure in found.failures.values()] == [
        "adding the address: EACCES: Permission denied"
    ]


def test_what_had_failed_and_works_again_counts_as_repaired(world: World) -> None:
    world.addresses.refuse(address("10.96.0.1"), errno.EACCES, times=2)
    world.addresses.delete_interface()
    world.advance(30)
    found = compare(world).result()
    assert found.done["addresses added"] == 1
    assert found.failures == {}


def test_a_comparison_that_fails_is_told_with_its_error(world: World) -> None:
    world.firewall.change_another_table()
    world.firewall.fail_calls(FirewallError("nft is broken"), calls=1)
    with pytest.raises(FirewallError, match="nft is broken"):
        compare(world).result()


def test_a_loop_that_does_not_answer_is_not_waited_for_longer_than_asked(world: World) -> None:
    with pytest.raises(TimeoutError):
        world.controller.compare(0.01)
    # The question is answered all the same, and harms nobody.
    world.settle()
