"""One server, many listeners, and clients that mean no good."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest
import urllib3

from ipvsproxy.model.addresses import parse_address
from ipvsproxy.observe.http_connection import Later, Response
from ipvsproxy.observe.http_server import ConfiguredListener, Place
from netns_tests.deadline import PATIENCE
from tests.observe.http_clients import (
    IPV6_LOOPBACK,
    LOOPBACK,
    OTHER_LOOPBACK,
    PATIENT,
    Events,
    anywhere,
    ask,
    client,
    everything,
    free_port,
    get,
    http_server,
    loopback,
    port_in_use,
    refuses,
)

if TYPE_CHECKING:
    from ipvsproxy.observe.http_connection import Handler

REQUEST = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"
LAST_REQUEST = b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"


def says(text: str) -> Handler:
    return lambda _: Response(200, text.encode())


def echo(path: str) -> Response:
    return Response(200, path.encode())


def only_healthz(path: str) -> Response | None:
    return Response(200, b"fine") if path == "/healthz" else None


def send_for_ever(connection: socket.socket, chunk: bytes) -> None:
    while True:
        connection.sendall(chunk)


def keep_alive(port: int) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE))


def test_an_answer_has_a_date_a_length_and_its_type() -> None:
    with http_server() as server:
        found = get(server.listen(loopback(), says("hello")).port)
    assert (found.status, found.body) == (200, b"hello")
    assert found.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert found.headers["Content-Length"] == "5"
    assert found.headers["X-Content-Type-Options"] == "nosniff"
    assert found.headers["Date"].endswith(" GMT")


def test_a_handler_s_own_headers_go_out() -> None:
    with http_server() as server:
        port = server.listen(
            loopback(), lambda _: Response(503, b"{}", "application/json", (("X-N", "4"),))
        ).port
        found = get(port)
    assert (found.status, found.headers["X-N"], found.headers["Content-Type"]) == (
        503,
        "4",
        "application/json",
    )


def test_a_pool_of_connections_is_served() -> None:
    with http_server() as server, urllib3.PoolManager() as pool:
        port = server.listen(loopback(), says("hello")).port
        url = f"http://127.0.0.1:{port}/"
        assert [pool.request("GET", url, timeout=PATIENCE).data for _ in range(5)] == [b"hello"] * 5


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/healthz", "/healthz"),
        ("/healthz?verbose=1", "/healthz"),
        ("http://node:10256/healthz?verbose", "/healthz"),
        ("http://node", "/"),
        ("//healthz", "//healthz"),
        ("*", "*"),
    ],
)
def test_the_handler_gets_the_path(target: str, path: str) -> None:
    with http_server() as server:
        assert get(server.listen(loopback(), echo).port, target).body == path.encode()


def test_what_no_handler_knows_is_not_found() -> None:
    with http_server() as server:
        port = server.listen(loopback(), only_healthz).port
        assert get(port, "/healthz").status == 200
        assert get(port, "/metrics").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"])
def test_a_method_that_changes_something_is_not_allowed(method: str) -> None:
    with http_server() as server, keep_alive(server.listen(loopback(), says("hello")).port) as connection:
        found = ask(connection, method=method)
        assert (found.status, found.headers["Allow"]) == (405, "GET, HEAD")
        assert ask(connection).status == 200


def test_a_head_request_gets_the_headers_alone() -> None:
    with http_server() as server, keep_alive(server.listen(loopback(), says("hello")).port) as connection:
        found = ask(connection, method="HEAD")
        assert (found.status, found.headers["Content-Length"], found.body) == (200, "5", b"")
        assert ask(connection).body == b"hello"


def test_a_connection_serves_one_request_after_the_other() -> None:
    with http_server() as server, keep_alive(server.listen(loopback(), echo).port) as connection:
        assert ask(connection, "/1").body == b"/1"
        connected = connection.sock
        assert ask(connection, "/2").body == b"/2"
        assert connection.sock is connected


@pytest.mark.parametrize("request_bytes", [b"GET / HTTP/1.0\r\n\r\n", LAST_REQUEST])
def test_a_client_of_one_request_sees_the_end_of_the_connection(request_bytes: bytes) -> None:
    with http_server() as server, client(server.listen(loopback(), says("hello")).port) as connection:
        connection.sendall(request_bytes)
        found = everything(connection)
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert found.endswith(b"\r\n\r\nhello")


def test_pipelined_requests_are_answered_in_their_order() -> None:
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: node\r\n\r\n" % number for number in range(200))
    with http_server() as server, client(server.listen(loopback(), echo).port) as connection:
        connection.sendall(requests + LAST_REQUEST)
        found = everything(connection)
    bodies = [answer.rpartition(b"\r\n\r\n")[2] for answer in found.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"/%d" % number for number in range(200)] + [b"/"]


def test_a_client_that_ends_its_side_gets_all_its_answers() -> None:
    with http_server() as server, client(server.listen(loopback(), echo).port) as connection:
        connection.sendall(REQUEST * 3)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).count(b"200 OK") == 3


def test_a_request_may_come_byte_by_byte() -> None:
    with http_server() as server, client(server.listen(loopback(), says("hello")).port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in LAST_REQUEST:
            connection.sendall(bytes([byte]))
        assert everything(connection).endswith(b"hello")


def test_a_request_with_a_body_leaves_the_connection_usable() -> None:
    with http_server() as server, client(server.listen(loopback(), says("hello")).port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: node\r\nContent-Length: 3\r\n\r\nabc" + LAST_REQUEST)
        assert everything(connection).count(b"200 OK") == 2


def test_a_wish_for_another_protocol_is_not_granted() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: node\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    with http_server() as server, client(server.listen(loopback(), says("hello")).port) as connection:
        connection.sendall(upgrade + LAST_REQUEST)
        assert everything(connection).count(b"200 OK") == 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: node\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: node\r\nHost: other\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
    ],
    ids=repr,
)
def test_what_is_no_request_is_refused(garbage: bytes) -> None:
    with http_server() as server, client(server.listen(loopback(), says("hello")).port) as connection:
        connection.sendall(garbage)
        assert everything(connection).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_half_a_request_is_refused() -> None:
    with http_server() as server, client(server.listen(loopback(), says("hello")).port) as connection:
        connection.sendall(REQUEST[:20])
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).startswith(b"HTTP/1.1 400 ")


def test_a_head_that_is_too_large_is_refused_while_it_comes() -> None:
    limits = PATIENT._replace(request_size=1000)
    with (
        http_server(limits=limits) as server,
        client(server.listen(loopback(), says("hello")).port) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: node\r\nX: " + b"x" * 2000)
        assert everything(connection).startswith(b"HTTP/1.1 431 ")


def test_a_body_that_is_too_large_is_refused_and_costs_the_client_no_reset() -> None:
    limits = PATIENT._replace(request_size=1000)
    with (
        http_server(limits=limits) as server,
        client(server.listen(loopback(), says("hello")).port) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: node\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000)
        found = b"".join(iter(lambda: connection.recv(65536), b""))
    assert found.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: node\r\nContent-Length: 9\r\n\r\nab"]
)
def test_a_request_that_takes_too_long_is_given_up(sent: bytes) -> None:
    limits = PATIENT._replace(request_timeout=0.05)
    with (
        http_server(limits=limits) as server,
        client(server.listen(loopback(), says("hello")).port) as connection,
    ):
        connection.sendall(sent)
        assert everything(connection) == b""


def test_a_client_that_keeps_its_connection_too_long_without_a_request_loses_it() -> None:
    limits = PATIENT._replace(idle_timeout=0.05)
    with (
        http_server(limits=limits) as server,
        client(server.listen(loopback(), says("hello")).port) as connection,
    ):
        connection.sendall(REQUEST)
        assert everything(connection).endswith(b"hello")


def test_a_later_request_of_a_connection_may_take_no_longer_than_the_first() -> None:
    limits = PATIENT._replace(request_timeout=0.05)
    with (
        http_server(limits=limits) as server,
        client(server.listen(loopback(), says("hello")).port) as connection,
    ):
        connection.sendall(REQUEST)
        answer = b""
        while not answer.endswith(b"hello"):
            answer += connection.recv(65536)
        connection.sendall(b"GET")
        assert everything(connection) == b""


def test_a_refused_client_that_stays_loses_its_connection() -> None:
    limits = PATIENT._replace(request_timeout=0.05)
    with (
        http_server(limits=limits) as server,
        client(server.listen(loopback(), says("hello")).port) as connection,
    ):
        connection.sendall(b"garbage\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 400 ")
        # Half closed so far; what is sent to a connection that is gone is answered by a reset.
        with pytest.raises(OSError, match=r"reset|pipe"):
            send_for_ever(connection, b"x")


def test_a_refused_client_that_goes_on_sending_loses_its_connection() -> None:
    with http_server() as server, client(server.listen(loopback(), says("hello")).port) as connection:
        connection.sendall(b"garbage\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 400 ")
        with pytest.raises(OSError, match=r"reset|pipe"):
            send_for_ever(connection, bytes(65536))


def test_a_client_that_does_not_read_its_answer_holds_up_nobody() -> None:
    with http_server() as server:
        port = server.listen(loopback(), lambda _: Response(200, bytes(20_000_000))).port
        with client(port) as reluctant:
            reluctant.sendall(REQUEST * 10)
            assert len(get(port).body) == 20_000_000


def test_a_client_that_does_not_read_its_answer_in_time_loses_the_rest() -> None:
    limits = PATIENT._replace(request_timeout=0.05)
    with http_server(limits=limits) as server:
        port = server.listen(loopback(), lambda _: Response(200, bytes(50_000_000))).port
        with client(port) as reluctant:
            reluctant.sendall(REQUEST)
            reluctant.recv(1)
            # Whose time begins later, and is the same, is given up later.
            with client(port) as silent:
                assert everything(silent) == b""
            assert len(everything(reluctant)) < 50_000_000


def test_who_waits_longest_makes_room_for_a_new_client() -> None:
    limits = PATIENT._replace(connections=3)
    with http_server(limits=limits) as server, contextlib.ExitStack() as stack:
        port = server.listen(loopback(), says("hello")).port
        used, silent, other = (stack.enter_context(keep_alive(port)) for _ in range(3))
        for connection in (used, silent, other):
            ask(connection)
        ask(used)
        assert get(port).body == b"hello"
        assert silent.sock.recv(1) == b""
        connected = used.sock
        assert ask(used).body == b"hello"
        assert used.sock is connected


def test_a_flood_at_one_listener_leaves_the_clients_of_others_alone() -> None:
    limits = PATIENT._replace(connections=2)
    with http_server(limits=limits) as server, contextlib.ExitStack() as stack:
        flooded, quiet = (server.listen(loopback(), says("hello")).port for _ in range(2))
        patient = stack.enter_context(keep_alive(quiet))
        ask(patient)
        connected = patient.sock
        for _ in range(20):
            stack.enter_context(client(flooded))
        assert get(flooded).body == b"hello"
        ask(patient)
        assert patient.sock is connected


def test_all_listeners_together_have_a_limit() -> None:
    limits = PATIENT._replace(all_connections=2)
    with http_server(limits=limits) as server, contextlib.ExitStack() as stack:
        ports = [server.listen(loopback(), says("hello")).port for _ in range(3)]
        first, second, third = (stack.enter_context(keep_alive(port)) for port in ports)
        for connection in (first, second, third):
            ask(connection)
        assert first.sock.recv(1) == b""


def test_clients_that_reset_their_connections_leave_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    events = Events()
    with http_server(events) as server:
        port = server.listen(loopback(), says("hello" * 100_000)).port
        for sent in (b"", b"GET", REQUEST, LAST_REQUEST, b"garbage\r\n\r\n", REQUEST * 50) * 20:
            with client(port) as connection:
                connection.sendall(sent)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert get(port).status == 200
    assert events.names == []
    assert capfd.readouterr().err == ""


def test_a_handler_that_fails_is_logged_and_the_client_told() -> None:
    def fail(_path: str) -> Response:
        raise LookupError

    events = Events()
    with http_server(events) as server, keep_alive(server.listen(loopback(), fail).port) as connection:
        assert ask(connection, "/broken").status == 500
        assert ask(connection, "/broken").status == 500
    assert [(entry["event"], entry["path"]) for entry in events.capture.entries] == [
        ("no answer for an HTTP client", "/broken")
    ] * 2


def test_all_addresses_are_those_of_both_families() -> None:
    with http_server() as server:
        for place in (anywhere(), Place(parse_address("0.0.0.0"), 0), Place(parse_address("::"), 0)):
            port = server.listen(place, says("hello")).port
            for host in ("127.0.0.1", "127.0.0.2", "::1"):
                assert get(port, host=host).body == b"hello"


def test_one_address_is_that_one_alone() -> None:
    with http_server() as server:
        port = server.listen(Place(OTHER_LOOPBACK, 0), says("hello")).port
        assert get(port, host="127.0.0.2").body == b"hello"
        assert refuses(port, "127.0.0.1")
        port = server.listen(Place(IPV6_LOOPBACK, 0), says("hello")).port
        assert get(port, host="::1").body == b"hello"
        assert refuses(port, "127.0.0.1")


def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    with http_server() as server, port_in_use() as port:
        for place in (loopback(port), anywhere(port)):
            with pytest.raises(OSError, match="in use") as raised:
                server.listen(place, says("hello"))
            assert raised.value.errno == errno.EADDRINUSE


def test_a_listener_that_closes_takes_its_clients_along_and_nobody_else_s() -> None:
    with http_server() as server, contextlib.ExitStack() as stack:
        leaving, staying = (server.listen(loopback(), says("hello")) for _ in range(2))
        lost, kept = (stack.enter_context(keep_alive(each.port)) for each in (leaving, staying))
        for connection in (lost, kept):
            ask(connection)
        connected = kept.sock
        port = leaving.port
        leaving.close()
        assert refuses(port)
        assert lost.sock.recv(1) == b""
        ask(kept)
        assert kept.sock is connected


def test_the_port_of_a_closed_listener_is_free_at_once() -> None:
    with http_server() as server:
        port = server.listen(loopback(), says("0")).port
        listener = server.listen(anywhere(free_port()), says("all"))
        for number in range(50):
            place = loopback(listener.port) if number % 2 else anywhere(listener.port)
            listener.close()
            listener = server.listen(place, says(str(number)))
            assert get(listener.port).body == str(number).encode()
        assert get(port).body == b"0"


def test_stopping_closes_everything_whatever_clients_wait_for() -> None:
    with contextlib.ExitStack() as clients:
        with http_server() as server:
            port = server.listen(loopback(), lambda _: Response(200, bytes(20_000_000))).port
            idle = clients.enter_context(keep_alive(port))
            ask(idle)
            for sent in (b"", b"GET", REQUEST):
                clients.enter_context(client(port)).sendall(sent)
        assert idle.sock.recv(1) == b""
        assert refuses(port)


def test_a_listener_that_comes_after_the_end_is_nobody_s_error() -> None:
    with http_server() as server:
        pass
    for thread in threading.enumerate():
        if thread.name == "http":
            thread.join(PATIENCE)
    place = loopback(free_port())
    server.listen(place, says("hello"))
    assert refuses(place.port)


def test_a_configured_address_is_tried_until_it_can_be_had_and_reported_once() -> None:
    events = Events()
    with http_server() as server:
        with port_in_use() as port:
            listener = ConfiguredListener(
                server, "healthzBindAddress", Place(LOOPBACK, port), says("hello"), events.log
            )
            listener.retry()
            before = listener.port
        listener.retry()
        listener.retry()
        assert (before, listener.port) == (None, port)
        assert get(port).body == b"hello"
    place = f"127.0.0.1:{port}"
    assert [dict(entry) for entry in events.capture.entries] == [
        {
            "event": "HTTP server not listening",
            "log_level": "error",
            "setting": "healthzBindAddress",
            "address": place,
            "reason": "Address already in use",
        },
        {
            "event": "HTTP server listening after all",
            "log_level": "info",
            "setting": "healthzBindAddress",
            "address": place,
        },
    ]


def test_a_setting_without_an_address_is_no_listener() -> None:
    events = Events()
    with http_server() as server:
        listener = ConfiguredListener(server, "healthzBindAddress", None, says("hello"), events.log)
        listener.retry()
        assert listener.port is None
    assert events.names == []


def test_a_moved_listener_answers_there_and_no_longer_here() -> None:
    events = Events()
    with http_server() as server:
        here, there = free_port(), free_port()
        listener = ConfiguredListener(
            server, "metricsBindAddress", Place(LOOPBACK, here), says("hello"), events.log
        )
        listener.move(Place(OTHER_LOOPBACK, there))
        assert get(there, host="127.0.0.2").body == b"hello"
        assert refuses(here)
        listener.move(None)
        listener.retry()
        assert refuses(there, "127.0.0.2")
        listener.move(Place(LOOPBACK, here))
        assert get(here).body == b"hello"
    assert events.names == []


def test_a_move_to_where_it_is_disturbs_nobody() -> None:
    with http_server() as server:
        place = Place(LOOPBACK, free_port())
        listener = ConfiguredListener(server, "metricsBindAddress", place, says("hello"), Events().log)
        with keep_alive(place.port) as connection:
            ask(connection)
            connected = connection.sock
            listener.move(place)
            ask(connection)
            assert connection.sock is connected


def test_an_answer_that_takes_long_holds_up_no_other() -> None:
    answering = threading.Event()

    def slowly() -> Response:
        assert answering.wait(PATIENCE)
        return Response(200, b"at last")

    with http_server() as server:
        slow = server.listen(loopback(), lambda _: Later(slowly)).port
        quick = server.listen(loopback(), says("hello")).port
        with client(slow) as waiting:
            waiting.sendall(REQUEST)
            assert get(quick).body == b"hello"
            answering.set()
            assert b"at last" in waiting.recv(65536)


def test_an_answer_that_fails_elsewhere_is_a_500_and_is_logged() -> None:
    events = Events()

    def fail() -> Response:
        raise LookupError

    with http_server(events) as server:
        port = server.listen(loopback(), lambda _: Later(fail)).port
        assert get(port).status == 500
    assert events.names == ["no answer for an HTTP client"]
