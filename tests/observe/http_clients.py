"""An HTTP server of a test, and its clients."""

from __future__ import annotations

import contextlib
import http.client
import socket
from typing import TYPE_CHECKING, NamedTuple

import structlog

from ipvsproxy.model.addresses import parse_address
from ipvsproxy.observe.http_connection import Limits
from ipvsproxy.observe.http_server import HttpServer, Place
from netns_tests.deadline import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from structlog.typing import FilteringBoundLogger

LOOPBACK = parse_address("127.0.0.1")
OTHER_LOOPBACK = parse_address("127.0.0.2")
IPV6_LOOPBACK = parse_address("::1")

# A test that is about a limit says which one.
PATIENT = Limits(request_timeout=PATIENCE, idle_timeout=PATIENCE)


class Answer(NamedTuple):
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Events:
    """A logger, and what it was told."""

    def __init__(self) -> None:
        self.capture = structlog.testing.LogCapture()
        self.log: FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=[self.capture],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        ).bind()

    @property
    def names(self) -> list[str]:
        return [entry["event"] for entry in self.capture.entries]


@contextlib.contextmanager
def http_server(events: Events | None = None, limits: Limits = PATIENT) -> Iterator[HttpServer]:
    server = HttpServer((events or Events()).log, limits)
    try:
        yield server
    finally:
        server.stop()


def get(port: int, path: str = "/", host: str = "127.0.0.1", method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    with contextlib.closing(connection):
        return ask(connection, path, method)


def ask(connection: http.client.HTTPConnection, path: str = "/", method: str = "GET") -> Answer:
    connection.request(method, path)
    response = connection.getresponse()
    return Answer(response.status, dict(response.headers), response.read())


def refuses(port: int, host: str = "127.0.0.1") -> bool:
    try:
        with socket.create_connection((host, port), timeout=PATIENCE):
            return False
    except ConnectionRefusedError:
        return True


@contextlib.contextmanager
def client(port: int, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        yield connection


def everything(connection: socket.socket) -> bytes:
    """Return what comes up to the end; a connection that is reset ends too."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            found += chunk
    return found


@contextlib.contextmanager
def port_in_use(address: str = "127.0.0.1") -> Iterator[int]:
    """Listen as another program does."""
    with socket.create_server((address, 0)) as taken:
        yield taken.getsockname()[1]


def free_port() -> int:
    """Return a port that nobody has, on any address."""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as found:
        port: int = found.getsockname()[1]
        return port


def anywhere(port: int = 0) -> Place:
    return Place(None, port)


def loopback(port: int = 0) -> Place:
    return Place(LOOPBACK, port)
