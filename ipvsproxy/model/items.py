"""What the agent keeps in the kernel, each with the words for it that logs, `dump` and tests share."""

from __future__ import annotations

from typing import TypeAlias

from ipvsproxy.model.addresses import Address, format_address
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import VirtualServerKey

Item: TypeAlias = VirtualServerKey | SetElement | Address


def kind_of(item: Item) -> str:
    """Return what the item is: "virtual server", "set element" or "address"."""
    if isinstance(item, VirtualServerKey):
        return "virtual server"
    return "set element" if isinstance(item, SetElement) else "address"


def describe(item: Item) -> str:
    """Return what the item is, and which one: `virtual server 10.96.0.1:80/tcp`."""
    if isinstance(item, VirtualServerKey):
        return f"virtual server {item}"
    if isinstance(item, SetElement):
        if item.set is FirewallSet.SOURCE_LISTS:
            return f"source list {item.set_name}"
        return f"element {item} of set {item.set_name}"
    return f"address {format_address(item)}"
