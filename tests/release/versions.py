"""The version is in ipvsproxy/__init__.py; these places repeat it, for who looks there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

from ipvsproxy import __version__

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
"""Where the programs of the development environment are."""


def stated() -> dict[str, str]:
    """Return the version by the place that states it."""
    chart = yaml.safe_load((REPOSITORY / "charts" / "ipvsproxy" / "Chart.yaml").read_text())
    newest = re.search(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    return {
        "ipvsproxy/__init__.py": __version__,
        "the chart's version": str(chart["version"]),
        "the chart's appVersion": str(chart["appVersion"]),
        "CHANGELOG.md's first entry": newest[1] if newest else "none",
    }
