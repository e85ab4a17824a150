"""Deadlines of real servers that drain."""

from __future__ import annotations

from ipvsproxy.config.durations import parse_duration
from ipvsproxy.model.ipvs import RealServerStatus
from ipvsproxy.plan.services import PlannedVirtualServer
from ipvsproxy.plan.view import Drain, DrainEnd, DrainKey
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


DRAIN = DrainKey(WEB, LEAVES.address, LEAVES.port)


def test_a_drain_timeout_of_ten_years_is_as_good_as_none() -> None:
    drains = Drains()
    drains.note(WEB, WANTED._replace(drain_timeout=parse_duration("87600h")), FOUND, now=100.0)
    a_year_later = 100.0 + 365 * 24 * 3600

    assert drains.done(WEB, [RealServerStatus(QUIET, 1, 0)], a_year_later) == []
    assert drains.done(WEB, [RealServerStatus(QUIET, 0, 0)], a_year_later) == [QUIET]


def ends(drains: Drains) -> list[tuple[DrainKey, DrainEnd]]:
    drains.note(WEB, WANTED, WANTED.virtual_server, now=1000.0)
    return drains.take_news().ended


def test_a_drain_that_begins_is_news_once_and_counts() -> None:
    drains = draining()
    assert (drains.take_news().began, drains.count) == ([DRAIN], 1)
    drains.note(WEB, WANTED, FOUND, now=500.0)
    assert (drains.take_news().began, drains.count) == ([], 1)


def test_a_drain_without_connections_ends_with_them() -> None:
    drains = draining()
    drains.done(WEB, [RealServerStatus(QUIET, 0, 0)], 101.0)
    assert ends(drains) == [(DRAIN, DrainEnd.CONNECTIONS_ENDED)]
    assert drains.count == 0


def test_a_drain_past_its_deadline_timed_out() -> None:
    drains = draining()
    drains.done(WEB, [RealServerStatus(QUIET, 1, 0)], 1000.0)
    assert ends(drains) == [(DRAIN, DrainEnd.TIMED_OUT)]


def test_a_drain_that_nobody_ended_was_deleted() -> None:
    assert ends(draining()) == [(DRAIN, DrainEnd.DELETED)]
    drains = draining()
    drains.note(WEB, None, None, now=500.0)
    assert (drains.take_news().ended, drains.count) == ([(DRAIN, DrainEnd.DELETED)], 0)


def test_a_drain_whose_real_server_serves_again_has_returned() -> None:
    drains = draining()
    both = virtual_server(WEB, STAYS, LEAVES)
    drains.note(WEB, WANTED._replace(virtual_server=both), both, now=500.0)
    assert drains.take_news().ended == [(DRAIN, DrainEnd.RETURNED)]


def test_one_that_could_not_be_deleted_and_returns_has_returned() -> None:
    drains = draining()
    drains.done(WEB, [RealServerStatus(QUIET, 0, 0)], 101.0)
    both = virtual_server(WEB, STAYS, LEAVES)
    drains.note(WEB, WANTED._replace(virtual_server=both), both, now=102.0)
    assert drains.take_news().ended == [(DRAIN, DrainEnd.RETURNED)]
