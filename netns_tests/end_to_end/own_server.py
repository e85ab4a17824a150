"""The API server for tests as a control plane: with TLS, and with the rights of the agent's role enforced."""

from __future__ import annotations

import secrets
import ssl
import urllib.parse
from typing import TYPE_CHECKING, Self

from netns_tests.end_to_end.certificates import Certificate
from netns_tests.end_to_end.control_plane import Asked, Right, granted
from tests.api_server import ApiServer
from tests.api_server_http import RefusedError
from tests.api_server_state import EVENTS, RESOURCES

if TYPE_CHECKING:
    from pathlib import Path

    from netns_tests.end_to_end.control_plane import Object
    from netns_tests.namespaces import Namespace
    from tests.api_server_http import Request

_GROUPS = {resource.name: resource.api_version.rpartition("/")[0] for resource in RESOURCES}
_KINDS = {resource.kind for resource in RESOURCES}


class OwnServer:
    """An API server in this process, that listens in the agent's namespace."""

    def __init__(self, namespace: Namespace, directory: Path, *, initial_events: bool) -> None:
        """Start it; without `initial_events` clients have to list, as before Kubernetes 1.32."""
        self.namespace = namespace
        self._rights: set[Right] = set()
        self._asked: list[Asked] = []
        certificate = Certificate.made(directory)
        self.certificate_authority = certificate.path.read_text()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
        with namespace.entered():
            self._api = ApiServer(tls=tls)
        self._api.initial_events = initial_events
        self._api.intercept = self._authorize
        self.expire_token()

    def __enter__(self) -> Self:
        """Return the server, to be ended at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no thread behind."""
        self._api.go_away()

    @property
    def port(self) -> int:
        return urllib.parse.urlsplit(self._api.url).port or 0

    def put(self, *objects: Object) -> None:
        for each in objects:
            if each["kind"] == "ClusterRole":
                self._rights = granted([each])
            elif each["kind"] in _KINDS:
                self._api.state.apply(each)

    def delete(self, *objects: Object) -> None:
        for each in objects:
            metadata = each["metadata"]
            self._api.state.delete(each["kind"], metadata.get("namespace", ""), metadata["name"])

    def new_token(self) -> str:
        self._api.token = secrets.token_hex()
        return self._api.token

    def expire_token(self) -> None:
        self._api.token = secrets.token_hex()

    def stop(self) -> None:
        self._api.go_away()

    def start(self) -> None:
        with self.namespace.entered():
            self._api.come_back()

    def compact(self) -> None:
        self.stop()
        self._api.state.compact()
        self.start()

    def events(self) -> list[Object]:
        return self._api.state.objects(EVENTS)

    def asked(self) -> list[Asked]:
        return list(self._asked)

    def _authorize(self, request: Request) -> None:
        """Note the request, and refuse what the role does not allow; whose it is the server itself looks at next."""
        right = Right(_GROUPS[request.resource], request.resource, request.verb)
        self._asked.append(Asked(right, right in self._rights))
        if right not in self._rights:
            raise RefusedError(
                403, f"{request.resource} is forbidden: the role does not allow {request.verb}"
            )
