"""From the agent's answers to what `check` judges, and from findings to what programs read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from ipvsproxy.config.layers import combine
from ipvsproxy.config.settings import Config
from ipvsproxy.errors import UsageError
from ipvsproxy.model.objects import ObjectKey, ServiceType
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.check import (
    check_result,
    config_of,
    health_of,
    ipv6_addresses,
    local_endpoints,
    schedulers_of,
    shared_addresses,
)
from ipvsproxy.observe.configuration import configuration
from ipvsproxy.observe.schema import Difference
from ipvsproxy.plan.check.agent import Several
from ipvsproxy.plan.check.finding import Check, Finding, Severity
from ipvsproxy.plan.view import Failure
from tests.builders import NODE, address, addresses, endpoint, endpoint_slice, port, service
from tests.observe.node import NOW, report_of, state, view_of

if TYPE_CHECKING:
    from ipvsproxy.model.items import Item

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


def test_an_agent_that_is_well_has_nothing_to_count() -> None:
    health = health_of(report_of(PLAIN), 70, [])
    assert (health.node_name, health.synced, health.resync_overdue_after) == (NODE, True, 70)
    assert health.failures == health.rejections == health.differences == Several(0)


def test_of_several_things_the_first_is_said() -> None:
    failures: dict[Item, Failure] = {address("10.96.0.1"): Failure("EACCES: Permission denied", 3, NOW + 4)}
    broken = [
        Rejection("Service", ObjectKey("default", name), "spec.ports", "wrong")
        for name in ("broken", "other")
    ]
    report = report_of(
        PLAIN,
        view=view_of(PLAIN, failures=failures),
        rejections=broken,
        warnings=["the disk is full"],
    )
    differences = [Difference("default/web", "weight 5 instead of 1"), Difference(None, "table is missing")]
    health = health_of(report, 70, differences)
    assert health.failures == Several(1, "address 10.96.0.1: EACCES: Permission denied")
    assert health.rejections == Several(2, "Service default/broken spec.ports: wrong")
    assert health.differences == Several(2, "default/web: weight 5 instead of 1")
    assert health.warnings == ["the disk is full"]
    assert health_of(report, 70, None).differences is None


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
