"""What the agent may ask the API server for is what it was seen to ask, no less and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
import structlog

from ipvsproxy.cli.run import _api_server as api_server_source
from ipvsproxy.config.settings import Config
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.observe.node_events import NodeEvents
from ipvsproxy.source.kubernetes.client import ApiServer as Client
from ipvsproxy.source.kubernetes.client import Limits
from ipvsproxy.source.kubernetes.pods import ask_for_pod
from tests.api_server import ApiServer
from tests.api_server_objects import endpoint, endpoint_slice, node, pod, service
from tests.api_server_state import RESOURCES
from tests.chart.engine import FROM_KUBECONFIG, NAMESPACE, render, render_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chart.engine import Rendered

NODE = "node-a"


class Right(NamedTuple):
    """What a rule of a role allows, and a request needs."""

    group: str
    resource: str
    verb: str


def granted(rendered: Rendered) -> list[Right]:
    """Return what the role allows, as often as it does."""
    return [
        Right(group, resource, verb)
        for rule in rendered.one("ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def asked(server: ApiServer) -> set[Right]:
    """Return the rights that the requests so far needed."""
    groups = {each.name: each.api_version.rpartition("/")[0] for each in RESOURCES}
    return {Right(groups[request.resource], request.resource, request.verb) for request in server.requests}


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Serve a Service that can't be used as it is, so that the agent has something to tell."""
    with ApiServer() as server:
        broken = service("web", "10.96.0.1")
        broken["metadata"]["annotations"] = {"ipvsproxy.io/scheduler": "random"}
        server.state.apply(broken)
        server.state.apply(endpoint_slice("web-1", "web", endpoint("web-x", "10.128.0.1", NODE)))
        server.state.apply(node(NODE))
        yield server


def run_agents_source(server: ApiServer, directory: Path) -> None:
    """Run all of the agent that asks the API server, until it has told of the Service."""
    config = Config(kubeconfig=server.kubeconfig(directory / "kubeconfig"), node_name=NODE)
    source = api_server_source(config, NodeEvents(NODE), structlog.get_logger())
    for part in source.parts:
        part.start()
    try:
        server.wait_for(
            lambda: len(server.watches) == 3 and {"create"} <= {each.verb for each in server.requests}
        )
    finally:
        for part in source.parts:
            part.stop()
        for part in source.parts:
            part.join(5)


@pytest.mark.parametrize("initial_events", [True, False], ids=["by watches alone", "by lists"])
def test_nothing_that_the_agent_asks_for_is_forbidden(
    initial_events: bool,  # noqa: FBT001 - a parameter of the test
    server: ApiServer,
    tmp_path: Path,
) -> None:
    server.initial_events = initial_events

    run_agents_source(server, tmp_path)

    assert asked(server) <= set(granted(render()))


def test_the_agent_may_do_nothing_that_it_does_not_do(server: ApiServer, tmp_path: Path) -> None:
    server.initial_events = False

    run_agents_source(server, tmp_path)

    assert sorted(granted(render())) == sorted(asked(server))


def test_the_command_that_asks_for_a_pod_may_if_the_values_allow_it(
    server: ApiServer, tmp_path: Path
) -> None:
    server.state.apply(pod("client", NODE, "10.128.0.9"))
    client = Client(server.kubeconfig(tmp_path / "kubeconfig"), Limits())

    ask_for_pod(client, ObjectKey("default", "client"), 5)

    assert sorted({*granted(render({"readPods": True}))} - {*granted(render())}) == sorted(asked(server))


def test_the_rights_are_those_of_the_pods_account() -> None:
    rendered = render()
    account = rendered.one("ServiceAccount")["metadata"]["name"]
    binding = rendered.one("ClusterRoleBinding")

    assert rendered.one("DaemonSet")["spec"]["template"]["spec"]["serviceAccountName"] == account
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": rendered.one("ClusterRole")["metadata"]["name"],
    }


def test_the_account_has_no_rights_where_a_kubeconfig_names_another() -> None:
    rendered = render_exactly(FROM_KUBECONFIG)

    assert granted(rendered) == granted(render())
    assert rendered.all("ClusterRoleBinding") == []
