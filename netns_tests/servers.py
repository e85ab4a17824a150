"""The pods' servers: one thread that serves all of them, each through sockets of its own namespace.

Every server says who it is and whom it sees, `NAME SOURCE PORT`: as the body of an HTTP answer, over TCP or SCTP, or as
a datagram.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any, Self, cast

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from netns_tests.topology import Host

HTTP_PORT = 8080
ADMIN_PORT = 9090
DATAGRAM_PORT = 5353
ASSOCIATION_PORT = 3868

_STREAMS = ((HTTP_PORT, Protocol.TCP), (ADMIN_PORT, Protocol.TCP), (ASSOCIATION_PORT, Protocol.SCTP))

_ANY_ADDRESS = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}


class Servers:
    """For any number of hosts, in both families: HTTP on HTTP_PORT and ADMIN_PORT, over SCTP on ASSOCIATION_PORT.

    Datagrams are answered on DATAGRAM_PORT.
    """

    def __init__(self) -> None:
        """Start the thread; it serves nothing yet."""
        self._hosts: dict[str, _HostServers] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return the servers themselves, to be stopped at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop every server and close every connection."""
        for host in self._hosts.values():
            self._run(host.abort())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, host: Host) -> None:
        """Serve on all addresses of the host; clients are answered once this returns."""
        servers = self._hosts[host.name] = _HostServers(host.name)
        with host.namespace.entered():
            streams = [
                _bound(family, socket.SOCK_STREAM, port, protocol)
                for family in Family
                for port, protocol in _STREAMS
            ]
            datagrams = [_bound(family, socket.SOCK_DGRAM, DATAGRAM_PORT, Protocol.UDP) for family in Family]
        self._run(servers.serve(streams, datagrams))

    def leave(self, host: Host) -> None:
        """Shut down as a well-behaved server does: take no new connection, end each one with its next answer."""
        self._run(self._hosts[host.name].leave())

    def connections(self, host: Host) -> int:
        """Return how many HTTP connections the host has open."""
        return len(self._hosts[host.name].connections)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class _HostServers:
    """One host's servers; used from the loop's thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.leaving = False
        self.connections: set[asyncio.Transport] = set()
        self._listening: list[asyncio.Server | asyncio.DatagramTransport] = []

    async def serve(self, streams: list[socket.socket], datagrams: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for stream in streams:
            self._listening.append(await loop.create_server(lambda: _Http(self), sock=stream))
        for datagram in datagrams:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagram)
            self._listening.append(transport)

    async def leave(self) -> None:
        self.leaving = True
        for listening in self._listening:
            listening.close()

    async def abort(self) -> None:
        await self.leave()
        for connection in tuple(self.connections):
            connection.abort()

    def answer(self, source: str, port: int) -> bytes:
        return f"{self.name} {source} {port}".encode()


class _Http(asyncio.Protocol):
    """One HTTP/1.1 connection, kept alive; a request is what ends with an empty line."""

    def __init__(self, host: _HostServers) -> None:
        self._host = host
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._host.connections.add(self._transport)
        source = transport.get_extra_info("peername")[0]
        port = transport.get_extra_info("sockname")[1]
        self._body = self._host.answer(source, port)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, _, self._received = self._received.partition(b"\r\n\r\n")
            last = self._host.leaving or b"\r\nconnection: close" in request.lower()
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s"
                % (len(self._body), b"close" if last else b"keep-alive", self._body)
            )
            if last:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._host.connections.discard(self._transport)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, host: _HostServers) -> None:
        self._host = host

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport.sendto(self._host.answer(source[0], DATAGRAM_PORT), source)


def _bound(family: Family, kind: socket.SocketKind, port: int, protocol: Protocol) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family is Family.IPV6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    bound.bind((_ANY_ADDRESS[family], port))
    bound.settimeout(0)
    return bound
