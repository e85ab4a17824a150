"""Service addresses that others delete, as networkd and NetworkManager do: they are back at once, and IPVS serves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.observe.agent_socket import ask_report
from netns_tests import tables
from netns_tests.cluster import Cluster
from netns_tests.deadline import await_that
from netns_tests.tables import INTERFACE
from netns_tests.traffic import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

REPAIRED = "repaired what others changed"
FIGHT = "service addresses are deleted again and again"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Build a cluster whose resync is out of the question as the one that repairs."""
    with Cluster.built(tmp_path_factory.mktemp("cluster"), sync_period="1h") as built:
        built.agent.start()
        yield built


@pytest.fixture
def services(cluster: Cluster, new_service: NewService) -> Iterator[list[ServiceUnderTest]]:
    """Return two Services, in a cluster where nobody has fought."""
    yield [new_service("web-1"), new_service("web-3")]
    cluster.agent.kill()
    cluster.agent.start()


def ip(cluster: Cluster, command: str) -> None:
    cluster.node.namespace.run("ip", *command.split())


def await_served(cluster: Cluster, services: list[ServiceUnderTest]) -> None:
    """Wait until all addresses are back, and see that clients are answered there."""
    addresses = {address for service in services for address in service.addresses.values()}
    await_that(
        lambda: addresses <= {each.address for each in tables.service_addresses(cluster.node)},
        f"the node has {addresses} again",
    )
    for service, server in zip(services, ("web-1", "web-3"), strict=True):
        for family in service.addresses:
            for client in ("client", "outside", "node-a"):
                assert request(cluster[client], service.target(family)).server == server


def test_an_address_that_is_deleted_is_back_at_once(
    cluster: Cluster, services: list[ServiceUnderTest], family: Family
) -> None:
    deleted = services[0].addresses[family]
    others = {each for each in tables.service_addresses(cluster.node) if each.address != deleted}
    ip(cluster, f"address delete {deleted} dev {INTERFACE}")
    await_served(cluster, services)
    # The others were not touched: they are as old as they were.
    assert others < tables.service_addresses(cluster.node)
    (line,) = cluster.agent.logged(REPAIRED)
    assert line["addresses_added"] == 1


@pytest.mark.parametrize(
    "command",
    [
        f"address flush dev {INTERFACE}",
        f"-4 address flush dev {INTERFACE}",
        f"-6 address flush dev {INTERFACE}",
        f"link delete {INTERFACE}",
        f"link set {INTERFACE} name taken",
    ],
)
def test_all_addresses_are_back_at_once_whichever_way_they_went(
    cluster: Cluster, services: list[ServiceUnderTest], command: str
) -> None:
    ip(cluster, command)
    if command.endswith("taken"):
        ip(cluster, "link delete taken")
    await_served(cluster, services)


def test_ipv6_addresses_are_back_after_the_interface_went_up_and_down(
    cluster: Cluster, services: list[ServiceUnderTest]
) -> None:
    ip(cluster, f"link set {INTERFACE} up")
    ip(cluster, f"link set {INTERFACE} down")
    await_served(cluster, services)


def test_what_the_agent_does_itself_is_no_repair(
    cluster: Cluster, services: list[ServiceUnderTest], new_service: NewService
) -> None:
    for _ in range(3):
        new_service("web-2").remove()
    ask_report(cluster.agent.run_directory)
    assert cluster.agent.logged(REPAIRED) == []
    await_served(cluster, services)


def test_somebody_who_fights_does_not_keep_the_agent_busy(
    cluster: Cluster, services: list[ServiceUnderTest]
) -> None:
    service, other = services
    end = time.monotonic() + 8
    while time.monotonic() < end:
        ip(cluster, f"address flush dev {INTERFACE}")
    cluster.agent.await_event(FIGHT)
    assert len(cluster.agent.logged(FIGHT)) == 1
    assert len(cluster.agent.logged(REPAIRED)) < 12
    await_served(cluster, [service, other])
