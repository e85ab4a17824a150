"""The agent's unix socket, from both sides."""

from __future__ import annotations

import contextlib
import errno
import json
import queue
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import structlog
from structlog.testing import CapturingLogger

from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.observe.agent_socket import (
    MAXIMUM_CONNECTIONS,
    SOCKET_NAME,
    AgentNotRunningError,
    AgentSilentError,
    AgentSocket,
    OtherSchemaError,
    ask_report,
)
from netns_tests.deadline import PATIENCE
from tests.builders import endpoint_slice, service
from tests.observe.node import report_of, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

    from structlog.typing import FilteringBoundLogger

REPORT = report_of(state(service("10.96.0.1"), endpoint_slice("10.244.0.1")))


def logger(lines: CapturingLogger | None = None) -> FilteringBoundLogger:
    wrapper = structlog.make_filtering_bound_logger(0)
    bound: FilteringBoundLogger = structlog.wrap_logger(
        lines or CapturingLogger(), processors=[], wrapper_class=wrapper
    ).bind()
    return bound


class Lines:
    """A log whose lines can be waited for."""

    def __init__(self) -> None:
        self._events: queue.Queue[str] = queue.Queue()
        self.log: FilteringBoundLogger = structlog.wrap_logger(
            None, processors=[self._take], wrapper_class=structlog.make_filtering_bound_logger(0)
        )

    def _take(self, _: object, __: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
        self._events.put(line["event"])
        raise structlog.DropEvent

    def said(self, event: str) -> bool:
        """Wait for the next line, and say whether it is that one."""
        return self._events.get(timeout=60) == event


@contextlib.contextmanager
def agent(
    directory: Path,
    commands: Mapping[str, Callable[[], msgspec.Struct]] | None = None,
    log: FilteringBoundLogger | None = None,
    request_timeout: float = 60,
) -> Iterator[AgentSocket]:
    """Listen as an agent does; a test that waits for a timeout says for which one."""
    found = AgentSocket(directory, commands or {"report": lambda: REPORT}, log or logger(), request_timeout)
    try:
        yield found
    finally:
        found.stop()


@contextlib.contextmanager
def connection(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(directory / SOCKET_NAME))
        yield client


def answer(directory: Path, request: bytes) -> dict[str, Any]:
    with connection(directory) as client:
        client.sendall(request)
        found: dict[str, Any] = json.loads(b"".join(iter(lambda: client.recv(65536), b"")))
        return found


def answers(directory: Path, answer: bytes) -> threading.Thread:
    """Be an agent that gives one client that answer."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / SOCKET_NAME))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            client.recv(65536)
            client.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_client_gets_the_agents_report(tmp_path: Path) -> None:
    with agent(tmp_path):
        assert ask_report(tmp_path) == REPORT


def test_only_its_owner_may_connect(tmp_path: Path) -> None:
    with agent(tmp_path):
        assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (b'{"command":"flush"}\n', "unknown command 'flush', known are report"),
        (b"GET / HTTP/1.1\r\n", "the request is not understood"),
        (b'{"command":"\xff"}\n', "the request is not understood"),
        (b'{"order":"report"}\n', "the request is not understood"),
        (b"x" * 5000, "the request is not understood"),
    ],
)
def test_a_request_that_is_none_is_answered_with_what_is_wrong(
    tmp_path: Path, request_line: bytes, error: str
) -> None:
    with agent(tmp_path):
        found = answer(tmp_path, request_line)
    assert found["schemaVersion"] == 1
    assert found["error"].startswith(error)


def test_without_an_agent_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(AgentNotRunningError, match=r"not running, nobody listens on .*/agent\.sock"):
        ask_report(tmp_path)


def test_the_socket_of_a_dead_agent_is_nobody_and_the_next_agent_replaces_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET_NAME))
    with pytest.raises(AgentNotRunningError):
        ask_report(tmp_path)
    with agent(tmp_path):
        assert ask_report(tmp_path) == REPORT


def test_a_socket_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IpvsProxyError, match=r"file/run/agent.sock: Not a directory; .*--run-directory"):
        AgentSocket(tmp_path / "file" / "run", {}, logger())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_socket_that_there_is_no_room_for_is_made_once_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    no_room = OSError(code, "no room")
    make_directory = Path.mkdir
    tries, room = threading.Semaphore(0), threading.Event()

    def mkdir(path: Path, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of Path.mkdir
        tries.release()
        if not room.is_set():
            raise no_room
        make_directory(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    directory = tmp_path / "run"
    lines = Lines()
    found = AgentSocket(directory, {"report": lambda: REPORT}, lines.log, 60, listen_pause=0.001)
    was_there = found.is_there
    for _ in range(3):
        assert tries.acquire(timeout=60)
    with pytest.raises(AgentNotRunningError):
        ask_report(directory)
    room.set()
    assert lines.said("run directory has room again")
    assert (was_there, found.is_there) == (False, True)
    assert ask_report(directory) == REPORT
    found.stop()
    assert not (directory / SOCKET_NAME).exists()


def test_an_agent_that_waits_for_room_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    found = AgentSocket(tmp_path, {}, logger(), 60, listen_pause=3600)
    found.stop()
    assert not found.is_there


def test_a_client_that_says_nothing_holds_up_nobody(tmp_path: Path) -> None:
    with agent(tmp_path), connection(tmp_path), connection(tmp_path):
        assert ask_report(tmp_path) == REPORT


def test_a_client_that_says_nothing_is_left_alone_after_a_while(tmp_path: Path) -> None:
    with agent(tmp_path, request_timeout=0.01), connection(tmp_path) as client:
        assert client.recv(1) == b""


def test_a_client_that_does_not_read_its_answer_holds_up_nobody(tmp_path: Path) -> None:
    long = msgspec.structs.replace(REPORT, services=REPORT.services * 20_000)
    with agent(tmp_path, {"report": lambda: long}), connection(tmp_path) as client:
        client.sendall(b'{"command":"report"}\n')
        assert ask_report(tmp_path) == long


def test_connections_beyond_the_limit_are_closed_at_once(tmp_path: Path) -> None:
    with agent(tmp_path), contextlib.ExitStack() as clients:
        for _ in range(MAXIMUM_CONNECTIONS):
            clients.enter_context(connection(tmp_path))
        with pytest.raises(AgentSilentError, match=r"agent\.sock"):
            ask_report(tmp_path)


def test_an_agent_that_is_busy_says_so(tmp_path: Path) -> None:
    def busy() -> msgspec.Struct:
        raise TimeoutError

    with agent(tmp_path, {"report": busy}), pytest.raises(AgentSilentError, match="busy, try again"):
        ask_report(tmp_path)


def test_an_answer_that_fails_is_logged_and_the_client_told(tmp_path: Path) -> None:
    def fail() -> msgspec.Struct:
        raise LookupError

    lines = CapturingLogger()
    with agent(tmp_path, {"report": fail}, logger(lines)):
        with pytest.raises(AgentSilentError, match="its log says why"):
            ask_report(tmp_path)
        with pytest.raises(AgentSilentError, match="its log says why"):
            ask_report(tmp_path)
    assert [call.kwargs["command"] for call in lines.calls] == ["report", "report"]


def test_the_end_closes_connections_and_removes_the_socket(tmp_path: Path) -> None:
    with agent(tmp_path) as listening, connection(tmp_path) as client:
        ask_report(tmp_path)  # the connection before this one has been accepted
        listening.stop()
        assert client.recv(1) == b""
    assert not (tmp_path / SOCKET_NAME).exists()


def test_the_end_does_not_wait_for_an_answer_that_is_being_made(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> msgspec.Struct:
        begun.set()
        assert go_on.wait(PATIENCE)
        return REPORT

    with agent(tmp_path, {"report": slow}) as listening, connection(tmp_path) as client:
        client.sendall(b'{"command":"report"}\n')
        assert begun.wait(PATIENCE)
        listening.stop()
        assert client.recv(1) == b""
        go_on.set()


def test_an_agent_of_another_schema_version_is_named_as_such(tmp_path: Path) -> None:
    thread = answers(tmp_path, b'{"schemaVersion": 2, "agents": []}')
    with pytest.raises(OtherSchemaError, match="answers in schema version 2, this program reads 1: use the"):
        ask_report(tmp_path)
    thread.join()


def test_an_agent_that_ends_while_it_is_asked_does_not_answer(tmp_path: Path) -> None:
    thread = answers(tmp_path, b"")
    with pytest.raises(AgentSilentError, match="the agent ended the connection"):
        ask_report(tmp_path)
    thread.join()


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request", b'{"schemaVersion": 1}'])
def test_an_answer_that_is_no_report_is_said_to_be_none(tmp_path: Path, nonsense: bytes) -> None:
    thread = answers(tmp_path, nonsense)
    with pytest.raises(OtherSchemaError, match=r"agent.sock: the answer is no report of an agent"):
        ask_report(tmp_path)
    thread.join()
