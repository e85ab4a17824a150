"""Makes the kernel settings that the configuration asks for, and tells of those that can't be made."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ipvsproxy.cli.settings import connection_timeouts, sysctl_settings
from ipvsproxy.kernel.interface import KernelError
from ipvsproxy.kernel.sysctl import ProcSysctls, apply_settings, read_ipv6
from ipvsproxy.plan.sysctls import sysctl_plan

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.config.settings import Config
    from ipvsproxy.kernel.interface import Ipvs, Sysctls
    from ipvsproxy.plan.sysctls import KernelSetting


def expected_settings(config: Config, sysctls: Sysctls) -> tuple[KernelSetting, ...]:
    """Return the settings that the configuration asks for on this kernel."""
    ipv6 = read_ipv6(sysctls)
    return sysctl_plan(sysctl_settings(config, os.uname().release, os.cpu_count() or 1, ipv6))


def make_kernel_settings(config: Config, ipvs: Ipvs, log: FilteringBoundLogger) -> None:
    """Make them where they differ; one that can't be made is one line."""
    sysctls = ProcSysctls()
    for setting, found, error in apply_settings(sysctls, expected_settings(config, sysctls)):
        log.warning(
            "kernel setting not made",
            setting=setting.name,
            wanted=setting.value,
            found=found,
            reason=str(error),
            meaning=setting.meaning,
        )
    timeouts = connection_timeouts(config)
    if not any(timeouts):
        return
    try:
        ipvs.set_timeouts(timeouts)
    except OSError as error:
        log.warning(
            "IPVS timeouts not set",
            tcp=timeouts.tcp,
            tcp_fin=timeouts.tcp_fin,
            udp=timeouts.udp,
            reason=str(KernelError(error.errno or errno.EIO)),
        )
