"""Deadlines of real servers that drain."""

from __future__ import annotations

from ipvsproxy.model.ipvs import RealServerStatus
from ipvsproxy.plan.services import PlannedVirtualServer
from ipvsproxy.plan.view import Drain, DrainKey
from ipvsproxy.reconcile.drain import Drains
from tests.builders import key, real_server, virtual_server

WEB = key("10.96.0.1")
STAYS, LEAVES = real_server("10.244.0.1"), real_server("10.244.0.2")
QUIET = LEAVES._replace(weight=0)
WANTED = PlannedVirtualServer(virtual_server(WEB, STAYS), drain_timeout=900.0)
FOUND = virtual_server(WEB, STAYS, QUIET)


def draining() -> Drains:
    drains = Drains()
    drains.note(WEB, WANTED, FOUND, now=100.0)
    return drains


def test_a_real_server_of_weight_zero_that_is_not_desired_gets_a_deadline() -> None:
    assert draining().all() == {DrainKey(WEB, LEAVES.address, LEAVES.port): Drain(100.0, 1000.0)}


def test_looking_again_does_not_move_the_deadline() -> None:
    drains = draining()
    drains.note(WEB, WANTED, FOUND, now=500.0)
    assert list(drains.all().values()) == [Drain(100.0, 1000.0)]


def test_a_drain_timeout_that_changes_counts_from_the_beginning_of_the_drain() -> None:
    drains = draining()
    drains.note(WEB, WANTED._replace(drain_timeout=60.0), FOUND, now=130.0)
    assert list(drains.all().values()) == [Drain(100.0, 160.0)]
    assert drains.done(WEB, [RealServerStatus(QUIET, 1, 0)], 160.0) == [QUIET]


def test_a_real_server_that_returns_loses_its_deadline() -> None:
    drains = draining()
    both = virtual_server(WEB, STAYS, LEAVES)
    drains.note(WEB, WANTED._replace(virtual_server=both), both, now=500.0)
    assert drains.virtual_servers == []


def test_a_deleted_virtual_server_has_no_drains() -> None:
    drains = draining()
    drains.note(WEB, None, None, now=500.0)
    assert drains.virtual_servers == []


def test_it_is_done_when_neither_active_nor_inactive_connections_are_left() -> None:
    drains = draining()
    serving = RealServerStatus(STAYS, 0, 0)
    assert drains.done(WEB, [serving, RealServerStatus(QUIET, 1, 0)], 101.0) == []
    assert drains.done(WEB, [serving, RealServerStatus(QUIET, 0, 1)], 101.0) == []
    assert drains.done(WEB, [serving, RealServerStatus(QUIET, 0, 0)], 101.0) == [QUIET]


def test_it_is_done_at_the_deadline_whatever_its_connections() -> None:
    busy = RealServerStatus(QUIET, 5, 5)
    assert draining().done(WEB, [busy], 999.9) == []
    assert draining().done(WEB, [busy], 1000.0) == [QUIET]
