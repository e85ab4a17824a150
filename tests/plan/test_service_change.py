"""What the log says of a Service that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.objects import ObjectKey, ServiceOptions, ServiceType, TrafficPolicy
from ipvsproxy.plan.service_change import handovers, service_change
from ipvsproxy.plan.services import NOTHING, plan_service
from tests.builders import NODE, WEB, addresses, endpoint, endpoint_slice, key, networks, port, service
from tests.plan.context import context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import EndpointSlice, Service
    from ipvsproxy.plan.endpoints import EndpointDecision

CONTEXT = context(node_ports_on=addresses("203.0.113.1", "203.0.113.2"))
PLAIN = service("10.96.0.1")
ONE = endpoint_slice("10.244.0.1")
NODE_PORT = service("10.96.0.1", kind=ServiceType.NODE_PORT, ports=(port(80, node_port=30080),))


def change(
    before: tuple[Service | None, EndpointSlice],
    after: tuple[Service | None, EndpointSlice],
    *,
    rejected: VirtualServerKey | None = None,
) -> dict[str, list[str]]:
    decided: dict[VirtualServerKey, Sequence[EndpointDecision]] = {}
    had = plan_service(before[0], [before[1]], CONTEXT)
    has = plan_service(after[0], [after[1]], CONTEXT, decided)
    return service_change(had, has, decided, has.virtual_servers.keys() - {rejected})


def test_nothing_changed() -> None:
    assert change((PLAIN, ONE), (PLAIN, ONE)) == {}
    assert service_change(NOTHING, NOTHING, {}, ()) == {}


def test_a_service_that_comes_is_told_with_who_serves() -> None:
    assert change((None, ONE), (NODE_PORT, ONE)) == {"began_to_serve": ["10.244.0.1:8080"]}


def test_nothing_is_told_of_what_a_service_asks_for_in_vain() -> None:
    (asked,) = plan_service(PLAIN, [ONE], CONTEXT).virtual_servers
    assert change((None, ONE), (PLAIN, ONE), rejected=asked) == {}
    assert change((PLAIN, ONE), (PLAIN, endpoint_slice("10.244.0.2")), rejected=asked) == {}


def test_virtual_servers_are_told_of_those_to_whom_they_came_and_whom_they_left() -> None:
    ours, theirs, back, gone = (key(f"10.96.0.{number}") for number in range(1, 5))
    other = ObjectKey("default", "other")
    before = {gone: WEB, back: WEB, theirs: WEB, ours: None}
    assert handovers(before, {ours: WEB, theirs: other, back: WEB}) == {
        WEB: {
            "virtual_servers_added": ["10.96.0.1:80/tcp"],
            "virtual_servers_removed": ["10.96.0.2:80/tcp", "10.96.0.4:80/tcp"],
        },
        other: {"virtual_servers_added": ["10.96.0.2:80/tcp"]},
    }


def test_an_endpoint_that_comes_or_goes_is_told_once_for_all_addresses_with_the_reason() -> None:
    not_ready = endpoint("10.244.0.1", ready=False, serving=False)
    assert change((NODE_PORT, ONE), (NODE_PORT, endpoint_slice(not_ready, "10.244.0.2"))) == {
        "began_to_serve": ["10.244.0.2:8080: ready"],
        "stopped_serving": ["10.244.0.1:8080: not ready"],
    }


def test_an_endpoint_that_is_in_no_slice_any_more_has_that_for_a_reason() -> None:
    assert change((PLAIN, ONE), (PLAIN, endpoint_slice())) == {
        "stopped_serving": ["10.244.0.1:8080: no endpoint any more"]
    }


def test_endpoints_that_a_traffic_policy_leaves_out_are_told_where_it_counts() -> None:
    local = NODE_PORT._replace(external_traffic_policy=TrafficPolicy.LOCAL)
    slices = endpoint_slice(endpoint("10.244.0.1", node=NODE), endpoint("10.244.0.2", node="node-b"))
    assert change((NODE_PORT, slices), (local, slices)) == {
        "changed": ["externalTrafficPolicy: Cluster to Local"],
        "stopped_serving": ["10.244.0.2:8080: on another node, and externalTrafficPolicy is Local"],
    }


def test_what_is_set_differently_is_told_from_what_to_what() -> None:
    options = ServiceOptions(scheduler="lc", drain_timeout=60.0, maximum_connections=100)
    after = PLAIN._replace(options=options, session_affinity_timeout=300)
    assert change((PLAIN, ONE), (after, ONE)) == {
        "changed": [
            "scheduler: rr to lc",
            "session affinity timeout: 0 to 300 s",
            "drain timeout: 900 to 60 s",
            "maximum connections per endpoint: unlimited to 100",
        ]
    }


def test_flags_and_source_ranges_are_told_as_such() -> None:
    flagged = PLAIN._replace(options=ServiceOptions(scheduler_flags=0x10))
    assert change((PLAIN, ONE), (flagged, ONE)) == {"changed": ["scheduler flags"]}
    open_to_all = service("10.96.0.1", kind=ServiceType.LOAD_BALANCER, load_balancer_ips=("192.0.2.10",))
    narrowed = open_to_all._replace(load_balancer_source_ranges=networks("198.51.100.0/24"))
    assert change((open_to_all, ONE), (narrowed, ONE)) == {"changed": ["loadBalancerSourceRanges"]}


def test_a_port_that_comes_beside_others_is_told_without_its_endpoints() -> None:
    more = PLAIN._replace(ports=(*PLAIN.ports, port(443, "https")))
    assert change((PLAIN, ONE), (more, ONE)) == {}
