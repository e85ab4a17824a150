"""Which rejections get an Event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.events import Allowance, EventFilter, EventLimits

HOUR = 3600.0
STANDS = "an Event says so already"
OBJECT_FULL = "too many Events on this object"
AGENT_FULL = "too many Events"


class Scene:
    """A filter, and the time that it sees."""

    def __init__(self, limits: EventLimits = EventLimits()) -> None:  # noqa: B008 - immutable
        self.now = 1000.0
        self.filter = EventFilter(lambda: self.now, limits)

    def offer(self, number: int = 0, name: str = "web", uid: str = "8") -> str:
        rejection = Rejection("Service", ObjectKey("default", name), f"spec.ports[{number}]", "is wrong", uid)
        return self.filter.reason_against(rejection)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_rejection_gets_one_event_in_an_hour(scene: Scene) -> None:
    assert scene.offer() == ""
    assert scene.offer() == STANDS
    scene.now += HOUR - 1
    assert scene.offer() == STANDS
    scene.now += 1
    assert scene.offer() == ""
    assert scene.offer() == STANDS


def test_another_field_and_another_object_of_that_name_get_events_of_their_own(scene: Scene) -> None:
    assert [scene.offer(1), scene.offer(2), scene.offer(1, uid="9")] == ["", "", ""]


def test_an_object_gets_25_events_and_then_one_in_five_minutes(scene: Scene) -> None:
    assert [scene.offer(number) for number in range(26)] == [""] * 25 + [OBJECT_FULL]
    scene.now += 299
    assert scene.offer(26) == OBJECT_FULL
    scene.now += 1
    assert scene.offer(26) == ""
    assert scene.offer(27) == OBJECT_FULL


def test_an_object_with_too_many_takes_nothing_from_others(scene: Scene) -> None:
    for number in range(1000):
        scene.offer(number)
    assert scene.offer(name="mail") == ""


def test_the_agent_writes_100_events_and_then_one_in_ten_seconds(scene: Scene) -> None:
    told = [scene.offer(name=f"s{number}") for number in range(101)]
    assert told == [""] * 100 + [AGENT_FULL]
    scene.now += 10
    assert scene.offer(name="s100") == ""
    assert scene.offer(name="s101") == AGENT_FULL


def test_what_was_held_back_is_not_taken_for_written(scene: Scene) -> None:
    for number in range(25):
        scene.offer(number)
    assert scene.offer(25) == OBJECT_FULL
    scene.now += 300
    assert scene.offer(25) == ""


def test_a_bucket_never_holds_more_than_its_burst(scene: Scene) -> None:
    scene.offer()
    scene.now += 1000 * HOUR
    assert [scene.offer(number) for number in range(26)] == [""] * 25 + [OBJECT_FULL]


def test_the_object_not_heard_of_for_longest_makes_room_and_begins_anew() -> None:
    scene = Scene(EventLimits(of_object=Allowance(1, HOUR), objects=2))
    assert [scene.offer(0, name) for name in ("a", "b")] == ["", ""]
    assert scene.offer(1, "a") == OBJECT_FULL
    assert scene.offer(0, "c") == ""
    assert scene.offer(2, "a") == OBJECT_FULL
    assert scene.offer(1, "b") == ""


LIMITS = EventLimits(Allowance(3, 5), Allowance(6, 2), repeat=20, objects=3)
offers = st.tuples(st.floats(0, 10), st.integers(0, 5), st.sampled_from("abcde"))


@given(st.lists(offers, max_size=60))
def test_no_sequence_gets_more_events_than_the_limits_allow(sequence: list[tuple[float, int, str]]) -> None:
    scene = Scene(LIMITS)
    written: list[float] = []
    of_each: dict[tuple[int, str], float] = {}
    for pause, number, name in sequence:
        scene.now += pause
        if scene.offer(number, name) == "":
            assert scene.now - of_each.get((number, name), -1e9) >= LIMITS.repeat
            of_each[number, name] = scene.now
            written.append(scene.now)
    burst, refill = LIMITS.of_agent
    for first, begin in enumerate(written):
        for last, end in enumerate(written[first:], start=1):
            assert last <= burst + (end - begin) / refill + 1e-6
