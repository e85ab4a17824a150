"""A shell on a node, for the commands of a page: they end by themselves and ask nothing."""

from __future__ import annotations

import contextlib
import io
import shlex
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.cli.main import main
from netns_tests.bare_node import REPOSITORY
from netns_tests.program import PROGRAM, without_waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from netns_tests.namespaces import Namespace

_IN_THIS_PROCESS = ("check", "explain")


class Shell(NamedTuple):
    """A shell on a node; `renamed` are the paths of the test, with those that the page has in their place."""

    namespace: Namespace
    run_directory: Path
    renamed: Mapping[str, str]

    def run(self, line: str) -> str:
        """Run a command line to its end, and return what it writes, to standard error too."""
        for ours, pages in self.renamed.items():
            line = line.replace(pages, ours)
        program, *words = shlex.split(line)
        if program == "ipvsproxy":
            words.append(f"--run-directory={self.run_directory}")
        with self.namespace.entered():
            if program == "ipvsproxy" and words[0] in _IN_THIS_PROCESS:
                written = _run_here(words)
            else:
                written = _run([*PROGRAM, *words] if program == "ipvsproxy" else [program, *words])
        for ours, pages in {**self.renamed, str(self.run_directory): "/run/ipvsproxy"}.items():
            written = written.replace(ours, pages)
        return written


def _run_here(words: Sequence[str]) -> str:
    """Do what the program does, without a start of Python for each look."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
        main(words)
    return without_waiting(written.getvalue())


def _run(command: Sequence[str]) -> str:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=REPOSITORY,
    ).stdout
