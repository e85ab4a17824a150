"""What other programs, and people, may do to a node's tables."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from pyroute2.iproute.linux import IPRoute
from pyroute2.ipvs import IPVS, IPVSDest, IPVSService

from ipvsproxy.model.addresses import Family
from netns_tests.tables import INTERFACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from netns_tests.topology import Host
    from netns_tests.traffic import Target

_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h
# The kernel reads IPv6's prefix length, 128, from where pyroute2 writes a netmask.
_NETMASK = {Family.IPV4: "255.255.255.255", Family.IPV6: socket.inet_ntoa((128).to_bytes(4, "little"))}


def add_virtual_server(
    node: Host, target: Target, scheduler: str, real_servers: Iterable[tuple[str, int]]
) -> None:
    """Add a virtual server with masquerading real servers."""
    with node.namespace.netlink(IPVS) as ipvs:
        ipvs.service("add", service=_virtual_server(target, sched_name=scheduler))
    add_real_servers(node, target, real_servers)


def add_real_servers(node: Host, target: Target, real_servers: Iterable[tuple[str, int]]) -> None:
    """Add masquerading real servers to a virtual server."""
    with node.namespace.netlink(IPVS) as ipvs:
        for address, port in real_servers:
            ipvs.dest("add", service=_virtual_server(target), dest=_real_server(address, port))


def delete_virtual_server(node: Host, target: Target) -> None:
    """Delete a virtual server and its real servers."""
    with node.namespace.netlink(IPVS) as ipvs:
        ipvs.service("del", service=_virtual_server(target))


def delete_real_server(node: Host, target: Target, address: str, port: int) -> None:
    """Delete a real server of a virtual server."""
    with node.namespace.netlink(IPVS) as ipvs:
        ipvs.dest("del", service=_virtual_server(target), dest=_real_server(address, port))


def set_weight(node: Host, target: Target, address: str, port: int, weight: int) -> None:
    """Change a real server's weight."""
    with node.namespace.netlink(IPVS) as ipvs:
        ipvs.dest("set", service=_virtual_server(target), dest=_real_server(address, port, weight))


def add_node_address(node: Host, address: str) -> None:
    """Give the node an address, on its interface to the router."""
    _change_node_address(node, "add", address)


def delete_node_address(node: Host, address: str) -> None:
    """Take an address off the node's interface to the router."""
    _change_node_address(node, "del", address)


def delete_interface(node: Host) -> None:
    """Delete the agent's interface."""
    with node.namespace.netlink(IPRoute) as netlink:
        netlink.link("del", ifname=INTERFACE)


def nft(node: Host, command: str) -> None:
    """Run an nft command."""
    node.namespace.run("nft", command)


def _change_node_address(node: Host, command: str, address: str) -> None:
    family = Family.IPV6 if ":" in address else Family.IPV4
    with node.namespace.netlink(IPRoute) as netlink:
        index = netlink.link_lookup(ifname="eth0")[0]
        netlink.addr(
            command, index=index, address=address, prefixlen=family.bits, family=family, flags=_NODAD
        )


def _virtual_server(target: Target, **fields: str) -> Any:  # noqa: ANN401 - pyroute2 has no types
    make: Callable[..., Any] = IPVSService
    return make(
        addr=target.address,
        port=target.port,
        protocol=target.protocol,
        netmask=_NETMASK[target.family],
        af=target.family,
        **fields,
    )


def _real_server(address: str, port: int, weight: int = 1) -> Any:  # noqa: ANN401 - pyroute2 has no types
    make: Callable[..., Any] = IPVSDest
    return make(addr=address, port=port, weight=weight, fwd_method=0)
