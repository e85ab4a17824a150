"""Schedulers that find the endpoint by a hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from netns_tests import tables
from netns_tests.cluster import Cluster
from netns_tests.traffic import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

PODS = ("web-1", "web-2", "web-3", "web-4")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Build a cluster whose agent still has the scheduler rr."""
    with Cluster.built(tmp_path_factory.mktemp("cluster")) as built:
        built.agent.start()
        yield built


def test_mh_of_the_configuration_spreads_the_connections_of_one_client_and_comes_in_place(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    cluster.agent.kill()
    cluster.agent.flags = ()
    cluster.agent.start()
    service = new_service(*PODS)
    target = service.target(family)
    (before,) = (each for each in tables.service_addresses(cluster.node) if each.address == target.address)

    cluster.agent.kill()
    cluster.agent.flags = ("--ipvs-scheduler=mh",)
    cluster.agent.start()
    assert before in tables.service_addresses(cluster.node)
    assert tables.virtual_servers(cluster.node)[target].settings.startswith("mh")
    assert len({request(cluster["client"], target).server for _ in range(40)}) > 1
