"""The kernel settings that the data plane needs, and what it means where one can't be made.

The names are those of Documentation/networking/ipvs-sysctl.rst, ip-sysctl.rst and nf_conntrack-sysctl.rst in the
kernel's source. Those below net.ipv4.vs are of each network namespace, and there only once IPVS is loaded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class KernelVersion(NamedTuple):
    """The first two numbers of a kernel's release."""

    major: int
    minor: int


class KernelSetting(NamedTuple):
    """A value to be set below /proc/sys, and a sentence, without a full stop, on what happens without it.

    `at_least` says that the value is a number, and that a higher one is as good. `no_limit` is another value that is as
    good. `essential` says that services fail at once without it, on every node.
    """

    name: str
    value: str
    meaning: str
    at_least: bool = False
    no_limit: str | None = None
    essential: bool = False

    def is_met(self, found: str) -> bool:
        """Say whether nothing has to be done about the value that was found."""
        if found in (self.value, self.no_limit):
            return True
        return self.at_least and int(found) > int(self.value)


class ConntrackSettings(NamedTuple):
    """How connections are tracked; timeouts in seconds. 0 and False leave what is set.

    `maximum` is how many there may be at the same time. `tcp_close_wait_timeout` counts for connections that only the
    other side has closed, `udp_stream_timeout` for flows with replies, `udp_timeout` for those without.
    """

    maximum: int = 0
    tcp_established_timeout: int = 0
    tcp_close_wait_timeout: int = 0
    tcp_be_liberal: bool = False
    udp_timeout: int = 0
    udp_stream_timeout: int = 0


class Ipv6Found(NamedTuple):
    """What the kernel has set for IPv6, before the agent sets anything.

    `forwarding` is net.ipv6.conf.all.forwarding. While that is 0, `accept_ra` has the setting of each interface with a
    default route by router advertisements.
    """

    forwarding: str = "0"
    accept_ra: Mapping[str, str] = {}


class SysctlSettings(NamedTuple):
    """What the settings depend on; `ipv6` None: the kernel has no IPv6 at all."""

    kernel: KernelVersion
    ipv6: Ipv6Found | None = Ipv6Found()
    strict_arp: bool = False
    conntrack: ConntrackSettings = ConntrackSettings()


_IPVS = (
    KernelSetting(
        "net.ipv4.vs.conntrack",
        "1",
        "nothing is masqueraded: processes of the node, and pods that reach themselves, get no answer from services",
        essential=True,
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

FORWARDING = {Family.IPV4: "net.ipv4.ip_forward", Family.IPV6: "net.ipv6.conf.all.forwarding"}
"""The settings by which a node passes on what is for others."""
IPV6_FORWARDING = FORWARDING[Family.IPV6]
_FORWARDING_IPV4 = KernelSetting(
    FORWARDING[Family.IPV4], "1", "the node does not pass IPv4 traffic on to pods", essential=True
)
_FORWARDING_IPV6 = KernelSetting(
    IPV6_FORWARDING, "1", "the node does not pass IPv6 traffic on to pods", at_least=True
)

# The service addresses are on every node: only the node that announces one may answer for it. An operator may have
# chosen stricter values. Of these and an interface's own values the kernel goes by the higher ones.
_STRICT_ARP = (
    KernelSetting(
        "net.ipv4.conf.all.arp_ignore",
        "1",
        "the node answers ARP requests for service addresses, also for those that another node announces",
        at_least=True,
    ),
    KernelSetting(
        "net.ipv4.conf.all.arp_announce",
        "2",
        "the node names service addresses as its own in ARP requests, also those that another node announces",
        at_least=True,
    ),
)

_MAXIMUM = "net.netfilter.nf_conntrack_max"
_MAXIMUM_MEANING = "the node tracks no more connections than before, and drops new ones beyond that"
_BUCKETS = "net.netfilter.nf_conntrack_buckets"
_BUCKETS_MEANING = "packets take longer where many connections are tracked"
# As many as kube-proxy counts on. The kernel sizes both by the machine's memory, once.
_CONNECTIONS_PER_BUCKET = 4

_TCP_BE_LIBERAL = KernelSetting(
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "1",
    "packets outside a TCP connection's window are not translated, and may end the connection",
)


def parse_kernel_release(release: str) -> KernelVersion:
    """Return the version that a release such as `6.1.0-18-amd64` (uname -r) begins with; ValueError otherwise."""
    found = re.match(r"(\d+)\.(\d+)", release)
    if not found:
        raise ValueError(f"{release!r} is not a kernel's release")
    return KernelVersion(int(found[1]), int(found[2]))


def conntrack_maximum(max_per_core: int, minimum: int, cpus: int) -> int:
    """Return how many connections the node is to track, 0 for as many as it does: what kube-proxy asks for."""
    return max(minimum, max_per_core * cpus) if max_per_core else 0


def sysctl_plan(settings: SysctlSettings) -> tuple[KernelSetting, ...]:
    """Return the settings to be made, in their order, each name once."""
    plan = [*_IPVS]
    # Later kernels do not delay such clients, and with 0 they would send them to endpoints that are going.
    if settings.kernel <= _LAST_WITH_REUSE_DELAY:
        plan.append(_REUSE)
    plan.append(_FORWARDING_IPV4)
    if settings.ipv6:
        plan += (*_router_advertisements(settings.ipv6), _FORWARDING_IPV6)
    if settings.strict_arp:
        plan += _STRICT_ARP
    plan += _conntrack(settings.conntrack)
    return tuple(plan)


def _router_advertisements(ipv6: Ipv6Found) -> Iterator[KernelSetting]:
    """Yield what keeps the node's default routes when forwarding is switched on.

    An interface with accept_ra 1 follows router advertisements as long as it does not forward; with 2, always. When
    forwarding becomes 1, the kernel deletes the default routes that came by the former (__rt6_purge_dflt_routers in
    net/ipv6/route.c). Where it is 1 already, somebody has decided that without the agent.
    """
    if ipv6.forwarding != "0":
        return
    for interface, accept_ra in sorted(ipv6.accept_ra.items()):
        if accept_ra == "1":
            yield KernelSetting(
                # With slashes, as an interface's name may have dots.
                f"net/ipv6/conf/{interface}/accept_ra",
                "2",
                f"{interface} has no default route from router advertisements as soon as the node forwards IPv6",
            )


def _conntrack(conntrack: ConntrackSettings) -> Iterator[KernelSetting]:
    if conntrack.maximum:
        buckets = conntrack.maximum // _CONNECTIONS_PER_BUCKET
        maximum = str(conntrack.maximum)
        yield KernelSetting(_MAXIMUM, maximum, _MAXIMUM_MEANING, at_least=True, no_limit="0")
        yield KernelSetting(_BUCKETS, str(buckets), _BUCKETS_MEANING, at_least=True)
    timeouts = (
        ("tcp_timeout_established", conntrack.tcp_established_timeout, "idle TCP connections"),
        ("tcp_timeout_close_wait", conntrack.tcp_close_wait_timeout, "half-closed TCP connections"),
        ("udp_timeout", conntrack.udp_timeout, "idle UDP flows without replies"),
        ("udp_timeout_stream", conntrack.udp_stream_timeout, "idle UDP flows with replies"),
    )
    for name, seconds, what in timeouts:
        if seconds:
            meaning = f"{what} are forgotten after another time than the configured one"
            yield KernelSetting(f"net.netfilter.nf_conntrack_{name}", str(seconds), meaning)
    if conntrack.tcp_be_liberal:
        yield _TCP_BE_LIBERAL
