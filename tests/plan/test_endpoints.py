"""Who serves, and why the others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import Family, format_endpoint
from ipvsproxy.model.objects import Protocol, ServicePort, SlicePort
from ipvsproxy.plan.endpoints import EndpointReason, decide_endpoints
from tests.builders import NODE, endpoint, endpoint_slice, port

if TYPE_CHECKING:
    from ipvsproxy.model.objects import EndpointSlice


def decide(
    *slices: EndpointSlice, of: ServicePort | None = None, in_family: Family = Family.IPV4
) -> dict[str, EndpointReason]:
    decisions = decide_endpoints(of or port(), in_family, slices, NODE)
    assert decisions == sorted(decisions)
    return {format_endpoint(each.address, each.port): each.reason for each in decisions}


def test_ready_endpoints_serve_and_others_do_not() -> None:
    found = decide(endpoint_slice("10.244.0.1", endpoint("10.244.0.2", ready=False, serving=False)))
    assert found == {"10.244.0.1:8080": EndpointReason.READY, "10.244.0.2:8080": EndpointReason.NOT_READY}


def test_a_terminating_endpoint_does_not_serve_beside_a_ready_one() -> None:
    found = decide(endpoint_slice("10.244.0.1", endpoint("10.244.0.2", ready=False, terminating=True)))
    assert found["10.244.0.2:8080"] is EndpointReason.TERMINATING


def test_terminating_endpoints_that_still_answer_serve_when_none_is_ready() -> None:
    found = decide(
        endpoint_slice(
            endpoint("10.244.0.1", ready=False, terminating=True),
            endpoint("10.244.0.2", ready=False, serving=False, terminating=True),
            endpoint("10.244.0.3", ready=False, serving=True),
        )
    )
    assert found == {
        "10.244.0.1:8080": EndpointReason.SERVING_WHILE_TERMINATING,
        "10.244.0.2:8080": EndpointReason.NOT_READY,
        "10.244.0.3:8080": EndpointReason.NOT_READY,
    }


def test_a_named_target_port_may_differ_from_slice_to_slice() -> None:
    http = ServicePort("http", Protocol.TCP, 80)
    found = decide(
        endpoint_slice("10.244.0.1", ports=(SlicePort("http", Protocol.TCP, 8080),)),
        endpoint_slice("10.244.0.2", ports=(SlicePort("http", Protocol.TCP, 9090),)),
        of=http,
    )
    assert list(found) == ["10.244.0.1:8080", "10.244.0.2:9090"]


def test_a_port_matches_by_name_and_protocol() -> None:
    ports = (SlicePort("dns", Protocol.UDP, 53), SlicePort("metrics", Protocol.TCP, 9153))
    found = decide(endpoint_slice("10.244.0.1", ports=ports), of=ServicePort("dns", Protocol.TCP, 53))
    assert found == {}


def test_the_same_address_and_port_in_two_slices_is_one_endpoint_and_the_ready_one_wins() -> None:
    stale = endpoint_slice(endpoint("10.244.0.1", ready=False), name="web-1")
    fresh = endpoint_slice("10.244.0.1", name="web-2")
    assert decide(stale, fresh) == decide(fresh, stale) == {"10.244.0.1:8080": EndpointReason.READY}


def test_of_two_overlapping_endpoints_the_one_on_this_node_wins() -> None:
    local = endpoint_slice(endpoint("10.244.0.1", node=NODE), name="web-1")
    remote = endpoint_slice(endpoint("10.244.0.1", node="node-b"), name="web-2")
    for order in ((local, remote), (remote, local)):
        (decision,) = decide_endpoints(port(), Family.IPV4, order, NODE)
        assert decision.may_be_local


def test_an_endpoint_without_a_node_may_be_local() -> None:
    (decision,) = decide_endpoints(
        port(), Family.IPV4, [endpoint_slice(endpoint("10.244.0.1", node=None))], NODE
    )
    assert decision.may_be_local


def test_each_family_has_its_own_endpoints() -> None:
    slices = (endpoint_slice("10.244.0.1"), endpoint_slice("fd00::1", name="web-2"))
    assert list(decide(*slices)) == ["10.244.0.1:8080"]
    assert list(decide(*slices, in_family=Family.IPV6)) == ["[fd00::1]:8080"]
