"""What stands in the way of service traffic on the node: firewalls, ARP, bridges, IPv6 that is switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.model.addresses import Family, format_address
from ipvsproxy.plan.check.finding import Check, Finding, Severity, unknown
from ipvsproxy.plan.host_firewall import FORWARD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ipvsproxy.model.addresses import Address, Network
    from ipvsproxy.plan.host_firewall import HostFirewallFinding

# arp_announce 2: the address of the interface that the request leaves by (ip-sysctl.rst).
_BEST_LOCAL_ADDRESS: Final = 2


class Arp(NamedTuple):
    """Who answers ARP requests: the kernel, as arp_ignore and arp_announce of all interfaces say, and programs.

    `answering` are the interfaces on which a program has a packet socket for ARP, as MetalLB's speaker does in layer 2
    mode.
    """

    ignore: int
    announce: int
    answering: tuple[str, ...]


class Bridge(NamedTuple):
    """A bridge of the node, the networks of its addresses, and how many ports it has.

    `ipv4_filtered` and `ipv6_filtered` say whether netfilter sees what passes from port to port.
    """

    name: str
    networks: tuple[Network, ...]
    ports: int
    ipv4_filtered: bool
    ipv6_filtered: bool


def judge_host_firewall(
    drops: Sequence[HostFirewallFinding],
    unseen: Iterable[str],
    unmended: Sequence[str] = (),
    *,
    agent_mends: bool = False,
) -> list[Finding]:
    """Judge what of the host's firewall drops service traffic; `unseen` are sentences about what can't be looked at.

    `unmended` are those of the agent about chains of its own that it could not make there. `agent_mends` says that no
    agent was here yet, and that one would make these chains.
    """
    findings = [Finding(Check.HOST_FIREWALL, Severity.ERROR, each) for each in unmended]
    for drop in drops:
        about = f"{drop.base.table.family} {drop.base.table.name} {drop.base.chain}"
        if agent_mends and drop.base.hook == FORWARD:
            meaning = f"{drop.meaning}; the agent will accept these there, in a chain of its own"
            findings.append(Finding(Check.HOST_FIREWALL, Severity.INFO, meaning, about=about))
        else:
            findings.append(Finding(Check.HOST_FIREWALL, Severity.WARNING, drop.meaning, drop.mend, about))
    findings += [Finding(Check.HOST_FIREWALL, Severity.UNKNOWN, each) for each in unseen]
    if not findings:
        return [
            Finding(
                Check.HOST_FIREWALL, Severity.OK, "no firewall of the host is seen to drop service traffic"
            )
        ]
    return findings


def judge_arp(arp: Arp, shared: Sequence[Address] | None) -> Finding:
    """Judge whether the node answers for addresses of others.

    `shared` are the bound IPv4 addresses that clients outside the cluster use, which every node has; None if it is not
    known which of those that are bound.
    """
    if arp.ignore and arp.announce >= _BEST_LOCAL_ADDRESS:
        return Finding(
            Check.ARP, Severity.OK, "the node answers ARP requests for an interface's own addresses only"
        )
    if shared is None:
        return unknown(Check.ARP, "only the agent knows which addresses clients outside the cluster use")
    if not shared:
        return Finding(
            Check.ARP,
            Severity.OK,
            "no address of a load balancer, and no external IP, is bound that ARP asks for",
        )
    addresses = _few([format_address(address) for address in shared])
    state = (
        f"arp_ignore is {arp.ignore} and arp_announce {arp.announce}: "
        f"the node answers ARP requests for {addresses}, as every other node does"
    )
    if not arp.answering:
        return Finding(
            Check.ARP, Severity.INFO, f"{state}; that harms where nodes share a network with such clients"
        )
    return Finding(
        Check.ARP,
        Severity.WARNING,
        f"{state}, while a program answers ARP on {', '.join(arp.answering)}, as MetalLB does for the node that it "
        "has chosen: clients may reach another one",
        "run the agent with --ipvs-strict-arp; at once: sysctl -w net.ipv4.conf.all.arp_ignore=1 "
        "net.ipv4.conf.all.arp_announce=2",
    )


def judge_bridges(
    bridges: Iterable[Bridge], pods: Collection[Address] | None, *, masquerade_all: bool
) -> list[Finding]:
    """Judge whether pods on one bridge get their answers through netfilter, and so from the service address.

    `pods` are the endpoints that may be of this node, None if they are not known. What is masqueraded is answered to
    the node itself.
    """
    findings: list[Finding] = []
    for bridge in bridges:
        for network in bridge.networks:
            filtered = bridge.ipv6_filtered if network.family is Family.IPV6 else bridge.ipv4_filtered
            if masquerade_all or filtered or not bridge.ports:
                continue
            if pods is None:
                findings.append(_judge_bridge(bridge, network, Severity.INFO, "if these are pods, they"))
            elif any(map(network.contains, pods)):
                findings.append(_judge_bridge(bridge, network, Severity.ERROR, "pods"))
    return findings or [Finding(Check.BRIDGE, Severity.OK, "no bridge takes answers past the node")]


def _judge_bridge(bridge: Bridge, network: Network, severity: Severity, who: str) -> Finding:
    program = "ip6tables" if network.family is Family.IPV6 else "iptables"
    return Finding(
        Check.BRIDGE,
        severity,
        f"what passes from port to port of the bridge {bridge.name} ({network}) is not seen by netfilter: {who} get no "
        "answer from a service whose endpoint is on the same bridge",
        f"modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-{program}=1",
        f"{bridge.name} {network}",
    )


def judge_ipv6(*, disabled: bool | None, wanted: int) -> Finding:
    """Judge whether IPv6 addresses can be bound; `wanted` is how many are. `disabled` None: the kernel has no IPv6."""
    if not wanted:
        return Finding(Check.IPV6, Severity.OK, "no IPv6 service addresses are known")
    if disabled is None:
        return Finding(
            Check.IPV6,
            Severity.ERROR,
            f"this kernel has no IPv6, and there are {wanted} IPv6 service addresses: they are not served",
            "boot without ipv6.disable=1, with a kernel that has IPv6",
        )
    if disabled:
        return Finding(
            Check.IPV6,
            Severity.ERROR,
            f"IPv6 is switched off on kube-ipvs0, and there are {wanted} IPv6 service addresses: they can't be bound",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.kube-ipvs0.disable_ipv6=0",
        )
    return Finding(Check.IPV6, Severity.OK, "IPv6 service addresses can be bound")


def judge_node_ports(ports: Collection[int], local: str, reserved: str) -> Finding:
    """Judge whether the node's own connections may begin at a node port; then answers to them go to IPVS instead.

    `local` and `reserved` are net.ipv4.ip_local_port_range and net.ipv4.ip_local_reserved_ports, which are IPv6's too.
    IPVS takes whatever is sent to a node port, and a SYN-ACK for a new connection (tcp_conn_schedule,
    ip_vs_proto_tcp.c).
    """
    if not ports:
        return Finding(Check.NODE_PORTS, Severity.OK, "no node ports are known")
    first, last = map(int, local.split())
    kept = [tuple(map(int, part.split("-"))) for part in reserved.split(",") if part.strip()]
    open_ports = [
        port
        for port in sorted(ports)
        if first <= port <= last and not any(part[0] <= port <= part[-1] for part in kept)
    ]
    if not open_ports:
        return Finding(
            Check.NODE_PORTS, Severity.OK, "the node's own connections begin at no port that is a node port"
        )
    names = _few([str(port) for port in open_ports])
    wanted = ",".join(filter(None, (reserved.strip(), *map(str, open_ports))))
    return Finding(
        Check.NODE_PORTS,
        Severity.WARNING,
        f"the node's own connections may begin at a node port ({names}), for net.ipv4.ip_local_port_range is "
        f"{first} to {last}: such a connection hangs",
        f"sysctl -w net.ipv4.ip_local_reserved_ports={wanted}; to keep it, reserve the API server's whole "
        "--service-node-port-range in a file of /etc/sysctl.d",
    )


def _few(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
