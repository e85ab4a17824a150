"""A small cluster of network namespaces: nodes with pods, and hosts outside, around one router.

    pods of node-a ── node-a ─┐
                              ├── router ── hosts outside
    pods of node-b ── node-b ─┘

Every line is a veth pair of the same making, as network plugins such as ptp or Calico make them: the lower
end, eth0, has one /32 (/128) address and a default route; the upper end has the gateway's address and a route
to the lower one. The router sends each node its pods' addresses. To the first node it sends the service addresses too,
those inside the cluster and those for clients outside, and those that this node may get beside its own. What of these
the first node does not have is unreachable. Each host outside is in a network of its own.

A topology knows its hosts' addresses before it is built.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from typing import TYPE_CHECKING

from pyroute2.iproute.linux import IPRoute

from ipvsproxy.model.addresses import Family
from netns_tests.deadline import await_that
from netns_tests.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    _Addresses: TypeAlias = Mapping[Family, str]

CLUSTER_CIDRS = ("10.244.0.0/16", "fd00:10:244::/56")
SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")
EXTERNAL_CIDRS = ("198.18.0.0/15", "2001:db8:cb::/48")
"""Where external IPs and load balancers' IPs are from."""
MORE_NODE_CIDRS = ("198.51.100.64/26", "2001:db8:64:1::/64")
"""Where addresses are from that the first node may get while a test runs."""

_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h
_LINK = 253  # RT_SCOPE_LINK, linux/rtnetlink.h

_ROUTER_SETTINGS = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
_HOST_SETTINGS = {
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv4/ping_group_range": "0 0",  # root may ask for ICMP echo replies without a raw socket
}


class Kind(enum.StrEnum):
    """What a host of the topology stands for."""

    ROUTER = "router"
    NODE = "node"
    POD = "pod"
    OUTSIDE = "outside"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """What a host of the topology is, and which addresses it has.

    `addresses` are those of its eth0, and `upstream` those that the other end has, which it sends everything to.
    `gateways` are those that it has on its links to the hosts below it, `networks` what is routed to it beside its
    addresses. `node` is the name of a pod's node.
    """

    name: str
    kind: Kind
    addresses: _Addresses = dataclasses.field(default_factory=dict)
    upstream: _Addresses = dataclasses.field(default_factory=dict)
    gateways: _Addresses = dataclasses.field(default_factory=dict)
    networks: Sequence[str] = ()
    node: str | None = None

    def own(self, family: Family) -> set[str]:
        """Return all of the host's addresses of a family: the sources that its own packets may have."""
        return {addresses[family] for addresses in (self.addresses, self.gateways) if family in addresses}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host(Place):
    """A place that is built: one network namespace."""

    namespace: Namespace


class Network:
    """A built topology: its hosts by their names."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        """Take the hosts; their names are unique."""
        self._hosts = {host.name: host for host in hosts}

    def __getitem__(self, name: str) -> Host:
        """Return the host of that name."""
        return self._hosts[name]

    def of(self, kind: Kind) -> list[Host]:
        """Return the hosts of one kind, in the order of the topology."""
        return [host for host in self._hosts.values() if host.kind is kind]


@dataclasses.dataclass(frozen=True)
class Topology:
    """What to build: the names of each node's pods, and the names of hosts outside the cluster."""

    nodes: Mapping[str, Sequence[str]]
    outside: Sequence[str] = ()

    def places(self) -> list[Place]:
        """Return what is to be built, each place after the one that it is linked to."""
        places = [Place(name="router", kind=Kind.ROUTER)]
        for number, (name, pods) in enumerate(self.nodes.items(), start=1):
            prefixes = {Family.IPV4: f"10.244.{number}.", Family.IPV6: f"fd00:10:244:{number}::"}
            node = Place(
                name=name,
                kind=Kind.NODE,
                addresses={Family.IPV4: f"198.51.100.{number}", Family.IPV6: f"2001:db8:64::{number}"},
                upstream={Family.IPV4: "198.51.100.254", Family.IPV6: "2001:db8:64::fe"},
                gateways={family: f"{prefix}1" for family, prefix in prefixes.items()},
                networks=(
                    f"10.244.{number}.0/24",
                    f"fd00:10:244:{number}::/64",
                    *((*SERVICE_CIDRS, *EXTERNAL_CIDRS, *MORE_NODE_CIDRS) if number == 1 else ()),
                ),
            )
            places.append(node)
            places += [
                Place(
                    name=pod,
                    kind=Kind.POD,
                    addresses={family: f"{prefix}{pod_number}" for family, prefix in prefixes.items()},
                    upstream=node.gateways,
                    node=name,
                )
                for pod_number, pod in enumerate(pods, start=10)
            ]
        places += [
            Place(
                name=name,
                kind=Kind.OUTSIDE,
                addresses={
                    Family.IPV4: f"192.0.2.{10 + 64 * number}",
                    Family.IPV6: f"2001:db8:{number + 1}::10",
                },
                upstream={
                    Family.IPV4: f"192.0.2.{1 + 64 * number}",
                    Family.IPV6: f"2001:db8:{number + 1}::1",
                },
            )
            for number, name in enumerate(self.outside)
        ]
        return places

    @contextlib.contextmanager
    def build(self) -> Iterator[Network]:
        """Make all namespaces, links and routes; they go at the end of the block."""
        with contextlib.ExitStack() as stack:
            hosts: dict[str, Host] = {}
            for place in self.places():
                namespace = _namespace(stack, place)
                host = hosts[place.name] = Host(
                    **{field.name: getattr(place, field.name) for field in dataclasses.fields(place)},
                    namespace=namespace,
                )
                if host.kind is not Kind.ROUTER:
                    upper = hosts[host.node or "router"]
                    _link(upper, host)
                    _route(upper, host)
            for host in hosts.values():
                if host.kind is not Kind.ROUTER:
                    _await_carrier(host)
            yield Network(list(hosts.values()))


def _namespace(stack: contextlib.ExitStack, place: Place) -> Namespace:
    namespace = stack.enter_context(Namespace(place.name))
    forwards = place.kind in (Kind.ROUTER, Kind.NODE)
    for setting, value in (_HOST_SETTINGS | (_ROUTER_SETTINGS if forwards else {})).items():
        namespace.sysctl(setting, value)
    with namespace.netlink(IPRoute) as netlink:
        netlink.link("set", index=1, state="up")
    return namespace


def _route(upper: Host, lower: Host) -> None:
    """Route a host's networks to it, and there, unless something narrower is known, to nowhere: not back and forth."""
    with upper.namespace.netlink(IPRoute) as netlink:
        for network in lower.networks:
            family = _family(network)
            netlink.route("add", dst=network, gateway=lower.addresses[family], family=family)
    with lower.namespace.netlink(IPRoute) as netlink:
        for network in lower.networks:
            netlink.route("add", dst=network, type="unreachable", family=_family(network))


def _family(text: str) -> Family:
    return Family.IPV6 if ":" in text else Family.IPV4


def _link(upper: Host, lower: Host) -> None:
    """Join two hosts by a veth pair, named after the lower one in the upper and eth0 in the lower."""
    with upper.namespace.netlink(IPRoute) as netlink:
        peer = {"ifname": "eth0", "net_ns_fd": lower.namespace.descriptor}
        netlink.link("add", ifname=lower.name, kind="veth", peer=peer)
        index = netlink.link_lookup(ifname=lower.name)[0]
        netlink.link("set", index=index, state="up")
        for family, gateway in lower.upstream.items():
            netlink.addr(
                "add", index=index, address=gateway, prefixlen=family.bits, family=family, flags=_NODAD
            )
    with lower.namespace.netlink(IPRoute) as netlink:
        eth0 = netlink.link_lookup(ifname="eth0")[0]
        netlink.link("set", index=eth0, state="up")
        for family, address in lower.addresses.items():
            netlink.addr(
                "add", index=eth0, address=address, prefixlen=family.bits, family=family, flags=_NODAD
            )
            gateway = lower.upstream[family]
            netlink.route("add", dst="default", gateway=gateway, oif=eth0, flags=["onlink"], family=family)
    with upper.namespace.netlink(IPRoute) as netlink:
        for family, address in lower.addresses.items():
            netlink.route("add", dst=f"{address}/{family.bits}", oif=index, scope=_LINK, family=family)


def _await_carrier(host: Host) -> None:
    """Wait until the kernel has seen that the other end of eth0 is up: until then it drops what is sent there."""
    with host.namespace.netlink(IPRoute) as netlink:
        eth0 = netlink.link_lookup(ifname="eth0")[0]
        await_that(
            lambda: netlink.link("get", index=eth0)[0].get_attr("IFLA_OPERSTATE") == "UP",
            f"eth0 of {host.name} is up",
        )
