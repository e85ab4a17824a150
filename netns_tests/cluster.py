"""A running cluster: the topology, the pods' servers, the agent of the first node, and Services made on the way."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from typing import TYPE_CHECKING, Any

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol
from ipvsproxy.observe.agent_socket import ask_report
from netns_tests import addressing, manifests, tables
from netns_tests.addressing import Reachable, Via
from netns_tests.agent import Agent
from netns_tests.deadline import await_that
from netns_tests.manifests import Endpoint, Port
from netns_tests.servers import ADMIN_PORT, ASSOCIATION_PORT, DATAGRAM_PORT, HTTP_PORT, Servers
from netns_tests.topology import Kind, Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ipvsproxy.model.objects import ServiceType
    from netns_tests.topology import Host, Network
    from netns_tests.traffic import Target

PORTS = (
    Port("http", 80, HTTP_PORT),
    Port("admin", 81, ADMIN_PORT),
    Port("dns", 53, DATAGRAM_PORT, Protocol.UDP),
    Port("diameter", 3868, ASSOCIATION_PORT, Protocol.SCTP),
)

TOPOLOGY = Topology(
    nodes={"node-a": ("web-1", "web-2", "client"), "node-b": ("web-3", "web-4")},
    outside=("outside", "stranger"),
)


class Cluster:
    """What a packet test works with; hosts by name, as in `cluster["web-1"]`."""

    def __init__(self, network: Network, servers: Servers, agent: Agent) -> None:
        """Take the parts, which somebody else ends."""
        self.network = network
        self.servers = servers
        self.agent = agent
        self._numbers = itertools.count(10)

    @classmethod
    @contextlib.contextmanager
    def built(
        cls, directory: Path, topology: Topology = TOPOLOGY, sync_period: str = "30s"
    ) -> Iterator[Cluster]:
        """Build the topology with servers in every pod and outside; the agent of node-a is yet to be started."""
        with topology.build() as network, Servers() as servers:
            for host in network.of(Kind.POD) + network.of(Kind.OUTSIDE):
                servers.start(host)
            with Agent(network["node-a"], directory, sync_period) as agent:
                yield cls(network, servers, agent)

    def __getitem__(self, name: str) -> Host:
        """Return the host of that name."""
        return self.network[name]

    def state(self) -> dict[str, str]:
        """Return everything that explains a failure, by title: the node's tables and the agent's log."""
        namespace = self.node.namespace
        readers: dict[str, Callable[[], str]] = {
            "nft list ruleset": lambda: namespace.run("nft", "list", "ruleset"),
            "addresses": lambda: namespace.run("ip", "-brief", "address"),
            "IPVS": lambda: namespace.read("ip_vs"),
            "IPVS connections": lambda: namespace.read("ip_vs_conn"),
            "connection tracking": lambda: namespace.read("nf_conntrack"),
            "the agent's log": self.agent.log,
        }
        return {title: _text_or_reason(read) for title, read in readers.items()}

    @property
    def node(self) -> Host:
        """The node whose agent runs."""
        return self.agent.node

    def endpoint(self, name: str, family: Family, **conditions: bool) -> Endpoint:
        """Return a host as an endpoint, with conditions as the API names them."""
        host = self[name]
        return Endpoint(host.addresses[family], host.node, tuple(conditions.items()))

    def new_service(self, *pods: str) -> ServiceUnderTest:
        """Make a Service of these pods, and wait until the node has it."""
        service = self.reserve_service()
        service.set_endpoints(*pods)
        return service

    def reserve_service(self) -> ServiceUnderTest:
        """Return a Service that is not written yet, with an address of each family that no other one has."""
        number = next(self._numbers)
        addresses = {family: addressing.cluster_ip(number, family) for family in Family}
        return ServiceUnderTest(self, f"service-{number}", addresses, number=number)


class ServiceUnderTest:
    """One Service of the test."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        addresses: Mapping[Family, str],
        ports: Sequence[Port] = PORTS,
        number: int = 0,
    ) -> None:
        """Give it a name, its ClusterIPs and its ports; nothing is written yet.

        With a number, which is no other Service's, it can have addresses for clients outside, too.
        """
        self.name = name
        self.addresses = addresses
        self.ports = ports
        self.spec = manifests.PLAIN
        self.number = number
        self.pods: tuple[str, ...] = ()
        self._cluster = cluster
        self._slices: list[dict[str, Any]] = []

    def target(
        self,
        family: Family,
        protocol: Protocol = Protocol.TCP,
        port: int | None = None,
        via: Via = Via.CLUSTER_IP,
    ) -> Target:
        """Return where to connect to; without a port, to the first one of the protocol."""
        reachable = Reachable(tuple(self.addresses.values()), self.spec, self.ports, self._cluster.node)
        return reachable.target(via, family, protocol, port)

    def become(self, type_: ServiceType, **fields: Any) -> None:  # noqa: ANN401 - those of ServiceSpec
        """Change its type, with the addresses that this calls for, and its spec; nothing is waited for.

        The endpoints stay; the Service is not written before it has had some.
        """
        self.spec = addressing.spec_of(type_, self.number, **fields)
        self.ports = addressing.ports_of(self.spec, self.ports, self.number)
        if self._slices:
            self.write(self._slices)

    def set_endpoints(self, *pods: str) -> None:
        """Make these pods its endpoints, all of them ready, and wait until the node has that."""
        self.write_pods(*pods)
        self.await_pods(*pods)

    def write_pods(self, *pods: str) -> None:
        """Write the Service with one slice for each family that has these pods; nothing is waited for."""
        self.pods = pods
        self.write(
            self.slice(family, [self._cluster.endpoint(pod, family) for pod in pods]) for family in Family
        )

    def slice(
        self,
        family: Family,
        endpoints: Iterable[Endpoint],
        name: str = "slice",
        ports: Sequence[Port] | None = None,
    ) -> dict[str, Any]:
        """Return an EndpointSlice of this Service; `name` tells slices of one family apart."""
        name = f"{self.name}-{family.name.lower()}-{name}"
        return manifests.endpoint_slice(name, self.name, family, endpoints, ports or self.ports)

    def write(self, slices: Iterable[dict[str, Any]]) -> None:
        """Write the Service with these EndpointSlices in place of its former ones; nothing is waited for."""
        self._slices = list(slices)
        service = manifests.service(self.name, self.addresses.values(), self.ports, self.spec)
        self._cluster.agent.manifests.write(self.name, [service, *self._slices])

    def await_pods(
        self, *pods: str, families: Iterable[Family] = tuple(Family), via: Via = Via.CLUSTER_IP
    ) -> None:
        """Wait until each of its virtual servers sends new connections to these pods and to nobody else."""
        self._await_real_servers(
            {
                self.target(family, port.protocol, number, via): {
                    (self._cluster[pod].addresses[family], port.target) for pod in pods
                }
                for family in families
                for port in self.ports
                for number in [port.node_port if via is Via.NODE_PORT else port.port]
            }
        )

    def await_sync(self) -> None:
        """Wait until the agent has done all that what it has begun with calls for: it answers between two syncs."""
        ask_report(self._cluster.agent.run_directory)

    def await_real_servers(self, target: Target, expected: set[tuple[str, int]]) -> None:
        """Wait until new connections to one of its addresses go to exactly these addresses and ports."""
        self._await_real_servers({target: expected})

    def _await_real_servers(self, expected: Mapping[Target, set[tuple[str, int]]]) -> None:
        node = self._cluster.node
        await_that(
            lambda: (
                expected.items() <= tables.serving(node).items()
                and all(tables.has_address(node, target.address) for target in expected)
            ),
            f"{self.name} is served like this: {expected}",
        )

    def remove(self) -> None:
        """Remove the Service and its slices, and wait until the node has forgotten it."""
        self.withdraw()
        self.await_gone()

    def withdraw(self) -> None:
        """Remove the Service and its slices; nothing is waited for."""
        self._cluster.agent.manifests.remove(self.name)

    def await_gone(self) -> None:
        """Wait until the node has neither its addresses nor its virtual servers."""
        node, addresses = self._cluster.node, set(self.addresses.values())
        await_that(
            lambda: (
                not any(tables.has_address(node, address) for address in addresses)
                and addresses.isdisjoint(target.address for target in tables.virtual_servers(node))
            ),
            f"{self.name} is gone",
        )


def _text_or_reason(read: Callable[[], str]) -> str:
    """Return what can be read, or why it can't: not every kernel shows everything."""
    try:
        return read()
    except (OSError, subprocess.CalledProcessError) as error:
        return str(error)
