"""docs/troubleshooting.md, tried: each section's commands, in its situation, show what the page says that they show."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from netns_tests.situations import SITUATIONS, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns_tests.cluster import Cluster

PAGE = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text()


class Step(NamedTuple):
    """A command of the page, and what the page says that it writes."""

    command: str
    shown: str

    def matches(self, written: str) -> bool:
        """Say whether this is what was written.

        `…` stands for any part of a line, or alone on a line for any lines. Columns may be of another width.
        """
        pattern = "".join(
            r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"
            for line in _narrow(self.shown)
        )
        return re.fullmatch(pattern, "".join(f"{line}\n" for line in _narrow(written))) is not None


def _narrow(text: str) -> list[str]:
    return [re.sub(" {2,}", "  ", line.rstrip()) for line in text.rstrip().splitlines()]


def steps(text: str) -> list[Step]:
    """Return the commands of a section; each of its console blocks has one or several."""
    return [
        Step(command, shown)
        for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


def sections(page: str) -> dict[str, list[Step]]:
    """Return the commands of each section by its heading; one with sections below it has none of its own."""
    _, *parts = re.split(r"^(##+) (.*)\n", page, flags=re.MULTILINE)
    levels, headings, texts = parts[::3], parts[1::3], parts[2::3]
    return {
        heading: steps(text)
        for level, heading, text, following in zip(levels, headings, texts, [*levels[1:], "##"], strict=True)
        if steps(text) or len(following) <= len(level)
    }


SECTIONS = sections(PAGE)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as built:
        yield built


def test_every_section_has_a_situation() -> None:
    assert list(SECTIONS) == list(SITUATIONS)


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_commands_show_in_their_situation_what_the_page_says(
    heading: str, cluster: Cluster, tmp_path: Path
) -> None:
    assert SECTIONS[heading], "a section without commands"
    with contextlib.contextmanager(SITUATIONS[heading])(cluster, tmp_path) as shell:
        for step in SECTIONS[heading]:
            written = shell.run(step.command)
            assert step.matches(written), f"$ {step.command}\n{step.shown}\nis not what it writes:\n{written}"
