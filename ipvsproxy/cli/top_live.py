"""`ipvsproxy top` on a terminal: a thread looks at the kernel, the main one reads keys and draws."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live

from ipvsproxy.cli.keyboard import Keyboard
from ipvsproxy.cli.top_screen import View, content_of, page_of, pressed
from ipvsproxy.observe.traffic import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from ipvsproxy.cli.arguments.top import TopArguments
    from ipvsproxy.cli.top_screen import Content
    from ipvsproxy.cli.top_source import Frame
    from ipvsproxy.observe.traffic import Row

# The exit code of a program that SIGHUP ended: the terminal is gone.
_HANGUP = 129


def live(arguments: TopArguments, frames: Iterator[Frame], keys: TextIO, screen: TextIO) -> int:
    """Show the frames until `q`; return the exit code. What ends the frames is raised with the terminal restored."""
    console = Console(file=screen, highlight=False)
    try:
        with (
            Keyboard(keys.fileno()) as keyboard,
            Live(console=console, screen=True, auto_refresh=False) as display,
        ):
            feed = _Feed(frames, keyboard.wake)
            _show(arguments, feed, keyboard, display)
    except (EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EIO:
            raise
        # What was not written any more has no reader: without this the interpreter complains of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), screen.fileno())
        return _HANGUP
    return 0


def _show(arguments: TopArguments, feed: _Feed, keyboard: Keyboard, display: Live) -> None:
    """Draw, and read keys, until one of them ends it."""
    view, room = View(arguments.order), 1
    content: Content | None = None
    rows: list[Row] = []
    made_with = view
    while not view.ended:
        frame = feed.latest()
        if frame and (content is None or content.frame is not frame):
            rows = rows_of(frame.before, frame.after, frame.names, frame.ours, arguments.by, arguments.wanted)
            content = None
        # Where the page begins makes no difference to the rows.
        if frame and (content is None or made_with != view._replace(offset=made_with.offset)):
            content, made_with = content_of(frame, rows, arguments.by, view), view
        if content:
            # Rows may have gone since the last key.
            view = view._replace(offset=max(0, min(view.offset, len(content.rows) - 1)))
            display.console.size = size = os.get_terminal_size(display.console.file.fileno())
            page = page_of(content, view, time.strftime("%X", feed.at), size.columns, size.lines)
            room = page.room
            display.update(Group(*page.lines), refresh=True)
        for key in keyboard.read():
            view = pressed(view, key, len(content.rows) if content else 0, room)


class _Feed:
    """The latest frame, and what ended the frames."""

    def __init__(self, frames: Iterator[Frame], wake: Callable[[], None]) -> None:
        self.at = time.localtime()
        self._frame: Frame | None = None
        self._error: BaseException | None = None
        self._frames = frames
        self._wake = wake
        threading.Thread(target=self._run, name="look", daemon=True).start()

    def latest(self) -> Frame | None:
        """Return the latest frame, None before the first; raise what ended the frames."""
        if self._error:
            raise self._error
        return self._frame

    def _run(self) -> None:
        try:
            for frame in self._frames:
                self._frame, self.at = frame, time.localtime()
                self._wake()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._error = error
            self._wake()
