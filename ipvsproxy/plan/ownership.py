"""What is ours: the one rule by which a virtual server of the kernel is told from somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.firewall import FirewallSet, SetElement

if TYPE_CHECKING:
    from collections.abc import Container
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey


def record_of(key: VirtualServerKey) -> SetElement:
    """Return the element that records a virtual server as ours: written before it, and removed after it."""
    return SetElement(FirewallSet.SERVICE_PORTS, key)


def is_ours(key: VirtualServerKey, bound: AbstractSet[Address], elements: Container[SetElement]) -> bool:
    """Say whether the virtual server's address is on the dummy interface, or the virtual server is on record."""
    return key.address in bound or record_of(key) in elements


def guards(element: SetElement, elsewhere: Container[Address]) -> bool:
    """Say whether the element would close ports of an address that the node has on another interface.

    Such an address has services of the node's own, which must stay reachable: it is not guarded.
    """
    return element.set is FirewallSet.SERVICE_ADDRESSES and element.address in elsewhere
