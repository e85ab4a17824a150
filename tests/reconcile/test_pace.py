"""The minimum sync period."""

from __future__ import annotations

from ipvsproxy.reconcile.pace import Pace


def test_the_first_change_goes_through_at_once_and_the_next_waits_for_the_period() -> None:
    pace = Pace(1.0)
    assert pace.pause(100.0) <= 0
    pace.began(100.0)
    assert pace.pause(100.25) == 0.75
    assert pace.pause(101.0) <= 0


def test_a_period_of_zero_never_holds_anything_back() -> None:
    pace = Pace(0.0)
    pace.began(100.0)
    assert pace.pause(100.0) <= 0
