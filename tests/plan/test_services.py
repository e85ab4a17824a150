"""What one Service becomes in the kernel."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.ipvs import ServiceFlag
from ipvsproxy.model.objects import (
    AddressKind,
    Clients,
    EndpointSlice,
    Protocol,
    ServiceOptions,
    ServiceType,
    SlicePort,
    TrafficPolicy,
)
from ipvsproxy.plan.endpoints import EndpointReason
from ipvsproxy.plan.node import Dependency, Reservation
from ipvsproxy.plan.services import MAXIMUM_SERVERS, NOTHING, EndpointsBehind, HealthCheck, Redirect
from ipvsproxy.plan.source_ranges import MAXIMUM_NETWORKS, NOBODY
from tests.builders import (
    NODE,
    address,
    addresses,
    endpoint,
    endpoint_slice,
    key,
    networks,
    port,
    real_server,
    service,
    source_list,
    virtual_server,
)
from tests.plan.context import CONTEXT, SETTINGS, context, plan

if TYPE_CHECKING:
    from ipvsproxy.model.objects import Endpoint, Service, ServicePort
    from ipvsproxy.plan.services import ServicePlan

LOCAL = TrafficPolicy.LOCAL
NODE_ADDRESSES = addresses("198.51.100.1", "2001:db8:64::1")
ON_NODE = context(node_ports_on=NODE_ADDRESSES)
HERE, THERE = endpoint("10.244.0.1", node=NODE), endpoint("10.244.1.1", node="node-b")
BOTH = endpoint_slice(HERE, THERE)


def served(planned: ServicePlan) -> dict[str, list[str]]:
    """Return the virtual servers, each with its real servers."""
    return {
        str(each): [str(server) for server in value.virtual_server.real_servers]
        for each, value in planned.virtual_servers.items()
    }


def balanced(**fields: Any) -> ServicePlan:  # noqa: ANN401 - those of `service`
    """Plan a Service with an address of every kind, and with an endpoint here and one elsewhere."""
    value = service(
        "10.96.0.10",
        kind=ServiceType.LOAD_BALANCER,
        ports=(port(80, node_port=30080),),
        external_ips=("203.0.113.9",),
        load_balancer_ips=("203.0.113.1",),
        **fields,
    )
    return plan(value, BOTH, around=ON_NODE)


class TestClusterIP:
    def test_it_gets_a_virtual_server_with_the_ready_endpoints(self) -> None:
        planned = plan(service("10.96.0.10"), endpoint_slice("10.244.0.2", "10.244.0.1"))
        assert [each.virtual_server for each in planned.virtual_servers.values()] == [
            virtual_server(key("10.96.0.10"), real_server("10.244.0.1"), real_server("10.244.0.2"))
        ]

    def test_a_service_without_endpoints_has_its_virtual_server_all_the_same(self) -> None:
        assert served(plan(service("10.96.0.10"))) == {"10.96.0.10:80/tcp": []}

    def test_every_one_gets_every_port_with_the_endpoints_of_its_family(self) -> None:
        ports = (port(53, "dns", Protocol.UDP), port(53, "dns-tcp"))
        slice_ports = (SlicePort("dns", Protocol.UDP, 5353), SlicePort("dns-tcp", Protocol.TCP, 5353))
        planned = plan(
            service("10.96.0.10", "fd00:10:96::a", ports=ports),
            endpoint_slice("10.244.0.1", ports=slice_ports),
            endpoint_slice("fd00:10:244::1", name="web-2", ports=slice_ports),
        )
        assert served(planned) == {
            "10.96.0.10:53/udp": ["10.244.0.1:5353"],
            "10.96.0.10:53/tcp": ["10.244.0.1:5353"],
            "[fd00:10:96::a]:53/udp": ["[fd00:10:244::1]:5353"],
            "[fd00:10:96::a]:53/tcp": ["[fd00:10:244::1]:5353"],
        }

    def test_internal_traffic_policy_local_has_the_nodes_own_endpoints_or_refuses(self) -> None:
        value = service("10.96.0.10", internal=LOCAL)
        assert served(plan(value, BOTH)) == {"10.96.0.10:80/tcp": ["10.244.0.1:8080"]}
        assert served(plan(value, endpoint_slice(THERE))) == {"10.96.0.10:80/tcp": []}

    def test_external_traffic_policy_does_not_concern_it(self) -> None:
        assert served(balanced(external=LOCAL))["10.96.0.10:80/tcp"] == [
            "10.244.0.1:8080",
            "10.244.1.1:8080",
        ]


def test_a_headless_service_an_external_name_and_a_deleted_service_ask_for_nothing() -> None:
    assert plan(service(external_ips=("203.0.113.9",)), endpoint_slice("10.244.0.1")) == NOTHING
    assert plan(service("10.96.0.10", kind=ServiceType.EXTERNAL_NAME)) == NOTHING
    assert plan(None, endpoint_slice("10.244.0.1")) == NOTHING


class TestExternalAddresses:
    def test_every_kind_of_address_gets_a_virtual_server(self) -> None:
        planned = balanced().virtual_servers
        assert {str(each): value.kind for each, value in planned.items()} == {
            "10.96.0.10:80/tcp": AddressKind.CLUSTER_IP,
            "198.51.100.1:30080/tcp": AddressKind.NODE_PORT,
            "203.0.113.1:80/tcp": AddressKind.LOAD_BALANCER_IP,
            "203.0.113.9:80/tcp": AddressKind.EXTERNAL_IP,
        }
        real_servers = {value.virtual_server.real_servers for value in planned.values()}
        assert real_servers == {(real_server("10.244.0.1"), real_server("10.244.1.1"))}

    def test_a_node_port_is_served_on_every_selected_address_of_its_families(self) -> None:
        ports = (port(80, "a", node_port=30080), port(80, "b", Protocol.SCTP, node_port=30080))
        dual = service("10.96.0.10", "fd00:10:96::a", kind=ServiceType.NODE_PORT, ports=ports)
        assert {each for each in served(plan(dual, around=ON_NODE)) if ":30080" in each} == {
            "198.51.100.1:30080/tcp",
            "198.51.100.1:30080/sctp",
            "[2001:db8:64::1]:30080/tcp",
            "[2001:db8:64::1]:30080/sctp",
        }
        single = service("fd00:10:96::a", kind=ServiceType.NODE_PORT, ports=ports)
        assert not [each for each in served(plan(single, around=ON_NODE)) if "198.51" in each]

    def test_an_address_that_is_two_kinds_at_once_is_the_stronger_one(self) -> None:
        value = service(
            "10.96.0.10",
            kind=ServiceType.LOAD_BALANCER,
            external_ips=("203.0.113.1", "10.96.0.10"),
            load_balancer_ips=("203.0.113.1",),
        )
        assert [each.kind for each in plan(value).virtual_servers.values()] == [
            AddressKind.CLUSTER_IP,
            AddressKind.LOAD_BALANCER_IP,
        ]

    def test_an_external_ip_outside_the_allowed_networks_is_refused_and_a_load_balancers_is_not(self) -> None:
        around = context(settings=SETTINGS._replace(allowed_external_ips=networks("192.0.2.0/24")))
        value = service(
            "10.96.0.10", external_ips=("203.0.113.9", "192.0.2.9"), load_balancer_ips=("203.0.113.1",)
        )
        planned = plan(value, around=around)
        assert [each for each in served(planned) if "10.96" not in each] == [
            "203.0.113.1:80/tcp",
            "192.0.2.9:80/tcp",
        ]
        assert [str(each) for each in planned.rejections] == [
            (
                "Service default/web: spec.externalIPs: 203.0.113.9 is in no network that external IPs are allowed "
                "from (--allowed-external-ips)"
            )
        ]

    @pytest.mark.parametrize("owner", [each for each in Reservation if each is not Reservation.INTERFACE])
    def test_no_address_of_a_node_or_of_the_api_server_is_taken_over(self, owner: Reservation) -> None:
        around = context(reserved=dict.fromkeys(addresses("203.0.113.1", "203.0.113.9"), owner))
        value = service("10.96.0.10", external_ips=("203.0.113.9",), load_balancer_ips=("203.0.113.1",))
        planned = plan(value, around=around)
        assert list(served(planned)) == ["10.96.0.10:80/tcp"]
        assert [(each.field, each.reason) for each in planned.rejections] == [
            ("status.loadBalancer.ingress", f"203.0.113.1 is {owner}"),
            ("spec.externalIPs", f"203.0.113.9 is {owner}"),
        ]

    @pytest.mark.parametrize("text", ["203.0.113.1", "2001:db8:cb::1"])
    def test_an_address_that_an_interface_holds_alone_may_be_a_load_balancers_but_no_external_ip(
        self, text: str
    ) -> None:
        around = context(reserved={address(text): Reservation.INTERFACE})
        announced = service("10.96.0.10", "fd00:96::10", load_balancer_ips=(text,))
        assert key(text) in plan(announced, around=around).virtual_servers
        claimed = plan(service("10.96.0.10", "fd00:96::10", external_ips=(text,)), around=around)
        assert key(text) not in claimed.virtual_servers
        assert [(each.field, each.reason) for each in claimed.rejections] == [
            (
                "spec.externalIPs",
                f"{text} is on an interface of this node, and --allowed-external-ips does not name its network",
            )
        ]

    def test_it_is_an_external_ip_where_the_operator_names_its_network(self) -> None:
        reserved = {address("203.0.113.1"): Reservation.INTERFACE}
        allowed = networks("203.0.113.0/24", "0.0.0.0/0")
        around = context(reserved=reserved, settings=SETTINGS._replace(allowed_external_ips=allowed))
        claimed = plan(service("10.96.0.10", external_ips=("203.0.113.1",)), around=around)
        assert key("203.0.113.1") in claimed.virtual_servers
        own = context(
            reserved={address("203.0.113.1"): Reservation.THIS_NODE},
            settings=SETTINGS._replace(allowed_external_ips=allowed),
        )
        refused = plan(service("10.96.0.10", external_ips=("203.0.113.1",)), around=own)
        assert key("203.0.113.1") not in refused.virtual_servers


class TestExternalTrafficPolicyLocal:
    def test_only_endpoints_of_this_node_serve(self) -> None:
        found = served(balanced(external=LOCAL))
        assert {each: servers for each, servers in found.items() if "10.96" not in each} == {
            "198.51.100.1:30080/tcp": ["10.244.0.1:8080"],
            "203.0.113.1:80/tcp": ["10.244.0.1:8080"],
            "203.0.113.9:80/tcp": ["10.244.0.1:8080"],
        }

    def test_clients_inside_the_cluster_are_sent_to_the_port_of_the_cluster_ip(self) -> None:
        redirect = Redirect(Clients.INSIDE, address("10.96.0.10"), 80)
        assert redirects(balanced(external=LOCAL)) == {
            AddressKind.CLUSTER_IP: None,
            AddressKind.NODE_PORT: redirect,
            AddressKind.LOAD_BALANCER_IP: redirect,
            AddressKind.EXTERNAL_IP: redirect,
        }
        assert set(redirects(balanced()).values()) == {None}
        assert set(redirects(balanced(internal=LOCAL)).values()) == {None}

    def test_with_both_policies_local_the_roles_are_turned_round(self) -> None:
        planned = balanced(external=LOCAL, internal=LOCAL)
        redirect = Redirect(Clients.OUTSIDE, address("10.96.0.10"), 80)
        assert redirects(planned) == {
            AddressKind.CLUSTER_IP: None,
            AddressKind.NODE_PORT: redirect,
            AddressKind.LOAD_BALANCER_IP: redirect,
            AddressKind.EXTERNAL_IP: redirect,
        }
        for each in planned.virtual_servers.values():
            assert each.policy is LOCAL
            assert len(each.virtual_server.real_servers) == (1 if each.kind is AddressKind.CLUSTER_IP else 2)

    def test_with_both_policies_local_it_is_told_that_only_others_answer(self) -> None:
        value = service("10.96.0.10", external=LOCAL, internal=LOCAL, external_ips=("203.0.113.9",))
        planned = plan(value, endpoint_slice(THERE)).virtual_servers
        assert planned[key("203.0.113.9")].only_remote_endpoints
        assert planned[key("203.0.113.9")].virtual_server.real_servers
        assert planned[key("10.96.0.10")].only_remote_endpoints
        assert not plan(value, BOTH).virtual_servers[key("203.0.113.9")].only_remote_endpoints

    def test_without_local_endpoints_it_is_told_whether_others_answer(self) -> None:
        value = service("10.96.0.10", external=LOCAL, external_ips=("203.0.113.9",))
        at = key("203.0.113.9")
        leaving = endpoint("10.244.1.1", ready=False, terminating=True)
        assert plan(value, endpoint_slice(THERE)).virtual_servers[at].only_remote_endpoints
        assert plan(value, endpoint_slice(leaving)).virtual_servers[at].only_remote_endpoints
        assert not plan(value, BOTH).virtual_servers[at].only_remote_endpoints
        assert not plan(value).virtual_servers[at].only_remote_endpoints
        assert (
            not plan(value, endpoint_slice(endpoint("10.244.1.1", ready=False)))
            .virtual_servers[at]
            .only_remote_endpoints
        )


def redirects(planned: ServicePlan) -> dict[AddressKind, Redirect | None]:
    return {value.kind: value.redirect for value in planned.virtual_servers.values()}


def test_source_ranges_are_for_the_load_balancers_address_only() -> None:
    planned = balanced(source_ranges=("192.0.2.0/24",)).virtual_servers
    assert {value.kind: value.allowed_sources for value in planned.values()} == {
        AddressKind.CLUSTER_IP: None,
        AddressKind.NODE_PORT: None,
        AddressKind.LOAD_BALANCER_IP: source_list("192.0.2.0/24"),
        AddressKind.EXTERNAL_IP: None,
    }


class TestOptions:
    def test_session_affinity_is_persistence_with_its_timeout_on_every_address(self) -> None:
        for planned in balanced(affinity=10800).virtual_servers.values():
            assert planned.virtual_server.flags == ServiceFlag.PERSISTENT
            assert planned.virtual_server.timeout == 10800

    def test_the_annotations_go_before_the_settings(self) -> None:
        options = ServiceOptions("lc", ServiceFlag.SCHEDULER_2, 60.0, 100)
        for planned in balanced(options=options, affinity=60).virtual_servers.values():
            assert planned.virtual_server.scheduler == "lc"
            assert planned.virtual_server.flags == ServiceFlag.SCHEDULER_2 | ServiceFlag.PERSISTENT
            assert {each.upper_threshold for each in planned.virtual_server.real_servers} == {100}
            assert planned.drain_timeout == 60

    @pytest.mark.parametrize("scheduler", ["sh", "mh"])
    def test_schedulers_that_hash_clients_pass_over_real_servers_that_drain(self, scheduler: str) -> None:
        for planned in balanced(options=ServiceOptions(scheduler)).virtual_servers.values():
            assert planned.virtual_server.flags == ServiceFlag.SCHEDULER_1

    @pytest.mark.parametrize(
        ("options", "flags"),
        [
            (ServiceOptions(), ServiceFlag.SCHEDULER_1 | ServiceFlag.SCHEDULER_2),
            (ServiceOptions(scheduler_flags=ServiceFlag.SCHEDULER_1), ServiceFlag.SCHEDULER_1),
            (ServiceOptions("mh"), ServiceFlag.SCHEDULER_1),
            (ServiceOptions("rr"), 0),
            # The kernel has not got it, so that of the settings takes its place.
            (ServiceOptions("lc"), ServiceFlag.SCHEDULER_1 | ServiceFlag.SCHEDULER_2),
        ],
    )
    def test_mh_of_the_settings_counts_the_clients_port_unless_an_annotation_says_otherwise(
        self, options: ServiceOptions, flags: int
    ) -> None:
        around = CONTEXT._replace(
            settings=SETTINGS._replace(scheduler="mh"), missing_schedulers=frozenset({"lc"})
        )
        (planned,) = plan(service("10.96.0.10", options=options), around=around).virtual_servers.values()
        assert planned.virtual_server.flags == flags

    def test_other_schedulers_of_the_settings_have_no_flag_for_the_port(self) -> None:
        around = CONTEXT._replace(settings=SETTINGS._replace(scheduler="sh"))
        (planned,) = plan(service("10.96.0.10"), around=around).virtual_servers.values()
        assert planned.virtual_server.flags == ServiceFlag.SCHEDULER_1

    def test_without_annotations_the_settings_hold(self) -> None:
        for planned in balanced().virtual_servers.values():
            assert planned.virtual_server.scheduler == "rr"
            assert planned.drain_timeout == 900
        for planned in balanced(options=ServiceOptions(drain_timeout=0.0)).virtual_servers.values():
            assert planned.drain_timeout == 0


def test_only_endpoints_that_may_run_here_count_as_local() -> None:
    endpoints = endpoint_slice(HERE, THERE, endpoint("10.244.0.3", node=None))
    (planned,) = plan(service("10.96.0.10"), endpoints).virtual_servers.values()
    assert planned.local_endpoints == addresses("10.244.0.1", "10.244.0.3")


def test_an_endpoint_at_a_service_address_is_left_out_with_a_reason() -> None:
    around = context(service_addresses=addresses("10.96.0.5", "10.96.0.6"))
    planned = plan(
        service("10.96.0.10"), endpoint_slice("10.96.0.6", "10.96.0.5", "10.244.0.1"), around=around
    )
    assert served(planned) == {"10.96.0.10:80/tcp": ["10.244.0.1:8080"]}
    assert planned.at_service_addresses
    assert [str(each) for each in planned.rejections] == [
        "Service default/web: endpoints: endpoint 10.96.0.5:8080, and 1 more: its address is a service address"
    ]


def many_ports(number: int) -> tuple[tuple[ServicePort, ...], tuple[SlicePort, ...]]:
    numbers = range(1, number + 1)
    return (
        tuple(port(each, f"p{each}") for each in numbers),
        tuple(SlicePort(f"p{each}", Protocol.TCP, each) for each in numbers),
    )


def test_a_service_of_very_many_ports_has_them_all() -> None:
    ports, slice_ports = many_ports(1600)
    planned = plan(
        service("10.96.0.10", ports=ports, load_balancer_ips=("203.0.113.1",)),
        endpoint_slice("10.244.0.1", "10.244.0.2", ports=slice_ports),
    )
    assert planned.rejections == ()
    assert len(planned.virtual_servers) == 3200
    assert {
        each.port: [server.port for server in value.virtual_server.real_servers]
        for each, value in planned.virtual_servers.items()
    } == {number: [number, number] for number in range(1, 1601)}


def test_a_service_that_asks_for_too_much_gets_a_part_and_a_reason() -> None:
    ports, slice_ports = many_ports(20_000)
    endpoints = (f"10.244.{number // 200}.{number % 200 + 1}" for number in range(999))
    planned = plan(
        service("10.96.0.10", ports=ports, external_ips=("203.0.113.1",)),
        endpoint_slice(*endpoints, ports=slice_ports),
    )
    assert len(planned.virtual_servers) == MAXIMUM_SERVERS // 1000
    assert {len(each.virtual_server.real_servers) for each in planned.virtual_servers.values()} == {999}
    (rejection,) = planned.rejections
    assert rejection.field == ""
    assert rejection.reason.startswith(f"{40_000 - len(planned.virtual_servers)} addresses and ports")


def test_ports_beyond_the_maximum_cost_nothing_for_each_endpoint_and_address() -> None:
    ports, slice_ports = many_ports(20_000)
    external_ips = tuple(f"203.0.{number // 200}.{number % 200 + 1}" for number in range(1000))
    looked_at = Counter[str]()

    class Slice(EndpointSlice):
        @property
        def endpoints(self) -> tuple[Endpoint, ...]:
            looked_at["endpoints"] += 1
            return self[4]

    whole = endpoint_slice(*(f"10.245.{n // 200}.{n % 200 + 1}" for n in range(1000)), ports=slice_ports)
    plan(service("10.96.0.10", ports=ports, external_ips=external_ips), Slice(*whole))
    assert looked_at["endpoints"] < 5


class TestTooManySourceRanges:
    MANY = tuple(f"10.{n >> 8 & 255}.{n & 255}.{n >> 16}/32" for n in range(MAXIMUM_NETWORKS + 1))

    def test_more_than_the_kernel_takes_in_time_let_nobody_in_and_a_reason_names_the_numbers(self) -> None:
        planned = balanced(source_ranges=(*self.MANY, "2001:db8::/32"))
        (sources,) = (
            each.allowed_sources for each in planned.virtual_servers.values() if each.allowed_sources
        )
        assert sources == NOBODY[Family.IPV4]
        (rejection,) = planned.rejections
        assert rejection.field == "spec.loadBalancerSourceRanges"
        assert str(MAXIMUM_NETWORKS) in rejection.reason
        assert str(MAXIMUM_NETWORKS + 1) in rejection.reason

    def test_as_many_as_it_takes_are_let_in(self) -> None:
        planned = balanced(source_ranges=(*self.MANY[1:], self.MANY[1]))
        (sources,) = (
            each.allowed_sources for each in planned.virtual_servers.values() if each.allowed_sources
        )
        assert len(sources.networks) == MAXIMUM_NETWORKS
        assert planned.rejections == ()

    def test_those_within_others_do_not_count(self) -> None:
        assert balanced(source_ranges=(*self.MANY, "10.0.0.0/8")).rejections == ()


def test_the_source_ranges_are_worked_out_once_for_an_address_and_not_for_each_port() -> None:
    ports, _ = many_ports(100)
    planned = plan(
        service(
            "10.96.0.10", ports=ports, load_balancer_ips=("203.0.113.1",), source_ranges=("192.0.2.0/24",)
        )
    )
    lists = [each.allowed_sources for each in planned.virtual_servers.values() if each.allowed_sources]
    assert len(lists) == 100
    assert len(set(map(id, lists))) == 1


class TestHealthCheck:
    def test_ready_endpoints_of_this_node_count_once_though_they_have_two_families_and_ports(self) -> None:
        ports, slice_ports = (
            (port(80, "a"), port(81, "b")),
            (SlicePort("a", Protocol.TCP, 8080), SlicePort("b", Protocol.TCP, 8081)),
        )
        value = service(
            "10.96.0.10", "fd00:10:96::a", ports=ports, external=LOCAL, health_check_node_port=32000
        )
        leaving = endpoint("10.244.0.2", node=NODE, ready=False, terminating=True)
        slices = (
            endpoint_slice(HERE, THERE, leaving, ports=slice_ports),
            endpoint_slice(endpoint("fd00:10:244::1", node=NODE), name="web-2", ports=slice_ports),
        )
        assert plan(value, *slices).health_check == HealthCheck(32000, 1)

    def test_it_turns_to_zero_while_the_last_endpoint_still_serves(self) -> None:
        value = service("10.96.0.10", external=LOCAL, health_check_node_port=32000)
        leaving = endpoint_slice(endpoint("10.244.0.1", node=NODE, ready=False, terminating=True))
        planned = plan(value, leaving)
        assert served(planned)["10.96.0.10:80/tcp"] == ["10.244.0.1:8080"]
        assert planned.health_check == HealthCheck(32000, 0)

    def test_a_service_without_a_health_check_node_port_has_none(self) -> None:
        assert balanced().health_check is None


class TestDependencies:
    def test_a_plain_cluster_ip_depends_on_nothing_of_the_node(self) -> None:
        assert plan(service("10.96.0.10"), BOTH).depends_on == Dependency(0)

    def test_zone_hints_depend_on_the_zone(self) -> None:
        hinted = endpoint_slice(endpoint("10.244.0.1", for_zones=("zone-a",)))
        assert plan(service("10.96.0.10"), hinted).depends_on == Dependency.ZONE

    @pytest.mark.parametrize(
        "value",
        [
            service("10.96.0.10", external_ips=("203.0.113.9",)),
            service("10.96.0.10", load_balancer_ips=("203.0.113.9",)),
            service("10.96.0.10", ports=(port(80, node_port=30080),)),
        ],
    )
    def test_all_but_cluster_ips_depend_on_the_nodes_addresses(self, value: Service) -> None:
        assert plan(value).depends_on == Dependency.ADDRESSES


def test_the_endpoints_behind_a_virtual_server_are_told_with_the_port_and_the_reasons() -> None:
    value = service(
        "10.96.0.10",
        ports=(port(80, "http", node_port=30080), port(30080, "other")),
        kind=ServiceType.NODE_PORT,
        external=LOCAL,
    )
    slices = [endpoint_slice(HERE, THERE, ports=(SlicePort("http", Protocol.TCP, 8080),))]
    planned = plan(value, *slices, around=ON_NODE).virtual_servers
    behind = EndpointsBehind(value, slices, ON_NODE)
    found, decisions = behind.of(planned[key("198.51.100.1", 30080)])
    assert found == value.ports[0]
    assert [each.reason for each in decisions] == [EndpointReason.READY, EndpointReason.NOT_LOCAL_EXTERNALLY]
    found, decisions = behind.of(planned[key("10.96.0.10", 30080)])
    assert found == value.ports[1]
    assert decisions == []
    fewer_ports = value._replace(ports=())
    assert EndpointsBehind(fewer_ports, slices, ON_NODE).of(planned[key("10.96.0.10")]) == (None, [])
