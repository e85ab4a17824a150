"""The program `ipvsproxy`: finds the command, runs it, and turns how it ends into an exit code."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Final

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.notices import notify
from ipvsproxy.errors import IpvsProxyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# As a shell reports a program that SIGINT or SIGPIPE ended: 128 and the number of the signal.
INTERRUPTED = 130
BROKEN_PIPE = 141
# What the output meets on its way into a file; whatever reads the kernel or files has its own words for errors.
_OUTPUT_FAILED: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the words after the program's name ask for (default: the process's); return its exit code.

    SystemExit after --help, --version and words that are wrong.
    """
    _open_missing_streams()
    return exit_code(lambda: parse(sys.argv[1:] if argv is None else argv).execute())


def exit_code(command: Callable[[], int]) -> int:
    """Return the command's exit code; an IpvsProxyError becomes one line on standard error and its class's code."""
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except IpvsProxyError as error:
        notify(sys.stderr, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _OUTPUT_FAILED:
            raise
        _discard_output()
        notify(sys.stderr, f"the output can't be written: {error.strerror}")
        return IpvsProxyError.exit_code


def _discard_output() -> None:
    """Forget what is still in the buffer: the interpreter would complain at its end that it can't be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_missing_streams() -> None:
    """Replace the standard streams that the process was started without, before a socket takes their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - as Python's own
