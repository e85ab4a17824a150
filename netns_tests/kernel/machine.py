"""What a runner hands over: how to start its kernel; and the errors of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

RunnerName = Literal["host", "docker", "uml", "virtme"]

NOT_RUN = 125
"""Exit code when the command did not run to its end for a reason of the runner's; as in docker(1) and timeout(1)."""

TIMED_OUT = 124
"""Exit code when the command was stopped because it stalled; as in timeout(1)."""


class KernelRunError(Exception):
    """The command could not be run, or not to its end; the message is one line for a person."""

    def __init__(self, message: str, exit_code: int = NOT_RUN) -> None:
        """Keep the exit code that the program ends with."""
        super().__init__(message)
        self.exit_code = exit_code


class Machine(NamedTuple):
    """A kernel that can be started."""

    description: str
    argv: list[str]


class Guest(NamedTuple):
    """What a machine runs first; the same paths hold inside and outside."""

    repository: Path
    """The working tree, writable in every machine."""
    exchange: Path
    """The folder of this run's `Exchange`, below the working tree."""

    def argv(self, runner: RunnerName, *extra: str) -> list[str]:
        """Return the command line of `guest.sh` for one runner."""
        script = Path(__file__).with_name("guest.sh")
        return ["/bin/sh", str(script), runner, str(self.repository), str(self.exchange), *extra]
