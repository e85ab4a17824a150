"""Test kernels on an emulated processor: what takes seconds elsewhere takes minutes there, and less has to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

Case = TypeVar("Case")

IS_EMULATED = "QEMU TCG" in Path("/proc/cpuinfo").read_text(encoding="ascii")

SLOWNESS = 20 if IS_EMULATED else 1
"""How many times as long as elsewhere a computation takes, about."""

# No divisor of the clients, families and protocols that cases take in turns, so that all of them come up.
_STRIDE = 7


def selected(cases: Sequence[Case]) -> Sequence[Case]:
    """Return the cases that are tried on this processor: all of them, or each seventh on an emulated one."""
    return cases[::_STRIDE] if IS_EMULATED else cases
