"""The elements of the nftables table's dynamic sets.

Each set exists once for IPv4 and once for IPv6; the family of an element is that of its first field. AGENT_PORTS alone
has no addresses, and exists once.
"""

import enum
from typing import NamedTuple, TypeAlias

from ipvsproxy.model.addresses import Address, Family, Network, family, format_address
from ipvsproxy.model.objects import Protocol


class FirewallSet(enum.StrEnum):
    """A dynamic set; the value is its name in nftables, followed there by `-ipv4` or `-ipv6` if it is of a family.

    A "port" here is (address, protocol, port), what clients connect to.

    SERVICE_ADDRESSES holds (address,) of the addresses that answer on service ports only. SERVICE_PORTS holds ports and
    is the kernel's record of the virtual servers that are ours; the sets of ports below hold parts of it.
    PORTS_WITHOUT_ENDPOINTS: nobody serves, and clients are refused. PORTS_WITHOUT_LOCAL_ENDPOINTS: only other nodes
    serve, and externalTrafficPolicy Local drops clients outside. MASQUERADED_PORTS: reached from outside under
    externalTrafficPolicy Cluster, all traffic to them is masqueraded. LOCAL_PORTS: reached from outside under
    externalTrafficPolicy Local, clients keep their address. RESTRICTED_PORTS: only the sources in ALLOWED_SOURCES may
    use them, which holds (address, protocol, port, network). IN_CLUSTER_DESTINATIONS and OUTSIDE_DESTINATIONS are maps,
    and hold (address, protocol, port, address, port): clients inside the cluster, or clients outside, that connect to
    the first port are sent to the second one, at the Service's ClusterIP. LOCAL_ENDPOINTS holds (address, address) of
    the endpoints that may run on this node, so that one that reaches itself is recognised.
    AGENT_PORTS holds (protocol, port) of what the agent itself answers at every address of the node.
    """

    SERVICE_ADDRESSES = "service-addresses"
    SERVICE_PORTS = "service-ports"
    PORTS_WITHOUT_ENDPOINTS = "service-ports-without-endpoints"
    PORTS_WITHOUT_LOCAL_ENDPOINTS = "service-ports-without-local-endpoints"
    MASQUERADED_PORTS = "masqueraded-service-ports"
    LOCAL_PORTS = "local-service-ports"
    RESTRICTED_PORTS = "restricted-service-ports"
    ALLOWED_SOURCES = "allowed-sources"
    IN_CLUSTER_DESTINATIONS = "in-cluster-destinations"
    OUTSIDE_DESTINATIONS = "outside-destinations"
    LOCAL_ENDPOINTS = "local-endpoints"
    AGENT_PORTS = "agent-ports"


PORT_SETS = (
    FirewallSet.SERVICE_PORTS,
    FirewallSet.PORTS_WITHOUT_ENDPOINTS,
    FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS,
    FirewallSet.MASQUERADED_PORTS,
    FirewallSet.LOCAL_PORTS,
    FirewallSet.RESTRICTED_PORTS,
)
"""The sets of (address, protocol, port)."""


MAPS = frozenset({FirewallSet.IN_CLUSTER_DESTINATIONS, FirewallSet.OUTSIDE_DESTINATIONS})
"""The sets that are maps from (address, protocol, port) to what else an element has, of which there is one only."""


EXCLUSIVE_SETS = MAPS | {FirewallSet.ALLOWED_SOURCES}
"""The sets in which two elements of one port may exclude each other: networks that overlap, two values of a key."""


def families_of(of: FirewallSet) -> tuple[Family | None, ...]:
    """Return the families that a set exists for; None is a set of no family."""
    return (None,) if of is FirewallSet.AGENT_PORTS else tuple(Family)


def set_name(of: FirewallSet, of_family: Family | None) -> str:
    """Return the name that a set has in nftables."""
    return f"{of}-{of_family.name.lower()}" if of_family else of.value


ElementFields: TypeAlias = (
    tuple[Address]
    | tuple[Protocol, int]
    | tuple[Address, Address]
    | tuple[Address, Protocol, int]
    | tuple[Address, Protocol, int, Address, int]
    | tuple[Address, Protocol, int, Network]
)


class SetElement(NamedTuple):
    """One element of a set; `fields` has the shape that FirewallSet gives for the set."""

    set: FirewallSet
    fields: ElementFields

    @property
    def address(self) -> Address | None:
        """The address that the element is about; None in a set of no family."""
        first = self.fields[0]
        return first if isinstance(first, bytes) else None

    @property
    def family(self) -> Family | None:
        """The family of the element's set."""
        return None if self.address is None else family(self.address)

    @property
    def set_name(self) -> str:
        """The name of the element's set in nftables."""
        return set_name(self.set, self.family)

    def __str__(self) -> str:
        """Return the element as nft(8) writes it.

        That is `10.96.0.1 . tcp . 80`, or `192.0.2.1 . tcp . 80 : 10.96.0.1 . 80` in a map.
        """
        texts = [_text(field) for field in self.fields]
        if self.set in MAPS:
            return f"{' . '.join(texts[:3])} : {' . '.join(texts[3:])}"
        return " . ".join(texts)


def _text(field: Address | Protocol | int | Network) -> str:
    if isinstance(field, Protocol):
        return field.name.lower()
    return format_address(field) if isinstance(field, bytes) else str(field)
