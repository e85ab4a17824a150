"""Files that hold what the program printed when somebody last looked at it, and was content."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_VARIABLE = "REGENERATE"


def assert_golden(path: Path, text: str) -> None:
    """Say that the file holds the text; with REGENERATE=1 in the environment, write it instead."""
    if os.environ.get(_VARIABLE):
        path.write_text(text)
    assert text == path.read_text(), f"if this is meant: {_VARIABLE}=1 make unit ARGS='--no-cov tests/cli'"
