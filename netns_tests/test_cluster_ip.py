"""What clients meet at a ClusterIP: who answers, which source the server sees, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipvsproxy.model.objects import ServiceType
from netns_tests.deadline import await_that
from netns_tests.manifests import Endpoint, Port
from netns_tests.servers import ADMIN_PORT, HTTP_PORT
from netns_tests.tables import Tables
from netns_tests.traffic import Failure, Target, answers_echo, failure_of, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.model.addresses import Family
    from ipvsproxy.model.objects import Protocol
    from netns_tests.cluster import Cluster, ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]
    ServiceOf = Callable[..., ServiceUnderTest]


class Case(NamedTuple):
    """A client, an endpoint, and the host of which the endpoint sees an address as the source."""

    client: str
    endpoint: str
    source: str


CASES = [
    # Pods keep their address, on the way to another node and to an endpoint that is no pod too.
    Case("client", "web-1", source="client"),
    Case("client", "web-3", source="client"),
    Case("client", "outside", source="client"),
    # But not who reaches itself: its answer would not come back through the node.
    Case("web-1", "web-1", source="node-a"),
    # A process of the node has the service address as its source at first.
    Case("node-a", "web-1", source="node-a"),
    Case("node-a", "web-3", source="node-a"),
    # From outside the cluster CIDR.
    Case("outside", "web-1", source="node-a"),
    Case("outside", "web-3", source="node-a"),
]

CLIENTS = pytest.mark.parametrize("client", ["client", "node-a", "outside"])


@pytest.fixture(scope="module")
def node_servers(cluster: Cluster) -> Iterator[None]:
    """Let the node itself listen on all its addresses."""
    cluster.servers.start(cluster.node)
    yield
    cluster.servers.leave(cluster.node)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.client}-to-{case.endpoint}")
def test_a_client_reaches_the_endpoint_which_sees_the_right_source(
    cluster: Cluster, service_of: ServiceOf, case: Case, family: Family, protocol: Protocol
) -> None:
    service = service_of(case.endpoint)
    answer = request(cluster[case.client], service.target(family, protocol))
    assert answer.server == case.endpoint
    assert answer.source in cluster[case.source].own(family)


def test_with_session_affinity_a_client_stays_with_its_endpoint(
    cluster: Cluster, new_service: NewService, family: Family, protocol: Protocol
) -> None:
    service = new_service()
    service.become(ServiceType.CLUSTER_IP, session_affinity_timeout=600)
    service.set_endpoints("web-1", "web-2", "web-3", "web-4")
    answers = [request(cluster["client"], service.target(family, protocol)).server for _ in range(12)]
    assert len(set(answers)) == 1


def test_new_connections_go_to_every_endpoint_in_turn(
    cluster: Cluster, service_of: ServiceOf, family: Family, protocol: Protocol
) -> None:
    service = service_of("web-1", "web-2", "web-3", "web-4")
    answers = [request(cluster["client"], service.target(family, protocol)).server for _ in range(12)]
    assert Counter(answers) == {"web-1": 3, "web-2": 3, "web-3": 3, "web-4": 3}


def test_each_port_leads_to_the_target_port_of_its_name(
    cluster: Cluster, service_of: ServiceOf, family: Family
) -> None:
    service = service_of("web-1")
    assert request(cluster["client"], service.target(family, port=80)).port == HTTP_PORT
    assert request(cluster["client"], service.target(family, port=81)).port == ADMIN_PORT


def test_a_target_port_may_have_another_number_in_each_slice(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service()
    service.write(
        service.slice(family, [cluster.endpoint("web-1", family)], name, [Port("http", 80, target)])
        for name, target in {"old": HTTP_PORT, "new": ADMIN_PORT}.items()
    )
    address = cluster["web-1"].addresses[family]
    service.await_real_servers(service.target(family), {(address, HTTP_PORT), (address, ADMIN_PORT)})
    ports = [request(cluster["client"], service.target(family)).port for _ in range(4)]
    assert Counter(ports) == {HTTP_PORT: 2, ADMIN_PORT: 2}


def test_an_endpoint_of_several_slices_counts_once(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service()
    slices = {"a": ["web-1", "web-2"], "b": ["web-2", "web-3"], "c": ["web-1"]}
    service.write(
        service.slice(family, [cluster.endpoint(pod, family) for pod in pods], name)
        for name, pods in slices.items()
    )
    service.await_pods("web-1", "web-2", "web-3", families=[family])
    answers = [request(cluster["client"], service.target(family)).server for _ in range(6)]
    assert Counter(answers) == {"web-1": 2, "web-2": 2, "web-3": 2}


def test_endpoints_that_are_not_ready_get_no_connections(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service()
    ready = cluster.endpoint("web-1", family)
    unready = cluster.endpoint("web-2", family, ready=False)
    terminating = cluster.endpoint("web-3", family, ready=False, serving=True, terminating=True)
    service.write([service.slice(family, [ready, unready, terminating])])
    service.await_pods("web-1", families=[family])
    answers = [request(cluster["client"], service.target(family)).server for _ in range(3)]
    assert set(answers) == {"web-1"}


def test_endpoints_that_terminate_serve_while_no_other_is_ready(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service()
    unready = cluster.endpoint("web-2", family, ready=False)
    terminating = cluster.endpoint("web-3", family, ready=False, serving=True, terminating=True)
    service.write([service.slice(family, [unready, terminating])])
    service.await_pods("web-3", families=[family])
    assert request(cluster["client"], service.target(family)).server == "web-3"


@CLIENTS
def test_a_service_without_endpoints_refuses_at_once(
    cluster: Cluster, service_of: ServiceOf, client: str, family: Family, protocol: Protocol
) -> None:
    service = service_of()
    assert failure_of(cluster[client], service.target(family, protocol)) is Failure.REFUSED


@CLIENTS
def test_a_service_without_endpoints_refuses_many_connections_in_a_row_at_once(
    cluster: Cluster, service_of: ServiceOf, client: str, family: Family
) -> None:
    # The kernel answers a host with few ICMP errors a second: who relies on them refuses the first ones only.
    service = service_of()
    outcomes = [failure_of(cluster[client], service.target(family)) for _ in range(20)]
    assert outcomes == [Failure.REFUSED] * 20


def test_a_service_answers_once_it_has_endpoints_and_refuses_again_without(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service()
    assert failure_of(cluster["client"], service.target(family)) is Failure.REFUSED
    service.set_endpoints("web-2")
    assert request(cluster["client"], service.target(family)).server == "web-2"
    service.set_endpoints()
    assert failure_of(cluster["client"], service.target(family)) is Failure.REFUSED


def test_a_ready_endpoint_elsewhere_serves_though_one_that_ends_on_this_node_had_its_address(
    cluster: Cluster, family: Family
) -> None:
    service = cluster.reserve_service()
    address = cluster["web-3"].addresses[family]
    ends = (("ready", False), ("serving", False), ("terminating", True))
    service.write(
        [
            service.slice(family, [Endpoint(address, cluster.node.name, ends)], "old"),
            service.slice(family, [Endpoint(address, cluster["web-3"].node)], "new"),
        ]
    )
    service.await_pods("web-3", families=[family])
    assert request(cluster["client"], service.target(family)).server == "web-3"
    service.remove()


@CLIENTS
def test_a_port_that_the_service_does_not_have_is_refused(
    cluster: Cluster, service_of: ServiceOf, client: str, family: Family, protocol: Protocol
) -> None:
    service = service_of("web-1")
    assert failure_of(cluster[client], service.target(family, protocol, port=7777)) is Failure.REFUSED


@pytest.mark.usefixtures("node_servers")
@CLIENTS
def test_a_port_on_which_the_node_itself_listens_is_refused_at_a_service_address(
    cluster: Cluster, service_of: ServiceOf, client: str, family: Family
) -> None:
    service = service_of("web-1")
    node = cluster.node.addresses[family]
    assert request(cluster[client], Target(node, HTTP_PORT)).server == "node-a"
    assert failure_of(cluster[client], service.target(family, port=HTTP_PORT)) is Failure.REFUSED


@CLIENTS
def test_a_service_address_answers_an_icmp_echo_request(
    cluster: Cluster, service_of: ServiceOf, client: str, family: Family
) -> None:
    assert answers_echo(cluster[client], service_of("web-1").addresses[family])


def test_nothing_is_left_of_a_service_that_is_removed(cluster: Cluster) -> None:
    before = Tables.of(cluster.node)
    service = cluster.new_service("web-1", "web-2")
    assert Tables.of(cluster.node) != before
    service.remove()
    await_that(lambda: Tables.of(cluster.node) == before, "the tables are as before the Service")
