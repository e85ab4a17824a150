"""The agent's own health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.plan.check.agent import (
    Health,
    RunDirectory,
    Several,
    Watch,
    judge_configuration,
    judge_health,
    judge_run_directory,
    judge_silence,
)
from ipvsproxy.plan.check.finding import Check, Severity

if TYPE_CHECKING:
    from ipvsproxy.plan.check.finding import Finding

WELL = Health("1.0", 7, "node-a", synced=True, seconds_since_resync=12, resync_overdue_after=70.0)
SERVICES = Watch("services", connected=True, seconds_since_contact=3, error="")


def the(check: Check, **changes: Any) -> Finding:  # noqa: ANN401 - the fields of Health
    (found,) = (each for each in judge_health(WELL._replace(**changes), "1.0") if each.check is check)
    return found


def test_an_agent_that_is_well_has_nothing_but_ok() -> None:
    findings = judge_health(WELL._replace(watches=[SERVICES]), "1.0")
    assert {each.severity for each in findings} == {Severity.OK}
    assert not any(each.mend for each in findings)


@pytest.mark.parametrize(
    ("was_here", "not_running", "severity", "words"),
    [
        (False, True, Severity.INFO, "nobody listens, and has left no rules: this node has none yet"),
        (True, True, Severity.ERROR, "nobody listens: the kernel goes on with what it has"),
        (True, False, Severity.ERROR, "nobody listens"),
    ],
)
def test_silence_is_no_fault_before_the_agent_was_here(
    *, was_here: bool, not_running: bool, severity: Severity, words: str
) -> None:
    found = judge_silence("nobody listens", was_here=was_here, not_running=not_running)
    assert found.severity is severity
    assert found.meaning.startswith(words)
    assert found.mend


@pytest.mark.parametrize(
    ("check", "changes", "severity", "words"),
    [
        (
            Check.AGENT,
            {"synced": False},
            Severity.WARNING,
            "it has not compared everything with the kernel yet",
        ),
        (Check.AGENT_VERSION, {"version": "0.9"}, Severity.WARNING, "the agent is 0.9, this program 1.0"),
        (Check.RESYNC, {"seconds_since_resync": None}, Severity.UNKNOWN, "no comparison"),
        (Check.RESYNC, {"seconds_since_resync": 70}, Severity.OK, "was 1m10s ago"),
        (Check.RESYNC, {"seconds_since_resync": 71}, Severity.ERROR, "1m11s ago, more than 1m10s"),
        (
            Check.WATCH,
            {
                "watches": [
                    SERVICES,
                    Watch("nodes", connected=False, seconds_since_contact=90, error="refused"),
                ]
            },
            Severity.ERROR,
            "nodes are out of reach, last heard of 1m30s ago, so changes are not seen: refused",
        ),
        (
            Check.WATCH,
            {"watches": [Watch("nodes", connected=False, seconds_since_contact=None, error="")]},
            Severity.ERROR,
            "nodes are out of reach, never heard of, so changes are not seen",
        ),
        (
            Check.FAILURES,
            {"failures": ["a: b", "c: d"]},
            Severity.ERROR,
            "refuses 2 changes: a: b; c: d",
        ),
        (Check.FAILURES, {"failures": ["a: b"]}, Severity.ERROR, "the kernel refuses 1 change: a: b"),
        (Check.DIFFERENCES, {"differences": None}, Severity.UNKNOWN, "nothing to compare"),
        (
            Check.DIFFERENCES,
            {"differences": [Several("addresses", ["x"])]},
            Severity.WARNING,
            "addresses (1): x",
        ),
        (
            Check.DIFFERENCES,
            {"differences": [Several("addresses", ["x"], fails=True)]},
            Severity.ERROR,
            "addresses (1): x",
        ),
        (
            Check.REJECTIONS,
            {"rejections": [Several("objects", [*"abcdefgh"])]},
            Severity.WARNING,
            "objects (8): a; b; c; d; e; and 3 more",
        ),
        (Check.NODE, {"node_known": False}, Severity.ERROR, "no Node named node-a"),
        (Check.AGENT_WARNING, {"warnings": ["the disk is full"]}, Severity.WARNING, "the disk is full"),
    ],
)
def test_what_is_wrong_with_an_agent_is_said(
    check: Check, changes: dict[str, Any], severity: Severity, words: str
) -> None:
    found = the(check, **changes)
    assert found.severity is severity
    assert words in found.meaning


def test_each_kind_of_rejection_is_a_finding_of_its_own() -> None:
    kinds = [Several("no address", ["a"], fails=True), Several("field", ["b", "c"])]
    found = [
        each
        for each in judge_health(WELL._replace(rejections=kinds), "1.0")
        if each.check is Check.REJECTIONS
    ]
    assert [(each.about, each.severity) for each in found] == [
        ("no address", Severity.ERROR),
        ("field", Severity.WARNING),
    ]


def test_what_is_out_of_reach_for_one_reason_is_one_finding_with_the_remedy_for_it() -> None:
    def broken(resource: str, error: str, remedy: str = "") -> Watch:
        return Watch(resource, connected=False, seconds_since_contact=None, error=error, remedy=remedy)

    def watches(*found: Watch) -> list[Finding]:
        return [
            each for each in judge_health(WELL._replace(watches=found), "1.0") if each.check is Check.WATCH
        ]

    (refused,) = watches(broken("services", "refused"), broken("nodes", "reset"))
    assert (refused.about, "kubeconfig" in refused.mend) == ("nodes and services", True)
    (forbidden,) = watches(
        broken("services", "services is forbidden", "allow it"),
        broken("nodes", "nodes is forbidden", "allow it"),
    )
    assert forbidden.mend == "allow it"
    assert len(watches(broken("services", "refused"), broken("nodes", "Forbidden", "allow it"))) == 2


def test_an_agent_that_waits_for_what_is_out_of_reach_is_no_fault_of_its_own() -> None:
    watch = Watch("services", connected=False, seconds_since_contact=None, error="refused")
    assert the(Check.AGENT, synced=False, watches=[watch]).severity is Severity.INFO
    assert the(Check.AGENT, synced=False, watches=[watch._replace(error="")]).severity is Severity.WARNING


def test_the_configuration_is_fine_until_its_file_changes_in_a_way_that_the_agent_does_not_follow() -> None:
    assert judge_configuration("/c.conf", "", []).meaning.startswith("the agent goes by /c.conf: ")
    assert "its flags and the defaults" in judge_configuration("", "", []).meaning
    waiting = judge_configuration("/c.conf", "", ["healthzBindAddress"])
    assert (waiting.severity, waiting.meaning.endswith("healthzBindAddress")) == (Severity.WARNING, True)
    refused = judge_configuration("/c.conf", "line 3", [])
    assert (refused.severity, refused.mend) == (Severity.WARNING, "correct /c.conf")


@pytest.mark.parametrize(
    ("owner", "mode", "severity"),
    [(0, 0o700, Severity.OK), (0, 0o750, Severity.WARNING), (1000, 0o700, Severity.WARNING)],
)
def test_the_run_directory_is_for_root_only(owner: int, mode: int, severity: Severity) -> None:
    assert judge_run_directory(RunDirectory("/run/ipvsproxy", owner, mode)).severity is severity
