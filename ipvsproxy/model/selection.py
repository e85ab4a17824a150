"""Which of the node's addresses node ports are served on: nodePortAddresses of KubeProxyConfiguration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Network


class NodePortAddresses(NamedTuple):
    """The node's primary addresses if `primary`, and those that are of one of the networks; with neither, all."""

    primary: bool = False
    networks: tuple[Network, ...] = ()

    @property
    def all(self) -> bool:
        """Whether every address of the node is selected."""
        return not self.primary and not self.networks

    def or_those_of(self, other: NodePortAddresses) -> NodePortAddresses:
        """Return what either selects."""
        if self.all or other.all:
            return NodePortAddresses()
        return NodePortAddresses(self.primary or other.primary, self.networks + other.networks)
