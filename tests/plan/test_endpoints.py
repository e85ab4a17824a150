"""Who serves, and why the others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.addresses import Family, format_endpoint
from ipvsproxy.model.objects import Endpoint, Protocol, SlicePort
from ipvsproxy.plan.endpoints import (
    EndpointReason,
    EndpointsByPort,
    Here,
    answers,
    decide_endpoints,
    why_no_endpoint,
)
from tests.builders import NODE, address, addresses, endpoint, endpoint_slice

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import EndpointSlice
    from ipvsproxy.plan.endpoints import EndpointDecision, Place

READY = EndpointReason.READY
NOT_LOCAL = EndpointReason.NOT_LOCAL_EXTERNALLY
ZONE = "zone-a"


def merged(
    *slices: EndpointSlice, name: str = "", protocol: Protocol = Protocol.TCP, of: Family = Family.IPV4
) -> dict[Place, Endpoint]:
    return EndpointsByPort(of, slices, NODE).of(name, protocol)


def decide(
    *slices: EndpointSlice, not_local: EndpointReason | None = None, service_addresses: tuple[str, ...] = ()
) -> dict[str, EndpointReason]:
    decisions = decide_endpoints(
        EndpointsByPort(Family.IPV4, slices, NODE).of("", Protocol.TCP),
        Here(NODE, ZONE),
        addresses(*service_addresses),
        not_local,
    )
    assert decisions == sorted(decisions)
    return {format_endpoint(each.address, each.port).removesuffix(":8080"): each.reason for each in decisions}


def why(*slices: EndpointSlice, name: str = "http", protocol: Protocol = Protocol.TCP) -> str:
    return why_no_endpoint(Family.IPV4, slices, name, protocol)


class TestPorts:
    """Endpoints that are known, and belong to no port of the Service."""

    def test_the_port_of_a_slice_has_the_name_and_the_protocol_of_the_services_port(self) -> None:
        http = endpoint_slice("10.244.0.1", ports=(SlicePort("http", Protocol.TCP, 8080),))
        assert why(http) == ""
        assert why(http, name="web") == "1 endpoint is known, none has a port named web (their ports: http)"
        assert why(http, protocol=Protocol.UDP) == (
            "1 endpoint is known, none has a port named http with the protocol UDP (their ports: http)"
        )
        assert why(http, name="").startswith("1 endpoint is known, none has the port, which has no name")

    def test_a_named_target_port_that_no_pod_has_leaves_slices_without_ports(self) -> None:
        portless = endpoint_slice("10.244.0.1", "10.244.0.2", ports=())
        assert why(portless) == "2 endpoints are known, none has a port named http"
        again = endpoint_slice("10.244.0.2", "10.244.0.3", name="web-2", ports=())
        assert why(portless, again).startswith("3 endpoints are known")

    def test_without_endpoints_of_the_family_there_is_nothing_to_say_about_ports(self) -> None:
        assert why() == ""
        assert why(endpoint_slice()) == ""
        assert why(endpoint_slice("fd00::1", ports=())) == ""


class TestReadiness:
    def test_ready_endpoints_serve_and_others_do_not(self) -> None:
        found = decide(endpoint_slice("10.244.0.1", endpoint("10.244.0.2", ready=False, serving=False)))
        assert found == {"10.244.0.1": READY, "10.244.0.2": EndpointReason.NOT_READY}

    def test_a_terminating_endpoint_does_not_serve_beside_a_ready_one(self) -> None:
        found = decide(endpoint_slice("10.244.0.1", endpoint("10.244.0.2", ready=False, terminating=True)))
        assert found["10.244.0.2"] is EndpointReason.TERMINATING

    def test_terminating_endpoints_that_still_answer_serve_when_none_is_ready(self) -> None:
        found = decide(
            endpoint_slice(
                endpoint("10.244.0.1", ready=False, terminating=True),
                endpoint("10.244.0.2", ready=False, serving=False, terminating=True),
                endpoint("10.244.0.3", ready=False, serving=True),
            )
        )
        assert found == {
            "10.244.0.1": EndpointReason.SERVING_WHILE_TERMINATING,
            "10.244.0.2": EndpointReason.NOT_READY,
            "10.244.0.3": EndpointReason.NOT_READY,
        }

    def test_an_endpoint_that_is_published_though_not_ready_arrives_as_ready_and_serves(self) -> None:
        found = decide(endpoint_slice(endpoint("10.244.0.1", ready=True, serving=False, terminating=True)))
        assert found == {"10.244.0.1": READY}


class TestMatching:
    def test_a_named_target_port_may_differ_from_slice_to_slice(self) -> None:
        found = merged(
            endpoint_slice("10.244.0.1", ports=(SlicePort("http", Protocol.TCP, 8080),)),
            endpoint_slice("10.244.0.2", ports=(SlicePort("http", Protocol.TCP, 9090),)),
            name="http",
        )
        assert list(found) == [(address("10.244.0.1"), 8080), (address("10.244.0.2"), 9090)]

    def test_a_port_matches_by_name_and_protocol(self) -> None:
        ports = (SlicePort("dns", Protocol.UDP, 53), SlicePort("metrics", Protocol.TCP, 9153))
        assert merged(endpoint_slice("10.244.0.1", ports=ports), name="dns") == {}

    def test_the_same_address_and_port_in_two_slices_is_one_endpoint_and_the_ready_one_wins(self) -> None:
        stale = endpoint_slice(endpoint("10.244.0.1", ready=False), name="web-1")
        fresh = endpoint_slice("10.244.0.1", name="web-2")
        assert decide(stale, fresh) == decide(fresh, stale) == {"10.244.0.1": READY}

    def test_of_two_overlapping_endpoints_the_one_on_this_node_wins(self) -> None:
        local = endpoint_slice(endpoint("10.244.0.1", node=NODE), name="web-1")
        remote = endpoint_slice(endpoint("10.244.0.1", node="node-b"), name="web-2")
        for order in ((local, remote), (remote, local)):
            assert decide(*order, not_local=NOT_LOCAL) == {"10.244.0.1": READY}

    @pytest.mark.parametrize("pod", ["10.244.0.1", "fd00::1"])
    @pytest.mark.parametrize(
        ("loser", "winner"),
        [
            ({"ready": False, "terminating": True, "node": NODE}, {}),
            ({"ready": False, "terminating": True, "node": NODE}, {"ready": False, "serving": False}),
            ({"ready": True, "terminating": True, "node": NODE}, {}),
            ({"ready": False, "node": NODE}, {}),
            ({"ready": False, "serving": False, "node": NODE}, {"ready": False}),
            ({}, {"node": NODE}),
        ],
        ids=[
            "terminating-loses-to-ready",
            "terminating-loses-to-not-ready",
            "terminating-and-published-loses-to-ready",
            "not-ready-loses-to-ready",
            "not-serving-loses-to-serving",
            "of-equal-ones-the-local-wins",
        ],
    )
    def test_of_two_endpoints_with_one_address_the_condition_decides_before_the_node(
        self, pod: str, loser: dict[str, Any], winner: dict[str, Any]
    ) -> None:
        one = endpoint_slice(endpoint(pod, **loser), name="web-1")
        other = endpoint_slice(endpoint(pod, **winner), name="web-2")
        for order in ((one, other), (other, one)):
            assert list(merged(*order, of=one.family).values()) == list(other.endpoints)

    def test_each_family_has_its_own_endpoints(self) -> None:
        slices = (endpoint_slice("10.244.0.1"), endpoint_slice("fd00::1", name="web-2"))
        assert list(merged(*slices)) == [(address("10.244.0.1"), 8080)]
        assert list(merged(*slices, of=Family.IPV6)) == [(address("fd00::1"), 8080)]


def test_an_endpoint_without_a_node_may_be_local_but_a_policy_local_leaves_it_out() -> None:
    endpoints = merged(endpoint_slice(endpoint("10.244.0.1", node=None)))
    (decision,) = decide_endpoints(endpoints, Here(NODE))
    assert decision.may_be_local
    (decision,) = decide_endpoints(endpoints, Here(NODE), not_local=NOT_LOCAL)
    assert decision.reason is NOT_LOCAL


def test_an_endpoint_whose_address_is_a_service_address_never_serves() -> None:
    found = decide(
        endpoint_slice("10.96.0.5", endpoint("10.244.0.1", ready=False, terminating=True)),
        service_addresses=("10.96.0.5",),
    )
    assert found == {
        "10.96.0.5": EndpointReason.SERVICE_ADDRESS,
        "10.244.0.1": EndpointReason.SERVING_WHILE_TERMINATING,
    }


class TestPolicyLocal:
    def test_only_endpoints_of_this_node_serve(self) -> None:
        found = decide(endpoint_slice(endpoint("10.244.0.1", node=NODE), "10.244.1.1"), not_local=NOT_LOCAL)
        assert found == {"10.244.0.1": READY, "10.244.1.1": NOT_LOCAL}

    def test_local_ones_that_terminate_serve_though_others_are_ready_elsewhere(self) -> None:
        leaving = endpoint("10.244.0.1", node=NODE, ready=False, terminating=True)
        found = decide(endpoint_slice(leaving, "10.244.1.1"), not_local=NOT_LOCAL)
        assert found == {
            "10.244.0.1": EndpointReason.SERVING_WHILE_TERMINATING,
            "10.244.1.1": NOT_LOCAL,
        }

    def test_hints_do_not_matter(self) -> None:
        hinted = endpoint("10.244.0.1", node=NODE, for_nodes=("node-b",), for_zones=("zone-b",))
        assert decide(endpoint_slice(hinted), not_local=NOT_LOCAL) == {"10.244.0.1": READY}


class TestHints:
    def test_endpoints_for_this_node_come_before_those_for_its_zone(self) -> None:
        found = decide(
            endpoint_slice(
                endpoint("10.244.0.1", for_nodes=(NODE,), for_zones=(ZONE,)),
                endpoint("10.244.0.2", for_nodes=("node-b",), for_zones=(ZONE,)),
            )
        )
        assert found == {"10.244.0.1": READY, "10.244.0.2": EndpointReason.OTHER_NODE}

    def test_without_one_for_this_node_those_for_its_zone_serve(self) -> None:
        found = decide(
            endpoint_slice(
                endpoint("10.244.0.1", for_nodes=("node-c",), for_zones=(ZONE, "zone-b")),
                endpoint("10.244.0.2", for_nodes=("node-b",), for_zones=("zone-b",)),
            )
        )
        assert found == {"10.244.0.1": READY, "10.244.0.2": EndpointReason.OTHER_ZONE}

    def test_one_ready_endpoint_without_hints_switches_them_off(self) -> None:
        hinted = endpoint("10.244.0.1", for_nodes=("node-b",), for_zones=("zone-b",))
        found = decide(endpoint_slice(hinted, endpoint("10.244.0.2", for_zones=(ZONE,)), "10.244.0.3"))
        assert set(found.values()) == {READY}

    def test_endpoints_that_are_not_ready_need_no_hints(self) -> None:
        found = decide(
            endpoint_slice(
                endpoint("10.244.0.1", for_zones=(ZONE,)),
                endpoint("10.244.0.2", for_zones=("zone-b",)),
                endpoint("10.244.0.3", ready=False),
            )
        )
        assert found == {
            "10.244.0.1": READY,
            "10.244.0.2": EndpointReason.OTHER_ZONE,
            "10.244.0.3": EndpointReason.NOT_READY,
        }

    def test_a_zone_without_endpoints_gets_them_all(self) -> None:
        found = decide(
            endpoint_slice(
                endpoint("10.244.0.1", for_zones=("zone-b",)), endpoint("10.244.0.2", for_zones=("zone-c",))
            )
        )
        assert set(found.values()) == {READY}

    def test_a_node_without_a_zone_gets_them_all(self) -> None:
        endpoints = merged(endpoint_slice(endpoint("10.244.0.1", for_zones=("",))))
        assert [each.reason for each in decide_endpoints(endpoints, Here(NODE))] == [READY]

    def test_terminating_endpoints_serve_whatever_their_hints(self) -> None:
        leaving = endpoint("10.244.0.1", ready=False, terminating=True, for_zones=("zone-b",))
        assert decide(endpoint_slice(leaving)) == {"10.244.0.1": EndpointReason.SERVING_WHILE_TERMINATING}


NAMES = st.lists(st.sampled_from(("zone-a", "zone-b", NODE, "node-b")), max_size=2).map(tuple)
ENDPOINTS = st.dictionaries(
    st.tuples(st.sampled_from(addresses(*(f"10.244.0.{number}" for number in range(5)))), st.just(80)),
    st.builds(
        Endpoint,
        st.just(address("10.244.0.1")),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.sampled_from((NODE, "node-b", None)),
        NAMES,
        NAMES,
    ),
    max_size=5,
)


@given(
    endpoints=ENDPOINTS,
    zone=st.sampled_from(("", "zone-a", "zone-b")),
    not_local=st.none() | st.just(NOT_LOCAL),
    taken=st.sets(st.sampled_from(addresses("10.244.0.0", "10.244.0.1"))),
)
def test_every_endpoint_gets_one_reason_and_some_serve_if_any_could(
    endpoints: dict[Place, Endpoint],
    zone: str,
    not_local: EndpointReason | None,
    taken: set[Address],
) -> None:
    decisions: list[EndpointDecision] = decide_endpoints(endpoints, Here(NODE, zone), taken, not_local)
    assert [each[:2] for each in decisions] == sorted(endpoints)
    candidates = [
        endpoint
        for (each, _), endpoint in endpoints.items()
        if each not in taken and (not_local is None or endpoint.node_name == NODE)
    ]
    assert any(each.serves for each in decisions) == any(map(answers, candidates))
    for each in decisions:
        if each.serves:
            assert each.address not in taken
            assert not_local is None or endpoints[each[:2]].node_name == NODE
            assert endpoints[each[:2]].ready or not any(candidate.ready for candidate in candidates)
