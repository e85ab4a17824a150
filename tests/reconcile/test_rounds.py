"""What the loop tells of its rounds: the log's lines about Services, and the values for monitoring."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.ipvs import Command, IpvsOperation
from ipvsproxy.model.objects import ObjectKey, Protocol, ServiceOptions, ServiceType, TrafficPolicy
from ipvsproxy.plan.view import DrainEnd, Occasion
from ipvsproxy.reconcile.rounds import MAXIMUM_LINES, MAXIMUM_PHRASES
from tests.builders import (
    NODE,
    WEB,
    address,
    addresses,
    endpoint,
    endpoint_slice,
    key,
    node,
    port,
    service,
    virtual_server,
)
from tests.reconcile.world import World

if TYPE_CHECKING:
    from ipvsproxy.model.objects import EndpointSlice, Service
    from ipvsproxy.plan.view import Round

ADDRESS = key("10.96.0.1")
PLAIN = service("10.96.0.1")
ONE = endpoint_slice("10.244.0.1")


class Told:
    """A running world, with what it told since the test began."""

    def __init__(self) -> None:
        self.rounds: list[Round] = []
        self.world = World(hooks={"observe": self.rounds.append})

    def running(self, *objects: Service | EndpointSlice) -> Told:
        self.world.list_objects(*objects)
        self.rounds.clear()
        self.world.events.entries.clear()
        return self

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [
            {
                name: value
                for name, value in line.items()
                if name not in {"event", "log_level", "milliseconds"}
            }
            for line in self.world.events.entries
            if line["event"] == event
        ]

    def last(self) -> Round:
        return self.rounds[-1]


@pytest.fixture
def told() -> Told:
    return Told()


def test_the_first_sync_is_one_line_with_what_there_is_and_none_for_each_service(told: Told) -> None:
    told.world.list_objects(PLAIN, ONE)
    assert told.lines("first sync") == [
        {
            "services": 1,
            "virtual_servers": 1,
            "real_servers": 1,
            "draining": 0,
            "firewall_tables_installed": 1,
            "virtual_servers_created": 1,
            "real_servers_added": 1,
            "addresses_added": 1,
        }
    ]
    assert told.lines("service changed") == []
    (first,) = told.rounds
    assert (first.occasion, first.numbers.virtual_servers, first.numbers.real_servers) == (
        Occasion.FIRST_SYNC,
        1,
        1,
    )


def test_a_change_is_one_line_that_sums_it_up_and_one_that_says_what_changed(told: Told) -> None:
    told.running(PLAIN, ONE)
    told.world.ipvs.set_connections(ADDRESS, address("10.244.0.1"), 8080, 1)
    told.world.put(endpoint_slice("10.244.0.2"))
    assert told.lines("synced") == [{"services": 1, "real_servers_added": 1, "real_servers_changed": 1}]
    assert told.lines("service changed") == [
        {
            "service": "default/web",
            "began_to_serve": ["10.244.0.2:8080: ready"],
            "stopped_serving": ["10.244.0.1:8080: no endpoint any more"],
            "now_draining": ["10.244.0.1:8080"],
        }
    ]
    told_of = told.rounds[0]
    assert told_of.occasion is Occasion.CHANGES
    assert dict(told_of.done) == {"real servers added": 1, "real servers changed": 1}
    assert (told_of.numbers.real_servers, told_of.numbers.draining) == (2, 1)


@pytest.mark.parametrize(
    ("connections", "after", "how"),
    [(0, 5.0, DrainEnd.CONNECTIONS_ENDED), (1, 60.0, DrainEnd.TIMED_OUT)],
)
def test_the_end_of_a_drain_is_told_with_its_service_and_why(
    told: Told, connections: int, after: float, how: DrainEnd
) -> None:
    told.running(
        PLAIN._replace(options=ServiceOptions(drain_timeout=60.0)), endpoint_slice("10.244.0.1", "10.244.0.2")
    )
    told.world.ipvs.set_connections(ADDRESS, address("10.244.0.2"), 8080, 1)
    told.world.put(ONE)
    told.world.ipvs.set_connections(ADDRESS, address("10.244.0.2"), 8080, connections)
    told.world.advance(after)
    assert told.lines("drained")[-1] == {"real_servers_deleted": 1}
    assert told.lines("service changed")[-1] == {
        "service": "default/web",
        "drained": [f"10.244.0.2:8080: {how}"],
    }
    (ended,) = [each for each in told.rounds if each.drains_ended]
    assert (ended.occasion, dict(ended.drains_ended)) == (Occasion.DRAINS, {how: 1})
    assert ended.numbers.draining == 0


def test_one_that_returns_is_told_too(told: Told) -> None:
    told.running(PLAIN, endpoint_slice("10.244.0.1", "10.244.0.2"))
    told.world.ipvs.set_connections(ADDRESS, address("10.244.0.2"), 8080, 1)
    told.world.put(ONE)
    told.world.put(endpoint_slice("10.244.0.1", "10.244.0.2"))
    line = told.lines("service changed")[-1]
    assert line["drained"] == ["10.244.0.2:8080: returned"]
    assert line["began_to_serve"] == ["10.244.0.2:8080: ready"]


def test_a_drain_that_ends_with_its_service_is_counted(told: Told) -> None:
    told.running(PLAIN, endpoint_slice("10.244.0.1", "10.244.0.2"))
    told.world.ipvs.set_connections(ADDRESS, address("10.244.0.2"), 8080, 1)
    told.world.put(ONE)
    told.world.store.remove_service(WEB)
    told.world.settle()
    assert dict(told.last().drains_ended) == {DrainEnd.DELETED: 1}
    assert told.last().numbers[:3] == (0, 0, 0)


def test_a_drain_is_told_once_though_it_is_at_many_addresses(told: Told) -> None:
    on_nodes = service("10.96.0.1", kind=ServiceType.NODE_PORT, ports=(port(80, node_port=30080),))
    told.world.addresses.other_addresses = set(addresses("198.51.100.1", "198.51.100.2"))
    told.running(on_nodes, endpoint_slice("10.244.0.1", "10.244.0.2"))
    told.world.put(ONE)
    (changed, *_) = told.lines("service changed")
    assert changed["now_draining"] == ["10.244.0.2:8080"]
    assert told.rounds[0].numbers.draining == 3


def test_a_service_that_comes_and_goes_is_told_with_its_virtual_servers(told: Told) -> None:
    told.running()
    told.world.put(PLAIN, ONE)
    told.world.store.remove_service(WEB)
    told.world.settle()
    came, *_, went = told.lines("service changed")
    assert came["virtual_servers_added"] == ["10.96.0.1:80/tcp"]
    assert went == {"service": "default/web", "virtual_servers_removed": ["10.96.0.1:80/tcp"]}


def added(told: Told, name: ObjectKey) -> list[str]:
    """Return the virtual servers that the log says were added to a Service, and forget its lines."""
    lines = told.lines("service changed")
    told.world.events.entries.clear()
    return [
        each
        for line in lines
        if line["service"] == str(name)
        for each in line.get("virtual_servers_added", [])
    ]


def test_what_another_service_has_is_added_only_when_it_comes(told: Told) -> None:
    told.running(PLAIN, ONE)
    other = ObjectKey("default", "zzz")
    told.world.put(
        service("10.96.0.1", "10.96.0.9", of=other), endpoint_slice("10.244.0.9", of=other, name="z")
    )
    assert added(told, other) == ["10.96.0.9:80/tcp"]
    told.world.store.remove_service(WEB)
    told.world.settle()
    assert added(told, other) == ["10.96.0.1:80/tcp"]


@pytest.mark.parametrize("known", [False, True])
def test_what_somebody_else_has_is_added_only_when_he_gives_it_up(told: Told, *, known: bool) -> None:
    foreign = virtual_server(ADDRESS)
    if known:
        told.world.ipvs.apply([IpvsOperation(Command.NEW_SERVICE, foreign)])
    told.running()
    if not known:
        told.world.ipvs.apply([IpvsOperation(Command.NEW_SERVICE, foreign)])
    told.world.put(PLAIN, ONE)
    assert told.lines("part of a service rejected")
    assert told.lines("service changed") == []
    told.world.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, foreign)])
    told.world.advance(31.0)
    assert added(told, WEB) == ["10.96.0.1:80/tcp"]


def test_a_long_list_says_how_many_more_there_are(told: Told) -> None:
    told.running(PLAIN, endpoint_slice())
    told.world.put(endpoint_slice(*(f"10.244.0.{number}" for number in range(1, MAXIMUM_PHRASES + 8))))
    (line,) = told.lines("service changed")
    assert len(line["began_to_serve"]) == MAXIMUM_PHRASES + 1
    assert line["began_to_serve"][-1] == "and 7 more"


def test_many_services_that_change_at_once_are_a_line_each_up_to_a_limit(told: Told) -> None:
    told.running()
    names = [ObjectKey("default", f"other-{number}") for number in range(MAXIMUM_LINES + 3)]
    for number, name in enumerate(names):
        told.world.store.put_service(service(f"10.98.0.{number}", of=name))
    told.world.settle()
    assert len(told.lines("service changed")) == MAXIMUM_LINES
    assert told.lines("more services changed") == [{"services": 3}]


def test_what_failed_is_counted_and_waits(told: Told) -> None:
    told.running(PLAIN, ONE)
    told.world.ipvs.refuse(ADDRESS, errno.ENOMEM)
    told.world.put(endpoint_slice("10.244.0.1", "10.244.0.2"))
    assert told.lines("synced")[0]["failed"] == 1
    assert dict(told.rounds[0].refused) == {"real servers added": 1}
    assert told.rounds[0].numbers.waiting == {"virtual server": 1}
    told.world.advance(1.0)
    retried = told.last()
    assert (retried.occasion, retried.done["real servers added"]) == (Occasion.RETRY, 1)
    assert retried.numbers.waiting == {"virtual server": 0}


def test_what_others_changed_is_told_as_the_work_of_a_resync(told: Told) -> None:
    told.running(PLAIN, ONE)
    told.world.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, told.world.ipvs.state()[ADDRESS])])
    told.world.advance(31.0)
    (resync,) = [each for each in told.rounds if each.occasion is Occasion.RESYNC]
    assert dict(resync.done) == {"virtual servers created": 1, "real servers added": 1}
    assert told.lines("service changed") == []


def test_triggers_are_told_once_with_the_change_that_they_caused(told: Told) -> None:
    told.running(PLAIN, ONE)
    moment = 4e9  # later than any test begins
    told.world.put(endpoint_slice("10.244.0.2")._replace(triggered=moment))
    told.world.put(endpoint_slice("10.244.0.3"))
    assert [each.triggered for each in told.rounds if each.occasion is Occasion.CHANGES] == [[moment], []]


def test_a_change_that_the_kernel_refuses_is_not_said_to_have_reached_it(told: Told) -> None:
    told.running(PLAIN, ONE)
    told.world.ipvs.refuse(ADDRESS, errno.ENOMEM)
    told.world.put(endpoint_slice("10.244.0.2")._replace(triggered=4e9))
    assert told.rounds[0].triggered == []


def test_a_change_with_nothing_in_it_for_the_kernel_is_a_round_without_a_line(told: Told) -> None:
    told.running(PLAIN, ONE)
    told.world.put(endpoint_slice(endpoint("10.244.0.1", for_zones=("zone-b",))))
    assert told.lines("synced") == told.lines("service changed") == []
    assert (told.last().occasion, dict(told.last().done)) == (Occasion.CHANGES, {})


def test_services_without_endpoints_on_this_node_are_counted_by_policy(told: Told) -> None:
    there = endpoint_slice(endpoint("10.244.0.1", node="node-b"))
    local = service(
        "10.96.0.1",
        kind=ServiceType.NODE_PORT,
        ports=(port(80, "", Protocol.TCP, node_port=30080), port(81, "other", node_port=30081)),
        internal=TrafficPolicy.LOCAL,
        external=TrafficPolicy.LOCAL,
    )
    told.world.addresses.other_addresses = set(addresses("198.51.100.1", "198.51.100.2"))
    told.running(local, there)
    told.world.put(node(zone="zone-a"), endpoint_slice(endpoint("10.244.0.9", node="node-c")))
    assert told.last().numbers.without_local_endpoints == {"internal": 1, "external": 1}
    told.world.put(endpoint_slice(endpoint("10.244.0.1", node=NODE)))
    assert told.last().numbers.without_local_endpoints == {"internal": 0, "external": 0}


def test_parts_that_a_service_does_not_get_are_counted(told: Told) -> None:
    told.running(PLAIN, ONE)
    other = ObjectKey("default", "zzz")
    told.world.put(service("10.96.0.1", of=other))
    assert told.last().numbers.refused == 1
    told.world.store.remove_service(other)
    told.world.settle()
    assert told.last().numbers.refused == 0
