from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import EndpointSlice, Node, ObjectKey
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source.store import ServiceState, Store
from tests.builders import WEB, endpoint_slice, service

if TYPE_CHECKING:
    from ipvsproxy.model.objects import Service

DNS = ObjectKey("kube-system", "kube-dns")
EMPTY = ServiceState(None, ())
WEB_SERVICE = service("10.96.0.10")
WEB_SLICE = endpoint_slice("10.244.1.7")


def rejection(of: ObjectKey, kind: str = "Service", field: str = "spec.ports[0].port") -> Rejection:
    return Rejection(kind, of, field, "70000 is not from 1 to 65535")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def synced(store: Store) -> Store:
    """Return a store that has the Service web with a slice, and that nobody has to look at."""
    store.replace_services([WEB_SERVICE])
    store.replace_slices([WEB_SLICE])
    assert store.wait(0)
    store.take()
    return store


def test_nothing_is_given_out_before_both_lists(store: Store) -> None:
    store.put_node(Node("node-a"))
    store.put_slice(WEB_SLICE)
    store.replace_services([WEB_SERVICE])
    assert not store.wait(0)
    assert store.take() == {}

    store.replace_slices([WEB_SLICE])
    assert store.synced
    assert store.wait(0)
    assert store.take() == {WEB: ServiceState(WEB_SERVICE, (WEB_SLICE,))}


def test_the_lists_of_an_empty_cluster_are_news_too(store: Store) -> None:
    store.replace_services([])
    store.replace_slices([])
    assert store.wait(0)
    assert store.take() == {}
    assert not store.wait(0)


def test_what_was_taken_is_not_given_out_again(synced: Store) -> None:
    synced.put_service(WEB_SERVICE._replace(created=1))
    assert synced.wait(0)
    assert synced.take().keys() == {WEB}
    assert not synced.wait(0)
    assert synced.take() == {}


def test_only_a_difference_makes_a_service_dirty(synced: Store) -> None:
    synced.put_service(service("10.96.0.10"))
    synced.put_slice(endpoint_slice("10.244.1.7"))
    synced.replace_services([service("10.96.0.10")])
    synced.replace_slices([endpoint_slice("10.244.1.7")])
    synced.remove_service(DNS)
    synced.remove_slice(DNS)
    assert not synced.wait(0)


def test_several_changes_of_a_service_before_a_look_are_one(synced: Store) -> None:
    synced.put_service(service("10.96.0.11"))
    synced.put_service(service("10.96.0.12"))
    synced.put_slice(endpoint_slice("10.244.2.9", name="web-2"))
    assert synced.take() == {
        WEB: ServiceState(service("10.96.0.12"), (WEB_SLICE, endpoint_slice("10.244.2.9", name="web-2")))
    }


def test_the_slices_of_a_service_come_in_the_order_of_their_names(synced: Store) -> None:
    for name in ("web-9", "web-0", "web-5"):
        synced.put_slice(endpoint_slice("10.244.2.9", name=name))
    names = [each.key.name for each in synced.state(WEB).slices]
    assert names == ["web-0", "web-1", "web-5", "web-9"]


def test_a_slice_that_changes_its_service_dirties_both(synced: Store) -> None:
    moved = WEB_SLICE._replace(service=DNS)
    synced.put_slice(moved)
    assert synced.take() == {
        WEB: ServiceState(WEB_SERVICE, ()),
        DNS: ServiceState(None, (moved,)),
    }


def test_a_slice_may_come_before_its_service(synced: Store) -> None:
    early = endpoint_slice("10.244.0.2", of=DNS)
    synced.put_slice(early)
    assert synced.take() == {DNS: ServiceState(None, (early,))}
    dns = service("10.96.0.2", of=DNS)
    synced.put_service(dns)
    assert synced.take() == {DNS: ServiceState(dns, (early,))}


def test_what_a_complete_list_does_not_have_is_gone(synced: Store) -> None:
    dns = service("10.96.0.2", of=DNS)
    synced.replace_services([dns])
    synced.replace_slices([])
    assert synced.take() == {WEB: ServiceState(None, ()), DNS: ServiceState(dns, ())}
    assert synced.service_keys() == [DNS]


def test_removed_objects_are_gone(synced: Store) -> None:
    synced.remove_slice(WEB_SLICE.key)
    synced.remove_service(WEB)
    assert synced.take() == {WEB: ServiceState(None, ())}
    assert synced.service_keys() == []


def test_a_rejected_object_keeps_its_last_good_state_and_is_listed(synced: Store) -> None:
    synced.reject(rejection(WEB))
    synced.reject(rejection(WEB_SLICE.key, "EndpointSlice"))
    assert not synced.wait(0)
    assert synced.state(WEB) == ServiceState(WEB_SERVICE, (WEB_SLICE,))
    assert synced.rejections() == [rejection(WEB_SLICE.key, "EndpointSlice"), rejection(WEB)]


def test_objects_that_a_complete_list_rejects_keep_their_last_good_state(synced: Store) -> None:
    synced.replace_services([], [rejection(WEB)])
    synced.replace_slices([], [rejection(WEB_SLICE.key, "EndpointSlice")])
    assert not synced.wait(0)
    assert synced.state(WEB) == ServiceState(WEB_SERVICE, (WEB_SLICE,))
    assert synced.rejections() == [rejection(WEB_SLICE.key, "EndpointSlice"), rejection(WEB)]


def test_a_rejected_object_of_another_kind_keeps_no_slice_of_its_name(synced: Store) -> None:
    synced.replace_slices([], [rejection(WEB_SLICE.key, "Endpoints")])
    assert synced.take() == {WEB: ServiceState(WEB_SERVICE, ())}


def test_a_good_object_or_its_removal_ends_the_rejection(synced: Store) -> None:
    synced.reject(rejection(WEB))
    synced.put_service(WEB_SERVICE)
    assert synced.rejections() == []
    synced.reject(rejection(WEB_SLICE.key, "EndpointSlice"))
    synced.put_slice(WEB_SLICE)
    assert synced.rejections() == []
    synced.reject(rejection(WEB))
    synced.remove_service(WEB)
    synced.reject(rejection(WEB_SLICE.key, "EndpointSlice"))
    synced.remove_slice(WEB_SLICE.key)
    assert synced.rejections() == []


def test_a_complete_list_ends_the_rejections_of_its_own_kind_only(synced: Store) -> None:
    synced.reject(rejection(WEB))
    synced.reject(rejection(WEB_SLICE.key, "EndpointSlice"))
    synced.reject(rejection(WEB, "Endpoints"))
    synced.put_node(Node("node-a"), [rejection(ObjectKey("", "node-a"), "Node")])
    synced.replace_services([WEB_SERVICE])
    assert [found.kind for found in synced.rejections()] == ["EndpointSlice", "Endpoints", "Node"]
    synced.replace_slices([WEB_SLICE])
    assert [found.kind for found in synced.rejections()] == ["Node"]
    synced.put_node(Node("node-a"))
    assert synced.rejections() == []


def test_the_last_rejection_of_an_object_takes_the_place_of_the_earlier(synced: Store) -> None:
    synced.reject(rejection(WEB, field="spec.ports[0].port"))
    synced.reject(rejection(WEB, field="spec.clusterIP"))
    assert synced.rejections() == [rejection(WEB, field="spec.clusterIP")]


def test_parts_that_were_left_out_are_listed_beside_the_good_rest(synced: Store) -> None:
    left_out = [rejection(WEB, field="spec.ports[2].port"), rejection(WEB, field="spec.ports[1].port")]
    synced.put_service(service("10.96.0.11"), left_out)
    assert synced.state(WEB).service == service("10.96.0.11")
    assert synced.rejections() == sorted(left_out)
    synced.put_service(service("10.96.0.11"), left_out[:1])
    assert synced.rejections() == left_out[:1]
    synced.replace_services([service("10.96.0.12")], left_out)
    assert synced.state(WEB).service == service("10.96.0.12")
    assert synced.rejections() == sorted(left_out)


def test_the_own_node_is_held_and_is_no_service_that_changed(synced: Store) -> None:
    assert synced.node is None
    synced.put_node(Node("node-a"))
    assert not synced.wait(0)
    assert synced.node == Node("node-a")


def test_a_call_of_wake_ends_one_wait(store: Store) -> None:
    store.wake()
    assert store.wait(0)
    assert not store.wait(0)


@pytest.mark.parametrize("change", ["put_service", "put_slice", "remove_service", "remove_slice", "wake"])
def test_a_change_by_another_thread_ends_the_wait(synced: Store, change: str) -> None:
    changes = {
        "put_service": lambda: synced.put_service(service("10.96.0.11")),
        "put_slice": lambda: synced.put_slice(endpoint_slice("10.244.3.3")),
        "remove_service": lambda: synced.remove_service(WEB),
        "remove_slice": lambda: synced.remove_slice(WEB_SLICE.key),
        "wake": synced.wake,
    }
    ended: list[bool] = []
    waiting = threading.Thread(target=lambda: ended.append(synced.wait(None)), daemon=True)
    waiting.start()
    changes[change]()
    waiting.join(timeout=60)
    assert ended == [True]


def test_a_second_of_two_lists_ends_the_wait(store: Store) -> None:
    ended: list[bool] = []
    waiting = threading.Thread(target=lambda: ended.append(store.wait(None)), daemon=True)
    waiting.start()
    store.replace_slices([])
    store.replace_services([])
    waiting.join(timeout=60)
    assert ended == [True]


def test_services_that_nobody_knows_have_an_empty_state(synced: Store) -> None:
    assert synced.state(DNS) == EMPTY


KEYS = [ObjectKey("a", "x"), ObjectKey("a", "y"), ObjectKey("b", "x")]
keys = st.sampled_from(KEYS)
services = st.builds(
    lambda of, created: service("10.96.0.1", of=of, created=created), keys, st.integers(0, 2)
)
slices = st.builds(
    lambda of, to, count: EndpointSlice(of, to, Family.IPV4, (), WEB_SLICE.endpoints * count),
    keys,
    keys,
    st.integers(0, 2),
)


class StoreBesideAPlainModel(RuleBasedStateMachine):
    """Any sequence of calls: whoever follows what is taken ends with what the plainest model holds."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.services: dict[ObjectKey, Service] = {}
        self.slices: dict[ObjectKey, EndpointSlice] = {}
        self.followed: dict[ObjectKey, ServiceState] = {}

    @rule(service=services)
    def put_service(self, service: Service) -> None:
        self.store.put_service(service)
        self.services[service.key] = service

    @rule(endpoint_slice=slices)
    def put_slice(self, endpoint_slice: EndpointSlice) -> None:
        self.store.put_slice(endpoint_slice)
        self.slices[endpoint_slice.key] = endpoint_slice

    @rule(of=keys)
    def remove_service(self, of: ObjectKey) -> None:
        self.store.remove_service(of)
        self.services.pop(of, None)

    @rule(of=keys)
    def remove_slice(self, of: ObjectKey) -> None:
        self.store.remove_slice(of)
        self.slices.pop(of, None)

    @rule(listed=st.lists(services, unique_by=lambda each: each.key), rejected=st.sets(keys))
    def replace_services(self, listed: list[Service], rejected: set[ObjectKey]) -> None:
        self.store.replace_services(listed, [rejection(of) for of in rejected])
        kept = {of: held for of, held in self.services.items() if of in rejected}
        self.services = kept | {each.key: each for each in listed}

    @rule(listed=st.lists(slices, unique_by=lambda each: each.key), rejected=st.sets(keys))
    def replace_slices(self, listed: list[EndpointSlice], rejected: set[ObjectKey]) -> None:
        self.store.replace_slices(listed, [rejection(of, "EndpointSlice") for of in rejected])
        kept = {of: held for of, held in self.slices.items() if of in rejected}
        self.slices = kept | {each.key: each for each in listed}

    @rule(of=keys)
    def reject(self, of: ObjectKey) -> None:
        self.store.reject(rejection(of))

    @rule()
    def take(self) -> None:
        self.followed.update(self.store.take())
        assert self.store.take() == {}

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        assert self.store.service_keys() == sorted(self.services)
        assert {of: self.store.state(of) for of in KEYS} == {of: self.expected(of) for of in KEYS}

    def teardown(self) -> None:
        self.store.replace_services(self.services.values())
        self.store.replace_slices(self.slices.values())
        self.take()
        assert {of: self.followed.get(of, EMPTY) for of in KEYS} == {of: self.expected(of) for of in KEYS}

    def expected(self, of: ObjectKey) -> ServiceState:
        own = sorted(each for each in self.slices.values() if each.service == of)
        return ServiceState(self.services.get(of), tuple(own))


TestAnySequenceOfCalls = StoreBesideAPlainModel.TestCase
TestAnySequenceOfCalls.settings = settings(max_examples=100, stateful_step_count=20)
