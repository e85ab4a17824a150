"""What the agent says of its own health and of the host's firewall: over HTTP, in its log and in `dump`."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.observe.agent_socket import ask_report
from netns_tests import manifests, tables
from netns_tests.bare_node import REPOSITORY, Node
from netns_tests.deadline import PATIENCE, await_that
from netns_tests.namespaces import Namespace
from netns_tests.program import PROGRAM, run_to_end
from tests import api_server_objects as objects
from tests.observe.http_clients import get, refuses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.api_server import ApiServer
    from tests.api_server_http import Request
    from tests.api_server_state import Object

PORT = 10256
NEVER = "0001-01-01T00:00:00Z"
POLICY_DROP = """
table inet filter {
    chain input {
        type filter hook input priority 10; policy drop;
        iif lo accept
    }
}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Namespace("node") as namespace:
        yield Node(namespace, tmp_path)


@pytest.fixture
def server(node: Node) -> Iterator[ApiServer]:
    with node.api_server() as server:
        yield server


def statuses(node: Node, port: int = PORT) -> tuple[int, int]:
    """Return what /healthz and /livez answer."""
    with node.namespace.entered():
        return get(port, "/healthz").status, get(port, "/livez").status


def listens(node: Node) -> bool:
    with node.namespace.entered():
        return not refuses(PORT)


def await_statuses(node: Node, healthz: int, livez: int) -> None:
    await_that(lambda: statuses(node) == (healthz, livez), f"/healthz answers {healthz} and /livez {livez}")


def body(node: Node) -> dict[str, Any]:
    with node.namespace.entered():
        found: dict[str, Any] = json.loads(get(PORT, "/healthz").body)
    return found


def going(**metadata: object) -> Object:
    found = objects.node("node-a")
    return found | {"metadata": found["metadata"] | metadata}


def tainted(key: str) -> Object:
    found = objects.node("node-a")
    return found | {"spec": found["spec"] | {"taints": [{"key": key, "effect": "NoSchedule"}]}}


def test_an_agent_is_unhealthy_until_it_has_its_objects_and_healthy_after(
    node: Node, server: ApiServer
) -> None:
    asked, answering = threading.Event(), threading.Event()

    def hold_back(_: Request) -> None:
        asked.set()
        answering.wait()

    server.intercept = hold_back
    with node.agent(*node.api_flags(server)) as agent:
        assert asked.wait(PATIENCE)
        await_that(lambda: listens(node), f"the agent listens on port {PORT}")
        assert statuses(node) == (503, 503)
        assert body(node)["lastUpdated"] == NEVER
        answering.set()
        await_statuses(node, 200, 200)
        assert body(node)["lastUpdated"] != NEVER
        assert body(node)["nodeEligible"] is True
        # The objects that are known are in the kernel, and stay there.
        server.go_away()
        agent.await_line("watch interrupted", resource="nodes")
        assert statuses(node) == (200, 200)
        with node.namespace.entered():
            assert get(PORT, "/metrics").status == 404


@pytest.mark.parametrize(
    "leaving",
    [going(deletionTimestamp="2026-11-21T12:00:00Z"), tainted("ToBeDeletedByClusterAutoscaler")],
    ids=["deletionTimestamp", "taint"],
)
def test_a_node_that_is_about_to_go_gets_no_new_clients_and_its_agent_lives(
    node: Node, server: ApiServer, leaving: Object
) -> None:
    with node.agent(*node.api_flags(server)) as agent:
        agent.await_line("first sync")
        assert statuses(node) == (200, 200)
        server.state.apply(leaving)
        await_statuses(node, 503, 200)
        assert body(node)["nodeEligible"] is False
        server.state.apply(tainted("example.com/other"))
        await_statuses(node, 200, 200)


def test_a_node_that_the_api_server_has_not_gets_no_clients_and_its_agent_lives(
    node: Node, server: ApiServer
) -> None:
    with node.agent(*node.api_flags(server), "--hostname-override=node-x") as agent:
        agent.await_line("first sync")
        assert statuses(node) == (503, 200)
        found = body(node)
        assert (found["nodeEligible"], found["healthy"]) == (False, True)
        assert found["status"].keys() == {"IPv4", "IPv6"}
        assert not is_node_known(node)
        server.state.apply(objects.node("node-x"))
        await_statuses(node, 200, 200)
        assert is_node_known(node)
        server.state.delete("Node", "", "node-x")
        await_statuses(node, 503, 200)
        assert not is_node_known(node)


def test_manifests_need_no_node(node: Node) -> None:
    with node.agent(node.manifests_flag, "--hostname-override=node-x") as agent:
        agent.await_line("first sync")
        assert statuses(node) == (200, 200)
        assert is_node_known(node)


def test_a_kernel_that_refuses_for_too_long_makes_unhealthy_until_it_takes_everything_again(
    node: Node,
) -> None:
    with node.agent(node.manifests_flag, "--sync-period=100ms") as agent:
        agent.await_line("first sync")
        assert statuses(node) == (200, 200)
        take_the_agents_interface(node)
        agent.await_line("resync failed")
        # A failed comparison is no reason yet: the last success is recent.
        assert statuses(node) == (200, 200)
        await_statuses(node, 503, 503)
        node.namespace.run("ip", "link", "delete", "kube-ipvs0")
        await_statuses(node, 200, 200)


def take_the_agents_interface(node: Node) -> None:
    """Put a bridge in the place of the agent's interface; the agent may come in between, and make it again."""

    def took() -> bool:
        batch = "link delete kube-ipvs0\nlink add kube-ipvs0 type bridge\n"
        with contextlib.suppress(subprocess.CalledProcessError):
            node.namespace.run("ip", "-batch", "-", stdin=batch)
            return True
        return False

    await_that(took, "the agent's interface is taken")


def test_an_agent_is_not_ready_while_a_part_of_what_should_be_there_can_not_be_programmed(node: Node) -> None:
    def is_ready() -> bool:
        with node.namespace.entered():
            return get(PORT, "/readyz").status == HTTPStatus.OK

    web = manifests.service("web", ["10.96.0.1", "fd00:10:96::1"], [manifests.Port("http", 80, 8080)])
    node.manifests.write("web", [web])
    setting = f"net/ipv6/conf/{tables.INTERFACE}/disable_ipv6"
    with node.agent(node.manifests_flag, "--sync-period=1s") as agent:
        agent.await_line("first sync")
        assert is_ready()
        # It takes the IPv6 addresses along, and no new ones can be added.
        node.namespace.sysctl(setting, "1")
        await_that(lambda: not is_ready(), "the agent is not ready")
        assert statuses(node) == (200, 200)
        with node.namespace.entered():
            checked = run_to_end([*PROGRAM, "check", node.manifests_flag, node.run_directory_flag])
        assert checked.returncode == 1
        assert checked.stdout.startswith("error    ipv6 ")
        node.namespace.sysctl(setting, "0")
        await_that(is_ready, "the agent is ready again")


def test_none_listens_nowhere(node: Node) -> None:
    with node.agent(node.manifests_flag, "--healthz-bind-address=none") as agent:
        agent.await_line("first sync")
        with node.namespace.entered():
            assert refuses(PORT)


def test_an_address_and_port_are_listened_on_and_no_others(node: Node) -> None:
    with node.agent(node.manifests_flag, "--healthz-bind-address=127.0.0.1:9000") as agent:
        agent.await_line("first sync")
        assert statuses(node, 9000) == (200, 200)
        with node.namespace.entered():
            assert refuses(PORT)
            assert refuses(9000, "127.0.0.2")


def test_a_port_that_another_program_has_is_named_once_and_taken_when_it_is_free(node: Node) -> None:
    with node.namespace.entered():
        other = socket.create_server(("127.0.0.1", PORT))
    with node.agent(node.manifests_flag, "--sync-period=100ms") as agent:
        line = agent.await_line("HTTP server not listening")
        assert (line["setting"], line["address"], line["reason"]) == (
            "healthzBindAddress",
            f"0.0.0.0:{PORT}",
            "Address already in use",
        )
        agent.await_line("first sync")
        other.close()
        agent.await_line("HTTP server listening after all")
        assert statuses(node) == (200, 200)
        assert len([each for each in agent.log() if each["event"] == "HTTP server not listening"]) == 1


def test_a_host_firewall_that_drops_is_said_in_the_log_and_in_dump_until_it_goes(node: Node) -> None:
    with node.agent(node.manifests_flag, "--sync-period=100ms") as agent:
        agent.await_line("first sync")
        assert warnings(node) == []
        node.namespace.run("nft", "-f", "-", stdin=POLICY_DROP)
        line = agent.await_line("host firewall drops")
        assert (
            line["level"],
            line["family"],
            line["table"],
            line["chain"],
            line["priority"],
            line["why"],
        ) == (
            "warning",
            "inet",
            "filter",
            "input",
            10,
            "policy drop",
        )
        table = dump(node)
        assert "WARNING\n" in table
        assert line["meaning"] in table
        assert warnings(node) == [line["meaning"]]
        node.namespace.run("nft", "delete", "table", "inet", "filter")
        await_that(lambda: warnings(node) == [], "the agent warns of nothing any more")
        assert len([each for each in agent.log() if each["event"] == line["event"]]) == 1


def is_node_known(node: Node) -> bool:
    """Return what `check` and `dump` go by."""
    return ask_report(node.run_directory).agent.node_known


def warnings(node: Node) -> list[str]:
    return ask_report(node.run_directory).host_firewall.warnings


def dump(node: Node) -> str:
    with node.namespace.entered():
        return subprocess.run(
            [*PROGRAM, "dump", node.run_directory_flag],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
        ).stdout
