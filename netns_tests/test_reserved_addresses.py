"""Addresses that no Service takes over: the API server's, those of pods, and those of the node's interfaces.

The agent runs as a process, with an API server outside of its node and without knowledge of the pods' networks.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from netns_tests import addressing, tables
from netns_tests.api_cluster import ApiCluster, answerer
from netns_tests.bad_objects import of_service, pod, service, slice_of
from netns_tests.bare_node import Agent
from netns_tests.deadline import await_that
from netns_tests.load import Load, Style
from netns_tests.manifests import Endpoint, Port
from netns_tests.servers import HTTP_PORT
from netns_tests.traffic import Target
from tests.api_server import ApiServer
from tests.api_server_state import ENDPOINT_SLICES, SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from netns_tests.api_cluster import Complaint
    from netns_tests.topology import Host
    from tests.api_server_state import Object

API_PEER = "{} is an address by which this node reaches the API server"
# As pods listen, so that whoever takes over a pod's address has its traffic.
DIRECT = Port("http", HTTP_PORT, HTTP_PORT)
NETWORK_BITS = {Family.IPV4: 24, Family.IPV6: 64}
NUMBERS = itertools.count(10, 10)


class Kind(NamedTuple):
    """How a Service claims an address."""

    type: ServiceType
    argument: str
    field: str

    def claim(self, number: int, *addresses: str) -> Object:
        """Return a Service that claims these addresses, at the port that pods listen on."""
        return service(number, DIRECT, type=self.type, **{self.argument: addresses})

    def refused(self, number: int, reason: str) -> Complaint:
        """Return what is said of it."""
        return of_service(number, self.field, reason)


EXTERNAL = Kind(ServiceType.CLUSTER_IP, "external_ips", "spec.externalIPs")
LOAD_BALANCER = Kind(ServiceType.LOAD_BALANCER, "load_balancer_ips", "status.loadBalancer.ingress")


@pytest.fixture(params=[EXTERNAL, LOAD_BALANCER], ids=["external", "load-balancer"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiCluster]:
    with ApiCluster.built(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.servers.start(cluster.host)
        yield cluster


@pytest.fixture
def cluster(built: ApiCluster) -> Iterator[ApiCluster]:
    """Give the cluster without the Services of other tests."""
    yield built
    state = built.api.state
    for resource in (SERVICES, ENDPOINT_SLICES):
        built.delete(*state.objects(resource))


@contextlib.contextmanager
def api_server(cluster: ApiCluster, host: Host, family: Family, port: int = 0) -> Iterator[ApiServer]:
    """Run one more API server, with the same objects, on a host."""
    with host.namespace.entered():
        server = ApiServer(host.addresses[family], port, cluster.api.state)
    with server:
        yield server


def agent(
    cluster: ApiCluster,
    server: ApiServer | None = None,
    *flags: str,
    host: str = "",
    wrapper: Sequence[str] = (),
) -> Agent:
    """Start the agent, on the API server that the cluster has on the node, or on another one."""
    kubeconfig = (server or cluster.api).kubeconfig(cluster.node.directory / "kubeconfig", host)
    words = (
        f"--kubeconfig={kubeconfig}",
        "--hostname-override=node-a",
        "--min-sync-period=0s",
        "--sync-period=1s",
        *flags,
    )
    return Agent(cluster.node, words, wrapper=wrapper)


@pytest.fixture
def number() -> int:
    """Return the first of ten numbers of Services that no other test has.

    So each has its Events once, and addresses that no Service has which is about to go.
    """
    return next(NUMBERS)


@pytest.fixture(scope="class")
def running(built: ApiCluster) -> Iterator[Agent]:
    """Run one agent for the tests of a class."""
    with agent(built) as started:
        started.await_line("first sync")
        yield started


def assert_hears_the_api(cluster: ApiCluster, number: int) -> None:
    """Make a Service, and see it served."""
    cluster.put(service(number), slice_of(number, pod("web-1")))
    cluster.await_answer("client", Target(addressing.cluster_ip(number, Family.IPV4), 80), "web-1")


class TestTheApiServer:
    """A virtual IP in front of the control plane, which is no endpoint of `default/kubernetes`."""

    def test_a_claim_of_its_address_is_refused_from_the_start_and_the_agent_hears_the_api(
        self, cluster: ApiCluster, number: int, kind: Kind, family: Family
    ) -> None:
        outside = cluster["outside"]
        address = outside.addresses[family]
        with api_server(cluster, outside, family) as server:
            cluster.put(kind.claim(number, address), *(slice_of(number, family=each) for each in Family))
            with agent(cluster, server) as running:
                running.await_line("first sync")
                assert not tables.has_address(cluster.host, address)
                cluster.await_complaints(kind.refused(number, API_PEER.format(address)))
                assert_hears_the_api(cluster, number + 1)
                # So is one that comes later.
                cluster.put(kind.claim(number + 2, address))
                assert_hears_the_api(cluster, number + 3)
                cluster.await_complaints(
                    *(kind.refused(each, API_PEER.format(address)) for each in (number, number + 2))
                )
                assert not tables.has_address(cluster.host, address)
                assert answerer(cluster["client"], Target(address, HTTP_PORT)) == "outside"

    def test_an_address_that_its_name_leads_to_later_is_given_up_though_it_was_bound(
        self, cluster: ApiCluster, number: int, kind: Kind, tmp_path: Path
    ) -> None:
        first, second = (cluster[name].addresses[Family.IPV4] for name in ("outside", "stranger"))
        hosts = tmp_path / "hosts"
        hosts.write_text(f"{first} api.test\n")
        # The agent alone sees this file in the place of the host's.
        wrapper = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts))
        cluster.put(kind.claim(number, second), slice_of(number, pod("web-1"), ports=(DIRECT,)))
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(api_server(cluster, cluster["outside"], Family.IPV4))
            running = stack.enter_context(agent(cluster, server, host="api.test", wrapper=wrapper))
            running.await_line("first sync")
            cluster.await_answer("client", Target(second, HTTP_PORT), "web-1")
            assert tables.has_address(cluster.host, second)
            server.go_away()
            port = int(server.url.rpartition(":")[2])
            stack.enter_context(api_server(cluster, cluster["stranger"], Family.IPV4, port))
            hosts.write_text(f"{second} api.test\n")
            await_that(lambda: not tables.has_address(cluster.host, second), f"{second} is given up")
            running.await_line("API server answers again")
            assert_hears_the_api(cluster, number + 1)
            cluster.await_complaints(kind.refused(number, API_PEER.format(second)))
            assert answerer(cluster["client"], Target(second, HTTP_PORT)) == "stranger"


@pytest.mark.usefixtures("running")
class TestPods:
    """The address of a pod of another node, which this node knows by its EndpointSlice alone."""

    @pytest.mark.parametrize("order", ["claim first", "pod first"])
    def test_a_pod_keeps_its_traffic_and_a_claim_is_served_once_the_pod_is_gone(
        self, cluster: ApiCluster, number: int, kind: Kind, family: Family, order: str
    ) -> None:
        address = cluster["web-3"].addresses[family]
        claim = (
            kind.claim(number, address),
            slice_of(number, pod("web-1", family), family=family, ports=(DIRECT,)),
        )
        of_the_pod = service(number + 1), slice_of(number + 1, pod("web-3", family), family=family)
        if order == "claim first":
            cluster.put(*claim)
            cluster.await_answer("client", Target(address, HTTP_PORT), "web-1")
            cluster.put(*of_the_pod)
        else:
            cluster.put(*of_the_pod)
            cluster.await_answer("client", Target(addressing.cluster_ip(number + 1, family), 80), "web-3")
            cluster.put(*claim)
        cluster.await_complaints(
            kind.refused(number, f"{address} is the address of a pod"),
            of_service(
                number + 1,
                "endpoints",
                f"{address}: claimed by Service default/service-{number} too, which does not get a pod's address",
            ),
        )
        cluster.await_answer("client", Target(address, HTTP_PORT), "web-3")
        cluster.await_answer("client", Target(addressing.cluster_ip(number + 1, family), 80), "web-3")
        assert not tables.has_address(cluster.host, address)
        cluster.delete(of_the_pod[1])
        cluster.await_answer("client", Target(address, HTTP_PORT), "web-1")
        cluster.await_complaints()

    def test_nobody_takes_an_address_away_by_naming_it_in_a_slice_of_his_own(
        self, cluster: ApiCluster, number: int, kind: Kind, family: Family
    ) -> None:
        address = addressing.external_ip(number, family)
        forged = service(number + 1)
        del forged["spec"]["selector"]
        cluster.put(
            kind.claim(number, address),
            slice_of(number, pod("web-1", family), family=family, ports=(DIRECT,)),
        )
        target = Target(address, HTTP_PORT)
        cluster.await_answer("outside", target, "web-1")
        with Load(cluster["outside"], target, Style.EACH_ITS_OWN, clients=1) as load:
            load.go_on(1)
            cluster.put(forged, slice_of(number + 1, Endpoint(address, "node-b"), family=family))
            assert_hears_the_api(cluster, number + 2)
            load.go_on(3)
        assert load.failures == []
        assert tables.has_address(cluster.host, address)


@pytest.mark.usefixtures("running")
class TestInterfaces:
    """Addresses of the node's interfaces that its Node does not name."""

    @pytest.fixture
    def eth1(self, cluster: ApiCluster) -> Iterator[Callable[[str], None]]:
        """Give the node a second network interface, to be given addresses."""
        run = cluster.host.namespace.run
        run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1-peer")
        run("ip", "link", "set", "eth1", "up")

        def add(address: str) -> None:
            run("ip", "address", "add", address, "dev", "eth1", *(["nodad"] if ":" in address else []))

        yield add
        run("ip", "link", "delete", "eth1")

    @pytest.mark.parametrize("order", ["claim first", "address first"])
    def test_an_address_of_a_second_interface_is_the_nodes_own(
        self,
        cluster: ApiCluster,
        number: int,
        eth1: Callable[[str], None],
        kind: Kind,
        family: Family,
        order: str,
    ) -> None:
        address = addressing.external_ip(number, family)
        of_the_node = f"{address}/{NETWORK_BITS[family]}"
        target = Target(address, HTTP_PORT)
        claim = (
            kind.claim(number, address),
            slice_of(number, pod("web-1", family), family=family, ports=(DIRECT,)),
        )
        if order == "claim first":
            cluster.put(*claim)
            cluster.await_answer("outside", target, "web-1")
            eth1(of_the_node)
        else:
            eth1(of_the_node)
            assert answerer(cluster["outside"], target) == "node-a"
            cluster.put(*claim)
        cluster.await_complaints(kind.refused(number, f"{address} is an address of this node"))
        cluster.await_answer("outside", target, "node-a")
        assert target not in tables.virtual_servers(cluster.host)

    @pytest.mark.parametrize("interface", ["lo", "eth0"])
    def test_a_load_balancers_address_stays_served_when_a_program_announces_it_from_an_interface(
        self, cluster: ApiCluster, number: int, family: Family, interface: str
    ) -> None:
        """As kube-vip does: as /32 or /128, on the loopback interface for BGP and on another one for ARP."""
        address, node = addressing.external_ip(number, family), cluster.host
        place = (f"{address}/{family.bits}", "dev", interface)
        target = Target(address, HTTP_PORT)
        cluster.put(
            LOAD_BALANCER.claim(number, address),
            slice_of(number, pod("web-1", family), family=family, ports=(DIRECT,)),
        )
        cluster.await_answer("outside", target, "web-1")
        with Load(cluster["outside"], target, Style.EACH_ITS_OWN, clients=1) as load:
            load.go_on(1)
            node.namespace.run("ip", "address", "add", *place, *(["nodad"] if family is Family.IPV6 else []))
            await_that(lambda: address not in bound(node), f"{address} is not bound twice")
            load.go_on(3)
        assert load.failures == []
        cluster.await_complaints()
        node.namespace.run("ip", "address", "delete", *place)
        await_that(lambda: address in bound(node), f"{address} is bound again")
        cluster.await_answer("outside", target, "web-1")


def test_an_external_ip_at_an_interface_has_to_be_of_a_network_that_the_operator_names(
    cluster: ApiCluster, number: int, family: Family
) -> None:
    """As keepalived has them: the operator's, and not whose who may write Services."""
    address, node = addressing.external_ip(number, family), cluster.host
    place = (f"{address}/{family.bits}", "dev", "eth0")
    node.namespace.run("ip", "address", "add", *place, *(["nodad"] if family is Family.IPV6 else []))
    target = Target(address, HTTP_PORT)
    cluster.put(
        EXTERNAL.claim(number, address),
        slice_of(number, pod("web-1", family), family=family, ports=(DIRECT,)),
    )
    with agent(cluster) as running:
        running.await_line("first sync")
        cluster.await_complaints(
            EXTERNAL.refused(
                number,
                f"{address} is on an interface of this node, "
                "and --allowed-external-ips does not name its network",
            )
        )
        assert answerer(cluster["outside"], target) == "node-a"
    with agent(cluster, None, f"--allowed-external-ips={address}/{family.bits}") as running:
        running.await_line("first sync")
        cluster.await_answer("outside", target, "web-1")
    node.namespace.run("ip", "address", "delete", *place)


def bound(node: Host) -> set[str]:
    return {each.address for each in tables.service_addresses(node)}
