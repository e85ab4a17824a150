"""The node's way to an address, asked of a real kernel, and who listens there."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.listening import Listener, listeners
from ipvsproxy.kernel.routes import Route, Routes, Sender
from ipvsproxy.model.addresses import parse_address
from ipvsproxy.model.objects import Protocol
from netns_tests.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

LINKS = """
link add name uplink type dummy
link set uplink up
address add 10.3.0.1/24 dev uplink
address add fd00:3::1/64 dev uplink nodad
route add 10.4.0.0/24 via 10.3.0.2
route add blackhole 10.5.0.0/24
route add unreachable 10.6.0.0/24
route add prohibit 10.7.0.0/24
route add unreachable fd00:6::/64
route add blackhole fd00:5::/64
"""
BY_UPLINK = Route("uplink", parse_address("10.3.0.1"), local=False)


@pytest.fixture
def node() -> Iterator[Namespace]:
    with Namespace("node") as namespace, namespace.entered():
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "-batch", "-", stdin=LINKS)
        yield namespace


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("to", "route"),
    [
        ("10.3.0.9", BY_UPLINK),
        ("10.4.0.9", BY_UPLINK._replace(next_hop=parse_address("10.3.0.2"))),
        ("fd00:3::9", Route("uplink", parse_address("fd00:3::1"), local=False)),
        ("10.3.0.1", Route("lo", parse_address("10.3.0.1"), local=True)),
        ("127.0.0.5", Route("lo", parse_address("127.0.0.1"), local=True)),
        ("10.5.0.9", None),
        ("10.6.0.9", None),
        ("10.7.0.9", None),
        ("192.0.2.1", None),
        ("fd00:5::9", None),
        ("fd00:6::9", None),
        ("2001:db8::1", None),
    ],
)
def test_the_way_is_the_kernels(to: str, route: Route | None) -> None:
    with contextlib.closing(Routes()) as routes:
        assert routes.to(parse_address(to)) == route


@pytest.mark.parametrize(
    ("of", "to", "source"),
    [("-4", "10.3.0.9", "10.3.0.1"), ("-6", "fd00:3::9", "fd00:3::1")],
    ids=["IPv4", "IPv6"],
)
@pytest.mark.parametrize("rule", ["from SOURCE", "fwmark 0x4000/0x4000"])
def test_policy_routing_goes_by_the_source_and_the_mark(
    node: Namespace, of: str, to: str, source: str, rule: str
) -> None:
    node.run("ip", of, "rule", "add", *rule.replace("SOURCE", source).split(), "blackhole")
    sender = Sender(parse_address(source), 0x4000)
    with contextlib.closing(Routes()) as routes:
        assert routes.to(parse_address(to), sender) is None
        assert (routes.to(parse_address(to), sender._replace(mark=0)) is None) is ("from" in rule)
        assert routes.to(parse_address(to)) is not None


@pytest.mark.usefixtures("node")
def test_a_host_elsewhere_may_be_the_source_with_the_interface_that_its_packets_come_in_by() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    elsewhere = parse_address("10.4.0.9")
    with contextlib.closing(Routes()) as routes:
        assert routes.to(parse_address("10.3.0.9"), Sender(elsewhere, 0, "uplink")) is not None
        assert routes.to(parse_address("10.5.0.9"), Sender(elsewhere, 0, "uplink")) is None


def test_an_interface_is_up_with_a_carrier_and_a_neighbour_that_does_not_answer_is_silent(
    node: Namespace,
) -> None:
    node.run("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
    node.run("ip", "link", "set", "left", "up")
    with contextlib.closing(Routes()) as routes:
        assert [routes.is_up(each) for each in ("uplink", "left", "right", "nobody")] == [
            True,
            False,
            False,
            False,
        ]
        for state, silent in (("failed", True), ("incomplete", True), ("reachable", False)):
            for neighbour in ("10.3.0.9", "fd00:3::9"):
                address = ["lladdr", "02:00:00:00:00:01"] if state == "reachable" else []
                node.run("ip", "neigh", "replace", neighbour, *address, "dev", "uplink", "nud", state)
                assert routes.is_silent(parse_address(neighbour), "uplink") is silent
        assert not routes.is_silent(parse_address("10.3.0.77"), "uplink")
        assert not routes.is_silent(parse_address("10.3.0.77"), "nobody")


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("protocol", list(Protocol), ids=lambda each: each.name)
@pytest.mark.parametrize("at", ["10.3.0.1", "fd00:3::1", "::"])
def test_a_socket_that_listens_is_found(protocol: Protocol, at: str) -> None:
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol is Protocol.UDP else socket.SOCK_STREAM
    with socket.socket(family, kind, protocol) as listener:
        listener.bind((at, 7777))
        if protocol is not Protocol.UDP:
            listener.listen()
        assert listeners() == {Listener(parse_address(at), protocol, 7777)}
    assert listeners() == frozenset()
