"""The fakes keep the contracts, and fail on demand."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.fake import AddressOperation, FakeAddresses, FakeIpvs
from ipvsproxy.model.addresses import Family, parse_network
from ipvsproxy.model.ipvs import Command, IpvsOperation, RealServerStatus, Statistics, Traffic
from tests.builders import address, key, real_server, virtual_server
from tests.kernel.contract_addresses import IPV4, AddressesContract
from tests.kernel.contract_ipvs import (
    FIRST,
    SECOND,
    WEB,
    WEB6,
    IpvsContract,
    codes,
    create,
    destinations,
    services,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.kernel.interface import ConnectionTimeouts
    from ipvsproxy.model.addresses import Network


class TestFakeIpvs(IpvsContract):
    @pytest.fixture
    def ipvs(self) -> FakeIpvs:
        return FakeIpvs()

    @pytest.fixture
    def timeouts(self, ipvs: FakeIpvs) -> Callable[[], ConnectionTimeouts]:
        return lambda: ipvs.timeouts


class FakeNode:
    def __init__(self) -> None:
        self.addresses = FakeAddresses()
        self.networks: set[Network] = set()
        for text in ("127.0.0.1/8", "::1"):
            self.bind_elsewhere(text)

    def bind_elsewhere(self, text: str) -> None:
        bare, _, prefix = text.partition("/")
        bound = address(bare)
        self.addresses.other_addresses.add(bound)
        network = parse_network(text) if prefix else None
        if network is None or (network.family is Family.IPV4 and network in self.networks):
            self.addresses.lone_addresses.add(bound)
        elif network:
            self.networks.add(network)

    def occupy_name(self) -> None:
        self.addresses.kind = "bridge"

    def delete_interface(self) -> None:
        self.addresses.delete_interface()

    def disable_ipv6(self) -> None:
        self.addresses.ipv6_disabled = True


class TestFakeAddresses(AddressesContract):
    @pytest.fixture
    def node(self) -> FakeNode:
        return FakeNode()


def test_the_log_has_what_took_effect_in_order_across_fakes() -> None:
    log: list[object] = []
    ipvs, addresses = FakeIpvs(log), FakeAddresses(log)
    addresses.ensure_interface()
    web = virtual_server(WEB)
    ipvs.apply([*services(Command.NEW_SERVICE, web, web), *destinations(Command.NEW_DEST, web, FIRST)])
    addresses.apply([WEB.address, WEB.address], [])
    addresses.apply([], [WEB.address, WEB6.address])
    assert log == [
        IpvsOperation(Command.NEW_SERVICE, web),
        IpvsOperation(Command.NEW_DEST, web, FIRST),
        AddressOperation(WEB.address, bound=True),
        AddressOperation(WEB.address, bound=False),
    ]


def test_operations_on_one_virtual_server_are_refused_on_demand() -> None:
    ipvs = FakeIpvs()
    create(ipvs, virtual_server(WEB), virtual_server(WEB6))
    ipvs.refuse(WEB, errno.ENOMEM, times=2)
    operations = [
        *destinations(Command.NEW_DEST, virtual_server(WEB6), real_server("fd00:244::1")),
        *destinations(Command.NEW_DEST, virtual_server(WEB), FIRST, SECOND, FIRST),
    ]
    assert codes(ipvs, operations) == {1: errno.ENOMEM, 2: errno.ENOMEM}
    assert ipvs.state() == {
        WEB: virtual_server(WEB, FIRST),
        WEB6: virtual_server(WEB6, real_server("fd00:244::1")),
    }


def test_an_operation_whose_answer_is_lost_takes_effect_or_not() -> None:
    ipvs = FakeIpvs()
    ipvs.lose_answers(2)
    other = virtual_server(key("10.96.0.2"))
    operations = services(Command.NEW_SERVICE, virtual_server(WEB), virtual_server(WEB), other, other)
    assert codes(ipvs, operations) == {0: errno.ENOBUFS, 1: errno.ENOBUFS, 3: errno.EEXIST}
    assert ipvs.log == services(Command.NEW_SERVICE, virtual_server(WEB), other)


def test_connections_are_set_and_survive_an_edit() -> None:
    ipvs = FakeIpvs()
    web = virtual_server(WEB, FIRST)
    create(ipvs, web)
    ipvs.set_connections(WEB, FIRST.address, FIRST.port, active=3, inactive=1)
    ipvs.apply(destinations(Command.SET_DEST, web, FIRST._replace(weight=0)))
    assert ipvs.real_servers([WEB]) == {WEB: [RealServerStatus(FIRST._replace(weight=0), 3, 1)]}
    ipvs.apply(destinations(Command.DEL_DEST, web, FIRST))
    with pytest.raises(KeyError):
        ipvs.set_connections(WEB, FIRST.address, FIRST.port, active=1)


def test_counters_are_set_survive_an_edit_and_begin_again_with_what_is_made_again() -> None:
    ipvs = FakeIpvs()
    web, of_web, of_first = virtual_server(WEB, FIRST), counted(5), counted(3)
    create(ipvs, web)
    ipvs.set_statistics(WEB, of_web)
    ipvs.set_statistics(WEB, of_first, FIRST.address, FIRST.port)
    ipvs.apply([*services(Command.SET_SERVICE, web), *destinations(Command.SET_DEST, web, FIRST)])
    assert ipvs.virtual_server_statistics() == {WEB: of_web}
    assert ipvs.real_server_statistics([WEB]) == {WEB: {(FIRST.address, FIRST.port): of_first}}
    with pytest.raises(KeyError):
        ipvs.set_statistics(WEB, of_first, SECOND.address, SECOND.port)
    ipvs.apply([*services(Command.DEL_SERVICE, web), *services(Command.NEW_SERVICE, web)])
    ipvs.apply(destinations(Command.NEW_DEST, web, FIRST))
    assert ipvs.virtual_server_statistics() == {WEB: Statistics()}
    assert ipvs.real_server_statistics([WEB]) == {WEB: {(FIRST.address, FIRST.port): Statistics()}}


def counted(connections: int) -> Statistics:
    return Statistics(Traffic(connections, 4, 3, 240, 180))


def test_the_kernel_is_out_of_reach_on_demand() -> None:
    ipvs = FakeIpvs()
    ipvs.fail_calls(OSError(errno.ENOBUFS, "no answer"), calls=3)
    for call in (lambda: ipvs.apply([]), ipvs.virtual_servers, lambda: ipvs.real_servers([])):
        with pytest.raises(OSError, match="no answer"):
            call()
    assert ipvs.apply([]) == {}


def test_an_address_is_refused_on_demand() -> None:
    addresses = FakeAddresses()
    addresses.ensure_interface()
    addresses.refuse(IPV4, errno.ENOMEM)
    assert {each: error.code for each, error in addresses.apply([IPV4], []).items()} == {IPV4: errno.ENOMEM}
    assert addresses.apply([IPV4], []) == {}
