"""The manual pages in docs/man."""

from __future__ import annotations

from tests.cli.man_pages import FOLDER, pages


def test_the_pages_are_what_the_parsers_say() -> None:
    written = {file.name: file.read_text() for file in FOLDER.iterdir()}
    assert written == pages(), "`make derived` writes them anew"
