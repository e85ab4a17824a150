"""The rules for single fields of API objects: addresses, ports, session affinity.

A field that can't be used is an `UnusableError`, raised where nothing else is left, listed where the rest can do
without it. Paths of fields are those of the API, such as `spec.ports[2].port`.
"""

from __future__ import annotations

import functools
import ipaddress
import sys
from typing import TYPE_CHECKING, Final, TypeVar

from ipvsproxy.model.addresses import family, parse_address
from ipvsproxy.model.objects import Protocol, ServicePort, SlicePort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipvsproxy.model.addresses import Address, Family
    from ipvsproxy.source import schema

Entry = TypeVar("Entry")
Value = TypeVar("Value")

DEFAULT_SESSION_AFFINITY_TIMEOUT: Final = 10800
MAXIMUM_SESSION_AFFINITY_TIMEOUT: Final = 86400
MAXIMUM_PORT: Final = 65535

_PROTOCOLS: Final = {protocol.name: protocol for protocol in Protocol}

# No address that needs a closer look begins with another byte.
_SUSPECT_FIRST_BYTES: Final = frozenset({0, 127, 169, *range(224, 240), 0xFE, 0xFF})


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
    address = parse_address(text)
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
    if ip.is_unspecified:
        return "the unspecified"
    if ip.is_loopback:
        return "a loopback"
    if ip.is_link_local:
        return "a link-local"
    if ip.is_multicast:
        return "a multicast"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        return "an IPv4-mapped IPv6"
    return None


def cluster_ips(spec: schema.ServiceSpec, left_out: list[UnusableError]) -> tuple[Address, ...]:
    """Return the cluster IPs, none of a headless Service; UnusableError if it names some and all are wrong."""
    if spec.cluster_ips:
        named = [(f"spec.clusterIPs[{index}]", text) for index, text in enumerate(spec.cluster_ips)]
    else:
        named = [("spec.clusterIP", spec.cluster_ip or "None")]
    if any(text == "None" for _, text in named):
        return ()
    seen: set[Address] = set()

    def read(field: str, text: str) -> Address:
        try:
            address = usable_address(text)
        except ValueError as error:
            raise UnusableError(field, error) from None
        if address in seen:
            raise UnusableError(field, f"{text} is listed twice")
        seen.add(address)
        return address

    return _usable(named, read, left_out)


def service_ports(entries: list[schema.Port], left_out: list[UnusableError]) -> tuple[ServicePort, ...]:
    """Return the usable ports; UnusableError if there are entries and none is usable."""
    numbers: set[tuple[Protocol, int]] = set()
    names: set[str] = set()

    def read(field: str, entry: schema.Port) -> ServicePort:
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
        return ServicePort(name, protocol, port)

    named = ((f"spec.ports[{index}]", entry) for index, entry in enumerate(entries))
    return _one_of_equal_service_ports(_usable(named, read, left_out))


def _usable(
    entries: Iterable[tuple[str, Entry]], read: Callable[[str, Entry], Value], left_out: list[UnusableError]
) -> tuple[Value, ...]:
    """Read every (field, entry) and leave the unusable ones out; UnusableError if that leaves none of them."""
    usable: list[Value] = []
    unusable: list[UnusableError] = []
    for field, entry in entries:
        try:
            usable.append(read(field, entry))
        except UnusableError as error:
            unusable.append(error)
    if unusable and not usable:
        raise unusable[0]
    left_out += unusable
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
    ports = []
    for index, entry in enumerate(entries):
        # No number means all ports, which is nothing that IPVS could forward to.
        if not entry.port:
            continue
        entry_field = f"{field}[{index}]"
        try:
            protocol = _protocol(entry_field, entry)
            port = _port_number(entry_field, entry)
        except UnusableError as error:
            left_out.append(error)
        else:
            ports.append(SlicePort(sys.intern(entry.name or ""), protocol, port))
    return _one_of_equal_slice_ports(tuple(ports))


# Slices and Services by the thousand have the same few tuples of ports: keep one of each. Two caches, because
# a ServicePort and a SlicePort with the same contents are equal as tuples.


@functools.lru_cache(maxsize=4096)
def _one_of_equal_service_ports(ports: tuple[ServicePort, ...]) -> tuple[ServicePort, ...]:
    return ports


@functools.lru_cache(maxsize=4096)
def _one_of_equal_slice_ports(ports: tuple[SlicePort, ...]) -> tuple[SlicePort, ...]:
    return ports
