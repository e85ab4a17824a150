"""What stands in the way in the host's firewall: told when it comes, shown as long as it is there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.host_firewall import HostFirewall
from ipvsproxy.observe.host_firewall import HostFirewallWatch
from ipvsproxy.plan.host_firewall import Backend, HostFirewallFinding
from netns_tests.deadline import PATIENCE
from tests.observe.http_clients import Events

if TYPE_CHECKING:
    from collections.abc import Iterator

INPUT = HostFirewallFinding(Backend.NFTABLES, "inet", "filter", "input", 0, "policy drop")
LEGACY = HostFirewallFinding(Backend.LEGACY, "ip", "filter", "INPUT", 0, "ends with reject")
UNSEEN = "the filter table of iptables-legacy can't be looked at: iptables-legacy-save is not installed"


class Host:
    """A host whose firewall the test changes; `break_down` makes the next look fail."""

    def __init__(self) -> None:
        self.firewall = HostFirewall()
        self.broken = False

    def look(self) -> HostFirewall:
        if self.broken:
            self.broken = False
            raise RuntimeError("a fault")
        return self.firewall


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def watch(host: Host, events: Events) -> HostFirewallWatch:
    return HostFirewallWatch(host.look, events.log)


def test_nothing_is_said_before_the_first_look_and_of_a_host_that_drops_nothing(
    host: Host, watch: HostFirewallWatch, events: Events
) -> None:
    assert host.firewall == HostFirewall()
    assert watch.warnings == []
    watch.look()
    assert (watch.warnings, events.names) == ([], [])


def test_a_chain_that_drops_is_logged_with_all_that_identifies_it_and_what_to_do(
    host: Host, watch: HostFirewallWatch, events: Events
) -> None:
    host.firewall = HostFirewall((INPUT,))
    watch.look()
    assert events.capture.entries == [
        {
            "event": "host firewall drops on input",
            "log_level": "warning",
            "backend": "nftables",
            "family": "inet",
            "table": "filter",
            "chain": "input",
            "priority": 0,
            "why": "policy drop",
            "meaning": str(INPUT),
        }
    ]
    assert watch.warnings == [str(INPUT)]


def test_what_stays_is_logged_once_and_what_comes_again_is_logged_again(
    host: Host, watch: HostFirewallWatch, events: Events
) -> None:
    for found, lines in (((INPUT,), 1), ((INPUT,), 1), ((INPUT, LEGACY), 2), ((LEGACY,), 2), ((INPUT,), 3)):
        host.firewall = HostFirewall(found)
        watch.look()
        assert watch.warnings == [str(each) for each in found]
        assert len(events.names) == lines


def test_what_cant_be_looked_at_is_said_once_and_shown(
    host: Host, watch: HostFirewallWatch, events: Events
) -> None:
    host.firewall = HostFirewall((INPUT,), (UNSEEN,))
    watch.look()
    watch.look()
    assert watch.warnings == [str(INPUT), UNSEEN]
    assert events.capture.entries[1:] == [
        {"event": "host firewall not looked at", "log_level": "info", "reason": UNSEEN}
    ]
    host.firewall = HostFirewall()
    watch.look()
    assert watch.warnings == []


class TestInItsThread:
    @pytest.fixture
    def looked(self, host: Host, events: Events) -> Iterator[tuple[HostFirewallWatch, threading.Semaphore]]:
        """Start a watch; the semaphore is released at each look."""
        looks = threading.Semaphore(0)

        def look() -> HostFirewall:
            looks.release()
            return host.look()

        watch = HostFirewallWatch(look, events.log)
        watch.start()
        yield watch, looks
        watch.stop()
        watch.join(PATIENCE)
        assert "host-firewall" not in {thread.name for thread in threading.enumerate()}

    def test_it_looks_when_it_is_asked_and_not_before(
        self, looked: tuple[HostFirewallWatch, threading.Semaphore]
    ) -> None:
        watch, looks = looked
        assert not looks.acquire(blocking=False)
        watch.ask()
        assert looks.acquire(timeout=PATIENCE)

    def test_a_look_that_fails_is_logged_and_followed_by_the_next(
        self, host: Host, events: Events, looked: tuple[HostFirewallWatch, threading.Semaphore]
    ) -> None:
        watch, looks = looked
        host.broken = True
        watch.ask()
        assert looks.acquire(timeout=PATIENCE)
        watch.ask()
        assert looks.acquire(timeout=PATIENCE)
        assert events.names == ["host firewall look failed"]
