"""Start a machine, follow it, and stop it: nothing it started outlives the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from netns_tests.kernel.machine import TIMED_OUT, KernelRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.kernel.exchange import Exchange, Seen
    from netns_tests.kernel.machine import Machine

_LOOK_EVERY = 0.05
_ANNOUNCE_EVERY = 5.0
# Seconds. A machine of any speed, however busy, boots within this time.
BOOT_LIMIT = 600.0


def contained(argv: list[str]) -> list[str]:
    """Return a command line that runs `argv` as PID 1 of its own PID, mount and network namespaces.

    Whatever becomes of its group or session, all of it dies with its PID 1, and that dies with this process.
    """
    namespaces = ["--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
    return ["setpriv", "--pdeathsig=KILL", "unshare", *namespaces, "--", *argv]


def judge(machine: Machine, seen: Seen, *, ended: bool, seconds: float, limit: float) -> int | None:
    """Return the command's exit code once there is one, None while there is reason to wait.

    `seconds` is the time since the machine was started, or since the running command last wrote something. A command
    that writes nothing for longer than `limit` seconds stalls; how long it takes as a whole does not matter. Raises
    KernelRunError when no exit code will come.
    """
    if seen.exit_code is not None:
        return seen.exit_code
    if seen.panicked:
        raise KernelRunError(f"the kernel panicked: {machine.description}")
    if ended:
        what = "ended while the command ran" if seen.started else "ended before the command could start"
        raise KernelRunError(f"the kernel {what}: {machine.description}")
    if not seen.started and seconds > BOOT_LIMIT:
        raise KernelRunError(f"the kernel did not boot within {BOOT_LIMIT:.0f} s: {machine.description}")
    if seen.started and seconds > limit:
        raise KernelRunError(
            f"the command was stopped: it wrote nothing for {limit:.0f} s (--timeout)", TIMED_OUT
        )
    return None


def supervise(
    machine: Machine,
    exchange: Exchange,
    limit: float,
    sink: BinaryIO,
    announce: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run the machine until its command ends; return the command's exit code.

    The command's output goes to `sink` as it comes, one line about the boot to `announce`, and one more every few
    seconds while it takes. Raises KernelRunError when there is no exit code, after the console's end was announced.
    """
    with (
        exchange.console.open("wb") as console,
        exchange.output.open("w+b") as output,
        _running(machine.argv, console) as process,
    ):
        began = clock()
        up = False
        announced = 0.0
        while True:
            # Asked first: whatever was written before the end is then there to be read.
            ended = process.poll() is not None
            seen = exchange.look()
            seconds = clock() - began
            if seen.started and not up:
                announce(f"up after {seconds:.1f} s")
                up, began, seconds = True, clock(), 0.0
            if not up and seconds - announced >= _ANNOUNCE_EVERY:
                announced = seconds
                announce(f"still booting after {seconds:.0f} s")
            if _copy(output, sink):
                began, seconds = clock(), 0.0
            try:
                exit_code = judge(machine, seen, ended=ended, seconds=seconds, limit=limit)
            except KernelRunError:
                announce(f"the end of its console:\n{exchange.console_tail()}")
                raise
            if exit_code is not None:
                return exit_code
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_EVERY)


def _copy(output: BinaryIO, sink: BinaryIO) -> bool:
    """Write what was added to `output` to `sink`; return whether there was anything."""
    data = output.read()
    if data:
        sink.write(data)
        sink.flush()
    return bool(data)


@contextlib.contextmanager
def _running(argv: list[str], console: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    """Keep a command running inside the `with`; it and all that it started are gone after it."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its children, PID 1 of the namespace among them, and wait for them.

    unshare(1) ends when the last process of the namespace is gone, so it is waited for, not killed.
    """
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, subprocess.TimeoutExpired):
        for child in children.read_text(encoding="ascii").split():
            os.kill(int(child), signal.SIGKILL)
            process.wait(timeout=10)
    process.kill()
    process.wait()
