"""The kernel's settings: made when the agent starts or its configuration changes, and looked at with each resync."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

from ipvsproxy.cli.settings import connection_timeouts, sysctl_settings
from ipvsproxy.kernel.interface import KernelError
from ipvsproxy.kernel.sysctl import ProcSysctls, apply_settings, read_ipv6
from ipvsproxy.plan.sysctls import sysctl_plan

if TYPE_CHECKING:
    from collections.abc import Collection

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.config.settings import Config
    from ipvsproxy.kernel.interface import Ipvs, Sysctls
    from ipvsproxy.kernel.sysctl import SysctlFailure
    from ipvsproxy.plan.sysctls import KernelSetting


def expected_settings(config: Config, sysctls: Sysctls) -> tuple[KernelSetting, ...]:
    """Return the settings that the configuration asks for on this kernel."""
    ipv6 = read_ipv6(sysctls)
    return sysctl_plan(sysctl_settings(config, os.uname().release, os.cpu_count() or 1, ipv6))


class KernelSettings:
    """Makes the settings where they differ, and remembers what it said of those that it can't make.

    `make` and `look` may be called from any thread; `wrong` has the names of the settings that are not as they should
    be since the last call of either, and `made_again` is how many of them the last `look` made.
    """

    def __init__(self, log: FilteringBoundLogger, sysctls: Sysctls | None = None) -> None:
        """Take the log, and where settings are; nothing is looked at yet."""
        self._log = log
        self._sysctls = sysctls or ProcSysctls()
        self._lock = threading.Lock()
        self.made_again = 0
        self._failures: list[SysctlFailure] = []
        self._timeouts_failure: str | None = None
        # They are asked for only until the node forwards, and needed ever after.
        self._router_advertisements: dict[str, KernelSetting] = {}

    @property
    def wrong(self) -> Collection[str]:
        """The names of the settings that are not as they should be and can't be made."""
        return [failure.setting.name for failure in self._failures]

    def make(self, config: Config, ipvs: Ipvs) -> None:
        """Make the settings of a configuration; one that can't be made is one line."""
        with self._lock:
            self._failures = []
            self._timeouts_failure = None
            self._apply(config)
            self._set_timeouts(config, ipvs)

    def look(self, config: Config, ipvs: Ipvs) -> None:
        """Make again what somebody has set otherwise since, with a line for each; say what can't be made once."""
        with self._lock:
            self._set_timeouts(config, ipvs)
            made = self._apply(config)
            self.made_again = len(made)
            for setting, found in made:
                self._log.warning(
                    "kernel setting made again",
                    setting=setting.name,
                    wanted=setting.value,
                    found=found,
                    meaning=setting.meaning,
                )

    def _apply(self, config: Config) -> list[tuple[KernelSetting, str]]:
        plan = {each.name: each for each in expected_settings(config, self._sysctls)}
        self._router_advertisements = {
            name: setting
            for name, setting in (self._router_advertisements | plan).items()
            if name.endswith("/accept_ra") and self._exists(name)
        }
        applied = apply_settings(self._sysctls, (self._router_advertisements | plan).values())
        for failure in applied.failures:
            if failure not in self._failures:
                self._log.warning(
                    "kernel setting not made",
                    setting=failure.setting.name,
                    wanted=failure.setting.value,
                    found=failure.found,
                    reason=str(failure.error),
                    meaning=failure.setting.meaning,
                )
        self._failures = applied.failures
        return applied.made

    def _exists(self, name: str) -> bool:
        """Say whether there is such a setting; an interface may be gone with its own."""
        try:
            return self._sysctls.get(name) is not None
        except OSError:
            return False

    def _set_timeouts(self, config: Config, ipvs: Ipvs) -> None:
        timeouts = connection_timeouts(config)
        if not any(timeouts):
            return
        try:
            ipvs.set_timeouts(timeouts)
        except OSError as error:
            reason = str(KernelError(error.errno or errno.EIO))
            if reason != self._timeouts_failure:
                self._log.warning("IPVS timeouts not set", **timeouts._asdict(), reason=reason)
            self._timeouts_failure = reason
        else:
            self._timeouts_failure = None
