"""The command line of `ipvsproxy resync`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments.parser import Command, add_run_directory

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

_EPILOG = """\
Changes of Services go on meanwhile. What failed before is tried once more, whatever its pause.

examples:
  ipvsproxy resync

exit codes:
  0    everything is as it should be now
  1    something is not, or it failed; the last line on standard error says why
  2    a flag is wrong; one line on standard error names it
  77   not permitted: the command needs root; one line on standard error says so
  130  interrupted
"""


@dataclasses.dataclass(frozen=True, slots=True)
class ResyncArguments:
    """Which agent `ipvsproxy resync` asks."""

    run_directory: Path

    def execute(self) -> int:
        """Ask it, and wait for the end."""
        from ipvsproxy.cli.resync import resync  # noqa: PLC0415 - imported late, as Arguments says

        return resync(self)


def _read(namespace: argparse.Namespace, _: str) -> ResyncArguments:
    return ResyncArguments(namespace.run_directory)


COMMAND = Command(
    name="resync",
    summary="have the agent compare everything with the kernel now, and show what it repaired",
    usage="[--run-directory DIR]",
    description="Have the running agent compare everything with the kernel now, wait for the end, and show what it"
    "\nrepaired.",
    epilog=_EPILOG,
    add_flags=add_run_directory,
    read=_read,
)
