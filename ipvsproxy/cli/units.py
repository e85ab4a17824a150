"""Numbers for people."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def format_bytes(count: int) -> str:
    """Return the count in the unit of powers of 1000 that leaves one to three digits before the point: `1.2 kB`."""
    size, unit = float(count), 0
    while round(size, 1) >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - as above
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{count} B"
