"""What is looked at before anything is touched: the privilege to change the network, and the program nft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.kernel.nft import run_nft

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipvsproxy.kernel.nft import Completed, GenerationSource

CAP_NET_ADMIN = 12  # linux/capability.h

# Needs what the agent needs of it later: netlink, and JSON, which nft can be built without.
_NFT_LIST = ("nft", "-j", "list", "tables", "inet")


def require_net_admin(status: Path = Path("/proc/self/status")) -> None:
    """Raise KernelUnavailableError unless the process may change the network (proc(5), CapEff)."""
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff" and int(value, 16) >> CAP_NET_ADMIN & 1:
            return
    raise KernelUnavailableError(
        "CAP_NET_ADMIN is missing: run as root, or give the container the capability NET_ADMIN"
    )


def require_nftables(
    nf_tables: GenerationSource, run: Callable[[Sequence[str], bytes], Completed] = run_nft
) -> None:
    """Raise KernelUnavailableError unless the kernel has nf_tables and the program nft can list its tables."""
    nf_tables.generation()
    try:
        code, _, errors = run(_NFT_LIST, b"")
    except FirewallError as error:
        raise KernelUnavailableError(f"the program nft can't be used: {error}") from error
    if code:
        reason = next(iter(errors.decode(errors="replace").splitlines()), f"exit code {code}")
        raise KernelUnavailableError(
            f"the program nft can't be used, `{' '.join(_NFT_LIST)}` fails: {reason}: "
            "install the package nftables, 1.0 or later"
        )
