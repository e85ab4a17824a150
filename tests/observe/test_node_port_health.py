"""Health check node ports, as a load balancer asks them."""

from __future__ import annotations

import contextlib
import http.client
import threading
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.addresses import parse_address
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.node_port_health import FIELD, NodePortHealth
from ipvsproxy.plan.services import HealthCheck
from netns_tests.deadline import PATIENCE
from tests.observe.http_clients import (
    IPV6_LOOPBACK,
    LOOPBACK,
    OTHER_LOOPBACK,
    Events,
    ask,
    free_port,
    get,
    http_server,
    port_in_use,
    refuses,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

WEB = ObjectKey("shop", "web")
MAIL = ObjectKey("shop", "mail")


class World:
    """The health check node ports of an agent, and whether that is healthy."""

    def __init__(self) -> None:
        self.healthy = True
        self.events = Events()
        self._stack = contextlib.ExitStack()
        server = self._stack.enter_context(http_server(self.events))
        self.rejected: list[Rejection] = []
        self.checks = NodePortHealth(
            server, lambda: self.healthy, self.events.log, on_rejection=self.rejected.append
        )
        self.close = self._stack.close


@pytest.fixture
def silent_world() -> Iterator[World]:
    """Provide a world in which nothing is listened on."""
    world = World()
    yield world
    world.close()


@pytest.fixture
def world(silent_world: World) -> World:
    """Provide a world with two addresses."""
    silent_world.checks.listen_on([LOOPBACK, IPV6_LOOPBACK])
    return silent_world


@pytest.fixture
def port() -> int:
    return free_port()


@contextlib.contextmanager
def load_balancer(port: int) -> Iterator[http.client.HTTPConnection]:
    """Provide a connection that has been used, and is kept."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        ask(connection)
        yield connection


def test_a_node_with_endpoints_says_how_many(world: World, port: int) -> None:
    world.checks.update(WEB, HealthCheck(port, 3))
    found = get(port)
    assert found.status == 200
    assert found.body == (
        b'{"service":{"namespace":"shop","name":"web"},"localEndpoints":3,"serviceProxyHealthy":true}'
    )
    assert found.headers["X-Load-Balancing-Endpoint-Weight"] == "3"
    assert found.headers["Content-Type"] == "application/json"
    assert found.headers["X-Content-Type-Options"] == "nosniff"


def test_a_node_without_endpoints_is_unavailable(world: World, port: int) -> None:
    world.checks.update(WEB, HealthCheck(port, 0))
    found = get(port)
    assert found.status == 503
    assert found.body == (
        b'{"service":{"namespace":"shop","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}'
    )
    assert found.headers["X-Load-Balancing-Endpoint-Weight"] == "0"


def test_a_node_whose_agent_is_unhealthy_is_unavailable(world: World, port: int) -> None:
    world.checks.update(WEB, HealthCheck(port, 3))
    world.healthy = False
    found = get(port)
    assert found.status == 503
    assert found.body == (
        b'{"service":{"namespace":"shop","name":"web"},"localEndpoints":3,"serviceProxyHealthy":false}'
    )


@pytest.mark.parametrize("path", ["/", "/healthz", "/any/path?at=all"])
def test_any_path_is_answered(world: World, port: int, path: str) -> None:
    world.checks.update(WEB, HealthCheck(port, 1))
    assert get(port, path).status == 200


def test_endpoints_that_come_and_go_show_on_a_connection_that_is_kept(world: World, port: int) -> None:
    world.checks.update(WEB, HealthCheck(port, 1))
    with load_balancer(port) as connection:
        connected = connection.sock
        for count, status in ((0, 503), (2, 200), (0, 503)):
            world.checks.update(WEB, HealthCheck(port, count))
            assert ask(connection).status == status
        assert connection.sock is connected


def test_a_service_that_goes_takes_its_port_along_and_nobody_else_s(world: World, port: int) -> None:
    other = free_port()
    world.checks.update(WEB, HealthCheck(port, 1))
    world.checks.update(MAIL, HealthCheck(other, 1))
    with load_balancer(port) as lost, load_balancer(other) as kept:
        connected = kept.sock
        world.checks.update(WEB, None)
        assert refuses(port)
        assert refuses(port, "::1")
        assert lost.sock.recv(1) == b""
        assert ask(kept).status == 200
        assert kept.sock is connected


def test_a_service_may_change_its_port(world: World, port: int) -> None:
    other = free_port()
    world.checks.update(WEB, HealthCheck(port, 1))
    world.checks.update(WEB, HealthCheck(other, 1))
    assert refuses(port)
    assert get(other).status == 200


def test_a_port_may_go_from_one_service_to_another(world: World, port: int) -> None:
    world.checks.update(WEB, HealthCheck(port, 1))
    world.checks.update(WEB, None)
    world.checks.update(MAIL, HealthCheck(port, 1))
    assert b'"mail"' in get(port).body


def test_a_service_that_is_unknown_may_go(world: World) -> None:
    world.checks.update(WEB, None)
    assert world.checks.rejections() == []


@pytest.mark.parametrize("order", [(WEB, MAIL), (MAIL, WEB)])
def test_of_two_services_with_one_port_the_older_has_it_until_it_leaves(
    world: World, port: int, order: tuple[ObjectKey, ObjectKey]
) -> None:
    checks = {WEB: HealthCheck(port, 1, created=1), MAIL: HealthCheck(port, 2, created=2, uid="4711")}
    for service in order:
        world.checks.update(service, checks[service])
    assert b'"web"' in get(port).body
    rejection = Rejection(
        "Service", MAIL, FIELD, f"{port} is the health check node port of shop/web already", "4711"
    )
    assert world.checks.rejections() == [rejection]
    assert world.rejected[-1] == rejection
    with load_balancer(port) as connection:
        world.checks.update(WEB, None)
        found = ask(connection)
    assert b'"mail"' in found.body
    assert found.headers["X-Load-Balancing-Endpoint-Weight"] == "2"
    assert world.checks.rejections() == []
    assert world.events.names[-1] == "health check served after all"


def test_a_service_that_leaves_a_conflict_by_another_port_is_served(world: World, port: int) -> None:
    other = free_port()
    world.checks.update(WEB, HealthCheck(port, 1))
    world.checks.update(MAIL, HealthCheck(port, 1))
    world.checks.update(MAIL, HealthCheck(other, 1))
    assert get(other).status == 200
    assert world.checks.rejections() == []
    assert world.events.names == ["health check not served", "health check served after all"]


def test_a_port_that_another_program_has_is_a_reason_until_it_is_free(world: World) -> None:
    with port_in_use() as port:
        world.checks.update(WEB, HealthCheck(port, 1))
        world.checks.retry()
        world.checks.update(WEB, HealthCheck(port, 2))
        assert world.checks.rejections() == [
            Rejection("Service", WEB, FIELD, f"can't listen on 127.0.0.1:{port} (Address already in use)")
        ]
        assert get(port, host="::1").status == 200
    world.checks.retry()
    assert get(port).status == 200
    assert world.checks.rejections() == []
    assert [dict(entry) for entry in world.events.capture.entries] == [
        {
            "event": "health check not served",
            "log_level": "warning",
            "service": "shop/web",
            "port": port,
            "reason": f"can't listen on 127.0.0.1:{port} (Address already in use)",
        },
        {"event": "health check served after all", "log_level": "info", "service": "shop/web", "port": port},
    ]


def test_a_rejected_service_that_goes_is_forgotten(world: World) -> None:
    with port_in_use() as port:
        world.checks.update(WEB, HealthCheck(port, 1))
        world.checks.update(WEB, None)
    assert world.checks.rejections() == []
    assert world.events.names == ["health check not served"]


def test_an_address_that_the_node_has_not_got_is_a_reason(world: World, port: int) -> None:
    missing = [parse_address("198.51.100.1"), parse_address("198.51.100.2")]
    world.checks.update(WEB, HealthCheck(port, 1))
    world.checks.listen_on([LOOPBACK, *missing])
    assert get(port).status == 200
    [rejection] = world.checks.rejections()
    assert rejection.reason == (
        f"can't listen on 198.51.100.1:{port} (Cannot assign requested address), nor on 1 more"
    )


def test_nothing_is_listened_on_before_the_addresses_are_known(silent_world: World, port: int) -> None:
    silent_world.checks.update(WEB, HealthCheck(port, 1))
    assert refuses(port)
    assert silent_world.checks.rejections() == []
    silent_world.checks.listen_on([LOOPBACK])
    assert get(port).status == 200


def test_all_addresses_are_those_of_both_families(silent_world: World, port: int) -> None:
    silent_world.checks.listen_on(None)
    silent_world.checks.update(WEB, HealthCheck(port, 1))
    for host in ("127.0.0.1", "127.0.0.2", "::1"):
        assert get(port, host=host).status == 200


def test_all_addresses_include_one_that_another_program_has(silent_world: World) -> None:
    silent_world.checks.listen_on(None)
    with port_in_use() as port:
        silent_world.checks.update(WEB, HealthCheck(port, 1))
        [rejection] = silent_world.checks.rejections()
    assert rejection.reason == f"can't listen on port {port} (Address already in use)"


def test_addresses_that_come_and_go_are_followed_and_those_that_stay_undisturbed(
    world: World, port: int
) -> None:
    world.checks.update(WEB, HealthCheck(port, 1))
    with load_balancer(port) as connection:
        connected = connection.sock
        world.checks.listen_on([LOOPBACK, OTHER_LOOPBACK])
        assert refuses(port, "::1")
        assert get(port, host="127.0.0.2").status == 200
        assert ask(connection).status == 200
        assert connection.sock is connected


def test_one_address_and_all_of_them_take_turns(world: World, port: int) -> None:
    world.checks.update(WEB, HealthCheck(port, 1))
    for _ in range(10):
        world.checks.listen_on(None)
        assert get(port, host="127.0.0.2").status == 200
        world.checks.listen_on([LOOPBACK])
        assert get(port).status == 200
        assert refuses(port, "127.0.0.2")
    assert world.events.names == []


def test_updates_and_questions_may_come_from_many_threads(world: World, port: int) -> None:
    world.checks.update(WEB, HealthCheck(port, 1))
    failures: list[BaseException] = []
    stop = threading.Event()

    def churn(service: ObjectKey, own: int) -> None:
        try:
            while not stop.is_set():
                world.checks.update(service, HealthCheck(own, 1))
                world.checks.retry()
                world.checks.update(service, None)
        except BaseException as failure:  # noqa: BLE001 - asserted on below
            failures.append(failure)

    threads = [
        threading.Thread(target=churn, args=(ObjectKey("churn", str(own)), own))
        for own in (free_port(), free_port())
    ]
    for thread in threads:
        thread.start()
    with load_balancer(port) as connection:
        answers = {ask(connection).status for _ in range(20)}
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert (answers, failures) == ({200}, [])
