"""The runner `uml`: user-mode Linux, a kernel that is an ordinary process.

Its root is the machine's file system, read-only; guest.sh mounts the working tree again, writable.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from netns_tests.kernel.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

    from netns_tests.kernel.machine import Guest


def machine(kernel: Path, guest: Guest, memory: str) -> Machine:
    """Return the machine of the binary `kernel` (ARCH=um, with hostfs and all that the agent needs built in)."""
    # Its one virtual CPU and the processes it runs hand over to each other at every system call,
    # which takes eight times as long between two CPUs.
    cpus = sorted(os.sched_getaffinity(0))
    cpu = cpus[os.getpid() % len(cpus)]
    root = ["root=none", "rootfstype=hostfs", "ro", f"mem={memory}"]
    # Its control socket, in the home directory otherwise, goes with the run.
    console = ["con=null", "con0=null,fd:1", f"uml_dir={guest.exchange}"]
    init, *arguments = guest.argv("uml")
    return Machine(
        f"user-mode Linux, {kernel}",
        ["taskset", "--cpu-list", str(cpu), str(kernel), *root, *console, f"init={init}", "--", *arguments],
    )
