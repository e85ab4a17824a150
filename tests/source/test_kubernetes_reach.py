"""The addresses by which the API server is reached: no Service may take them over."""

from __future__ import annotations

import contextlib
import http
import queue
import threading
from typing import TYPE_CHECKING

import pytest
import structlog

from ipvsproxy.source.kubernetes.client import ApiServer as Client
from ipvsproxy.source.kubernetes.reach import Reach, resolve
from ipvsproxy.source.kubernetes.source import KubernetesSource
from ipvsproxy.source.store import Store
from netns_tests.deadline import PATIENCE
from tests import builders
from tests.api_server_state import SERVICES
from tests.builders import address, addresses
from tests.source.following import BRISK, ObservedStore, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ipvsproxy.model.addresses import Address
    from tests.api_server import ApiServer

LOOPBACK = address("127.0.0.1")
FIRST, SECOND = addresses("192.0.2.1", "2001:db8::1"), addresses("192.0.2.2")


class Names:
    """What a name leads to, as the test has it."""

    def __init__(self, *answers: tuple[Address, ...] | OSError) -> None:
        self.asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.answers = list(answers)

    def __call__(self, host: str) -> frozenset[Address]:
        self.asked.put(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return frozenset(answer)


class Told:
    """What the store would be told."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self.known: frozenset[Address] = frozenset()

    def put(self, found: frozenset[Address]) -> None:
        with self._news:
            self.known = found
            self._news.notify_all()

    def wait_for(self, *expected: Address) -> None:
        with self._news:
            assert self._news.wait_for(lambda: self.known == set(expected), PATIENCE), self.known


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def reach(told: Told) -> Iterator[Callable[[Names], Reach]]:
    """Run the thread of what is made of the names, until the test's end."""
    made: list[tuple[Reach, threading.Thread]] = []

    def make(names: Names) -> Reach:
        reach = Reach(told.put, names, structlog.get_logger())
        thread = threading.Thread(target=reach.run, daemon=True)
        thread.start()
        made.append((reach, thread))
        return reach

    yield make
    for each, thread in made:
        each.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("host", ["192.0.2.1", "fd00::10"])
def test_an_address_is_known_at_once_and_looked_up_nowhere(told: Told, host: str) -> None:
    Reach(told.put, Names(OSError("no")), structlog.get_logger()).go_by([host])
    assert told.known == {address(host)}


def test_all_that_a_name_leads_to_is_known(told: Told, reach: Callable[[Names], Reach]) -> None:
    names = Names(FIRST)
    reach(names).go_by(["api.test", "192.0.2.9"])
    told.wait_for(*FIRST, address("192.0.2.9"))
    assert names.asked.get(timeout=PATIENCE) == "api.test"
    assert names.asked.empty()


def test_a_name_is_looked_up_again_when_there_is_doubt_and_its_former_addresses_are_free(
    told: Told, reach: Callable[[Names], Reach]
) -> None:
    one = reach(Names(FIRST, SECOND))
    one.go_by(["api.test"])
    told.wait_for(*FIRST)
    one.doubt()
    told.wait_for(*SECOND)


def test_the_last_answer_stays_while_a_name_leads_nowhere(
    told: Told, reach: Callable[[Names], Reach]
) -> None:
    names = Names(FIRST, OSError("no such name"), SECOND)
    one = reach(names)
    one.go_by(["api.test"])
    told.wait_for(*FIRST)
    with structlog.testing.capture_logs() as logged:
        one.doubt()
        for _ in range(2):
            names.asked.get(timeout=PATIENCE)
        assert told.known == set(FIRST)
        one.doubt()
        told.wait_for(*SECOND)
    assert [(line["event"], line["host"]) for line in logged] == [
        ("name of the API server not found", "api.test")
    ]


def test_a_host_that_the_configuration_names_no_more_is_free(told: Told) -> None:
    one = Reach(told.put, Names(FIRST), structlog.get_logger())
    one.go_by(["192.0.2.1"])
    one.go_by(["192.0.2.2"])
    assert told.known == set(SECOND)


def test_peers_are_known_while_they_are_used_and_the_last_one_until_there_is_another(told: Told) -> None:
    one = Reach(told.put, Names(FIRST), structlog.get_logger())
    with one.used(FIRST[0]):
        assert told.known == {FIRST[0]}
        with one.used(FIRST[1]), one.used(FIRST[0]):
            assert told.known == set(FIRST)
        assert told.known == {FIRST[0]}
    assert told.known == {FIRST[0]}
    with one.used(SECOND[0]), one.used(None):
        assert told.known == set(SECOND)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_resolves_to_itself(host: str) -> None:
    assert resolve(host) == {address(host)}


def test_the_host_of_the_kubeconfig_is_known_before_the_source_starts(
    server: ApiServer, tmp_path: Path
) -> None:
    store = Store()
    KubernetesSource(server.kubeconfig(tmp_path / "kubeconfig"), store, builders.NODE, structlog.get_logger())
    assert store.api_peers == {LOOPBACK}


@pytest.mark.parametrize("host", ["10.96.0.1", "fd00:96::1"])
def test_in_a_pod_the_host_that_the_pod_is_given_is_known(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("SERVICE_TOKEN_FILENAME", "SERVICE_CERT_FILENAME"):
        (tmp_path / name).write_text("anything")
        monkeypatch.setattr(f"kubernetes.config.incluster_config.{name}", str(tmp_path / name))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    Client(None, BRISK, reach=Reach(told.put, Names(FIRST), structlog.get_logger()))
    assert told.known == {address(host)}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HTTPS_PROXY": "http://192.0.2.9:3128"}, ("192.0.2.1", "192.0.2.9")),
        ({"https_proxy": "http://[fd00::9]:3128"}, ("192.0.2.1", "fd00::9")),
        ({}, ("192.0.2.1",)),
    ],
    ids=["proxy", "proxy-of-IPv6", "none"],
)
def test_a_proxys_address_is_known_too(
    told: Told,
    server: ApiServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    expected: tuple[str, ...],
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig", "192.0.2.1")
    kubeconfig.write_text(kubeconfig.read_text().replace("http:", "https:"))
    Client(kubeconfig, BRISK, reach=Reach(told.put, Names(FIRST), structlog.get_logger()))
    assert told.known == set(addresses(*expected))


@contextlib.contextmanager
def running(
    server: ApiServer, directory: Path, look_up: Callable[[str], frozenset[Address]]
) -> Iterator[Seen]:
    """Run a source that has the server by a name that every host knows without asking another one."""
    witness = Witness()
    seen = Seen(witness)
    kubeconfig = server.kubeconfig(directory / "kubeconfig", "localhost")
    source = KubernetesSource(
        kubeconfig, seen, builders.NODE, structlog.get_logger(), limits=BRISK, look_up=look_up
    )
    source.start()
    try:
        yield seen
    finally:
        source.stop()
        source.join(PATIENCE)


class Seen(ObservedStore):
    """A store that lets a test wait for the addresses, too."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self.wait_for = witness.wait_for

    def put_api_peers(self, addresses: Iterable[Address]) -> None:
        super().put_api_peers(addresses)
        self._witness.happened()


def test_where_a_name_leads_and_the_peer_are_known_and_looked_up_again_when_the_connection_fails(
    server: ApiServer, tmp_path: Path
) -> None:
    with running(server, tmp_path, Names(FIRST, SECOND)) as store:
        store.wait_for(lambda: store.synced)
        assert store.api_peers == {*FIRST, LOOPBACK}
        server.go_away()
        store.wait_for(lambda: store.api_peers == {*SECOND, LOOPBACK})


def test_an_answer_that_is_not_the_apis_puts_the_name_in_doubt(server: ApiServer, tmp_path: Path) -> None:
    with running(server, tmp_path, Names(FIRST, SECOND)) as store:
        store.wait_for(lambda: store.synced)
        server.inject(SERVICES, b"<html>\n")
        store.wait_for(lambda: store.api_peers == {*SECOND, LOOPBACK})


def test_what_the_api_itself_refuses_puts_nothing_in_doubt(server: ApiServer, tmp_path: Path) -> None:
    names = Names(FIRST, SECOND)
    with running(server, tmp_path, names) as store:
        store.wait_for(lambda: store.synced)
        watches = len(server.asked(SERVICES))
        server.refuse_once(SERVICES, http.HTTPStatus.GONE)
        server.end_watches()
        server.wait_for(lambda: len(server.asked(SERVICES)) > watches + 1)
        assert store.api_peers == {*FIRST, LOOPBACK}


def test_a_name_that_is_looked_up_for_ever_keeps_no_object_back(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipvsproxy.source.kubernetes.source.ADDRESSES_PATIENCE", 0.01)
    end = threading.Event()

    def look_up(_: str) -> frozenset[Address]:
        end.wait(PATIENCE)
        return frozenset()

    with running(server, tmp_path, look_up) as store:
        store.wait_for(lambda: store.synced)
        assert store.api_peers == {LOOPBACK}
        end.set()
