"""What the wheel needs besides itself is what it declares: the image has nothing else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_packages() -> Iterator[str]:
    """Yield the first word of every import of another package, at the top of a module or late."""
    for path in (REPOSITORY / "ipvsproxy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    yield from (each.name.partition(".")[0] for each in names)
                case ast.ImportFrom(module=str(module), level=0):
                    yield module.partition(".")[0]


def test_every_package_that_is_imported_is_a_dependency_and_every_dependency_is_imported() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {normalised(re.split(r"[<>=!~\[ ;]", each)[0]) for each in project["dependencies"]}
    others = set(imported_packages()) - sys.stdlib_module_names - {"ipvsproxy"}
    distributions = packages_distributions()
    assert {normalised(distributions[each][0]) for each in others} == declared
