"""When connection tracking forgets what clients sent before a Service was there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.fake import AddressOperation
from ipvsproxy.kernel.fake_conntrack import ConntrackEntry, ForgottenEntries
from ipvsproxy.model.ipvs import Command, IpvsOperation
from ipvsproxy.model.objects import Protocol, ServiceType, SlicePort, TrafficPolicy
from tests.builders import address, addresses, endpoint_slice, key, port, service
from tests.reconcile.world import World

if TYPE_CHECKING:
    from collections.abc import Collection

    from ipvsproxy.kernel.interface import KernelError
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import EndpointSlice, Service

NODE_ADDRESS = "198.51.100.1"
CLUSTER_IPS = pytest.mark.parametrize("cluster_ip", ["10.96.0.1", "fd00:96::1"])
CONNECTIONS = pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.SCTP])
EVERY_PROTOCOL = pytest.mark.parametrize("protocol", Protocol)


def knock(to: str, number: int, protocol: Protocol, source_port: int = 40000) -> ConntrackEntry:
    """Return the entry of a client who was not translated and not answered."""
    client = address("fd00:244::9" if ":" in to else "10.244.0.9")
    return ConntrackEntry(
        (client, source_port), key(to, number, protocol), (address(to), number), answered=False
    )


def web(cluster_ip: str, protocol: Protocol, **fields: object) -> Service:
    ports = (port(80, "web", protocol, node_port=30080),)
    return service(cluster_ip, ports=ports, **fields)  # type: ignore[arg-type] # those of `service`


def web_slice(cluster_ip: str, protocol: Protocol) -> EndpointSlice:
    endpoint = "fd00:244::1" if ":" in cluster_ip else "10.244.0.1"
    return endpoint_slice(endpoint, ports=(SlicePort("web", protocol, 8080),))


@pytest.fixture
def world() -> World:
    world = World()
    world.addresses.other_addresses = set(addresses(NODE_ADDRESS, "2001:db8::1"))
    world.list_objects()
    world.log.clear()
    return world


@CLUSTER_IPS
@EVERY_PROTOCOL
def test_what_nobody_answered_is_forgotten_when_the_virtual_server_comes(
    world: World, cluster_ip: str, protocol: Protocol
) -> None:
    world.conntrack.entries.add(knock(cluster_ip, 80, protocol))
    world.put(web(cluster_ip, protocol))
    assert world.conntrack.entries == set()


@CONNECTIONS
def test_a_connection_that_was_answered_elsewhere_stays(world: World, protocol: Protocol) -> None:
    answered = knock("203.0.113.1", 80, protocol)._replace(answered=True)
    world.conntrack.entries.add(answered)
    world.put(web("10.96.0.1", protocol, external_ips=("203.0.113.1",)))
    assert world.conntrack.entries == {answered}


@EVERY_PROTOCOL
@pytest.mark.parametrize(
    ("to", "number"), [("10.96.0.1", 80), ("203.0.113.1", 80), ("203.0.113.2", 80), (NODE_ADDRESS, 30080)]
)
def test_it_is_forgotten_at_every_kind_of_address_once_before_the_first_real_server(
    world: World, protocol: Protocol, to: str, number: int
) -> None:
    early = knock(to, number, protocol)
    world.conntrack.entries.add(early)
    value = web(
        "10.96.0.1",
        protocol,
        kind=ServiceType.LOAD_BALANCER,
        external_ips=("203.0.113.1",),
        load_balancer_ips=("203.0.113.2",),
    )
    world.store.put_slice(web_slice("10.96.0.1", protocol))
    world.put(value)
    commands = [each.command if isinstance(each, IpvsOperation) else each for each in world.log]
    forgotten = commands.index(ForgottenEntries(frozenset((early,))))
    last_created = len(commands) - 1 - commands[::-1].index(Command.NEW_SERVICE)
    assert last_created < forgotten < commands.index(Command.NEW_DEST)
    bound = [number for number, each in enumerate(commands) if isinstance(each, AddressOperation)]
    assert forgotten < min(bound)


class Race:
    """Clients who send just before an address is bound, and just after."""

    def __init__(self, world: World, *, before: ConntrackEntry, after: ConntrackEntry) -> None:
        self._conntrack = world.conntrack
        self._apply = world.addresses.apply
        self.before, self.after = before, after
        world.addresses.apply = self.apply  # type: ignore[method-assign]

    def apply(self, add: Collection[Address], remove: Collection[Address]) -> dict[Address, KernelError]:
        if add:
            self._conntrack.entries.add(self.before)
        refused = self._apply(add, remove)
        if add:
            self._conntrack.entries.add(self.after)
        return refused


@CLUSTER_IPS
@EVERY_PROTOCOL
def test_what_came_just_before_the_address_is_forgotten_and_what_came_after_goes_on(
    world: World, cluster_ip: str, protocol: Protocol
) -> None:
    before = knock(cluster_ip, 80, protocol)
    after = knock(cluster_ip, 80, protocol, 40001)._replace(endpoint=(address("10.244.0.1"), 8080))
    Race(world, before=before, after=after)
    world.put(web(cluster_ip, protocol))
    assert world.conntrack.entries == {after}


@EVERY_PROTOCOL
def test_what_came_while_an_address_was_away_is_forgotten_when_it_is_bound_again(
    world: World, protocol: Protocol
) -> None:
    world.put(web("10.96.0.1", protocol))
    world.addresses.apply((), addresses("10.96.0.1"))
    world.conntrack.entries.add(knock("10.96.0.1", 80, protocol))
    world.advance(30)
    assert world.conntrack.entries == set()


@EVERY_PROTOCOL
def test_a_client_that_was_sent_to_a_cluster_ip_which_is_another_one_now_begins_anew(
    world: World, protocol: Protocol
) -> None:
    local = web("10.96.0.1", protocol, external=TrafficPolicy.LOCAL, external_ips=("203.0.113.1",))
    world.put(local)
    sent_on = knock("203.0.113.1", 80, protocol)._replace(endpoint=(address("10.96.0.1"), 80))
    world.conntrack.entries.add(sent_on)
    world.put(local._replace(cluster_ips=addresses("10.96.0.2")))
    assert world.conntrack.entries == set()


@EVERY_PROTOCOL
def test_a_client_that_was_sent_to_a_cluster_ip_whose_virtual_server_was_away_begins_anew(
    world: World, protocol: Protocol
) -> None:
    local = web("10.96.0.1", protocol, external=TrafficPolicy.LOCAL, external_ips=("203.0.113.1",))
    world.put(local)
    (cluster_ip,) = (
        found for each, found in world.ipvs.state().items() if each.address == address("10.96.0.1")
    )
    world.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, cluster_ip)])
    world.conntrack.entries.add(
        knock("203.0.113.1", 80, protocol)._replace(endpoint=(address("10.96.0.1"), 80))
    )
    world.advance(30)
    assert world.conntrack.entries == set()
