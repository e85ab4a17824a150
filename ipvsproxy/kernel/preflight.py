"""What is looked at before anything is touched: the privilege to change the network, and the program nft."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.kernel.nft import run_nft
from ipvsproxy.plan.check.kernel import NftProgram, Privileges

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipvsproxy.kernel.nft import Completed, GenerationSource

# linux/capability.h
CAP_NET_ADMIN = 12
CAP_SYS_MODULE = 16

_PROC_SELF = Path("/proc/self")
# user_namespaces(7): all users of the first namespace are those of the kernel.
_ALL_USERS = ["0", "0", "4294967295"]

# Needs what the agent needs of it later: netlink, and JSON, which nft can be built without.
_NFT_LIST = ("nft", "-j", "list", "tables", "inet")
_NFT_VERSION = ("nft", "-V")
_VERSION = re.compile(r"nftables v(\d+(?:\.\d+)*)")
_JSON = re.compile(r"^\s*json:\s*yes", re.MULTILINE)


def require_net_admin(status: Path = _PROC_SELF / "status") -> None:
    """Raise KernelUnavailableError unless the process may change the network (proc(5), CapEff)."""
    if not _has_capability(CAP_NET_ADMIN, status):
        raise KernelUnavailableError(
            "CAP_NET_ADMIN is missing: run as root, or give the container the capability NET_ADMIN"
        )


def read_privileges(proc_self: Path = _PROC_SELF) -> Privileges:
    """Read what the process may do. OSError."""
    users, status = (proc_self / "uid_map").read_text().split(), proc_self / "status"
    return Privileges(
        _has_capability(CAP_NET_ADMIN, status), _has_capability(CAP_SYS_MODULE, status), users == _ALL_USERS
    )


def read_nft_program(run: Callable[[Sequence[str], bytes], Completed] = run_nft) -> NftProgram | None:
    """Return what nft says of itself, None if there is no such program. FirewallError, ValueError."""
    try:
        _, output, _ = run(_NFT_VERSION, b"")
    except KernelUnavailableError:
        return None
    text = output.decode(errors="replace")
    version = _VERSION.search(text)
    if version is None:
        raise ValueError("nft -V does not say its version")
    return NftProgram(tuple(map(int, version[1].split("."))), _JSON.search(text) is not None)


def _has_capability(capability: int, status: Path) -> bool:
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> capability & 1)
    return False


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
