"""The runner `virtme`: QEMU and Debian's kernel, put together by virtme-ng; it runs wherever QEMU does, but slowly.

Always with QEMU's own emulation: a /dev/kvm that opens may still belong to a guest that never gets on.
"""

from __future__ import annotations

import compileall
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from netns_tests.kernel.machine import KernelRunError, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns_tests.kernel.machine import Guest

_META_PACKAGE = "linux-image-amd64"

# What an emulated processor should not be bothered with. A second one is the worst: the two wake each other for every
# answer from the host's file system, and the same work takes three times as long.
_LEAST_WORK = ("--cpus", "1", "--append", "mitigations=off", "--append", "init_on_alloc=0")


class DebianKernel(NamedTuple):
    """An unpacked kernel package."""

    version: str
    """As in uname -r, for example 6.1.0-40-amd64."""
    directory: Path

    @property
    def image(self) -> Path:
        """Return the bootable file; virtme-ng finds the modules beside it."""
        return self.directory / "boot" / f"vmlinuz-{self.version}"


def parse_depends(text: str) -> str | None:
    """Return the version of the kernel package that `apt-cache depends linux-image-amd64` names, if it names one."""
    match = re.search(r"^\s*Depends: linux-image-(\d\S*)$", text, re.MULTILINE)
    return match and match[1]


def debian_kernel(announce: Callable[[str], None]) -> DebianKernel:
    """Return Debian's present kernel, downloaded and unpacked unless an earlier run did that."""
    version = _present_version()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipvsproxy" / "kernels"
    kernel = DebianKernel(version, cache / version)
    if not kernel.directory.exists():
        announce(f"downloading Debian's linux-image-{version} into {cache}")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as name:
            _unpack(version, Path(name))
    return kernel


def _present_version() -> str:
    version = parse_depends(_run(["apt-cache", "depends", _META_PACKAGE]))
    if version is None:
        _run(["apt-get", "update", "--quiet"])
        version = parse_depends(_run(["apt-cache", "depends", _META_PACKAGE]))
    if version is None:
        raise KernelRunError(f"apt knows no package {_META_PACKAGE}: the runner virtme needs Debian on amd64")
    return version


def _unpack(version: str, scratch: Path) -> None:
    """Fill `scratch`/../`version`, in one step: another run may look for it at any moment."""
    # Without a user of its own, because that user may not write here.
    _run(["apt-get", "download", "--option=APT::Sandbox::User=root", f"linux-image-{version}"], scratch)
    package = next(scratch.glob("*.deb"))
    tree = scratch / "tree"
    _run(["dpkg-deb", "--extract", str(package), str(tree)])
    _run(["depmod", "--basedir", str(tree), version])
    if not (scratch.parent / version).exists():
        tree.rename(scratch.parent / version)


def _run(argv: list[str], directory: Path | None = None) -> str:
    try:
        return subprocess.run(argv, cwd=directory, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise KernelRunError(
            f"the runner virtme needs the program {argv[0]}, which is not installed"
        ) from None
    except subprocess.CalledProcessError as error:
        reason = next(iter(reversed(error.stderr.splitlines())), f"exit code {error.returncode}")
        raise KernelRunError(f"{shlex.join(argv)}: {reason}") from error


def missing_packages() -> list[str]:
    """Return the Debian packages that this runner needs and that are not installed."""
    packages = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "file": "file"}
    return [package for program, package in packages.items() if shutil.which(program) is None]


def compile_sources(repository: Path) -> None:
    """Compile the packages to bytecode here: in there, each process would take seconds for it."""
    for package in ("ipvsproxy", "netns_tests", "bench"):
        compileall.compile_dir(repository / package, quiet=1)


def machine(kernel: DebianKernel, guest: Guest, memory: str) -> Machine:
    """Return the machine that boots `kernel` on this machine's file system; it can write to the working tree only."""
    shared: list[str] = []
    remounts: list[str] = []
    for number, folder in enumerate([sys.prefix, sysconfig.get_path("stdlib")]):
        shared.append(f"--rodir=/run/shared/{number}={folder}")
        remounts += [f"/run/shared/{number}", folder]
    programs = Path(sys.executable).parent
    return Machine(
        f"virtme-ng with Debian's Linux {kernel.version}",
        [
            # It starts its helpers by name.
            *("env", f"PATH={programs}:{os.environ['PATH']}", "vng", "--verbose"),
            *("--disable-kvm", "--force-9p", "--user", "root", "--memory", memory, *_LEAST_WORK),
            *("--run", str(kernel.image), f"--rwdir={guest.repository}", *shared),
            *("--exec", shlex.join(guest.argv("virtme", *remounts))),
        ],
    )
