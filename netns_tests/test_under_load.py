"""No request fails while endpoints come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from netns_tests import tables
from netns_tests.deadline import await_that
from netns_tests.load import Load, Style
from netns_tests.traffic import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import Cluster, ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

STYLES = pytest.mark.parametrize("style", list(Style), ids=lambda style: style.name)


@STYLES
def test_an_endpoint_leaves_without_a_failed_request(
    cluster: Cluster, new_service: NewService, family: Family, style: Style
) -> None:
    """A pod that ends is taken off the slice, goes on serving, and stops once its connections are done."""
    service = new_service("web-1", "web-2", "web-3")
    leaver = cluster["web-2"]
    with Load(cluster["client"], service.target(family), style) as load:
        load.go_on(60)
        service.set_endpoints("web-1", "web-3")
        load.go_on(60)
        cluster.servers.leave(leaver)
        await_that(lambda: cluster.servers.connections(leaver) == 0, "the connections to web-2 end")
        later = load.answers_from_now(60)
    cluster.servers.start(leaver)
    assert load.failures == []
    assert set(later) == {"web-1", "web-3"}


@STYLES
def test_scaling_up_and_down_fails_no_request(
    cluster: Cluster, new_service: NewService, family: Family, style: Style
) -> None:
    service = new_service("web-1")
    with Load(cluster["client"], service.target(family), style) as load:
        for number in (4, 2, 3, 1, 4):
            pods = [f"web-{each}" for each in range(1, number + 1)]
            service.set_endpoints(*pods)
            load.go_on(30)
    assert load.failures == []


def test_new_endpoints_take_their_share_of_new_connections(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1")
    with Load(cluster["client"], service.target(family), Style.EACH_ITS_OWN) as load:
        service.set_endpoints("web-1", "web-2", "web-3", "web-4")
        shares = load.answers_from_now(120)
    assert load.failures == []
    assert set(shares) == {"web-1", "web-2", "web-3", "web-4"}
    assert min(shares.values()) > max(shares.values()) / 2


def test_an_open_connection_outlives_its_endpoint_in_the_service(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1")
    with Connection(cluster["client"], service.target(family)) as connection:
        connection.ask()
        service.set_endpoints("web-2")
        assert [connection.ask().server for _ in range(3)] == ["web-1"] * 3


def test_an_endpoint_that_returns_while_it_drains_gets_its_weight_back_in_place(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1", "web-2")
    target = service.target(family)
    connections = [Connection(cluster["client"], target) for _ in range(2)]
    before = tables.virtual_servers(cluster.node)[target].real_servers
    service.set_endpoints("web-1")
    assert sorted(server.weight for server in tables.virtual_servers(cluster.node)[target].real_servers) == [
        0,
        1,
    ]
    service.set_endpoints("web-1", "web-2")
    after = tables.virtual_servers(cluster.node)[target].real_servers
    for connection in connections:
        connection.ask()
        connection.close()
    assert sorted(after) == sorted(before)
    assert [server.active_connections for server in after] == [1, 1]
