"""What a test does to an API server and learns from it, whichever it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from netns_tests.namespaces import Namespace

Object: TypeAlias = dict[str, Any]

ACCOUNT, ACCOUNT_NAMESPACE = "ipvsproxy", "kube-system"
"""The agent's ServiceAccount, as the chart has it."""
USER = f"system:serviceaccount:{ACCOUNT_NAMESPACE}:{ACCOUNT}"

# What the chart renders by default: tests/chart holds it to Helm's engine.
_MANIFESTS = Path(__file__).parents[2] / "tests" / "chart" / "golden" / "default.yaml"
_KINDS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")


class Right(NamedTuple):
    """What a rule of a role allows, and a request needs."""

    group: str
    resource: str
    verb: str


class Asked(NamedTuple):
    """A request of the agent's, and whether its rights allowed it."""

    right: Right
    allowed: bool


class ControlPlane(Protocol):
    """An API server with its objects, reached at an address of the namespace in which the agent is to run."""

    @property
    def namespace(self) -> Namespace:
        """Where the agent runs."""

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""

    @property
    def certificate_authority(self) -> str:
        """Who signed its certificate, as PEM."""

    def put(self, *objects: Object) -> None:
        """Create objects, or replace them."""

    def delete(self, *objects: Object) -> None:
        """Delete objects that are there."""

    def new_token(self) -> str:
        """Return a new token of the agent's ServiceAccount, the only one that is good from now on."""

    def expire_token(self) -> None:
        """Have no token be good; requests that are under way go on."""

    def stop(self) -> None:
        """End the server; its objects stay."""

    def start(self) -> None:
        """Have it serve again, and return once it does."""

    def compact(self) -> None:
        """Have it know no change from before now; all connections break."""

    def events(self) -> list[Object]:
        """Return the Events that there are, of events.k8s.io/v1."""

    def asked(self) -> list[Asked]:
        """Return the requests that the agent has sent and that were authenticated."""


def account() -> list[Object]:
    """Return the chart's ServiceAccount, with its role and the binding of that."""
    documents = yaml.safe_load_all(_MANIFESTS.read_text())
    found = [document for document in documents if document["kind"] in _KINDS]
    assert sorted(document["kind"] for document in found) == sorted(_KINDS)
    return found


def granted(objects: Iterable[Object]) -> set[Right]:
    """Return what the one ClusterRole among these allows."""
    (role,) = (each for each in objects if each["kind"] == "ClusterRole")
    return {
        Right(group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
