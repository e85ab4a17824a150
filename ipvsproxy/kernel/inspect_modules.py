"""Which kernel modules there are: loaded, built in, or on the disk to be loaded, without loading any.

What the kernel has is told by /proc/modules, by what a module leaves in /proc, and by the kernel's configuration; what
it could load by the index files of /lib/modules (modprobe(8)). A container often has but some of them.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.plan.check.kernel import IPVS, ModuleState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator


class ModuleLists(NamedTuple):
    """Names of modules, with underscores; None for a list that is not to be had here.

    `present` are in the kernel for certain. `configured` has the kernel's options, such as CONFIG_IP_VS, with y or m.
    """

    present: Collection[str]
    built_in: Collection[str] | None
    loadable: Collection[str] | None
    configured: dict[str, str] | None

    def state(self, name: str) -> ModuleState:
        """Return where a module is."""
        option = self.configured.get(f"CONFIG_{name.upper()}") if self.configured is not None else None
        if name in self.present:
            return ModuleState.LOADED
        if option == "y" or name in (self.built_in or ()):
            return ModuleState.BUILT_IN
        if name in (self.loadable or ()):
            return ModuleState.LOADABLE
        if self.loadable is None:
            if option == "m":
                return ModuleState.LOADABLE
            return ModuleState.UNKNOWN if self.configured is None else ModuleState.MISSING
        return ModuleState.MISSING


def read_modules(release: str, schedulers: Iterable[str], root: Path = Path("/")) -> ModuleLists:
    """Read the lists of the kernel with this release; `schedulers` are those that virtual servers of it have."""
    proc = root / "proc"
    present = {line.split()[0] for line in _lines(proc / "modules") or ()}
    # A scheduler in use is there, wherever it came from.
    present |= {f"{IPVS}_{scheduler}" for scheduler in schedulers}
    traces = {
        IPVS: "sys/net/ipv4/vs",
        "nf_conntrack": "sys/net/netfilter/nf_conntrack_max",
        "dummy": "sys/net/ipv4/conf/kube-ipvs0",
    }
    present |= {name for name, path in traces.items() if (proc / path).exists()}
    folder = root / "lib/modules" / release
    built_in, loadable = _lines(folder / "modules.builtin"), _lines(folder / "modules.dep")
    return ModuleLists(
        present,
        None if built_in is None else set(map(_name, built_in)),
        None if loadable is None else {_name(line.partition(":")[0]) for line in loadable},
        _configuration(release, root),
    )


def _configuration(release: str, root: Path) -> dict[str, str] | None:
    try:
        text = gzip.decompress((root / "proc/config.gz").read_bytes()).decode()
    except (OSError, EOFError):
        try:
            text = (root / "boot" / f"config-{release}").read_text()
        except OSError:
            return None
    return dict(_options(text))


def _options(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            yield name, value


def _lines(path: Path) -> list[str] | None:
    try:
        return path.read_text().splitlines()
    except OSError:
        return None


def _name(path: str) -> str:
    """Return the name of the module in a file such as `kernel/net/netfilter/ipvs/ip_vs.ko.xz`."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
