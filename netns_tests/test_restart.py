"""What the agent's end, its absence and its return do to the traffic: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import Family
from netns_tests import tables
from netns_tests.deadline import await_that
from netns_tests.load import Load, Style
from netns_tests.tables import Notices, Tables
from netns_tests.traffic import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from netns_tests.cluster import Cluster, ServiceUnderTest
    from netns_tests.traffic import Target

    NewService = Callable[..., ServiceUnderTest]


def test_a_kill_and_a_restart_under_load_fail_no_request_and_touch_no_table(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1", "web-2", "web-3")
    busy, steady = service.target(Family.IPV4), service.target(Family.IPV6)
    with (
        Load(cluster["client"], busy, Style.EACH_ITS_OWN) as each_its_own,
        Load(cluster["client"], steady, Style.KEPT_ALIVE) as kept_alive,
        Load(cluster["outside"], steady, Style.KEPT_ALIVE) as from_outside,
        Notices(cluster.node) as notices,
    ):
        loads = each_its_own, kept_alive, from_outside
        go_on(loads)
        await_that(
            lambda: accepted(cluster, steady) == 6, "the kernel has counted the connections kept alive"
        )
        before, accepted_before = Tables.of(cluster.node), accepted(cluster, busy)
        notices.forget()
        cluster.agent.kill()
        go_on(loads)
        cluster.agent.start()
        go_on(loads)
        assert (notices.of_addresses(), notices.of_nftables()) == (0, 0)
        assert Tables.of(cluster.node) == before
        assert accepted(cluster, steady) == 6
        assert accepted(cluster, busy) >= accepted_before
    assert [load.failures for load in loads] == [[], [], []]


def test_a_stopped_agent_leaves_everything_as_it_is_and_exits_with_0(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1", "web-2")
    before = Tables.of(cluster.node)
    assert cluster.agent.terminate() == 0
    assert Tables.of(cluster.node) == before
    for family in Family:
        assert request(cluster["outside"], service.target(family)).server in {"web-1", "web-2"}


def test_what_changed_during_its_absence_is_made_up_for_and_the_rest_is_not_touched(
    cluster: Cluster, new_service: NewService
) -> None:
    same, changed = new_service("web-1"), new_service("web-1", "web-2")
    added, removed = new_service(), cluster.new_service("web-1")
    added.remove()
    addresses_before = tables.service_addresses(cluster.node)
    cluster.agent.kill()
    changed.write_pods("web-2", "web-4")
    added.write_pods("web-3")
    removed.withdraw()
    cluster.agent.start()
    changed.await_pods("web-2", "web-4")
    added.await_pods("web-3")
    removed.await_gone()
    same.await_pods("web-1")
    left_alone = {*same.addresses.values(), *changed.addresses.values()}
    assert {each for each in addresses_before if each.address in left_alone} <= tables.service_addresses(
        cluster.node
    )


def test_a_second_agent_on_the_node_says_so_and_exits_with_1(cluster: Cluster) -> None:
    before = Tables.of(cluster.node)
    second = cluster.agent.run_a_second_one()
    assert second.returncode == 1
    assert "another agent runs on this node already" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert Tables.of(cluster.node) == before


def test_manifests_that_go_away_and_come_back_change_nothing(
    cluster: Cluster, new_service: NewService, tmp_path: Path
) -> None:
    service = new_service("web-1", "web-2")
    before = Tables.of(cluster.node)
    directory, elsewhere = cluster.agent.manifests.path, tmp_path / "elsewhere"
    directory.rename(elsewhere)
    try:
        cluster.agent.await_event("manifest directory is away, its objects stay")
        assert Tables.of(cluster.node) == before
        assert request(cluster["client"], service.target(Family.IPV4)).server in {"web-1", "web-2"}
    finally:
        elsewhere.rename(directory)
    cluster.agent.await_event("manifest directory is back")
    assert Tables.of(cluster.node) == before
    service.set_endpoints("web-3")


def go_on(loads: Iterable[Load]) -> None:
    for load in loads:
        load.go_on(30)


def accepted(cluster: Cluster, target: Target) -> int:
    """Return how many connections a virtual server has had since it was made, as far as the kernel has counted."""
    return tables.accepted_connections(cluster.node)[target]
