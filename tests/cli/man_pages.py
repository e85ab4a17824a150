"""Writes docs/man from the parsers of the command line: `python -m tests.cli.man_pages`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from argparse_manpage.manpage import Manpage

from ipvsproxy import __version__
from ipvsproxy.cli.arguments import COMMANDS, parsers

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

FOLDER = Path(__file__).parents[2] / "docs" / "man"


def pages() -> Mapping[str, str]:
    """Return the text of each page by the name of its file: one for the program, and one for each command."""
    top, commands = parsers()
    summaries = {command.name: command.summary for command in COMMANDS}
    written = {
        "ipvsproxy.1": _page(top, "ipvsproxy", "Kubernetes Services in the kernel's IPVS load balancer")
    }
    for name, summary in summaries.items():
        written[f"ipvsproxy-{name}.1"] = _page(commands[name], f"ipvsproxy-{name}", summary)
    return written


def _page(parser: ArgumentParser, title: str, summary: str) -> str:
    # The title is one word (man-pages(7)); the synopsis still shows what people type.
    parser.usage = (parser.usage or "").replace("%(prog)s", parser.prog)
    parser.prog = title
    data = {
        "date": f"version {__version__}",
        "project_name": "ipvsproxy",
        "version": __version__,
        "manual_title": "ipvsproxy",
        "manual_section": "1",
        "description": summary,
    }
    # The wrapping of the text would follow the terminal that the program runs in.
    os.environ["COLUMNS"] = "80"
    return f"{Manpage(parser, data)}\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file in FOLDER.glob("*.1"):
        file.unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
