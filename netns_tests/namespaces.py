"""Network namespaces without names: held open by a file descriptor, gone with the process that made them.

A thread enters a namespace for a moment, makes its sockets or starts a program there, and comes back: sockets
and child processes stay in the namespace that they were made in. So one process can hold a whole cluster,
and nothing is left behind however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CLONE_NEWNET = 0x40000000
_CURRENT = Path("/proc/thread-self/ns/net")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _open_current() -> int:
    return os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def _coming_back() -> Iterator[None]:
    """Return the calling thread to the namespace that it was in."""
    origin = _open_current()
    try:
        yield
    finally:
        _checked(_libc.setns(origin, _CLONE_NEWNET))
        os.close(origin)


class Namespace:
    """One network namespace; `name` is for people."""

    def __init__(self, name: str) -> None:
        """Make a new namespace, with its loopback interface down; needs CAP_SYS_ADMIN."""
        self.name = name
        with _coming_back():
            _checked(_libc.unshare(_CLONE_NEWNET))
            self._descriptor = _open_current()

    def __enter__(self) -> Self:
        """Return the namespace itself, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the namespace."""
        self.close()

    def close(self) -> None:
        """Let go of the namespace; the kernel removes it once no socket and no process is left in it."""
        os.close(self._descriptor)

    @property
    def descriptor(self) -> int:
        """The file descriptor that netlink takes as IFLA_NET_NS_FD."""
        return self._descriptor

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread, and it alone, in this namespace for the block."""
        with _coming_back():
            _checked(_libc.setns(self._descriptor, _CLONE_NEWNET))
            yield

    @contextlib.contextmanager
    def netlink(self, kind: Callable[[], Any]) -> Iterator[Any]:
        """Open a socket of pyroute2, such as IPRoute, in this namespace for the block."""
        with self.entered():
            opened = kind()
        with opened:
            yield opened

    def read(self, name: str) -> str:
        """Return the text of /proc/net/NAME as this namespace has it."""
        with self.entered():
            return Path("/proc/thread-self/net", name).read_text()

    def sysctl(self, name: str, value: str) -> None:
        """Set a value below /proc/sys; the name has slashes, such as `net/ipv4/ip_forward`."""
        with self.entered():
            Path("/proc/sys", name).write_text(value)

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a program to its end in this namespace and return its output; CalledProcessError if it fails."""
        with self.entered():
            return subprocess.run(command, input=stdin, check=True, capture_output=True, text=True).stdout
