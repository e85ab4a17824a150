"""A node with 10,000 Services: one of them with 250 endpoints, and node ports on 20 addresses.

What takes how long is for `bench`: here only what becomes of it counts.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType, TrafficPolicy
from netns_tests import manifests, others, tables
from netns_tests.addressing import cluster_ip, load_balancer_ip
from netns_tests.agent import Agent
from netns_tests.deadline import await_that
from netns_tests.emulation import IS_EMULATED
from netns_tests.manifests import Endpoint, Port, ServiceSpec
from netns_tests.tables import Notices
from netns_tests.topology import Topology
from netns_tests.traffic import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


# An emulated processor takes minutes for the whole, which shows nothing more.
SERVICES = 500 if IS_EMULATED else 10_000
NODE_PORT_SERVICES = 20
LOAD_BALANCERS = SERVICES // 50
ENDPOINTS_OF_THE_FIRST = (100, 100, 50)
NODE = "node-a"
NODE_ADDRESSES = ["198.51.100.1", *(f"198.51.100.{number}" for number in range(65, 84))]
PORT, NODE_PORT, TARGET_PORT = 80, 30000, 8080
SOURCE_RANGES = ("192.0.2.0/24", "203.0.113.0/28")
RESYNC_PAUSE = 0.1


@dataclasses.dataclass(frozen=True)
class Service:
    """One Service of the node; each slice has the endpoints' addresses, and those of `local` run on the node."""

    number: int
    spec: ServiceSpec
    slices: tuple[tuple[str, ...], ...]
    local: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"service-{self.number}"

    def objects(self) -> list[dict[str, Any]]:
        """Return the Service and its EndpointSlices as manifests."""
        node_port = NODE_PORT + self.number if self.spec.type is ServiceType.NODE_PORT else 0
        ports = [Port("", PORT, TARGET_PORT, node_port=node_port)]
        address = cluster_ip(self.number, Family.IPV4)
        return [
            manifests.service(self.name, [address], ports, self.spec),
            *(
                manifests.endpoint_slice(
                    f"{self.name}-{number}", self.name, Family.IPV4, map(self._endpoint, addresses), ports
                )
                for number, addresses in enumerate(self.slices)
            ),
        ]

    def serving(self) -> dict[Target, set[tuple[str, int]]]:
        """Return who has to serve at each of its addresses."""
        everywhere = {(address, TARGET_PORT) for addresses in self.slices for address in addresses}
        here = {place for place in everywhere if place[0] in self.local}
        outside = here if self.spec.external_traffic_policy is TrafficPolicy.LOCAL else everywhere
        served = {Target(cluster_ip(self.number, Family.IPV4), PORT): everywhere}
        served |= {Target(address, PORT): outside for address in self.spec.load_balancer_ips}
        if self.spec.type is ServiceType.NODE_PORT:
            served |= {Target(address, NODE_PORT + self.number): outside for address in NODE_ADDRESSES}
        return served

    def _endpoint(self, address: str) -> Endpoint:
        return Endpoint(address, NODE if address in self.local else "node-b")


def services() -> list[Service]:
    """Return all Services: those with node ports, load balancers, and ClusterIPs with none, one or ten endpoints."""
    pods = map(str, ipaddress.ip_network("10.240.0.0/14").hosts())
    found = []
    for number in range(SERVICES):
        if number < NODE_PORT_SERVICES:
            spec = ServiceSpec(type=ServiceType.NODE_PORT)
        elif number < NODE_PORT_SERVICES + LOAD_BALANCERS:
            spec = ServiceSpec(
                type=ServiceType.LOAD_BALANCER,
                load_balancer_ips=(load_balancer_ip(number, Family.IPV4),),
                external_traffic_policy=TrafficPolicy.LOCAL if number % 2 else TrafficPolicy.CLUSTER,
                source_ranges=SOURCE_RANGES if number % 4 < 2 else (),
            )
        else:
            spec = manifests.PLAIN
        counts = ENDPOINTS_OF_THE_FIRST if number == 0 else ((0, 1, 10)[number % 3],)
        slices = tuple(tuple(itertools.islice(pods, count)) for count in counts)
        local = frozenset(slices[0][:1]) if number % 2 else frozenset()
        found.append(Service(number, spec, slices, local))
    return found


ALL = services()
EXPECTED = {target: places for service in ALL for target, places in service.serving().items()}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Return the agent of a node with all Services. Each test leaves the node as it finds it."""
    directory = tmp_path_factory.mktemp("headroom")
    with (
        Topology(nodes={NODE: ()}).build() as network,
        Agent(network[NODE], directory, sync_period="1h") as agent,
    ):
        for address in NODE_ADDRESSES[1:]:
            others.add_node_address(agent.node, address)
        write_all(agent.manifests.path / "all.json", ALL)
        agent.start()
        yield agent


def write_all(path: Path, written: Iterable[Service]) -> None:
    """Write many Services into one file; JSON takes a fraction of the time that YAML takes."""
    items = [document for service in written for document in service.objects()]
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def restart(agent: Agent, sync_period: str, *flags: str) -> None:
    agent.kill()
    agent.sync_period, agent.flags = sync_period, flags
    agent.start()


def next_synced(agent: Agent, before: int) -> dict[str, Any]:
    """Return the line about the change that follows the first so many ones, once it is done."""
    await_that(lambda: len(agent.logged("synced")) > before, "the agent has done the change")
    found: dict[str, Any] = agent.logged("synced")[before]
    return found


def test_the_first_sync_programs_every_virtual_server_address_and_set_element(agent: Agent) -> None:
    assert tables.serving(agent.node) == EXPECTED
    bound = {target.address for target in EXPECTED} - set(NODE_ADDRESSES)
    assert {each.address for each in tables.service_addresses(agent.node)} == bound
    shown = json.loads(agent.dump("-o", "json"))
    assert (shown["differences"], shown["failures"], shown["rejections"]) == ([], [], [])
    assert (shown["agent"]["synced"], shown["firewall"]["intact"]) == (True, True)
    assert len(shown["virtualServers"]) == len(EXPECTED)


def test_a_restart_touches_nothing(agent: Agent) -> None:
    before = tables.virtual_servers(agent.node)
    with Notices(agent.node) as notices:
        restart(agent, "1h")
        assert (notices.of_addresses(), notices.of_nftables()) == (0, 0)
    assert tables.virtual_servers(agent.node) == before
    (line,) = agent.logged("first sync")
    counts = line.keys() - {"time", "level", "event", "milliseconds"}
    assert counts == {"services", "virtual_servers", "real_servers", "draining"}


def test_one_of_the_nodes_addresses_goes_and_comes_back_and_the_others_do_not_notice(agent: Agent) -> None:
    address, before = NODE_ADDRESSES[7], len(agent.logged("synced"))
    others.delete_node_address(agent.node, address)
    line = next_synced(agent, before)
    assert (line["services"], line["virtual_servers_deleted"]) == (
        NODE_PORT_SERVICES + LOAD_BALANCERS,
        NODE_PORT_SERVICES,
    )
    assert "virtual_servers_created" not in line
    assert tables.serving(agent.node).keys() == {each for each in EXPECTED if each.address != address}
    others.add_node_address(agent.node, address)
    line = next_synced(agent, before + 1)
    assert line["virtual_servers_created"] == NODE_PORT_SERVICES
    assert "virtual_servers_deleted" not in line
    assert tables.serving(agent.node) == EXPECTED


def test_a_service_is_changed_while_a_resync_runs(agent: Agent) -> None:
    """Changes go between the slices of a resync, of which there is nearly always one here."""
    restart(agent, f"{RESYNC_PAUSE:g}s", "--log-level=debug")
    more = dataclasses.replace(ALL[-1], number=SERVICES)
    address = cluster_ip(more.number, Family.IPV4)

    def changed_during_a_resync() -> bool:
        agent.manifests.write("more", more.objects())
        await_that(lambda: tables.has_address(agent.node, address), f"{address} is bound")
        agent.manifests.remove("more")
        await_that(lambda: not tables.has_address(agent.node, address), f"{address} is gone")
        ends = [seconds(line) for line in agent.logged("resynced")]
        changes = [seconds(line) for line in agent.logged("synced")]
        return any(
            end + RESYNC_PAUSE < change < next_end
            for end, next_end in itertools.pairwise(ends)
            for change in changes
        )

    await_that(changed_during_a_resync, "a change is programmed between the begin and the end of a resync")
    assert agent.logged("repaired what others changed") == []
    restart(agent, "1h")
    assert tables.serving(agent.node) == EXPECTED


def seconds(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()
