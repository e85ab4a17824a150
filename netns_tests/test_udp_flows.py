"""UDP flows from a port that stays the same: nobody keeps sending to an endpoint that is gone."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.objects import Protocol, ServiceType
from netns_tests.addressing import Via
from netns_tests.traffic import Failure, Flow, NoAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import Cluster, ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

CLIENTS = pytest.mark.parametrize("client", ["client", "node-a", "outside"])
WAYS = pytest.mark.parametrize("via", [Via.CLUSTER_IP, Via.NODE_PORT, Via.LOAD_BALANCER_IP], ids=str)
PODS = ("web-1", "web-2", "web-3")


@pytest.fixture
def service(new_service: NewService) -> ServiceUnderTest:
    """Return a Service of three pods, with every kind of address."""
    service = new_service(*PODS)
    service.become(ServiceType.LOAD_BALANCER)
    settle(service, *PODS)
    return service


@pytest.fixture
def other_service(new_service: NewService) -> ServiceUnderTest:
    """Return another Service of the same pods."""
    return new_service(*PODS)


@CLIENTS
@WAYS
def test_a_flow_moves_to_a_living_endpoint_with_the_first_datagram_after_its_own_is_gone(
    cluster: Cluster, service: ServiceUnderTest, family: Family, client: str, via: Via
) -> None:
    with Flow(cluster[client], service.target(family, Protocol.UDP, via=via)) as flow:
        pods = set(PODS)
        while len(pods) > 1:
            pods.remove(flow.ask().server)
            settle(service, *pods)
            cluster.agent.finish_change()
            answers = [flow.ask().server for _ in range(3)]
            assert set(answers) <= pods
            assert len(set(answers)) == 1


def test_flows_of_other_endpoints_and_other_services_stay_where_they_are(
    cluster: Cluster, service: ServiceUnderTest, other_service: ServiceUnderTest, family: Family
) -> None:
    targets = [each.target(family, Protocol.UDP) for each in (service, other_service)]
    with contextlib.ExitStack() as stack:
        flows, others = (
            [stack.enter_context(Flow(cluster["client"], target)) for _ in PODS] for target in targets
        )
        before, others_before = [flow.ask().server for flow in flows], [flow.ask().server for flow in others]
        assert sorted(before) == sorted(others_before) == sorted(PODS)
        settle(service, "web-2", "web-3")
        cluster.agent.finish_change()
        for flow, server in zip(flows, before, strict=True):
            assert flow.ask().server == server or server == "web-1"
        assert "web-1" not in [flow.ask().server for flow in flows]
        assert [flow.ask().server for flow in others] == others_before


@CLIENTS
def test_a_flow_that_was_refused_is_answered_once_there_is_an_endpoint_and_refused_again_without(
    cluster: Cluster, new_service: NewService, family: Family, client: str
) -> None:
    service = new_service()
    with Flow(cluster[client], service.target(family, Protocol.UDP)) as flow:
        assert failure_of(flow) is Failure.REFUSED
        service.set_endpoints("web-1")
        cluster.agent.finish_change()
        assert flow.ask().server == "web-1"
        service.set_endpoints()
        cluster.agent.finish_change()
        assert failure_of(flow) is Failure.REFUSED


def test_a_flow_to_a_node_port_survives_the_service_and_finds_the_next_one(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    """A Service is deleted and made again, as people do, with the same node port and other endpoints."""
    service = new_service("web-1")
    service.become(ServiceType.NODE_PORT)
    service.await_pods("web-1", via=Via.NODE_PORT)
    with Flow(cluster["outside"], service.target(family, Protocol.UDP, via=Via.NODE_PORT)) as flow:
        assert flow.ask().server == "web-1"
        service.remove()
        cluster.agent.finish_change()
        assert failure_of(flow) is Failure.REFUSED
        service.set_endpoints("web-2")
        service.await_pods("web-2", via=Via.NODE_PORT)
        cluster.agent.finish_change()
        assert flow.ask().server == "web-2"


def settle(service: ServiceUnderTest, *pods: str) -> None:
    """Make these pods its endpoints, and wait until every address has that."""
    service.write_pods(*pods)
    for via in (Via.CLUSTER_IP, Via.NODE_PORT, Via.LOAD_BALANCER_IP):
        service.await_pods(*pods, via=via)


def failure_of(flow: Flow) -> Failure | str:
    try:
        return flow.ask().server
    except NoAnswerError as error:
        return error.failure
