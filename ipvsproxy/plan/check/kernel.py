"""Whether the agent can run here at all: the kernel's version and modules, the privilege, the program nft."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.plan.check.finding import Check, Finding, Severity
from ipvsproxy.plan.sysctls import KernelVersion, parse_kernel_release

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Sets of nf_tables with networks in concatenations (nft_set_pipapo), which loadBalancerSourceRanges need.
_OLDEST_KERNEL: Final = KernelVersion(5, 6)
# ip_vs is found by the name of its netlink family from here on (MODULE_ALIAS_GENL_FAMILY in ip_vs_ctl.c).
_LOADS_IPVS_BY_ITSELF: Final = KernelVersion(5, 16)
_OLDEST_NFT: Final = (1, 0)

IPVS: Final = "ip_vs"
MODULES: Final = (IPVS, "nf_conntrack", "nf_tables", "dummy")
"""The kernel modules that are needed whatever Services there are."""


class ModuleState(enum.Enum):
    """Where a module is: in the kernel, as it was loaded or built in; on the disk; nowhere; or nobody can say."""

    LOADED = enum.auto()
    BUILT_IN = enum.auto()
    LOADABLE = enum.auto()
    MISSING = enum.auto()
    UNKNOWN = enum.auto()


class NftProgram(NamedTuple):
    """The program nft: the numbers of its version, and whether it was built with JSON."""

    version: tuple[int, ...]
    json: bool


class Privileges(NamedTuple):
    """What the process may do, and whether it is outside of user namespaces.

    It may configure the network with CAP_NET_ADMIN, and load modules with CAP_SYS_MODULE.
    """

    may_configure_network: bool
    may_load_modules: bool
    initial_user_namespace: bool


def scheduler_modules(schedulers: Iterable[str]) -> list[str]:
    """Return the names of the modules that have these IPVS schedulers, sorted."""
    return [f"{IPVS}_{scheduler}" for scheduler in sorted(set(schedulers))]


def judge_version(release: str) -> Finding:
    """Judge the kernel by its release (uname -r)."""
    if parse_kernel_release(release) >= _OLDEST_KERNEL:
        return Finding(Check.KERNEL_VERSION, Severity.OK, f"Linux {release}")
    return Finding(
        Check.KERNEL_VERSION,
        Severity.ERROR,
        f"Linux {release} is older than {_dotted(_OLDEST_KERNEL)}: its nf_tables lacks sets that the rules need",
        f"boot Linux {_dotted(_OLDEST_KERNEL)} or later",
    )


def must_be_loaded_by_hand(modules: Mapping[str, ModuleState], release: str) -> bool:
    """Say whether ip_vs is on the disk, and this kernel does not load it when it is asked for."""
    older = parse_kernel_release(release) < _LOADS_IPVS_BY_ITSELF
    return older and modules.get(IPVS) is ModuleState.LOADABLE


def judge_modules(
    modules: Mapping[str, ModuleState], release: str, *, loading_disabled: bool
) -> list[Finding]:
    """Judge the modules by their states; `loading_disabled` is the setting kernel.modules_disabled."""
    present = [name for name, state in modules.items() if state in {ModuleState.LOADED, ModuleState.BUILT_IN}]
    findings = []
    if present:
        findings.append(Finding(Check.KERNEL_MODULE, Severity.OK, f"in the kernel: {', '.join(present)}"))
    by_hand = must_be_loaded_by_hand(modules, release)
    for name, state in modules.items():
        if name in present:
            continue
        if state is ModuleState.LOADABLE:
            findings.append(
                _judge_loadable(name, by_hand=by_hand and name == IPVS, forbidden=loading_disabled)
            )
        elif state is ModuleState.MISSING:
            findings.append(
                Finding(
                    Check.KERNEL_MODULE,
                    Severity.ERROR,
                    f"this kernel has no {name}: {_purpose(name)}",
                    f"boot a kernel with CONFIG_{name.upper()}, or install the package with its modules",
                    name,
                )
            )
        else:
            why = "neither its configuration nor its modules are here"
            findings.append(
                Finding(
                    Check.KERNEL_MODULE,
                    Severity.UNKNOWN,
                    f"whether the kernel has {name} can't be told: {why}",
                    f"modprobe {name}",
                    name,
                )
            )
    return findings


def _judge_loadable(name: str, *, by_hand: bool, forbidden: bool) -> Finding:
    if forbidden:
        return Finding(
            Check.KERNEL_MODULE,
            Severity.ERROR,
            f"{name} is not loaded, and kernel.modules_disabled forbids to: {_purpose(name)}",
            f"echo {name} >> /etc/modules-load.d/ipvsproxy.conf, and reboot",
            name,
        )
    if by_hand:
        return Finding(
            Check.KERNEL_MODULE,
            Severity.ERROR,
            f"{name} is not loaded, and Linux before {_dotted(_LOADS_IPVS_BY_ITSELF)} does not load it by itself",
            f"modprobe {name}; to keep it: echo {name} >> /etc/modules-load.d/ipvsproxy.conf",
            name,
        )
    return Finding(
        Check.KERNEL_MODULE,
        Severity.INFO,
        f"{name} is not loaded: the kernel loads it when the agent needs it",
        about=name,
    )


def judge_privileges(privileges: Privileges, *, must_load: bool) -> list[Finding]:
    """Judge what the process may do. `must_load`: a module, by hand."""
    if not privileges.initial_user_namespace:
        return [
            Finding(
                Check.PRIVILEGE,
                Severity.ERROR,
                "this is a user namespace, where nobody can configure IPVS: the agent can't run here",
                "run it as the host's root (a pod with hostUsers: true)",
            )
        ]
    if not privileges.may_configure_network:
        return [
            Finding(
                Check.PRIVILEGE,
                Severity.ERROR,
                "CAP_NET_ADMIN is missing: the agent can't run here, and what only the kernel's tables tell is not "
                "looked at",
                "run it as the host's root, or give the container the capability NET_ADMIN",
            )
        ]
    findings = [Finding(Check.PRIVILEGE, Severity.OK, "CAP_NET_ADMIN, outside of user namespaces")]
    if must_load and not privileges.may_load_modules:
        findings.append(
            Finding(
                Check.PRIVILEGE,
                Severity.INFO,
                "modules can't be loaded from here, without CAP_SYS_MODULE: load them on the host",
                about="CAP_SYS_MODULE",
            )
        )
    return findings


def judge_nft(program: NftProgram | None, *, agent_runs: bool) -> Finding:
    """Judge the program nft, None if there is none here; an agent that runs has one of its own."""
    if program and program.version >= _OLDEST_NFT and program.json:
        return Finding(Check.NFT, Severity.OK, f"nft {_dotted(program.version)}, with JSON")
    if program is None:
        meaning = "there is no program nft on the PATH"
    elif program.version < _OLDEST_NFT:
        meaning = f"nft {_dotted(program.version)} is older than {_dotted(_OLDEST_NFT)}"
    else:
        meaning = f"nft {_dotted(program.version)} was built without JSON"
    consequence = (
        "the agent has its own, but the commands here can't read the firewall"
        if agent_runs
        else "the agent can't write its rules"
    )
    return Finding(
        Check.NFT,
        Severity.WARNING if agent_runs else Severity.ERROR,
        f"{meaning}: {consequence}",
        f"install the package nftables, {_dotted(_OLDEST_NFT)} or later: apt-get install nftables",
    )


def _purpose(module: str) -> str:
    purposes = {
        IPVS: "without IPVS nothing is balanced",
        "nf_conntrack": "without connection tracking nothing is masqueraded",
        "nf_tables": "without nf_tables the agent has nowhere to keep its rules",
        "dummy": "service addresses can't be bound",
    }
    return purposes.get(module, "Services with this scheduler are not programmed")


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))
