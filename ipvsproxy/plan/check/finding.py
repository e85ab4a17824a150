"""What a finding is, and what all findings of a node together mean."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Severity(enum.StrEnum):
    """How bad a finding is, the worst last.

    INFO is worth to be known, UNKNOWN could not be looked at. WARNING fails for some clients, or will; ERROR fails.
    """

    OK = "ok"
    INFO = "info"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """How bad it is, 0 for OK."""
        return _RANKS.index(self)


_RANKS: Final = tuple(Severity)


class Check(enum.StrEnum):
    """What is looked at, in the order in which it is shown. The names are for programs, and stay."""

    KERNEL_VERSION = "kernel-version"
    KERNEL_MODULE = "kernel-module"
    PRIVILEGE = "privilege"
    NFT = "nft"
    KERNEL_SETTING = "kernel-setting"
    CONNTRACK_ROOM = "conntrack-room"
    CONNTRACK_DROPS = "conntrack-drops"
    IPVS_TABLE = "ipvs-table"
    HOST_FIREWALL = "host-firewall"
    FOREIGN_RULES = "foreign-rules"
    ARP = "arp"
    BRIDGE = "bridge"
    IPV6 = "ipv6"
    NODE_PORTS = "node-ports"
    KUBE_PROXY = "kube-proxy"
    KUBE_PROXY_LEFTOVERS = "kube-proxy-leftovers"
    PORT = "port"
    RUN_DIRECTORY = "run-directory"
    AGENT = "agent"
    OTHER_AGENT = "other-agent"
    NODE = "node"
    AGENT_VERSION = "agent-version"
    CONFIGURATION = "configuration"
    RESYNC = "resync"
    WATCH = "watch"
    FAILURES = "failures"
    DIFFERENCES = "differences"
    REJECTIONS = "rejections"
    AGENT_WARNING = "agent-warning"


class Finding(NamedTuple):
    """What was found by one check, one of several perhaps.

    `about` is the thing among several that it is about, such as a module, "" if there is but one. `meaning` is a
    sentence without a full stop, `mend` the command that mends it, or what else to do; "" if nothing has to be done.
    """

    check: Check
    severity: Severity
    meaning: str
    mend: str = ""
    about: str = ""


# 2 and 77 are taken, for wrong words and a missing privilege.
_EXIT_CODES: Final = {Severity.ERROR: 1, Severity.WARNING: 3}


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the severity of the worst finding, OK without any."""
    return max((each.severity for each in findings), key=lambda severity: severity.rank, default=Severity.OK)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 1 if anything is an error, else 3 if anything is a warning, else 0."""
    return _EXIT_CODES.get(worst(findings), 0)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the worst first, those of the same severity in the order of the checks."""
    order = list(Check)
    return sorted(findings, key=lambda each: (-each.severity.rank, order.index(each.check), each.about))


def listed(sentences: Sequence[str], most: int = 5) -> str:
    """Return the first few sentences, and how many more there are."""
    more = f"; and {len(sentences) - most} more" if len(sentences) > most else ""
    return f"{'; '.join(sentences[:most])}{more}"


def unknown(check: Check, why: object, about: str = "") -> Finding:
    """Return the finding for what could not be looked at; `why` is a phrase, or the error that says it."""
    return Finding(check, Severity.UNKNOWN, f"can't be looked at: {why}", about=about)
