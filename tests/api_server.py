"""An API server for tests, benches and demos: lists and watches of three resources over real HTTP connections.

It does what kube-apiserver does for an agent that watches: pages and their expiry, initial events or their refusal,
bookmarks, resource versions and compaction, selectors, credentials, Tables of Nodes. It takes Events, and refuses those
that are not as they have to be. And it fails in the ways that servers and networks do. What the agent never asks for is
answered with 400, so that a wrong parameter shows. kmock, which is a mock server for this API, has no resource
versions, pages, bookmarks, selectors or 410, which are what is to be tested here.

As a program it serves a large cluster, and takes writes by PUT and DELETE: `python -m tests.api_server --help`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from netns_tests.deadline import PATIENCE
from tests import api_server_objects
from tests.api_server_http import Listener, RefusedError, bookmark
from tests.api_server_state import State

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.api_server_http import Request, Watch
    from tests.api_server_state import Resource

BOOKMARK_PERIOD = 60.0  # seconds, as kube-apiserver's


class ApiServer:
    """The server, from its construction to `go_away`; attributes may be changed at any time. With `tls` it is HTTPS.

    `initial_events` False refuses them, as servers before 1.32 do. With a `token`, requests need it as their bearer
    token. Requests for the resources in `forbidden` are refused; Events in the namespaces of `terminating` are too.
    With `gone_at_once`, a watch from an expired resource version is answered with the status 410; otherwise, as
    kube-apiserver mostly does, with an ERROR event. `tables` False sends lists in place of Tables, a `table_answer` is
    sent in their place as it is. `watch_cache` False has lists paged that ask for resource version 0; from a cache they
    come in one piece.
    `intercept` is called with each request before it is answered; raised there, a RefusedError or an AnswerError is the
    answer, and an OSError closes the connection without one. `during_initial_events` is called between the initial
    events of each watch and the bookmark that ends them.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        state: State | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.state = state or State()
        self.initial_events = True
        self.token: str | None = None
        self.forbidden: set[str] = set()
        self.terminating: set[str] = set()
        self.gone_at_once = False
        self.tables = True
        self.table_answer: bytes | None = None
        self.watch_cache = True
        self.intercept: Callable[[Request], None] = lambda _: None
        self.during_initial_events: Callable[[], None] = lambda: None
        self.bookmark_period = BOOKMARK_PERIOD
        self.requests: list[Request] = []
        self.watches: list[Watch] = []
        self._connections: set[socket.socket] = set()
        self._address = (host, port)
        self._tls = tls
        self._listener: Listener | None = None
        self.come_back()

    def __enter__(self) -> Self:
        """Serve from construction on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Go away."""
        self.go_away()

    @property
    def url(self) -> str:
        return self._url(self._address[0])

    def kubeconfig(self, path: Path, host: str = "") -> Path:
        """Write a kubeconfig for this server, with a file for the token beside it, and return its path.

        It names the server by its address unless by `host`.
        """
        token = path.with_name("token")
        token.write_text(self.token or "none")
        path.write_text(
            json.dumps(
                {
                    "kind": "Config",
                    "apiVersion": "v1",
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                    "clusters": [
                        {"name": "test", "cluster": {"server": self._url(host or self._address[0])}}
                    ],
                    "users": [{"name": "test", "user": {"tokenFile": token.name}}],
                }
            )
        )
        return path

    def _url(self, host: str) -> str:
        bracketed = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{bracketed}:{self._address[1]}"

    # --- what happens to the server ---

    def come_back(self) -> None:
        """Listen, on the same port as before."""
        self._listener = Listener(self, self._address, self._tls)
        self._address = (self._address[0], self._listener.server_port)
        threading.Thread(
            target=self._listener.serve_forever, args=(0.005,), name="api-server", daemon=True
        ).start()

    def go_away(self) -> None:
        """Refuse connections and cut those that there are; the objects stay."""
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None
        self.cut_all()

    def cut_all(self) -> None:
        """Cut all connections, in the middle of whatever they do."""
        with self.state.changed:
            for watch in self.watches:
                watch.cut = True
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.state.changed.notify_all()

    def fall_silent(self) -> None:
        """Never send anything again on the watches that there are, but keep their connections open."""
        with self.state.changed:
            for watch in self.watches:
                watch.silent = True

    def end_watches(self) -> None:
        """End all watches in good order, as after their timeoutSeconds."""
        with self.state.changed:
            for watch in self.watches:
                watch.to_send.append(b"")
            self.state.changed.notify_all()

    def bookmark(self) -> None:
        """Send each watch a bookmark."""
        with self.state.changed:
            for watch in self.watches:
                watch.to_send.append(bookmark(watch.resource, self.state.revision))
            self.state.changed.notify_all()

    def refuse_once(self, resource: Resource, code: int) -> None:
        """Answer the next request for the resource with that status."""

        def refuse(request: Request) -> None:
            if request.resource == resource.name:
                self.intercept = lambda _: None
                raise RefusedError(code, f"refused with {code}")

        self.intercept = refuse

    def inject(self, resource: Resource, data: bytes) -> None:
        """Send these bytes on each watch of the resource, as an HTTP chunk of their own; return when they are out."""
        with self.state.changed:
            watches = [watch for watch in self.watches if watch.resource is resource]
            for watch in watches:
                watch.to_send.append(data)
            self.state.changed.notify_all()
            self.state.changed.wait_for(lambda: not any(watch.to_send for watch in watches))

    def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Wait until what has been asked for or watched satisfies the predicate; TimeoutError if it never does."""
        with self.state.changed:
            if not self.state.changed.wait_for(predicate, PATIENCE):
                raise TimeoutError(f"requests: {self.requests}")

    def asked(self, resource: Resource) -> list[Mapping[str, str]]:
        """Return the queries of all requests for the resource, those for Tables left out."""
        with self.state.changed:
            return [
                request.query
                for request in self.requests
                if request.resource == resource.name and not request.table
            ]

    def asked_for_tables(self) -> list[Mapping[str, str]]:
        """Return the queries of all requests for Tables."""
        with self.state.changed:
            return [request.query for request in self.requests if request.table]

    # --- what the connections tell ---

    def connected(self, connection: socket.socket) -> None:
        with self.state.changed:
            self._connections.add(connection)

    def disconnected(self, connection: socket.socket) -> None:
        with self.state.changed:
            self._connections.discard(connection)

    def requested(self, request: Request) -> None:
        with self.state.changed:
            self.requests.append(request)
            self.state.changed.notify_all()
        self.intercept(request)

    @contextlib.contextmanager
    def watching(self, watch: Watch) -> Iterator[Watch]:
        with self.state.changed:
            self.watches.append(watch)
            self.state.changed.notify_all()
        try:
            yield watch
        finally:
            with self.state.changed:
                self.watches.remove(watch)
                watch.to_send.clear()
                self.state.changed.notify_all()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a cluster until SIGINT or SIGTERM; one line on the standard output says that it can be asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.api_server", description="Serve a cluster's API.")
    parser.add_argument("--services", type=int, default=10, metavar="N")
    parser.add_argument("--endpoints", type=int, default=100, metavar="N", help="of all Services together")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=0, metavar="PORT", help="default: a free one")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="write a kubeconfig for the server")
    parser.add_argument(
        "--pages", action="store_true", help="refuse initial events, so that clients list in pages"
    )
    options = parser.parse_args(arguments)
    state = State()
    for contents in api_server_objects.cluster(options.services, options.endpoints):
        state.apply(contents)
    state.compact()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ApiServer(options.host, options.port, state) as server:
        server.initial_events = not options.pages
        if options.kubeconfig:
            server.kubeconfig(options.kubeconfig)
        print(f"serving {options.services} services at {server.url}", flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
