"""Notices that the configuration file changes, in a thread of its own named `configuration`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Protocol

from ipvsproxy.source.directory import Changed, DirectoryWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

# Whoever writes a file touches it more than once: it is read when it was quiet for so long, in seconds; one that never
# is, after the second pause.
QUIET: Final = 0.2
LONGEST: Final = 2.0


class Watch(Protocol):
    """What tells of changes in a directory: `source.directory.DirectoryWatch`, or nothing."""

    def wait(self, timeout: float | None) -> Changed:
        """Wait for a change, for `wake` or for `timeout` seconds."""

    def wake(self) -> None:
        """End the wait under way, or else the next one."""

    def close(self) -> None:
        """Give back what it holds."""


class ConfigurationWatch:
    """Calls `on_change` when the file may have changed, with False, or when it is asked to, with True.

    The directory is watched, not the file: editors put a new file in its place, and the kubelet renames a symbolic link
    beside it when a ConfigMap changes. A file that is itself a link to another directory is not followed there.
    """

    def __init__(
        self,
        file: Path,
        on_change: Callable[[bool], None],
        log: FilteringBoundLogger,
        *,
        clock: Callable[[], float],
        open_watch: Callable[[Path], Watch] = DirectoryWatch,
    ) -> None:
        """Watch from now on; where the kernel refuses that, a line says so and `ask` is what remains."""
        self._file = file
        self._on_change = on_change
        self._log = log
        self._clock = clock
        self._asked = self._stopping = False
        try:
            self._watch = open_watch(file.parent)
        except OSError as error:
            log.warning(
                "configuration file not watched",
                file=str(file),
                reason=error.strerror or str(error),
                remedy="send SIGHUP to the agent after a change",
            )
            self._watch = _NoWatch()
        self._thread = threading.Thread(target=self._run, name="configuration", daemon=True)

    def start(self) -> None:
        """Start to tell of changes."""
        self._thread.start()

    def ask(self) -> None:
        """Have the file read again; from any thread."""
        self._asked = True
        self._watch.wake()

    def stop(self) -> None:
        """Make the thread end soon."""
        self._stopping = True
        self._watch.wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end after `stop`, at most for `timeout` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.step()
            except Exception as error:  # noqa: BLE001 - the next change is another matter
                self._log.error("configuration not read again", file=str(self._file), exc_info=error)
        self._watch.close()

    def step(self) -> None:
        """Wait for one change, and tell of it when it is over."""
        if self._concerns(self._watch.wait(None)):
            end = self._clock() + LONGEST
            while not self._stopping and self._clock() < end and self._concerns(self._watch.wait(QUIET)):
                pass
        elif not self._asked:
            return
        asked, self._asked = self._asked, False
        if not self._stopping:
            self._on_change(asked)

    def _concerns(self, changed: Changed) -> bool:
        return changed.everything or self._file.name in changed.names


class _NoWatch:
    """Tells of nothing but `wake`."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def wait(self, timeout: float | None) -> Changed:
        self._woken.wait(timeout)
        self._woken.clear()
        return Changed(frozenset(), everything=False)

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        pass
