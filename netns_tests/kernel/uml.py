"""The runner `uml`: user-mode Linux, a kernel that is an ordinary process.

Its root is the machine's file system, read-only; guest.sh mounts the working tree again, writable.
"""

from __future__ import annotations

import atexit
import os
import socket
from typing import TYPE_CHECKING

from netns_tests.kernel.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from netns_tests.kernel.machine import Guest


def claim_cpu(cpus: Collection[int], claimant: str = "ipvsproxy test kernel") -> int:
    """Return a CPU that no other test kernel of the machine has, as long as there is one.

    A claim is a socket that nobody connects to. Its name goes with this process, however that ends.
    """
    for cpu in sorted(cpus):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # In the abstract namespace (unix(7)).
            claim.bind(f"\0{claimant}, CPU {cpu}")
        except OSError:
            claim.close()
        else:
            atexit.register(claim.close)
            return cpu
    return sorted(cpus)[os.getpid() % len(cpus)]


def machine(kernel: Path, guest: Guest, memory: str) -> Machine:
    """Return the machine of the binary `kernel` (ARCH=um, with hostfs and all that the agent needs built in)."""
    # Its one virtual CPU and the processes it runs hand over to each other at every system call,
    # which takes eight times as long between two CPUs.
    cpu = claim_cpu(os.sched_getaffinity(0))
    root = ["root=none", "rootfstype=hostfs", "ro", f"mem={memory}"]
    # Its control socket, in the home directory otherwise, goes with the run.
    console = ["con=null", "con0=null,fd:1", f"uml_dir={guest.exchange}"]
    init, *arguments = guest.argv("uml")
    return Machine(
        f"user-mode Linux, {kernel}",
        ["taskset", "--cpu-list", str(cpu), str(kernel), *root, *console, f"init={init}", "--", *arguments],
    )
