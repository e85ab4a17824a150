"""What findings mean together."""

from __future__ import annotations

import pytest

from ipvsproxy.plan.check.finding import Check, Finding, Severity, by_severity, exit_code, unknown, worst


def finding(severity: Severity, check: Check = Check.NFT) -> Finding:
    return Finding(check, severity, "")


@pytest.mark.parametrize(
    ("severities", "expected", "code"),
    [
        ([], Severity.OK, 0),
        ([Severity.OK, Severity.INFO], Severity.INFO, 0),
        ([Severity.UNKNOWN, Severity.OK], Severity.UNKNOWN, 0),
        ([Severity.UNKNOWN, Severity.WARNING], Severity.WARNING, 3),
        ([Severity.ERROR, Severity.WARNING], Severity.ERROR, 1),
    ],
)
def test_the_exit_code_tells_the_worst(severities: list[Severity], expected: Severity, code: int) -> None:
    findings = [finding(each) for each in severities]
    assert (worst(findings), exit_code(findings)) == (expected, code)


def test_the_worst_comes_first_and_the_rest_in_the_order_of_the_checks() -> None:
    last, first, middle = (
        finding(Severity.OK, Check.AGENT),
        finding(Severity.ERROR, Check.WATCH),
        finding(Severity.OK, Check.NFT),
    )
    assert by_severity([last, first, middle]) == [first, middle, last]


def test_what_could_not_be_looked_at_says_why() -> None:
    assert unknown(Check.ARP, OSError("broken")) == Finding(
        Check.ARP, Severity.UNKNOWN, "can't be looked at: broken"
    )
