"""What stands in the way in the host's firewall: told when it comes, shown while it is there, and mended."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.host_firewall import HostFirewall
from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.observe.host_firewall import HostFirewallWatch
from ipvsproxy.plan.host_firewall import find_drops
from netns_tests.deadline import PATIENCE
from tests.builders import key
from tests.host_tables import LEGACY_FILTER, joined, tables
from tests.observe.http_clients import Events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.plan.forwarding import Accepting, Leftover
    from ipvsproxy.plan.host_rules import HostTables

INPUT = tables(INPUT="DROP")
OTHER = tables(OUTPUT="DROP", table=LEGACY_FILTER._replace(name="security"))
FORWARD = tables(FORWARD="DROP")
CHAIN = (
    "-A FORWARD -j IPVSPROXY-FORWARD",
    "-A IPVSPROXY-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A IPVSPROXY-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
)
ACCEPTING = tables(*CHAIN, FORWARD="DROP")
HERE = "chain IPVSPROXY-FORWARD of table ip filter (iptables-legacy)"
UNSEEN = "the tables of iptables-legacy (ip) can't be looked at: iptables-legacy-save is not installed"


class Host:
    """A host whose firewall the test changes; `broken` makes the next look fail, `refusal` each change."""

    def __init__(self) -> None:
        self.firewall = HostFirewall()
        self.broken = False
        self.refusal: Exception | None = None
        self.bit: int | None = 14
        self.served: list[VirtualServerKey] = []

    def look(self) -> HostFirewall:
        if self.broken:
            self.broken = False
            raise RuntimeError("a fault")
        return self.firewall

    def accept(self, wanted: Accepting, masquerade_bit: int) -> None:
        assert (str(wanted), masquerade_bit) == (HERE, 14)
        self._change(ACCEPTING)

    def remove(self, ours: Leftover) -> None:
        assert str(ours) == HERE
        self._change(FORWARD)

    def _change(self, becomes: HostTables) -> None:
        if self.refusal:
            raise self.refusal
        self.firewall = HostFirewall(becomes)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def watch(host: Host, events: Events) -> HostFirewallWatch:
    return HostFirewallWatch(host.look, host, lambda: host.served, lambda: host.bit, events.log)


def warnings(watch: HostFirewallWatch) -> list[str]:
    return watch.state.reported.warnings


def test_nothing_is_said_before_the_first_look_and_of_a_host_that_drops_nothing(
    watch: HostFirewallWatch, events: Events
) -> None:
    assert warnings(watch) == []
    watch.look()
    assert (warnings(watch), events.names) == ([], [])


def test_a_chain_that_drops_is_logged_with_all_that_identifies_it_and_what_to_do(
    host: Host, watch: HostFirewallWatch, events: Events
) -> None:
    host.firewall = HostFirewall(INPUT)
    (finding,) = find_drops(INPUT, ())
    watch.look()
    assert events.capture.entries == [
        {
            "event": "host firewall drops",
            "log_level": "warning",
            "hook": "input",
            "backend": "iptables-legacy",
            "family": "ip",
            "table": "filter",
            "chain": "INPUT",
            "priority": 0,
            "why": "policy drop",
            "meaning": str(finding),
        }
    ]
    assert warnings(watch) == [str(finding)]


def test_what_the_agent_serves_decides_whether_it_is_dropped(host: Host, watch: HostFirewallWatch) -> None:
    host.firewall = HostFirewall(tables("-A INPUT -d 10.96.0.0/16 -j ACCEPT", INPUT="DROP"))
    host.served = [key("10.96.0.10")]
    watch.look()
    assert warnings(watch) == []
    host.served = [key("10.97.0.10")]
    watch.look()
    assert len(warnings(watch)) == 1


def test_what_stays_is_logged_once_and_what_comes_again_is_logged_again(
    host: Host, watch: HostFirewallWatch, events: Events
) -> None:
    both = joined(INPUT, OTHER)
    for found, lines in ((INPUT, 1), (INPUT, 1), (both, 2), (OTHER, 2), (INPUT, 3)):
        host.firewall = HostFirewall(found)
        watch.look()
        assert len(warnings(watch)) == len(find_drops(found, ()))
        assert len(events.names) == lines


def test_what_cant_be_looked_at_is_said_once_and_shown(
    host: Host, watch: HostFirewallWatch, events: Events
) -> None:
    host.firewall = HostFirewall(unseen=(UNSEEN,))
    watch.look()
    watch.look()
    assert warnings(watch) == [UNSEEN]
    assert events.capture.entries == [
        {"event": "host firewall not looked at", "log_level": "info", "reason": UNSEEN}
    ]
    host.firewall = HostFirewall()
    watch.look()
    assert warnings(watch) == []


class TestForwarding:
    def test_where_answers_are_dropped_the_agent_accepts_them_and_says_so(
        self, host: Host, watch: HostFirewallWatch, events: Events
    ) -> None:
        host.firewall = HostFirewall(FORWARD)
        watch.look()
        assert host.firewall.tables == ACCEPTING
        assert events.names == ["host firewall accepts answers"]
        assert watch.state.reported.chains == [HERE]
        assert warnings(watch) == []
        watch.look()
        assert events.names == ["host firewall accepts answers"]

    def test_what_somebody_took_away_is_made_again_with_a_warning(
        self, host: Host, watch: HostFirewallWatch, events: Events
    ) -> None:
        for _ in range(2):
            host.firewall = HostFirewall(FORWARD)
            watch.look()
        assert events.names == ["host firewall accepts answers", "host firewall accepts answers again"]
        assert events.capture.entries[1]["log_level"] == "warning"

    @pytest.mark.parametrize(
        "refusal",
        [
            FirewallError("holding the xtables lock"),
            KernelUnavailableError("no nft"),
            PermissionError(1, "not for you"),
        ],
    )
    def test_what_cant_be_made_is_one_warning_that_stays_shown(
        self, host: Host, watch: HostFirewallWatch, events: Events, refusal: Exception
    ) -> None:
        host.firewall, host.refusal = HostFirewall(FORWARD), refusal
        for _ in range(2):
            watch.look()
        assert events.names.count("host firewall not changed") == 1
        (failed,) = watch.state.reported.failed
        assert HERE in failed
        assert str(refusal) in failed
        host.refusal = None
        watch.look()
        assert watch.state.reported.failed == []

    def test_switched_off_nothing_is_made_and_what_was_made_is_removed(
        self, host: Host, watch: HostFirewallWatch, events: Events
    ) -> None:
        host.bit, host.firewall = None, HostFirewall(FORWARD)
        watch.look()
        assert events.names == ["host firewall drops"]
        host.firewall = HostFirewall(ACCEPTING)
        watch.look()
        assert host.firewall.tables == FORWARD
        assert events.names[1:] == ["chain removed from the host firewall"]
        assert watch.state.reported.chains == []
        host.firewall, host.refusal = HostFirewall(ACCEPTING), FirewallError("held")
        watch.look()
        assert len(watch.state.reported.failed) == 1


class TestInItsThread:
    @pytest.fixture
    def looked(self, host: Host, events: Events) -> Iterator[tuple[HostFirewallWatch, threading.Semaphore]]:
        """Start a watch; the semaphore is released at each look."""
        looks = threading.Semaphore(0)

        def look() -> HostFirewall:
            looks.release()
            return host.look()

        watch = HostFirewallWatch(look, host, lambda: (), lambda: None, events.log)
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
