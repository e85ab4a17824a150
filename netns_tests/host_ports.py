"""Ports of the node that other programs redirect to a pod, by the rules that those programs write.

The CNI plugin portmap does so for a pod's hostPort, of which k3s' ServiceLB makes use, and Docker for `-p`.
"""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.model.addresses import Family, format_endpoint, parse_address
from netns_tests.topology import CLUSTER_CIDRS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ipvsproxy.model.objects import Protocol
    from netns_tests.topology import Host

_POD_NETWORKS: Final = dict(zip(Family, CLUSTER_CIDRS, strict=True))
_PROGRAMS: Final = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
_LOOPBACK: Final = {Family.IPV4: "127.0.0.0/8", Family.IPV6: "::1/128"}
_NFT_FAMILY: Final = {Family.IPV4: "ip", Family.IPV6: "ip6"}


class HostPort(NamedTuple):
    """A port of the node, and the pod's address and port that it leads to."""

    protocol: Protocol
    port: int
    address: str
    target: int

    @property
    def destination(self) -> str:
        """Where it leads to, as `ADDRESS:PORT`."""
        return format_endpoint(parse_address(self.address), self.target)


class Writer(enum.StrEnum):
    """Which program writes the rules, and by what."""

    PORTMAP_LEGACY = "portmap by iptables-legacy"
    PORTMAP_NFT = "portmap by iptables-nft"
    PORTMAP_NFTABLES = "portmap by nftables"
    DOCKER_LEGACY = "Docker by iptables-legacy"
    DOCKER_NFT = "Docker by iptables-nft"


@contextlib.contextmanager
def redirected(node: Host, family: Family, host_ports: Sequence[HostPort], writer: Writer) -> Iterator[None]:
    """Have the ports of the node redirected for the block."""
    namespace = node.namespace
    if writer is Writer.PORTMAP_NFTABLES:
        namespace.run("nft", "-f", "-", stdin=_portmap_nftables(family, host_ports))
        try:
            yield
        finally:
            namespace.run("nft", "delete", "table", _NFT_FAMILY[family], "cni_hostport")
        return
    program = f"{_PROGRAMS[family]}-{'legacy' if 'legacy' in writer else 'nft'}"
    is_docker = writer in {Writer.DOCKER_LEGACY, Writer.DOCKER_NFT}
    lines = _docker(family, host_ports) if is_docker else _portmap_iptables(family, host_ports)
    namespace.run(f"{program}-restore", "--noflush", stdin="\n".join(("*nat", *lines, "COMMIT", "")))
    try:
        yield
    finally:
        namespace.run(program, "-t", "nat", "-F")
        namespace.run(program, "-t", "nat", "-X")


def _portmap_iptables(family: Family, host_ports: Sequence[HostPort]) -> Iterator[str]:
    for chain in ("CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-DNAT", "CNI-DN-0123456789"):
        yield f":{chain} - [0:0]"
    yield (
        '-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" '
        "-j MARK --set-xmark 0x2000/0x2000"
    )
    yield "-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE"
    yield ('-I POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ')
    for hook in ("PREROUTING", "OUTPUT"):
        yield f"-A {hook} -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT"
    for protocol, port, address, _ in host_ports:
        name = protocol.name.lower()
        yield f"-A CNI-HOSTPORT-DNAT -p {name} -m multiport --dports {port} -j CNI-DN-0123456789"
        match = f"-A CNI-DN-0123456789 -p {name} --dport {port}"
        yield f"{match} -s {address} -j CNI-HOSTPORT-SETMARK"
        if family is Family.IPV4:
            yield f"{match} -s 127.0.0.1/32 -j CNI-HOSTPORT-SETMARK"
    for each in host_ports:
        name = each.protocol.name.lower()
        yield (
            f"-A CNI-DN-0123456789 -p {name} --dport {each.port} -j DNAT --to-destination {each.destination}"
        )


def _docker(family: Family, host_ports: Sequence[HostPort]) -> Iterator[str]:
    yield ":DOCKER - [0:0]"
    yield "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"
    yield f"-A OUTPUT ! -d {_LOOPBACK[family]} -m addrtype --dst-type LOCAL -j DOCKER"
    yield f"-A POSTROUTING -s {_POD_NETWORKS[family]} -o docker0 -j MASQUERADE"
    for each in host_ports:
        name = each.protocol.name.lower()
        yield (
            f"-A DOCKER ! -i docker0 -p {name} --dport {each.port} -j DNAT --to-destination {each.destination}"
        )


def _portmap_nftables(family: Family, host_ports: Sequence[HostPort]) -> str:
    ip = _NFT_FAMILY[family]
    redirections = "\n".join(
        f"meta l4proto {each.protocol.name.lower()} th dport {each.port} dnat {ip} to {each.destination}"
        for each in host_ports
    )
    return f"""
        table {ip} cni_hostport {{
            chain hostip_hostports {{ }}
            chain hostports {{
                {redirections}
            }}
            chain prerouting {{
                type nat hook prerouting priority -100;
                jump hostip_hostports
                fib daddr type local jump hostports
            }}
            chain output {{
                type nat hook output priority -100;
                jump hostip_hostports
                fib daddr type local jump hostports
            }}
            chain masquerading {{
                type nat hook postrouting priority 100;
                {ip} saddr {host_ports[0].address} {ip} daddr {host_ports[0].address} masquerade
            }}
        }}
    """
