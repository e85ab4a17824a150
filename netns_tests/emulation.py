"""Test kernels on an emulated processor: what takes seconds elsewhere takes minutes there, and less has to do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Case = TypeVar("Case")

IS_EMULATED = "QEMU TCG" in Path("/proc/cpuinfo").read_text(encoding="ascii")

SLOWNESS = 20 if IS_EMULATED else 1
"""How many times as long as elsewhere a computation takes, about."""

# No divisor of the clients, families and protocols that cases take in turns, so that all of them come up.
_STRIDE = 7


def selected(cases: Sequence[Case]) -> Sequence[Case]:
    """Return the cases that are tried on this processor: all of them, or each seventh on an emulated one."""
    return cases[::_STRIDE] if IS_EMULATED else cases


def each_seventh(tests: Iterable[str]) -> Iterator[bool]:
    """Say of each test whether it is tried on an emulated processor; a test is named `path::name[parameters]`.

    It is each seventh of those with one name and other parameters, beginning with the first: the order is random.
    """
    seen: Counter[str] = Counter()
    for test in tests:
        name, _, _ = test.partition("[")
        yield seen[name] % _STRIDE == 0
        seen[name] += 1
