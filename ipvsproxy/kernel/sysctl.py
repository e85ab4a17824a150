"""Kernel settings through /proc/sys."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.interface import KernelError
from ipvsproxy.plan.check.settings import FoundSetting
from ipvsproxy.plan.sysctls import IPV6_FORWARDING, Ipv6Found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ipvsproxy.kernel.interface import Sysctls
    from ipvsproxy.plan.sysctls import KernelSetting

_IPV6_CONF = "net/ipv6/conf"
# linux/ipv6_route.h: RTF_DEFAULT, and RTF_ADDRCONF, which is for what came by router advertisements.
_ADVERTISED_DEFAULT = 0x00010000 | 0x00040000
_OTHER_SEPARATOR = str.maketrans("./", "/.")

# In a container that is not privileged /proc/sys is read-only, and nothing may be mounted there. The host's
# /proc/sys/net mounted below this one can be written, and is the network namespace's own there, too.
MOUNTED = Path("/host/proc/sys")


class ProcSysctls:
    """The settings of the calling thread's network namespace, for what is kept for each of them."""

    def __init__(self, root: Path | None = None) -> None:
        """Take the folder that stands for /proc/sys; without one, where settings can be written is looked for."""
        self._root = root or find_root()

    def get(self, name: str) -> str | None:
        """Return the value without the white space around it, None where this kernel has no such setting."""
        try:
            return self._path(name).read_text().strip()
        except FileNotFoundError:
            return None

    def set(self, name: str, value: str) -> None:
        """Write the value; OSError when the kernel or the file system refuses."""
        # Without O_CREAT: what is not there is ENOENT on every file system.
        with self._path(name).open("r+") as file:
            file.write(value)

    def is_writable(self, name: str) -> bool:
        """Say whether the process may write the value: /proc/sys is read-only in many containers."""
        return os.access(self._path(name), os.W_OK)

    def _path(self, name: str) -> Path:
        """Return the file; the first separator says which of dot and slash parts the names (sysctl(8))."""
        first = next((character for character in name if character in "./"), "/")
        return self._root / (name.translate(_OTHER_SEPARATOR) if first == "." else name)


def find_root(mounted: Path = MOUNTED) -> Path:
    """Return the folder in which settings are found and, if the process may, written."""
    return mounted if (mounted / "net").is_dir() else Path("/proc/sys")


class SysctlFailure(NamedTuple):
    """A setting that is not as it should be; `found` is its value, None where there is none or it can't be read."""

    setting: KernelSetting
    found: str | None
    error: KernelError

    def __str__(self) -> str:
        """Return one line that names the setting, its value, the error and what it means."""
        found = "" if self.found is None else f", it is {self.found}"
        return f"{self.setting.name} can't be set to {self.setting.value}{found}: {self.error}; {self.setting.meaning}"


def read_ipv6(sysctls: Sysctls, routes: Path = Path("/proc/thread-self/net/ipv6_route")) -> Ipv6Found | None:
    """Return what is set for IPv6, None where this kernel has no IPv6; `routes` is the file with its routes.

    Where the node forwards already, nothing depends on its routes, and they are not read.
    """
    forwarding = sysctls.get(IPV6_FORWARDING)
    if forwarding is None:
        return None
    if forwarding != "0":
        return Ipv6Found(forwarding)
    accept_ra: dict[str, str] = {}
    # An interface that goes in the meantime can't be read; without the file, nothing is known of routes.
    with contextlib.suppress(OSError):
        for interface in _advertised(routes.read_text()):
            with contextlib.suppress(OSError):
                if (value := sysctls.get(f"{_IPV6_CONF}/{interface}/accept_ra")) is not None:
                    accept_ra[interface] = value
    return Ipv6Found(forwarding, accept_ra)


def _advertised(routes: str) -> Iterator[str]:
    """Yield the interfaces with default routes by router advertisements (rt6_info_route() in net/ipv6/route.c)."""
    for line in routes.splitlines():
        *_, flags, interface = line.split()
        if int(flags, 16) & _ADVERTISED_DEFAULT == _ADVERTISED_DEFAULT:
            yield interface


class AppliedSettings(NamedTuple):
    """What was set, each with the value before, and what could not be set."""

    made: list[tuple[KernelSetting, str]]
    failures: list[SysctlFailure]


def apply_settings(sysctls: Sysctls, plan: Iterable[KernelSetting]) -> AppliedSettings:
    """Set what differs; where this kernel has no such setting that is ENOENT."""
    made: list[tuple[KernelSetting, str]] = []
    failures: list[SysctlFailure] = []
    for setting in plan:
        found = None
        try:
            found = sysctls.get(setting.name)
            if found is None:
                failures.append(SysctlFailure(setting, None, KernelError(errno.ENOENT)))
            elif not setting.is_met(found):
                sysctls.set(setting.name, setting.value)
                made.append((setting, found))
        except OSError as error:
            failures.append(SysctlFailure(setting, found, KernelError(error.errno or errno.EIO)))
    return AppliedSettings(made, failures)


def find_settings(sysctls: ProcSysctls, plan: Iterable[KernelSetting]) -> list[FoundSetting]:
    """Return what is set, without changing it. OSError."""
    return [
        FoundSetting(setting, sysctls.get(setting.name), sysctls.is_writable(setting.name))
        for setting in plan
    ]
