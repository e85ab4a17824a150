"""A kernel with a stopwatch: the same answers, and each call told."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel import interface
from ipvsproxy.kernel.fake import FakeAddresses, FakeIpvs
from ipvsproxy.kernel.fake_conntrack import FakeConntrack
from ipvsproxy.kernel.fake_firewall import FakeFirewall
from ipvsproxy.kernel.interface import NodeKernel
from ipvsproxy.kernel.timed import TIMED, Call, timed
from ipvsproxy.model.ipvs import Command, IpvsOperation
from tests.builders import address, key, virtual_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.model.ipvs import VirtualServerKey

WEB = key("10.96.0.1")


class Scene:
    """A kernel, the same one timed, and what was told."""

    def __init__(self) -> None:
        log: list[object] = []
        self.plain = NodeKernel(FakeIpvs(log), FakeAddresses(log), FakeFirewall(log), FakeConntrack(log))
        self.told: list[tuple[Call, float]] = []
        self.timed = timed(self.plain, lambda call, seconds: self.told.append((call, seconds)))

    def calls(self) -> list[Call]:
        assert all(0 <= seconds < 60 for _, seconds in self.told)
        return [call for call, _ in self.told]


def test_a_call_is_made_answered_and_told() -> None:
    scene = Scene()
    scene.timed.addresses.ensure_interface()
    assert scene.timed.ipvs.apply([IpvsOperation(Command.NEW_SERVICE, virtual_server(WEB))]) == {}
    assert scene.timed.ipvs.real_servers([WEB]) == {WEB: []}
    assert [each for chunk in scene.timed.ipvs.virtual_servers() for each in chunk] == [virtual_server(WEB)]
    assert not scene.timed.firewall.read().intact
    assert scene.timed.conntrack.forget([]) == 0
    assert scene.calls() == [
        Call("addresses", "change"),
        Call("ipvs", "change"),
        Call("ipvs", "read"),
        Call("ipvs", "read"),
        Call("nftables", "read"),
        Call("conntrack", "change"),
    ]


def test_what_the_kernel_refuses_comes_through_and_is_told() -> None:
    scene = Scene()
    refused = scene.timed.addresses.apply([address("10.96.0.1")], [])
    assert [error.code for error in refused.values()] == [errno.ENODEV]
    assert scene.calls() == [Call("addresses", "change")]


def test_a_call_that_fails_is_told_too() -> None:
    class Broken(FakeIpvs):
        def existing(self, keys: Iterable[VirtualServerKey]) -> set[VirtualServerKey]:
            raise OSError(f"no answer about {len(list(keys))}")

    scene = Scene()
    tell = timed(
        scene.plain._replace(ipvs=Broken([])), lambda call, seconds: scene.told.append((call, seconds))
    )
    with pytest.raises(OSError, match="no answer about 1"):
        tell.ipvs.existing([WEB])
    assert scene.calls() == [Call("ipvs", "read")]


def test_what_asks_nothing_of_the_kernel_is_the_adapters_own() -> None:
    scene = Scene()
    assert scene.timed.firewall.use == scene.plain.firewall.use
    assert scene.told == []


def test_all_that_is_timed_is_part_of_the_interfaces() -> None:
    interfaces = {
        "ipvs": interface.Ipvs,
        "addresses": interface.Addresses,
        "nftables": interface.Firewall,
        "conntrack": interface.Conntrack,
    }
    assert TIMED.keys() == interfaces.keys()
    for name, methods in TIMED.items():
        assert all(hasattr(interfaces[name], method) for method in methods)
