"""What the store tells of changes beside the changes themselves: how many there are, and what caused them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.source.store import Store
from tests.builders import WEB, endpoint_slice, node, service

if TYPE_CHECKING:
    from ipvsproxy.model.objects import EndpointSlice

WEB_SERVICE = service("10.96.0.1")
WEB_SLICE = endpoint_slice("10.244.0.9")


@pytest.fixture
def store() -> Store:
    """Return a store that is there since second 1000."""
    return Store(wall_clock=lambda: 1000.0)


@pytest.fixture
def synced(store: Store) -> Store:
    """Return a store that has the Service web with a slice, and that nobody has to look at."""
    store.replace_node(node())
    store.replace_services([WEB_SERVICE])
    store.replace_slices([WEB_SLICE])
    store.take()
    return store


class TestBacklog:
    """How many changes there were and how many wait, for monitoring."""

    def test_changes_are_counted_and_wait_until_they_are_taken(self, synced: Store) -> None:
        before = synced.backlog()
        assert (before.service_changes, before.slice_changes) == (1, 1)
        assert (before.service_changes_pending, before.slice_changes_pending, before.services_waiting) == (
            0,
            0,
            0,
        )
        synced.put_service(WEB_SERVICE._replace(session_affinity_timeout=300))
        synced.put_slice(WEB_SLICE._replace(endpoints=()))
        synced.put_slice(WEB_SLICE)
        synced.put_slice(WEB_SLICE)
        found = synced.backlog()
        assert (found.service_changes, found.service_changes_pending) == (2, 1)
        assert (found.slice_changes, found.slice_changes_pending) == (3, 2)
        assert found.services_waiting == 1
        synced.take()
        found = synced.backlog()
        assert (found.service_changes_pending, found.slice_changes_pending, found.services_waiting) == (
            0,
            0,
            0,
        )
        assert (found.service_changes, found.slice_changes) == (2, 3)

    def test_a_deletion_is_a_change(self, synced: Store) -> None:
        synced.remove_slice(WEB_SLICE.key)
        synced.remove_service(WEB)
        found = synced.backlog()
        assert (found.service_changes_pending, found.slice_changes_pending) == (1, 1)

    def test_the_time_of_the_last_change_is_the_wall_clocks(self) -> None:
        now = 1_700_000_000.0
        store = Store(wall_clock=lambda: now)
        assert store.backlog().last_change == 0
        store.put_service(WEB_SERVICE)
        assert store.backlog().last_change == now


class TestTriggers:
    """When that happened which changed EndpointSlices, for the time that it takes to the kernel."""

    def changed(self, triggered: float, *endpoints: str) -> EndpointSlice:
        return endpoint_slice(*endpoints)._replace(triggered=triggered)

    def test_what_changed_a_slice_is_handed_out_with_the_change_and_once(self, synced: Store) -> None:
        synced.put_slice(self.changed(1001.5, "10.244.0.1"))
        synced.put_slice(self.changed(1002.5, "10.244.0.2"))
        assert synced.triggers_taken == {}
        synced.take()
        assert synced.triggers_taken == {WEB: [1001.5, 1002.5]}
        synced.take()
        assert synced.triggers_taken == {}

    def test_what_the_first_list_brings_is_left_out_and_a_later_one_counts(self, store: Store) -> None:
        store.replace_node(node())
        store.replace_services([WEB_SERVICE])
        store.replace_slices([self.changed(1001.0, "10.244.0.1")])
        store.take()
        assert store.triggers_taken == {}
        store.replace_slices([self.changed(1002.0, "10.244.0.2")])
        store.take()
        assert store.triggers_taken == {WEB: [1002.0]}

    @pytest.mark.parametrize("triggered", [0.0, 999.0, 1000.0])
    def test_what_happened_before_the_store_was_there_or_at_no_known_time_is_left_out(
        self, synced: Store, triggered: float
    ) -> None:
        synced.put_slice(self.changed(triggered, "10.244.0.1"))
        assert synced.take().keys() == {WEB}
        assert synced.triggers_taken == {}

    def test_a_new_annotation_alone_is_no_change(self, synced: Store) -> None:
        synced.put_slice(WEB_SLICE._replace(triggered=1001.0))
        assert synced.take() == {}
        assert synced.triggers_taken == {}

    def test_a_deleted_slice_takes_its_services_triggers_with_it(self, synced: Store) -> None:
        synced.put_slice(self.changed(1001.0, "10.244.0.1"))
        synced.remove_slice(WEB_SLICE.key)
        synced.take()
        assert synced.triggers_taken == {}
