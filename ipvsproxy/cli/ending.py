"""How the main thread learns that the agent is to end: by a signal, or by the error that another thread ended with."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn


class Ending:
    """Made and waited for by the main thread; `fail` may be called by any.

    Python writes each signal into a pipe. A handler would run in the midst of what the main thread does, and wait for
    ever for a lock that it holds, such as the log's. The pipe stays open, for signals that come after the first.
    """

    def __init__(self) -> None:
        """Let SIGTERM end the process at once, with exit code 0, until `take_signals`.

        Without a handler of its own, the first process of a container can't be terminated.
        """
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._failure: Exception | None = None
        signal.signal(signal.SIGTERM, _leave)

    def take_signals(self) -> None:
        """From now on have SIGTERM and SIGINT end the wait."""
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def fail(self, error: Exception) -> None:
        """Have `wait` raise this error, unless there is another already."""
        self._failure = self._failure or error
        # A pipe that is full wakes whoever waits, too.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, bytes(1))

    def wait(self) -> signal.Signals:
        """Return the first signal; raise the first error instead if there is one."""
        number = os.read(self._reading, 1)[0]
        if self._failure:
            raise self._failure
        return signal.Signals(number)


def _leave(_signal_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
