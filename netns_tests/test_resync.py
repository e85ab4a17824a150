"""`ipvsproxy resync`: everything is compared with the kernel now, and not only after the sync period."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from netns_tests import others, tables
from netns_tests.cluster import Cluster
from netns_tests.traffic import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.model.addresses import Family
    from netns_tests.cluster import ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.built(tmp_path_factory.mktemp("cluster"), sync_period="1h") as built:
        built.agent.start()
        yield built


def test_what_somebody_deleted_is_back_when_the_command_ends(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-1").target(family)
    others.delete_virtual_server(cluster.node, target)
    cluster.node.namespace.run("nft", "delete", "table", *tables.TABLE.split())
    cluster.node.namespace.sysctl("net/ipv4/vs/conntrack", "0")
    ended = cluster.agent.ask("resync")
    assert ended.returncode == 0, ended.stderr
    assert "  kernel settings made again: 1\n" in ended.stdout
    assert "  virtual servers created: 1\n" in ended.stdout
    assert "  firewall tables installed: 1\n" in ended.stdout
    assert target in tables.virtual_servers(cluster.node)
    assert request(cluster["outside"], target).server == "web-1"
    again = cluster.agent.ask("resync")
    assert (again.returncode, again.stdout.count("\n")) == (0, 1)


def test_what_can_not_be_repaired_is_named_and_is_an_error(cluster: Cluster, new_service: NewService) -> None:
    setting = f"net/ipv6/conf/{tables.INTERFACE}/disable_ipv6"
    new_service("web-1")
    # It takes the IPv6 addresses along, and no new ones can be added.
    cluster.node.namespace.sysctl(setting, "1")
    ended = cluster.agent.ask("resync")
    cluster.node.namespace.sysctl(setting, "0")
    assert ended.returncode == 1
    assert "failing: " in ended.stdout
    assert "EACCES" in ended.stdout
    assert cluster.agent.ask("resync").returncode == 0


def test_without_an_agent_it_says_so(cluster: Cluster) -> None:
    cluster.agent.kill()
    ended = cluster.agent.ask("resync")
    cluster.agent.start()
    assert ended.returncode == 1
    assert "not running" in ended.stderr
