"""Kernel settings that somebody resets while the agent runs."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from ipvsproxy.cli.kernel_settings import KernelSettings
from ipvsproxy.kernel.fake import FakeIpvs
from ipvsproxy.kernel.interface import ConnectionTimeouts
from ipvsproxy.plan.sysctls import Ipv6Found
from tests.cli.test_settings import config
from tests.kernel.settings_tree import settings_tree

if TYPE_CHECKING:
    from pathlib import Path

FORWARD, CONNTRACK, ROUTERS = "net.ipv4.ip_forward", "net.ipv4.vs.conntrack", "net/ipv6/conf/eth0/accept_ra"
AS_IT_SHOULD_BE = {
    CONNTRACK: "1",
    "net.ipv4.vs.expire_nodest_conn": "1",
    "net.ipv4.vs.expire_quiescent_template": "1",
    FORWARD: "1",
}
CONFIG = config("--conntrack-max-per-core=0", "--ipvs-tcp-timeout=1h")


class World:
    """Kernel settings in a folder, and what is said of them."""

    def __init__(self, folder: Path) -> None:
        self.sysctls = settings_tree(folder, AS_IT_SHOULD_BE)
        self.ipvs = FakeIpvs()
        self.events = structlog.testing.LogCapture()
        log = structlog.wrap_logger(None, processors=[self.events], wrapper_class=structlog.BoundLogger)
        self.settings = KernelSettings(log, self.sysctls)
        self.refused: set[str] = set()
        self._set = self.sysctls.set
        self.sysctls.set = self._maybe_set  # type: ignore[method-assign]
        self.settings.make(CONFIG, self.ipvs)

    def _maybe_set(self, name: str, value: str) -> None:
        if name in self.refused:
            raise OSError(errno.EROFS, "Read-only file system")
        self._set(name, value)

    def reset(self, name: str, value: str) -> None:
        """Have somebody else set it."""
        self._set(name, value)

    def look(self) -> list[tuple[str, str]]:
        """Look as a resync does; return what is said, each event with its setting."""
        self.events.entries.clear()
        self.settings.look(CONFIG, self.ipvs)
        said: list[Any] = self.events.entries
        return [(each["event"], each.get("setting", "")) for each in said]


@pytest.fixture
def world(tmp_path: Path) -> World:
    # The conntrack timeouts of the defaults are not there, which is said at the start.
    return World(tmp_path)


def test_what_is_as_it_should_be_is_not_mentioned(world: World) -> None:
    assert world.look() == []


@pytest.mark.parametrize("name", [FORWARD, CONNTRACK])
def test_what_somebody_resets_is_made_again_and_told(world: World, name: str) -> None:
    world.reset(name, "0")
    assert world.look() == [("kernel setting made again", name)]
    assert world.settings.made_again == 1
    assert world.sysctls.get(name) == "1"
    assert world.look() == []


def test_what_can_not_be_made_again_is_told_once_and_counted_until_it_is_mended(world: World) -> None:
    usual = set(world.settings.wrong)
    world.refused.add(FORWARD)
    world.reset(FORWARD, "0")
    assert world.look() == [("kernel setting not made", FORWARD)]
    assert set(world.settings.wrong) == usual | {FORWARD}
    assert world.look() == []
    world.reset(FORWARD, "1")
    assert world.look() == []
    assert set(world.settings.wrong) == usual
    world.reset(FORWARD, "0")
    assert world.look() == [("kernel setting not made", FORWARD)]


def test_the_timeouts_of_ipvs_are_set_again_and_a_refusal_is_told_once(world: World) -> None:
    world.ipvs.set_timeouts(ConnectionTimeouts(tcp=900))
    assert world.look() == []
    assert world.ipvs.timeouts.tcp == 3600
    world.ipvs.fail_calls(OSError(errno.EINVAL, "no"), calls=2)
    assert world.look() == [("IPVS timeouts not set", "")]
    assert world.look() == []


def test_router_advertisements_are_followed_on_as_long_as_the_interface_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Ipv6Found("0", {"eth0": "1"})
    monkeypatch.setattr("ipvsproxy.cli.kernel_settings.read_ipv6", lambda _: found)
    settings_tree(tmp_path, {"net.ipv6.conf.all.forwarding": "0", "net.ipv6.conf.eth0.accept_ra": "1"})
    world = World(tmp_path)
    assert world.sysctls.get(ROUTERS) == "2"
    found = Ipv6Found("1")
    world.reset(ROUTERS, "1")
    assert world.look() == [("kernel setting made again", ROUTERS)]
    (tmp_path / ROUTERS).unlink()
    assert world.look() == []
