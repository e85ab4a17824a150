"""Durations in the syntax of Go's time.ParseDuration, which KubeProxyConfiguration and kube-proxy's flags use."""

import re
from typing import Final

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "\N{MICRO SIGN}s": 10**3,
    "\N{GREEK SMALL LETTER MU}s": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(rf"([0-9]+\.?[0-9]*|\.[0-9]+)({'|'.join(_NANOSECONDS)})")
_DURATION = re.compile(rf"0|(?:{_PART.pattern})+")
# In whole hours what Go can hold, which is 2**63 nanoseconds; and what Python can wait for.
_LONGEST: Final = 2_562_047 * _NANOSECONDS["h"]


def parse_duration(text: str) -> float:
    """Return the seconds that `text` spells, such as 30s, 1m30s or 0; ValueError otherwise, also for a sign."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 30s or 1m30s")
    parts = [float(number) * _NANOSECONDS[unit] for number, unit in _PART.findall(text)]
    if sum(parts) > _LONGEST:
        raise ValueError(f"{text!r} is longer than a duration can be, which is 292 years")
    return sum(map(round, parts)) / 10**9


def format_duration(seconds: float) -> str:
    """Return the shortest spelling in hours, minutes and seconds (1m30s, 15m, 0.5s, 0s), exact to the nanosecond."""
    nanoseconds = round(seconds * 10**9)
    hours, nanoseconds = divmod(nanoseconds, _NANOSECONDS["h"])
    minutes, nanoseconds = divmod(nanoseconds, _NANOSECONDS["m"])
    whole, fraction = divmod(nanoseconds, _NANOSECONDS["s"])
    text = f"{hours}h" * bool(hours) + f"{minutes}m" * bool(minutes)
    if not nanoseconds and text:
        return text
    return text + f"{whole}.{fraction:09}".rstrip("0").rstrip(".") + "s"
