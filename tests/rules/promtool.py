"""Prometheus' promtool, out of Debian's package: `python -m tests.rules.promtool` puts it where the tests look for it.

The package is not installed: it would start a server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_PACKAGE = "prometheus"
_PROGRAM = "usr/bin/promtool"
_REPOSITORY = Path(__file__).parents[2]
DOWNLOADED = _REPOSITORY / "build" / "promtool" / "promtool"


def find() -> str | None:
    """Return the path of promtool; None if this machine has none."""
    return str(DOWNLOADED) if DOWNLOADED.exists() else shutil.which("promtool")


def download() -> None:
    """Take the program out of the package; CalledProcessError or FileNotFoundError if it can't be had."""
    DOWNLOADED.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DOWNLOADED.parent) as scratch:
        # Without a user of its own, because that user may not write here.
        _run(
            "apt-get", "--quiet", "download", "--option=APT::Sandbox::User=root", _PACKAGE, directory=scratch
        )
        (package,) = Path(scratch).glob("*.deb")
        _run("dpkg-deb", "--extract", str(package), "tree", directory=scratch)
        # In one step: a test may look for it at any moment.
        Path(scratch, "tree", _PROGRAM).rename(DOWNLOADED)


def _run(*command: str, directory: str) -> None:
    subprocess.run(
        command, cwd=directory, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"}
    )


if __name__ == "__main__":
    if find() is None:
        try:
            download()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no promtool, so the alerts are not tested: {error}", file=sys.stderr)
