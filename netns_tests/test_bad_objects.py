"""Objects that contradict themselves, others or the node: they are named, with the reason, and harm nothing else.

The agent runs as a process, and has its objects from an API server, which also takes its Events.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.config.readers import SCHEDULERS
from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from netns_tests import addressing, manifests, others, tables
from netns_tests.api_cluster import HTTP, ApiCluster, Complaint
from netns_tests.bad_objects import (
    ADMIN,
    ALLOWED_EXTERNAL_IPS,
    API_SERVER,
    BAD_OBJECTS,
    EARLIER,
    NODE,
    altered,
    load_balancer,
    of_service,
    pod,
    service,
    slice_of,
)
from netns_tests.deadline import await_that
from netns_tests.load import Load, Style
from netns_tests.servers import ADMIN_PORT, HTTP_PORT
from netns_tests.traffic import Failure, Target
from tests.observe.http_clients import get
from tests.source.malformed import with_managed_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.bad_objects import BadObject
    from netns_tests.bare_node import Agent
    from tests.api_server_state import Object

NEIGHBOUR = Target("10.96.0.2", 80)
FROM_OUTSIDE = Target("2001:db8:cb:2::2", 80)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiCluster]:
    with ApiCluster.built(tmp_path_factory.mktemp("cluster")) as built:
        built.servers.start(built.host)
        api_server = manifests.Port("https", 443, 6443)
        built.put(
            manifests.service("kubernetes", ["10.96.0.1"], [api_server]),
            manifests.endpoint_slice(
                "kubernetes", "kubernetes", Family.IPV4, [manifests.Endpoint(API_SERVER)], [api_server]
            ),
            service(
                2, type=ServiceType.LOAD_BALANCER, load_balancer_ips=("198.19.0.2", FROM_OUTSIDE.address)
            ),
            *(slice_of(2, family=family) for family in Family),
        )
        yield built


@pytest.fixture(scope="module")
def agent(cluster: ApiCluster) -> Iterator[Agent]:
    with cluster.agent(
        f"--allowed-external-ips={','.join(ALLOWED_EXTERNAL_IPS)}", "--sync-period=1s"
    ) as running:
        running.await_line("first sync")
        yield running


@pytest.fixture(autouse=True)
def neighbours(cluster: ApiCluster, agent: Agent) -> Iterator[tuple[Load, Load]]:
    """Ask the good neighbour all the time: no request may fail."""
    assert agent.process.poll() is None
    with (
        Load(cluster["client"], NEIGHBOUR, Style.EACH_ITS_OWN, clients=1) as inside,
        Load(cluster["outside"], FROM_OUTSIDE, Style.EACH_ITS_OWN, clients=1) as outside,
    ):
        inside.go_on(1)
        outside.go_on(1)
        yield inside, outside
        inside.go_on(3)
        outside.go_on(3)
    assert inside.failures + outside.failures == []


@pytest.fixture
def put(cluster: ApiCluster) -> Iterator[Callable[..., None]]:
    """Put objects that are deleted after the test."""
    written: list[Object] = []

    def put(*objects: Object) -> None:
        written.extend(objects)
        cluster.put(*objects)

    yield put
    cluster.delete(*written)
    cluster.await_complaints()


@pytest.mark.parametrize("case", BAD_OBJECTS, ids=lambda case: case.title)
def test_a_bad_object_is_named_until_it_is_mended_and_harms_nothing(
    cluster: ApiCluster, put: Callable[..., None], case: BadObject
) -> None:
    put(*case.bad)
    cluster.await_complaints(*case.complaints)
    table = cluster.dump()
    rows = [{cell.strip() for cell in line.split("   ")} for line in table.splitlines()]
    for complaint in case.complaints:
        name = f"default/{complaint.name}"
        assert any({complaint.kind, name, complaint.field, complaint.reason} <= row for row in rows)
    assert "DIFFERENCE" not in table
    for meeting in case.meanwhile:
        cluster.await_answer(*meeting)
    put(*case.mended)
    cluster.await_complaints()
    cluster.await_answer("client", case.cluster_ip, "web-2")
    for meeting in case.afterwards:
        cluster.await_answer(*meeting)


def test_the_younger_claim_is_served_when_the_older_service_goes(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    shared = "198.18.0.100"
    older = service(101, created=EARLIER, external_ips=(shared,))
    put(older, slice_of(101, pod("web-1")), service(100, external_ips=(shared,)), slice_of(100))
    cluster.await_answer("outside", Target(shared, 80), "web-1")
    cluster.delete(older)
    cluster.await_answer("outside", Target(shared, 80), "web-2")
    cluster.await_complaints()


def test_a_virtual_server_of_somebody_else_at_an_address_of_an_interface_keeps_its_own_port_at_all_times(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    """As keepalived has them: an address of an interface of the node, with a virtual server."""
    theirs = Target("198.18.0.102", 80)
    others.add_node_address(cluster.host, theirs.address)
    others.add_virtual_server(
        cluster.host, theirs, "rr", [(cluster["web-1"].addresses[Family.IPV4], HTTP_PORT)]
    )
    put(service(102, HTTP, ADMIN, external_ips=(theirs.address,)), slice_of(102, ports=(HTTP, ADMIN)))
    cluster.await_complaints(
        of_service(
            102, "spec.externalIPs", f"virtual server {theirs.address}:80/tcp is not ipvsproxy's"
        )._replace(foreign=True)
    )
    ours = theirs._replace(port=ADMIN.port)
    cluster.await_answer("outside", ours, "web-2")
    # One decision: no resync takes back what a change has made.
    with Load(cluster["outside"], ours, Style.EACH_ITS_OWN, clients=1) as load:
        put(service(103), slice_of(103))
        repaired = Target(addressing.cluster_ip(103, Family.IPV4), 80)
        for _ in range(2):
            cluster.await_answer("client", repaired, "web-2")
            others.delete_virtual_server(cluster.host, repaired)
        cluster.await_answer("client", repaired, "web-2")
    assert load.failures == []
    cluster.await_answer("outside", theirs, "web-1")
    others.delete_virtual_server(cluster.host, theirs)
    cluster.await_complaints()
    cluster.await_answer("outside", theirs, "web-2")
    others.delete_node_address(cluster.host, theirs.address)


def test_a_service_that_can_be_used_no_more_is_served_as_it_was_until_it_is_deleted(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    at = Target(addressing.cluster_ip(110, Family.IPV4), 80)
    put(service(110), slice_of(110))
    cluster.await_answer("client", at, "web-2")
    bad = altered(service(110), ports=[{"port": 65536}])
    put(bad)
    cluster.await_complaints(of_service(110, "spec.ports[0].port", "65536 is not from 1 to 65535"))
    cluster.await_answer("client", at, "web-2")
    cluster.delete(bad)
    cluster.await_complaints()
    await_that(lambda: not tables.has_address(cluster.host, at.address), f"{at.address} is gone")
    assert at not in tables.virtual_servers(cluster.host)


def test_an_endpoint_that_only_the_kernel_refuses_is_named_and_harms_no_other(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    """Broadcast by the routes of this node, which no other node need have."""
    broadcast = "203.0.113.255"
    cluster.host.namespace.run("ip", "route", "add", "broadcast", broadcast, "dev", "eth0")
    put(service(111), slice_of(111, manifests.Endpoint(broadcast), pod("web-2")))
    for _ in range(3):
        cluster.await_answer("client", Target(addressing.cluster_ip(111, Family.IPV4), 80), "web-2")
    table = cluster.dump()
    assert f"adding real server {broadcast}:{HTTP_PORT}: EINVAL: Invalid argument" in table
    cluster.host.namespace.run("ip", "route", "delete", "broadcast", broadcast, "dev", "eth0")


def test_addresses_with_leading_zeros_and_ipv4_mapped_ones_are_served_as_what_they_mean(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    """As kube-proxy reads stored objects; and a source range so written lets its clients in, and no others."""
    client = cluster["outside"].addresses[Family.IPV4]
    padded = ".".join(part.zfill(3) for part in client.split("."))
    endpoint = manifests.Endpoint(".".join(f"0{part}" for part in pod("web-2").address.split(".")))
    written = altered(
        load_balancer(112, external_ips=("::ffff:198.18.0.112", "198.018.000.113")),
        loadBalancerSourceRanges=["203.0.113.255/32", f"{padded}/032"],
    )
    written["status"] = {"loadBalancer": {"ingress": [{"ip": "::ffff:198.019.000.112"}]}}
    at_load_balancer = Target("198.19.0.112", 80)
    put(written, slice_of(112, endpoint))
    for target in (Target("198.18.0.112", 80), Target("198.18.0.113", 80), at_load_balancer):
        cluster.await_answer("outside", target, "web-2")
    put(altered(written, loadBalancerSourceRanges=["203.0.113.255/32", f"::ffff:{client}/128"]))
    cluster.await_answer("outside", at_load_balancer, "web-2")
    put(altered(written, loadBalancerSourceRanges=["::ffff:203.000.113.255/128"]))
    cluster.await_answer("outside", at_load_balancer, Failure.SILENCE)
    cluster.await_complaints()


@pytest.mark.parametrize("depth", [1_500, 10_000])
def test_an_object_that_is_nested_as_deeply_as_the_api_allows_is_served_and_harms_no_other(
    cluster: ApiCluster, put: Callable[..., None], depth: int
) -> None:
    at, deeper = (
        Target(addressing.cluster_ip(113, Family.IPV4), 80),
        b'{"f:a":' * depth + b"{}" + b"}" * depth,
    )
    put(with_managed_fields(service(113), deeper), with_managed_fields(slice_of(113), deeper))
    cluster.await_answer("client", at, "web-2")
    put(with_managed_fields(slice_of(113, pod("web-1")), deeper))
    cluster.await_answer("client", at, "web-1")
    cluster.await_complaints()


def test_an_object_that_is_no_json_is_named_and_served_as_it_was(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    at = Target(addressing.cluster_ip(114, Family.IPV4), 80)
    put(service(114), slice_of(114))
    cluster.await_answer("client", at, "web-2")
    put(with_managed_fields(service(114), b"NaN"))
    await_that(lambda: "is not valid JSON" in cluster.dump(), "the Service is rejected")
    assert f"default/{service(114)['metadata']['name']}" in cluster.dump()
    cluster.await_answer("client", at, "web-2")
    put(service(114))
    cluster.await_complaints()


def test_a_node_port_takes_the_place_of_a_server_of_the_node_while_it_is_there(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    of_the_node = Target(NODE[Family.IPV4], ADMIN_PORT)
    cluster.await_answer("outside", of_the_node, "node-a")
    web = service(103, HTTP._replace(node_port=ADMIN_PORT), type=ServiceType.NODE_PORT)
    put(web, slice_of(103))
    cluster.await_answer("outside", of_the_node, "web-2")
    cluster.delete(web)
    cluster.await_answer("outside", of_the_node, "node-a")


def test_a_health_check_node_port_that_another_program_has_is_served_once_it_is_free(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    port = 32104
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": port}
    with cluster.host.namespace.entered():
        other_program = socket.create_server(("", port))
    put(altered(load_balancer(104), **local), slice_of(104))
    cluster.await_complaints(
        of_service(104, "spec.healthCheckNodePort", f"can't listen on port {port} (Address already in use)")
    )
    cluster.await_answer("client", Target(addressing.cluster_ip(104, Family.IPV4), 80), "web-2")
    other_program.close()
    cluster.await_complaints()
    with cluster["outside"].namespace.entered():
        answer = get(port, host=NODE[Family.IPV4])
    assert (answer.status, answer.headers["X-Load-Balancing-Endpoint-Weight"]) == (200, "1")


def test_of_two_services_with_one_health_check_node_port_the_older_has_it(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32105}
    older = altered(load_balancer(106, created=EARLIER), **local)
    put(older, altered(load_balancer(105), **local))
    cluster.await_complaints(
        of_service(
            105,
            "spec.healthCheckNodePort",
            "32105 is the health check node port of default/service-106 already",
        )
    )
    cluster.delete(older)
    cluster.await_complaints()


def test_a_scheduler_that_the_kernel_has_not_is_named_and_the_usual_one_serves(
    cluster: ApiCluster, put: Callable[..., None]
) -> None:
    missing = next(filter(cluster.kernel_lacks_scheduler, SCHEDULERS), None)
    if missing is None:
        pytest.skip("this kernel has all schedulers")
    put(service(107, annotations=(("ipvsproxy.io/scheduler", missing),)), slice_of(107))
    cluster.await_complaints(
        of_service(
            107,
            "metadata.annotations[ipvsproxy.io/scheduler]",
            f"the kernel has no scheduler {missing}, rr is used: load the module ip_vs_{missing} "
            "and start the agent anew",
        )
    )
    cluster.await_answer("client", Target(addressing.cluster_ip(107, Family.IPV4), 80), "web-2")
    assert "FAILED" not in cluster.dump()
    put(service(107))
    cluster.await_complaints()


def test_a_node_with_addresses_that_nobody_can_reach_gets_its_events_and_serves(cluster: ApiCluster) -> None:
    cluster.put(manifests.node("node-a", addresses=("127.0.0.1", "node-a.example", *NODE.values())))
    cluster.await_complaints(
        Complaint("Node", "node-a", "status.addresses[0].address", "127.0.0.1 is a loopback address"),
        Complaint("Node", "node-a", "status.addresses[1].address", "'node-a.example' is not an IP address"),
    )
    cluster.put(manifests.node("node-a", addresses=NODE.values()))
    cluster.await_complaints()


def test_names_of_253_characters_are_said_in_full(cluster: ApiCluster, put: Callable[..., None]) -> None:
    label = "x" * 61
    name = f"{label}.{label}.{label}.{label}.{'y' * 5}"
    assert len(name) == 253
    wrong = service(108, external_ips=("127.0.0.1",))
    wrong["metadata"]["name"] = name
    endpoints = slice_of(108, manifests.Endpoint("127.0.0.1"))
    endpoints["metadata"] |= {"name": name, "labels": {"kubernetes.io/service-name": name}}
    put(wrong, endpoints)
    cluster.await_complaints(
        Complaint("Service", name, "spec.externalIPs[0]", "127.0.0.1 is a loopback address"),
        Complaint("EndpointSlice", name, "endpoints[0].addresses[0]", "127.0.0.1 is a loopback address"),
    )
    assert f"default/{name}" in cluster.dump()


def test_a_service_whose_type_flips_all_the_time_is_served_as_what_it_is_in_the_end(
    cluster: ApiCluster, put: Callable[..., None], neighbours: tuple[Load, Load]
) -> None:
    number = 109
    cluster_ip, node_port = (
        Target(addressing.cluster_ip(number, Family.IPV4), 80),
        Target(NODE[Family.IPV4], 30109),
    )
    external_ip = Target("198.18.0.109", 80)
    port = HTTP._replace(node_port=node_port.port)
    put(slice_of(number))
    for _ in range(5):
        for each in (
            service(number, type=ServiceType.EXTERNAL_NAME),
            service(number, external_ips=(external_ip.address,)),
            service(number, port, type=ServiceType.NODE_PORT),
            load_balancer(number, port, load_balancer_ips=("198.19.0.109",)),
            altered(service(number), clusterIP="None", clusterIPs=["None"]),
            service(number, port, type=ServiceType.NODE_PORT, external_ips=(external_ip.address,)),
        ):
            put(each)
            # A tenth of a second, or so.
            neighbours[0].go_on(10)
    for target in (cluster_ip, node_port, external_ip):
        cluster.await_answer("outside", target, "web-2")
    table = cluster.dump()
    assert not {"DIFFERENCE", "FAILED"}.intersection(table.split())
    assert "198.19.0.109" not in table
