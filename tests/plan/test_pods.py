"""Which addresses count as pods', and who is concerned when one is claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.addresses import Address
from ipvsproxy.model.objects import ObjectKey, ServiceType, SliceAuthor
from ipvsproxy.plan.pods import AddressIndex, Claims, pod_addresses
from tests.builders import WEB, address, addresses, endpoint, endpoint_slice, service

if TYPE_CHECKING:
    from ipvsproxy.model.objects import EndpointSlice, Service

EVIL, OTHER = ObjectKey("evil", "claim"), ObjectKey("default", "other")
KEPT = service("10.96.0.1")
WEB_SLICE = endpoint_slice("10.244.0.1", endpoint("10.244.0.2", ready=False, serving=False))
WEB_SLICE6 = endpoint_slice("fd00:10:244::1", name="web-2")


def test_every_endpoint_of_a_slice_that_the_controller_keeps_is_a_pod_ready_or_not() -> None:
    assert list(pod_addresses(KEPT, (WEB_SLICE, WEB_SLICE6))) == list(
        addresses("10.244.0.1", "10.244.0.2", "fd00:10:244::1")
    )


@pytest.mark.parametrize(
    "of",
    [
        service("10.96.0.1", has_selector=False),
        service("10.96.0.1", kind=ServiceType.EXTERNAL_NAME),
        None,
    ],
    ids=["without-a-selector", "ExternalName", "no-such-Service"],
)
def test_the_controllers_label_proves_nothing_where_the_controller_looks_after_nothing(
    of: Service | None,
) -> None:
    assert list(pod_addresses(of, (WEB_SLICE,))) == []


def test_what_anybody_writes_or_mirrors_is_no_pod() -> None:
    assert list(pod_addresses(KEPT, (WEB_SLICE._replace(author=SliceAuthor.ANYBODY),))) == []


@pytest.mark.parametrize("of", [service("10.96.0.1", has_selector=False), None])
def test_the_operators_manifests_are_believed_as_far_as_they_name_a_node(of: Service | None) -> None:
    written = endpoint_slice("10.244.0.1", endpoint("192.0.2.7", node=None), author=SliceAuthor.OPERATOR)
    assert list(pod_addresses(of, (written,))) == [address("10.244.0.1")]


class TestClaims:
    CLAIM = service("10.96.0.9", of=EVIL, external_ips=("10.244.0.1",), load_balancer_ips=("fd00:10:244::1",))

    @pytest.mark.parametrize("slice_", [WEB_SLICE, WEB_SLICE6], ids=["IPv4", "IPv6"])
    def test_whichever_comes_second_concerns_the_first(self, slice_: EndpointSlice) -> None:
        claims = Claims()
        assert claims.replace(EVIL, self.CLAIM, ()) == set()
        assert claims.replace(WEB, KEPT, (slice_,)) == {EVIL}
        assert claims.replace(WEB, KEPT, (slice_,)) == set()
        assert claims.replace(EVIL, None, ()) == {WEB}
        assert claims.replace(EVIL, self.CLAIM, ()) == {WEB}
        assert claims.replace(WEB, None, ()) == {EVIL}
        assert claims.pods == {}

    def test_a_service_that_has_no_virtual_servers_claims_nothing(self) -> None:
        claims = Claims()
        claims.replace(EVIL, self.CLAIM._replace(type=ServiceType.EXTERNAL_NAME), ())
        claims.replace(OTHER, self.CLAIM._replace(cluster_ips=()), ())
        assert claims.claimants == {}

    def test_an_address_of_two_services_is_a_pods_until_both_have_let_it_go(self) -> None:
        claims = Claims()
        claims.replace(WEB, KEPT, (WEB_SLICE,))
        claims.replace(OTHER, KEPT, (WEB_SLICE,))
        assert claims.pods[address("10.244.0.1")] == (OTHER, WEB)
        claims.replace(WEB, KEPT, ())
        assert claims.pods[address("10.244.0.1")] == (OTHER,)
        claims.replace(OTHER, KEPT, ())
        assert address("10.244.0.1") not in claims.pods


@given(
    st.lists(
        st.tuples(
            st.sampled_from((WEB, EVIL, OTHER)),
            st.frozensets(st.sampled_from([Address(bytes([10, 0, 0, each])) for each in range(4)])),
        )
    )
)
def test_the_index_has_both_sides_of_what_was_put_in_last(
    steps: list[tuple[ObjectKey, frozenset[Address]]],
) -> None:
    index = AddressIndex()
    held: dict[ObjectKey, frozenset[Address]] = {}
    for service_key, has in steps:
        assert index.replace(service_key, has) == has ^ held.get(service_key, frozenset())
        held[service_key] = has
        assert {each: set(holders) for each, holders in index.services.items()} == {
            each: {holder for holder, theirs in held.items() if each in theirs}
            for theirs in held.values()
            for each in theirs
        }
