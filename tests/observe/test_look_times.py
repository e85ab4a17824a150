"""When `top` looks, against a kernel that counts every 2.08 s, as one with 100 ticks a second does."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.observe.look_times import LookTimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNTS = 2.08  # seconds from one to the next


def looks(interval: float, counted: Callable[[float], str]) -> Iterator[float]:
    """Yield the times at which looks are due."""
    times, now = LookTimes(interval), 100.0
    while True:
        while not times.due(now, counted(now)):
            now += times.pause
        yield now


def counting(now: float) -> str:
    return str(int(now / COUNTS))


def since_count(now: float) -> float:
    return now - int(now / COUNTS) * COUNTS


@pytest.mark.parametrize(("interval", "counts"), [(2, 1), (3, 2), (4, 2), (10, 5)])
def test_each_look_is_just_after_a_count_of_the_kernel(interval: float, counts: int) -> None:
    found = list(itertools.islice(looks(interval, counting), 200))
    assert all(since_count(now) < 0.03 for now in found)
    # 10 s are less than five counts, 4 s less than two.
    assert {round((later - now) / COUNTS) for now, later in itertools.pairwise(found)} == {counts}


def test_on_an_idle_node_looks_are_at_the_interval() -> None:
    first, *others = itertools.islice(looks(5, lambda _: "nothing"), 10)
    assert first == pytest.approx(102.25, abs=0.05)
    assert [later - now for now, later in itertools.pairwise([first, *others])] == pytest.approx(
        [5.25] * 9, abs=0.05
    )


def test_looks_fall_in_with_the_kernel_again_once_something_goes_through() -> None:
    found = itertools.islice(looks(2, lambda now: counting(max(now, 121.0))), 30)
    busy = [now for now in found if now > 125]
    assert all(since_count(now) < 0.03 for now in busy)


def test_between_two_looks_the_kernel_is_left_alone() -> None:
    times = LookTimes(10)
    assert not times.due(0.0, "1")
    assert times.due(0.02, "2")
    assert times.pause == pytest.approx(9.75)
    assert not times.due(5.02, "3")
    assert times.pause == pytest.approx(4.75)


@pytest.mark.parametrize(("seconds", "next_look"), [(0.4, 1.75), (1.0, 4.0), (5.0, 20.0)])
def test_looks_that_take_long_are_further_apart(seconds: float, next_look: float) -> None:
    times = LookTimes(2)
    assert not times.due(0.0, "1")
    assert times.due(0.02, "2")
    times.took(seconds)
    assert not times.due(0.02 + seconds, "3")
    assert times.pause == pytest.approx(next_look - seconds)
