"""What the agent answers about its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import (
    Clients,
    ObjectKey,
    Protocol,
    ServiceOptions,
    ServiceType,
    SlicePort,
    TrafficPolicy,
)
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.desired import desired_virtual_servers, firewall_settings
from ipvsproxy.observe.report import WAITING, NotProgrammed, build_report
from ipvsproxy.observe.schema import AgentReport, DrainingRealServer, Redirect, WatchInfo
from ipvsproxy.plan.endpoints import EndpointReason
from ipvsproxy.plan.firewall import FirewallSettings, PodInterfaces, PodNetworks
from ipvsproxy.plan.view import Drain, DrainKey, Failure
from ipvsproxy.source.health import WatchState
from tests.builders import NODE, WEB, address, endpoint, endpoint_slice, key, networks, port, service
from tests.observe.node import IDENTITY, NOW, report_of, state, view_of

if TYPE_CHECKING:
    from ipvsproxy.model.objects import Endpoint, EndpointSlice, Service
    from ipvsproxy.observe.schema import ReportedService

PLAIN = state(service("10.96.0.1"), endpoint_slice("10.244.0.1"))

HERE, THERE = endpoint("10.244.0.1", node=NODE), endpoint("10.244.0.2")
READY, NOT_READY = EndpointReason.READY, EndpointReason.NOT_READY


def only_service(report: AgentReport) -> ReportedService:
    (found,) = report.services
    return found


def load_balancer(
    *, internal: TrafficPolicy = TrafficPolicy.CLUSTER, external: TrafficPolicy = TrafficPolicy.CLUSTER
) -> Service:
    """Return a Service with an address of each kind, and one more of the node's."""
    return service(
        "10.96.0.1",
        kind=ServiceType.LOAD_BALANCER,
        ports=(port(80, "http", node_port=30080),),
        load_balancer_ips=("192.0.2.10",),
        external_ips=("198.51.100.7",),
        internal=internal,
        external=external,
    )


def http(*endpoints: Endpoint) -> EndpointSlice:
    return endpoint_slice(*endpoints, ports=(SlicePort("http", Protocol.TCP, 8080),))


def endpoints(report: AgentReport) -> dict[str, tuple[bool, str, int]]:
    (virtual_server,) = only_service(report).virtual_servers
    return {each.address: (each.serves, each.reason, each.weight) for each in virtual_server.endpoints}


def test_it_says_which_agent_answers() -> None:
    report = report_of()
    assert report.schema_version == 1
    assert (report.agent.version, report.agent.pid, report.agent.node_name) == ("0.1.0", 4711, NODE)


def test_it_says_how_long_ago_everything_was_compared_with_the_kernel() -> None:
    assert report_of().agent.seconds_since_resync is None
    view = view_of()._replace(last_resync=NOW - 12.3)
    assert report_of(view=view).agent.seconds_since_resync == 12


def test_it_says_how_each_watch_goes() -> None:
    watches = [
        WatchState(
            "services", connected=True, seconds_since_contact=7.4, error=None, connections=3, failures=2
        ),
        WatchState(
            "nodes", connected=False, seconds_since_contact=None, error="Gone", connections=0, failures=1
        ),
    ]
    report = build_report(IDENTITY, view_of(), [], [], watches)
    assert report.watches == [
        WatchInfo("services", connected=True, seconds_since_contact=7, error=None),
        WatchInfo("nodes", connected=False, seconds_since_contact=None, error="Gone"),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        FirewallSettings(),
        FirewallSettings(PodNetworks(networks("10.244.0.0/16", "fd00:10:244::/56")), masquerade_all=True),
        FirewallSettings(PodInterfaces("cali*"), masquerade_bit=3),
    ],
)
def test_how_the_rules_are_set_can_be_read_back_from_the_answer(settings: FirewallSettings) -> None:
    report = build_report(IDENTITY._replace(firewall=settings), view_of(), [], [])
    answer = msgspec.json.encode(report)
    assert firewall_settings(msgspec.json.decode(answer, type=AgentReport)) == settings


def test_a_service_has_a_virtual_server_for_each_port_and_family() -> None:
    ports = (port(80, "http"), port(53, "dns", Protocol.UDP))
    found = only_service(report_of(state(service("fd00::1", "10.96.0.1", ports=ports, affinity=300))))
    assert (str(found), found.type, found.not_programmed) == ("default/web", ServiceType.CLUSTER_IP, None)
    assert [
        (each.addresses[0].address, each.protocol, each.port, each.port_name)
        for each in found.virtual_servers
    ] == [
        ("10.96.0.1", "TCP", 80, "http"),
        ("10.96.0.1", "UDP", 53, "dns"),
        ("fd00::1", "TCP", 80, "http"),
        ("fd00::1", "UDP", 53, "dns"),
    ]
    first = found.virtual_servers[0]
    assert (first.scheduler, first.flags, first.persistence_timeout_seconds) == ("rr", ["persistent"], 300)


def test_a_service_has_a_virtual_server_for_each_kind_of_address_and_node_ports_are_told_once() -> None:
    found = only_service(report_of(state(load_balancer(external=TrafficPolicy.LOCAL), http(HERE))))
    assert [
        (each.kind, [shown.address for shown in each.addresses], each.port, each.port_name)
        for each in found.virtual_servers
    ] == [
        ("clusterIP", ["10.96.0.1"], 80, "http"),
        ("loadBalancerIP", ["192.0.2.10"], 80, "http"),
        ("externalIP", ["198.51.100.7"], 80, "http"),
        ("nodePort", ["203.0.113.1", "203.0.113.2"], 30080, "http"),
    ]
    redirect = Redirect(Clients.INSIDE, "10.96.0.1", 80)
    assert [(each.traffic_policy, each.redirect) for each in found.virtual_servers] == [
        (TrafficPolicy.CLUSTER, None),
        *[(TrafficPolicy.LOCAL, redirect)] * 3,
    ]


def test_every_endpoint_is_there_with_the_reason_why_it_serves_or_not() -> None:
    not_ready = endpoint("10.244.0.2", ready=False, serving=False)
    report = report_of(state(service("10.96.0.1"), endpoint_slice("10.244.0.1", not_ready)))
    assert endpoints(report) == {"10.244.0.1": (True, READY, 1), "10.244.0.2": (False, NOT_READY, 0)}


# Endpoints, and their reasons at a ClusterIP.
REASONS = [
    (TrafficPolicy.LOCAL, (HERE, THERE), [READY, EndpointReason.NOT_LOCAL_INTERNALLY]),
    (
        TrafficPolicy.LOCAL,
        (endpoint("10.244.0.1", node=NODE, ready=False, terminating=True), THERE),
        [EndpointReason.SERVING_WHILE_TERMINATING, EndpointReason.NOT_LOCAL_INTERNALLY],
    ),
    (TrafficPolicy.CLUSTER, (HERE, THERE), [READY, READY]),
    (TrafficPolicy.CLUSTER, (HERE, endpoint("10.244.0.2", ready=False)), [READY, NOT_READY]),
    (
        TrafficPolicy.CLUSTER,
        (HERE, endpoint("10.244.0.2", ready=False, terminating=True)),
        [READY, EndpointReason.TERMINATING],
    ),
    (TrafficPolicy.CLUSTER, (HERE, endpoint("10.250.0.99")), [READY, EndpointReason.SERVICE_ADDRESS]),
    (
        TrafficPolicy.CLUSTER,
        (endpoint("10.244.0.1", for_nodes=(NODE,)), endpoint("10.244.0.2", for_nodes=("node-b",))),
        [READY, EndpointReason.OTHER_NODE],
    ),
    (
        TrafficPolicy.CLUSTER,
        (endpoint("10.244.0.1", for_zones=("zone-a",)), endpoint("10.244.0.2", for_zones=("zone-b",))),
        [READY, EndpointReason.OTHER_ZONE],
    ),
]


@pytest.mark.parametrize(("policy", "behind", "reasons"), REASONS)
def test_each_kind_of_address_has_the_reasons_of_its_own_traffic_policy(
    policy: TrafficPolicy, behind: tuple[Endpoint, ...], reasons: list[EndpointReason]
) -> None:
    internally, externally_ = (
        only_service(report_of(state(each, http(*behind))))
        for each in (load_balancer(internal=policy), load_balancer(external=policy))
    )
    shown = {
        each.kind: [endpoint.reason for endpoint in each.endpoints]
        for each in (*internally.virtual_servers[:1], *externally_.virtual_servers[1:])
    }
    externally = {EndpointReason.NOT_LOCAL_INTERNALLY: EndpointReason.NOT_LOCAL_EXTERNALLY}
    elsewhere = [externally.get(reason, reason) for reason in reasons]
    assert shown == {
        "clusterIP": reasons,
        "nodePort": elsewhere,
        "loadBalancerIP": elsewhere,
        "externalIP": elsewhere,
    }


def test_those_are_all_reasons_there_are() -> None:
    shown = {reason for _, _, reasons in REASONS for reason in reasons}
    assert shown | {EndpointReason.NOT_LOCAL_EXTERNALLY} == set(EndpointReason)


def test_what_annotations_ask_for_is_there() -> None:
    options = ServiceOptions("wlc", drain_timeout=0.5, maximum_connections=100)
    (found,) = only_service(
        report_of(state(service("10.96.0.1", options=options), endpoint_slice("10.244.0.1")))
    ).virtual_servers
    assert (found.scheduler, found.endpoints[0].maximum_connections) == ("wlc", 100)
    # Less than a second is not no time at all.
    assert found.drain_timeout_seconds == 1


def test_what_changed_since_the_reconciler_planned_it_waits_for_the_next_sync() -> None:
    planned = state(service("10.96.0.1"), endpoint_slice("10.244.0.1", "10.244.0.2"))
    newer = state(
        service("10.96.0.1"), endpoint_slice("10.244.0.1", endpoint("10.244.0.3"), "10.244.0.4", name="web-2")
    )
    assert endpoints(report_of(newer, view=view_of(planned))) == {
        "10.244.0.1": (True, READY, 1),
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
    ],
)
def test_a_service_without_virtual_servers_says_why_whatever_else_is_wrong_with_it(
    found: Service, reason: NotProgrammed
) -> None:
    annotation = Rejection("Service", WEB, "metadata.annotations[ipvsproxy.io/scheduler]", "-")
    for rejections in ([], [annotation]):
        assert only_service(report_of(state(found), rejections=rejections)).not_programmed == reason


def test_a_service_that_was_never_readable_is_there_with_what_is_wrong() -> None:
    wrong = Rejection("Service", WEB, "spec.clusterIPs[0]", "'x' is not an IP address")
    found = only_service(report_of(rejections=[wrong]))
    assert (found.type, found.not_programmed) == (None, "rejected: 'x' is not an IP address")


def test_a_service_whose_address_is_somebody_elses_says_so() -> None:
    report = report_of(PLAIN, view=view_of(PLAIN, foreign=[key("10.96.0.1", 1)]))
    reason = "10.96.0.1 carries a virtual server that is not ipvsproxy's"
    assert only_service(report).not_programmed == f"rejected: {reason}"
    assert [(each.service, each.reason) for each in report.rejections] == [("default/web", reason)]


def test_a_service_that_has_nothing_says_what_is_the_matter_with_its_cluster_ips() -> None:
    annotation = Rejection("Service", WEB, "metadata.annotations[ipvsproxy.io/scheduler]", "-")
    view = view_of(PLAIN, foreign=[key("10.96.0.1", 1)])
    not_programmed = only_service(report_of(PLAIN, view=view, rejections=[annotation])).not_programmed
    assert not_programmed == "rejected: 10.96.0.1 carries a virtual server that is not ipvsproxy's"


def test_a_service_keeps_what_it_has_when_parts_of_it_are_rejected() -> None:
    asking = service(
        "10.96.0.1",
        ports=(port(node_port=30080),),
        load_balancer_ips=("203.0.113.9",),
        external_ips=("198.51.100.7", "192.0.2.1"),
        uid="5e1f",
    )
    health_check = Rejection("Service", WEB, "spec.healthCheckNodePort", "can't listen on 203.0.113.1:30000")
    view = view_of(state(asking), foreign=[key("203.0.113.2", 30080)])
    report = report_of(state(asking), view=view, rejections=[health_check])
    found = only_service(report)
    assert found.not_programmed is None
    assert [shown.address for each in found.virtual_servers for shown in each.addresses] == [
        "10.96.0.1",
        "198.51.100.7",
        "203.0.113.1",
    ]
    assert [(each.service, each.field, each.reason) for each in report.rejections] == [
        (
            "default/web",
            "spec.externalIPs",
            "192.0.2.1 is in no network that external IPs are allowed from (--allowed-external-ips)",
        ),
        ("default/web", "spec.healthCheckNodePort", "can't listen on 203.0.113.1:30000"),
        (
            "default/web",
            "spec.ports[].nodePort",
            "virtual server 203.0.113.2:30080/tcp is not ipvsproxy's",
        ),
        ("default/web", "status.loadBalancer.ingress", "203.0.113.9 is an address of another node"),
    ]


def test_what_is_rejected_in_several_places_is_told_once() -> None:
    foreign = view_of(PLAIN, foreign=[key("10.96.0.1", 1)])
    twice = [each._replace(uid="5e1f") for each in foreign.rejections]
    assert len(report_of(PLAIN, view=foreign, rejections=twice).rejections) == 1


def test_warnings_about_the_node_are_there_before_the_first_sync_too() -> None:
    for view in (view_of(), view_of(synced=False)):
        (warning,) = build_report(IDENTITY._replace(node_known=False), view, [], []).warnings
        assert NODE in warning


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


def test_draining_real_servers_have_the_seconds_that_passed_and_those_that_are_left() -> None:
    drains = {
        DrainKey(key("10.96.0.1"), address("10.244.0.9"), 8080): Drain(NOW - 39.6, NOW + 860.4),
        DrainKey(key("10.96.0.1"), address("10.244.0.8"), 8080): Drain(NOW - 901, NOW - 1),
    }
    (virtual_server,) = only_service(report_of(PLAIN, view=view_of(PLAIN, drains=drains))).virtual_servers
    assert virtual_server.addresses[0].draining == [
        DrainingRealServer("10.244.0.8", 8080, 901, 0),
        DrainingRealServer("10.244.0.9", 8080, 40, 860),
    ]


def test_at_each_address_of_a_node_port_its_own_real_servers_drain() -> None:
    drains = {
        DrainKey(key("203.0.113.2", 30080), address("10.244.0.9"), 8080): Drain(NOW - 40, NOW + 860),
    }
    with_node_port = state(load_balancer(), http(HERE))
    found = only_service(report_of(with_node_port, view=view_of(with_node_port, drains=drains)))
    assert [(each.address, len(each.draining)) for each in found.virtual_servers[-1].addresses] == [
        ("203.0.113.1", 0),
        ("203.0.113.2", 1),
    ]


def test_failures_name_what_failed_and_when_it_is_tried_again() -> None:
    element = SetElement(FirewallSet.SERVICE_PORTS, key("10.96.0.1", 53, Protocol.UDP))
    failed = Failure("ENOENT: No such file or directory", 3, NOW + 4, NOW)
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
        state(
            service(
                "10.96.0.2", of=ObjectKey("kube-system", "dns"), options=ServiceOptions("mh", 0x18, 30, 7)
            ),
            endpoint_slice("10.244.0.1", of=ObjectKey("kube-system", "dns")),
        ),
        state(
            service(
                "10.96.0.3",
                of=ObjectKey("default", "shop"),
                ports=(port(node_port=30080),),
                # A process of the node may use each of these from that address alone.
                load_balancer_ips=("192.0.2.10", "192.0.2.11"),
                external_ips=("198.51.100.7",),
                external=TrafficPolicy.LOCAL,
                source_ranges=("198.51.100.0/24", "203.0.113.0/24"),
            ),
            endpoint_slice("10.244.0.1", of=ObjectKey("default", "shop")),
        ),
    )
    view = view_of(*states)
    answer = msgspec.json.encode(report_of(*states, view=view))
    read = list(desired_virtual_servers(msgspec.json.decode(answer, type=AgentReport)))
    assert {each.virtual_server.key: each.planned for each in read} == view.virtual_servers
    assert {each.virtual_server.key: each.service for each in read} == {
        key: str(owner) for key, owner in view.owners.items()
    }
