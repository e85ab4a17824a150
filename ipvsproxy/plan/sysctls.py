"""The kernel settings that the data plane needs, and what it means where one can't be made.

The names are those of Documentation/networking/ipvs-sysctl.rst and ip-sysctl.rst in the kernel's source. Those below
net.ipv4.vs are of each network namespace, and there only once IPVS is loaded.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class KernelVersion(NamedTuple):
    """The first two numbers of a kernel's release."""

    major: int
    minor: int


class KernelSetting(NamedTuple):
    """A value to be set below /proc/sys, and a sentence, without a full stop, on what happens without it."""

    name: str
    value: str
    meaning: str


class SysctlSettings(NamedTuple):
    """What the settings depend on; `ipv6` says whether the kernel has IPv6 at all."""

    kernel: KernelVersion
    ipv6: bool = True
    strict_arp: bool = False


_IPVS = (
    KernelSetting(
        "net.ipv4.vs.conntrack",
        "1",
        "nothing is masqueraded: processes of the node, and pods that reach themselves, get no answer from services",
    ),
    KernelSetting(
        "net.ipv4.vs.expire_nodest_conn",
        "1",
        "connections to an endpoint that is gone hang until they time out",
    ),
    KernelSetting(
        "net.ipv4.vs.expire_quiescent_template",
        "1",
        "clients with session affinity stay with an endpoint that is going until their affinity times out",
    ),
)

_LAST_WITH_REUSE_DELAY = KernelVersion(5, 8)
_REUSE = KernelSetting(
    "net.ipv4.vs.conn_reuse_mode",
    "0",
    "a client that uses a port again soon waits a second for its connection",
)

_FORWARDING = KernelSetting("net.ipv4.ip_forward", "1", "the node does not pass IPv4 traffic on to pods")
IPV6_FORWARDING = "net.ipv6.conf.all.forwarding"
_FORWARDING_IPV6 = KernelSetting(IPV6_FORWARDING, "1", "the node does not pass IPv6 traffic on to pods")

# The service addresses are on every node: only the node that announces one may answer for it.
_STRICT_ARP = (
    KernelSetting(
        "net.ipv4.conf.all.arp_ignore",
        "1",
        "the node answers ARP requests for service addresses, also for those that another node announces",
    ),
    KernelSetting(
        "net.ipv4.conf.all.arp_announce",
        "2",
        "the node names service addresses as its own in ARP requests, also those that another node announces",
    ),
)


def parse_kernel_release(release: str) -> KernelVersion:
    """Return the version that a release such as `6.1.0-18-amd64` (uname -r) begins with; ValueError otherwise."""
    found = re.match(r"(\d+)\.(\d+)", release)
    if not found:
        raise ValueError(f"{release!r} is not a kernel's release")
    return KernelVersion(int(found[1]), int(found[2]))


def sysctl_plan(settings: SysctlSettings) -> tuple[KernelSetting, ...]:
    """Return the settings to be made, each name once."""
    plan = [*_IPVS]
    # Later kernels do not delay such clients, and with 0 they would send them to endpoints that are going.
    if settings.kernel <= _LAST_WITH_REUSE_DELAY:
        plan.append(_REUSE)
    plan.append(_FORWARDING)
    if settings.ipv6:
        plan.append(_FORWARDING_IPV6)
    if settings.strict_arp:
        plan += _STRICT_ARP
    return tuple(plan)
