"""The agent's own health, as load balancers and the kubelet ask for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.observe.health import Health
from tests.observe.http_clients import get, http_server, loopback

if TYPE_CHECKING:
    from ipvsproxy.observe.http_connection import Response

TIMEOUT = 60.0
TOLERANCE = 30.0
NOON = 1_795_262_400.0  # 2026-11-21T12:00:00Z


class Agent:
    """An agent whose clocks and Node the test moves."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.eligible = True
        self.health = Health(
            TIMEOUT, TOLERANCE, lambda: self.eligible, lambda: 5000 + self.passed, lambda: NOON + self.passed
        )

    def ask(self, path: str) -> Response:
        found = self.health.answer(path)
        assert found
        return found


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.mark.parametrize("path", ["/healthz", "/livez"])
def test_an_agent_that_never_synced_is_not_healthy(agent: Agent, path: str) -> None:
    assert not agent.health.is_healthy()
    assert agent.ask(path).status == 503
    found = json.loads(agent.ask(path).body)
    assert found["lastUpdated"] == "0001-01-01T00:00:00Z"
    assert found["healthy"] is False
    assert "status" not in found


@pytest.mark.parametrize("path", ["/healthz", "/livez"])
def test_an_agent_is_healthy_until_its_last_success_is_too_long_ago(agent: Agent, path: str) -> None:
    agent.health.succeeded()
    for passed, status in ((0, 200), (TIMEOUT, 200), (TIMEOUT + 0.5, 503)):
        agent.passed = passed
        assert agent.ask(path).status == status
        assert agent.health.is_healthy() is (status == 200)


def test_a_success_makes_an_agent_healthy_again(agent: Agent) -> None:
    agent.health.succeeded()
    agent.passed = 10 * TIMEOUT
    agent.health.succeeded()
    assert agent.ask("/healthz").status == 200


def test_the_body_is_kube_proxys(agent: Agent) -> None:
    agent.health.succeeded()
    agent.passed = 20.25
    assert agent.ask("/healthz").body == (
        b'{"lastUpdated":"2026-11-21T12:00:20.25Z","currentTime":"2026-11-21T12:00:20.25Z","nodeEligible":true,'
        b'"healthy":true,"status":{"IPv4":{"lastUpdated":"2026-11-21T12:00:00Z","healthy":true},'
        b'"IPv6":{"lastUpdated":"2026-11-21T12:00:00Z","healthy":true}}}'
    )
    agent.passed = TIMEOUT + 1
    assert agent.ask("/livez").body == (
        b'{"lastUpdated":"2026-11-21T12:00:00Z","currentTime":"2026-11-21T12:01:01Z",'
        b'"healthy":false,"status":{"IPv4":{"lastUpdated":"2026-11-21T12:00:00Z","healthy":false},'
        b'"IPv6":{"lastUpdated":"2026-11-21T12:00:00Z","healthy":false}}}'
    )


def test_a_node_that_is_not_eligible_is_so_in_healthz_alone(agent: Agent) -> None:
    agent.health.succeeded()
    agent.eligible = False
    agent.passed = 10
    healthz, livez = (json.loads(agent.ask(path).body) for path in ("/healthz", "/livez"))
    assert (healthz["nodeEligible"], healthz["healthy"]) == (False, True)
    # It is no present for who goes by it.
    assert healthz["lastUpdated"] == "2026-11-21T12:00:00Z"
    assert "nodeEligible" not in livez
    assert livez["lastUpdated"] == livez["currentTime"]


def test_a_node_that_is_not_eligible_gets_no_new_clients_and_its_agent_lives(agent: Agent) -> None:
    agent.health.succeeded()
    agent.eligible = False
    assert [agent.ask(path).status for path in ("/healthz", "/livez")] == [503, 200]
    assert json.loads(agent.ask("/healthz").body)["nodeEligible"] is False
    assert agent.health.is_healthy()


def test_a_node_that_stays_after_all_gets_clients_again(agent: Agent) -> None:
    agent.health.succeeded()
    agent.eligible = False
    agent.ask("/healthz")
    agent.eligible = True
    assert agent.ask("/healthz").status == 200


def test_an_agent_is_ready_from_its_first_success_on_while_they_go_on(agent: Agent) -> None:
    assert agent.ask("/readyz") == (
        503,
        b"not ready: nothing has been compared with the kernel yet, the log says what is waited for\n",
        "text/plain; charset=utf-8",
        (),
    )
    agent.health.succeeded()
    agent.eligible = False
    assert agent.ask("/readyz")[:2] == (200, b"ready\n")
    agent.passed = TIMEOUT + 15
    assert agent.ask("/readyz")[:2] == (
        503,
        b"not ready: the last comparison with the kernel was 75 s ago, the log says why\n",
    )


def test_another_timeout_holds_at_once(agent: Agent) -> None:
    agent.health.succeeded()
    agent.passed = TIMEOUT + 1
    agent.health.expect(TIMEOUT + 2, TOLERANCE)
    assert agent.ask("/livez").status == 200


def test_what_can_not_be_programmed_for_long_makes_an_agent_not_ready_and_nothing_else(agent: Agent) -> None:
    agent.health.succeeded()
    agent.health.fails(5000.0)
    for passed, status in ((TOLERANCE, 200), (TOLERANCE + 1, 503)):
        agent.passed = passed
        assert agent.ask("/readyz").status == status
    assert [agent.ask(path).status for path in ("/healthz", "/livez")] == [200, 200]
    agent.health.expect(TIMEOUT, TOLERANCE + 1)
    assert agent.ask("/readyz").status == 200
    agent.passed += 1
    assert agent.ask("/readyz").status == 503
    agent.health.fails(None)
    assert agent.ask("/readyz").status == 200


def test_there_is_nothing_at_other_paths(agent: Agent) -> None:
    assert [agent.health.answer(path) for path in ("/", "/healthz/", "/metrics", "*")] == [None] * 4


def test_a_client_gets_it_over_http(agent: Agent) -> None:
    agent.health.succeeded()
    with http_server() as server:
        port = server.listen(loopback(), agent.health.answer).port
        found = get(port, "/healthz")
        assert found.status == 200
        assert json.loads(found.body)["nodeEligible"] is True
        assert found.headers["Content-Type"] == "application/json"
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        assert get(port, "/healthz?verbose", method="HEAD").status == 200
        assert get(port, "/readyz").body == b"ready\n"
        assert get(port, "/metrics").status == 404
