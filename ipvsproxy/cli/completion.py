"""The command `ipvsproxy completion`: shtab writes the script from the parser of the command line."""

from __future__ import annotations

import argparse
import sys
from typing import Final

import shtab

from ipvsproxy.cli.arguments import parsers

# What completes a value, by the metavar that stands for it in the help.
_COMPLETED_AS: Final = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}


def print_completion(shell: str) -> int:
    """Print the script for a shell that shtab knows."""
    top, commands = parsers()
    for parser in commands.values():
        for action in parser._actions:  # noqa: SLF001 - argparse has no public list, and shtab reads this one
            if isinstance(action.metavar, str) and action.metavar in _COMPLETED_AS:
                action.complete = _COMPLETED_AS[action.metavar]  # type: ignore[attr-defined] # shtab's own attribute
            if "->" in action.option_strings:
                # A shell takes it for a redirection.
                action.help = argparse.SUPPRESS
    sys.stdout.write(f"{shtab.complete(top, shell)}\n")
    return 0
