"""One agent on a node: a lock file and a name for the network namespace, which the kernel frees with the process.

The lock file guards what is in the run directory. What two agents would fight over is the network namespace, and each
has its own abstract Unix sockets (unix(7)): the agent holds the name of one, whatever its run directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.observe import agent_socket

if TYPE_CHECKING:
    from pathlib import Path

SOCKET_NAME: Final = "ipvsproxy"

LOCK_NAME: Final = "agent.lock"

_OWN_FILES: Final = frozenset({LOCK_NAME, agent_socket.SOCKET_NAME})
_OWNER_ONLY: Final = 0o700
_PERMISSIONS: Final = 0o777
_ROOT: Final = 0
# struct ucred (unix(7)): process, user and group.
_CREDENTIALS: Final = struct.Struct("=iII")
# struct timeval: how many seconds a connection may take that the holder's process only has to be scheduled for.
_CONNECT_TIMEOUT: Final = struct.pack("@ll", 1, 0)


class AlreadyRunningError(IpvsProxyError):
    """Another agent holds the lock."""


class AgentLock:
    """The lock `agent.lock` in the run directory, which it creates, for root only, and the network namespace's name."""

    def __init__(self, directory: Path, socket_name: str = SOCKET_NAME) -> None:
        """Take both; AlreadyRunningError names the process that has one of them.

        Where the run directory has no room for the file, or for the number in it, the name alone is the lock.
        """
        with contextlib.ExitStack() as undo:
            file = _lock_file(directory)
            if file is not None:
                undo.callback(os.close, file)
            self.is_written = file is not None and _write_own_number(file)
            """Whether the file says which process holds it."""
            listening = _take_name(socket_name)
            if listening:
                undo.callback(_give_name_back, listening, _accept_in_thread(listening))
            self._undo = undo.pop_all()

    def release(self) -> None:
        """Let another agent have them. The file stays: its removal could race with the next agent."""
        self._undo.close()


def _lock_file(directory: Path) -> int | None:
    """Return the descriptor that holds the lock; None if the directory has no room for the file."""
    path = directory / LOCK_NAME
    try:
        directory.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
        _close_to_others(directory)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno in agent_socket.NO_ROOM:
            return None
        if error.errno == errno.ELOOP:
            raise _no_file_of_the_agent(path) from error
        raise IpvsProxyError(
            f"{path}: {error.strerror}; run as root, or choose a directory with --run-directory"
        ) from error
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(file)
        raise _no_file_of_the_agent(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(file)
        raise AlreadyRunningError(
            f"another agent runs on this node already: process {holder} holds {path}; stop that one first"
        ) from error
    return file


def _no_file_of_the_agent(path: Path) -> IpvsProxyError:
    return IpvsProxyError(f"{path}: is a link or no regular file, so the agent did not make it: remove it")


def _write_own_number(file: int) -> bool:
    """Write this process's number into the file; return False if there is no room for it."""
    os.ftruncate(file, 0)
    try:
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        if error.errno not in agent_socket.NO_ROOM:
            raise
        return False
    return True


def _close_to_others(directory: Path) -> None:
    """Let only its owner enter a directory that is the agent's alone: kubelets and Docker make it for everybody.

    Any other, such as /run, stays as it is, and `check` warns.
    """
    open_to_others = directory.stat().st_mode & ~_OWNER_ONLY & _PERMISSIONS
    if open_to_others and _OWN_FILES.issuperset(each.name for each in directory.iterdir()):
        directory.chmod(_OWNER_ONLY)


def _take_name(name: str) -> socket.socket | None:
    """Return a socket that listens by the name; None if it belongs to somebody who can be no agent.

    Any process may take any name: one without the right to be an agent must not keep the agent out.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(f"\0{name}")
    except OSError as error:
        listening.close()
        if error.errno != errno.EADDRINUSE:
            raise IpvsProxyError(f"the socket @{name} can't be made: {error.strerror}") from error
        found = holder(name)
        if found is None or not found.may_be_agent:
            return None
        # A process of a PID namespace that is out of sight has the number 0.
        raise AlreadyRunningError(
            f"another agent runs in this network namespace already: process {found.process or 'unknown'} "
            f"holds the socket @{name}; stop that one first"
        ) from error
    listening.listen()
    return listening


class Holder(NamedTuple):
    """The process that listens by a name, and its effective user when it began to."""

    process: int
    user: int

    @property
    def may_be_agent(self) -> bool:
        """Whether the process has the right to be an agent."""
        return self.user in {_ROOT, os.geteuid()}


def holder(name: str = SOCKET_NAME) -> Holder | None:
    """Return who listens by the name; None if nobody does in the way that an agent would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _CONNECT_TIMEOUT)
        try:
            connection.connect(f"\0{name}")
        except OSError:
            return None
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(credentials)
    return Holder(process, user)


def _accept_in_thread(listening: socket.socket) -> threading.Thread:
    """Close each connection that comes: those that nobody accepts would add up until no more can be made."""

    def accept() -> None:
        # Accepting fails when the name is given back.
        with contextlib.suppress(OSError):
            while True:
                listening.accept()[0].close()

    thread = threading.Thread(target=accept, name="lock", daemon=True)
    thread.start()
    return thread


def _give_name_back(listening: socket.socket, thread: threading.Thread) -> None:
    listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    listening.close()
