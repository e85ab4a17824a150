"""What one Service becomes in the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.ipvs import ServiceFlag
from ipvsproxy.model.objects import Protocol, ServiceType, SlicePort
from ipvsproxy.plan.services import NOTHING, PlanSettings, plan_service
from tests.builders import (
    NODE,
    address,
    endpoint,
    endpoint_slice,
    key,
    port,
    real_server,
    service,
    virtual_server,
)

if TYPE_CHECKING:
    from ipvsproxy.model.objects import EndpointSlice, Service
    from ipvsproxy.plan.services import ServicePlan

SETTINGS = PlanSettings(NODE, "rr")


def plan(of: Service | None, *slices: EndpointSlice) -> ServicePlan:
    return plan_service(of, slices, SETTINGS)


def test_a_cluster_ip_gets_a_virtual_server_with_the_ready_endpoints() -> None:
    planned = plan(service("10.96.0.10"), endpoint_slice("10.244.0.2", "10.244.0.1"))
    assert [each.virtual_server for each in planned.virtual_servers.values()] == [
        virtual_server(key("10.96.0.10"), real_server("10.244.0.1"), real_server("10.244.0.2"))
    ]


def test_a_service_without_endpoints_has_its_virtual_server_all_the_same() -> None:
    (planned,) = plan(service("10.96.0.10")).virtual_servers.values()
    assert planned.virtual_server.real_servers == ()


def test_every_cluster_ip_gets_every_port_with_the_endpoints_of_its_family() -> None:
    ports = (port(53, "dns", Protocol.UDP), port(53, "dns-tcp"))
    slice_ports = (SlicePort("dns", Protocol.UDP, 5353), SlicePort("dns-tcp", Protocol.TCP, 5353))
    planned = plan(
        service("10.96.0.10", "fd00:10:96::a", ports=ports),
        endpoint_slice("10.244.0.1", ports=slice_ports),
        endpoint_slice("fd00:10:244::1", name="web-2", ports=slice_ports),
    )
    assert {
        str(each): [str(server) for server in value.virtual_server.real_servers]
        for each, value in planned.virtual_servers.items()
    } == {
        "10.96.0.10:53/udp": ["10.244.0.1:5353"],
        "10.96.0.10:53/tcp": ["10.244.0.1:5353"],
        "[fd00:10:96::a]:53/udp": ["[fd00:10:244::1]:5353"],
        "[fd00:10:96::a]:53/tcp": ["[fd00:10:244::1]:5353"],
    }


def test_a_headless_service_an_external_name_and_a_deleted_service_ask_for_nothing() -> None:
    assert plan(service(), endpoint_slice("10.244.0.1")).virtual_servers == {}
    assert plan(service("10.96.0.10", kind=ServiceType.EXTERNAL_NAME)) == NOTHING
    assert plan(None, endpoint_slice("10.244.0.1")) == NOTHING


def test_session_affinity_is_persistence_with_its_timeout() -> None:
    (planned,) = plan(service("10.96.0.10", affinity=10800)).virtual_servers.values()
    assert planned.virtual_server.flags == ServiceFlag.PERSISTENT
    assert planned.virtual_server.timeout == 10800


def test_only_endpoints_that_may_run_here_count_as_local() -> None:
    endpoints = endpoint_slice(
        endpoint("10.244.0.1", node=NODE),
        endpoint("10.244.0.2", node="node-b"),
        endpoint("10.244.0.3", node=None),
    )
    (planned,) = plan(service("10.96.0.10"), endpoints).virtual_servers.values()
    assert planned.local_endpoints == (address("10.244.0.1"), address("10.244.0.3"))
