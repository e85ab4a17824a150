"""Which names change in a directory: inotify(7), kept up while the directory itself goes, returns or is replaced.

Every folder on the way to the directory is watched for the name that leads on, so a directory that is moved away,
made anew, or reached through a symbolic link that now points elsewhere is noticed without looking again and again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from pathlib import Path
from typing import Final, NamedTuple

from inotify_simple import INotify, flags

# Not MODIFY: who writes in place closes the file at the end, and until then it is half of what it will be.
_INSIDE: Final = (
    flags.CREATE
    | flags.CLOSE_WRITE
    | flags.ATTRIB
    | flags.DELETE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.ONLYDIR
    | flags.MASK_ADD
)
_ON_THE_WAY: Final = (
    flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR | flags.MASK_ADD
)


class Changed(NamedTuple):
    """The names that changed in the directory; with `everything`, any other may have too."""

    names: frozenset[str]
    everything: bool


class DirectoryWatch:
    """Watches one directory, without what its folders contain. Used by one thread; any may call `wake`."""

    def __init__(self, directory: Path) -> None:
        """Watch from now on, whether the directory exists or not; OSError if the kernel refuses a watch."""
        self._directory = directory.absolute()
        self._inside: int | None = None
        self._on_the_way: dict[int, set[str]] = {}
        with contextlib.ExitStack() as undo:
            self._inotify = INotify(nonblocking=True)
            undo.callback(self._inotify.close)
            self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._wakeup)
            self._poll = select.poll()
            self._poll.register(self._inotify.fileno(), select.POLLIN)
            self._poll.register(self._wakeup, select.POLLIN)
            self._follow()
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Give the kernel's watches back; nothing may be called after it."""
        self._undo.close()

    def wake(self) -> None:
        """End the wait under way, or else the next one."""
        os.eventfd_write(self._wakeup, 1)

    def wait(self, timeout: float | None) -> Changed:
        """Wait for a change, for `wake` or for `timeout` seconds; return what changed since the last call.

        `everything` is said when the directory was replaced, came or went, when a folder or a symbolic link in it
        changed, through which other names may lead, and when the kernel lost count. OSError as for `DirectoryWatch`.
        """
        self._poll.poll(None if timeout is None else timeout * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        names: set[str] = set()
        everything = way_changed = False
        for event in self._inotify.read(timeout=0):
            way_changed |= event.name in self._on_the_way.get(event.wd, ())
            if event.mask & flags.Q_OVERFLOW:
                way_changed = True
            elif event.wd == self._inside:
                # The kernel dropped the watch by itself, as for a file system that was unmounted.
                way_changed |= bool(event.mask & flags.IGNORED)
                everything |= bool(event.mask & flags.ISDIR) or (self._directory / event.name).is_symlink()
                if not (event.mask & flags.CREATE and self._is_still_empty(event.name)):
                    names.add(event.name)
        if way_changed:
            self._follow()
        return Changed(frozenset(names), everything or way_changed)

    def _is_still_empty(self, name: str) -> bool:
        """Say whether whoever made the file has yet to fill it, which CLOSE_WRITE will tell."""
        try:
            return (self._directory / name).stat().st_size == 0
        except OSError:
            return False

    def _follow(self) -> None:
        """Watch the directory and the way to it as they are now, from the top down so that no change is missed."""
        before = {*self._on_the_way, self._inside}
        self._on_the_way = {}
        for directory in (self._directory, Path(os.path.realpath(self._directory))):
            for folder, following in zip(reversed(directory.parents), directory.parts[1:], strict=True):
                watch = self._add(folder, _ON_THE_WAY)
                if watch is not None:
                    self._on_the_way.setdefault(watch, set()).add(following)
        self._inside = self._add(self._directory, _INSIDE)
        for watch in before - {*self._on_the_way, self._inside, None}:
            # The kernel has dropped the watch by itself if the folder is gone.
            with contextlib.suppress(OSError):
                self._inotify.rm_watch(watch)

    def _add(self, folder: Path, mask: int) -> int | None:
        """Return the watch of the folder, None if there is none that can be watched."""
        try:
            return int(self._inotify.add_watch(folder, mask))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
                return None
            raise
