"""Configuration that can't be read, and credentials that the API server refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog

from ipvsproxy.errors import UsageError
from ipvsproxy.source.kubernetes import KubernetesSource
from ipvsproxy.source.store import Store
from tests import builders
from tests.api_server_objects import service
from tests.source.following import following

if TYPE_CHECKING:
    from pathlib import Path

    from tests.api_server import ApiServer

OLD, NEW = "old", "new"
CONTEXT = """
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
"""


def refusal(kubeconfig: Path | None) -> str:
    with pytest.raises(UsageError) as caught:
        KubernetesSource(kubeconfig, Store(), builders.NODE, structlog.get_logger())
    return str(caught.value)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ("", "Invalid kube-config. {} file is empty"),
        ("- 1\n", "is no kubeconfig: it has no mapping with lists of clusters, contexts and users"),
        ("just text\n", "is no kubeconfig"),
        ("a: [\n", "is no YAML: while parsing"),
        ("kind: Config\n", "current-context"),
        (CONTEXT, "Expected object with name test"),
        (
            CONTEXT + "clusters: [{name: test, cluster: {}}]\n",
            "the cluster of its current context has no server",
        ),
        (
            CONTEXT
            + "clusters: [{name: test, cluster: {server: https://x, certificate-authority: absent.crt}}]\n",
            "File does not exist: ",
        ),
    ],
)
def test_a_kubeconfig_that_cant_be_used_is_named_with_the_reason(
    tmp_path: Path, contents: str, reason: str
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(contents)
    message = refusal(kubeconfig)
    assert message.startswith(f"kubeconfig {kubeconfig}: ")
    assert reason.format(kubeconfig) in message
    assert "\n" not in message


def test_a_kubeconfig_that_is_not_there_is_named_with_the_reason(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"kubeconfig {tmp_path}/none: No such file or directory"
    assert refusal(tmp_path) == f"kubeconfig {tmp_path}: Is a directory"


def test_a_token_file_that_is_not_there_is_named(server: ApiServer, tmp_path: Path) -> None:
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")
    token = tmp_path / "token"
    token.unlink()
    assert refusal(kubeconfig) == f"kubeconfig {kubeconfig}: {token}: No such file or directory"


def test_outside_of_a_pod_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "--kubeconfig FILE" in refusal(None)


def test_a_refused_token_is_reported_and_a_renewed_one_used(server: ApiServer, tmp_path: Path) -> None:
    server.token = OLD
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.token = NEW
        server.cut_all()
        for resource in ("services", "endpointslices", "nodes"):
            line = agent.witness.log_line("API server refuses the credentials", resource=resource)
            assert (line["level"], line["url"], line["reason"]) == ("error", server.url, "Unauthorized")
        server.kubeconfig(agent.kubeconfig)
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")


def test_a_missing_permission_is_reported_in_the_servers_words(server: ApiServer, tmp_path: Path) -> None:
    server.forbidden.add("services")
    with following(server, tmp_path) as agent:
        line = agent.witness.log_line("API server refuses the credentials", resource="services")
        assert line["reason"] == 'services is forbidden: User "agent" cannot list resource "services"'
        assert line["remedy"].startswith("allow the agent's user to list and watch this resource")
        server.forbidden.clear()
        agent.wait_until_synced()


def test_credentials_that_cant_be_read_again_are_reported_and_tried_again(
    server: ApiServer, tmp_path: Path
) -> None:
    server.token = OLD
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        agent.kubeconfig.unlink()
        server.token = NEW
        server.cut_all()
        line = agent.witness.log_line("API server refuses the credentials", resource="services")
        assert line["reason"] == (
            f"credentials can't be renewed: kubeconfig {agent.kubeconfig}: No such file or directory"
        )
        server.kubeconfig(agent.kubeconfig)
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")
