"""What should be beside what is, and the difference in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, strategies

from ipvsproxy.kernel.interface import FirewallState
from ipvsproxy.model.addresses import Holding
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import RealServerStatus, ServiceFlag
from ipvsproxy.model.objects import Clients, ObjectKey, Protocol, ServiceOptions, TrafficPolicy
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.comparison import Comparison
from ipvsproxy.observe.schema import (
    ActualRealServer,
    Difference,
    DifferenceKind,
    RealServerState,
    Redirect,
    VirtualServerState,
)
from ipvsproxy.observe.selection import Selection
from ipvsproxy.plan.desired import Touched
from ipvsproxy.plan.diff import Actual, KnownElements, diff
from ipvsproxy.plan.ownership import guards, record_of
from ipvsproxy.plan.view import Drain, DrainKey, Failure
from tests.builders import (
    WEB,
    address,
    endpoint,
    endpoint_slice,
    key,
    port,
    real_server,
    service,
    source_list,
    virtual_server,
)
from tests.observe.node import NOW, kernel_of, planned, report_of, state, view_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.items import Item
    from ipvsproxy.model.objects import Endpoint
    from ipvsproxy.observe.schema import AgentReport, Dump, VirtualServer
    from ipvsproxy.source.store import ServiceState
    from tests.observe.node import Kernel

NOT_READY = endpoint("10.244.0.3", ready=False, serving=False)
STATE = state(service("10.96.0.1", affinity=300), endpoint_slice("10.244.0.1", "10.244.0.2", NOT_READY))
DNS_NAME = ObjectKey("kube-system", "dns")
DNS = state(
    service("10.96.0.2", of=DNS_NAME, ports=(port(53, "dns", Protocol.UDP),)),
    endpoint_slice("10.244.0.4", of=DNS_NAME, name="dns-1"),
)
CUT_OFF = state(
    service("10.96.0.4", of=ObjectKey("default", "cut-off"), options=ServiceOptions(drain_timeout=0.0)),
    endpoint_slice("10.244.0.1", of=ObjectKey("default", "cut-off"), name="cut-off-1"),
)
KEY = key("10.96.0.1")
NAME = "virtual server 10.96.0.1:80/tcp"
STRAY = key("10.96.0.9")


SHOP_NAME = ObjectKey("default", "shop")
HERE = endpoint("10.244.0.1", node="node-a")


def shop(*endpoints: Endpoint | str, source_ranges: tuple[str, ...] | None = None) -> ServiceState:
    """Return a Service with every kind of address under externalTrafficPolicy Local."""
    asking = service(
        "10.96.0.3",
        of=SHOP_NAME,
        ports=(port(node_port=30080),),
        load_balancer_ips=("192.0.2.10",),
        external_ips=("198.51.100.7",),
        external=TrafficPolicy.LOCAL,
        source_ranges=source_ranges,
    )
    return state(asking, endpoint_slice(*endpoints, of=SHOP_NAME, name="shop-1"))


def compare(report: AgentReport | None, kernel: Kernel, of: ObjectKey | None = None) -> Dump:
    comparison = Comparison(report, kernel.tables, Selection(of))
    assert set(comparison.virtual_servers) <= kernel.virtual_servers.keys()
    return comparison.dump({each: kernel.real_servers[each] for each in comparison.virtual_servers})


def sentences(kernel: Kernel, report: AgentReport | None = None) -> list[str]:
    return [each.sentence for each in compare(report or report_of(STATE), kernel).differences or ()]


def states(dump: Dump, index: int = 0) -> dict[str, RealServerState]:
    return {each.address: each.state for each in dump.virtual_servers[index].real_servers}


def test_nothing_differs_when_the_kernel_has_what_the_agent_wants() -> None:
    dump = compare(report_of(STATE, DNS), kernel_of(STATE, DNS))
    assert dump.differences == []
    assert states(dump) == {
        "10.244.0.1": RealServerState.SERVING,
        "10.244.0.2": RealServerState.SERVING,
        "10.244.0.3": RealServerState.EXCLUDED,
    }
    assert [each.reason for each in dump.virtual_servers[0].real_servers] == ["ready", "ready", "not ready"]
    assert all(virtual.desired == virtual.actual for virtual in dump.virtual_servers)
    assert all(address.desired and address.actual for address in dump.addresses)
    assert all(element.desired and element.actual for element in dump.firewall.elements)
    assert dump.firewall.intact


def test_connections_are_the_kernels() -> None:
    kernel = kernel_of(STATE)
    comparison = Comparison(report_of(STATE), kernel.tables)
    dump = comparison.dump({KEY: [RealServerStatus(real_server("10.244.0.1"), 12, 3)]})
    assert dump.virtual_servers[0].real_servers[0].actual == ActualRealServer(1, 0, 12, 3, 0, None)


def test_a_missing_virtual_server_is_one_difference_whatever_it_should_have() -> None:
    kernel = kernel_of(STATE)
    del kernel.virtual_servers[KEY]
    assert sentences(kernel) == [f"{NAME} is missing"]
    dump = compare(report_of(STATE), kernel)
    assert (dump.virtual_servers[0].actual, dump.virtual_servers[0].state) == (
        None,
        VirtualServerState.MISSING,
    )
    assert states(dump)["10.244.0.1"] is RealServerState.MISSING


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"scheduler": "wlc"}, "has scheduler wlc instead of rr"),
        ({"flags": 0}, "has flags none instead of persistent"),
        (
            {"flags": ServiceFlag.PERSISTENT | ServiceFlag.ONE_PACKET},
            "has flags persistent,one-packet instead of persistent",
        ),
        ({"timeout": 10800}, "has persistence timeout 3h instead of 5m"),
    ],
)
def test_each_setting_of_a_virtual_server_that_differs_is_named(
    change: dict[str, object], difference: str
) -> None:
    kernel = kernel_of(STATE)
    kernel.virtual_servers[KEY] = kernel.virtual_servers[KEY]._replace(**change)  # type: ignore[arg-type]
    assert sentences(kernel) == [f"{NAME} {difference}"]


@pytest.mark.parametrize(
    ("found", "difference", "real_server_state"),
    [
        ([], "10.244.0.2:8080 of {} is missing", RealServerState.MISSING),
        (
            [real_server("10.244.0.2", weight=0)],
            "10.244.0.2:8080 of {} has weight 0 instead of 1",
            RealServerState.DIFFERS,
        ),
        (
            [real_server("10.244.0.2")._replace(upper_threshold=5)],
            "10.244.0.2:8080 of {} has maximum connections 5 instead of 0",
            RealServerState.DIFFERS,
        ),
        (
            [real_server("10.244.0.2")._replace(lower_threshold=2)],
            "10.244.0.2:8080 of {} has lower threshold 2 instead of 0",
            RealServerState.DIFFERS,
        ),
        (
            [real_server("10.244.0.2"), real_server("10.244.0.3")],
            "10.244.0.3:8080 of {} is there, although its endpoint does not serve: not ready",
            RealServerState.UNWANTED,
        ),
        (
            [real_server("10.244.0.2"), real_server("10.244.0.7")],
            "10.244.0.7:8080 of {} is there, and no endpoint asks for it",
            RealServerState.UNWANTED,
        ),
    ],
)
def test_a_real_server_that_differs_is_named(
    found: list[object], difference: str, real_server_state: RealServerState
) -> None:
    kernel = kernel_of(STATE)
    servers = (real_server("10.244.0.1"), *found)
    kernel.virtual_servers[KEY] = kernel.virtual_servers[KEY]._replace(real_servers=servers)  # type: ignore[arg-type]
    assert sentences(kernel) == [f"real server {difference.format(NAME)}"]
    assert states(compare(report_of(STATE), kernel))[difference.partition(":")[0]] is real_server_state


def test_a_real_server_that_drains_is_no_difference_and_has_its_time_left() -> None:
    kernel = kernel_of(STATE)
    found = kernel.virtual_servers[KEY]
    quiet = [real_server(each, weight=0) for each in ("10.244.0.3", "10.244.0.7")]
    kernel.virtual_servers[KEY] = found._replace(real_servers=(*found.real_servers, *quiet))
    drains = {DrainKey(KEY, address("10.244.0.7"), 8080): Drain(NOW - 40, NOW + 860)}
    report = report_of(STATE, view=view_of(STATE, drains=drains))
    assert sentences(kernel, report) == []
    excluded, gone = compare(report, kernel).virtual_servers[0].real_servers[2:]
    assert (excluded.state, gone.state) == (RealServerState.DRAINING, RealServerState.DRAINING)
    assert (excluded.reason, gone.reason) == ("not ready", None)
    assert (excluded.drain_seconds, excluded.drain_seconds_left) == (None, None)
    assert (gone.drain_seconds, gone.drain_seconds_left) == (40, 860)


def test_a_drain_that_somebody_ended_has_no_time_left() -> None:
    kernel = kernel_of(STATE)
    found = kernel.virtual_servers[KEY]
    back = real_server("10.244.0.7", weight=1)
    kernel.virtual_servers[KEY] = found._replace(real_servers=(*found.real_servers, back))
    drains = {DrainKey(KEY, back.address, 8080): Drain(NOW - 40, NOW + 860)}
    dump = compare(report_of(STATE, view=view_of(STATE, drains=drains)), kernel)
    shown = dump.virtual_servers[0].real_servers[3]
    assert shown.state is RealServerState.UNWANTED
    assert (shown.drain_seconds, shown.drain_seconds_left) == (None, None)


def test_nothing_drains_where_the_drain_timeout_is_nothing() -> None:
    kernel = kernel_of(CUT_OFF)
    (found,) = kernel.virtual_servers.values()
    left = real_server("10.244.0.7", weight=0)
    kernel.virtual_servers[found.key] = found._replace(real_servers=(*found.real_servers, left))
    name = "real server 10.244.0.7:8080 of virtual server 10.96.0.4:80/tcp"
    assert sentences(kernel, report_of(CUT_OFF)) == [f"{name} is there, and no endpoint asks for it"]


def virtual_servers(dump: Dump) -> dict[str, VirtualServer]:
    return {f"{each.address}:{each.port}": each for each in dump.virtual_servers}


def test_a_virtual_server_has_what_its_service_says_of_it() -> None:
    asking = shop(HERE, source_ranges=("198.51.100.0/24",))
    shown = virtual_servers(compare(report_of(asking), kernel_of(asking)))
    assert {place: (each.kind, each.traffic_policy) for place, each in shown.items()} == {
        "10.96.0.3:80": ("clusterIP", TrafficPolicy.CLUSTER),
        "192.0.2.10:80": ("loadBalancerIP", TrafficPolicy.LOCAL),
        "198.51.100.7:80": ("externalIP", TrafficPolicy.LOCAL),
        "203.0.113.1:30080": ("nodePort", TrafficPolicy.LOCAL),
        "203.0.113.2:30080": ("nodePort", TrafficPolicy.LOCAL),
    }
    load_balancer, node_port = shown["192.0.2.10:80"], shown["203.0.113.1:30080"]
    assert {load_balancer.redirect, node_port.redirect} == {Redirect(Clients.INSIDE, "10.96.0.3", 80)}
    assert shown["10.96.0.3:80"].redirect is None
    name = source_list("198.51.100.0/24").name
    assert (load_balancer.source_list, node_port.source_list) == (name, None)
    assert compare(report_of(asking), kernel_of(asking)).source_lists == {name: ["198.51.100.0/24"]}
    assert {each.drain_timeout_seconds for each in shown.values()} == {900}


def test_allowed_sources_that_somebody_removed_are_named() -> None:
    asking = shop(HERE, source_ranges=("198.51.100.0/24",))
    kernel = kernel_of(asking)
    sets, name = (FirewallSet.SOURCE_LISTS, FirewallSet.RESTRICTED_PORTS), source_list("198.51.100.0/24").name
    left = {each for each in kernel.firewall.elements if each.set not in sets}
    kernel = kernel._replace(firewall=FirewallState(frozenset(left), intact=True))
    assert sentences(kernel, report_of(asking)) == [
        f"element 192.0.2.10 . tcp . 80 : jump {name} of set restricted-service-ports-ipv4 is missing",
        f"source list {name} is missing",
    ]


@pytest.mark.parametrize(
    ("behind", "at_cluster_ip", "elsewhere"),
    [
        ((HERE,), VirtualServerState.SERVING, VirtualServerState.SERVING),
        (("10.244.0.2",), VirtualServerState.SERVING, VirtualServerState.DROPPING),
        ((NOT_READY,), VirtualServerState.REFUSING, VirtualServerState.REFUSING),
    ],
)
def test_without_endpoints_for_its_clients_a_virtual_server_refuses_or_drops(
    behind: tuple[Endpoint | str, ...], at_cluster_ip: VirtualServerState, elsewhere: VirtualServerState
) -> None:
    kernel = kernel_of(shop(*behind))
    for report in (report_of(shop(*behind)), None):
        first, *others = compare(report, kernel).virtual_servers
        assert first.state is at_cluster_ip
        assert {each.state for each in others} == {elsewhere}


def test_a_virtual_server_whose_real_servers_are_gone_refuses() -> None:
    kernel = kernel_of(STATE)
    kernel.virtual_servers[KEY] = virtual_server(KEY)
    assert compare(report_of(STATE), kernel).virtual_servers[0].state is VirtualServerState.REFUSING


@pytest.mark.parametrize(
    ("bound", "elsewhere", "difference"),
    [
        (False, False, ["address 10.96.0.1 is missing on the dummy interface"]),
        (False, True, []),
        (True, False, []),
        (True, True, ["address 10.96.0.1 is on the dummy interface, although another interface has it"]),
    ],
)
def test_an_address_belongs_on_the_dummy_interface_unless_another_one_has_it(
    *, bound: bool, elsewhere: bool, difference: list[str]
) -> None:
    here = {address("10.96.0.1")}
    kernel = kernel_of(STATE)._replace(bound=here if bound else set(), elsewhere=here if elsewhere else set())
    elements = {each for each in kernel.firewall.elements if not guards(each, kernel.elsewhere)}
    kernel = kernel._replace(firewall=kernel.firewall._replace(elements=frozenset(elements)))
    assert sentences(kernel) == difference


def test_a_guard_of_an_address_that_another_interface_has_is_named() -> None:
    here = {address("10.96.0.1")}
    kernel = kernel_of(STATE)._replace(bound=set(), elsewhere=here)
    assert sentences(kernel) == [
        "element 10.96.0.1 of set service-addresses-ipv4 is there, and no Service asks for it"
    ]


def test_missing_elements_and_a_changed_table_are_named() -> None:
    kernel = kernel_of(STATE)
    gone = SetElement(FirewallSet.SERVICE_PORTS, KEY)
    left = kernel.firewall.elements - {gone}
    assert sentences(kernel._replace(firewall=FirewallState(left, intact=False))) == [
        "table inet ipvsproxy is not as the agent makes it",
        "element 10.96.0.1 . tcp . 80 of set service-ports-ipv4 is missing",
    ]


def with_stray(change: Callable[[Kernel], Kernel]) -> Kernel:
    kernel = change(kernel_of(STATE))
    kernel.virtual_servers[STRAY] = virtual_server(STRAY, real_server("10.244.0.1"))
    return kernel


def test_what_is_ours_and_nothing_asks_for_is_named() -> None:
    record = SetElement(FirewallSet.SERVICE_PORTS, STRAY)
    by_address = with_stray(lambda kernel: kernel._replace(bound=kernel.bound | {STRAY.address}))
    by_record = with_stray(
        lambda kernel: kernel._replace(
            firewall=FirewallState(kernel.firewall.elements | {record}, intact=True)
        )
    )
    virtual = "virtual server 10.96.0.9:80/tcp is there, and no Service asks for it"
    assert sentences(by_address) == [
        virtual,
        "address 10.96.0.9 is on the dummy interface, and no Service asks for it",
    ]
    assert sentences(by_record) == [
        virtual,
        "element 10.96.0.9 . tcp . 80 of set service-ports-ipv4 is there, and no Service asks for it",
    ]
    dump = compare(report_of(STATE), by_record)
    stray = dump.virtual_servers[1]
    assert (stray.service, stray.kind, stray.state) == (None, None, VirtualServerState.UNWANTED)
    assert states(dump, 1) == {"10.244.0.1": RealServerState.UNWANTED}


def test_on_what_nothing_asks_for_nothing_drains() -> None:
    kernel = with_stray(lambda kernel: kernel._replace(bound=kernel.bound | {STRAY.address}))
    kernel.virtual_servers[STRAY] = virtual_server(STRAY, real_server("10.244.0.1", weight=0))
    assert states(compare(report_of(STATE), kernel), 1) == {"10.244.0.1": RealServerState.UNWANTED}


def test_a_virtual_server_of_somebody_else_is_not_shown() -> None:
    dump = compare(report_of(STATE), with_stray(lambda kernel: kernel))
    assert [each.address for each in dump.virtual_servers] == ["10.96.0.1"]
    assert dump.differences == []


def test_differences_say_which_service_they_are_about() -> None:
    kernel = kernel_of(STATE)
    assert {
        (each.service, each.sentence.partition(" ")[0])
        for each in compare(report_of(STATE, DNS), kernel).differences or ()
    } == {("kube-system/dns", "virtual"), ("kube-system/dns", "address"), ("kube-system/dns", "element")}


def test_without_the_agent_everything_of_ours_is_shown_and_nothing_compared() -> None:
    kernel = with_stray(lambda kernel: kernel)
    quiet = kernel.virtual_servers[KEY]._replace(real_servers=(real_server("10.244.0.1", weight=0),))
    kernel.virtual_servers[KEY] = quiet
    dump = compare(None, kernel._replace(firewall=kernel.firewall._replace(intact=False)))
    assert (dump.agent, dump.services, dump.differences, dump.firewall.intact) == (None, None, None, None)
    (found,) = dump.virtual_servers
    assert (found.service, found.port_name, found.desired) == (None, None, None)
    assert found.actual is not None
    assert states(dump) == {"10.244.0.1": RealServerState.DRAINING}
    assert [(each.address, each.desired) for each in dump.addresses] == [("10.96.0.1", False)]


def test_without_the_agent_a_real_server_with_a_weight_serves() -> None:
    assert set(states(compare(None, kernel_of(STATE))).values()) == {RealServerState.SERVING}


def test_until_the_agent_is_synced_nothing_is_compared() -> None:
    report = report_of(STATE, view=view_of(synced=False))
    dump = compare(report, kernel_of(STATE))
    assert dump.agent == report.agent
    assert (dump.services, dump.differences) == (None, None)
    assert set(states(dump).values()) == {RealServerState.SERVING}


def test_a_virtual_server_that_went_while_the_kernel_was_read_is_missing_or_no_stray() -> None:
    kernel = with_stray(lambda kernel: kernel._replace(bound=kernel.bound | {STRAY.address}))
    dump = Comparison(report_of(STATE), kernel.tables).dump({})
    assert [(each.address, each.actual) for each in dump.virtual_servers] == [("10.96.0.1", None)]
    missing = Difference("default/web", f"{NAME} is missing", DifferenceKind.VIRTUAL_SERVER)
    assert missing in (dump.differences or ())


def test_one_service_is_shown_by_itself() -> None:
    failed = Failure("EINVAL: Invalid argument", 1, NOW + 1, NOW)
    view = view_of(STATE, DNS, failures={KEY: failed, address("10.96.0.2"): failed})
    rejections = [
        Rejection("EndpointSlice", ObjectKey("default", "never-readable"), "", "-"),
        Rejection("EndpointSlice", ObjectKey("kube-system", "dns-1"), "", "-"),
        Rejection("EndpointSlice", ObjectKey("kube-system", "never-readable"), "", "-"),
        Rejection("Service", ObjectKey("default", "other"), "", "-"),
        Rejection("Service", WEB, "spec.ports[1]", "-"),
    ]
    kernel = with_stray(lambda kernel: kernel._replace(bound=kernel.bound | {STRAY.address}))
    dump = compare(report_of(STATE, DNS, view=view, rejections=rejections), kernel, WEB)
    assert [each.name for each in dump.services or ()] == ["web"]
    assert [each.address for each in dump.virtual_servers] == ["10.96.0.1"]
    assert [each.address for each in dump.addresses] == ["10.96.0.1"]
    assert {each.element.partition(" ")[0] for each in dump.firewall.elements} <= {"10.96.0.1", "10.244.0.1"}
    assert dump.differences == []
    assert [(each.kind, each.name) for each in dump.rejections] == [
        ("EndpointSlice", "never-readable"),
        ("Service", "web"),
    ]
    assert [each.item for each in dump.failures] == [NAME]


def test_of_the_node_ports_of_all_services_only_its_own_failures_are_a_services() -> None:
    other = state(service("10.96.0.2", of=DNS_NAME, ports=(port(node_port=30081),)))
    refused = Failure("EINVAL: Invalid argument", 1, NOW + 1, NOW)
    mine, theirs = key("203.0.113.1", 30080), key("203.0.113.1", 30081)
    failures: dict[Item, Failure] = {
        item: refused for each in (mine, theirs) for item in (each, SetElement(FirewallSet.LOCAL_PORTS, each))
    }
    report = report_of(shop(HERE), other, view=view_of(shop(HERE), other, failures=failures))
    assert [each.item for each in compare(report, kernel_of(shop(HERE), other), SHOP_NAME).failures] == [
        "element 203.0.113.1 . tcp . 30080 of set local-service-ports-ipv4",
        "virtual server 203.0.113.1:30080/tcp",
    ]


def test_warnings_are_there_whatever_service_is_asked_for() -> None:
    report = report_of(STATE, DNS, warnings=["the host drops"])
    assert compare(report, kernel_of(STATE, DNS)).warnings == ["the host drops"]
    assert compare(report, kernel_of(STATE, DNS), WEB).warnings == ["the host drops"]
    assert compare(None, kernel_of(STATE)).warnings == []


def test_virtual_servers_come_by_service_then_by_number_and_strays_last() -> None:
    many = state(service("192.0.2.10", "192.0.2.9", "2001:db8::1", of=ObjectKey("a", "z")))
    kernel = with_stray(lambda kernel: kernel._replace(bound=kernel.bound | {STRAY.address}))
    stray = key("10.1.0.1")
    kernel.virtual_servers[stray] = virtual_server(stray)
    kernel.bound.add(stray.address)
    dump = compare(report_of(STATE, DNS, many), kernel)
    assert [(each.service, each.address) for each in dump.virtual_servers] == [
        ("a/z", "192.0.2.9"),
        ("a/z", "192.0.2.10"),
        ("a/z", "2001:db8::1"),
        ("default/web", "10.96.0.1"),
        ("kube-system/dns", "10.96.0.2"),
        (None, "10.1.0.1"),
        (None, "10.96.0.9"),
    ]
    assert [each.address for each in dump.addresses][-3:] == ["192.0.2.9", "192.0.2.10", "2001:db8::1"]


def test_for_udp_nothing_drains() -> None:
    kernel = kernel_of(DNS)
    dns = key("10.96.0.2", 53, Protocol.UDP)
    left = real_server("10.244.0.5", weight=0)
    kernel.virtual_servers[dns] = virtual_server(dns, *kernel.virtual_servers[dns].real_servers, left)
    name = "real server 10.244.0.5:8080 of virtual server 10.96.0.2:53/udp"
    assert sentences(kernel, report_of(DNS)) == [f"{name} is there, and no endpoint asks for it"]


DAMAGED = (STATE, DNS, CUT_OFF, shop(HERE, "10.244.0.2", source_ranges=("198.51.100.0/24",)))


@strategies.composite
def damaged_kernels(draw: strategies.DrawFn) -> Kernel:
    """Draw a kernel that is right but for what somebody did to it, which may come to nothing."""
    kernel = kernel_of(*DAMAGED)
    elements = sorted(planned(DAMAGED).elements, key=str)
    for _ in range(draw(strategies.integers(0, 3))):
        of = draw(strategies.sampled_from([*kernel.virtual_servers, STRAY]))
        found = kernel.virtual_servers.get(of, virtual_server(of))
        match draw(strategies.integers(0, 7)):
            case 0:
                kernel.virtual_servers.pop(of, None)
            case 1:
                kernel.virtual_servers[of] = found._replace(
                    scheduler=draw(strategies.sampled_from(["rr", "sh"]))
                )
            case 2:
                kernel.virtual_servers[of] = found._replace(timeout=draw(strategies.sampled_from([0, 300])))
            case 3:
                kernel.virtual_servers[of] = found._replace(real_servers=found.real_servers[1:])
            case 4:
                weight = draw(strategies.integers(0, 1))
                added = real_server(draw(strategies.sampled_from(["10.244.0.1", "10.244.0.4"])), 8080, weight)
                others = (each for each in found.real_servers if each[:2] != added[:2])
                kernel.virtual_servers[of] = virtual_server(of, *others, added)
            case 5:
                kernel.bound.symmetric_difference_update({of.address})
            case 6:
                kernel.elsewhere.symmetric_difference_update({of.address})
            case 7:
                strays = [record_of(of), SetElement(FirewallSet.SERVICE_ADDRESSES, (of.address,))]
                changed = {draw(strategies.sampled_from([*elements, *strays]))}
                kernel = kernel._replace(
                    firewall=FirewallState(kernel.firewall.elements ^ changed, intact=True)
                )
    return kernel


@given(kernel=damaged_kernels())
def test_something_differs_exactly_when_the_agent_would_do_something(kernel: Kernel) -> None:
    ours = {key: each for key, each in kernel.virtual_servers.items() if kernel.tables.owns(key)}
    desired = planned(DAMAGED)
    # A virtual server that lost both marks of being ours is left alone, and no difference says so.
    assume(desired.owners.keys() & kernel.virtual_servers.keys() <= ours.keys())
    elsewhere = dict.fromkeys(kernel.elsewhere, Holding.ALONE)
    actual = Actual(ours, kernel.bound, KnownElements(kernel.firewall.elements), elsewhere)
    everything = Touched(
        ours.keys() | desired.owners.keys(),
        actual.addresses | desired.addresses,
        {*actual.elements, *desired.elements},
    )
    operations = diff(desired, actual, everything)
    assert bool(compare(report_of(*DAMAGED), kernel).differences) == bool(operations)
