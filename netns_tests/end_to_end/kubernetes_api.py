"""A real API server, by its own API: objects, tokens and audit log, for an administrator."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

import urllib3

from netns_tests.end_to_end import audit
from netns_tests.end_to_end.control_plane import ACCOUNT, ACCOUNT_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from netns_tests.end_to_end.control_plane import Asked, Object
    from netns_tests.namespaces import Namespace

ADDRESS: Final = "127.0.0.1"
PORT: Final = 6443
SERVICE_NETWORK: Final = "10.96.0.0/16"

_PATHS: Final[Mapping[str, str]] = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "Node": "/api/v1/nodes",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
}
_ACCOUNT_PATH = f"{_PATHS['ServiceAccount'].format(ACCOUNT_NAMESPACE)}/{ACCOUNT}"
_SERVER_SIDE_APPLY = "application/apply-patch+yaml"


class RequestFailedError(AssertionError):
    """The API server did not do what a test needs of it."""


class Administration:
    """The files that make somebody an administrator, and have what the agent asks for noted."""

    def __init__(self, directory: Path) -> None:
        """Write them."""
        self.token = secrets.token_hex()
        self.tokens = directory / "tokens.csv"
        self.tokens.write_text(f"{self.token},administrator,administrator,system:masters\n")
        self.policy = directory / "policy.json"
        self.policy.write_text(json.dumps(audit.POLICY))
        self.log = directory / "audit.log"
        self.log.touch()


class KubernetesApi:
    """The API server that serves at PORT of a namespace."""

    port = PORT

    def __init__(self, namespace: Namespace, administration: Administration) -> None:
        """Take where it serves; whoever inherits this starts it, and knows who signed its certificate."""
        self.namespace = namespace
        self._administration = administration
        self._binding: Object | None = None
        self._numbers = itertools.count(1)

    @property
    def certificate_authority(self) -> str:
        raise NotImplementedError

    def put(self, *objects: Object) -> None:
        """Apply the objects, as the one who has all of their fields; what they are, and what became of them."""
        query = "?fieldManager=test&force=true"
        for each in objects:
            self._request("PATCH", f"{_path(each)}{query}", each, _SERVER_SIDE_APPLY)
            if "status" in each:
                self._request("PATCH", f"{_path(each)}/status{query}", each, _SERVER_SIDE_APPLY)

    def delete(self, *objects: Object) -> None:
        for each in objects:
            self._request("DELETE", _path(each))

    def new_token(self) -> str:
        """Return a token that is bound to a Secret, so that it can be made to end before its time."""
        before, name = self._binding, f"token-{next(self._numbers)}"
        metadata = {"name": name, "namespace": ACCOUNT_NAMESPACE}
        self._binding = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
        self.put(self._binding)
        # The shortest time that kube-apiserver grants.
        specification = {
            "expirationSeconds": 600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": name},
        }
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": specification}
        answer = self._request("POST", f"{_ACCOUNT_PATH}/token", request)
        if before:
            self.delete(before)
        return str(answer["status"]["token"])

    def expire_token(self) -> None:
        if self._binding:
            self.delete(self._binding)
            self._binding = None

    def events(self) -> list[Object]:
        return list(self._request("GET", "/apis/events.k8s.io/v1/events")["items"])

    def asked(self) -> list[Asked]:
        with self._administration.log.open() as log:
            return list(audit.read(line for line in log if line.endswith("\n")))

    def is_ready(self) -> bool:
        """Say whether it serves, and has made what it makes by itself: the ServiceAccount's namespace, a Service.

        It takes no Services before it has one of its own: their ClusterIPs have no network until then.
        """
        made = (
            f"/api/v1/namespaces/{ACCOUNT_NAMESPACE}",
            f"{_PATHS['Service'].format('default')}/kubernetes",
        )
        return all(map(self._answers, ("/readyz", *made)))

    def _answers(self, path: str) -> bool:
        with contextlib.suppress(urllib3.exceptions.HTTPError, RequestFailedError):
            self._request("GET", path)
            return True
        return False

    def _request(
        self, method: str, path: str, body: Object | None = None, content: str = "application/json"
    ) -> Any:  # noqa: ANN401 - whatever the server answers
        """Send a request and return the document of its answer; RequestFailedError for a refusal."""
        headers = {"Authorization": f"Bearer {self._administration.token}", "Content-Type": content}
        # A connection of its own: the socket has to be made in the namespace.
        with (
            self.namespace.entered(),
            urllib3.HTTPSConnectionPool(
                ADDRESS,
                PORT,
                retries=False,
                timeout=urllib3.Timeout(10),
                ca_cert_data=self.certificate_authority,
            ) as pool,
        ):
            answer = pool.request(method, path, body=json.dumps(body) if body else None, headers=headers)
        if answer.status >= 300:
            raise RequestFailedError(f"{method} {path}: {answer.status} {answer.data.decode()}")
        return json.loads(answer.data) if answer.data.startswith(b"{") else {}


def _path(contents: Object) -> str:
    metadata = contents["metadata"]
    return f"{_PATHS[contents['kind']].format(metadata.get('namespace', ''))}/{metadata['name']}"
