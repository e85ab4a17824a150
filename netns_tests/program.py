"""The program under test: that of the working tree, or another by IPVSPROXY_PROGRAM, in words as of a shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = tuple(shlex.split(os.environ.get("IPVSPROXY_PROGRAM", ""))) or (sys.executable, "-m", "ipvsproxy")

_REPOSITORY = Path(__file__).parents[1]
_WAITS = re.compile(r"^ipvsproxy: the agent has not answered for .*; waiting up to .*\n", re.MULTILINE)


def run_to_end(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the program in the thread's network namespace to its end, without a terminal."""
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=_REPOSITORY
    )
    ended.stderr = without_waiting(ended.stderr)
    return ended


def without_waiting(written: str) -> str:
    """Return what a command wrote, but for the line that says that it waits: on a slow machine any may have to."""
    return _WAITS.sub("", written)
