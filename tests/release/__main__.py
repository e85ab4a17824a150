"""What is released, built and tried: `python -m tests.release`, all of it below build/release.

The wheel and the source distribution, the one built from the other; an environment with the locked requirements and
the wheel, and nothing else; the bill of materials of that. The exit code is 1 if something is not as it has to be.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from typing import TYPE_CHECKING

from ipvsproxy import __version__
from tests.release import artifacts, bill, versions
from tests.release.versions import PROGRAMS, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RELEASE = REPOSITORY / "build" / "release"
ENVIRONMENT = RELEASE / "environment"
LOCK = REPOSITORY / "requirements" / "run.txt"
BILL = RELEASE / f"ipvsproxy-{__version__}.cdx.json"

_WHEEL = f"ipvsproxy-{__version__}-py3-none-any.whl"
_SOURCE = f"ipvsproxy-{__version__}.tar.gz"


def main() -> int:
    """Take the steps up to the first that finds a problem; return 1 if one did."""
    shutil.rmtree(RELEASE, ignore_errors=True)
    steps = {
        "one version everywhere": _version_problems,
        "wheel and source distribution": _artifact_problems,
        "the wheel in an empty environment": _environment_problems,
    }
    found: list[str] = []
    for name, problems in steps.items():
        print(f"release: {name}", flush=True)
        # Each step builds on those before.
        if found := list(problems()):
            break
    for problem in found:
        print(f"release: {problem}", file=sys.stderr)
    if not found:
        print(f"release: all is well, in {RELEASE.relative_to(REPOSITORY)}")
    return 1 if found else 0


def _version_problems() -> Iterator[str]:
    for place, version in versions.stated().items():
        if version != __version__:
            yield f"{place} says {version}, not {__version__}"


def _artifact_problems() -> Iterator[str]:
    again = RELEASE / "again"
    # The first builds the source distribution, and the wheel from what is in that; the second one from the tree.
    _build(RELEASE)
    _build(again, "--wheel")
    modules = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "ipvsproxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    yield from artifacts.problems_of_wheel(RELEASE / _WHEEL, modules, __version__)
    yield from artifacts.problems_of_source(RELEASE / _SOURCE, __version__)
    if _hash(RELEASE / _WHEEL) != _hash(again / _WHEEL):
        yield "the wheel that is built from the source distribution differs from the one of the working tree"


def _environment_problems() -> Iterator[str]:
    venv.create(ENVIRONMENT, with_pip=False, symlinks=True)
    python = ENVIRONMENT / "bin" / "python"
    report = RELEASE / "installed.json"
    _pip("install", "--require-hashes", "--no-deps", "--report", str(report), "--requirement", str(LOCK))
    materials = bill.written(
        BILL, python, REPOSITORY / "pyproject.toml", __version__, json.loads(report.read_text())
    )
    yield from bill.problems(materials, bill.locked(LOCK.read_text()))
    _pip("install", "--no-deps", str(RELEASE / _WHEEL))
    _pip("check")
    said = _output(str(ENVIRONMENT / "bin" / "ipvsproxy"), "--version")
    if said != f"ipvsproxy {__version__}":
        yield f"the installed program says {said!r}, not version {__version__}"
    place = _output(str(python), "-c", "import ipvsproxy; print(ipvsproxy.__file__)")
    if not place.startswith(str(ENVIRONMENT)):
        yield f"the environment's ipvsproxy is {place}"


def _build(directory: Path, *options: str) -> None:
    command = [
        str(PROGRAMS / "uv"),
        "build",
        "--quiet",
        "--offline",
        "--no-build-isolation",
        "--no-create-gitignore",
    ]
    subprocess.run(
        [*command, "--python", sys.executable, "--out-dir", str(directory), *options],
        check=True,
        cwd=REPOSITORY,
        # In a zip archive files have a time: hatchling's own, which is the same in every place.
        env={name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"},
    )


def _pip(*words: str) -> None:
    """Run the development environment's pip on the empty one, which has none."""
    python = str(ENVIRONMENT / "bin" / "python")
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *quiet, *words], check=True)


def _output(*command: str) -> str:
    # Outside of the repository, whose own package would come first.
    ended = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ENVIRONMENT)
    return ended.stdout.strip()


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
