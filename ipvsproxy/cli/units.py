"""Numbers for people, and for programs that read what people read."""

from __future__ import annotations

from typing import Final

_SMALL: Final = 10


def exact(number: float) -> str:
    """Return a rate for programs: whole, but with a decimal below 10."""
    return f"{number:.1f}" if 0 < number < _SMALL and number % 1 else f"{number:.0f}"


def compact(number: float) -> str:
    """Return a rate in at most five letters: 0.5, 12, 9999, 12.3k, 4.56M."""
    if number < 10_000:  # noqa: PLR2004 - four digits
        return exact(number)
    for unit in "kMGT":
        number /= 1000
        if number < 999.5 or unit == "T":  # noqa: PLR2004 - what is rounded to three digits before the unit
            break
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0  # noqa: PLR2004 - three digits in all
    return f"{number:.{decimals}f}{unit}"
