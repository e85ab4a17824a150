"""The bill of materials: every package that the agent needs, with version, licence and the hash of its archive."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.release.versions import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class Locked(NamedTuple):
    """A package of the lock: its version, and the archives that it may come as, by their SHA-256."""

    version: str
    hashes: frozenset[str]


def locked(lock: str) -> dict[str, Locked]:
    """Return the packages of a lock that are for this machine, by their names."""
    found: dict[str, Locked] = {}
    for line in lock.replace("\\\n", " ").splitlines():
        words, *hashes = re.split(r"\s+--hash=sha256:", line.partition("#")[0].strip())
        if not words:
            continue
        requirement = Requirement(words)
        if requirement.marker is None or requirement.marker.evaluate():
            (version,) = (each.version for each in requirement.specifier)
            found[canonicalize_name(requirement.name)] = Locked(version, frozenset(hashes))
    return found


def installed_hashes(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each archive that pip's report says was installed, by the package's name."""
    return {
        canonicalize_name(each["metadata"]["name"]): each["download_info"]["archive_info"]["hashes"]["sha256"]
        for each in report["install"]
    }


def written(
    path: Path, python: Path, project: Path, version: str, report: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the bill of an environment as CycloneDX, and return it."""
    command = [str(PROGRAMS / "cyclonedx-py"), "environment", str(python), "--pyproject", str(project)]
    subprocess.run([*command, "--output-reproducible", "--output-file", str(path)], check=True)
    bill: dict[str, Any] = json.loads(path.read_text())
    bill["metadata"]["component"]["version"] = version
    hashes = installed_hashes(report)
    for component in bill["components"]:
        if content := hashes.get(canonicalize_name(component["name"])):
            component["hashes"] = [{"alg": "SHA-256", "content": content}]
    path.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n")
    return bill


def problems(bill: Mapping[str, Any], wanted: Mapping[str, Locked]) -> Iterator[str]:
    """Yield what a bill lacks of the locked packages, or has beside them."""
    components: dict[str, Any] = {canonicalize_name(each["name"]): each for each in bill["components"]}
    yield from (f"{name} is locked and not installed" for name in sorted(wanted.keys() - components.keys()))
    yield from (f"{name} is installed and not locked" for name in sorted(components.keys() - wanted.keys()))
    for name in sorted(wanted.keys() & components.keys()):
        component = components[name]
        if component.get("version") != wanted[name].version:
            yield f"{name} is {component.get('version')}, locked is {wanted[name].version}"
        if not component.get("licenses"):
            yield f"{name} has no licence"
        contents = {each["content"] for each in component.get("hashes", ())}
        if not contents or not contents <= wanted[name].hashes:
            yield f"{name} has no hash, or one that is not locked: {sorted(contents)}"
