from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import EndpointSlice, ObjectKey
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source.store import ServiceState, Store
from netns_tests.deadline import PATIENCE
from tests.builders import NODE, WEB, addresses, endpoint_slice, node, service

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.objects import Node, Service

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
    store.replace_node(node())
    store.replace_services([WEB_SERVICE])
    store.replace_slices([WEB_SLICE])
    assert store.wait(0)
    store.take()
    return store


DELIVERIES: dict[str, Callable[[Store], None]] = {
    "the Node": lambda store: store.replace_node(node()),
    "the Services": lambda store: store.replace_services([WEB_SERVICE]),
    "the slices": lambda store: store.replace_slices([WEB_SLICE]),
}


@pytest.mark.parametrize("order", list(itertools.permutations(DELIVERIES)), ids=", ".join)
def test_nothing_is_given_out_before_all_is_received(store: Store, order: tuple[str, ...]) -> None:
    *first, last = order
    for each in first:
        DELIVERIES[each](store)
        assert not store.synced
        assert not store.wait(0)
        assert store.take() == {}
    DELIVERIES[last](store)
    assert store.synced
    assert store.wait(0)
    assert store.take() == {WEB: ServiceState(WEB_SERVICE, (WEB_SLICE,))}
    assert not store.wait(0)


def test_single_changes_are_no_answer_to_what_there_is(store: Store) -> None:
    store.replace_node(node())
    store.put_service(WEB_SERVICE)
    store.put_slice(WEB_SLICE)
    assert not store.synced
    assert store.take() == {}


@pytest.mark.parametrize("rejected", [[], [Rejection("Node", ObjectKey("", NODE), "spec", "is wrong")]])
def test_a_node_that_is_not_there_or_is_rejected_counts_as_received(
    store: Store, rejected: list[Rejection]
) -> None:
    store.replace_services([])
    store.replace_slices([])
    store.replace_node(None, rejected)
    assert store.synced
    assert store.node is None
    assert store.rejections() == rejected
    assert store.wait(0)


def test_the_lists_of_an_empty_cluster_are_news_too(store: Store) -> None:
    store.replace_services([])
    store.replace_slices([])
    store.replace_node(None)
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
    synced.put_node(node(), [rejection(ObjectKey("", NODE), "Node")])
    synced.replace_services([WEB_SERVICE])
    assert [found.kind for found in synced.rejections()] == ["EndpointSlice", "Endpoints", "Node"]
    synced.replace_slices([WEB_SLICE])
    assert [found.kind for found in synced.rejections()] == ["Node"]
    synced.put_node(node())
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


@pytest.mark.parametrize("deliver", [Store.put_node, Store.replace_node])
def test_a_node_that_changed_is_news_until_the_next_look(
    synced: Store, deliver: Callable[[Store, Node], None]
) -> None:
    deliver(synced, node(zone="a"))
    assert synced.wait(0)
    assert synced.wait(0)
    assert synced.take() == {}
    assert synced.node == node(zone="a")
    assert not synced.wait(0)


@pytest.mark.parametrize("deliver", [Store.put_node, Store.replace_node])
def test_a_node_that_is_sent_again_is_no_news(synced: Store, deliver: Callable[[Store, Node], None]) -> None:
    deliver(synced, node())
    assert not synced.wait(0)


def test_a_node_that_is_gone_or_rejected_stays_known(synced: Store) -> None:
    synced.replace_node(None)
    of_node = rejection(ObjectKey("", NODE), "Node")
    synced.reject(of_node)
    assert synced.rejections() == [of_node]
    synced.replace_node(None, [of_node])
    assert not synced.wait(0)
    assert synced.node == node()
    assert synced.rejections() == [of_node]
    synced.replace_node(node())
    assert synced.rejections() == []


def test_whether_there_is_a_node_is_told_also_of_one_that_can_not_be_used() -> None:
    store = Store()
    found = [store.node_exists]
    store.put_node(node())
    found.append(store.node_exists)
    store.remove_node()
    found.append(store.node_exists)
    store.reject(rejection(ObjectKey("", NODE), "Node"))
    found.append(store.node_exists)
    store.remove_node()
    found.append(store.node_exists)
    assert found == [False, True, False, True, False]
    assert store.node == node()
    assert store.rejections() == []


def test_a_change_of_the_node_comes_with_the_services_that_changed(synced: Store) -> None:
    synced.put_node(node(zone="a"))
    synced.put_service(service("10.96.0.11"))
    assert synced.take().keys() == {WEB}
    assert not synced.wait(0)


def test_addresses_of_nodes_that_changed_are_news_until_the_next_look(synced: Store) -> None:
    synced.put_node_addresses(addresses("192.0.2.7", "192.0.2.8"))
    assert synced.wait(0)
    assert synced.take() == {}
    assert synced.node_addresses == set(addresses("192.0.2.7", "192.0.2.8"))
    assert not synced.wait(0)


def test_addresses_of_nodes_that_are_listed_again_are_no_news(synced: Store) -> None:
    synced.put_node_addresses(addresses("192.0.2.7", "192.0.2.8"))
    synced.take()
    synced.put_node_addresses(addresses("192.0.2.8", "192.0.2.7", "192.0.2.7"))
    assert not synced.wait(0)


def test_nothing_waits_for_the_addresses_of_nodes(store: Store) -> None:
    store.put_node_addresses(addresses("192.0.2.7"))
    assert not store.synced
    assert not store.wait(0)
    for deliver in DELIVERIES.values():
        deliver(store)
    assert store.synced


class TestTellingOfRejections:
    PORT = rejection(WEB)
    ADDRESS = rejection(WEB, field="spec.clusterIP")

    @pytest.fixture
    def told(self) -> list[Rejection]:
        return []

    @pytest.fixture
    def store(self, told: list[Rejection]) -> Store:
        return Store(told.append)

    @pytest.mark.parametrize(
        "bring",
        [
            lambda store, found: store.reject(found),
            lambda store, found: store.put_service(WEB_SERVICE, [found]),
            lambda store, found: store.replace_services([], [found]),
            lambda store, found: store.replace_services([WEB_SERVICE], [found]),
        ],
    )
    def test_a_rejection_is_told_once_while_it_stands(
        self, store: Store, told: list[Rejection], bring: Callable[[Store, Rejection], None]
    ) -> None:
        for _ in range(3):
            bring(store, self.PORT)
        assert told == [self.PORT]

    def test_a_rejection_that_comes_back_is_told_again(self, store: Store, told: list[Rejection]) -> None:
        store.reject(self.PORT)
        store.put_service(WEB_SERVICE)
        store.reject(self.PORT)
        store.replace_services([])
        store.reject(self.PORT)
        assert told == [self.PORT] * 3

    def test_only_what_is_new_about_an_object_is_told(self, store: Store, told: list[Rejection]) -> None:
        store.put_service(WEB_SERVICE, [self.PORT])
        store.put_service(WEB_SERVICE, [self.PORT, self.ADDRESS])
        store.replace_services([WEB_SERVICE], [self.ADDRESS, self.PORT])
        assert told == [self.PORT, self.ADDRESS]

    def test_the_same_words_about_another_object_of_that_name_are_told(
        self, store: Store, told: list[Rejection]
    ) -> None:
        made_anew = self.PORT._replace(uid="9")
        store.reject(self.PORT)
        store.reject(made_anew)
        assert told == [self.PORT, made_anew]

    def test_rejections_of_every_kind_are_told(self, store: Store, told: list[Rejection]) -> None:
        of_slice, of_node = rejection(WEB_SLICE.key, "EndpointSlice"), rejection(ObjectKey("", NODE), "Node")
        store.replace_slices([], [of_slice])
        store.replace_node(None, [of_node])
        store.put_slice(WEB_SLICE, [of_slice])
        store.put_node(node(), [of_node])
        assert told == [of_slice, of_node]

    def test_whoever_is_told_finds_the_store_free_and_up_to_date(self) -> None:
        seen: list[list[Rejection]] = []

        def look(_: Rejection) -> None:
            # In another thread: a lock that is still held would let its own one in.
            looking = threading.Thread(target=lambda: seen.append(observed.rejections()), daemon=True)
            looking.start()
            looking.join(PATIENCE)

        observed = Store(look)
        observed.reject(self.PORT)
        assert seen == [[self.PORT]]


def test_a_call_of_wake_ends_one_wait(store: Store) -> None:
    store.wake()
    assert store.wait(0)
    assert not store.wait(0)


@pytest.mark.parametrize(
    "change", ["put_service", "put_slice", "remove_service", "remove_slice", "put_node", "wake"]
)
def test_a_change_by_another_thread_ends_the_wait(synced: Store, change: str) -> None:
    changes = {
        "put_service": lambda: synced.put_service(service("10.96.0.11")),
        "put_slice": lambda: synced.put_slice(endpoint_slice("10.244.3.3")),
        "remove_service": lambda: synced.remove_service(WEB),
        "remove_slice": lambda: synced.remove_slice(WEB_SLICE.key),
        "put_node": lambda: synced.put_node(node(zone="a")),
        "wake": synced.wake,
    }
    ended: list[bool] = []
    waiting = threading.Thread(target=lambda: ended.append(synced.wait(None)), daemon=True)
    waiting.start()
    changes[change]()
    waiting.join(PATIENCE)
    assert ended == [True]


def test_the_last_delivery_ends_the_wait(store: Store) -> None:
    ended: list[bool] = []
    waiting = threading.Thread(target=lambda: ended.append(store.wait(None)), daemon=True)
    waiting.start()
    store.replace_slices([])
    store.replace_services([])
    store.replace_node(None)
    waiting.join(PATIENCE)
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

    @rule(zone=st.sampled_from(["", "a", "b", None]))
    def replace_node(self, zone: str | None) -> None:
        self.store.replace_node(None if zone is None else node(zone=zone))

    @rule()
    def take(self) -> None:
        self.followed.update(self.store.take())
        assert self.store.take() == {}

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        assert self.store.service_keys() == sorted(self.services)
        assert {of: self.store.state(of) for of in KEYS} == {of: self.expected(of) for of in KEYS}

    def teardown(self) -> None:
        self.store.replace_node(None)
        self.store.replace_services(self.services.values())
        self.store.replace_slices(self.slices.values())
        self.take()
        assert {of: self.followed.get(of, EMPTY) for of in KEYS} == {of: self.expected(of) for of in KEYS}

    def expected(self, of: ObjectKey) -> ServiceState:
        own = sorted(each for each in self.slices.values() if each.service == of)
        return ServiceState(self.services.get(of), tuple(own))


TestAnySequenceOfCalls = StoreBesideAPlainModel.TestCase
TestAnySequenceOfCalls.settings = settings(max_examples=100, stateful_step_count=20)
