"""The language of the table of cases: Services with endpoints, who connects to them from where, and what comes of it.

A `Section` has a sentence of what a Service means, a Service, and rows; a row says for some clients and some ways to
reach the Service what they meet there. `cases` spells that out: one `Case` for each client, way, family and protocol.
Nothing here needs a kernel.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, TypeAlias

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol, ServiceType
from netns_tests import addressing, manifests
from netns_tests.addressing import Reachable
from netns_tests.manifests import Endpoint, Port
from netns_tests.servers import ASSOCIATION_PORT, DATAGRAM_PORT, HTTP_PORT
from netns_tests.topology import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from netns_tests.addressing import Via
    from netns_tests.topology import Place
    from netns_tests.traffic import Target

SERVICE_PORT = 80
SERVER_PORTS = {
    Protocol.TCP: HTTP_PORT,
    Protocol.UDP: DATAGRAM_PORT,
    Protocol.SCTP: ASSOCIATION_PORT,
}
"""The ports on which every host of the topology listens, the node too."""


class Source(enum.StrEnum):
    """Whose address an endpoint sees as the source of a connection."""

    OWN = "the client's"
    NODE = "the node's"


@dataclasses.dataclass(frozen=True)
class Answered:
    """Each of these hosts answers new connections in its turn, and sees that source; if `sticky`, one always does."""

    sources: tuple[tuple[str, Source], ...]
    sticky: bool = False

    def __and__(self, other: Answered) -> Answered:
        """Return that the hosts of both answer."""
        return Answered(self.sources + other.sources, self.sticky)

    def __str__(self) -> str:
        """Return it in words."""
        hosts = " and ".join(f"{host}, which sees {source} address" for host, source in self.sources)
        return f"answered by {'one of ' if self.sticky else ''}{hosts}"


class Outcome(enum.StrEnum):
    """What else a client may meet."""

    REFUSED = "refused at once"
    DROPPED = "dropped without an answer"
    NODE_ITSELF = "what the node itself does with it: a server of its own answers, or else it is refused"
    NOT_SERVED = "no address of the node"
    ECHOED = "an answer to its ping"


Expected: TypeAlias = Answered | Outcome


@dataclasses.dataclass(frozen=True)
class Pod:
    """An endpoint: a host of the topology, with conditions and hints as the API names them."""

    name: str
    conditions: tuple[tuple[str, bool], ...] = ()
    for_zones: tuple[str, ...] = ()
    for_nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return its name, and what is said of it."""
        said = [name if value else f"not {name}" for name, value in self.conditions]
        said += [f"for {each}" for each in (*self.for_zones, *self.for_nodes)]
        return f"{self.name} ({', '.join(said)})" if said else self.name

    def endpoint(self, place: Place, family: Family) -> Endpoint:
        """Return it as an endpoint of a slice."""
        node = place.name if place.kind is Kind.NODE else place.node
        return Endpoint(place.addresses[family], node, self.conditions, self.for_zones, self.for_nodes)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A Service and its endpoints; equal ones are the same Service. `fields` are those of ServiceSpec."""

    type: ServiceType
    endpoints: tuple[Pod, ...]
    fields: tuple[tuple[str, Any], ...] = ()
    families: tuple[Family, ...] = tuple(Family)
    protocols: tuple[Protocol, ...] = tuple(Protocol)
    is_headless: bool = False

    def __str__(self) -> str:
        """Return it in words."""
        fields = "".join(f", {name} {value}" for name, value in self.fields)
        endpoints = ", ".join(map(str, self.endpoints)) or "none"
        return f"Service of type {self.type}{fields}, endpoints: {endpoints}"

    def only(self, *families: Family) -> Subject:
        """Return it with addresses of these families, in their order."""
        return dataclasses.replace(self, families=families)

    def speaking(self, *protocols: Protocol) -> Subject:
        """Return it with a port for each of these protocols."""
        return dataclasses.replace(self, protocols=protocols)

    def headless(self) -> Subject:
        """Return it without a ClusterIP."""
        return dataclasses.replace(self, is_headless=True)

    def reachable(self, number: int, node: Place) -> Reachable:
        """Return it as clients of the node reach it, with the addresses and ports of a number."""
        spec = addressing.spec_of(self.type, number, self.families, **dict(self.fields))
        ports = [
            Port(protocol.name.lower(), SERVICE_PORT, SERVER_PORTS[protocol], protocol)
            for protocol in self.protocols
        ]
        cluster_ips = (
            [] if self.is_headless else [addressing.cluster_ip(number, each) for each in self.families]
        )
        return Reachable(cluster_ips, spec, addressing.ports_of(spec, ports, number), node)

    def objects(self, number: int, places: Mapping[str, Place], node: Place) -> Iterator[dict[str, Any]]:
        """Yield the Service and its EndpointSlices."""
        name, reachable = f"service-{number}", self.reachable(number, node)
        yield manifests.service(name, reachable.cluster_ips, reachable.ports, reachable.spec)
        for family in self.families:
            endpoints = [pod.endpoint(places[pod.name], family) for pod in self.endpoints]
            yield manifests.endpoint_slice(
                f"{name}-{family.name.lower()}", name, family, endpoints, reachable.ports
            )


@dataclasses.dataclass(frozen=True)
class Environment:
    """How the agent runs: the flags that are not those of all agents, and what its Node says of zone and pods."""

    title: str
    flags: tuple[str, ...] = ()
    zone: str = "zone-a"
    pod_cidrs: tuple[str, ...] = ()

    def node_object(self, node: Place) -> dict[str, Any]:
        """Return the Node."""
        return manifests.node(node.name, self.zone, self.pod_cidrs, node.addresses.values())


USUAL = Environment("usual")


@dataclasses.dataclass(frozen=True)
class Row:
    """For each of the clients and each of the ways: what it meets.

    `ports` are others than those that the way leads to.
    """

    clients: tuple[str, ...]
    ways: tuple[Via, ...]
    expected: Expected
    ports: Mapping[Protocol, int] | None = None
    families: tuple[Family, ...] | None = None

    def on(self, ports: Mapping[Protocol, int]) -> Row:
        """Return it for other ports, and for the protocols that these are for."""
        return dataclasses.replace(self, ports=ports)

    def over(self, *families: Family) -> Row:
        """Return it for these families only, which the Service need not have."""
        return dataclasses.replace(self, families=families)


@dataclasses.dataclass(frozen=True)
class Section:
    """What a Service means, in a sentence, and rows that show it."""

    sentence: str
    subject: Subject
    rows: tuple[Row, ...]
    environment: Environment = USUAL


@dataclasses.dataclass(frozen=True)
class Case:
    """One client, one address, and what it meets; `protocol` None is a ping."""

    sentence: str
    environment: Environment
    subject: Subject
    number: int
    client: str
    via: Via
    family: Family
    protocol: Protocol | None
    port: int | None
    expected: Expected

    def __str__(self) -> str:
        """Return it in words."""
        asks = f"connects by {self.protocol.name}" if self.protocol else "sends a ping"
        port = f", port {self.port}" if self.port else ""
        return (
            f"{self.sentence}\n{self.subject}\n{self.client} {asks} over {self.family.name} to the {self.via}{port}\n"
            f"expected: {self.expected}\nagent: {self.environment.title}"
        )

    @property
    def title(self) -> str:
        """What tells it from all others, in a line."""
        protocol = self.protocol.name if self.protocol else "ping"
        port = f"-{self.port}" if self.port else ""
        return f"{self.sentence}-{self.number}-{self.client}-{self.via}{port}-{self.family.name}-{protocol}"

    def target(self, node: Place) -> Target:
        """Return where the client connects to; for a ping, with any port."""
        reachable = self.subject.reachable(self.number, node)
        return reachable.target(self.via, self.family, self.protocol or Protocol.TCP, self.port)


def cases(table: Iterable[Section]) -> list[Case]:
    """Spell the table out; equal Services of one environment get one number."""
    numbers: dict[tuple[Environment, Subject], int] = {}
    found = []
    for section in table:
        key = section.environment, section.subject
        number = numbers.setdefault(key, len(numbers) + 1)
        for row in section.rows:
            found += [
                Case(
                    section.sentence,
                    section.environment,
                    section.subject,
                    number,
                    client,
                    via,
                    family,
                    protocol,
                    row.ports[protocol] if row.ports and protocol else None,
                    row.expected,
                )
                for client in row.clients
                for via in row.ways
                for family in row.families or section.subject.families
                for protocol in _protocols(row, section.subject)
            ]
    return found


def _protocols(row: Row, subject: Subject) -> Iterable[Protocol | None]:
    if row.expected is Outcome.ECHOED:
        return (None,)
    return tuple(row.ports) if row.ports else subject.protocols


def objects(cases_: Iterable[Case], places: Mapping[str, Place], node: Place) -> Iterator[dict[str, Any]]:
    """Yield the API objects of the cases, which are of one environment: its Node, all Services and EndpointSlices."""
    environments = {case.environment for case in cases_}
    for environment in environments:
        yield environment.node_object(node)
    for number, subject in {case.number: case.subject for case in cases_}.items():
        yield from subject.objects(number, places, node)


# The words of a table.


def section(sentence: str, subject: Subject, *rows: Row, environment: Environment = USUAL) -> Section:
    """Return a section of the table."""
    return Section(sentence, subject, rows, environment)


def row(clients: str, ways: Via | tuple[Via, ...], expected: Expected) -> Row:
    """Return a row; clients are names with spaces between."""
    return Row(tuple(clients.split()), ways if isinstance(ways, tuple) else (ways,), expected)


def by(hosts: str, *, seeing: Source, sticky: bool = False) -> Answered:
    """Return that these hosts answer; names with spaces between."""
    return Answered(tuple((host, seeing) for host in hosts.split()), sticky)


def unready(name: str) -> Pod:
    """Return an endpoint that is not ready."""
    return Pod(name, (("ready", False),))


def terminating(name: str, *, serving: bool = True, zones: tuple[str, ...] = ()) -> Pod:
    """Return an endpoint that terminates."""
    return Pod(name, (("ready", False), ("serving", serving), ("terminating", True)), zones)


def hinted(name: str, *, zones: tuple[str, ...] = (), nodes: tuple[str, ...] = ()) -> Pod:
    """Return an endpoint that is for zones, or nodes."""
    return Pod(name, (), zones, nodes)


def service(type_: ServiceType, *endpoints: Pod | str, **fields: Any) -> Subject:  # noqa: ANN401 - as ServiceSpec has them
    """Return a Service; endpoints are ready if they are given by their names."""
    pods = tuple(Pod(each) if isinstance(each, str) else each for each in endpoints)
    return Subject(type_, pods, tuple(sorted(fields.items())))


def cluster_ip(*endpoints: Pod | str, **fields: Any) -> Subject:  # noqa: ANN401 - as ServiceSpec has them
    """Return a Service of type ClusterIP."""
    return service(ServiceType.CLUSTER_IP, *endpoints, **fields)


def node_port(*endpoints: Pod | str, **fields: Any) -> Subject:  # noqa: ANN401 - as ServiceSpec has them
    """Return a Service of type NodePort."""
    return service(ServiceType.NODE_PORT, *endpoints, **fields)


def load_balancer(*endpoints: Pod | str, **fields: Any) -> Subject:  # noqa: ANN401 - as ServiceSpec has them
    """Return a Service of type LoadBalancer; it has external IPs, too."""
    return service(ServiceType.LOAD_BALANCER, *endpoints, **fields)
