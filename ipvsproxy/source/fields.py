"""The rules for single fields of API objects: addresses, networks, ports, policies, session affinity.

A field that can't be used is an `UnusableError`, raised where nothing else is left, listed where the rest can do
without it. Paths of fields are those of the API, such as `spec.ports[2].port`.
"""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import sys
from typing import TYPE_CHECKING, Final, TypeVar

from ipvsproxy.model.addresses import family, parse_stored_address, parse_stored_network
from ipvsproxy.model.objects import Protocol, ServicePort, ServiceType, SlicePort, TrafficPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from ipvsproxy.model.addresses import Address, Family, Network
    from ipvsproxy.source import schema

Entry = TypeVar("Entry")
Value = TypeVar("Value")

DEFAULT_SESSION_AFFINITY_TIMEOUT: Final = 10800
MAXIMUM_SESSION_AFFINITY_TIMEOUT: Final = 86400
MAXIMUM_PORT: Final = 65535
# Of a list of a Service's addresses. Each has to be bound, and takes the kernel the longer the more there are.
MAXIMUM_ADDRESSES: Final = 1000

_PROTOCOLS: Final = {protocol.name: protocol for protocol in Protocol}
_POLICIES: Final = {policy.value: policy for policy in TrafficPolicy}
_TYPES_WITH_NODE_PORTS: Final = (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)

# No address that needs a closer look begins with another byte.
_SUSPECT_FIRST_BYTES: Final = frozenset({0, 127, 169, *range(224, 240), 0xFE, 0xFF})

_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")


# Of an EndpointSlice, from the EndpointSlice controller; v1.EndpointsLastChangeTriggerTime of k8s.io/api.
_TRIGGER_TIME: Final = "endpoints.kubernetes.io/last-change-trigger-time"


class UnusableError(Exception):
    """A part of an object can't be used, or none of it: whoever catches it decides which."""

    def __init__(self, field: str, reason: object) -> None:
        """Say why: `field` is the path within the object, `reason` a sentence without a full stop."""
        super().__init__(field, str(reason))
        self.field = field
        self.reason = str(reason)


def usable_address(text: str, expected: Family | None = None) -> Address:
    """Return the address if traffic can be sent there; ValueError with the reason otherwise."""
    if not text:
        raise ValueError("is missing")
    address = parse_stored_address(text)
    if expected is not None and family(address) is not expected:
        raise ValueError(f"{text} is not of the slice's addressType")
    if address[0] in _SUSPECT_FIRST_BYTES:
        special = _special(address)
        if special:
            raise ValueError(f"{text} is {special} address")
    return address


def _special(address: Address) -> str | None:
    """Return what makes the address unusable for a Service, by the API's ValidateNonSpecialIP and a little more."""
    ip = ipaddress.ip_address(bytes(address))
    kinds = (
        ("the unspecified", ip.is_unspecified),
        ("a loopback", ip.is_loopback),
        ("a link-local", ip.is_link_local),
        ("a multicast", ip.is_multicast),
        ("the broadcast", ip == _BROADCAST),
    )
    return next((kind for kind, is_so in kinds if is_so), None)


def cluster_ips(spec: schema.ServiceSpec, left_out: list[UnusableError]) -> tuple[Address, ...]:
    """Return the cluster IPs, none of a headless Service; UnusableError if it names some and all are wrong."""
    if spec.cluster_ips:
        named = _numbered_addresses("spec.clusterIPs", spec.cluster_ips, left_out)
    else:
        named = [("spec.clusterIP", spec.cluster_ip or "None")]
    if any(text == "None" for _, text in named):
        return ()
    return _one_at_least(named, _address_reader(), left_out)


def external_ips(
    spec: schema.ServiceSpec, cluster_ips: tuple[Address, ...], left_out: list[UnusableError]
) -> tuple[Address, ...]:
    """Return the usable externalIPs, which are of the families of the cluster IPs."""
    if not spec.external_ips:
        return ()
    named = _numbered_addresses("spec.externalIPs", spec.external_ips, left_out)
    return _usable(named, _address_reader(set(map(family, cluster_ips))), left_out)


def load_balancer_ips(
    service: schema.ServiceObject, cluster_ips: tuple[Address, ...], left_out: list[UnusableError]
) -> tuple[Address, ...]:
    """Return the usable IPs of a load balancer whose ipMode is VIP, which are of the families of the cluster IPs.

    Only a Service of type LoadBalancer has any. A load balancer that has a name only, or whose ipMode is Proxy, sends
    nothing to its own address on a node.
    """
    load_balancer = service.status.load_balancer if service.status else None
    entries = load_balancer.ingress if load_balancer else None
    if not entries or service.spec.type is not ServiceType.LOAD_BALANCER:
        return ()
    read_address = _address_reader(set(map(family, cluster_ips)))

    def read(field: str, entry: schema.Ingress) -> Address:
        if (entry.ip_mode or "VIP") != "VIP":
            raise UnusableError(f"{field}.ipMode", f"{entry.ip_mode!r} is not VIP or Proxy")
        return read_address(f"{field}.ip", entry.ip or "")

    numbered = _numbered_addresses("status.loadBalancer.ingress", entries, left_out)
    named = [(field, entry) for field, entry in numbered if entry.ip and entry.ip_mode != "Proxy"]
    return _usable(named, read, left_out)


def _address_reader(families: Container[Family] | None = None) -> Callable[[str, str], Address]:
    """Return what reads the addresses of one list, where each counts once."""
    seen: set[Address] = set()

    def read(field: str, text: str) -> Address:
        try:
            address = usable_address(text)
        except ValueError as error:
            raise UnusableError(field, error) from None
        if families is not None and family(address) not in families:
            raise UnusableError(field, f"{text} is not used: the Service has no clusterIP of that family")
        if address in seen:
            raise UnusableError(field, f"{text} is listed twice")
        seen.add(address)
        return address

    return read


def node_addresses(status: schema.NodeStatus | None, left_out: list[UnusableError]) -> tuple[Address, ...]:
    """Return the usable addresses of a Node: those of type InternalIP, then those of type ExternalIP."""

    def read(field: str, entry: schema.NodeAddress) -> Address:
        try:
            return usable_address(entry.address or "")
        except ValueError as error:
            raise UnusableError(f"{field}.address", error) from None

    numbered = _numbered("status.addresses", (status.addresses if status else None) or [])
    of_types = (
        (field, entry)
        for wanted in ("InternalIP", "ExternalIP")
        for field, entry in numbered
        if entry.type == wanted
    )
    # A Node without an address translation in front of it may have one address in both roles.
    return tuple(dict.fromkeys(_usable(of_types, read, left_out)))


def networks(field: str, texts: list[str], left_out: list[UnusableError]) -> tuple[Network, ...]:
    """Return the readable networks of a list in CIDR notation; `field` is its path."""

    def read(field: str, text: str) -> Network:
        try:
            return parse_stored_network(text.strip())
        except ValueError as error:
            raise UnusableError(field, error) from None

    return _usable(_numbered(field, texts), read, left_out)


def load_balancer_source_ranges(
    spec: schema.ServiceSpec, left_out: list[UnusableError]
) -> tuple[Network, ...] | None:
    """Return the networks that may use the load balancer's addresses, None if all may.

    If there are some and none is readable, nobody may: whoever named them meant to keep others out.
    """
    if spec.type is not ServiceType.LOAD_BALANCER or not spec.load_balancer_source_ranges:
        return None
    field = "spec.loadBalancerSourceRanges"
    ranges = networks(field, spec.load_balancer_source_ranges, left_out)
    if not ranges:
        left_out.append(UnusableError(field, "has no readable entry, so no source is let in"))
    return ranges


def traffic_policy(field: str, text: str | None, left_out: list[UnusableError]) -> TrafficPolicy:
    """Return the policy; an unknown one counts as Cluster, the API's default."""
    policy = _POLICIES.get(text or "Cluster")
    if policy is None:
        left_out.append(UnusableError(field, f"{text!r} is not Cluster or Local; Cluster is used"))
        return TrafficPolicy.CLUSTER
    return policy


def health_check_node_port(
    spec: schema.ServiceSpec, external: TrafficPolicy, left_out: list[UnusableError]
) -> int:
    """Return the health check node port, 0 for a Service that has none."""
    if spec.type is not ServiceType.LOAD_BALANCER or external is not TrafficPolicy.LOCAL:
        return 0
    port = spec.health_check_node_port or 0
    if not 0 <= port <= MAXIMUM_PORT:
        reason = f"{port} is not from 1 to {MAXIMUM_PORT}; there is no health check"
        left_out.append(UnusableError("spec.healthCheckNodePort", reason))
        return 0
    return port


def service_ports(spec: schema.ServiceSpec, left_out: list[UnusableError]) -> tuple[ServicePort, ...]:
    """Return the usable ports; UnusableError if there are entries and none is usable.

    A node port that can't be used is left out of its port, which stays.
    """
    entries = spec.ports or []
    has_node_ports = spec.type in _TYPES_WITH_NODE_PORTS
    numbers: set[tuple[Protocol, int]] = set()
    node_ports: set[tuple[Protocol, int]] = set()
    names: set[str] = set()

    def read(field: str, entry: schema.ServicePort) -> ServicePort:
        protocol = _protocol(field, entry)
        port = _port_number(field, entry)
        name = sys.intern(entry.name or "")
        if (protocol, port) in numbers:
            raise UnusableError(f"{field}.port", f"{port}/{protocol.name} is listed twice")
        if name in names:
            raise UnusableError(
                f"{field}.name", f"another port has the name {name!r} too: each needs its own"
            )
        numbers.add((protocol, port))
        names.add(name)
        node_port = (entry.node_port or 0) if has_node_ports else 0
        return ServicePort(name, protocol, port, node_port and read_node_port(field, protocol, node_port))

    def read_node_port(field: str, protocol: Protocol, number: int) -> int:
        if not 1 <= number <= MAXIMUM_PORT:
            reason = f"{number} is not from 1 to {MAXIMUM_PORT}; the port has no node port"
        elif (protocol, number) in node_ports:
            reason = f"{number}/{protocol.name} is listed twice; the port has no node port"
        else:
            node_ports.add((protocol, number))
            return number
        left_out.append(UnusableError(f"{field}.nodePort", reason))
        return 0

    numbered = _numbered("spec.ports", entries)
    return _one_of_equal_service_ports(_one_at_least(numbered, read, left_out))


def _numbered(field: str, entries: list[Entry]) -> list[tuple[str, Entry]]:
    """Return each entry of a list with its path."""
    return [(f"{field}[{index}]", entry) for index, entry in enumerate(entries)]


def _numbered_addresses(
    field: str, entries: list[Entry], left_out: list[UnusableError]
) -> list[tuple[str, Entry]]:
    """Return each entry of a list of addresses with its path, MAXIMUM_ADDRESSES of them at most."""
    if len(entries) > MAXIMUM_ADDRESSES:
        reason = f"has {len(entries)} entries, of which the first {MAXIMUM_ADDRESSES} are used"
        left_out.append(UnusableError(field, reason))
    return _numbered(field, entries[:MAXIMUM_ADDRESSES])


def _one_at_least(
    entries: Iterable[tuple[str, Entry]], read: Callable[[str, Entry], Value], left_out: list[UnusableError]
) -> tuple[Value, ...]:
    """Return the usable ones of the entries; UnusableError if there are entries and none is usable."""
    unusable: list[UnusableError] = []
    usable = _usable(entries, read, unusable)
    if unusable and not usable:
        raise unusable[0]
    left_out += unusable
    return usable


def _usable(
    entries: Iterable[tuple[str, Entry]], read: Callable[[str, Entry], Value], left_out: list[UnusableError]
) -> tuple[Value, ...]:
    """Read every (field, entry), and list those that can't be used."""
    usable: list[Value] = []
    for field, entry in entries:
        try:
            usable.append(read(field, entry))
        except UnusableError as error:
            left_out.append(error)
    return tuple(usable)


def _protocol(field: str, entry: schema.Port) -> Protocol:
    protocol = _PROTOCOLS.get(entry.protocol or "TCP")
    if protocol is None:
        raise UnusableError(f"{field}.protocol", f"{entry.protocol!r} is not TCP, UDP or SCTP")
    return protocol


def _port_number(field: str, entry: schema.Port) -> int:
    port = entry.port
    if port is None:
        raise UnusableError(f"{field}.port", "is missing")
    if not 1 <= port <= MAXIMUM_PORT:
        raise UnusableError(f"{field}.port", f"{port} is not from 1 to {MAXIMUM_PORT}")
    return port


def session_affinity_timeout(spec: schema.ServiceSpec, left_out: list[UnusableError]) -> int:
    """Return the seconds of session affinity, 0 without it; what is wrong counts as not given."""
    if spec.session_affinity in (None, "", "None"):
        return 0
    if spec.session_affinity != "ClientIP":
        reason = f"{spec.session_affinity!r} is not ClientIP or None; None is used"
        left_out.append(UnusableError("spec.sessionAffinity", reason))
        return 0
    config = spec.session_affinity_config
    timeout = config.client_ip.timeout_seconds if config and config.client_ip else None
    if timeout is None:
        return DEFAULT_SESSION_AFFINITY_TIMEOUT
    if not 1 <= timeout <= MAXIMUM_SESSION_AFFINITY_TIMEOUT:
        reason = (
            f"{timeout} is not from 1 to {MAXIMUM_SESSION_AFFINITY_TIMEOUT} seconds; "
            f"{DEFAULT_SESSION_AFFINITY_TIMEOUT} is used"
        )
        left_out.append(UnusableError("spec.sessionAffinityConfig.clientIP.timeoutSeconds", reason))
        return DEFAULT_SESSION_AFFINITY_TIMEOUT
    return timeout


def slice_ports(
    field: str, entries: list[schema.Port], left_out: list[UnusableError]
) -> tuple[SlicePort, ...]:
    """Return the usable ports of an EndpointSlice or of a subset; `field` is the path of the list."""

    def read(field: str, entry: schema.Port) -> SlicePort:
        return SlicePort(sys.intern(entry.name or ""), _protocol(field, entry), _port_number(field, entry))

    # No number means all ports, which is nothing that IPVS could forward to.
    with_number = ((place, entry) for place, entry in _numbered(field, entries) if entry.port)
    return _one_of_equal_slice_ports(_usable(with_number, read, left_out))


def hinted(hints: schema.Hints) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the zones and of the nodes that an endpoint is for."""
    for_zones, for_nodes = hints.for_zones, hints.for_nodes
    return (
        _one_of_equal_hints(tuple([hint.name for hint in for_zones])) if for_zones else (),
        _one_of_equal_hints(tuple([hint.name for hint in for_nodes])) if for_nodes else (),
    )


# Slices and Services by the thousand have the same few tuples of ports and of hints: keep one of each. Caches of
# their own, because a tuple of one type equals one of another with the same contents.


@functools.lru_cache(maxsize=4096)
def _one_of_equal_service_ports(ports: tuple[ServicePort, ...]) -> tuple[ServicePort, ...]:
    return ports


@functools.lru_cache(maxsize=4096)
def _one_of_equal_slice_ports(ports: tuple[SlicePort, ...]) -> tuple[SlicePort, ...]:
    return ports


@functools.lru_cache(maxsize=8192)
def _one_of_equal_hints(names: tuple[str | None, ...]) -> tuple[str, ...]:
    return tuple(sys.intern(name) for name in names if name)


def trigger_time(annotations: object) -> float:
    """Return when what an EndpointSlice follows changed, in seconds since the epoch; 0 when it does not say so.

    Nothing but a measurement hangs on it, so a wrong value is nobody's concern.
    """
    text = annotations.get(_TRIGGER_TIME) if isinstance(annotations, dict) else None
    if not isinstance(text, str):
        return 0.0
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return moment.timestamp() if moment.tzinfo else 0.0
