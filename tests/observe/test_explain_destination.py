"""Which address and port of a Service a client connects to, when it is asked for by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.errors import UsageError
from ipvsproxy.model.objects import ObjectKey, Protocol, ServiceType
from ipvsproxy.observe.clients import HostAt, HostOutside, PodNamed, ProcessOfNode, ServiceNamed
from ipvsproxy.observe.explain_destination import choose_address
from tests.builders import address, key, port, service
from tests.observe.explaining import NODE_ADDRESS, POD, STRANGER
from tests.observe.node import report_of, state, view_of

if TYPE_CHECKING:
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.observe.clients import Client
    from ipvsproxy.observe.schema import AgentReport

WEB = ObjectKey("default", "web")
PORTS = (
    port(80, "http", node_port=30080),
    port(53, "dns-tcp"),
    port(53, "dns", Protocol.UDP),
)
SERVED = state(
    service(
        "10.96.0.10",
        "fd00:10:96::10",
        kind=ServiceType.LOAD_BALANCER,
        ports=PORTS,
        load_balancer_ips=("192.0.2.10", "192.0.2.11"),
        external_ips=("198.51.100.7",),
    )
)
OUTSIDE = HostOutside()


def chosen(
    named: ServiceNamed, client: Client, report: AgentReport | None = None
) -> tuple[VirtualServerKey, tuple[str, ...]]:
    return choose_address(
        named, client, report or report_of(SERVED), lambda each: each == address(NODE_ADDRESS)
    )


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (ProcessOfNode(), "10.96.0.10"),
        (PodNamed(WEB), "10.96.0.10"),
        (HostAt(address(POD)), "10.96.0.10"),
        (HostAt(address(NODE_ADDRESS)), "10.96.0.10"),
        (HostAt(address(STRANGER)), "192.0.2.10"),
        (OUTSIDE, "192.0.2.10"),
        (HostAt(address("fd00::9")), "fd00:10:96::10"),
    ],
    ids=str,
)
def test_the_address_is_the_one_by_which_such_clients_connect(client: Client, expected: str) -> None:
    found, told = chosen(ServiceNamed(WEB, "http"), client)
    assert found == key(expected)
    assert str(found) in told[0]
    assert any("198.51.100.7:80/tcp (an external IP)" in each for each in told)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"external_ips": ("198.51.100.7",), "kind": ServiceType.NODE_PORT}, key("198.51.100.7")),
        ({"kind": ServiceType.NODE_PORT}, key("203.0.113.1", 30080)),
        ({"ports": (port(80, "http"),)}, key("10.96.0.10")),
    ],
    ids=["external IP", "node port", "clusterIP"],
)
def test_outside_it_is_the_next_one_that_there_is(fields: dict[str, Any], expected: VirtualServerKey) -> None:
    one_port = (port(80, "http", node_port=30080),)
    report = report_of(state(service("10.96.0.10", **{"ports": one_port, **fields})))
    assert chosen(ServiceNamed(WEB), OUTSIDE, report)[0] == expected


def test_a_port_is_named_by_its_name_or_number_and_the_protocol_may_be() -> None:
    assert chosen(ServiceNamed(WEB, "dns"), ProcessOfNode())[0] == key("10.96.0.10", 53, Protocol.UDP)
    assert chosen(ServiceNamed(WEB, "53"), ProcessOfNode())[0] == key("10.96.0.10", 53)
    udp = ServiceNamed(WEB, "53", Protocol.UDP)
    assert chosen(udp, ProcessOfNode())[0] == key("10.96.0.10", 53, Protocol.UDP)
    found, told = chosen(ServiceNamed(WEB), ProcessOfNode())
    assert found == key("10.96.0.10", 53)
    assert told[-1].endswith("dns 53/udp and http 80/tcp")


@pytest.mark.parametrize(
    ("named", "missing"),
    [
        (
            ServiceNamed(WEB, "https"),
            "Service default/web has no port https: it has dns-tcp 53/tcp, dns 53/udp and http 80/tcp",
        ),
        (ServiceNamed(WEB, "80", Protocol.UDP), "Service default/web has no port 80/udp"),
        (ServiceNamed(WEB, "30080"), "Service default/web has no port 30080"),
        (ServiceNamed(ObjectKey("default", "shop")), "there is no Service default/shop"),
        (
            ServiceNamed(ObjectKey("other", "web")),
            "there is no Service other/web; there is one of that name in default",
        ),
    ],
)
def test_what_there_is_not_is_named(named: ServiceNamed, missing: str) -> None:
    with pytest.raises(UsageError) as raised:
        chosen(named, OUTSIDE)
    assert str(raised.value).startswith(missing)


def test_a_service_that_is_not_served_has_a_reason_and_a_remedy_if_somebody_else_is_in_its_place() -> None:
    headless = report_of(state(service()))
    with pytest.raises(UsageError, match="headless"):
        chosen(ServiceNamed(WEB), OUTSIDE, headless)
    taken = state(service("10.96.0.10"))
    foreign = report_of(taken, view=view_of(taken, foreign=[key("10.96.0.10")]))
    with pytest.raises(UsageError, match="is not ipvsproxy's; find out who made it"):
        chosen(ServiceNamed(WEB), OUTSIDE, foreign)
