"""Kernel settings beside those that should be."""

from __future__ import annotations

import pytest

from ipvsproxy.plan.check.finding import Severity
from ipvsproxy.plan.check.settings import FoundSetting, judge_settings
from ipvsproxy.plan.sysctls import KernelSetting

FORWARD = KernelSetting("net.ipv4.ip_forward", "1", "nothing is passed on", essential=True)
ROOM = KernelSetting("net.netfilter.nf_conntrack_max", "100", "there is less room", at_least=True)


def test_settings_that_are_met_are_one_finding_and_a_higher_limit_meets() -> None:
    met = [FoundSetting(FORWARD, "1", writable=True), FoundSetting(ROOM, "200", writable=False)]
    (found,) = judge_settings(met, in_use=True)
    assert (found.severity, found.meaning) == (Severity.OK, "2 settings are as they should be")
    (found,) = judge_settings(met[:1], in_use=False)
    assert found.meaning == "1 setting is as it should be"


@pytest.mark.parametrize(
    ("setting", "in_use", "writable", "severity"),
    [
        (FORWARD, True, True, Severity.ERROR),
        (FORWARD, True, False, Severity.ERROR),
        (ROOM, True, True, Severity.WARNING),
        (FORWARD, False, True, Severity.INFO),
        (FORWARD, False, False, Severity.ERROR),
        (ROOM, False, False, Severity.WARNING),
    ],
)
def test_a_setting_is_a_fault_once_the_agent_was_here_or_where_it_could_not_set_it(
    *, setting: KernelSetting, in_use: bool, writable: bool, severity: Severity
) -> None:
    (found,) = judge_settings(
        [FoundSetting(setting, "1" if setting is ROOM else "0", writable)], in_use=in_use
    )
    assert (found.severity, found.about) == (severity, setting.name)
    if severity is Severity.INFO:
        assert found.meaning.endswith(": the agent sets it when it starts")
        assert found.mend == ""
    else:
        assert found.meaning.endswith(f"and should be {setting.value}: {setting.meaning}")
        assert found.mend.startswith(f"sysctl -w {setting.name}={setting.value}")
        assert ("on the host" in found.mend) == (not writable)


def test_a_setting_that_is_not_there_waits_for_its_module_or_is_missed() -> None:
    (before,) = judge_settings([FoundSetting(ROOM, None, writable=False)], in_use=False)
    (later,) = judge_settings([FoundSetting(ROOM, None, writable=False)], in_use=True)
    assert (before.severity, before.mend) == (Severity.INFO, "modprobe -a ip_vs nf_conntrack")
    assert (later.severity, later.meaning) == (
        Severity.WARNING,
        "net.netfilter.nf_conntrack_max should be 100 and is not there: there is less room",
    )
