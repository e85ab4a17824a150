"""A terminal of a given size: a program runs in it, keys are typed, and what a person would see can be read."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Self

import pyte
from rich.style import Style
from rich.text import Text

from netns_tests.deadline import PATIENCE, DeadlineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from netns_tests.topology import Host

_COLOURS = {"brown": "yellow", "default": "default"}


class Terminal:
    """A program in a terminal, from the beginning of a `with` block to its end."""

    def __init__(
        self,
        command: Sequence[str],
        columns: int,
        rows: int,
        host: Host,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the program on a host, with more variables in its environment if any are given."""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        variables = {**os.environ, "TERM": "xterm-256color", **(environment or {})}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            variables.pop(name, None)
        with host.namespace.entered():
            self._process = subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables, start_new_session=True
            )
        os.close(theirs)

    def __enter__(self) -> Self:
        """Return the terminal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the program if it still runs, and close the terminal."""
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self._ours, keys.encode())

    def await_text(self, *texts: str) -> None:
        """Wait until all of the texts are on the screen at once."""
        end = time.monotonic() + PATIENCE
        while not all(any(text in line for line in self._screen.display) for text in texts):
            if time.monotonic() > end or not self._read(end):
                raise DeadlineError(f"{texts} are not on the screen:\n" + "\n".join(self._screen.display))

    def await_end(self) -> int:
        """Wait until the program has ended, and return its exit code."""
        end = time.monotonic() + PATIENCE
        while self._read(end):
            pass
        return self._process.wait()

    def contents(self) -> list[Text]:
        """Return the lines on the screen with their colours, without the empty ones at the end."""
        lines = [self._line(row) for row in range(self._screen.lines)]
        while lines and not lines[-1].plain.strip():
            lines.pop()
        return lines

    def _read(self, end: float) -> bool:
        """Take in what the program has written; False once it has closed the terminal, or the time is over."""
        readable, _, _ = select.select([self._ours], [], [], max(0, end - time.monotonic()))
        if not readable:
            return False
        try:
            written = os.read(self._ours, 1 << 16)
        except OSError:
            # EIO: nobody has the other side any more.
            return False
        self._stream.feed(written)
        return bool(written)

    def _line(self, row: int) -> Text:
        cells = self._screen.buffer[row]
        line = Text()
        # A style for each run of cells, since pictures have an element for each style.
        for style, run in itertools.groupby(
            (cells[column] for column in range(self._screen.columns)), _style
        ):
            line.append("".join(cell.data for cell in run), style)
        ends = [span.end for span in line.spans if isinstance(span.style, Style) and span.style.reverse]
        line.truncate(max([len(line.plain.rstrip()), *ends]))
        return line


def _style(cell: pyte.screens.Char) -> Style:
    return Style(
        color=_colour(cell.fg),
        bgcolor=_colour(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse,
    )


def _colour(name: str) -> str:
    """Return what rich calls one of pyte's colours."""
    name = _COLOURS.get(name, name)
    if name.startswith("bright"):
        return f"bright_{_COLOURS.get(name.removeprefix('bright'), name.removeprefix('bright'))}"
    return name if name.isalpha() else f"#{name}"
