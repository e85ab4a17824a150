"""The Dockerfile, as text: it can't be built without a registry, so what matters is looked at here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
IMPORT = (REPOSITORY / "image" / "import.sh").read_text()


class Instruction(NamedTuple):
    """One instruction: its name in capitals, and what follows it."""

    name: str
    value: str


def instructions(text: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile, without comments, each on one line."""
    lines = [line for line in text.splitlines() if not re.match(r"\s*#", line)]
    logical = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in logical.splitlines() if line.strip()]


DOCKERFILE = instructions((REPOSITORY / "Dockerfile").read_text())
STAGES = [number for number, each in enumerate(DOCKERFILE) if each.name == "FROM"]
FINAL = DOCKERFILE[STAGES[-1] :]


def values(name: str, among: list[Instruction]) -> list[str]:
    return [each.value for each in among if each.name == name]


def pairs(words: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(words))


def imported(kind: str) -> dict[str, str]:
    """Return what `import.sh` sets of one kind, ENV or LABEL."""
    words = shlex.split(IMPORT.replace("\\\n", ""), comments=True)
    return pairs(" ".join(word.removeprefix(kind) for word in words if word.startswith(f"{kind} ")))


def test_every_stage_begins_from_the_base_of_the_build_arguments_by_its_digest() -> None:
    arguments = pairs(" ".join(values("ARG", DOCKERFILE[: STAGES[0]])))
    assert re.fullmatch(r"python:3\.11[.\d]*-slim-bookworm", arguments["PYTHON_IMAGE"])
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", arguments["PYTHON_DIGEST"])
    bases = [DOCKERFILE[number].value.partition(" AS ")[0] for number in STAGES]
    assert bases == ["${PYTHON_IMAGE}@${PYTHON_DIGEST}"] * 2


def test_the_image_is_the_last_of_two_stages_and_takes_but_the_program_from_the_first() -> None:
    assert len(STAGES) == 2
    assert values("COPY", FINAL) == [
        "image/debian-packages /tmp/debian-packages",
        "--from=build /opt/ipvsproxy /opt/ipvsproxy",
    ]


def test_every_build_argument_is_used() -> None:
    text = "\n".join(each.value for each in DOCKERFILE if each.name != "ARG")
    names = [value.partition("=")[0] for value in values("ARG", DOCKERFILE)]
    assert names == ["PYTHON_IMAGE", "PYTHON_DIGEST", "VERSION", "REVISION"]
    assert [name for name in names if not re.search(rf"\$\{{?{name}\b", text)] == []


def test_what_changes_with_each_commit_comes_after_what_takes_long() -> None:
    names = [each.name for each in FINAL]
    assert names.index("ARG") > max(number for number, name in enumerate(names) if name in {"RUN", "COPY"})


def test_nothing_is_installed_unlocked() -> None:
    (download,) = (line for line in values("RUN", DOCKERFILE) if "-m pip" in line)
    for command in download.split("&&"):
        assert "--require-hashes" in command
        assert "--no-deps" in command
    script = (REPOSITORY / "image" / "install.sh").read_text()
    assert "--no-index" in script
    assert "install --require-hashes" in script


def test_no_cache_of_a_package_manager_stays() -> None:
    (apt,) = values("RUN", FINAL)
    assert "--no-install-recommends" in apt
    assert "rm -rf" in apt
    assert "/var/lib/apt/lists/*" in apt


def test_every_file_that_is_copied_is_there_and_let_in() -> None:
    let_in = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[0] == "!"]
    copied = {
        name
        for value in values("COPY", DOCKERFILE)
        if not value.startswith("--from")
        for name in value.split()[:-1]
    }
    assert copied == set(let_in)
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []


def test_the_entrypoint_is_the_program_in_both_ways_to_make_the_image() -> None:
    assert values("ENTRYPOINT", FINAL) == ['["ipvsproxy"]']
    assert values("CMD", FINAL) == []
    assert "--change 'ENTRYPOINT [\"ipvsproxy\"]'" in IMPORT


def test_both_ways_say_the_same_of_the_image() -> None:
    (labels,), (environment,) = values("LABEL", FINAL), values("ENV", FINAL)
    assert imported("ENV") == pairs(environment)
    assert imported("LABEL") == pairs(labels)


def test_it_runs_as_the_user_whom_the_container_gives_capabilities() -> None:
    assert values("USER", DOCKERFILE) == []


@pytest.mark.parametrize("name", ["install.sh", "rootfs.sh", "import.sh"])
def test_every_script_stops_at_the_first_failure(name: str) -> None:
    script = (REPOSITORY / "image" / name).read_text()
    assert re.search(r"^set -eu", script, re.MULTILINE)
