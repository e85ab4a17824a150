"""How the addresses of all nodes reach the store from the Kubernetes API."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests import builders
from tests.api_server_http import RefusedError, status
from tests.api_server_objects import node
from tests.source.following import BRISK, ObservedStore, following

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ipvsproxy.model.addresses import Address
    from tests.api_server import ApiServer
    from tests.api_server_http import Request
    from tests.source.following import Agent

OFTEN = dataclasses.replace(BRISK, node_addresses=0.01)
TABLE = b'{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},'
INTERNAL, EXTERNAL = "InternalIP", "ExternalIP"


@pytest.fixture(autouse=True)
def nodes(server: ApiServer) -> None:
    """Give each node an address of its own."""
    server.state.apply(node(builders.NODE, None, (INTERNAL, "192.0.2.1"), (EXTERNAL, "198.51.100.1")))
    server.state.apply(node("node-b", None, ("Hostname", "node-b"), (INTERNAL, "2001:db8::2")))


def wait_for_addresses(agent: Agent, *texts: str) -> None:
    agent.wait_for(lambda: agent.store.node_addresses == set(builders.addresses(*texts)))


def refuse_tables(server: ApiServer, code: int) -> None:
    def refuse(request: Request) -> None:
        if request.table:
            raise RefusedError(code, f"refused with {code}")

    server.intercept = refuse


def test_the_addresses_of_all_nodes_reach_the_store(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "2001:db8::2")
    assert server.asked_for_tables() == [{"resourceVersion": "0", "includeObject": "None", "limit": "500"}]


def test_they_are_listed_again_and_again(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path, OFTEN) as agent:
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "2001:db8::2")
        server.state.delete("Node", "", "node-b")
        server.state.apply(node("node-c", None, (INTERNAL, "192.0.2.3")))
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "192.0.2.3")


def test_a_table_tells_the_first_address_of_each_type_only(server: ApiServer, tmp_path: Path) -> None:
    server.state.apply(node("node-b", None, (INTERNAL, "192.0.2.2"), (INTERNAL, "2001:db8::2")))
    with following(server, tmp_path) as agent:
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "192.0.2.2")


def test_cells_that_hold_no_usable_address_are_passed_over(server: ApiServer, tmp_path: Path) -> None:
    server.state.apply(node("node-b", None, (INTERNAL, "not an address"), (EXTERNAL, "127.0.0.1")))
    server.state.apply(node("node-c", None, ("Hostname", "node-c")))
    with following(server, tmp_path) as agent:
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1")


@pytest.mark.parametrize("tables", [True, False])
def test_a_server_without_a_cache_sends_them_in_pages(
    server: ApiServer, tmp_path: Path, *, tables: bool
) -> None:
    server.watch_cache, server.tables = False, tables
    with following(server, tmp_path, dataclasses.replace(BRISK, page=1)) as agent:
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "2001:db8::2")
    first, second = server.asked_for_tables()
    assert "resourceVersion" in first
    assert second.keys() == {"includeObject", "limit", "continue"}


def test_a_server_without_tables_sends_the_nodes_themselves(server: ApiServer, tmp_path: Path) -> None:
    server.tables = False
    server.state.apply(node("node-b", None, (INTERNAL, "192.0.2.2"), (INTERNAL, "2001:db8::2")))
    broken = node("node-c")
    broken["spec"] = "nothing that can be read"
    server.state.apply(broken)
    with following(server, tmp_path) as agent:
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "192.0.2.2", "2001:db8::2")


def test_the_source_is_synced_while_they_can_not_be_listed(server: ApiServer, tmp_path: Path) -> None:
    refuse_tables(server, 403)
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        assert agent.store.node_addresses == frozenset()
        server.intercept = lambda _: None
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "2001:db8::2")


def test_a_failing_list_keeps_the_last_answer_and_is_reported_once(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path, OFTEN) as agent:
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "2001:db8::2")
        refuse_tables(server, 503)
        line = agent.witness.log_line("node addresses not listed")
        assert (line["level"], line["url"], line["reason"]) == ("warning", server.url, "refused with 503")
        asked = len(server.asked_for_tables())
        server.wait_for(lambda: len(server.asked_for_tables()) > asked + 2)
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "2001:db8::2")
        server.intercept = lambda _: None
        server.state.delete("Node", "", "node-b")
        agent.witness.log_line("node addresses listed again")
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1")
        assert len(agent.witness.log_lines("node addresses not listed")) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>the proxy is broken</html>", "malformed"),
        (status(200, "what is this?"), "Status"),
        (TABLE + b'"columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["node-b"]}]}', "has no column"),
        (TABLE + b'"columnDefinitions":[{"name":"Internal-IP"}]}', "without its rows"),
        (TABLE.replace(b"v1", b"v2") + b'"columnDefinitions":[{"name":"Internal-IP"}],"rows":[]}', "v2"),
        (b'{"kind":"NodeList","apiVersion":"v1","metadata":{}}', "without its items"),
        (b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}', "PodList"),
        (b'{"metadata":{},"items":[]}', "came for"),
    ],
)
def test_an_answer_of_another_shape_is_reported(
    server: ApiServer, tmp_path: Path, answer: bytes, reason: str
) -> None:
    server.table_answer = answer
    with following(server, tmp_path) as agent:
        line = agent.witness.log_line("node addresses not listed")
        assert reason in line["reason"]
        server.table_answer = None
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "2001:db8::2")


def test_rows_that_are_too_short_are_passed_over(server: ApiServer, tmp_path: Path) -> None:
    server.table_answer = (
        TABLE + b'"columnDefinitions":[{"name":"Name"},{"name":"Internal-IP"}],'
        b'"rows":[{"cells":["node-a"]},{"cells":["node-b",7]},{"cells":["node-c","192.0.2.3"]}]}'
    )
    with following(server, tmp_path) as agent:
        wait_for_addresses(agent, "192.0.2.3")


def test_an_unexpected_failure_is_shown_with_its_traceback_and_tried_again(
    server: ApiServer, tmp_path: Path
) -> None:
    class FailingStore(ObservedStore):
        broken = True

        def put_node_addresses(self, addresses: Iterable[Address]) -> None:
            if self.broken:
                self.broken = False
                raise RuntimeError("not foreseen")
            super().put_node_addresses(addresses)

    with following(server, tmp_path, make_store=FailingStore) as agent:
        line = agent.witness.log_line("node addresses failed unexpectedly")
        assert isinstance(line["exc_info"], RuntimeError)
        wait_for_addresses(agent, "192.0.2.1", "198.51.100.1", "2001:db8::2")
