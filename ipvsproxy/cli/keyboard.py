"""A terminal that is read key by key, and left as it was found however the program ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import tty
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from types import FrameType

_READ = 1024  # bytes
_ESCAPE = "\x1b"
# What terminals send for these keys (terminfo of xterm, screen, tmux and linux).
_SEQUENCES = {
    "[A": "up",
    "OA": "up",
    "[B": "down",
    "OB": "down",
    "[5~": "page up",
    "[6~": "page down",
    "[H": "home",
    "OH": "home",
    "[1~": "home",
    "[7~": "home",
    "[F": "end",
    "OF": "end",
    "[4~": "end",
    "[8~": "end",
}
_CONTROLS = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x0c": "redraw"}
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Keyboard:
    """Reads keys from a terminal, in the main thread; it can be woken by other threads and by a resize.

    Ctrl-C is SIGINT as ever; Ctrl-Z, which would leave the shell with this terminal, is no signal.
    """

    def __init__(self, descriptor: int) -> None:
        """Take the descriptor of the terminal."""
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        """Have the terminal give each key at once, without an echo; SIGTERM and SIGHUP become SystemExit."""
        with contextlib.ExitStack() as stack:
            self._reading, self._writing = os.pipe()
            stack.callback(os.close, self._reading)
            stack.callback(os.close, self._writing)
            os.set_blocking(self._reading, False)
            os.set_blocking(self._writing, False)
            stack.callback(
                signal.set_wakeup_fd, signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
            )
            for number in _ENDING_SIGNALS:
                stack.callback(signal.signal, number, signal.signal(number, _leave))
            stack.callback(signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, lambda *_: None))
            found = termios.tcgetattr(self._descriptor)
            stack.callback(self._restore, found)
            self._read_key_by_key()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the terminal and the signals."""
        self._stack.close()

    def wake(self) -> None:
        """Have `read` return; for any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, bytes(1))

    def read(self) -> list[str]:
        """Wait until there are keys, or for a wake or a resize, and return the keys.

        A key is its character, or one of: up, down, page up, page down, home, end, enter, backspace, escape, redraw.
        EOFError once the terminal is gone.
        """
        ready, _, _ = select.select([self._descriptor, self._reading], [], [])
        if self._reading in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reading, _READ)
        if self._descriptor not in ready:
            return []
        try:
            read = os.read(self._descriptor, _READ)
        except OSError:
            read = b""
        if not read:
            raise EOFError
        return decode_keys(read.decode(errors="ignore"))

    def _restore(self, found: list[Any]) -> None:
        # A terminal that is gone needs nothing.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, found)

    def _read_key_by_key(self) -> None:
        tty.setcbreak(self._descriptor)
        attributes = termios.tcgetattr(self._descriptor)
        attributes[6][termios.VSUSP] = os.fpathconf(self._descriptor, "PC_VDISABLE").to_bytes()
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, attributes)


def decode_keys(text: str) -> list[str]:
    """Return the keys that a terminal sent at once; sequences of other keys are left out."""
    keys = []
    while text:
        if text[0] == _ESCAPE and text[1:2] not in {"", _ESCAPE}:
            length = _sequence_length(text)
            key = _SEQUENCES.get(text[1:length])
        else:
            length = 1
            key = "escape" if text[0] == _ESCAPE else _CONTROLS.get(text[0], text[0])
        if key and (len(key) > 1 or key.isprintable()):
            keys.append(key)
        text = text[length:]
    return keys


def _sequence_length(text: str) -> int:
    """Return the length of the sequence that the text begins with: ESC O and a letter, or ESC [ up to a letter or ~."""
    if text[1] not in "[O":
        return 2
    for index, character in enumerate(text[2:], 3):
        if character.isalpha() or character == "~":
            return index
    return len(text)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
