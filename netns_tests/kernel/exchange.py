"""The folder that a run and its machine share: the command goes in, output, exit code and report come out."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Seen(NamedTuple):
    """What can be seen of a run at one moment."""

    started: bool
    exit_code: int | None
    panicked: bool


class Exchange:
    """The files of one run in `directory`, named as in guest.sh."""

    def __init__(self, directory: Path) -> None:
        """Use an existing, empty folder."""
        self.directory = directory
        self.console = directory / "console"
        self.output = directory / "output"
        self.junit = directory / "junit.xml"

    def write_command(self, script: str) -> None:
        """Say what is to be run; see `command_script`."""
        (self.directory / "command").write_text(script, encoding="utf-8")

    def look(self) -> Seen:
        """Return how far the run has come."""
        try:
            exit_code = int((self.directory / "exit-code").read_text(encoding="ascii"))
        except FileNotFoundError:
            exit_code = None
        return Seen(
            started=(self.directory / "started").exists(),
            exit_code=exit_code,
            panicked=b"Kernel panic - not syncing" in self.console.read_bytes(),
        )

    def console_tail(self, lines: int = 40) -> str:
        """Return the last lines of what the kernel and its runner printed."""
        text = self.console.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:]) or "(nothing)"


def command_script(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> str:
    """Return the shell script that runs `command` in `directory` with `environment`.

    The directories of system programs are added to PATH. Variables whose names no shell takes are left out:
    functions that bash exports, for example.
    """
    variables = {name: value for name, value in sorted(environment.items()) if _VARIABLE.fullmatch(name)}
    variables["PATH"] = ":".join(filter(None, [variables.get("PATH"), _SYSTEM_PATH]))
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*exports, f"cd {shlex.quote(str(directory))}", f"exec {shlex.join(command)}", ""])
