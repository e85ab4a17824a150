"""`ipvsproxy top` beside traffic that is known: who has it, how much it is; and what it says if something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.addresses import Family
from netns_tests import others
from netns_tests.load import Load, Style
from netns_tests.program import run_to_end
from netns_tests.servers import HTTP_PORT
from netns_tests.tables import Tables
from netns_tests.traffic import Connection, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns_tests.cluster import Cluster, ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

REPOSITORY = Path(__file__).parents[1]
RUN_ESTIMATION = "net/ipv4/vs/run_estimation"


def snapshots(cluster: Cluster, *options: str) -> list[dict[str, Any]]:
    ended = cluster.agent.ask("top", "-o", "json", *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    return [json.loads(line) for line in ended.stdout.splitlines()]


def endpoint(cluster: Cluster, pod: str, family: Family) -> str:
    address = cluster[pod].addresses[family]
    return f"[{address}]:{HTTP_PORT}" if family is Family.IPV6 else f"{address}:{HTTP_PORT}"


def test_what_is_sent_shows_at_the_endpoints_that_have_it_and_nowhere_else(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service, idle = new_service("web-1", "web-2"), new_service("web-1", "web-3")
    with Load(cluster["client"], service.target(family), Style.EACH_ITS_OWN) as load:
        load.go_on(10)
        (snapshot,) = snapshots(cluster, "--by", "endpoint")
        load.go_on(1)
    busy = {endpoint(cluster, pod, family) for pod in ("web-1", "web-2")}
    rows = {(row["service"], row["endpoint"]): row for row in snapshot["rows"]}
    rates = {key: row["perSecond"] for key, row in rows.items()}
    assert {key for key, rate in rates.items() if any(rate.values())} == {
        (f"default/{service.name}", name) for name in busy
    }
    assert (f"default/{idle.name}", endpoint(cluster, "web-1", family)) in rates
    # Round robin: each of the two has half of it, but for those that began while the kernel counted.
    one, other = (rates[f"default/{service.name}", name] for name in busy)
    assert one["connections"] == pytest.approx(other["connections"], abs=4 / snapshot["intervalSeconds"])
    # A packet has 40 bytes or more.
    for rate in (one, other):
        assert rate["packetsIn"] >= rate["connections"]
        assert rate["bytesIn"] >= 40 * rate["packetsIn"]
        assert rate["bytesOut"] >= 40 * rate["packetsOut"]
    assert snapshot["total"]["perSecond"]["connections"] == pytest.approx(
        one["connections"] + other["connections"], abs=0.01
    )


def test_no_more_connections_are_counted_than_there_were(cluster: Cluster, new_service: NewService) -> None:
    service = new_service("web-1")
    with Load(cluster["client"], service.target(Family.IPV4), Style.EACH_ITS_OWN, clients=1) as load:
        load.go_on(5)
        before = load.answered
        shown = snapshots(cluster, "--service", service.name, "--count", "2")
        answered = load.answered - before
    counted = sum(each["total"]["perSecond"]["connections"] * each["intervalSeconds"] for each in shown)
    # One may have no answer yet.
    assert 0 < counted < answered + 1.5


def test_an_open_connection_is_active_and_its_endpoint_drains_with_the_time_that_is_left(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1")
    with Connection(cluster["client"], service.target(family)) as connection:
        connection.ask()
        service.set_endpoints("web-2")
        (by_endpoint,) = snapshots(
            cluster, "--service", service.name, "--endpoint", cluster["web-1"].addresses[family]
        )
    (leaver,) = by_endpoint["rows"]
    assert (leaver["endpoint"], leaver["drainingEndpoints"], leaver["activeConnections"]) == (
        endpoint(cluster, "web-1", family),
        1,
        1,
    )
    assert 0 < leaver["drainSecondsLeft"] <= 900


def test_a_table_has_the_same_in_words(cluster: Cluster, new_service: NewService) -> None:
    service = new_service("web-1")
    target = service.target(Family.IPV4)
    with Connection(cluster["client"], target) as connection:
        connection.ask()
        service.set_endpoints("web-2")
        table = cluster.agent.ask("top", "--service", service.name).stdout.splitlines()
    headers, row, total = table
    assert headers.split()[:5] == ["SERVICE", "ENDPOINTS", "ACTIVE", "INACTIVE", "NEW/S"]
    assert row.split()[:3] == [f"default/{service.name}", "2", "1"]
    assert "   1 draining, 14m" in row
    assert row.endswith("s left")
    assert total.split()[:3] == ["TOTAL", "2", "1"]


def test_a_virtual_server_that_is_made_again_never_has_negative_rates(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1")
    target = service.target(Family.IPV4)
    for _ in range(20):
        request(cluster["client"], target)
    others.delete_virtual_server(cluster.node, target)
    cluster.agent.kill()
    cluster.agent.start()
    (snapshot,) = snapshots(cluster, "--by", "endpoint")
    rates = [row["perSecond"] for row in (*snapshot["rows"], snapshot["total"])]
    assert all(number >= 0 for rate in rates for number in rate.values())


def test_without_the_agent_virtual_servers_are_shown_by_address_and_others_are_not(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1")
    cluster.agent.kill()
    theirs = cluster.reserve_service().target(Family.IPV4)
    others.add_virtual_server(cluster.node, theirs, "rr", [])
    ended = cluster.agent.ask("top")
    others.delete_virtual_server(cluster.node, theirs)
    assert ended.returncode == 0
    assert f"{service.target(Family.IPV4).address}:80/tcp" in ended.stdout
    assert theirs.address not in ended.stdout
    (line,) = ended.stderr.splitlines()
    assert line.startswith("ipvsproxy: the agent is not running, nobody listens on ")
    assert line.endswith("agent.sock: virtual servers by address, Services are not known")
    one_service = cluster.agent.ask("top", "--service", "web")
    assert (one_service.returncode, one_service.stdout) == (1, "")
    assert "--service default/web: only the agent knows Services" in one_service.stderr


def test_it_says_that_the_kernel_does_not_count(cluster: Cluster) -> None:
    namespace = cluster.node.namespace
    namespace.sysctl(RUN_ESTIMATION, "0")
    try:
        ended = cluster.agent.ask("top")
    finally:
        namespace.sysctl(RUN_ESTIMATION, "1")
    assert ended.returncode == 0
    assert ended.stderr == (
        "ipvsproxy: the kernel does not count packets and connections, net.ipv4.vs.run_estimation is 0: "
        "`sysctl net.ipv4.vs.run_estimation=1` has it count\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "--service nope",
            "--service default/nope: the agent knows no such Service that has virtual servers",
        ),
        ("--namespace nope", "--namespace nope: the agent knows no such Service that has virtual servers"),
        ("--endpoint 10.9.9.9", "--endpoint 10.9.9.9: no virtual server has such a real server"),
        ("--interval 1s", "--interval: 1s is less than 2s, and the kernel counts every 2 seconds only"),
    ],
)
def test_words_that_fit_nothing_are_one_line_and_exit_code_2(
    cluster: Cluster, words: str, sentence: str
) -> None:
    ended = cluster.agent.ask("top", *words.split())
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert sentence in ended.stderr


def test_without_the_permission_it_is_one_line_and_exit_code_77(cluster: Cluster) -> None:
    drop = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    ended = run_to_end([*drop, *cluster.agent.command("top")])
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (77, "", 1)
    assert "CAP_NET_ADMIN" in ended.stderr


def test_looking_changes_nothing(cluster: Cluster, new_service: NewService) -> None:
    new_service("web-1", "web-3")
    before = Tables.of(cluster.node)
    snapshots(cluster, "--by", "endpoint")
    assert Tables.of(cluster.node) == before
