"""A table of objects that contradict themselves, other objects or the node, with what is said of them.

The Service of each case is named after its number, and has the endpoint web-2. It is written with a fault, and later
without.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from netns_tests import addressing, manifests
from netns_tests.api_cluster import HTTP, Complaint
from netns_tests.cluster import TOPOLOGY
from netns_tests.manifests import Endpoint, Port, ServiceSpec
from netns_tests.servers import ADMIN_PORT, HTTP_PORT
from netns_tests.traffic import Failure, Target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.api_server_state import Object

IPV4, IPV6 = Family.IPV4, Family.IPV6
PLACES = {place.name: place for place in TOPOLOGY.places()}
NODE, OTHER_NODE = PLACES["node-a"].addresses, PLACES["node-b"].addresses
API_SERVER = "192.0.2.200"
NOT_ALLOWED = "203.0.113.9"
ALLOWED_EXTERNAL_IPS = ("198.18.0.0/16", "198.51.100.0/24", "192.0.2.0/24", "10.96.0.0/16", "::/0")

CREATED, EARLIER = "2026-02-02T00:00:00Z", "2026-01-01T00:00:00Z"
ADMIN = Port("admin", 81, ADMIN_PORT)


class Meeting(NamedTuple):
    """Who answers a new connection from a host, or what the client meets instead."""

    origin: str
    target: Target
    who: str


@dataclasses.dataclass(frozen=True)
class BadObject:
    """Objects with a fault, what is said of them and what clients meet meanwhile, and the objects without the fault.

    Afterwards the Service's ClusterIP is answered by web-2, and so is what `afterwards` names.
    """

    title: str
    number: int
    bad: tuple[Object, ...]
    mended: tuple[Object, ...]
    complaints: tuple[Complaint, ...]
    meanwhile: tuple[Meeting, ...] = ()
    afterwards: tuple[Meeting, ...] = ()

    @property
    def cluster_ip(self) -> Target:
        """Where pods reach the Service."""
        return Target(addressing.cluster_ip(self.number, IPV4), 80)


def name_of(number: int) -> str:
    """Return the name of a Service."""
    return f"service-{number}"


def service(number: int, *ports: Port, **fields: Any) -> Object:  # noqa: ANN401 - those of ServiceSpec
    """Return a dual-stack Service."""
    addresses = [addressing.cluster_ip(number, family) for family in Family]
    spec = ServiceSpec(**({"created": CREATED} | fields))
    return manifests.service(name_of(number), addresses, ports or [HTTP], spec)


def load_balancer(number: int, *ports: Port, **fields: Any) -> Object:  # noqa: ANN401 - those of ServiceSpec
    """Return a dual-stack Service of type LoadBalancer."""
    return service(number, *ports, type=ServiceType.LOAD_BALANCER, **fields)


def slice_of(
    number: int, *endpoints: Endpoint, family: Family = IPV4, ports: Iterable[Port] = (HTTP,)
) -> Object:
    """Return an EndpointSlice, with the endpoint web-2 if none are given."""
    name = name_of(number)
    chosen = endpoints or (pod("web-2", family),)
    return manifests.endpoint_slice(f"{name}-{family.name.lower()}", name, family, chosen, ports)


def pod(name: str, family: Family = IPV4) -> Endpoint:
    """Return a pod as an endpoint."""
    return Endpoint(PLACES[name].addresses[family], PLACES[name].node)


def altered(contents: Object, **fields: Any) -> Object:  # noqa: ANN401 - whatever JSON has
    """Return an object with other fields in its spec; None takes one away."""
    found = copy.deepcopy(contents)
    found["spec"].update(fields)
    found["spec"] = {name: value for name, value in found["spec"].items() if value is not None}
    return found


def of_service(number: int, field: str, reason: str) -> Complaint:
    """Return what is said of a Service."""
    return Complaint("Service", name_of(number), field, reason)


def _claims_of_others() -> Iterable[BadObject]:
    shared = "198.18.0.10"
    yield BadObject(
        "an external IP and port that an older Service has",
        10,
        (
            service(11, created=EARLIER, external_ips=(shared,)),
            slice_of(11, pod("web-1")),
            service(10, external_ips=(shared,)),
            slice_of(10),
        ),
        (service(11, created=EARLIER),),
        (
            of_service(
                10,
                "spec.externalIPs",
                f"{shared}:80/tcp belongs to Service default/service-11, the older one, or the first by name",
            ),
        ),
        (Meeting("outside", Target(shared, 80), "web-1"),),
        (Meeting("outside", Target(shared, 80), "web-2"),),
    )
    node_port = 30012
    node_ports = [Target(address, node_port) for address in (NODE[IPV4], NODE[IPV6])]
    yield BadObject(
        "a node port that an older Service has",
        12,
        (
            service(13, HTTP._replace(node_port=node_port), created=EARLIER, type=ServiceType.NODE_PORT),
            slice_of(13, pod("web-1")),
            slice_of(13, pod("web-1", IPV6), family=IPV6),
            service(12, HTTP._replace(node_port=node_port), type=ServiceType.NODE_PORT),
            slice_of(12),
        ),
        (service(12, HTTP._replace(node_port=node_port + 1), type=ServiceType.NODE_PORT),),
        (
            of_service(
                12,
                "spec.ports[].nodePort",
                "30012/tcp belongs to Service default/service-13, the older one, or the first by name",
            ),
        ),
        tuple(Meeting("outside", target, "web-1") for target in node_ports),
        (Meeting("outside", Target(NODE[IPV4], node_port + 1), "web-2"),),
    )
    cluster_ip = addressing.cluster_ip(15, IPV4)
    yield BadObject(
        "an external IP that is another Service's ClusterIP, and a younger one's at that",
        14,
        (
            service(15),
            slice_of(15, pod("web-1")),
            service(14, created=EARLIER, external_ips=(cluster_ip,)),
            slice_of(14),
        ),
        (service(14),),
        (
            of_service(
                14,
                "spec.externalIPs",
                f"{cluster_ip}:80/tcp belongs to Service default/service-15, whose clusterIP it is",
            ),
        ),
        (Meeting("client", Target(cluster_ip, 80), "web-1"),),
    )
    reserved = (
        (NODE[IPV4], "an address of this node"),
        (NODE[IPV6], "an address of this node"),
        (OTHER_NODE[IPV4], "an address of another node"),
        (API_SERVER, "an address of the API server"),
    )
    fields = ("status.loadBalancer.ingress", "spec.externalIPs")
    for number, (field, (address, whose)) in enumerate(itertools.product(fields, reserved), start=20):
        kind = "external_ips" if field == "spec.externalIPs" else "load_balancer_ips"
        port = Port("http-too", HTTP_PORT, HTTP_PORT)
        yield BadObject(
            f"{field} {address}, {whose}",
            number,
            (load_balancer(number, HTTP, port, **{kind: (address,)}), slice_of(number)),
            (load_balancer(number),),
            (of_service(number, field, f"{address} is {whose}"),),
            # The node has a server of its own at that port.
            (Meeting("outside", Target(address, HTTP_PORT), "node-a"),) if address in NODE.values() else (),
        )
    yield BadObject(
        "an external IP of no allowed network",
        16,
        (service(16, external_ips=(NOT_ALLOWED, "198.18.0.16")), slice_of(16)),
        (service(16, external_ips=("198.18.0.16",)),),
        (
            of_service(
                16,
                "spec.externalIPs",
                f"{NOT_ALLOWED} is in no network that external IPs are allowed from (--allowed-external-ips)",
            ),
        ),
        (Meeting("outside", Target("198.18.0.16", 80), "web-2"),),
        (Meeting("outside", Target("198.18.0.16", 80), "web-2"),),
    )


def _fields_out_of_range() -> Iterable[BadObject]:
    ports = service(0)["spec"]["ports"]
    wrong: tuple[tuple[str, object, str], ...] = (
        ("port", 65536, "65536 is not from 1 to 65535"),
        ("port", 0, "0 is not from 1 to 65535"),
        ("port", -1, "-1 is not from 1 to 65535"),
        ("protocol", "DCCP", "'DCCP' is not TCP, UDP or SCTP"),
        ("port", 80, "80/TCP is listed twice"),
        ("name", "http", "another port has the name 'http' too: each needs its own"),
    )
    for number, (field, value, reason) in enumerate(wrong, start=30):
        second = {"name": "admin", "port": 81, "protocol": "TCP", "targetPort": ADMIN_PORT, field: value}
        yield BadObject(
            f"a port whose {field} is {value}",
            number,
            (altered(service(number), ports=[*ports, second]), slice_of(number, ports=(HTTP, ADMIN))),
            (service(number, HTTP, ADMIN),),
            (of_service(number, f"spec.ports[1].{field}", reason),),
            (Meeting("client", Target(addressing.cluster_ip(number, IPV4), 80), "web-2"),),
            (Meeting("client", Target(addressing.cluster_ip(number, IPV4), 81), "web-2"),),
        )
    yield BadObject(
        "no port that can be used",
        40,
        (altered(service(40), ports=[{"port": 65536}]), slice_of(40)),
        (service(40),),
        (of_service(40, "spec.ports[0].port", "65536 is not from 1 to 65535"),),
    )
    yield BadObject(
        "a port that is no number",
        41,
        (altered(service(41), ports=[{"port": "http"}]), slice_of(41)),
        (service(41),),
        (of_service(41, "spec.ports[0].port", "expected `int | null`, got `str`"),),
    )
    many = tuple(f"198.18.{number >> 8 & 255}.{number & 255}" for number in range(512, 1513))
    yield BadObject(
        "1,001 external IPs",
        42,
        (service(42, external_ips=many), slice_of(42)),
        (service(42),),
        (of_service(42, "spec.externalIPs", "has 1001 entries, of which the first 1000 are used"),),
        (
            Meeting("client", Target(addressing.cluster_ip(42, IPV4), 80), "web-2"),
            Meeting("client", Target(many[999], 80), "web-2"),
        ),
    )
    yield BadObject(
        "a node port out of range",
        43,
        (service(43, HTTP._replace(node_port=65536), type=ServiceType.NODE_PORT), slice_of(43)),
        (service(43, HTTP._replace(node_port=30043), type=ServiceType.NODE_PORT),),
        (
            of_service(
                43, "spec.ports[0].nodePort", "65536 is not from 1 to 65535; the port has no node port"
            ),
        ),
        (Meeting("client", Target(addressing.cluster_ip(43, IPV4), 80), "web-2"),),
        (Meeting("outside", Target(NODE[IPV4], 30043), "web-2"),),
    )
    yield BadObject(
        "a session affinity for longer than a day",
        44,
        (service(44, session_affinity_timeout=86401), slice_of(44)),
        (service(44, session_affinity_timeout=86400),),
        (
            of_service(
                44,
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                "86401 is not from 1 to 86400 seconds; 10800 is used",
            ),
        ),
        (Meeting("client", Target(addressing.cluster_ip(44, IPV4), 80), "web-2"),),
    )
    yield BadObject(
        "the node's loopback interface as an IPv4-mapped IPv6 address",
        45,
        (
            altered(
                service(45, external_ips=("::ffff:127.0.0.1",)),
                clusterIPs=[addressing.cluster_ip(45, IPV4), "::ffff:127.000.000.045"],
            ),
            slice_of(45),
        ),
        (service(45),),
        (
            of_service(45, "spec.clusterIPs[1]", "::ffff:127.000.000.045 is a loopback address"),
            of_service(45, "spec.externalIPs[0]", "::ffff:127.0.0.1 is a loopback address"),
        ),
        (Meeting("client", Target(addressing.cluster_ip(45, IPV4), 80), "web-2"),),
    )


def _annotations() -> Iterable[BadObject]:
    schedulers = "rr, wrr, lc, wlc, sh, dh, mh, sed, nq, lblc, lblcr, fo, ovf, twos"
    flags = "flag-1, flag-2, flag-3, sh-fallback, sh-port, mh-fallback, mh-port"
    known = ("scheduler", "scheduler-flags", "drain-timeout", "maximum-connections-per-endpoint")
    wrong = {
        "scheduler": ("fastest", f"'fastest' is not an IPVS scheduler: {schedulers}"),
        "scheduler-flags": ("sticky", f"'sticky' is not a scheduler flag: {flags}"),
        "drain-timeout": ("soon", "'soon' is not a duration such as 30s or 1m30s"),
        "maximum-connections-per-endpoint": ("many", "'many' is not a number from 1 to 2147483647"),
        "colour": ("red", f"is not known: {', '.join(f'ipvsproxy.io/{name}' for name in known)} are"),
    }
    values = tuple((f"ipvsproxy.io/{name}", value) for name, (value, _) in wrong.items())
    yield BadObject(
        "annotations with wrong values",
        50,
        (service(50, annotations=values), slice_of(50)),
        (service(50, annotations=(("ipvsproxy.io/scheduler", "wlc"),)),),
        tuple(
            of_service(50, f"metadata.annotations[ipvsproxy.io/{name}]", reason)
            for name, (_, reason) in wrong.items()
        ),
        (Meeting("client", Target(addressing.cluster_ip(50, IPV4), 80), "web-2"),),
    )


def _source_ranges() -> Iterable[BadObject]:
    at = Target("198.19.0.60", 80)
    field = "spec.loadBalancerSourceRanges"
    unreadable = "is not a network in CIDR notation"
    outside = f"{PLACES['outside'].addresses[IPV4]}/32"
    yield BadObject(
        "source ranges of which none is readable",
        60,
        (
            load_balancer(60, load_balancer_ips=(at.address,), source_ranges=("everybody", "10.0.0.0/33")),
            slice_of(60),
        ),
        (load_balancer(60, load_balancer_ips=(at.address,), source_ranges=("0.0.0.0/0",)),),
        (
            of_service(60, f"{field}[0]", f"'everybody' {unreadable}"),
            of_service(60, f"{field}[1]", f"'10.0.0.0/33' {unreadable}: the prefix length is 0 to 32"),
            of_service(60, field, "has no readable entry, so no source is let in"),
        ),
        (Meeting("outside", at, Failure.SILENCE), Meeting("stranger", at, Failure.SILENCE)),
        (Meeting("outside", at, "web-2"), Meeting("stranger", at, "web-2")),
    )
    at = Target("198.19.0.61", 80)
    yield BadObject(
        "source ranges of which one is readable",
        61,
        (
            load_balancer(61, load_balancer_ips=(at.address,), source_ranges=("everybody", outside)),
            slice_of(61),
        ),
        # One within another, and one twice: the kernel's set would refuse them as they are.
        (
            load_balancer(
                61, load_balancer_ips=(at.address,), source_ranges=(outside, "192.0.0.0/8", outside)
            ),
        ),
        (of_service(61, f"{field}[0]", f"'everybody' {unreadable}"),),
        (Meeting("outside", at, "web-2"), Meeting("stranger", at, Failure.SILENCE)),
        (Meeting("outside", at, "web-2"), Meeting("stranger", at, "web-2")),
    )


def _endpoints() -> Iterable[BadObject]:
    for number, (family, special) in enumerate(
        (
            (
                IPV4,
                {
                    "127.0.0.1": "a loopback",
                    "169.254.1.1": "a link-local",
                    "224.0.0.1": "a multicast",
                    "0.0.0.0": "the unspecified",
                    "255.255.255.255": "the broadcast",
                },
            ),
            (
                IPV6,
                {
                    "::1": "a loopback",
                    "fe80::1": "a link-local",
                    "ff02::1": "a multicast",
                    "::": "the unspecified",
                },
            ),
        ),
        start=70,
    ):
        endpoints = [*map(Endpoint, special), pod("web-2", family)]
        cluster_ip = Target(addressing.cluster_ip(number, family), 80)
        yield BadObject(
            f"endpoints at {family.name} addresses that nobody else can reach",
            number,
            (service(number), slice_of(number), slice_of(number, *endpoints, family=family)),
            (slice_of(number, family=family),),
            tuple(
                Complaint(
                    "EndpointSlice",
                    f"{name_of(number)}-{family.name.lower()}",
                    f"endpoints[{index}].addresses[0]",
                    f"{address} is {what} address",
                )
                for index, (address, what) in enumerate(special.items())
            ),
            (Meeting("client", cluster_ip, "web-2"),),
            (Meeting("client", cluster_ip, "web-2"),),
        )
    victim = addressing.cluster_ip(73, IPV4)
    yield BadObject(
        "an endpoint that is a service address",
        72,
        (service(73), slice_of(73, pod("web-1")), service(72), slice_of(72, Endpoint(victim), pod("web-2"))),
        (slice_of(72),),
        (of_service(72, "endpoints", f"endpoint {victim}:{HTTP_PORT}: its address is a service address"),),
        (
            Meeting("client", Target(addressing.cluster_ip(72, IPV4), 80), "web-2"),
            Meeting("client", Target(victim, 80), "web-1"),
        ),
    )
    yield BadObject(
        "a slice of another family than its endpoints",
        74,
        (service(74), slice_of(74), slice_of(74, pod("web-2", IPV4), family=IPV6)),
        (slice_of(74, family=IPV6),),
        (
            Complaint(
                "EndpointSlice",
                "service-74-ipv6",
                "endpoints[0].addresses[0]",
                f"{PLACES['web-2'].addresses[IPV4]} is not of the slice's addressType",
            ),
        ),
        (Meeting("client", Target(addressing.cluster_ip(74, IPV4), 80), "web-2"),),
        (Meeting("client", Target(addressing.cluster_ip(74, IPV6), 80), "web-2"),),
    )
    thousand = [Endpoint(f"10.244.{128 + number // 200}.{1 + number % 200}") for number in range(1000)]
    thousand[500] = Endpoint("127.0.0.1")
    yield BadObject(
        "one bad endpoint of 1,000",
        75,
        (service(75), slice_of(75, *thousand)),
        (slice_of(75),),
        (
            Complaint(
                "EndpointSlice",
                "service-75-ipv4",
                "endpoints[500].addresses[0]",
                "127.0.0.1 is a loopback address",
            ),
        ),
    )


BAD_OBJECTS = (
    *_claims_of_others(),
    *_fields_out_of_range(),
    *_annotations(),
    *_source_ranges(),
    *_endpoints(),
)
