"""How much room the tables of connections have."""

from __future__ import annotations

import pytest

from ipvsproxy.plan.check.finding import Severity
from ipvsproxy.plan.check.room import Conntrack, IpvsTable, judge_conntrack, judge_ipvs_table


@pytest.mark.parametrize(
    ("tracked", "severity"),
    [
        (0, Severity.OK),
        (799, Severity.OK),
        (800, Severity.WARNING),
        (949, Severity.WARNING),
        (950, Severity.ERROR),
        (1001, Severity.ERROR),
    ],
)
def test_a_table_warns_at_80_percent_and_fails_at_95(tracked: int, severity: Severity) -> None:
    found, _ = judge_conntrack(Conntrack(tracked, 1000, 0, 0))
    assert found.severity is severity
    assert found.meaning.startswith(f"{tracked} of 1000 tracked connections ({tracked / 1000:.0%})")
    if found.mend:
        assert found.mend.startswith("sysctl -w net.netfilter.nf_conntrack_max=2000")


def test_a_table_without_a_limit_is_never_full() -> None:
    found, _ = judge_conntrack(Conntrack(5, 0, 0, 0))
    assert (found.severity, found.meaning) == (Severity.OK, "5 tracked connections, no limit")


@pytest.mark.parametrize(
    ("dropped", "now", "severity"), [(0, 0, Severity.OK), (7, 0, Severity.INFO), (7, 2, Severity.ERROR)]
)
def test_drops_of_the_past_are_told_and_those_of_this_moment_are_an_error(
    dropped: int, now: int, severity: Severity
) -> None:
    _, found = judge_conntrack(Conntrack(0, 1000, dropped, now))
    assert found.severity is severity


@pytest.mark.parametrize(
    ("connections", "resizable", "severity"),
    [(16 * 4096, False, Severity.OK), (16 * 4096 + 1, False, Severity.WARNING), (10**6, True, Severity.OK)],
)
def test_a_table_of_ipvs_is_too_small_when_its_buckets_are_long_unless_it_grows(
    *, connections: int, resizable: bool, severity: Severity
) -> None:
    assert judge_ipvs_table(IpvsTable(connections, 4096, resizable)).severity is severity


@pytest.mark.parametrize(("connections", "bits"), [(100_000, 17), (5_000_000, 20)])
def test_the_advised_table_has_a_bucket_for_each_connection_as_far_as_kernels_take_it(
    connections: int, bits: int
) -> None:
    found = judge_ipvs_table(IpvsTable(connections, 4096, resizable=False))
    assert f"conn_tab_bits={bits} " in found.mend
    assert f"among {connections // 4096} of them" in found.meaning
