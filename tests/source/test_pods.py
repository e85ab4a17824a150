"""One Pod, asked for by its name, of an API server over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.source.kubernetes.client import ApiServer as Client
from ipvsproxy.source.kubernetes.client import Limits
from ipvsproxy.source.kubernetes.pods import Pod, ask_for_pod
from netns_tests.deadline import PATIENCE
from tests import api_server_objects as objects
from tests.api_server import ApiServer
from tests.builders import addresses
from tests.source.malformed import DEEPEST, with_managed_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEB = ObjectKey("default", "web-1")


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


def ask(server: ApiServer, directory: Path) -> Pod:
    return ask_for_pod(Client(server.kubeconfig(directory / "kubeconfig"), Limits()), WEB, PATIENCE)


def pod(**status: object) -> dict[str, Any]:
    made = objects.pod(
        "web-1", "node-b", "10.244.2.10", "fd00:244::10", host_addresses=("192.0.2.2", "2001:db8::2")
    )
    made["status"] |= status
    return made


def test_a_pod_has_its_addresses_and_those_of_its_node(server: ApiServer, tmp_path: Path) -> None:
    server.state.apply(pod())
    assert ask(server, tmp_path) == Pod(
        WEB,
        addresses("10.244.2.10", "fd00:244::10"),
        "node-b",
        addresses("192.0.2.2", "2001:db8::2"),
        host_network=False,
    )
    assert [request.resource for request in server.requests] == ["pods"]


def test_a_pod_in_the_network_of_its_node_says_so(server: ApiServer, tmp_path: Path) -> None:
    made = pod()
    made["spec"]["hostNetwork"] = True
    server.state.apply(made)
    assert ask(server, tmp_path).host_network


@pytest.mark.parametrize(
    ("status", "phase"),
    [({"phase": "Pending", "podIPs": []}, "Pending"), ({"phase": "Succeeded"}, "Succeeded")],
)
def test_a_pod_that_sends_nothing_is_a_wrong_word(
    server: ApiServer, tmp_path: Path, status: dict[str, object], phase: str
) -> None:
    server.state.apply(pod(**status))
    with pytest.raises(UsageError, match=rf"^pod default/web-1: it sends nothing, its phase is {phase}$"):
        ask(server, tmp_path)


def test_a_pod_that_is_not_there_is_a_wrong_word(server: ApiServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^pod default/web-1: the API server knows no such Pod$"):
        ask(server, tmp_path)


def test_an_answer_that_is_no_pod_is_named(server: ApiServer, tmp_path: Path) -> None:
    server.state.apply(pod(podIPs=[{"ip": "here"}]))
    with pytest.raises(IpvsProxyError, match=r"is no Pod: 'here' is not an IP address$"):
        ask(server, tmp_path)


@pytest.mark.parametrize("more", [{"kind": "Status"}, {"apiVersion": "v2"}])
def test_an_answer_that_is_another_object_is_named(
    server: ApiServer, tmp_path: Path, more: dict[str, str]
) -> None:
    made = pod()
    server.state.apply(made)
    # Changed behind the server's back, which knows it as a Pod.
    made |= more
    with pytest.raises(IpvsProxyError, match="is no Pod: Invalid enum value"):
        ask(server, tmp_path)


def test_a_pod_may_be_nested_as_deeply_as_the_api_allows(server: ApiServer, tmp_path: Path) -> None:
    made = pod()
    server.state.apply(with_managed_fields(made, b"[" * DEEPEST + b"]" * DEEPEST))
    assert ask(server, tmp_path).node_name == "node-b"


def test_a_server_that_does_not_let_the_asker_see_pods_is_named(server: ApiServer, tmp_path: Path) -> None:
    server.forbidden.add("pods")
    with pytest.raises(
        IpvsProxyError, match=r"does not say: pods is forbidden: .*cannot get resource"
    ) as failed:
        ask(server, tmp_path)
    assert failed.value.exit_code == 1
    # What the chart calls the right.
    assert "readPods" in str(failed.value)


def test_a_server_out_of_reach_is_named(server: ApiServer, tmp_path: Path) -> None:
    server.go_away()
    with pytest.raises(
        IpvsProxyError, match=rf"^pod default/web-1: the API server at {server.url} does not say: "
    ):
        ask(server, tmp_path)
