"""What `ipvsproxy check -o json` writes. docs/check.md describes it.

`schemaVersion` counts up when a field goes, or changes its name, its type or its meaning; a new field does not count,
nor does a new check.
"""

from ipvsproxy.observe.schema import Schema
from ipvsproxy.plan.check.finding import Check, Severity

CHECK_SCHEMA_VERSION = 1


class ShownFinding(Schema, frozen=True):
    """A finding; `about` is the thing among several that it is about, None if there is but one.

    `mend` is the command that mends it, or what else to do; None if nothing has to be done.
    """

    check: Check
    severity: Severity
    about: str | None
    meaning: str
    mend: str | None


class CheckResult(Schema, frozen=True):
    """All that `check` shows; `worst` is the severity of the worst finding, the exit code follows from it."""

    schema_version: int
    version: str
    worst: Severity
    findings: list[ShownFinding]
