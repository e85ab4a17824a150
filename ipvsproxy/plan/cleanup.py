"""What `ipvsproxy cleanup` removes: what is ours, or what kube-proxy left, and never both at once.

The table `inet ipvsproxy` has the record of what is ours, and goes last. So without it nothing is ours: addresses on
the dummy interface, whose name is the one that kube-proxy gives its own, are kube-proxy's then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.plan.kube_proxy import named
from ipvsproxy.plan.ownership import is_ours

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.plan.kube_proxy import NamedPorts


class NodeTables(NamedTuple):
    """What the kernel has of everybody's: whether table and dummy interface are there, and what is in them."""

    virtual_servers: Collection[VirtualServerKey]
    bound: AbstractSet[Address]
    elsewhere: AbstractSet[Address]
    elements: AbstractSet[SetElement]
    has_interface: bool
    has_table: bool


class Removal(NamedTuple):
    """What goes, in this order, each sorted; `others` are virtual servers that stay."""

    addresses: tuple[Address, ...]
    virtual_servers: tuple[VirtualServerKey, ...]
    interface: bool
    others: tuple[VirtualServerKey, ...]

    def __bool__(self) -> bool:
        """Say whether anything goes."""
        return bool(self.addresses or self.virtual_servers or self.interface)


def removal_of_ours(found: NodeTables) -> Removal:
    """Return what goes if all that is ours does, before the table that has it on record."""
    if not found.has_table:
        return _removal(found, set(), with_interface=False)
    ours = {key for key in found.virtual_servers if is_ours(key, found.bound, found.elements)}
    return _removal(found, ours, with_interface=True)


def removal_of_kube_proxys(found: NodeTables, by: NamedPorts, *, agent_runs: bool) -> Removal:
    """Return what goes if all that kube-proxy left does; whatever is ours stays."""
    ours_is_here = found.has_table or agent_runs
    on_interface = {key for key in found.virtual_servers if key.address in found.bound}
    others = {
        key
        for key in found.virtual_servers
        if key not in on_interface and not is_ours(key, found.bound, found.elements)
    }
    theirs = set(named(others, by, found.elsewhere))
    return _removal(found, theirs if ours_is_here else theirs | on_interface, with_interface=not ours_is_here)


def _removal(found: NodeTables, going: AbstractSet[VirtualServerKey], *, with_interface: bool) -> Removal:
    return Removal(
        tuple(sorted(found.bound, key=_by_address)) if with_interface else (),
        tuple(sorted(going, key=_by_key)),
        with_interface and found.has_interface,
        tuple(sorted((key for key in found.virtual_servers if key not in going), key=_by_key)),
    )


def _by_address(address: Address) -> tuple[int, Address]:
    return len(address), address


def _by_key(key: VirtualServerKey) -> tuple[int, VirtualServerKey]:
    return len(key.address), key
