"""What `ipvsproxy check` prints for a person: a line for each finding, the worst first, and how to mend it below."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Final

from ipvsproxy.observe.printable import printable
from ipvsproxy.plan.check.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ipvsproxy.cli.layout import Look
    from ipvsproxy.plan.check.finding import Finding

_SEPARATOR: Final = "  "
_MEND: Final = "mend: "
_RESET: Final = "\x1b[0m"
_COLOURS: Final = {
    Severity.OK: "\x1b[32m",
    Severity.INFO: "\x1b[36m",
    Severity.UNKNOWN: "\x1b[35m",
    Severity.WARNING: "\x1b[33m",
    Severity.ERROR: "\x1b[31m",
}
# A terminal that is narrower than this wraps by itself.
_NARROWEST: Final = 60


def render(findings: Sequence[Finding], look: Look) -> str:
    """Return the findings in their order, and a last line with how many there are of each severity."""
    severity_width = max(map(len, Severity))
    check_width = max((len(each.check) for each in findings), default=0)
    lines = []
    for each in findings:
        severity = each.severity.ljust(severity_width)
        if look.colours:
            severity = f"{_COLOURS[each.severity]}{severity}{_RESET}"
        lead = f"{severity}{_SEPARATOR}{each.check.ljust(check_width)}{_SEPARATOR}"
        indent = " " * (severity_width + check_width + 2 * len(_SEPARATOR))
        first, *rest = _wrapped(each.meaning, indent, look)
        lines += [f"{lead}{first}", *(f"{indent}{line}" for line in rest)]
        if each.mend:
            lines += [f"{indent}{line}" for line in _wrapped(f"{_MEND}{each.mend}", indent, look)]
    return "".join(f"{line}\n" for line in (*lines, "", ", ".join(_counts(findings))))


def _counts(findings: Sequence[Finding]) -> Iterator[str]:
    counts = Counter(each.severity for each in findings)
    for severity in reversed(Severity):
        if counts[severity]:
            plural = "s" if counts[severity] > 1 and severity in {Severity.WARNING, Severity.ERROR} else ""
            yield f"{counts[severity]} {severity}{plural}"


def _wrapped(text: str, indent: str, look: Look) -> list[str]:
    """Return the text in lines as wide as the terminal has room for; on one line off a terminal."""
    text = printable(text)
    if look.width is None or look.width < _NARROWEST:
        return [text]
    width = look.width - len(indent)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
