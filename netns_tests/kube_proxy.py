"""What kube-proxy has on a node while it runs and leaves when it ends: made as 1.35 makes it, in each of its modes.

The order of chains and rules is that of its proxiers' (pkg/proxy/ipvs, iptables and nftables), for Services with
externalTrafficPolicy Cluster and without external addresses.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from pyroute2.iproute.linux import IPRoute

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol
from netns_tests import others, tables
from netns_tests.tables import INTERFACE
from netns_tests.topology import CLUSTER_CIDRS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from netns_tests.cluster import Cluster, ServiceUnderTest
    from netns_tests.topology import Host
    from netns_tests.traffic import Target

_MARK: Final = "0x4000"
_LOOPBACK: Final = {Family.IPV4: "127.0.0.0/8", Family.IPV6: "::1/128"}
_LOCAL: Final = dict(zip(Family, CLUSTER_CIDRS, strict=True))
_SETTINGS: Final = ("conntrack", "expire_nodest_conn", "expire_quiescent_template")
_TYPES: Final = {
    "CLUSTER-IP": "hash:ip,port",
    "EXTERNAL-IP": "hash:ip,port",
    "EXTERNAL-IP-LOCAL": "hash:ip,port",
    "LOAD-BALANCER": "hash:ip,port",
    "LOAD-BALANCER-FW": "hash:ip,port",
    "LOAD-BALANCER-LOCAL": "hash:ip,port",
    "LOAD-BALANCER-SOURCE-IP": "hash:ip,port,ip",
    "LOAD-BALANCER-SOURCE-CIDR": "hash:ip,port,net",
    "LOOP-BACK": "hash:ip,port,ip",
    "NODE-PORT-TCP": "bitmap:port",
    "NODE-PORT-LOCAL-TCP": "bitmap:port",
    "NODE-PORT-UDP": "bitmap:port",
    "NODE-PORT-LOCAL-UDP": "bitmap:port",
    "NODE-PORT-SCTP-HASH": "hash:ip,port",
    "NODE-PORT-LOCAL-SCTP-HASH": "hash:ip,port",
    "HEALTH-CHECK-NODE-PORT": "bitmap:port",
    "IPVS-IPS": "hash:ip",
}


class Backend(enum.StrEnum):
    """Which iptables the node has; the value is the middle of its programs' names."""

    NFTABLES = "nft"
    LEGACY = "legacy"


class Served(NamedTuple):
    """A port of a Service: where clients connect to, who serves as (address, port), and the node port, 0 for none."""

    target: Target
    endpoints: Sequence[tuple[str, int]]
    node_port: int = 0


def services_of(cluster: Cluster, services: Iterable[ServiceUnderTest]) -> list[Served]:
    """Return Services with the pods that they have as kube-proxy serves them, SCTP and all."""
    return [
        Served(
            service.target(family, port.protocol, port.port),
            [(cluster[pod].addresses[family], port.target) for pod in service.pods],
            port.node_port,
        )
        for service in services
        for family in Family
        for port in service.ports
    ]


def leave_ipvs(node: Host, services: Iterable[Served], backend: Backend = Backend.NFTABLES) -> None:
    """Leave what mode ipvs does. Addresses and virtual servers that are there stay, but get the endpoints that miss."""
    services = list(services)
    for setting in _SETTINGS:
        node.namespace.sysctl(f"net/ipv4/vs/{setting}", "1")
    with node.namespace.netlink(IPRoute) as netlink:
        if not netlink.link_lookup(ifname=INTERFACE):
            netlink.link("add", ifname=INTERFACE, kind="dummy")
        index = netlink.link_lookup(ifname=INTERFACE)[0]
        for address, family in {(each.target.address, each.target.family) for each in services}:
            if not tables.has_address(node, address):
                netlink.addr("add", index=index, address=address, prefixlen=family.bits, family=family)
    there = tables.serving(node)
    for target, endpoints, node_port in services:
        own = node.own(target.family) if node_port else ()
        for place in (target, *(target._replace(address=address, port=node_port) for address in own)):
            if place not in there:
                others.add_virtual_server(node, place, "rr", endpoints)
            else:
                others.add_real_servers(node, place, set(endpoints) - there[place])
    for family in Family:
        of_family = [each for each in services if each.target.family is family]
        node.namespace.run("ipset", "restore", stdin=_lines(_ipsets(node, family, of_family)))
        _restore(node, family, backend, _ipvs_rules(family))


def leave_iptables(node: Host, services: Iterable[Served], backend: Backend = Backend.NFTABLES) -> None:
    """Leave what mode iptables does."""
    services = list(services)
    for family in Family:
        of_family = [each for each in services if each.target.family is family]
        _restore(node, family, backend, _iptables_rules(family, of_family))


def leave_nftables(node: Host, services: Iterable[Served]) -> None:
    """Leave what mode nftables does."""
    services = list(services)
    for family in Family:
        of_family = [each for each in services if each.target.family is family]
        node.namespace.run("nft", "-f", "-", stdin=_lines(_nftables_table(family, of_family)))


def flush(node: Host) -> None:
    """Do what mode nftables begins with: all of IPVS goes, whoever's it is, and the interface."""
    for target in tables.virtual_servers(node):
        others.delete_virtual_server(node, target)
    others.delete_interface(node)


def leave_kubelets(node: Host, backend: Backend = Backend.NFTABLES) -> None:
    """Make the chains of the kubelet, which has them beside any kube-proxy."""
    for family in Family:
        _restore(node, family, backend, _KUBELET)


def saved(node: Host, backend: Backend = Backend.NFTABLES) -> str:
    """Return the rules of both families, without counters, as iptables-save prints them."""
    programs = (f"iptables-{backend}-save", f"ip6tables-{backend}-save")
    lines = [line for program in programs for line in node.namespace.run(program).splitlines()]
    return "\n".join(line.partition(" [")[0] for line in lines if not line.startswith("#"))


def ipsets(node: Host) -> list[str]:
    """Return the names of all ipsets."""
    return node.namespace.run("ipset", "list", "-name").split()


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _restore(node: Host, family: Family, backend: Backend, rules: Iterable[str]) -> None:
    program = "iptables" if family is Family.IPV4 else "ip6tables"
    node.namespace.run(f"{program}-{backend}-restore", "--noflush", stdin=_lines(rules))


def _set_name(name: str, family: Family) -> str:
    return f"KUBE-{name}" if family is Family.IPV4 else f"KUBE-6-{name}"[:31]


def _ipsets(node: Host, family: Family, services: Sequence[Served]) -> Iterator[str]:
    for name, kind in _TYPES.items():
        options = "range 0-65535" if kind == "bitmap:port" else f"family {_INET[family]}"
        yield f"create {_set_name(name, family)} {kind} {options}"
    for target, endpoints, node_port in services:
        protocol = target.protocol.name.lower()
        yield f"add {_set_name('CLUSTER-IP', family)} {target.address},{protocol}:{target.port}"
        if node_port and target.protocol is Protocol.SCTP:
            for address in node.own(family):
                yield f"add {_set_name('NODE-PORT-SCTP-HASH', family)} {address},sctp:{node_port}"
        elif node_port:
            yield f"add {_set_name(f'NODE-PORT-{target.protocol.name}', family)} {node_port}"
        for address, port in endpoints:
            yield f"add {_set_name('LOOP-BACK', family)} {address},{protocol}:{port},{address} -exist"
    for address in {each.target.address for each in services}:
        yield f"add {_set_name('IPVS-IPS', family)} {address}"


_INET: Final = {Family.IPV4: "inet", Family.IPV6: "inet6"}


def _masquerading(*, before: Iterable[str] = ()) -> Iterator[str]:
    """Yield the rules of KUBE-POSTROUTING and KUBE-MARK-MASQ, which all modes of iptables have."""
    yield from before
    yield f"-A KUBE-POSTROUTING -m mark ! --mark {_MARK}/{_MARK} -j RETURN"
    yield f"-A KUBE-POSTROUTING -j MARK --xor-mark {_MARK}"
    comment = '-m comment --comment "kubernetes service traffic requiring SNAT"'
    yield f"-A KUBE-POSTROUTING {comment} -j MASQUERADE --random-fully"
    yield f"-A KUBE-MARK-MASQ -j MARK --or-mark {_MARK}"


def _jump(chain: str, target: str, comment: str, *, only_new: bool = False) -> str:
    new = "-m conntrack --ctstate NEW " if only_new else ""
    return f'-I {chain} {new}-m comment --comment "{comment}" -j {target}'


def _ipvs_rules(family: Family) -> Iterator[str]:
    name = {each: _set_name(each, family) for each in _TYPES}
    cluster_ip = f"-m set --match-set {name['CLUSTER-IP']} dst,dst"
    yield "*nat"
    for chain in ("SERVICES", "POSTROUTING", "NODE-PORT", "LOAD-BALANCER", "MARK-MASQ"):
        yield f":KUBE-{chain} - [0:0]"
    yield _jump("OUTPUT", "KUBE-SERVICES", "kubernetes service portals")
    yield _jump("PREROUTING", "KUBE-SERVICES", "kubernetes service portals")
    yield _jump("POSTROUTING", "KUBE-POSTROUTING", "kubernetes postrouting rules")
    yield f"-A KUBE-SERVICES -s {_LOOPBACK[family]} -j RETURN"
    for protocol, ports, match in (
        ("tcp", "NODE-PORT-TCP", "dst"),
        ("udp", "NODE-PORT-UDP", "dst"),
        ("sctp", "NODE-PORT-SCTP-HASH", "dst,dst"),
    ):
        yield f"-A KUBE-NODE-PORT -p {protocol} -m set --match-set {name[ports]} {match} -j KUBE-MARK-MASQ"
    yield f"-A KUBE-SERVICES {cluster_ip} ! -s {_LOCAL[family]} -j KUBE-MARK-MASQ"
    yield "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT"
    yield "-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ"
    yield f"-A KUBE-SERVICES {cluster_ip} -j ACCEPT"
    loop_back = f"-A KUBE-POSTROUTING -m set --match-set {name['LOOP-BACK']} dst,dst,src -j MASQUERADE"
    yield from _masquerading(before=[loop_back])
    yield "COMMIT"
    yield "*filter"
    for chain in (
        "FORWARD",
        "NODE-PORT",
        "PROXY-FIREWALL",
        "SOURCE-RANGES-FIREWALL",
        "IPVS-FILTER",
        "IPVS-OUT-FILTER",
    ):
        yield f":KUBE-{chain} - [0:0]"
    yield _jump("FORWARD", "KUBE-FORWARD", "kubernetes forwarding rules")
    yield _jump("INPUT", "KUBE-NODE-PORT", "kubernetes health check rules")
    yield _jump("INPUT", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules")
    yield _jump("FORWARD", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules")
    yield _jump("INPUT", "KUBE-IPVS-FILTER", "kubernetes ipvs access filter")
    yield _jump("OUTPUT", "KUBE-IPVS-OUT-FILTER", "kubernetes ipvs access filter")
    yield "-A KUBE-SOURCE-RANGES-FIREWALL -j DROP"
    yield from _FORWARDING
    yield f"-A KUBE-NODE-PORT -m set --match-set {name['HEALTH-CHECK-NODE-PORT']} dst -j ACCEPT"
    for each in ("LOAD-BALANCER", "CLUSTER-IP", "EXTERNAL-IP", "EXTERNAL-IP-LOCAL"):
        yield f"-A KUBE-IPVS-FILTER -m set --match-set {name[each]} dst,dst -j RETURN"
    yield f"-A KUBE-IPVS-FILTER -m set --match-set {name['HEALTH-CHECK-NODE-PORT']} dst -j RETURN"
    of_services = f"-m conntrack --ctstate NEW -m set --match-set {name['IPVS-IPS']} dst"
    yield f"-A KUBE-IPVS-FILTER {of_services} -j REJECT"
    yield "COMMIT"
    yield from _CANARIES


_FORWARDING: Final = (
    f'-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark {_MARK}/{_MARK} -j ACCEPT',
    "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
)
_CANARIES: Final = tuple(
    line
    for table in ("mangle", "nat", "filter")
    for line in (f"*{table}", ":KUBE-PROXY-CANARY - [0:0]", "COMMIT")
)
_KUBELET: Final = (
    "*mangle",
    ":KUBE-IPTABLES-HINT - [0:0]",
    ":KUBE-KUBELET-CANARY - [0:0]",
    "COMMIT",
    "*nat",
    ":KUBE-KUBELET-CANARY - [0:0]",
    ":KUBE-MARK-DROP - [0:0]",
    "-A KUBE-MARK-DROP -j MARK --or-mark 0x8000",
    "COMMIT",
    "*filter",
    ":KUBE-KUBELET-CANARY - [0:0]",
    ":KUBE-FIREWALL - [0:0]",
    "-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP",
    "-A INPUT -j KUBE-FIREWALL",
    "-A OUTPUT -j KUBE-FIREWALL",
    "COMMIT",
)


def _chain(kind: str, *of: object) -> str:
    """Return the name of the chain of a Service's port or of an endpoint."""
    digest = hashlib.sha256("".join(map(str, of)).encode()).digest()
    return f"KUBE-{kind}-{base64.b32encode(digest).decode()[:16]}"


def _iptables_rules(family: Family, services: Sequence[Served]) -> Iterator[str]:
    local = _LOCAL[family]
    yield "*nat"
    yield from (f":KUBE-{chain} - [0:0]" for chain in ("SERVICES", "NODEPORTS", "POSTROUTING", "MARK-MASQ"))
    for target, endpoints, _ in services:
        yield from (f":{_chain(kind, target)} - [0:0]" for kind in ("SVC", "EXT"))
        yield from (f":{_chain('SEP', target, *each)} - [0:0]" for each in endpoints)
    yield _jump("OUTPUT", "KUBE-SERVICES", "kubernetes service portals")
    yield _jump("PREROUTING", "KUBE-SERVICES", "kubernetes service portals")
    yield _jump("POSTROUTING", "KUBE-POSTROUTING", "kubernetes postrouting rules")
    for target, endpoints, node_port in services:
        protocol = target.protocol.name.lower()
        service, outside = _chain("SVC", target), _chain("EXT", target)
        at = f"-p {protocol} -m {protocol} --dport"
        yield f"-A KUBE-SERVICES -d {target.address} {at} {target.port} -j {service}"
        if node_port:
            yield f"-A KUBE-NODEPORTS {at} {node_port} -j {outside}"
        yield f"-A {outside} -j KUBE-MARK-MASQ"
        yield f"-A {outside} -j {service}"
        yield f"-A {service} ! -s {local} -d {target.address} {at} {target.port} -j KUBE-MARK-MASQ"
        for left, (address, port) in zip(range(len(endpoints), 0, -1), endpoints, strict=True):
            endpoint = _chain("SEP", target, address, port)
            chance = f"-m statistic --mode random --probability {1 / left:.8f} " if left > 1 else ""
            yield f"-A {service} {chance}-j {endpoint}"
            yield f"-A {endpoint} -s {address} -j KUBE-MARK-MASQ"
            place = f"[{address}]:{port}" if family is Family.IPV6 else f"{address}:{port}"
            yield f"-A {endpoint} -p {protocol} -m {protocol} -j DNAT --to-destination {place}"
    yield "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    yield from _masquerading()
    yield "COMMIT"
    yield "*filter"
    for chain in ("SERVICES", "EXTERNAL-SERVICES", "FORWARD", "NODEPORTS", "PROXY-FIREWALL"):
        yield f":KUBE-{chain} - [0:0]"
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        yield _jump(chain, "KUBE-PROXY-FIREWALL", "kubernetes load balancer firewall", only_new=True)
    for chain in ("INPUT", "FORWARD"):
        yield _jump(
            chain, "KUBE-EXTERNAL-SERVICES", "kubernetes externally-visible service portals", only_new=True
        )
    for chain in ("FORWARD", "OUTPUT"):
        yield _jump(chain, "KUBE-SERVICES", "kubernetes service portals", only_new=True)
    yield _jump("INPUT", "KUBE-NODEPORTS", "kubernetes health check service ports")
    yield _jump("FORWARD", "KUBE-FORWARD", "kubernetes forwarding rules")
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    yield from _FORWARDING
    yield "COMMIT"
    yield from _CANARIES


def _nftables_table(family: Family, services: Sequence[Served]) -> Iterator[str]:
    ip = "ip" if family is Family.IPV4 else "ip6"
    address_type = "ipv4_addr" if family is Family.IPV4 else "ipv6_addr"
    yield f"table {ip} kube-proxy {{"
    yield f"map service-ips {{ type {address_type} . inet_proto . inet_service : verdict; }}"
    yield "map service-nodeports { type inet_proto . inet_service : verdict; }"
    yield f"chain mark-for-masquerade {{ meta mark set meta mark or {_MARK}; }}"
    yield "chain masquerading {"
    yield f"meta mark & {_MARK} == 0 return"
    yield f"meta mark set meta mark xor {_MARK}"
    yield "masquerade fully-random"
    yield "}"
    yield "chain services {"
    yield f"{ip} daddr . meta l4proto . th dport vmap @service-ips"
    yield "fib daddr type local meta l4proto . th dport vmap @service-nodeports"
    yield "}"
    for hook, priority in (("prerouting", -100), ("output", -100)):
        yield f"chain nat-{hook} {{ type nat hook {hook} priority {priority}; jump services; }}"
    yield "chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }"
    for number, (target, endpoints, _) in enumerate(services):
        protocol = target.protocol.name.lower()
        yield f"chain service-{number} {{"
        yield f"{ip} daddr {target.address} {ip} saddr != {_LOCAL[family]} jump mark-for-masquerade"
        choices = ", ".join(
            f"{choice} : {address} . {port}" for choice, (address, port) in enumerate(endpoints)
        )
        chosen = f"numgen random mod {len(endpoints)} map {{ {choices} }}"
        yield f"meta l4proto {protocol} dnat {ip} to {chosen}"
        yield "}"
        yield f"chain external-{number} {{ jump mark-for-masquerade; goto service-{number}; }}"
    yield "}"
    for number, (target, _, node_port) in enumerate(services):
        place = f"{ip} kube-proxy"
        protocol = target.protocol.name.lower()
        key = f"{target.address} . {protocol} . {target.port}"
        yield f"add element {place} service-ips {{ {key} : goto service-{number} }}"
        if node_port:
            yield f"add element {place} service-nodeports {{ {protocol} . {node_port} : goto external-{number} }}"
