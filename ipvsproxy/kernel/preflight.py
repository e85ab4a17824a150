"""What is looked at before anything is touched: the privilege to change the network."""

from __future__ import annotations

from pathlib import Path

from ipvsproxy.kernel.interface import KernelUnavailableError

CAP_NET_ADMIN = 12  # linux/capability.h


def require_net_admin(status: Path = Path("/proc/self/status")) -> None:
    """Raise KernelUnavailableError unless the process may change the network (proc(5), CapEff)."""
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff" and int(value, 16) >> CAP_NET_ADMIN & 1:
            return
    raise KernelUnavailableError(
        "CAP_NET_ADMIN is missing: run as root, or give the container the capability NET_ADMIN"
    )
