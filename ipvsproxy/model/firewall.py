"""The elements of the nftables table's dynamic sets.

Each set exists once for IPv4 and once for IPv6; the family of an element is that of its first field.
"""

import enum
from typing import NamedTuple

from ipvsproxy.model.addresses import Address, Family, family, format_address
from ipvsproxy.model.objects import Protocol


class FirewallSet(enum.StrEnum):
    """A dynamic set; the value is its name in nftables, followed there by `-ipv4` or `-ipv6`.

    SERVICE_ADDRESSES holds (address,); SERVICE_PORTS holds (address, protocol, port) and is the kernel's record of
    the virtual servers that are ours; PORTS_WITHOUT_ENDPOINTS holds those of SERVICE_PORTS that nobody serves, on
    which clients are refused; LOCAL_ENDPOINTS holds (address, address) of the endpoints that may run on this node, so
    that one that reaches itself is recognised.
    """

    SERVICE_ADDRESSES = "service-addresses"
    SERVICE_PORTS = "service-ports"
    PORTS_WITHOUT_ENDPOINTS = "service-ports-without-endpoints"
    LOCAL_ENDPOINTS = "local-endpoints"


def set_name(of: FirewallSet, of_family: Family) -> str:
    """Return the name that a set of one family has in nftables."""
    return f"{of}-{of_family.name.lower()}"


class SetElement(NamedTuple):
    """One element of a set; `fields` has the shape that FirewallSet gives for the set."""

    set: FirewallSet
    fields: tuple[Address] | tuple[Address, Protocol, int] | tuple[Address, Address]

    @property
    def set_name(self) -> str:
        """The name of the element's set in nftables."""
        return set_name(self.set, family(self.fields[0]))

    def __str__(self) -> str:
        """Return the element as nft(8) writes it: `10.96.0.1 . tcp . 80`."""
        return " . ".join(_text(field) for field in self.fields)


def _text(field: Address | Protocol | int) -> str:
    if isinstance(field, Protocol):
        return field.name.lower()
    return str(field) if isinstance(field, int) else format_address(field)
