"""Who and what may be asked about: what `ipvsproxy explain` takes for a client, and a Service for a destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ipvsproxy.model.addresses import format_address

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import ObjectKey, Protocol


class ProcessOfNode(NamedTuple):
    """A process of this node."""

    def __str__(self) -> str:
        """Return it as it is asked for."""
        return "node"


class HostOutside(NamedTuple):
    """Any host outside the cluster."""

    def __str__(self) -> str:
        """Return it as it is asked for."""
        return "outside"


class HostAt(NamedTuple):
    """Whoever has an address."""

    address: Address

    def __str__(self) -> str:
        """Return it as it is asked for."""
        return format_address(self.address)


class PodNamed(NamedTuple):
    """A Pod."""

    key: ObjectKey

    def __str__(self) -> str:
        """Return it as it is asked for."""
        return f"pod {self.key}"


Client: TypeAlias = ProcessOfNode | HostOutside | HostAt | PodNamed


class ServiceNamed(NamedTuple):
    """A Service, and one of its ports by name or number; "" is whichever it has. `protocol` None is any."""

    key: ObjectKey
    port: str = ""
    protocol: Protocol | None = None
