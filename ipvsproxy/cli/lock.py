"""One agent on a node: a lock file that the kernel releases with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from ipvsproxy.errors import IpvsProxyError

if TYPE_CHECKING:
    from pathlib import Path


class AlreadyRunningError(IpvsProxyError):
    """Another agent holds the lock."""


class AgentLock:
    """The lock `agent.lock` in the run directory, which it creates, for root only."""

    def __init__(self, directory: Path) -> None:
        """Take the lock; AlreadyRunningError names the process that has it."""
        path = directory / "agent.lock"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise IpvsProxyError(
                f"{path}: {error.strerror}; run as root, or choose a directory with --run-directory"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise AlreadyRunningError(
                f"another agent runs on this node already: process {holder} holds {path}; stop that one first"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another agent have the lock. The file stays: its removal could race with the next agent."""
        os.close(self._file)
