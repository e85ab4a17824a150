"""Counters by Service, from what the kernel counts for each virtual server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.ipvs import Statistics, Traffic
from ipvsproxy.model.objects import AddressKind, ObjectKey, Protocol, ServiceType
from ipvsproxy.observe.service_traffic import ServiceTraffic
from ipvsproxy.plan.services import PlannedVirtualServer
from ipvsproxy.plan.view import Planned
from tests.builders import WEB, key, port, service, virtual_server

if TYPE_CHECKING:
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import Service

MAIL = ObjectKey("default", "mail")
NEWS = ObjectKey("default", "news")
CLUSTER_IP, LOAD_BALANCER = key("10.96.0.1"), key("192.0.2.10")
NODE_PORT = key("203.0.113.1", 30080)
CONNECTIONS = "ipvsproxy_service_connections_total"


class Scene:
    """A kernel that counts, and what is desired."""

    def __init__(self, limit: int = 10) -> None:
        self.counted: dict[VirtualServerKey, Traffic] = {}
        self.owners: dict[VirtualServerKey, ObjectKey] = {}
        self.kinds: dict[VirtualServerKey, AddressKind] = {}
        self.services: dict[ObjectKey, Service] = {
            WEB: service("10.96.0.1", kind=ServiceType.NODE_PORT, ports=(port(80, "http", node_port=30080),))
        }
        self.broken = False
        self.traffic = ServiceTraffic(limit, self.read, self.planned, self.services.get)

    def read(self) -> dict[VirtualServerKey, Statistics]:
        if self.broken:
            raise OSError
        return {key: Statistics(total) for key, total in self.counted.items()}

    def planned(self) -> Planned:
        return Planned(
            dict(self.owners),
            {
                key: PlannedVirtualServer(
                    virtual_server(key), kind=self.kinds.get(key, AddressKind.CLUSTER_IP)
                )
                for key in self.owners
            },
        )

    def count(self, key: VirtualServerKey, connections: int, of: ObjectKey = WEB) -> None:
        self.owners[key] = of
        self.counted[key] = Traffic(connections)

    def connections(self) -> dict[tuple[str, ...], float]:
        return {labels: value for name, labels, value in self.traffic.samples() if name == CONNECTIONS}


def test_a_services_virtual_servers_are_counted_together_by_the_name_of_the_port() -> None:
    scene = Scene()
    scene.count(CLUSTER_IP, 3)
    scene.count(LOAD_BALANCER, 4)
    scene.count(NODE_PORT, 5)
    scene.kinds[NODE_PORT] = AddressKind.NODE_PORT
    assert scene.connections() == {("default", "web", "http"): 12}


def test_a_port_without_a_name_has_its_number_and_one_of_an_unknown_service_too() -> None:
    scene = Scene()
    scene.services[MAIL] = service("10.96.0.2", of=MAIL, ports=(port(25),))
    scene.count(key("10.96.0.2", 25), 1, MAIL)
    scene.count(key("10.96.0.3", 119, Protocol.TCP), 1, NEWS)
    assert scene.connections().keys() == {("default", "mail", "25"), ("default", "news", "119")}


def test_packets_and_bytes_have_a_direction() -> None:
    scene = Scene()
    scene.count(CLUSTER_IP, 0)
    scene.counted[CLUSTER_IP] = Traffic(1, 2, 3, 4, 5)
    web = ("default", "web", "http")
    assert list(scene.traffic.samples()) == [
        (CONNECTIONS, web, 1),
        ("ipvsproxy_service_packets_total", (*web, "in"), 2),
        ("ipvsproxy_service_packets_total", (*web, "out"), 3),
        ("ipvsproxy_service_bytes_total", (*web, "in"), 4),
        ("ipvsproxy_service_bytes_total", (*web, "out"), 5),
    ]


def test_only_what_came_on_top_is_added_with_each_look() -> None:
    scene = Scene()
    scene.count(CLUSTER_IP, 3)
    scene.connections()
    assert scene.connections() == {("default", "web", "http"): 3}
    scene.count(CLUSTER_IP, 5)
    assert scene.connections() == {("default", "web", "http"): 5}


def test_a_counter_stays_when_a_virtual_server_goes_and_goes_on_when_it_comes_back() -> None:
    scene = Scene()
    scene.count(CLUSTER_IP, 3)
    scene.count(LOAD_BALANCER, 10)
    assert list(scene.connections().values()) == [13]
    del scene.counted[LOAD_BALANCER], scene.owners[LOAD_BALANCER]
    assert list(scene.connections().values()) == [13]
    scene.count(LOAD_BALANCER, 2)
    assert list(scene.connections().values()) == [15]


def test_a_virtual_server_that_was_made_anew_between_two_looks_counts_from_zero() -> None:
    scene = Scene()
    scene.count(CLUSTER_IP, 9)
    scene.connections()
    scene.count(CLUSTER_IP, 4)
    assert list(scene.connections().values()) == [13]


def test_what_is_somebody_elses_is_not_counted() -> None:
    scene = Scene()
    scene.counted[key("192.0.2.99")] = Traffic(7)
    assert scene.connections() == {}


def test_beyond_the_limit_services_are_counted_together_and_those_with_the_most_have_their_own() -> None:
    scene = Scene(limit=1)
    scene.count(CLUSTER_IP, 3)
    scene.count(key("10.96.0.2"), 50, MAIL)
    scene.count(key("10.96.0.3"), 2, NEWS)
    assert scene.connections() == {("default", "mail", "80"): 50, ("", "", ""): 5}


def test_who_has_counters_of_its_own_keeps_them_while_it_exists() -> None:
    scene = Scene(limit=1)
    scene.count(CLUSTER_IP, 3)
    scene.connections()
    scene.count(key("10.96.0.2"), 50, MAIL)
    assert scene.connections() == {("default", "web", "http"): 3, ("", "", ""): 50}
    del scene.owners[CLUSTER_IP], scene.counted[CLUSTER_IP]
    scene.count(key("10.96.0.2"), 60, MAIL)
    # What was counted with the others stays there.
    assert scene.connections() == {("default", "mail", "80"): 10, ("", "", ""): 50}


def test_a_kernel_that_does_not_answer_leaves_the_counters_as_they_are() -> None:
    scene = Scene()
    scene.count(CLUSTER_IP, 3)
    scene.connections()
    scene.broken = True
    assert scene.connections() == {("default", "web", "http"): 3}
