"""The table of cases without a kernel: the agent programs its fakes, and the tracer follows the packets through them.

netns_tests/test_cases.py runs the same table on a real kernel, so the two agree on all of it.
"""

from __future__ import annotations

import functools
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.run import RunArguments
from ipvsproxy.cli.settings import controller_settings, firewall_settings
from ipvsproxy.model.addresses import Family, parse_address
from ipvsproxy.plan.firewall import ICMP, ICMPV6, ruleset
from ipvsproxy.plan.trace import trace
from ipvsproxy.plan.trace.table import FirewallTable
from ipvsproxy.plan.trace.values import Outcome as Traced
from ipvsproxy.plan.trace.values import Packet, SourceSeen, TracedState
from ipvsproxy.source.decode import read_endpoint_slice, read_node, read_service
from netns_tests.agent import FLAGS
from netns_tests.case_language import SERVER_PORTS, Answered, Outcome, Source, objects
from netns_tests.cases import CASES
from netns_tests.cluster import TOPOLOGY
from netns_tests.topology import Kind
from tests.reconcile.world import World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipvsproxy.config.settings import Config
    from ipvsproxy.model.ipvs import VirtualServer, VirtualServerKey
    from netns_tests.case_language import Case, Environment

PLACES = {place.name: place for place in TOPOLOGY.places()}
NODE = PLACES["node-a"]
LOOPBACK = ("127.0.0.1", "::1")
SOURCES = {SourceSeen.CLIENT: Source.OWN, SourceSeen.MASQUERADED: Source.NODE}
OUTCOMES = {
    Traced.REFUSED: Outcome.REFUSED,
    Traced.DROPPED: Outcome.DROPPED,
    Traced.NOT_OURS: Outcome.NOT_SERVED,
    Traced.NODE: Outcome.NODE_ITSELF,
}
ENDPOINTS = {
    (parse_address(place.addresses[family]), port): place.name
    for place in PLACES.values()
    for family in place.addresses
    for port in SERVER_PORTS.values()
}
SENTENCES = [(sentence, list(cases)) for sentence, cases in groupby(CASES, lambda case: case.sentence)]


@pytest.mark.parametrize("cases", [pytest.param(cases, id=sentence) for sentence, cases in SENTENCES])
def test_the_tracer_says_what_the_table_says(cases: list[Case]) -> None:
    differences = []
    for case in cases:
        traced = trace(packet(case), state(case.environment))
        met: Answered | Outcome
        if traced.outcome is Traced.ANSWERED:
            sources = [(ENDPOINTS[answer[:2]], SOURCES[answer.source]) for answer in traced.answers]
            met = Answered(tuple(sorted(sources)))
        else:
            met = OUTCOMES[traced.outcome]
        if met != expected(case):
            differences.append("\n".join([str(case), f"traced: {met}", *map(str, traced.steps)]))
    assert not differences, "\n\n".join(differences)


def packet(case: Case) -> Packet:
    """Return the first packet of the case's connection, as it comes to the node."""
    target, client = case.target(NODE), PLACES[case.client]
    destination = parse_address(target.address)
    echo = ICMP if case.family is Family.IPV4 else ICMPV6
    protocol, port = (case.protocol, target.port) if case.protocol else (echo, 0)
    if client == NODE:
        return Packet(destination, protocol, port)
    # A pod's interface on its node has the pod's name.
    interface = client.name if client.node == NODE.name else "eth0"
    return Packet(destination, protocol, port, parse_address(client.addresses[case.family]), interface)


def expected(case: Case) -> Answered | Outcome:
    """Return what the tracer calls it: it knows nothing of affinity, and whether somebody listens on a port."""
    match case.expected:
        case Answered(sources):
            return Answered(tuple(sorted(sources)))
        case Outcome.ECHOED:
            return Outcome.NODE_ITSELF
        case Outcome.NODE_ITSELF if case.port not in SERVER_PORTS.values():
            return Outcome.REFUSED
        case outcome:
            return outcome


@functools.cache
def state(environment: Environment) -> TracedState:
    """Return what the agent makes of all Services of an environment."""
    config = configuration(environment)
    own = [parse_address(text) for each in (NODE.addresses, NODE.gateways) for text in each.values()]
    documents = list(objects([case for case in CASES if case.environment == environment], PLACES, NODE))
    node = read_node(next(each for each in documents if each["kind"] == "Node")).value
    world = World(controller_settings(config))
    world.addresses.other_addresses.update(own)
    read = [read_service(each).value for each in documents if each["kind"] == "Service"]
    slices = [read_endpoint_slice(each).value for each in documents if each["kind"] == "EndpointSlice"]
    world.list_objects(*(each for each in (*read, *slices) if each is not None), node=node)
    return TracedState(
        FirewallTable(ruleset(firewall_settings(config, node)), world.firewall.read().elements),
        virtual_servers(world),
        world.addresses.bound(),
        [*own, *map(parse_address, LOOPBACK)],
        frozenset((int(protocol), port) for protocol, port in SERVER_PORTS.items()),
    )


def configuration(environment: Environment) -> Config:
    arguments = parse(
        ["run", "--manifests=.", f"--hostname-override={NODE.name}", *FLAGS, *environment.flags]
    )
    assert isinstance(arguments, RunArguments)
    return arguments.config


def virtual_servers(world: World) -> Mapping[VirtualServerKey, VirtualServer]:
    """Return the virtual servers of the fake kernel, with their real servers."""
    found = {each.key: each for chunk in world.ipvs.virtual_servers() for each in chunk}
    real_servers = world.ipvs.real_servers(list(found))
    return {
        key: each._replace(real_servers=tuple(status.real_server for status in real_servers[key]))
        for key, each in found.items()
    }


def test_the_table_has_a_case_for_each_kind_of_client_and_outcome() -> None:
    assert {PLACES[case.client].kind for case in CASES} == {Kind.POD, Kind.NODE, Kind.OUTSIDE}
    assert {case.expected for case in CASES if isinstance(case.expected, Outcome)} == set(Outcome)
