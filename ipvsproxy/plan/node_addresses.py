"""The addresses of the node that node ports are served on."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import family

if TYPE_CHECKING:
    from collections.abc import Collection

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import Node
    from ipvsproxy.model.selection import NodePortAddresses


def node_port_addresses(
    selection: NodePortAddresses, node: Node | None, interface_addresses: Collection[Address]
) -> frozenset[Address]:
    """Return the selected ones of the node's addresses, `interface_addresses` being those of its interfaces.

    The primary addresses are the first of each family that the Node names, whether an interface has them or not. No
    selection has a loopback address in it, which IPVS can't serve (kubernetes/kubernetes#67730), nor a link-local IPv6,
    a multicast or the unspecified address.
    """
    selected: set[Address] = set()
    if selection.primary and node:
        selected.update({family(address): address for address in reversed(node.addresses)}.values())
    selected.update(
        address
        for address in interface_addresses
        if selection.all or any(network.contains(address) for network in selection.networks)
    )
    return frozenset(filter(_is_servable, selected))


def _is_servable(address: Address) -> bool:
    ip = ipaddress.ip_address(bytes(address))
    link_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_link_local
    return not (ip.is_loopback or ip.is_multicast or ip.is_unspecified or link_local)
