"""What is kube-proxy's, by the names that it gives: chains, sets and tables, and the virtual servers that sets name.

The names are those of kube-proxy 1.13 to 1.35 in its modes ipvs, iptables and nftables. The kubelet has chains of
similar names, which stay: KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT, KUBE-MARK-DROP, and KUBE-FIREWALL of the table
filter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.model.addresses import Family, family
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.forwarding import CHAINS
from ipvsproxy.plan.host_rules import Backend

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.plan.host_rules import TableName

_CANARY: Final = "KUBE-PROXY-CANARY"
_CHAINS: Final[Mapping[str, frozenset[str]]] = {
    "nat": frozenset(
        {
            "KUBE-SERVICES",
            "KUBE-POSTROUTING",
            "KUBE-MARK-MASQ",
            "KUBE-NODEPORTS",
            "KUBE-NODE-PORT",
            "KUBE-LOAD-BALANCER",
            # Before 1.27 the source ranges of mode ipvs; the kubelet's chain of this name is in the table filter.
            "KUBE-FIREWALL",
            _CANARY,
        }
    ),
    "filter": frozenset(
        {
            "KUBE-SERVICES",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-FORWARD",
            "KUBE-NODEPORTS",
            "KUBE-NODE-PORT",
            "KUBE-PROXY-FIREWALL",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "KUBE-IPVS-FILTER",
            "KUBE-IPVS-OUT-FILTER",
            _CANARY,
        }
    ),
    "mangle": frozenset({_CANARY}),
}
# Chains of one Service or endpoint, in mode iptables: 16 characters of a hash in base 32.
_SERVICE_CHAIN: Final = re.compile(r"KUBE-(SVC|SVL|SEP|EXT|FW|XLB)-[A-Z2-7]{16}")
_BUILT_IN: Final = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
# What the first marks, the second masquerades.
_MARKING: Final = "KUBE-MARK-MASQ"
_MASQUERADING: Final = "KUBE-POSTROUTING"
_FORWARDING: Final = "KUBE-FORWARD"
# What the agent has in its place.
_OURS: Final = CHAINS[Backend.LEGACY]

NODE_PORT_SETS: Final[Mapping[Protocol, str]] = {
    Protocol.TCP: "KUBE-NODE-PORT-TCP",
    Protocol.UDP: "KUBE-NODE-PORT-UDP",
}
"""The ipsets of node ports, which hold port numbers alone."""

PORT_SETS: Final = (
    "KUBE-CLUSTER-IP",
    "KUBE-EXTERNAL-IP",
    "KUBE-EXTERNAL-IP-LOCAL",
    "KUBE-LOAD-BALANCER",
    "KUBE-NODE-PORT-SCTP-HASH",
)
"""The ipsets that hold address, protocol and port of virtual servers."""

_OTHER_SETS: Final = (
    "KUBE-LOOP-BACK",
    "KUBE-LOAD-BALANCER-FW",
    "KUBE-LOAD-BALANCER-LOCAL",
    "KUBE-LOAD-BALANCER-SOURCE-IP",
    "KUBE-LOAD-BALANCER-SOURCE-CIDR",
    "KUBE-NODE-PORT-LOCAL-TCP",
    "KUBE-NODE-PORT-LOCAL-UDP",
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
    "KUBE-HEALTH-CHECK-NODE-PORT",
    "KUBE-IPVS-IPS",
)
_IPSET_NAME_LENGTH: Final = 31

NFT_TABLES: Final = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))
"""The tables of mode nftables: family and name."""


def set_name(name: str, of: Family) -> str:
    """Return the name that kube-proxy's ipset has for a family: with `6-` for IPv6, cut to what a name may have."""
    return name if of is Family.IPV4 else name.replace("KUBE-", "KUBE-6-", 1)[:_IPSET_NAME_LENGTH]


IPSETS: Final = frozenset(
    set_name(name, of) for name in (*NODE_PORT_SETS.values(), *PORT_SETS, *_OTHER_SETS) for of in Family
)
"""The names of all its ipsets."""


def is_chain(table: str, name: str) -> bool:
    """Say whether a chain of one of iptables' tables is kube-proxy's."""
    return name in _CHAINS.get(table, ()) or (table == "nat" and bool(_SERVICE_CHAIN.fullmatch(name)))


class Jump(NamedTuple):
    """A rule that leads from one chain to another; `rule` is what its backend deletes it by: a handle, or its words."""

    chain: str
    target: str
    rule: str


class Table(NamedTuple):
    """A table of iptables, as far as it matters here."""

    name: TableName
    chains: frozenset[str]
    jumps: tuple[Jump, ...]
    # Whether packets that no rule of the chain FORWARD decides on are dropped.
    forward_drops: bool = False


@dataclass(frozen=True, slots=True)
class TableRemoval:
    """What goes of one table, in this order: the rules that lead to kube-proxy's chains, and the chains.

    `kept` has the chains of kube-proxy's that stay, each with the reason.
    """

    table: TableName
    jumps: tuple[Jump, ...]
    chains: tuple[str, ...]
    kept: Mapping[str, str]


def removal_of(table: Table) -> TableRemoval:
    """Return what goes of a table.

    Whatever somebody else's chains lead to stays, and so does what lets answers of endpoints pass through a table that
    drops them otherwise, unless the agent's own chain does it there.
    """
    ours = {chain for chain in table.chains if is_chain(table.name.name, chain)}
    to_keep = [
        (jump.target, f"chain {jump.chain} leads to it, which is not kube-proxy's")
        for jump in table.jumps
        if jump.chain not in ours and jump.chain not in _BUILT_IN
    ]
    from_forward = {jump.target for jump in table.jumps if jump.chain == "FORWARD"}
    if table.forward_drops and _FORWARDING in from_forward and _OURS not in from_forward:
        reason = (
            "chain FORWARD drops what no rule accepts, this one accepts answers of endpoints, and the agent has no "
            "chain of its own there"
        )
        to_keep.append((_FORWARDING, reason))
    kept: dict[str, str] = {}
    while to_keep:
        chain, reason = to_keep.pop()
        if chain not in ours or chain in kept:
            continue
        kept[chain] = reason
        to_keep += [
            (jump.target, f"chain {chain} leads to it, which stays")
            for jump in table.jumps
            if jump.chain == chain
        ]
        if chain == _MARKING:
            to_keep.append((_MASQUERADING, f"it masquerades what chain {chain} marks, which stays"))
    going = ours - kept.keys()
    jumps = tuple(jump for jump in table.jumps if jump.chain in _BUILT_IN and jump.target in going)
    return TableRemoval(table.name, jumps, tuple(sorted(going)), kept)


class Leftovers(NamedTuple):
    """What kube-proxy left, but for virtual servers; `unseen` are sentences about what could not be looked at."""

    ipsets: tuple[str, ...] = ()
    chains: tuple[tuple[TableName, str], ...] = ()
    tables: tuple[tuple[str, str], ...] = ()
    unseen: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Say whether anything was left."""
        return bool(self.ipsets or self.chains or self.tables)


class NamedPorts(NamedTuple):
    """What its ipsets name: node ports, which are those of all addresses of the node, and single virtual servers."""

    node_ports: Mapping[tuple[Family, Protocol], AbstractSet[int]]
    virtual_servers: AbstractSet[VirtualServerKey]


def named(
    keys: Iterable[VirtualServerKey], by: NamedPorts, node_addresses: AbstractSet[Address]
) -> list[VirtualServerKey]:
    """Return those of the virtual servers that kube-proxy's ipsets name."""
    return [
        key
        for key in keys
        if key in by.virtual_servers
        or (
            key.address in node_addresses
            and key.port in by.node_ports.get((family(key.address), key.protocol), ())
        )
    ]
