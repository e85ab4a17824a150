"""The program under test: that of the working tree, or another by IPVSPROXY_PROGRAM, in words as of a shell."""

from __future__ import annotations

import os
import shlex
import sys

PROGRAM = tuple(shlex.split(os.environ.get("IPVSPROXY_PROGRAM", ""))) or (sys.executable, "-m", "ipvsproxy")
