"""The loop and its node: addresses that come and go, zones, pod networks, health checks."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

import pytest

from ipvsproxy.kernel.fake_conntrack import ConntrackEntry
from ipvsproxy.kernel.interface import KernelUnavailableError
from ipvsproxy.model.firewall import FirewallSet
from ipvsproxy.model.ipvs import Command, IpvsOperation
from ipvsproxy.model.objects import (
    ObjectKey,
    Protocol,
    ServiceOptions,
    ServiceType,
    SliceAuthor,
    SlicePort,
    TrafficPolicy,
)
from ipvsproxy.plan.services import HealthCheck
from tests.builders import (
    NODE,
    address,
    addresses,
    endpoint,
    endpoint_slice,
    key,
    networks,
    node,
    port,
    real_server,
    service,
    virtual_server,
)
from tests.plan import context
from tests.reconcile.world import SETTINGS, World

if TYPE_CHECKING:
    from ipvsproxy.model.objects import Service

OTHER = ObjectKey("default", "other")
NODE_PORT = service("10.96.0.1", kind=ServiceType.NODE_PORT, ports=(port(80, node_port=30080),))
FIRST, SECOND = "198.51.100.1", "198.51.100.2"


def virtual_servers(world: World) -> set[str]:
    return {str(each) for each in world.ipvs.state()}


def real_servers(world: World, text: str, number: int = 80, protocol: Protocol = Protocol.TCP) -> list[str]:
    found = world.ipvs.state()[key(text, number, protocol)].real_servers
    return [str(server) for server in found if server.weight]


@pytest.fixture
def world() -> World:
    world = World()
    world.addresses.other_addresses = set(addresses(FIRST))
    return world


class TestNodeAddresses:
    def test_a_node_port_is_served_on_them_and_they_are_not_bound(self, world: World) -> None:
        world.list_objects(NODE_PORT, endpoint_slice("10.244.0.1"))
        assert virtual_servers(world) == {"10.96.0.1:80/tcp", "198.51.100.1:30080/tcp"}
        assert world.addresses.bound() == {address("10.96.0.1")}

    def test_they_are_followed_when_they_are_said_to_have_changed(self, world: World) -> None:
        world.list_objects(NODE_PORT, endpoint_slice("10.244.0.1"))
        world.change_addresses(*addresses(FIRST, SECOND))
        assert "198.51.100.2:30080/tcp" in virtual_servers(world)
        world.change_addresses(*addresses(SECOND))
        assert virtual_servers(world) == {"10.96.0.1:80/tcp", "198.51.100.2:30080/tcp"}

    def test_one_that_changed_unnoticed_is_found_by_the_resync(self, world: World) -> None:
        world.list_objects(NODE_PORT)
        world.addresses.other_addresses = set(addresses(SECOND))
        world.advance(30)
        assert virtual_servers(world) == {"10.96.0.1:80/tcp", "198.51.100.2:30080/tcp"}

    def test_only_services_that_depend_on_them_are_planned_again(self, world: World) -> None:
        world.list_objects(NODE_PORT, service("10.96.0.2", of=OTHER))
        world.taken_log()
        world.change_addresses(*addresses(FIRST, SECOND))
        touched = {each.virtual_server.key for each in world.log if isinstance(each, IpvsOperation)}
        assert touched == {key(SECOND, 30080)}

    def test_a_change_that_selects_nothing_else_changes_nothing(self, world: World) -> None:
        world.list_objects(NODE_PORT)
        world.taken_log()
        world.change_addresses(*addresses(FIRST))
        assert world.log == []

    def test_an_address_that_the_node_gets_is_given_up_by_the_dummy_interface_at_once(
        self, world: World
    ) -> None:
        world.list_objects(service("10.96.0.1"))
        world.change_addresses(*addresses(FIRST, "10.96.0.1"))
        assert world.addresses.bound() == set()
        world.change_addresses(*addresses(FIRST))
        assert world.addresses.bound() == {address("10.96.0.1")}

    def test_while_they_cannot_be_read_changes_go_on(self, world: World) -> None:
        world.list_objects(NODE_PORT)
        world.addresses.fail_calls(OSError(errno.EIO, "broken"))
        world.change_addresses(*addresses(SECOND))
        assert "198.51.100.1:30080/tcp" in virtual_servers(world)
        assert world.events.entries[-1]["event"] == "addresses of the node not read"
        world.advance(30)
        assert virtual_servers(world) == {"10.96.0.1:80/tcp", "198.51.100.2:30080/tcp"}

    def test_somebody_elses_virtual_server_at_one_keeps_only_its_own_port(self, world: World) -> None:
        foreign = [
            IpvsOperation(Command.NEW_SERVICE, virtual_server(key(FIRST, number))) for number in (30080, 443)
        ]
        world.ipvs.apply(foreign)
        both = (port(80, "a", node_port=30080), port(81, "b", node_port=30081))
        world.list_objects(NODE_PORT._replace(ports=both))
        assert "198.51.100.1:30081/tcp" in virtual_servers(world)
        (rejection,) = world.rejected
        assert (rejection.field, rejection.foreign) == ("spec.ports[].nodePort", True)

    @pytest.mark.parametrize("order", ["foreign first", "service first"])
    @pytest.mark.parametrize("text", ["203.0.113.2", "2001:db8:cb::2"])
    def test_where_an_interface_holds_a_service_address_a_foreign_virtual_server_keeps_its_own_port_at_all_times(
        self, world: World, text: str, order: str
    ) -> None:
        foreign = IpvsOperation(Command.NEW_SERVICE, virtual_server(key(text, 81)))
        claim = service("10.96.0.1", "fd00:96::1", load_balancer_ips=(text,))
        both = claim._replace(ports=(port(80, "a"), port(81, "b")))
        world.list_objects()
        world.change_addresses(*addresses(FIRST), alone=addresses(text))
        if order == "foreign first":
            world.ipvs.apply([foreign])
            world.put(both)
        else:
            world.put(claim)
            world.ipvs.apply([foreign])
            world.put(both)
        for _ in range(3):
            assert key(text, 80) in world.ipvs.state()
            assert [each.field for each in world.rejected] == ["status.loadBalancer.ingress"]
            world.taken_log()
            world.advance(30)
            assert world.log == []
        world.restart()
        world.list_objects(both)
        assert key(text, 80) in world.ipvs.state()
        assert foreign.virtual_server == world.ipvs.state()[key(text, 81)]
        # Once the address would have to be bound, all of it is theirs.
        world.change_addresses(*addresses(FIRST))
        assert key(text, 80) not in world.ipvs.state()
        assert address(text) not in world.addresses.bound()
        world.change_addresses(*addresses(FIRST), alone=addresses(text))
        assert key(text, 80) in world.ipvs.state()


class TestZone:
    SLICE = endpoint_slice(
        endpoint("10.244.0.1", for_zones=("zone-a",)), endpoint("10.244.0.2", for_zones=("zone-b",))
    )

    def test_a_change_of_the_nodes_zone_plans_hinted_services_again(self, world: World) -> None:
        world.list_objects(service("10.96.0.1"), self.SLICE, node=node(zone="zone-a"))
        assert real_servers(world, "10.96.0.1") == ["10.244.0.1:8080"]
        world.put(node(zone="zone-b"))
        assert real_servers(world, "10.96.0.1") == ["10.244.0.2:8080"]

    def test_a_start_knows_the_zone_before_it_writes(self, world: World) -> None:
        world.list_objects(service("10.96.0.1"), self.SLICE, node=node(zone="zone-a"))
        world.taken_log()
        world.restart()
        world.list_objects(service("10.96.0.1"), self.SLICE, node=node(zone="zone-a"))
        assert world.log == []


def test_the_rules_follow_the_pod_networks_of_the_node(world: World) -> None:
    world.list_objects(service("10.96.0.1"), node=node(pod_cidrs=("10.244.0.0/24",)))
    assert world.firewall.read().intact
    world.put(node(pod_cidrs=("10.244.9.0/24",)))
    assert world.firewall.read().intact
    world.restart()
    world.list_objects(service("10.96.0.1"), node=node(pod_cidrs=("10.244.0.0/24",)))
    assert world.firewall.read().intact


class TestReservedAddresses:
    CLAIM = service("10.96.0.1", external_ips=("192.0.2.7",))

    def test_an_address_of_the_node_itself_is_not_taken_over(self, world: World) -> None:
        world.list_objects(self.CLAIM, node=node(ips=("192.0.2.7",)))
        assert virtual_servers(world) == {"10.96.0.1:80/tcp"}
        world.put(node(ips=("192.0.2.8",)))
        assert virtual_servers(world) == {"10.96.0.1:80/tcp", "192.0.2.7:80/tcp"}

    def test_an_address_of_another_node_is_not_taken_over(self, world: World) -> None:
        world.store.put_node_addresses(addresses("192.0.2.7"))
        world.list_objects(self.CLAIM)
        assert virtual_servers(world) == {"10.96.0.1:80/tcp"}
        assert [each.reason for each in world.rejected] == ["192.0.2.7 is an address of another node"]
        world.store.put_node_addresses(())
        world.settle()
        assert "192.0.2.7:80/tcp" in virtual_servers(world)

    def test_an_address_of_the_api_server_is_not_taken_over_wherever_that_moves(self, world: World) -> None:
        kubernetes = ObjectKey("default", "kubernetes")
        world.list_objects(self.CLAIM, endpoint_slice("192.0.2.7", of=kubernetes, name="kubernetes"))
        assert virtual_servers(world) == {"10.96.0.1:80/tcp"}
        world.put(endpoint_slice("192.0.2.9", of=kubernetes, name="kubernetes"))
        assert "192.0.2.7:80/tcp" in virtual_servers(world)
        world.put(endpoint_slice("192.0.2.7", of=kubernetes, name="kubernetes"))
        assert virtual_servers(world) == {"10.96.0.1:80/tcp"}

    @pytest.mark.parametrize("text", ["192.0.2.7", "2001:db8::7"])
    def test_an_address_by_which_the_node_reaches_the_api_server_is_not_taken_over(
        self, world: World, text: str
    ) -> None:
        claim = service("10.96.0.1", "fd00:96::1", external_ips=(text,))
        world.store.put_api_peers(addresses(text, "10.96.0.1"))
        world.list_objects(claim)
        assert virtual_servers(world) == {"10.96.0.1:80/tcp", "[fd00:96::1]:80/tcp"}
        assert [each.reason for each in world.rejected] == [
            f"{text} is an address by which this node reaches the API server"
        ]

    @pytest.mark.parametrize("text", ["192.0.2.7", "2001:db8::7"])
    def test_one_that_turns_out_to_be_such_an_address_is_given_up_at_once(
        self, world: World, text: str
    ) -> None:
        world.list_objects(service("10.96.0.1", "fd00:96::1", load_balancer_ips=(text,)))
        assert address(text) in world.addresses.bound()
        world.store.put_api_peers(addresses(text))
        world.settle()
        assert address(text) not in world.addresses.bound()
        assert key(text) not in world.ipvs.state()
        world.store.put_api_peers(())
        world.settle()
        assert address(text) in world.addresses.bound()

    def test_an_address_of_an_interface_that_the_node_does_not_name_is_not_taken_over(
        self, world: World
    ) -> None:
        claim = self.CLAIM._replace(load_balancer_ips=addresses("192.0.2.8"))
        world.list_objects(claim, node=node(ips=(FIRST,)))
        assert len(virtual_servers(world)) == 3
        world.change_addresses(*addresses(FIRST, "192.0.2.7", "192.0.2.8"))
        assert virtual_servers(world) == {"10.96.0.1:80/tcp"}
        assert {each.reason for each in world.rejected} == {
            "192.0.2.7 is an address of this node",
            "192.0.2.8 is an address of this node",
        }
        world.change_addresses(*addresses(FIRST))
        assert len(virtual_servers(world)) == 3

    def test_a_load_balancers_address_that_is_announced_from_an_interface_stays_served(
        self, world: World
    ) -> None:
        claim = service("10.96.0.1", load_balancer_ips=("192.0.2.7",))
        world.list_objects(claim)
        assert address("192.0.2.7") in world.addresses.bound()
        world.change_addresses(*addresses(FIRST), alone=addresses("192.0.2.7"))
        assert address("192.0.2.7") not in world.addresses.bound()
        assert "192.0.2.7:80/tcp" in virtual_servers(world)
        assert world.rejected == []


class TestHealthChecks:
    VALUE = service("10.96.0.1", external=TrafficPolicy.LOCAL, health_check_node_port=32000)

    def test_they_follow_the_ready_endpoints_of_this_node(self, world: World) -> None:
        world.list_objects(self.VALUE)
        assert world.health_checks == {self.VALUE.key: HealthCheck(32000, 0)}
        world.put(endpoint_slice(endpoint("10.244.0.1", node=NODE)))
        assert world.health_checks == {self.VALUE.key: HealthCheck(32000, 1)}

    def test_they_end_with_their_service(self, world: World) -> None:
        world.list_objects(self.VALUE)
        world.store.remove_service(self.VALUE.key)
        world.settle()
        assert world.health_checks == {}


class TestEndpointsAtServiceAddresses:
    def test_one_that_comes_with_its_service_is_left_out(self, world: World) -> None:
        world.list_objects(
            service("10.96.0.1"),
            endpoint_slice("10.96.0.2", "10.244.0.1"),
            service("10.96.0.2", of=OTHER),
        )
        assert real_servers(world, "10.96.0.1") == ["10.244.0.1:8080"]
        assert "10.96.0.2:8080: its address is a service address" in world.rejected[0].reason

    def test_one_that_becomes_a_service_address_is_left_out_with_the_next_resync_and_comes_back(
        self, world: World
    ) -> None:
        world.list_objects(service("10.96.0.1"), endpoint_slice("10.96.0.2"))
        assert real_servers(world, "10.96.0.1") == ["10.96.0.2:8080"]
        world.put(service("10.96.0.2", of=OTHER))
        world.advance(30)
        assert real_servers(world, "10.96.0.1") == []
        world.store.remove_service(OTHER)
        world.settle()
        world.advance(30)
        assert real_servers(world, "10.96.0.1") == ["10.96.0.2:8080"]


class TestPodAddresses:
    """A Service claims the address of another one's pod."""

    EVIL = ObjectKey("evil", "claim")
    POD: ClassVar = {"external_ips": "10.244.0.1", "load_balancer_ips": "fd00:10:244::1"}
    WEB = (
        service("10.96.0.1", "fd00:96::1"),
        endpoint_slice("10.244.0.1", "10.244.0.2"),
        endpoint_slice("fd00:10:244::1", name="web-2"),
    )

    @pytest.fixture(params=list(POD))
    def kind(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def claim(self, kind: str) -> Service:
        claimed = addresses(self.POD[kind])
        value = service("10.96.0.9", "fd00:96::9", of=self.EVIL)
        if kind == "external_ips":
            return value._replace(external_ips=claimed)
        return value._replace(load_balancer_ips=claimed)

    def told(self, world: World) -> list[tuple[str, str]]:
        desired = world.controller._state.desired  # noqa: SLF001 - the loop is not running
        return sorted((str(each.key), each.reason) for each in desired.rejections())

    def both_are_told(self, kind: str) -> list[tuple[str, str]]:
        return [
            (
                "default/web",
                f"{self.POD[kind]}: claimed by Service evil/claim too, which does not get a pod's address",
            ),
            ("evil/claim", f"{self.POD[kind]} is the address of a pod"),
        ]

    @pytest.mark.parametrize("order", ["claim first", "pod first", "together"])
    def test_the_claim_is_refused_in_any_order_both_are_told_and_it_is_served_once_the_pod_is_gone(
        self, kind: str, order: str
    ) -> None:
        world, at = World(), key(self.POD[kind])
        match order:
            case "claim first":
                world.list_objects(self.claim(kind))
                assert at in world.ipvs.state()
                world.put(*self.WEB)
            case "pod first":
                world.list_objects(*self.WEB)
                world.put(self.claim(kind))
            case "together":
                world.list_objects(self.claim(kind), *self.WEB)
        assert at not in world.ipvs.state()
        assert at.address not in world.addresses.bound()
        assert self.told(world) == self.both_are_told(kind)
        assert sorted((str(each.key), each.reason) for each in world.rejected) == self.both_are_told(kind)
        assert real_servers(world, "10.96.0.1") == ["10.244.0.1:8080", "10.244.0.2:8080"]
        assert real_servers(world, "fd00:96::1") == ["[fd00:10:244::1]:8080"]
        world.advance(60)
        assert at not in world.ipvs.state()
        world.put(endpoint_slice("10.244.0.2"), endpoint_slice("fd00:10:244::2", name="web-2"))
        assert at in world.ipvs.state()
        assert at.address in world.addresses.bound()
        assert self.told(world) == []

    def test_a_claim_that_goes_is_told_to_the_pods_service_no_more(self, world: World, kind: str) -> None:
        world.list_objects(*self.WEB, self.claim(kind))
        world.store.remove_service(self.EVIL)
        world.settle()
        assert self.told(world) == []

    @pytest.mark.parametrize(
        "forged",
        [
            (service("10.96.0.1", "fd00:96::1", has_selector=False), SliceAuthor.CONTROLLER),
            (service("10.96.0.1", "fd00:96::1"), SliceAuthor.ANYBODY),
        ],
        ids=["in-a-slice-with-the-controllers-label-but-no-controller", "in-a-slice-of-their-own"],
    )
    @pytest.mark.parametrize("first", ["claim", "slice"])
    def test_nobody_loses_an_address_because_others_name_it_as_an_endpoint(
        self, world: World, kind: str, forged: tuple[Service, SliceAuthor], first: str
    ) -> None:
        of, author = forged
        named = of, endpoint_slice(self.POD[kind], author=author)
        world.list_objects()
        for each in (self.claim(kind), *named) if first == "claim" else (*named, self.claim(kind)):
            world.put(each)
        world.advance(60)
        assert key(self.POD[kind]) in world.ipvs.state()
        assert [str(each.key) for each in world.rejected] == ["default/web"]
        assert "its address is a service address" in world.rejected[0].reason

    def test_a_cluster_ip_is_stronger_than_a_pod_with_its_address(self, world: World) -> None:
        world.list_objects(service("10.244.0.1", of=OTHER), *self.WEB)
        assert "10.244.0.1:80/tcp" in virtual_servers(world)
        assert real_servers(world, "10.96.0.1") == ["10.244.0.2:8080"]

    def test_a_service_that_claims_its_own_pods_address_is_told_once(self, world: World) -> None:
        own = self.WEB[0]._replace(external_ips=addresses("10.244.0.1"))
        world.list_objects(own, *self.WEB[1:])
        assert self.told(world) == [("default/web", "10.244.0.1 is the address of a pod")]


class TestUdpFlows:
    PORTS = (port(53, "dns", Protocol.UDP, node_port=30053),)
    SLICE_PORTS = (SlicePort("dns", Protocol.UDP, 5353),)
    CLIENT = (address("192.0.2.1"), 40000)

    def entry(self, to: str, number: int, endpoint: str) -> ConntrackEntry:
        target = key(to, number, Protocol.UDP)
        return ConntrackEntry(self.CLIENT, target, (address(endpoint), 5353))

    def dns(self) -> World:
        world = World()
        world.addresses.other_addresses = set(addresses(FIRST))
        value = service(
            "10.96.0.1",
            kind=ServiceType.NODE_PORT,
            ports=self.PORTS,
            external=TrafficPolicy.LOCAL,
            external_ips=("203.0.113.1",),
        )
        self.here = endpoint("10.244.0.1", node=NODE), endpoint("10.244.0.2", node=NODE)
        world.list_objects(value, endpoint_slice(*self.here, ports=self.SLICE_PORTS))
        return world

    def test_those_of_an_endpoint_that_leaves_are_forgotten_at_every_address_and_no_others(self) -> None:
        world = self.dns()
        leaving = {
            self.entry("10.96.0.1", 53, "10.244.0.1"),
            self.entry("203.0.113.1", 53, "10.244.0.1"),
            self.entry(FIRST, 30053, "10.244.0.1"),
        }
        staying = {each._replace(endpoint=(address("10.244.0.2"), 5353)) for each in leaving}
        world.conntrack.entries |= leaving | staying
        world.put(endpoint_slice(self.here[1], ports=self.SLICE_PORTS))
        assert world.conntrack.entries == staying

    def test_a_flow_that_was_sent_to_the_cluster_ip_is_forgotten_under_the_address_that_the_client_used(
        self,
    ) -> None:
        world = World()
        value = service(
            "10.96.0.1", ports=self.PORTS, external=TrafficPolicy.LOCAL, external_ips=("203.0.113.1",)
        )
        remote = endpoint("10.244.1.1"), endpoint("10.244.1.2")
        world.list_objects(value, endpoint_slice(*remote, ports=self.SLICE_PORTS))
        diverted = self.entry("203.0.113.1", 53, "10.244.1.1")
        world.conntrack.entries.add(diverted)
        world.put(endpoint_slice(remote[1], ports=self.SLICE_PORTS))
        assert world.conntrack.entries == set()

    def test_what_came_before_a_virtual_server_does_not_stay_without_translation(self) -> None:
        world = World()
        world.list_objects()
        early = self.entry("10.96.0.1", 53, "10.96.0.1")
        world.conntrack.entries.add(early)
        world.put(service("10.96.0.1", ports=self.PORTS))
        assert world.conntrack.entries == set()

    def test_those_of_a_service_that_goes_are_forgotten(self) -> None:
        world = self.dns()
        world.conntrack.entries.add(self.entry("10.96.0.1", 53, "10.244.0.1"))
        world.store.remove_service(ObjectKey("default", "web"))
        world.settle()
        assert world.conntrack.entries == set()

    def test_connections_of_a_real_server_that_leaves_are_let_alone(self, world: World) -> None:
        world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.1"))
        entry = ConntrackEntry(self.CLIENT, key("10.96.0.1"), (address("10.244.0.1"), 8080))
        world.conntrack.entries.add(entry)
        world.put(endpoint_slice())
        assert world.conntrack.entries == {entry}

    def test_a_failure_is_reported_and_tried_once_more_with_the_next_change(self) -> None:
        world = self.dns()
        entry = self.entry("10.96.0.1", 53, "10.244.0.1")
        world.conntrack.entries.add(entry)
        world.conntrack.fail_calls(KernelUnavailableError("no conntrack"))
        world.put(endpoint_slice(self.here[1], ports=self.SLICE_PORTS))
        assert world.conntrack.entries == {entry}
        (warning,) = [each for each in world.events.entries if "connection tracking" in each["event"]]
        assert warning["reason"] == "no conntrack"
        world.put(endpoint_slice(*self.here, ports=self.SLICE_PORTS))
        assert world.conntrack.entries == set()


def test_a_services_own_drain_timeout_goes_before_the_settings(world: World) -> None:
    value = service("10.96.0.1", options=ServiceOptions(drain_timeout=10.0))
    world.list_objects(value, endpoint_slice("10.244.0.1"))
    world.ipvs.set_connections(key("10.96.0.1"), address("10.244.0.1"), 8080, 1)
    world.put(endpoint_slice())
    world.advance(5)
    (quiet,) = world.ipvs.state()[key("10.96.0.1")].real_servers
    assert quiet.weight == 0
    world.advance(5)
    assert world.ipvs.state()[key("10.96.0.1")].real_servers == ()


def test_real_servers_come_in_an_order_by_chance_so_that_not_all_nodes_begin_with_the_same(
    world: World,
) -> None:
    world.shuffle = lambda operations: operations.reverse()
    world.restart()
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.1", "10.244.0.2", "10.244.0.3"))
    coming = [
        str(each.real_server)
        for each in world.log
        if isinstance(each, IpvsOperation) and each.command is Command.NEW_DEST
    ]
    assert coming == ["10.244.0.3:8080", "10.244.0.2:8080", "10.244.0.1:8080"]
    assert world.ipvs.state()[key("10.96.0.1")].real_servers == tuple(
        real_server(f"10.244.0.{number}") for number in (1, 2, 3)
    )


def test_every_comparison_with_the_kernel_that_succeeds_is_told(world: World) -> None:
    world.list_objects(service("10.96.0.1"))
    assert world.successes == 1
    world.advance(30)
    assert world.successes == 2
    world.ipvs.fail_calls(OSError(errno.EIO, "broken"))
    world.advance(30)
    assert world.successes == 2


def test_a_start_gives_up_what_an_address_with_a_foreign_virtual_server_has_and_its_record_last(
    world: World,
) -> None:
    # As a node port it was at an address of the node's, where the other one is no matter.
    udp = port(80, "udp", Protocol.UDP, node_port=80)
    value = service(
        "10.96.0.1", kind=ServiceType.LOAD_BALANCER, ports=(udp,), load_balancer_ips=("203.0.113.2",)
    )
    world.addresses.other_addresses = set(addresses("203.0.113.2"))
    world.ipvs.apply([IpvsOperation(Command.NEW_SERVICE, virtual_server(key("203.0.113.2")))])
    world.list_objects(value)
    assert key("203.0.113.2", 80, Protocol.UDP) in world.ipvs.state()
    world.addresses.other_addresses = set()
    world.restart()
    world.list_objects(value)
    assert set(world.ipvs.state()) == {key("203.0.113.2"), key("10.96.0.1", 80, Protocol.UDP)}


class TestWhatChangedWhileTheAgentWasAway:
    """Elements that exclude each other: in no order may the old one keep the new one out."""

    def test_source_ranges_that_were_narrowed(self, world: World) -> None:
        wide = service(
            "10.96.0.1",
            kind=ServiceType.LOAD_BALANCER,
            load_balancer_ips=("203.0.113.1",),
            source_ranges=("192.0.0.0/8",),
        )
        narrow = wide._replace(load_balancer_source_ranges=networks("192.0.2.0/24"))
        self.start_over(world, wide, narrow)

    def test_a_cluster_ip_that_clients_of_the_load_balancer_are_sent_to(self, world: World) -> None:
        before = service(
            "10.96.0.1",
            kind=ServiceType.LOAD_BALANCER,
            load_balancer_ips=("203.0.113.1",),
            external=TrafficPolicy.LOCAL,
        )
        self.start_over(world, before, before._replace(cluster_ips=addresses("10.96.0.2")))

    def start_over(self, world: World, before: Service, after: Service) -> None:
        for edited in (False, True):
            world.list_objects(before)
            if edited:
                world.firewall.edit_rules()
            world.restart()
            world.list_objects(after)
            fresh = World()
            fresh.addresses.other_addresses = set(world.addresses.other_addresses)
            fresh.list_objects(after)
            assert world.firewall.read() == fresh.firewall.read()
            assert world.controller.step().seconds
            world.restart()


def test_ranges_that_could_not_be_taken_back_do_not_keep_the_next_ones_out(world: World) -> None:
    first = service(
        "10.96.0.1",
        kind=ServiceType.LOAD_BALANCER,
        load_balancer_ips=("203.0.113.1",),
        source_ranges=("192.0.0.0/8",),
    )
    world.list_objects(first)
    world.firewall.refuse(times=2)
    world.put(first._replace(load_balancer_source_ranges=networks("192.0.2.0/24")))
    world.put(first._replace(load_balancer_source_ranges=networks("192.0.2.0/25")))
    lists = [str(each) for each in world.firewall.read().elements if each.set is FirewallSet.SOURCE_LISTS]
    assert lists == ["192.0.2.0/25"]


def test_a_flow_that_was_sent_to_a_cluster_ip_moves_on_when_the_address_gets_another_owner(
    world: World,
) -> None:
    ports = (port(53, "dns", Protocol.UDP),)
    old = service("10.96.0.1", ports=ports, external=TrafficPolicy.LOCAL, external_ips=("203.0.113.1",))
    new = old._replace(key=OTHER, cluster_ips=addresses("10.96.0.2"))
    world.list_objects(old)
    at = key("203.0.113.1", 53, Protocol.UDP)
    world.conntrack.entries.add(
        ConntrackEntry((address("10.244.0.9"), 4000), at, (address("10.244.1.1"), 53))
    )
    world.store.put_service(old._replace(external_ips=()))
    world.put(new)
    assert world.conntrack.entries == set()


def test_a_lost_answer_does_not_keep_a_flow_at_an_endpoint_that_is_gone(world: World) -> None:
    ports, slice_ports = (port(53, "dns", Protocol.UDP),), (SlicePort("dns", Protocol.UDP, 53),)
    world.list_objects(service("10.96.0.1", ports=ports), endpoint_slice("10.244.0.1", ports=slice_ports))
    at = key("10.96.0.1", 53, Protocol.UDP)
    world.conntrack.entries.add(
        ConntrackEntry((address("10.244.0.9"), 4000), at, (address("10.244.0.1"), 53))
    )
    world.ipvs.lose_answers(1)
    world.put(endpoint_slice(ports=slice_ports))
    assert world.conntrack.entries == set()


def test_an_address_that_goes_while_a_resync_runs_is_bound_again_at_once(world: World) -> None:
    world.list_objects(
        service("10.96.0.1"),
        *(service(f"10.96.1.{number}", of=ObjectKey("default", f"s{number}")) for number in range(9)),
    )
    world.addresses.other_addresses = set(addresses(FIRST, "10.96.0.1"))
    world.now += 30.0
    while address("10.96.0.1") in world.addresses.bound():
        world.controller.step()
    world.change_addresses(*addresses(FIRST))
    assert address("10.96.0.1") in world.addresses.bound()


def test_addresses_that_could_not_be_read_are_read_again_soon(world: World) -> None:
    world.list_objects(NODE_PORT)
    world.addresses.fail_calls(OSError(errno.EIO, "broken"))
    world.change_addresses(*addresses(SECOND))
    world.advance(1.0)
    assert "198.51.100.2:30080/tcp" in virtual_servers(world)


@pytest.mark.parametrize("hook", ["succeeded", "rejected", "health_check_changed", "node_changed"])
def test_whoever_is_told_of_the_work_cannot_stop_it(hook: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    world = World(hooks={hook: fail})
    value = service("10.96.0.1", external=TrafficPolicy.LOCAL, health_check_node_port=32000)
    world.list_objects(value, service("10.96.0.1", of=OTHER, created=1), node=node(zone="zone-a"))
    world.advance(30)
    assert virtual_servers(world) == {"10.96.0.1:80/tcp"}
    assert "hook of the reconciler failed" in [each["event"] for each in world.events.entries]


def test_a_service_that_asks_for_a_scheduler_that_the_kernel_has_not_gets_the_usual_one_and_a_reason(
    world: World,
) -> None:
    value = service("10.96.0.1", options=ServiceOptions("lblc2", 8))
    world.list_objects(value, endpoint_slice("10.244.0.1"))
    found = world.ipvs.state()[key("10.96.0.1")]
    assert (found.scheduler, found.flags) == ("rr", 0)
    assert real_servers(world, "10.96.0.1") == ["10.244.0.1:8080"]
    assert [str(each) for each in world.rejected] == [
        (
            "Service default/web: metadata.annotations[ipvsproxy.io/scheduler]: the kernel has no scheduler lblc2, "
            "rr is used: load the module ip_vs_lblc2 and start the agent anew"
        )
    ]
    world.put(value._replace(options=ServiceOptions("lc")))
    world.put(value)
    assert world.ipvs.state()[key("10.96.0.1")].scheduler == "rr"


def test_a_node_without_its_own_scheduler_says_so_and_tries_again(world: World) -> None:
    plan = context.SETTINGS._replace(scheduler="none2")
    world = World(SETTINGS._replace(plan=plan))
    world.list_objects(service("10.96.0.1"))
    world.advance(1.0)
    failures = [each["reason"] for each in world.events.entries if each["event"] == "not programmed"]
    reason = "ENOENT: the kernel has no scheduler none2, load the module ip_vs_none2"
    assert set(failures) == {f"creating the virtual server: {reason}"}
