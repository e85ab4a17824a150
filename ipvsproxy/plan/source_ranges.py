"""Who may use a load balancer's address: spec.loadBalancerSourceRanges of a Service."""

from __future__ import annotations

import bisect
import functools
from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import Family, Network, family
from ipvsproxy.model.firewall import SourceList

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ipvsproxy.model.addresses import Address

MAXIMUM_NETWORKS = 20_000
"""How many networks one source list may have. The kernel and nft take 50,000 a second on a machine of today."""

LIGHT = 1_000
"""A source list of more networks is not installed together with anything else, and after all else."""

NOBODY = {of: SourceList.of(of, ()) for of in Family}
"""The source list of each family that lets nobody in."""


def allowed_sources(
    ranges: tuple[Network, ...] | None, address: Address, node_addresses: Collection[Address]
) -> SourceList | None:
    """Return the list of the networks whose sources may use the address; None lets every source in.

    Ranges are of both families, and a source that is in none of them is kept out: ranges of one family alone close the
    other. A process of the node has the load balancer's own address for its source; it is let in if an address of the
    node's is in a range. More than MAXIMUM_NETWORKS networks let nobody in.
    """
    if ranges is None:
        return None
    of = family(address)
    networks = separate_networks(ranges, of)
    if networks and networks[0].prefix_length == 0:
        return None
    if len(networks) > MAXIMUM_NETWORKS:
        return NOBODY[of]
    admits_node = any(_find(networks, each) for each in node_addresses if family(each) is of)
    # An address that another interface has as well is not among the service addresses that the list lets in.
    if admits_node and address in node_addresses and not _find(networks, address):
        networks = (*networks, Network(address, of.bits))
    return _list(networks, of, admits_node=admits_node)


@functools.lru_cache(maxsize=256)
def separate_networks(ranges: tuple[Network, ...], of: Family) -> tuple[Network, ...]:
    """Return the networks of one family in order, without those that are within others."""
    kept: list[Network] = []
    # A network comes right before all that are within it.
    for network in sorted({each for each in ranges if each.family is of}):
        if not kept or not kept[-1].contains(network.address):
            kept.append(network)
    return tuple(kept)


@functools.lru_cache(maxsize=256)
def _list(networks: tuple[Network, ...], of: Family, *, admits_node: bool) -> SourceList:
    return SourceList.of(of, networks, admits_node=admits_node)


def _find(networks: Sequence[Network], address: Address) -> bool:
    """Say whether the address is in one of the networks, which are in order and apart."""
    place = bisect.bisect_right(networks, address, key=lambda each: each.address)
    return place > 0 and networks[place - 1].contains(address)


def is_light(source_list: SourceList) -> bool:
    """Say whether the list may be installed together with what others need."""
    return len(source_list.networks) <= LIGHT


def why_nobody(ranges: tuple[Network, ...] | None, of: Family) -> str:
    """Say why nobody is let in at addresses of the family, if that is because there are too many networks; else ""."""
    count = len(separate_networks(ranges or (), of))
    if count <= MAXIMUM_NETWORKS:
        return ""
    name = "IPv4" if of is Family.IPV4 else "IPv6"
    return (
        f"has {count} {name} networks, of which {MAXIMUM_NETWORKS} are the maximum: "
        f"no source is let in at the load balancer's {name} addresses"
    )
