"""The elements of the nftables table's dynamic sets.

Each set exists once for IPv4 and once for IPv6; the family of an element is that of its first field. AGENT_PORTS alone
has no addresses, and exists once.
"""

import enum
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
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
    externalTrafficPolicy Local, clients keep their address. KEPT_PORTS: others' destination NAT does not get what comes
    to them; they are at addresses that the node may have without the agent. RESTRICTED_PORTS is a map, and holds
    (address, protocol, port, name): only sources of the source list with this name may use the port. SOURCE_LISTS holds
    (source list,): the lists that exist, each of which is a set and a chain of its own in nftables.
    IN_CLUSTER_DESTINATIONS and OUTSIDE_DESTINATIONS are maps, and hold (address, protocol, port, address, port):
    clients inside the cluster, or clients outside, that connect to the first port are sent to the second one, at the
    Service's ClusterIP. LOCAL_ENDPOINTS holds (address, address) of the endpoints that may run on this node, so that
    one that reaches itself is recognised. AGENT_PORTS holds (protocol, port) of what the agent itself answers at every
    address of the node.
    """

    SERVICE_ADDRESSES = "service-addresses"
    SERVICE_PORTS = "service-ports"
    PORTS_WITHOUT_ENDPOINTS = "service-ports-without-endpoints"
    PORTS_WITHOUT_LOCAL_ENDPOINTS = "service-ports-without-local-endpoints"
    MASQUERADED_PORTS = "masqueraded-service-ports"
    LOCAL_PORTS = "local-service-ports"
    KEPT_PORTS = "kept-service-ports"
    RESTRICTED_PORTS = "restricted-service-ports"
    SOURCE_LISTS = "source-lists"
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
    FirewallSet.KEPT_PORTS,
)
"""The sets of (address, protocol, port)."""


LATE_SETS = frozenset({FirewallSet.KEPT_PORTS})
"""The sets whose elements come after the virtual server, as addresses do: until then kube-proxy may serve."""


MAPS = frozenset(
    {FirewallSet.RESTRICTED_PORTS, FirewallSet.IN_CLUSTER_DESTINATIONS, FirewallSet.OUTSIDE_DESTINATIONS}
)
"""The sets that are maps from (address, protocol, port) to what else an element has, of which there is one only."""


@dataclass(frozen=True, slots=True, order=True)
class SourceList:
    """The networks, none within another, whose sources may use the ports that lead to the list.

    With `admits_node` the node's own processes may use them as well, which have a service address for their source.
    The name says it all: two lists are equal if their names are. `of` makes a list.
    """

    name: str
    family: Family = field(compare=False)
    networks: tuple[Network, ...] = field(compare=False)
    admits_node: bool = field(compare=False)

    @classmethod
    def of(cls, of_family: Family, networks: Iterable[Network], *, admits_node: bool = False) -> "SourceList":
        """Return the list of these networks, whose name is a digest of them in order."""
        in_order = tuple(sorted(networks, key=lambda each: (each.address, each.prefix_length)))
        content = b"".join([address + bytes((length,)) for address, length in in_order])
        name = _PREFIXES[of_family, admits_node] + hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]
        return cls(name, of_family, in_order, admits_node)


_DIGEST_LENGTH = 32
_PREFIXES = {
    (of, admits_node): f"{prefix}-{of.name.lower()}-"
    for of in Family
    for admits_node, prefix in ((False, "sources"), (True, "sources-and-node"))
}


def named_source_list(name: str) -> tuple[Family, bool] | None:
    """Return the family of the source list with this name, and whether it admits the node; None for other names."""
    return next((kind for kind, prefix in _PREFIXES.items() if name.startswith(prefix)), None)


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
    | tuple[Address, Protocol, int, str]
    | tuple[SourceList]
)


class SetElement(NamedTuple):
    """One element of a set; `fields` has the shape that FirewallSet gives for the set."""

    set: FirewallSet
    fields: ElementFields

    @property
    def address(self) -> Address | None:
        """The address that the element is about; None for a source list, and in a set of no family."""
        first = self.fields[0]
        return first if isinstance(first, bytes) else None

    @property
    def family(self) -> Family | None:
        """The family of the element's set."""
        first = self.fields[0]
        if isinstance(first, SourceList):
            return first.family
        return None if self.address is None else family(self.address)

    @property
    def set_name(self) -> str:
        """The name of the element's set in nftables; a source list is a set of its own."""
        first = self.fields[0]
        return first.name if isinstance(first, SourceList) else set_name(self.set, self.family)

    def __str__(self) -> str:
        """Return the element as nft(8) writes it.

        That is `10.96.0.1 . tcp . 80`, or `192.0.2.1 . tcp . 80 : 10.96.0.1 . 80` in a map.
        """
        texts = [_text(field) for field in self.fields]
        if self.set in MAPS:
            return f"{' . '.join(texts[:3])} : {' . '.join(texts[3:])}"
        return " . ".join(texts)


def _text(field: Address | Protocol | int | str | SourceList) -> str:
    match field:
        case Protocol():
            return field.name.lower()
        case bytes():
            return format_address(field)
        case str():
            return f"jump {field}"
        case SourceList():
            return ", ".join(map(str, field.networks))
        case _:
            return str(field)
