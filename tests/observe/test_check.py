"""From the agent's answers to what `check` judges, and from findings to what programs read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from ipvsproxy.config.layers import combine
from ipvsproxy.config.settings import Config
from ipvsproxy.errors import UsageError
from ipvsproxy.kernel.interface import FirewallState
from ipvsproxy.model.objects import ObjectKey, ServiceType
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.check import (
    check_result,
    config_of,
    health_of,
    ipv6_addresses,
    local_endpoints,
    node_ports,
    schedulers_of,
    shared_addresses,
)
from ipvsproxy.observe.comparison import Comparison
from ipvsproxy.observe.configuration import configuration
from ipvsproxy.observe.report import build_report
from ipvsproxy.plan.check.finding import Check, Finding, Severity
from ipvsproxy.plan.view import Failure
from tests.builders import NODE, address, addresses, endpoint, endpoint_slice, port, service
from tests.observe.node import IDENTITY, NOW, kernel_of, report_of, state, view_of

if TYPE_CHECKING:
    from ipvsproxy.model.items import Item
    from ipvsproxy.observe.schema import AgentReport, Dump
    from tests.observe.node import Kernel

PLAIN = state(
    service("10.96.0.1", "fd00:10:96::1"),
    endpoint_slice(endpoint("10.244.0.1", node=NODE), endpoint("10.244.0.2", node="elsewhere")),
)
SHOP = ObjectKey("default", "shop")
SHARED = state(
    service(
        "10.96.0.2",
        of=SHOP,
        kind=ServiceType.LOAD_BALANCER,
        ports=(port(80, node_port=30080),),
        load_balancer_ips=("192.0.2.10",),
        external_ips=("198.51.100.7",),
    ),
    endpoint_slice("10.244.0.9", of=SHOP, name="shop-1"),
)


def test_the_agents_configuration_comes_back_as_it_was() -> None:
    flags = {"scheduler": "wlc", "strict_arp": True, "run_directory": Path("/r"), "sync_period": 60.0}
    effective = combine(flags, None, "node-a")
    answer = configuration(effective, None, Path("/manifests"))
    assert config_of(answer) == effective.config
    assert config_of(answer) != Config(node_name="node-a")


def test_a_configuration_that_is_not_understood_is_one_line() -> None:
    answer = configuration(combine({}, None, "node-a"), None, None)
    broken = [
        msgspec.structs.replace(each, value="soon") if each.flag == "--sync-period" else each
        for each in answer.settings
    ]
    with pytest.raises(
        UsageError, match="the agent's configuration is not understood: 'soon' is not a duration"
    ):
        config_of(msgspec.structs.replace(answer, settings=broken))


def dump_of(report: AgentReport, kernel: Kernel) -> Dump:
    return Comparison(report, kernel.tables).dump(kernel.real_servers)


def test_an_agent_that_is_well_has_nothing_to_tell() -> None:
    report = report_of(PLAIN)
    health = health_of(report, 70, dump_of(report, kernel_of(PLAIN)))
    assert (health.node_name, health.synced, health.resync_overdue_after) == (NODE, True, 70)
    assert [*health.failures, *health.rejections, *(health.differences or [])] == []
    assert (health.node_known, health.warnings) == (True, [])
    assert health_of(report, 70, None).differences is None


def test_rejections_are_told_by_kind_and_what_leaves_a_service_without_its_clusterip_first() -> None:
    failures: dict[Item, Failure] = {
        address("10.96.0.1"): Failure("EACCES: Permission denied", 3, NOW + 4, NOW)
    }
    rejections = [
        Rejection("Service", ObjectKey("default", "broken"), "spec.ports", "wrong"),
        Rejection("Service", ObjectKey("default", "web"), "spec.externalIPs", "taken"),
        Rejection("Service", ObjectKey("default", "web"), "spec.externalIPs", "forbidden"),
        Rejection("Service", ObjectKey("default", "web"), "spec.clusterIPs", "not ours"),
        Rejection("EndpointSlice", ObjectKey("default", "web-9"), "", "unreadable"),
    ]
    report = report_of(
        PLAIN,
        view=view_of(PLAIN, failures=failures),
        rejections=rejections,
        warnings=["the disk is full"],
    )
    health = health_of(report, 70, None)
    assert health.failures == ["address 10.96.0.1: EACCES: Permission denied"]
    assert [(each.kind, each.fails, len(each.sentences)) for each in health.rejections] == [
        ("rejected, no address is served", True, 2),
        ("rejected, EndpointSlice", False, 1),
        ("rejected, Service spec.externalIPs", False, 2),
    ]
    assert health.warnings == ["the disk is full"]


def test_a_node_that_the_api_server_does_not_have_is_told_once() -> None:
    identity = IDENTITY._replace(node_known=False)
    report = build_report(identity, view_of(PLAIN), [PLAIN], [])
    assert len(report.warnings) == 1
    health = health_of(report, 70, None)
    assert (health.node_known, health.warnings) == (False, [])


def told_of(kernel: Kernel) -> list[tuple[bool, int]]:
    """Return for each kind of difference whether traffic fails by it, and how many there are."""
    report = report_of(PLAIN)
    several = health_of(report, 70, dump_of(report, kernel)).differences or []
    return [(each.fails, len(each.sentences)) for each in several]


def test_what_is_not_served_fails_and_is_told_once_for_each_cause() -> None:
    kernel = kernel_of(PLAIN)
    assert told_of(kernel) == []
    assert told_of(kernel._replace(virtual_servers={})) == [(True, 2)]
    assert told_of(kernel._replace(bound=set())) == [(True, 2)]
    assert told_of(kernel._replace(firewall=FirewallState(frozenset(), intact=False))) == [(True, 1)]
    emptied = {key: each._replace(real_servers=()) for key, each in kernel.virtual_servers.items()}
    assert told_of(kernel._replace(virtual_servers=emptied)) == [(True, 1)]


def test_what_differs_otherwise_is_a_warning_and_hidden_by_nothing_else() -> None:
    kernel = kernel_of(PLAIN)
    rest, first = sorted(kernel.virtual_servers.values(), key=lambda each: len(each.real_servers))
    weighted = tuple(server._replace(weight=7) for server in first.real_servers)
    changed = {rest.key: rest, first.key: first._replace(scheduler="wlc", real_servers=weighted)}
    assert told_of(kernel._replace(virtual_servers=changed)) == [(False, 1), (False, 2)]
    left = {first.key: changed[first.key]}
    strange = {*kernel.bound, address("10.96.0.99")} - {first.key.address}
    assert told_of(kernel._replace(virtual_servers=left, bound=strange)) == [
        (True, 1),
        (True, 1),
        (False, 1),
        (False, 2),
        (False, 1),
    ]


def test_node_ports_are_picked_out() -> None:
    assert node_ports(report_of(PLAIN, SHARED)) == {30080}


def test_addresses_for_clients_outside_are_shared_as_far_as_they_are_bound_and_of_ipv4() -> None:
    report = report_of(PLAIN, SHARED)
    bound = frozenset(addresses("10.96.0.1", "10.96.0.2", "192.0.2.10"))
    assert shared_addresses(report, bound) == [address("192.0.2.10")]
    assert shared_addresses(report, bound | {address("198.51.100.7")}) == list(
        addresses("192.0.2.10", "198.51.100.7")
    )


def test_endpoints_of_this_node_schedulers_and_ipv6_addresses_are_picked_out() -> None:
    report = report_of(PLAIN)
    assert local_endpoints(report) == {address("10.244.0.1")}
    assert schedulers_of(report) == {"rr"}
    assert ipv6_addresses(report) == 1


def test_programs_read_null_where_there_is_nothing_to_say() -> None:
    finding = Finding(Check.NFT, Severity.OK, "nft 1.0.6, with JSON")
    error = Finding(
        Check.KERNEL_MODULE, Severity.ERROR, "this kernel has no dummy", "modprobe dummy", "dummy"
    )
    assert msgspec.to_builtins(check_result([error, finding], "1.0")) == {
        "schemaVersion": 1,
        "version": "1.0",
        "worst": "error",
        "findings": [
            {
                "check": "kernel-module",
                "severity": "error",
                "about": "dummy",
                "meaning": "this kernel has no dummy",
                "mend": "modprobe dummy",
            },
            {
                "check": "nft",
                "severity": "ok",
                "about": None,
                "meaning": "nft 1.0.6, with JSON",
                "mend": None,
            },
        ],
    }
