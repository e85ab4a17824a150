"""How a source's health is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.source.health import SourceHealth

if TYPE_CHECKING:
    from ipvsproxy.source.health import WatchState


class Scene:
    """Two resources, and a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.health = SourceHealth(lambda: self.now)
        self.services = self.health.follow("services")
        self.nodes = self.health.follow("nodes")

    def services_state(self) -> WatchState:
        return self.health.states()[0]


def test_a_resource_is_not_connected_before_its_first_answer() -> None:
    assert Scene().health.states() == [
        ("services", False, None, None, 0, 0, ""),
        ("nodes", False, None, None, 0, 0, ""),
    ]


def test_the_time_since_the_last_contact_goes_on() -> None:
    scene = Scene()
    scene.services.connected()
    scene.services.heard()
    scene.now += 7
    assert scene.services_state() == ("services", True, 7, None, 1, 0, "")
    scene.services.heard()
    assert scene.services_state().seconds_since_contact == 0


def test_a_failure_has_its_reason_until_the_next_answer() -> None:
    scene = Scene()
    scene.services.connected()
    scene.services.failed("Forbidden", "allow it")
    assert scene.services_state() == ("services", False, None, "Forbidden", 1, 1, "allow it")
    scene.services.connected()
    assert scene.services_state() == ("services", True, None, None, 2, 1, "")


def test_each_resource_has_a_record_of_its_own() -> None:
    scene = Scene()
    scene.services.failed("Connection refused")
    scene.nodes.connected()
    assert [(state.resource, state.connected) for state in scene.health.states()] == [
        ("services", False),
        ("nodes", True),
    ]
