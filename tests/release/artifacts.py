"""What is in a wheel and in a source distribution, and what has to be."""

from __future__ import annotations

import email
import tarfile
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message
    from pathlib import Path

# Whoever gets the source can check it as its authors do, and install it in their ways.
IN_THE_SOURCE = (
    *(".dockerignore", "CHANGELOG.md", "Dockerfile", "LICENSE", "Makefile", "README.md", "SECURITY.md"),
    "pyproject.toml",
    *("bench", "charts", "docs", "examples", "image", "ipvsproxy", "netns_tests", "requirements", "tests"),
)
ENTRY_POINTS = "[console_scripts]\nipvsproxy = ipvsproxy.cli.main:main\n"


def problems_of_wheel(path: Path, modules: set[str], version: str) -> Iterator[str]:
    """Yield what is wrong with a wheel that is to have these files of the package, and no others."""
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        information = f"ipvsproxy-{version}.dist-info"
        metadata: Message = email.message_from_bytes(wheel.read(f"{information}/METADATA"))
        entry_points = wheel.read(f"{information}/entry_points.txt").decode()
    own = {name for name in names if not name.startswith(f"{information}/")}
    yield from (f"{path.name} has {name}, which the package has not" for name in sorted(own - modules))
    yield from (f"{path.name} lacks {name}" for name in sorted(modules - own))
    if f"{information}/licenses/LICENSE" not in names:
        yield f"{path.name} lacks the text of the licence"
    if "ipvsproxy/py.typed" not in names:
        yield f"{path.name} lacks py.typed, so its types are not seen"
    if entry_points != ENTRY_POINTS:
        yield f"{path.name} has other entry points: {entry_points!r}"
    if metadata["Version"] != version:
        yield f"{path.name} says that it is version {metadata['Version']}"
    if metadata["License-Expression"] != "Apache-2.0":
        yield f"{path.name} says that its licence is {metadata['License-Expression']}"


def problems_of_source(path: Path, version: str) -> Iterator[str]:
    """Yield what is wrong with a source distribution."""
    root = f"ipvsproxy-{version}"
    with tarfile.open(path) as archive:
        names = archive.getnames()
    found = {name.split("/")[1] for name in names if "/" in name}
    yield from (f"{path.name} lacks {name}" for name in sorted(set(IN_THE_SOURCE) - found))
    yield from (f"{path.name} has {name} outside of {root}" for name in names if name.split("/")[0] != root)
    made = [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    yield from (f"{path.name} has {name}, which is made by running it" for name in made)
