"""What the agent answers about its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import ObjectKey, Protocol, ServiceType
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.desired import desired_virtual_servers
from ipvsproxy.observe.report import WAITING, NotProgrammed
from ipvsproxy.observe.schema import AgentReport, DrainingRealServer, MasqueradeSettings
from ipvsproxy.plan.endpoints import EndpointReason
from ipvsproxy.reconcile.drain import DrainKey
from ipvsproxy.reconcile.retry import Failure
from tests.builders import NODE, WEB, address, endpoint, endpoint_slice, key, port, service
from tests.observe.node import NOW, report_of, state, view_of

if TYPE_CHECKING:
    from ipvsproxy.model.objects import Service
    from ipvsproxy.observe.schema import ReportedService

PLAIN = state(service("10.96.0.1"), endpoint_slice("10.244.0.1"))


def only_service(report: AgentReport) -> ReportedService:
    (found,) = report.services
    return found


def endpoints(report: AgentReport) -> dict[str, tuple[bool, str, int]]:
    (virtual_server,) = only_service(report).virtual_servers
    return {each.address: (each.serves, each.reason, each.weight) for each in virtual_server.endpoints}


def test_it_says_which_agent_answers_and_how_its_rules_are_set() -> None:
    report = report_of()
    assert report.schema_version == 1
    assert (report.agent.version, report.agent.pid, report.agent.node_name) == ("0.1.0", 4711, NODE)
    assert report.masquerade == MasqueradeSettings(["10.244.0.0/16"], masquerade_all=False, masquerade_bit=14)


def test_a_service_has_a_virtual_server_for_each_port_and_family() -> None:
    ports = (port(80, "http"), port(53, "dns", Protocol.UDP))
    found = only_service(report_of(state(service("fd00::1", "10.96.0.1", ports=ports, affinity=300))))
    assert (str(found), found.type, found.not_programmed) == ("default/web", ServiceType.CLUSTER_IP, None)
    assert [(each.address, each.protocol, each.port, each.port_name) for each in found.virtual_servers] == [
        ("10.96.0.1", "TCP", 80, "http"),
        ("10.96.0.1", "UDP", 53, "dns"),
        ("fd00::1", "TCP", 80, "http"),
        ("fd00::1", "UDP", 53, "dns"),
    ]
    first = found.virtual_servers[0]
    assert (first.scheduler, first.flags, first.persistence_timeout_seconds) == ("rr", ["persistent"], 300)


def test_every_endpoint_is_there_with_the_reason_why_it_serves_or_not() -> None:
    not_ready = endpoint("10.244.0.2", ready=False, serving=False)
    report = report_of(state(service("10.96.0.1"), endpoint_slice("10.244.0.1", not_ready)))
    assert endpoints(report) == {
        "10.244.0.1": (True, EndpointReason.READY, 1),
        "10.244.0.2": (False, EndpointReason.NOT_READY, 0),
    }


def test_what_changed_since_the_reconciler_planned_it_waits_for_the_next_sync() -> None:
    planned = state(service("10.96.0.1"), endpoint_slice("10.244.0.1", "10.244.0.2"))
    newer = state(
        service("10.96.0.1"), endpoint_slice("10.244.0.1", endpoint("10.244.0.3"), "10.244.0.4", name="web-2")
    )
    assert endpoints(report_of(newer, view=view_of(planned))) == {
        "10.244.0.1": (True, EndpointReason.READY, 1),
        "10.244.0.2": (True, WAITING, 1),
        "10.244.0.3": (False, WAITING, 0),
        "10.244.0.4": (False, WAITING, 0),
    }


def test_a_service_that_came_after_the_plan_waits_and_one_that_went_is_still_there() -> None:
    came = only_service(report_of(PLAIN, view=view_of()))
    assert (came.not_programmed, came.virtual_servers) == (WAITING, [])
    went = only_service(report_of(view=view_of(PLAIN)))
    assert (went.type, went.not_programmed) == (None, None)
    assert [each.endpoints[0].reason for each in went.virtual_servers] == [WAITING]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (service(), NotProgrammed.HEADLESS),
        (service(kind=ServiceType.EXTERNAL_NAME), NotProgrammed.EXTERNAL_NAME),
        (service("10.96.0.1", kind=ServiceType.EXTERNAL_NAME), NotProgrammed.EXTERNAL_NAME),
        (service("10.96.0.1", ports=()), NotProgrammed.NO_PORTS),
    ],
)
def test_a_service_without_virtual_servers_says_why(found: Service, reason: NotProgrammed) -> None:
    report = report_of(state(found))
    assert only_service(report).not_programmed == reason


def test_a_service_that_was_never_readable_is_there_with_what_is_wrong() -> None:
    wrong = Rejection("Service", WEB, "spec.clusterIPs[0]", "'x' is not an IP address")
    found = only_service(report_of(rejections=[wrong]))
    assert (found.type, found.not_programmed) == (None, "rejected: 'x' is not an IP address")


def test_a_service_whose_address_is_somebody_elses_says_so() -> None:
    report = report_of(PLAIN, view=view_of(PLAIN, foreign=["10.96.0.1"]))
    reason = "10.96.0.1 carries a virtual server that is not ipvsproxy's"
    assert only_service(report).not_programmed == f"rejected: {reason}"
    assert [(each.service, each.reason) for each in report.rejections] == [("default/web", reason)]


def test_a_rejected_slice_is_its_services_as_far_as_that_is_known() -> None:
    known, unknown = ObjectKey("default", "web-1"), ObjectKey("default", "web-2")
    rejections = [Rejection("EndpointSlice", each, "endpoints[0]", "no address") for each in (unknown, known)]
    report = report_of(PLAIN, rejections=rejections)
    assert [(each.name, each.service) for each in report.rejections] == [
        ("web-1", "default/web"),
        ("web-2", None),
    ]


def test_endpoints_objects_are_of_the_service_of_their_name_and_nodes_of_none() -> None:
    rejections = [
        Rejection("Node", ObjectKey("", NODE), "", "-"),
        Rejection("Endpoints", WEB, "subsets", "-"),
    ]
    report = report_of(rejections=rejections)
    assert [(each.kind, each.service) for each in report.rejections] == [
        ("Endpoints", "default/web"),
        ("Node", None),
    ]


def test_draining_real_servers_have_the_seconds_that_are_left() -> None:
    drains = {
        DrainKey(key("10.96.0.1"), address("10.244.0.9"), 8080): NOW + 860.4,
        DrainKey(key("10.96.0.1"), address("10.244.0.8"), 8080): NOW - 1,
    }
    (virtual_server,) = only_service(report_of(PLAIN, view=view_of(PLAIN, drains=drains))).virtual_servers
    assert virtual_server.draining == [
        DrainingRealServer("10.244.0.8", 8080, 0),
        DrainingRealServer("10.244.0.9", 8080, 860),
    ]


def test_failures_name_what_failed_and_when_it_is_tried_again() -> None:
    element = SetElement(FirewallSet.SERVICE_PORTS, key("10.96.0.1", 53, Protocol.UDP))
    failed = Failure("ENOENT: No such file or directory", 3, NOW + 4)
    view = view_of(failures={key("fd00::1"): failed, element: failed, address("10.96.0.1"): failed})
    found = report_of(view=view).failures
    assert [(each.item, each.address) for each in found] == [
        ("address 10.96.0.1", "10.96.0.1"),
        ("element 10.96.0.1 . udp . 53 of set service-ports-ipv4", "10.96.0.1"),
        ("virtual server [fd00::1]:80/tcp", "fd00::1"),
    ]
    assert {(each.reason, each.attempts, each.seconds_until_next_try) for each in found} == {
        (failed.reason, 3, 4)
    }


def test_no_service_is_reported_before_the_first_sync() -> None:
    report = report_of(PLAIN, view=view_of(synced=False))
    assert (report.agent.synced, report.services) == (False, [])


def test_the_plan_can_be_read_back_from_the_answer() -> None:
    here, there = endpoint("fd00::a", node=NODE), endpoint("fd00::b")
    ports = (port(80, "a"), port(80, "b", Protocol.SCTP))
    states = (
        state(service("10.96.0.1", "fd00::1", ports=ports, affinity=10800), endpoint_slice(here, there)),
        state(service("10.96.0.2", of=ObjectKey("kube-system", "dns")), endpoint_slice("10.244.0.1")),
    )
    view = view_of(*states)
    answer = msgspec.json.encode(report_of(*states, view=view))
    read = list(desired_virtual_servers(msgspec.json.decode(answer, type=AgentReport)))
    assert {each.virtual_server.key: each.planned for each in read} == view.virtual_servers
    assert {each.virtual_server.key: each.service for each in read} == {
        key: str(owner) for key, owner in view.owners.items()
    }
