"""A folder that stands for /proc/sys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.kernel.sysctl import ProcSysctls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def settings_tree(folder: Path, values: Mapping[str, str]) -> ProcSysctls:
    """Return the settings of a kernel that has these, named with dots, and no others."""
    for name, value in values.items():
        file = folder / name.replace(".", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return ProcSysctls(folder)
