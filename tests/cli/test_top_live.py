"""The live screen of `ipvsproxy top` on a terminal: a process of its own at the other end of a pty."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyte
import pytest

from netns_tests.deadline import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALTERNATE_SCREEN, NORMAL_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


class Terminal:
    """A terminal of 110 columns and 10 lines, with the program in its foreground."""

    def __init__(self, *words: str, **environment: str) -> None:
        self.written = b""
        self._master, self._slave = pty.openpty()
        self._screen = pyte.Screen(110, 10)
        self._stream = pyte.ByteStream(self._screen)
        termios.tcsetwinsize(self._slave, (10, 110))
        self.settings = termios.tcgetattr(self._slave)
        # The first in a session that has the terminal: it gets the signals of keys and of a resize.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "tests.cli.top_program", *words],
            stdin=self._slave,
            stdout=self._slave,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "TERM": "xterm-256color", **environment},
        )

    def __enter__(self) -> Self:  # noqa: D105 - a terminal that `__exit__` closes
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105 - leaves no process behind
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.go()
        os.close(self._slave)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    @property
    def stop_character(self) -> bytes:
        """The character that stops the program in the foreground, a zero for none."""
        characters: list[bytes] = termios.tcgetattr(self._slave)[6]
        return characters[termios.VSUSP]

    def errors(self) -> bytes:
        """Return what the program wrote on standard error until its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def go(self) -> None:
        """Close the end of the terminal that a person would look at."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, lines: int, columns: int) -> None:
        self._screen.resize(lines, columns)
        termios.tcsetwinsize(self._master, (lines, columns))

    def await_that(self, condition: Callable[[list[str]], object]) -> None:
        """Return once the screen fits."""
        end = time.monotonic() + PATIENCE
        while not condition(self.lines):
            assert self._read(end), "the screen is not as it should be:\n" + "\n".join(self.lines)

    def await_end(self) -> int:
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, "the program does not end:\n" + "\n".join(self.lines)
            self._read(time.monotonic() + 0.05)
        # What was written last may come a moment after the program's end.
        while self._read(time.monotonic() + 1.0):
            pass
        return self.process.returncode

    def is_as_it_was(self) -> bool:
        """Say whether the terminal has its settings, its screen and its cursor again."""
        last_screen = self.written.rpartition(b"\x1b[?1049")[2][:1]
        last_cursor = self.written.rpartition(b"\x1b[?25")[2][:1]
        return (termios.tcgetattr(self._slave), last_screen, last_cursor) == (self.settings, b"l", b"h")

    def _read(self, end: float) -> bool:
        """Read what was written, and say whether something was before `end`."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        if ready:
            read = os.read(self._master, 65536)
            self.written += read
            self._stream.feed(read)
        return bool(ready)


def is_whole(lines: list[str]) -> bool:
    """Say whether the first frame is there, to the last line."""
    return "last 2.1s" in lines[0] and any("q quit" in line for line in lines)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal() as opened:
        opened.await_that(is_whole)
        yield opened


def first_row(lines: list[str]) -> str:
    return lines[3].split()[0] if lines[3] else ""


def test_it_takes_the_screen_and_gives_it_back(terminal: Terminal) -> None:
    assert ALTERNATE_SCREEN in terminal.written
    assert HIDE_CURSOR in terminal.written
    assert not terminal.is_as_it_was()
    assert terminal.lines[7].startswith("TOTAL                         4     219")
    terminal.press("q")
    assert terminal.await_end() == 0
    assert NORMAL_SCREEN in terminal.written
    assert SHOW_CURSOR in terminal.written
    assert terminal.is_as_it_was()


def test_keys_sort_filter_and_page(terminal: Terminal) -> None:
    assert first_row(terminal.lines) == "default/web"
    terminal.press("n")
    terminal.await_that(lambda lines: first_row(lines) == "default/api")
    terminal.press("r")
    terminal.await_that(lambda lines: first_row(lines) == "kube-system/kube-dns")
    terminal.press("/drain\r")
    terminal.await_that(lambda lines: first_row(lines) == "default/shop" and lines[-1].startswith("1-1 of 1"))
    terminal.press("\x1b")
    terminal.await_that(lambda lines: lines[-1].startswith("1-4 of 4"))
    terminal.resize(7, 110)
    terminal.await_that(lambda lines: lines[-1].startswith("1-2 of 4"))
    terminal.press("\x1b[6~")
    terminal.await_that(lambda lines: lines[-1].startswith("3-4 of 4"))


def test_it_fits_a_terminal_whose_size_changes(terminal: Terminal) -> None:
    terminal.resize(6, 60)
    terminal.await_that(lambda lines: lines[-1].startswith("1-1 of 4"))
    assert "ACTIVE" in terminal.lines[2]
    assert "INACTIVE" not in terminal.lines[2]
    terminal.resize(30, 150)
    terminal.await_that(lambda lines: len(lines) == 30 and lines[-1].startswith("1-4 of 4"))
    assert "INACTIVE" in terminal.lines[2]


def test_the_size_is_the_terminals_whatever_the_environment_says() -> None:
    with Terminal(COLUMNS="40", LINES="5") as terminal:
        terminal.await_that(lambda lines: "last 2.1s" in lines[0] and lines[-1].startswith("1-4 of 4"))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_it_with_the_terminal_as_it_was(
    terminal: Terminal, number: signal.Signals, code: int
) -> None:
    terminal.process.send_signal(number)
    assert terminal.await_end() == code
    assert terminal.is_as_it_was()


def test_ctrl_c_ends_it_and_ctrl_z_does_nothing(terminal: Terminal) -> None:
    assert terminal.stop_character == b"\0"
    terminal.press("\x1an")
    terminal.await_that(lambda lines: first_row(lines) == "default/api")
    terminal.press("\x03")
    assert terminal.await_end() == 130
    assert terminal.is_as_it_was()


def test_an_error_is_one_line_on_a_terminal_that_is_as_it_was() -> None:
    with Terminal("broken") as terminal:
        assert terminal.await_end() == 1
        assert terminal.is_as_it_was()
        assert terminal.errors() == b"ipvsproxy: the kernel can't be read: it is gone\n"


def test_it_ends_in_silence_when_the_terminal_goes(terminal: Terminal) -> None:
    terminal.go()
    assert terminal.process.wait(PATIENCE) == 129
    assert terminal.errors() == b""


def test_no_color_is_respected(terminal: Terminal) -> None:
    yellow = b"\x1b[33m"
    assert yellow in terminal.written
    with Terminal(NO_COLOR="1") as colourless:
        colourless.await_that(is_whole)
        assert yellow not in colourless.written
