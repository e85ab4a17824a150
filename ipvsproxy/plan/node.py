"""What the plans of Services depend on of the node, and of the cluster's other nodes."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import Holding
from ipvsproxy.plan.endpoints import Here
from ipvsproxy.plan.node_addresses import node_port_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipvsproxy.model.addresses import Address, Network
    from ipvsproxy.model.objects import Node
    from ipvsproxy.model.selection import NodePortAddresses


class Reservation(enum.StrEnum):
    """Whose an address is that no Service may take over, by an external IP or a load balancer's."""

    THIS_NODE = "an address of this node"
    INTERFACE = "on an interface of this node"
    OTHER_NODE = "an address of another node"
    API_SERVER = "an address of the API server"
    API_PEER = "an address by which this node reaches the API server"
    POD_NETWORK = "of a network of the cluster's pods"
    POD = "the address of a pod"


class NodeInputs(NamedTuple):
    """Where the facts come from.

    `node` is the own Node, None if there is none. `interface_addresses` are those of the node's interfaces but the
    dummy interface. `api_servers` are the addresses of the API server as its Service tells them, `api_peers` those by
    which the agent reaches it. `nodes` are the addresses of all nodes, as far as known.
    """

    node: Node | None = None
    interface_addresses: Mapping[Address, Holding] = {}
    api_servers: frozenset[Address] = frozenset()
    api_peers: frozenset[Address] = frozenset()
    nodes: frozenset[Address] = frozenset()


class NodeFacts(NamedTuple):
    """The node as it is at the moment.

    `addresses` are its own, service addresses left out. `node_port_addresses` are those of them that node ports are
    served on. `reserved` are the addresses that no Service may take over, nor may it any of `pod_networks`.
    """

    here: Here
    addresses: frozenset[Address] = frozenset()
    node_port_addresses: frozenset[Address] = frozenset()
    reserved: Mapping[Address, Reservation] = {}
    pod_networks: tuple[Network, ...] = ()

    def reservation(self, address: Address) -> Reservation | None:
        """Return whose the address is, None if a Service may have it."""
        if any(network.contains(address) for network in self.pod_networks):
            return Reservation.POD_NETWORK
        return self.reserved.get(address)


class Dependency(enum.Flag):
    """Which of the node's facts a plan depends on, so that others are not planned again when they change."""

    ZONE = enum.auto()
    ADDRESSES = enum.auto()


def node_facts(
    node_name: str,
    selection: NodePortAddresses,
    cluster_cidrs: tuple[Network, ...],
    inputs: NodeInputs,
) -> NodeFacts:
    """Put together what is known of the node; `cluster_cidrs` are the networks of the cluster's pods, if configured."""
    named = frozenset(inputs.node.addresses) if inputs.node else frozenset()
    held = inputs.interface_addresses
    own = named.union(each for each, holding in held.items() if holding is Holding.WITH_NETWORK)
    return NodeFacts(
        Here(node_name, inputs.node.zone if inputs.node else ""),
        named.union(held),
        node_port_addresses(selection, inputs.node, held),
        # The last one that has an address says whose it is.
        dict.fromkeys(held, Reservation.INTERFACE)
        | dict.fromkeys(inputs.nodes, Reservation.OTHER_NODE)
        | dict.fromkeys(inputs.api_peers, Reservation.API_PEER)
        | dict.fromkeys(inputs.api_servers, Reservation.API_SERVER)
        | dict.fromkeys(own, Reservation.THIS_NODE),
        (*cluster_cidrs, *(inputs.node.pod_cidrs if inputs.node else ())),
    )


def changes(before: NodeFacts, after: NodeFacts) -> Dependency:
    """Say which plans a change of the facts concerns."""
    changed = Dependency(0)
    if before.here != after.here:
        changed |= Dependency.ZONE
    if before[1:] != after[1:]:
        changed |= Dependency.ADDRESSES
    return changed
