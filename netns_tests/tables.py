"""The node's tables as the kernel has them, read by other means than the agent's."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pyroute2.iproute.linux import IPRoute
from pyroute2.ipvs import IPVS

from ipvsproxy.model.objects import Protocol
from netns_tests.traffic import Target

if TYPE_CHECKING:
    from netns_tests.topology import Host

INTERFACE = "kube-ipvs0"
TABLE = "inet ipvsproxy"

_NETLINK_NETFILTER = 12  # linux/netlink.h
_RTMGRP_IPV4_IFADDR = 0x10  # linux/rtnetlink.h
_RTMGRP_IPV6_IFADDR = 0x100
_NFGRP_NFTABLES = 1 << 6  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h


class RealServer(NamedTuple):
    """A real server's line of /proc/net/ip_vs."""

    address: str
    port: int
    weight: int
    active_connections: int
    inactive_connections: int


class VirtualServer(NamedTuple):
    """A virtual server of /proc/net/ip_vs; `settings` is its scheduler, with its flags and timeout if it has any."""

    settings: str
    real_servers: list[RealServer]


class Address(NamedTuple):
    """An address of the dummy interface; `created` is the kernel's time stamp, in hundredths of a second."""

    address: str
    prefix_length: int
    created: int


def virtual_servers(node: Host) -> dict[Target, VirtualServer]:
    """Return every virtual server of the node."""
    found: dict[Target, VirtualServer] = {}
    real_servers: list[RealServer] = []
    for line in node.namespace.read("ip_vs").splitlines()[3:]:
        words = line.split()
        if words[0] == "->":
            weight, active, inactive = map(int, words[3:6])
            real_servers.append(RealServer(*_endpoint(words[1]), weight, active, inactive))
        else:
            target = Target(*_endpoint(words[1]), Protocol[words[0]])
            real_servers = []
            found[target] = VirtualServer(" ".join(words[2:]), real_servers)
    return found


def serving(node: Host) -> dict[Target, set[tuple[str, int]]]:
    """Return for every virtual server who gets new connections."""
    return {
        target: {(server.address, server.port) for server in virtual_server.real_servers if server.weight}
        for target, virtual_server in virtual_servers(node).items()
    }


def service_addresses(node: Host) -> set[Address]:
    """Return the addresses on the agent's interface; none without it."""
    with node.namespace.netlink(IPRoute) as netlink:
        index = netlink.link_lookup(ifname=INTERFACE)
        return {
            Address(
                message.get_attr("IFA_ADDRESS"),
                message["prefixlen"],
                message.get_attr("IFA_CACHEINFO")["cstamp"],
            )
            for message in (netlink.get_addr(index=index[0]) if index else ())
            if not ipaddress.ip_address(message.get_attr("IFA_ADDRESS")).is_link_local
        }


def has_address(node: Host, address: str) -> bool:
    """Say whether an address is one of the node's own, on whichever interface, at little cost."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with node.namespace.entered(), socket.socket(kind, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def ruleset(node: Host) -> str:
    """Return the agent's table with the handle of every rule; "" if it is not there."""
    with contextlib.suppress(subprocess.CalledProcessError):
        return node.namespace.run("nft", "--handle", "list", "table", *TABLE.split())
    return ""


def accepted_connections(node: Host) -> dict[Target, int]:
    """Return how many connections each virtual server has had; the kernel adds up every two seconds."""
    with node.namespace.netlink(IPVS) as netlink:
        return {
            target: connections
            for message in netlink.service("dump")
            for target, connections in [_counted(message.get_attr("IPVS_CMD_ATTR_SERVICE"))]
        }


class Tables(NamedTuple):
    """Everything the agent programs, at one moment; equal before and after means that nothing was touched.

    Time stamps and handles tell what was removed and made again from what was left alone.
    """

    virtual_servers: dict[Target, tuple[str, set[tuple[str, int, int]]]]
    addresses: set[Address]
    ruleset: str

    @classmethod
    def of(cls, node: Host) -> Self:
        """Read the tables of a node; real servers as address, port and weight."""
        return cls(
            {
                target: (settings, {server[:3] for server in real_servers})
                for target, (settings, real_servers) in virtual_servers(node).items()
            },
            service_addresses(node),
            ruleset(node),
        )

    def without_history(self) -> Self:
        """Return what is there without the marks of when it was made."""
        return self._replace(
            addresses={address._replace(created=0) for address in self.addresses},
            ruleset=re.sub(r" # handle \d+", "", self.ruleset),
        )


class Notices:
    """What the kernel announces about addresses and nftables of a node from the start of a `with` block on."""

    def __init__(self, node: Host) -> None:
        """Listen in the node's namespace."""
        with node.namespace.entered():
            self._addresses = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._nftables = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._addresses.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
        self._nftables.bind((0, _NFGRP_NFTABLES))

    def __enter__(self) -> Self:
        """Return the notices, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._addresses.close()
        self._nftables.close()

    def forget(self) -> None:
        """Drop what came so far."""
        self.of_addresses()
        self.of_nftables()

    def of_addresses(self) -> int:
        """Return how many messages about addresses came since the last call."""
        return _datagrams(self._addresses)

    def of_nftables(self) -> int:
        """Return how many messages about nftables came since the last call."""
        return _datagrams(self._nftables)


def _datagrams(listener: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while listener.recv(65536, socket.MSG_DONTWAIT):
            count += 1
    return count


def _endpoint(text: str) -> tuple[str, int]:
    """Return address and port of what /proc/net/ip_vs shows in hexadecimal, with brackets around IPv6."""
    address, _, port = text.rpartition(":")
    if address.startswith("["):
        return str(ipaddress.ip_address(address[1:-1])), int(port, 16)
    return str(ipaddress.ip_address(int(address, 16))), int(port, 16)


def _counted(service: Any) -> tuple[Target, int]:  # noqa: ANN401 - pyroute2 has no types
    target = Target(
        service.get_attr("IPVS_SVC_ATTR_ADDR"),
        service.get_attr("IPVS_SVC_ATTR_PORT"),
        Protocol(service.get_attr("IPVS_SVC_ATTR_PROTOCOL")),
    )
    return target, service.get_attr("IPVS_SVC_ATTR_STATS64").get_attr("IPVS_STATS_ATTR_CONNS")
