"""How the API server for tests answers: HTTP, selectors, pages, watches and Statuses, for one `ApiServer`."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import socket
import socketserver
import sys
import time
import urllib.parse
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tests.api_server_events import problem_of
from tests.api_server_objects import node_table
from tests.api_server_state import EVENTS, NODES, PODS, RESOURCES, ExistsError, ExpiredError, parse_selector

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping

    from tests.api_server import ApiServer
    from tests.api_server_state import Object, Resource, Selector

EVENTS_AT_ONCE = 64
TIMEOUT_SECONDS = 1800  # of a watch that does not say how long it wants to last

_SELECTION = {"labelSelector", "fieldSelector"}
_OF_A_LIST = _SELECTION | {"limit", "continue", "resourceVersion"}
_OF_A_WATCH = _SELECTION | {
    "watch",
    "allowWatchBookmarks",
    "timeoutSeconds",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
}
_OF_A_TABLE = _OF_A_LIST | {"includeObject"}
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "AlreadyExists",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
}


class Request(NamedTuple):
    """A request as it came in."""

    resource: str
    query: Mapping[str, str]
    table: bool = False
    verb: str = "list"


class AnswerError(Exception):
    """The answer is this body, with the status of success."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.body = body


class RefusedError(Exception):
    """The answer is a Status with that code, and that cause if there is one."""

    def __init__(
        self, code: int, message: str, metadata: Mapping[str, str] | None = None, cause: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.metadata = metadata or {}
        self.cause = cause


def status(code: int, message: str, metadata: Mapping[str, str] | None = None, cause: str = "") -> bytes:
    return json.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata or {},
            "status": "Failure",
            "message": message,
            "reason": _REASONS.get(code, ""),
            "details": {"causes": [{"reason": cause, "message": message}]} if cause else None,
            "code": code,
        }
    ).encode()


def event(kind: str, contents: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), contents)


def bookmark(resource: Resource, revision: int, *, initial: bool = False) -> bytes:
    metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    contents = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    return event("BOOKMARK", json.dumps(contents).encode())


@dataclasses.dataclass(eq=False)
class Watch:
    """A watch under way: the changes up to revision `since` are sent, and `to_send` goes out next, as it is."""

    resource: Resource
    since: int
    to_send: list[bytes] = dataclasses.field(default_factory=list)
    silent: bool = False
    cut: bool = False

    def has_to_act(self, revision: int) -> bool:
        return self.cut or (not self.silent and (bool(self.to_send) or revision > self.since))


class Listener(http.server.ThreadingHTTPServer):
    """Gives each connection a thread."""

    daemon_threads = True

    def __init__(self, api: ApiServer, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        self.api = api
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Connection)
        if tls:
            # The handshake is left to the connection's own thread.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def server_bind(self) -> None:
        """Bind, and look up no name for the address, which may be unknown to every name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: object, client_address: object) -> None:
        """Show what fails, but for connections that were cut."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Connection(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server: Listener
    connection: socket.socket

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.api.connected(self.connection)

    def finish(self) -> None:
        self.server.api.disconnected(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Stay quiet: `ApiServer.requests` has it all."""

    def do_GET(self) -> None:
        self._answer(self._read)

    def do_POST(self) -> None:
        self._answer(self._create)

    def do_PUT(self) -> None:
        self._answer(self._write)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, handle: Callable[[Resource, list[str], dict[str, str]], None]) -> None:
        """Find the resource, let `handle` answer, and answer with a Status what it refuses."""
        path, _, query = self.path.partition("?")
        try:
            resource, rest = _route(path)
            handle(resource, rest, dict(urllib.parse.parse_qsl(query, strict_parsing=bool(query))))
        except AnswerError as answer:
            self._send(answer.body)
        except RefusedError as refused:
            self._send(status(refused.code, str(refused), refused.metadata, refused.cause), refused.code)

    def _authorize(self, resource: Resource, verb: str) -> None:
        """Refuse the request if its user is not known, or may not do that."""
        api = self.server.api
        scheme, _, token = (self.headers["Authorization"] or "").partition(" ")
        if api.token is not None and (scheme.lower(), token) != ("bearer", api.token):
            raise RefusedError(401, "Unauthorized")
        if resource.name in api.forbidden:
            message = f'{resource.name} is forbidden: User "agent" cannot {verb} resource "{resource.name}"'
            raise RefusedError(403, message)

    def _read(self, resource: Resource, rest: list[str], query: dict[str, str]) -> None:
        api = self.server.api
        watch = query.get("watch") == "true"
        accepted = self.headers["Accept"].replace(" ", "").split(",")
        wants_table = resource is NODES and not watch and _TABLE in accepted
        verb = "watch" if watch else "get" if rest else "list"
        api.requested(Request(resource.name, query, wants_table, verb))
        if resource is PODS and len(rest) == len(("namespace", "name")):
            self._authorize(resource, "get")
            self._get(resource, rest)
            return
        self._authorize(resource, "list")
        table = wants_table and api.tables
        if not table and "application/json" not in accepted:
            raise RefusedError(406, "only the following media types are accepted: application/json")
        known = _OF_A_TABLE if wants_table else _OF_A_LIST
        unknown = query.keys() - (_OF_A_WATCH if watch else known)
        if rest or unknown:
            raise RefusedError(400, f"not known here: {'/'.join(rest)} {' '.join(sorted(unknown))}")
        try:
            selector = parse_selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        except ValueError as error:
            raise RefusedError(400, str(error)) from error
        if watch:
            self._watch(resource, selector, query)
        elif table and api.table_answer is not None:
            self._send(api.table_answer)
        else:
            self._list(resource, selector, query, table=table)

    def _get(self, resource: Resource, rest: list[str]) -> None:
        """Send one object."""
        for contents in self.server.api.state.objects(resource):
            if [contents["metadata"]["namespace"], contents["metadata"]["name"]] == rest:
                self._send(msgspec.json.encode(contents))
                return
        raise RefusedError(404, f'{resource.name} "{rest[-1]}" not found')

    def _list(self, resource: Resource, selector: Selector, query: dict[str, str], *, table: bool) -> None:
        state = self.server.api.state
        if "continue" in query and query.get("resourceVersion", "0") != "0":
            raise RefusedError(400, "specifying resource version is not allowed when using continue")
        if query.get("resourceVersion") == "0" and self.server.api.watch_cache:
            query = query | {"limit": "0"}
        revision, _, first_text = query.get("continue", "").partition(":")
        first = int(first_text or 0)
        try:
            snapshot = state.snapshot(resource, selector, int(revision or 0))
        except ExpiredError:
            message = "The provided continue parameter is too old to display a consistent list result."
            raise RefusedError(410, message, {"continue": f"{state.revision}:{first}"}) from None
        limit = int(query.get("limit", 0)) or len(snapshot.items)
        metadata = {"resourceVersion": str(snapshot.revision)}
        remaining = len(snapshot.items) - first - limit
        if remaining > 0:
            metadata["continue"] = f"{snapshot.revision}:{first + limit}"
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        page = snapshot.items[first : first + limit]
        if table:
            self._send(json.dumps(node_table([stored.contents for stored in page], metadata)).encode())
            return
        items = b",".join(stored.json for stored in page)
        self._send(b'%s,"items":[%s]}' % (json.dumps(head).encode()[:-1], items))

    def _watch(self, resource: Resource, selector: Selector, query: dict[str, str]) -> None:
        api = self.server.api
        initial = "sendInitialEvents" in query
        _check_watch(query, initial_events=api.initial_events)
        since = int(query.get("resourceVersion", 0))
        expired = False
        try:
            api.state.check(since or api.state.revision)
        except ExpiredError:
            expired = True
        message = f"too old resource version: {since} ({api.state.revision})"
        if expired and api.gone_at_once:
            raise RefusedError(410, message)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with api.watching(Watch(resource, since)) as watch:
            if expired:
                self._send_chunks([event("ERROR", status(410, message))])
            else:
                if initial:
                    self._send_initial_events(watch, selector)
                self._send_changes(watch, selector, int(query.get("timeoutSeconds", TIMEOUT_SECONDS)))
            if not watch.cut:
                self.wfile.write(b"0\r\n\r\n")

    def _send_initial_events(self, watch: Watch, selector: Selector) -> None:
        watch.since, items = self.server.api.state.snapshot(watch.resource, selector)
        for first in range(0, len(items), EVENTS_AT_ONCE):
            self._send_chunks(event("ADDED", stored.json) for stored in items[first : first + EVENTS_AT_ONCE])
        self.server.api.during_initial_events()
        watch.since, changes = self.server.api.state.events(watch.resource, selector, watch.since)
        self._send_chunks(
            [*(event(*change) for change in changes), bookmark(watch.resource, watch.since, initial=True)]
        )

    def _send_changes(self, watch: Watch, selector: Selector, timeout: float) -> None:
        """Send what happens until the time is over, the watch is ended, or cut."""
        api = self.server.api
        state = api.state
        end = time.monotonic() + timeout
        next_bookmark = time.monotonic() + api.bookmark_period
        while True:
            with state.changed:
                patience = None if watch.silent else max(0, min(end, next_bookmark) - time.monotonic())
                state.changed.wait_for(lambda: watch.has_to_act(state.revision), patience)
                if watch.cut:
                    return
                if watch.silent:
                    continue
                watch.since, changes = state.events(watch.resource, selector, watch.since)
                injected = watch.to_send[:]
            to_send = [event(*change) for change in changes] + injected
            now = time.monotonic()
            if now >= min(end, next_bookmark):
                to_send.append(bookmark(watch.resource, watch.since))
                next_bookmark = now + api.bookmark_period
            self._send_chunks(to_send)
            with state.changed:
                del watch.to_send[: len(injected)]
                state.changed.notify_all()
            if b"" in injected or now >= end:
                return

    def _create(self, resource: Resource, rest: list[str], _: dict[str, str]) -> None:
        """Take an Event: nothing else is ever created by an agent."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        api = self.server.api
        api.requested(Request(resource.name, {}, verb="create"))
        self._authorize(resource, "create")
        if resource is not EVENTS or len(rest) != 1:
            raise RefusedError(405, "the server does not allow this method on the requested resource")
        if self.headers["Content-Type"] != "application/json":
            raise RefusedError(415, "the body of the request was in an unknown format")
        (namespace,) = rest
        if namespace in api.terminating:
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise RefusedError(403, message, cause="NamespaceTerminating")
        contents = msgspec.json.decode(body)
        if problem := problem_of(contents, namespace):
            raise RefusedError(problem.code, problem.message)
        try:
            api.state.create(resource, contents)
        except ExistsError:
            message = f'events.events.k8s.io "{contents["metadata"]["name"]}" already exists'
            raise RefusedError(409, message) from None
        self._send(json.dumps(contents).encode(), 201)

    def _write(self, _: Resource, __: list[str], ___: dict[str, str]) -> None:
        contents = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.api.state.apply(contents)
        self._send(json.dumps(contents).encode())

    def _delete(self, resource: Resource, rest: list[str], _: dict[str, str]) -> None:
        try:
            self.server.api.state.delete(resource.kind, rest[0] if resource.namespaced else "", rest[-1])
        except KeyError:
            raise RefusedError(404, f'{resource.name} "{rest[-1]}" not found') from None
        self._send(b'{"kind":"Status","apiVersion":"v1","status":"Success"}')

    def _send(self, body: bytes, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_chunks(self, chunks: Iterable[bytes]) -> None:
        """Send each as an HTTP chunk; the empty one, which would end the response, is left out."""
        self.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk))


def _route(path: str) -> tuple[Resource, list[str]]:
    """Return the resource, and the namespace and name of the object that the path names, if it does."""
    for resource in RESOURCES:
        if path == resource.path:
            return resource, []
        rest = path.removeprefix(f"{resource.prefix}/").split("/")
        match rest:
            case ["namespaces", namespace, resource.name, name] if resource.namespaced:
                return resource, [namespace, name]
            case ["namespaces", namespace, resource.name] if resource.namespaced:
                return resource, [namespace]
            case [resource.name, name] if not resource.namespaced:
                return resource, [name]
    raise RefusedError(404, "the server could not find the requested resource")


def _check_watch(query: Mapping[str, str], *, initial_events: bool) -> None:
    """Refuse what ValidateListOptions refuses (k8s.io/apimachinery, meta/internalversion/validation)."""
    initial = query.get("sendInitialEvents") == "true"
    match = query.get("resourceVersionMatch")
    problem = ""
    if initial and not initial_events:
        problem = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
    elif initial and (match != "NotOlderThan" or query.get("allowWatchBookmarks") != "true"):
        problem = "sendInitialEvents requires resourceVersionMatch=NotOlderThan and allowWatchBookmarks"
    elif match and not initial:
        problem = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
    if problem:
        raise RefusedError(
            422, f'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: {problem}'
        )
    if not initial and not query.get("resourceVersion"):
        raise RefusedError(400, "a watch from nowhere is not known here")
