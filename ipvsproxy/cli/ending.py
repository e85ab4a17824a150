"""What the main thread waits for: signals, of which some end the agent, or the error that another thread ended with."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final, NoReturn

ENDING: Final = (signal.SIGTERM, signal.SIGINT)
# A service manager's "reload", and more or less of the log.
OTHERS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Ending:
    """Made and waited for by the main thread; `fail` may be called by any.

    Python writes each signal into a pipe. A handler would run in the midst of what the main thread does, and wait for
    ever for a lock that it holds, such as the log's. The pipe stays open, for signals that come after the first.
    """

    def __init__(self) -> None:
        """Let SIGTERM end the process at once, with exit code 0, and the others do nothing, until `take_signals`.

        Without a handler of its own, the first process of a container can't be terminated; and the others would end
        the process before it knows what to do with them.
        """
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._failure: Exception | None = None
        signal.signal(signal.SIGTERM, _leave)
        for number in OTHERS:
            signal.signal(number, _do_nothing)

    def take_signals(self) -> None:
        """From now on have each signal end a wait."""
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (*ENDING, *OTHERS):
            signal.signal(number, _do_nothing)

    def fail(self, error: Exception) -> None:
        """Have `wait` raise this error, unless there is another already."""
        self._failure = self._failure or error
        # A pipe that is full wakes whoever waits, too.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, bytes(1))

    def wait(self) -> signal.Signals:
        """Return the next signal; raise the first error instead if there is one."""
        number = os.read(self._reading, 1)[0]
        if self._failure:
            raise self._failure
        return signal.Signals(number)


def _do_nothing(_signal_number: int, _frame: object) -> None:
    """Leave the signal to the pipe. What a child process is started with is the kernel's own way with it."""


def _leave(_signal_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
