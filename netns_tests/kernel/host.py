"""The runner `host`: this machine's own kernel, in network and mount namespaces of its own."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from pyroute2.netlink import genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from netns_tests.kernel.machine import Machine

if TYPE_CHECKING:
    from netns_tests.kernel.machine import Guest

# All of what the agent needs besides IPVS; asking for a thing also loads its module.
_NEEDS = """
mount -t tmpfs tmpfs /run
ip netns add probe
ip link add probe type dummy
nft add table inet probe
test -e /proc/net/ip_vs
"""


def why_not() -> str | None:
    """Return why this machine's kernel can't be used, None if it can."""
    if os.geteuid() != 0:
        return "you are not root"
    if not _has_ipvs():
        return "this machine's kernel has no IPVS"
    probe = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-ec", _NEEDS], check=False, capture_output=True, text=True
    )
    if probe.returncode != 0:
        reason = next(iter(probe.stderr.splitlines()), "no IPVS in a network namespace")
        return f"this machine's kernel lacks something: {reason}"
    return None


def _has_ipvs() -> bool:
    """Ask for the generic netlink family, which also loads the module where there is one to load."""
    with GenericNetlinkSocket() as socket:  # type: ignore[no-untyped-call] # pyroute2 has no types
        try:
            socket.bind("IPVS", genlmsg)
        except NetlinkError:
            return False
    return True


def machine(guest: Guest) -> Machine:
    """Return this machine's kernel; nothing boots, so it starts at once."""
    return Machine("namespaces on this machine's own kernel", guest.argv("host"))
