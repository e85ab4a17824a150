"""The looks at a release see what is wrong, and there is one version."""

from __future__ import annotations

import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy import __version__
from tests.release import artifacts, bill, versions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MODULES = {"ipvsproxy/__init__.py", "ipvsproxy/py.typed"}
GOOD_WHEEL = {
    **dict.fromkeys(MODULES, ""),
    "ipvsproxy-1.0.dist-info/METADATA": "Version: 1.0\nLicense-Expression: Apache-2.0\n",
    "ipvsproxy-1.0.dist-info/entry_points.txt": artifacts.ENTRY_POINTS,
    "ipvsproxy-1.0.dist-info/licenses/LICENSE": "",
}
LOCK = """
# made by a program
h11==0.16.0 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via ipvsproxy
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:bb
Rich==14.1.0 --hash=sha256:cc
"""


def test_the_version_is_the_same_wherever_it_stands() -> None:
    assert set(versions.stated().values()) == {__version__}


def wheel(path: Path, files: Mapping[str, str]) -> Path:
    found = path / "ipvsproxy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(found, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return found


def test_a_wheel_with_the_package_and_nothing_else_is_good(tmp_path: Path) -> None:
    assert list(artifacts.problems_of_wheel(wheel(tmp_path, GOOD_WHEEL), MODULES, "1.0")) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tests/test_plan.py": ""}, "has tests/test_plan.py, which the package has not"),
        ({"ipvsproxy/__init__.py": None}, "lacks ipvsproxy/__init__.py"),
        ({"ipvsproxy/py.typed": None}, "lacks py.typed, so its types are not seen"),
        ({"ipvsproxy-1.0.dist-info/licenses/LICENSE": None}, "lacks the text of the licence"),
        ({"ipvsproxy-1.0.dist-info/entry_points.txt": "[console_scripts]\n"}, "has other entry points"),
        ({"ipvsproxy-1.0.dist-info/METADATA": "Version: 2.0"}, "says that it is version 2.0"),
        ({"ipvsproxy-1.0.dist-info/METADATA": "Version: 1.0"}, "says that its licence is None"),
    ],
)
def test_what_a_wheel_has_too_much_or_lacks_is_named(
    tmp_path: Path, change: Mapping[str, str | None], problem: str
) -> None:
    files = {name: text for name, text in {**GOOD_WHEEL, **change}.items() if text is not None}

    found = list(artifacts.problems_of_wheel(wheel(tmp_path, files), MODULES, "1.0"))

    assert [each for each in found if problem in each]


def test_what_a_source_distribution_lacks_or_should_not_have_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ipvsproxy-1.0.tar.gz"
    (tmp_path / "file").touch()
    with tarfile.open(path, "w:gz") as archive:
        for name in (*artifacts.IN_THE_SOURCE[1:], "tests/__pycache__/a.pyc"):
            archive.add(tmp_path / "file", f"ipvsproxy-1.0/{name}")

    assert list(artifacts.problems_of_source(path, "1.0")) == [
        f"{path.name} lacks {artifacts.IN_THE_SOURCE[0]}",
        f"{path.name} has ipvsproxy-1.0/tests/__pycache__/a.pyc, which is made by running it",
    ]


def test_the_packages_of_a_lock_are_those_for_this_machine() -> None:
    assert bill.locked(LOCK) == {
        "h11": bill.Locked("0.16.0", frozenset({"aa", "ab"})),
        "rich": bill.Locked("14.1.0", frozenset({"cc"})),
    }


def component(name: str, version: str, *hashes: str, licences: tuple[str, ...] = ("MIT",)) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "licenses": [{"license": {"id": each}} for each in licences],
        "hashes": [{"alg": "SHA-256", "content": each} for each in hashes],
    }


H11, RICH = component("h11", "0.16.0", "ab"), component("rich", "14.1.0", "cc")


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ([H11, RICH], []),
        ([H11], ["rich is locked and not installed"]),
        ([H11, RICH, component("pip", "25.0", "dd")], ["pip is installed and not locked"]),
        ([H11, component("rich", "14.0.0", "cc")], ["rich is 14.0.0, locked is 14.1.0"]),
        ([H11, component("rich", "14.1.0", "cc", licences=())], ["rich has no licence"]),
        ([H11, component("rich", "14.1.0")], ["rich has no hash, or one that is not locked: []"]),
        ([H11, component("rich", "14.1.0", "ee")], ["rich has no hash, or one that is not locked: ['ee']"]),
    ],
)
def test_a_bill_of_materials_has_every_locked_package_and_no_other(
    components: list[dict[str, Any]], expected: list[str]
) -> None:
    assert list(bill.problems({"components": components}, bill.locked(LOCK))) == expected
