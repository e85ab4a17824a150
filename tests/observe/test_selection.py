"""Which part of the node is shown, and what an operator reads who asked for a part that there is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import ObjectKey, Protocol, SlicePort, TrafficPolicy
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.comparison import Comparison
from ipvsproxy.observe.schema import RealServerState, VirtualServerState
from ipvsproxy.observe.selection import Selection, is_empty, nothing_found, only_differences
from ipvsproxy.observe.words import mentions
from ipvsproxy.plan.view import Failure
from tests.builders import (
    WEB,
    address,
    endpoint,
    endpoint_slice,
    key,
    port,
    real_server,
    service,
    virtual_server,
)
from tests.observe.node import NOW, kernel_of, report_of, state, view_of

if TYPE_CHECKING:
    from ipvsproxy.model.items import Item
    from ipvsproxy.observe.schema import AgentReport, Dump
    from tests.observe.node import Kernel

SHARED = "10.244.0.1"
NOT_READY = endpoint("10.244.0.3", ready=False, serving=False)
WEB_STATE = state(service("10.96.0.1"), endpoint_slice(SHARED, "10.244.0.2", NOT_READY))
DNS_NAME = ObjectKey("kube-system", "dns")
DNS = state(
    service("10.96.0.2", of=DNS_NAME, ports=(port(53, "dns", Protocol.UDP), port(53, "dns-tcp"))),
    endpoint_slice(
        SHARED,
        of=DNS_NAME,
        name="dns-1",
        ports=(SlicePort("dns", Protocol.UDP, 53), SlicePort("dns-tcp", Protocol.TCP, 53)),
    ),
)
SHOP_NAME = ObjectKey("default", "shop")
SHOP = state(
    service(
        "10.96.0.3",
        of=SHOP_NAME,
        ports=(port(node_port=30080),),
        load_balancer_ips=("192.0.2.10",),
        external_ips=("192.0.2.1",),
        external=TrafficPolicy.LOCAL,
    ),
    endpoint_slice("10.244.1.20", of=SHOP_NAME, name="shop-1"),
)
STATES = (DNS, SHOP, WEB_STATE)
WEB_KEY = key("10.96.0.1")


def at(text: str, port_: int | None = None, protocol: Protocol | None = None) -> Selection:
    return Selection(address=address(text), port=port_, protocol=protocol)


def having(text: str) -> Selection:
    return Selection(endpoint=address(text))


def look(selection: Selection, kernel: Kernel | None = None, report: AgentReport | None = None) -> Dump:
    kernel = kernel or kernel_of(*STATES)
    comparison = Comparison(report or report_of(*STATES), kernel.tables, selection)
    return comparison.dump({each: kernel.real_servers[each] for each in comparison.virtual_servers})


def alone(selection: Selection, kernel: Kernel) -> Dump:
    """Return what there is without an agent."""
    comparison = Comparison(None, kernel.tables, selection)
    return comparison.dump({each: kernel.real_servers[each] for each in comparison.virtual_servers})


def places(dump: Dump) -> list[tuple[str | None, str, int, str]]:
    return [(each.service, each.address, each.port, each.protocol) for each in dump.virtual_servers]


def elements(dump: Dump) -> set[tuple[str, str]]:
    return {(each.set, each.element) for each in dump.firewall.elements}


def sentences(dump: Dump) -> list[str]:
    return [each.sentence for each in dump.differences or ()]


def test_at_an_address_there_are_its_virtual_servers_and_elements_and_their_services() -> None:
    dump = look(at("10.96.0.2"))
    assert places(dump) == [
        ("kube-system/dns", "10.96.0.2", 53, "TCP"),
        ("kube-system/dns", "10.96.0.2", 53, "UDP"),
    ]
    assert [each.address for each in dump.addresses] == ["10.96.0.2"]
    assert elements(dump) >= {
        ("service-addresses-ipv4", "10.96.0.2"),
        ("service-ports-ipv4", "10.96.0.2 . tcp . 53"),
        ("service-ports-ipv4", "10.96.0.2 . udp . 53"),
    }
    assert not any("10.96.0.1" in element or "10.96.0.3" in element for _, element in elements(dump))
    assert [each.name for each in dump.services or ()] == ["dns"]
    assert dump.rejections == []


def test_a_port_and_a_protocol_narrow_an_address() -> None:
    dump = look(at("10.96.0.2", 53, Protocol.UDP))
    assert places(dump) == [("kube-system/dns", "10.96.0.2", 53, "UDP")]
    assert ("service-ports-ipv4", "10.96.0.2 . tcp . 53") not in elements(dump)
    assert len(look(at("10.96.0.2", 53)).virtual_servers) == 2


def test_at_an_address_of_the_nodes_own_there_are_the_node_ports() -> None:
    dump = look(at("203.0.113.1"))
    assert places(dump) == [("default/shop", "203.0.113.1", 30080, "TCP")]
    assert dump.addresses == []


def test_an_address_that_was_rejected_is_there_with_the_reason_alone() -> None:
    dump = look(at("192.0.2.1"))
    assert [(each.field, each.reason.split()[0]) for each in dump.rejections] == [
        ("spec.externalIPs", "192.0.2.1")
    ]
    assert dump.virtual_servers == []
    assert not is_empty(dump)


def test_an_endpoint_is_shown_in_every_virtual_server_that_has_it_and_nothing_else_is() -> None:
    dump = look(having(SHARED))
    assert places(dump) == [
        ("default/web", "10.96.0.1", 80, "TCP"),
        ("kube-system/dns", "10.96.0.2", 53, "TCP"),
        ("kube-system/dns", "10.96.0.2", 53, "UDP"),
    ]
    assert {each.address for one in dump.virtual_servers for each in one.real_servers} == {SHARED}
    assert [each.address for each in dump.addresses] == ["10.96.0.1", "10.96.0.2"]
    assert not any("10.96.0.3" in element for _, element in elements(dump))


def test_an_endpoint_that_does_not_serve_is_found_with_the_reason() -> None:
    (found,) = look(having("10.244.0.3")).virtual_servers
    assert [(each.state, each.reason) for each in found.real_servers] == [
        (RealServerState.EXCLUDED, "not ready")
    ]


def test_what_is_asked_for_together_has_to_fit_together() -> None:
    both = Selection(DNS_NAME, endpoint=address(SHARED))
    assert {each[0] for each in places(look(both))} == {"kube-system/dns"}
    neither = Selection(DNS_NAME, endpoint=address("10.244.0.2"))
    assert is_empty(look(neither))


def test_a_difference_of_another_endpoint_or_address_is_not_shown() -> None:
    kernel = kernel_of(*STATES)
    found = kernel.virtual_servers[WEB_KEY]
    servers = (real_server(SHARED, weight=5), *found.real_servers[1:])
    kernel.virtual_servers[WEB_KEY] = found._replace(real_servers=servers)
    difference = "real server 10.244.0.1:8080 of virtual server 10.96.0.1:80/tcp has weight 5 instead of 1"
    assert sentences(look(having(SHARED), kernel)) == [difference]
    assert sentences(look(at("10.96.0.1"), kernel)) == [difference]
    assert sentences(look(having("10.244.0.2"), kernel)) == []
    assert sentences(look(at("10.96.0.2"), kernel)) == []


def test_a_virtual_server_and_a_real_server_have_the_differences_that_are_about_them() -> None:
    kernel = kernel_of(*STATES)
    found = kernel.virtual_servers[WEB_KEY]
    servers = (real_server(SHARED, weight=5), *found.real_servers[1:])
    kernel.virtual_servers[WEB_KEY] = found._replace(scheduler="wlc", real_servers=servers)
    kernel.bound.discard(WEB_KEY.address)
    gone = {SetElement(FirewallSet.SERVICE_PORTS, WEB_KEY)}
    kernel = kernel._replace(
        firewall=kernel.firewall._replace(elements=frozenset(kernel.firewall.elements - gone))
    )
    (shown,) = look(at("10.96.0.1"), kernel).virtual_servers
    name = "virtual server 10.96.0.1:80/tcp"
    assert shown.differences == [
        f"{name} has scheduler wlc instead of rr",
        "address 10.96.0.1 is missing on the dummy interface",
        "element 10.96.0.1 . tcp . 80 of set service-ports-ipv4 is missing",
    ]
    assert [each.differences for each in shown.real_servers] == [
        [f"real server {SHARED}:8080 of {name} has weight 5 instead of 1"],
        [],
        [],
    ]
    assert shown.sets == ["service-addresses-ipv4"]


def test_a_virtual_server_has_the_failures_of_its_address_and_elements() -> None:
    failure = Failure("EACCES: Permission denied", 3, NOW + 4, NOW)
    element = SetElement(FirewallSet.SERVICE_PORTS, WEB_KEY)
    failures: dict[Item, Failure] = {
        WEB_KEY: failure,
        WEB_KEY.address: failure,
        element: failure,
        key("10.96.0.3"): failure,
    }
    report = report_of(*STATES, view=view_of(*STATES, failures=failures))
    dump = look(at("10.96.0.1"), report=report)
    mine = [
        "address 10.96.0.1",
        "element 10.96.0.1 . tcp . 80 of set service-ports-ipv4",
        "virtual server 10.96.0.1:80/tcp",
    ]
    assert [each.item for each in dump.failures] == mine
    assert [each.item for each in dump.virtual_servers[0].failures] == mine
    whole = look(Selection(), report=report)
    assert len(whole.failures) == 4
    assert [
        each.item for one in whole.virtual_servers if one.service == "default/web" for each in one.failures
    ] == mine


def test_without_an_agent_an_address_and_an_endpoint_are_found_in_the_kernel() -> None:
    kernel = kernel_of(*STATES)
    assert places(alone(at("10.96.0.1", 80), kernel)) == [(None, "10.96.0.1", 80, "TCP")]
    dump = alone(having("10.244.0.2"), kernel)
    assert places(dump) == [(None, "10.96.0.1", 80, "TCP")]
    assert [each.address for each in dump.virtual_servers[0].real_servers] == ["10.244.0.2"]
    assert dump.differences is None


def test_an_address_that_nothing_asks_for_is_found_too() -> None:
    kernel = kernel_of(*STATES)
    kernel.bound.add(address("10.96.0.99"))
    kernel.virtual_servers[key("10.96.0.99")] = virtual_server(key("10.96.0.99"), real_server(SHARED))
    dump = look(at("10.96.0.99"), kernel)
    assert [each.state for each in dump.virtual_servers] == [VirtualServerState.UNWANTED]
    assert (None, "10.96.0.99", 80, "TCP") in places(look(having(SHARED), kernel))


@pytest.mark.parametrize(
    ("selection", "line"),
    [
        (
            at("10.9.9.9"),
            "--address 10.9.9.9: no Service that is known here has it, and there is nothing of ipvsproxy's at it",
        ),
        (
            at("10.96.0.2", 54),
            "--address 10.96.0.2:54: nobody has this port; there is 10.96.0.2:53/tcp, 10.96.0.2:53/udp",
        ),
        (
            at("10.96.0.1", 80, Protocol.UDP),
            "--address 10.96.0.1:80/udp: nobody has this port; there is 10.96.0.1:80/tcp",
        ),
        (at("10.7.7.7"), "--address 10.7.7.7: virtual server 10.7.7.7:80/tcp is not ipvsproxy's"),
        (
            at("198.18.0.1"),
            (
                "--address 198.18.0.1: the address is on an interface of the node's own, "
                "and there is nothing of ipvsproxy's at it"
            ),
        ),
        (
            having("fd00::9"),
            (
                "--endpoint fd00::9: no Service that is known here has such an endpoint, "
                "and no virtual server such a real server"
            ),
        ),
        (
            Selection(DNS_NAME, address("fd00::1"), 80, None, address("10.244.0.2")),
            (
                "--service kube-system/dns --address [fd00::1]:80 --endpoint 10.244.0.2: "
                "no virtual server fits all of this; ask for one of them alone"
            ),
        ),
    ],
)
def test_what_nobody_has_is_one_line_that_says_what_there_is(selection: Selection, line: str) -> None:
    kernel = kernel_of(*STATES)
    theirs = key("10.7.7.7")
    kernel.virtual_servers[theirs] = virtual_server(theirs)
    comparison = Comparison(report_of(*STATES), kernel.tables, selection)
    assert is_empty(comparison.dump({each: kernel.real_servers[each] for each in comparison.virtual_servers}))
    elsewhere = {address("198.18.0.1")}
    assert nothing_found(selection, kernel.virtual_servers, comparison.ours, elsewhere) == line


@pytest.mark.parametrize(
    ("text", "of", "found"),
    [
        ("192.0.2.1 is in no network", "192.0.2.1", True),
        ("192.0.2.10 is in no network", "192.0.2.1", False),
        ("virtual server 192.0.2.1:80/tcp is not ipvsproxy's", "192.0.2.1", True),
        ("in 192.0.2.0/24", "192.0.2.0", False),
        ("not in 10.192.0.2", "192.0.2.0", False),
        ("it is 192.0.2.1.", "192.0.2.1", True),
        ("fd00::1 is another node's", "fd00::1", True),
        ("virtual server [fd00::1]:80/tcp is not ipvsproxy's", "fd00::1", True),
        ("fd00::1:2 is another node's", "fd00::1", False),
        ("abcd:fd00::1 is another node's", "fd00::1", False),
        ("fd00::1: another node's", "fd00::1", True),
    ],
)
def test_a_text_mentions_an_address_that_it_has_as_a_whole(text: str, of: str, *, found: bool) -> None:
    assert mentions(text, address(of)) is found


def test_only_what_differs_is_left() -> None:
    kernel = kernel_of(*STATES)
    found = kernel.virtual_servers[WEB_KEY]
    servers = (real_server(SHARED, weight=5), *found.real_servers[1:])
    kernel.virtual_servers[WEB_KEY] = found._replace(real_servers=servers)
    kernel.bound.add(address("10.96.0.99"))
    rejection = Rejection("Service", WEB, "spec.ports", "no")
    report = report_of(*STATES, rejections=[rejection], warnings=["something"])
    left = only_differences(look(Selection(), kernel, report))
    assert places(left) == [("default/web", "10.96.0.1", 80, "TCP")]
    assert [each.address for each in left.virtual_servers[0].real_servers] == [SHARED]
    assert [each.address for each in left.addresses] == ["10.96.0.99"]
    assert (left.firewall.elements, left.rejections, left.warnings) == ([], [], [])
    assert [each.name for each in left.services or ()] == ["web"]
    assert len(sentences(left)) == 2


@pytest.mark.parametrize(
    ("bound", "elsewhere", "differs"),
    [(True, False, False), (False, True, False), (False, False, True), (True, True, True)],
)
def test_an_address_is_left_if_it_differs(*, bound: bool, elsewhere: bool, differs: bool) -> None:
    dump = look(at("10.96.0.1"))
    (one,) = dump.addresses
    changed = msgspec.structs.replace(one, actual=bound, elsewhere=elsewhere)
    left = only_differences(msgspec.structs.replace(dump, addresses=[changed]))
    assert left.addresses == ([changed] if differs else [])


def test_nothing_is_left_when_nothing_differs() -> None:
    left = only_differences(look(Selection()))
    assert left.differences == []
    assert is_empty(left)
    assert left.services == []
