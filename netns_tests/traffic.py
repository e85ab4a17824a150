"""One client's request, and what it meets: an answer, a refusal, or silence."""

from __future__ import annotations

import contextlib
import enum
import errno
import select
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol
from netns_tests.deadline import PATIENCE

if TYPE_CHECKING:
    from netns_tests.topology import Host

# IP_RECVERR, IPV6_RECVERR (linux/in.h, linux/in6.h): without, an SCTP socket takes no notice of ICMP errors.
_RECEIVE_ERRORS = {Family.IPV4: (socket.IPPROTO_IP, 11), Family.IPV6: (socket.IPPROTO_IPV6, 25)}
# SCTP_RTOINFO and its struct (linux/sctp.h). An ICMP error that comes while the socket is still in connect(2), as it
# does between namespaces, is forgotten; the second packet is sent so many milliseconds later, 3000 otherwise.
_RETRANSMISSION = (Protocol.SCTP, 0, struct.pack("=iIII", 0, 50, 0, 0))
_TOTAL_RETRANSMISSIONS = 100  # offset of tcpi_total_retrans in struct tcp_info (linux/tcp.h)


class Failure(enum.StrEnum):
    """What a client meets instead of an answer."""

    REFUSED = "refused"
    REFUSED_LATE = "refused, but the first packet was lost"
    SILENCE = "silence"
    CLOSED = "closed by the other side"
    UNREACHABLE = "unreachable"
    OTHER = "another error"


class NoAnswerError(Exception):
    """A request that got no answer, and why."""

    def __init__(self, failure: Failure, target: Target) -> None:
        """Say what happened where."""
        super().__init__(f"{target}: {failure}")
        self.failure = failure


class Target(NamedTuple):
    """Where a client connects to."""

    address: str
    port: int
    protocol: Protocol = Protocol.TCP

    @property
    def family(self) -> Family:
        """The family of the address."""
        return Family.IPV6 if ":" in self.address else Family.IPV4

    def __str__(self) -> str:
        """Return `ADDRESS port PORT/PROTOCOL`."""
        return f"{self.address} port {self.port}/{self.protocol.name.lower()}"


class Answer(NamedTuple):
    """What a server of `servers` says: its name, the client's address as it sees it, the port it listens on."""

    server: str
    source: str
    port: int


class Connection:
    """An HTTP connection, or an SCTP association for HTTP, that is kept alive; `ask` as often as wanted."""

    def __init__(self, origin: Host, target: Target, patience: float = PATIENCE) -> None:
        """Connect from a host; NoAnswerError if that fails. `patience` is in seconds, for each answer too."""
        with origin.namespace.entered():
            self._socket = socket.socket(target.family, socket.SOCK_STREAM, target.protocol)
        self._target = target
        self._patience = patience
        self.open = True
        try:
            if target.protocol is Protocol.SCTP:
                self._prepare_association(origin)
            self._connect()
        except NoAnswerError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Return the connection, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection from this side."""
        self._socket.close()

    def ask(self, *, last: bool = False) -> Answer:
        """Send a request and return the answer; with `last` the server closes the connection afterwards.

        `open` is false afterwards if the server said that it closes, on its own account too, or if there was no answer.
        """
        self.open = False
        connection = "close" if last else "keep-alive"
        request = f"GET / HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n"
        try:
            self._socket.sendall(request.encode())
            head, body = self._response()
        except OSError as error:
            raise NoAnswerError(_failure(error.errno), self._target) from error
        self.open = b"Connection: close" not in head
        return _answer(body)

    def status(self, path: str) -> int:
        """Ask an HTTP server for a path and return the status of its answer."""
        try:
            self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            return int(self._receive().split()[1])
        except OSError as error:
            raise NoAnswerError(_failure(error.errno), self._target) from error

    def _prepare_association(self, origin: Host) -> None:
        """Bind to the address that the kernel would choose: else SCTP names all addresses of the host to the server."""
        self._socket.setsockopt(*_RECEIVE_ERRORS[self._target.family], 1)
        self._socket.setsockopt(*_RETRANSMISSION)
        with origin.namespace.entered(), socket.socket(self._target.family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((self._target.address, self._target.port))
            except OSError as error:
                raise NoAnswerError(_failure(error.errno), self._target) from error
            self._socket.bind((probe.getsockname()[0], 0))

    def _connect(self) -> None:
        """Connect without blocking, so that the kernel's record of the attempt is there to be read."""
        self._socket.settimeout(0)
        code = self._socket.connect_ex((self._target.address, self._target.port))
        if code == errno.EINPROGRESS:
            attempt = select.poll()
            attempt.register(self._socket, select.POLLOUT)
            if not attempt.poll(self._patience * 1000):
                raise NoAnswerError(Failure.SILENCE, self._target)
            lost = self._retransmissions()
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == errno.ECONNREFUSED and lost:
                raise NoAnswerError(Failure.REFUSED_LATE, self._target)
        if code:
            raise NoAnswerError(_failure(code), self._target)
        self._socket.settimeout(self._patience)

    def _retransmissions(self) -> int:
        if self._target.protocol is not Protocol.TCP:
            return 0
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOTAL_RETRANSMISSIONS + 4)
        retransmissions: int = struct.unpack_from("=I", info, _TOTAL_RETRANSMISSIONS)[0]
        return retransmissions

    def _response(self) -> tuple[bytes, bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self._receive()
        return head, body

    def _receive(self) -> bytes:
        data = self._socket.recv(4096)
        if not data:
            raise NoAnswerError(Failure.CLOSED, self._target)
        return data


class Flow:
    """Datagrams from one socket, and so from one port, to one target."""

    def __init__(self, origin: Host, target: Target, patience: float = PATIENCE) -> None:
        """Make the socket in a host's namespace; `patience` is in seconds."""
        with origin.namespace.entered():
            self._socket = socket.socket(target.family, socket.SOCK_DGRAM)
        self._socket.settimeout(patience)
        self._target = target

    def __enter__(self) -> Self:
        """Return the flow, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self) -> Answer:
        """Send one datagram and return the answer; NoAnswerError if none comes."""
        try:
            self.tell()
            return _answer(self._socket.recv(4096))
        except OSError as error:
            raise NoAnswerError(_failure(error.errno), self._target) from error

    def tell(self) -> None:
        """Send one datagram; OSError if the last one was refused."""
        self._socket.connect((self._target.address, self._target.port))
        # What the node's own firewall refuses at output is told twice: to the sender, and by ICMP.
        with contextlib.suppress(PermissionError):
            self._socket.send(b"?")


def request(origin: Host, target: Target, patience: float = PATIENCE) -> Answer:
    """Make one request on a connection, or with a datagram, of its own; NoAnswerError if no answer comes."""
    if target.protocol is Protocol.UDP:
        with Flow(origin, target, patience) as flow:
            return flow.ask()
    with Connection(origin, target, patience) as connection:
        return connection.ask(last=True)


def failure_of(origin: Host, target: Target, patience: float = PATIENCE) -> Failure | Answer:
    """Make one request of which no answer is expected, and return what came of it."""
    try:
        return request(origin, target, patience)
    except NoAnswerError as error:
        return error.failure


def answers_echo(origin: Host, address: str, patience: float = PATIENCE) -> bool:
    """Send an ICMP echo request and say whether the reply comes."""
    family = Family.IPV6 if ":" in address else Family.IPV4
    protocol, kind = (socket.IPPROTO_ICMPV6, 128) if family is Family.IPV6 else (socket.IPPROTO_ICMP, 8)
    with origin.namespace.entered(), socket.socket(family, socket.SOCK_DGRAM, protocol) as client:
        client.settimeout(patience)
        client.sendto(struct.pack("!BBHHH", kind, 0, 0, 0, 1), (address, 0))
        try:
            replier: str = client.recvfrom(64)[1][0]
        except OSError:
            return False
    return replier == address


def _answer(text: bytes) -> Answer:
    server, source, port = text.decode().split()
    return Answer(server, source, int(port))


def _failure(code: int | None) -> Failure:
    """Classify an errno; a socket's own timeout has none."""
    match code:
        case errno.ECONNREFUSED:
            return Failure.REFUSED
        case errno.ECONNRESET | errno.EPIPE:
            return Failure.CLOSED
        case errno.EHOSTUNREACH | errno.ENETUNREACH | errno.EACCES:
            return Failure.UNREACHABLE
        case errno.ETIMEDOUT | None:
            return Failure.SILENCE
        case _:
            return Failure.OTHER
