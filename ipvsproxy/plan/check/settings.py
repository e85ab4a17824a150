"""Kernel settings as they are beside those that should be (`plan/sysctls.py`, which has the meaning of each)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.plan.check.finding import Check, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.plan.sysctls import KernelSetting


class FoundSetting(NamedTuple):
    """A setting, its value, None where this kernel has none, and whether it can be written from here."""

    setting: KernelSetting
    found: str | None
    writable: bool


def judge_settings(settings: Iterable[FoundSetting], *, in_use: bool) -> list[Finding]:
    """Judge each setting that is not as it should be, and all others in one finding.

    `in_use` says that the agent was here: before that, what it sets when it starts is no fault.
    """
    findings = []
    met = 0
    for each in settings:
        if each.found is not None and each.setting.is_met(each.found):
            met += 1
        else:
            findings.append(_judge(each, in_use=in_use))
    if met:
        words = "1 setting is as it should be" if met == 1 else f"{met} settings are as they should be"
        findings.insert(0, Finding(Check.KERNEL_SETTING, Severity.OK, words))
    return findings


def _judge(each: FoundSetting, *, in_use: bool) -> Finding:
    setting = each.setting
    if each.found is None:
        return Finding(
            Check.KERNEL_SETTING,
            Severity.WARNING if in_use else Severity.INFO,
            f"{setting.name} should be {setting.value} and is not there: {setting.meaning}"
            if in_use
            else f"{setting.name} should be {setting.value} and is not there yet: its module is not loaded",
            "" if in_use else "modprobe -a ip_vs nf_conntrack",
            setting.name,
        )
    state = f"{setting.name} is {each.found} and should be {setting.value}"
    if not in_use and each.writable:
        return Finding(
            Check.KERNEL_SETTING,
            Severity.INFO,
            f"{state}: the agent sets it when it starts",
            about=setting.name,
        )
    command = f"sysctl -w {setting.name}={setting.value}"
    return Finding(
        Check.KERNEL_SETTING,
        Severity.ERROR if setting.essential else Severity.WARNING,
        f"{state}: {setting.meaning}",
        command if each.writable else f"{command}, on the host: it can't be written from here",
        setting.name,
    )
