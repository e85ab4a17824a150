"""Who may use a load balancer's address: spec.loadBalancerSourceRanges of a Service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import Network, family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.model.addresses import Address


def allowed_sources(
    ranges: Iterable[Network] | None, address: Address, node_addresses: Iterable[Address]
) -> tuple[Network, ...] | None:
    """Return the networks, none within another, whose sources may use the address; None lets every source in.

    Ranges are of both families, and a source that is in none of them is kept out: ranges of one family alone close the
    other. A process of the node has the load balancer's own address for its source; it is let in if an address of the
    node's is in a range.
    """
    if ranges is None:
        return None
    of_family = [network for network in ranges if network.family is family(address)]
    if any(network.prefix_length == 0 for network in of_family):
        return None
    if any(network.contains(each) for each in node_addresses for network in of_family):
        of_family.append(Network(address, 8 * len(address)))
    return tuple(_without_contained(of_family))


def _without_contained(networks: Iterable[Network]) -> Iterable[Network]:
    kept: list[Network] = []
    for network in sorted(set(networks), key=lambda each: (each.prefix_length, each.address)):
        if not any(wider.contains(network.address) for wider in kept):
            kept.append(network)
    return kept
