"""Events on objects: what reaches the API server, and what happens when it does not take them."""

from __future__ import annotations

import datetime as dt
import threading
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from ipvsproxy.model.notices import node_notice
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source.kubernetes import KubernetesSource, client
from ipvsproxy.source.kubernetes.events import ATTEMPTS, NODES_PER_SECOND, QUEUE_LENGTH, EventPublisher, event
from ipvsproxy.source.store import Store
from netns_tests.deadline import PATIENCE
from tests import builders
from tests.api_server_events import problem_of
from tests.api_server_http import RefusedError
from tests.api_server_objects import service
from tests.api_server_state import EVENTS
from tests.source.following import BRISK, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.notices import Told
    from tests.api_server import ApiServer
    from tests.api_server_http import Request

NOW = dt.datetime(2026, 10, 1, 8, 0, 0, 250_000, dt.UTC)
NEW = "new"
UID = "0b1e3b4e-6e6a-4e0e-8a8a-3f4f0e6f7a10"
PORT = Rejection("Service", builders.WEB, "spec.ports[0].port", "70000 is not from 1 to 65535", UID)
ADDRESS = PORT._replace(field="spec.clusterIP", reason="is missing")
OF_NODE = Rejection("Node", ObjectKey("", builders.NODE), "spec.podCIDRs[0]", "is no network", UID)


class Scene:
    """An agent's publisher in front of the server; the pauses that it makes are noted and take no time."""

    def __init__(self, server: ApiServer, directory: Path, node_name: str) -> None:
        self.server = server
        self.witness = Witness()
        self.log: FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=[self.witness.record],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
        )
        self.reasons: dict[Told, str] = {}
        self.pauses: list[float] = []
        self.nodes = 0
        self.kubeconfig = server.kubeconfig(directory / "kubeconfig")
        self.api = client.ApiServer(self.kubeconfig, BRISK)
        self.publisher = EventPublisher(
            node_name,
            lambda told: self.reasons.get(told, ""),
            self.log,
            now=lambda: NOW,
            sleep=self.pauses.append,
        )

    def start(self) -> None:
        self.publisher.start(self.api, lambda: self.nodes, BRISK)

    def offer(self, *told: Told) -> None:
        for each in told:
            self.publisher.offer(each)

    def events(self) -> list[dict[str, Any]]:
        return self.server.state.objects(EVENTS)

    def wait_for_events(self, count: int) -> list[dict[str, Any]]:
        self.server.wait_for(lambda: len(self.events()) == count)
        return self.events()

    def dropped(self, reason: str) -> dict[str, Any]:
        return self.witness.log_line("no Event written", reason=reason)

    def end(self) -> None:
        """Let the thread finish what was offered, and end."""
        last = PORT._replace(reason="is the last")
        self.reasons[last] = "is the last"
        self.offer(last)
        self.dropped("is the last")


@pytest.fixture
def agent(server: ApiServer, tmp_path: Path) -> Iterator[Callable[[str], Scene]]:
    """Return a function that makes the publisher of a node, which is not started."""
    scenes = []

    def make(node_name: str) -> Scene:
        directory = tmp_path / node_name
        directory.mkdir()
        scenes.append(Scene(server, directory, node_name))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.publisher.stop()
        scene.publisher.join(PATIENCE)


@pytest.fixture
def waiting(agent: Callable[[str], Scene]) -> Scene:
    """Return a publisher that is not started."""
    return agent(builders.NODE)


@pytest.fixture
def scene(waiting: Scene) -> Scene:
    """Return a publisher at work."""
    waiting.start()
    return waiting


def troubles(scene: Scene) -> list[str]:
    return [line["event"] for line in scene.witness.logged if line["level"] in ("warning", "error")]


def test_an_event_says_what_kubectl_describe_looks_for(scene: Scene) -> None:
    scene.offer(PORT)
    (found,) = scene.wait_for_events(1)
    name = found["metadata"].pop("name")
    assert name.startswith("web.")
    assert found == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "default"},
        "eventTime": "2026-10-01T08:00:00.250000Z",
        "type": "Warning",
        "reason": "Rejected",
        "action": "Program",
        "note": "spec.ports[0].port: 70000 is not from 1 to 65535",
        "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": "default",
            "name": "web",
            "uid": UID,
        },
        "reportingController": "ipvsproxy",
        "reportingInstance": builders.NODE,
    }


def test_an_event_on_a_node_is_in_the_namespace_default(scene: Scene) -> None:
    scene.offer(OF_NODE)
    (found,) = scene.wait_for_events(1)
    assert found["metadata"]["namespace"] == "default"
    assert found["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": builders.NODE, "uid": UID}


@pytest.mark.parametrize(
    ("kind", "api_version"),
    [("Service", "v1"), ("Endpoints", "v1"), ("EndpointSlice", "discovery.k8s.io/v1"), ("Node", "v1")],
)
def test_an_event_names_the_version_of_its_objects_api(kind: str, api_version: str) -> None:
    found = event(PORT._replace(kind=kind), builders.NODE, NOW)
    assert isinstance(found["regarding"], dict)
    assert found["regarding"]["apiVersion"] == api_version


@pytest.mark.parametrize(
    "rejection",
    [
        PORT._replace(reason="x" * 5000),
        PORT._replace(reason="ä" * 5000),
        PORT._replace(reason="x" + "ä" * 5000),
        PORT._replace(field="", uid=""),
        PORT._replace(key=ObjectKey("default", "a" * 253)),
        PORT._replace(key=ObjectKey("default", "a" * 235 + ".b" * 9)),
        PORT._replace(key=ObjectKey("default", "a" * 234 + "-" * 10 + "b")),
    ],
)
def test_whatever_is_rejected_makes_an_event_that_the_api_takes(rejection: Rejection) -> None:
    assert problem_of(event(rejection, "n" * 253, NOW), "default") is None


def test_a_notice_on_the_own_node_names_it_as_kube_proxy_does(scene: Scene) -> None:
    scene.offer(node_notice(builders.NODE, "RestartNeeded", "hostnameOverride is b by now"))
    (found,) = scene.wait_for_events(1)
    assert found["metadata"]["namespace"] == "default"
    assert (found["type"], found["reason"], found["note"]) == (
        "Warning",
        "RestartNeeded",
        "hostnameOverride is b by now",
    )
    assert found["regarding"] == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": builders.NODE,
        "uid": builders.NODE,
    }


def test_a_notice_that_is_no_warning_is_another_one_each_time() -> None:
    start = node_notice(builders.NODE, "Starting", "ipvsproxy programs this node's Services", warning=False)
    names = {
        str(event(told, builders.NODE, NOW + dt.timedelta(seconds=seconds))["metadata"])
        for told in (start, start._replace(warning=True))
        for seconds in (0, 1)
    }
    assert event(start, builders.NODE, NOW)["type"] == "Normal"
    assert problem_of(event(start, builders.NODE, NOW), "default") is None
    assert len(names) == 3


GOOD = event(PORT, builders.NODE, NOW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("apiVersion", "v1"),
        ("metadata", {"namespace": "shop", "name": "web.1"}),
        ("metadata", {"namespace": "default", "name": "web_1"}),
        ("metadata", {"namespace": "default", "name": "a" * 254}),
        ("eventTime", ""),
        ("eventTime", "2026-10-01T08:00:00Z"),
        ("type", "Error"),
        ("reason", ""),
        ("action", ""),
        ("reportingController", ""),
        ("reportingInstance", ""),
        ("reportingInstance", "n" * 129),
        ("note", "ä" * 513),
        ("regarding", {"kind": "Service", "namespace": "shop", "name": "web"}),
        ("regarding", {"kind": "Service", "namspace": "default", "name": "web"}),
        ("message", "of core/v1"),
        ("series", {"count": 1}),
    ],
)
def test_the_server_of_these_tests_refuses_what_kubernetes_does(field: str, value: object) -> None:
    assert problem_of(GOOD, "default") is None
    assert problem_of(GOOD | {field: value}, "default") is not None


def test_a_long_reason_keeps_its_beginning() -> None:
    note = event(PORT._replace(reason="ä" * 5000), builders.NODE, NOW)["note"]
    assert isinstance(note, str)
    assert note.startswith("spec.ports[0].port: äää")
    assert len(note.encode()) == 1024


def test_a_reason_about_the_whole_object_stands_alone() -> None:
    assert event(PORT._replace(field=""), builders.NODE, NOW)["note"] == PORT.reason


def test_a_broken_object_of_the_api_gets_an_event(scene: Scene) -> None:
    broken = service("broken", "10.96.0.300")
    scene.server.state.apply(broken)
    store = Store(scene.publisher.offer)
    source = KubernetesSource(scene.kubeconfig, store, builders.NODE, scene.log, limits=BRISK)
    source.start()
    (found,) = scene.wait_for_events(1)
    source.stop()
    source.join(PATIENCE)
    assert found["regarding"]["uid"] == broken["metadata"]["uid"]
    assert found["note"].startswith("spec.clusterIPs[0]: ")


def test_a_source_that_stops_ends_the_requests_of_its_api_server(waiting: Scene) -> None:
    source = KubernetesSource(waiting.kubeconfig, Store(), builders.NODE, waiting.log, limits=BRISK)
    waiting.publisher.start(source.api_server, lambda: 0, BRISK)
    source.stop()
    waiting.offer(PORT)
    assert waiting.witness.log_line("Event not written")["reason"] == "the agent is stopping"


def test_all_agents_write_one_event_between_them(agent: Callable[[str], Scene], server: ApiServer) -> None:
    first, second = agent("node-a"), agent("node-b")
    first.start()
    first.offer(PORT)
    first.wait_for_events(1)
    second.start()
    second.offer(PORT, ADDRESS)
    found = second.wait_for_events(2)
    assert {each["note"]: each["reportingInstance"] for each in found} == {
        "spec.ports[0].port: 70000 is not from 1 to 65535": "node-a",
        "spec.clusterIP: is missing": "node-b",
    }
    assert len(server.asked(EVENTS)) == 3
    assert troubles(second) == []


@pytest.mark.parametrize(
    "other",
    [
        PORT._replace(uid="another"),
        PORT._replace(field="spec.ports[1].port"),
        PORT._replace(reason="80000 is not from 1 to 65535"),
        PORT._replace(kind="Endpoints"),
    ],
)
def test_another_object_field_or_reason_makes_another_event(scene: Scene, other: Rejection) -> None:
    scene.offer(PORT, other)
    scene.wait_for_events(2)


def test_what_the_filter_is_against_is_not_written(scene: Scene) -> None:
    scene.reasons[PORT] = "too many Events"
    scene.offer(PORT, ADDRESS)
    (found,) = scene.wait_for_events(1)
    assert found["note"].startswith("spec.clusterIP")
    line = scene.dropped("too many Events")
    assert (line["level"], line["kind"], line["object"]) == ("debug", "Service", "default/web")


def test_what_is_offered_before_the_start_is_written_after_it(waiting: Scene) -> None:
    waiting.offer(PORT)
    assert waiting.server.asked(EVENTS) == []
    waiting.start()
    waiting.wait_for_events(1)


def test_an_offer_never_waits(waiting: Scene) -> None:
    waiting.offer(*[PORT] * (QUEUE_LENGTH + 1))
    assert len(waiting.witness.log_lines("no Event written", reason="too many are waiting")) == 1


def test_agents_of_a_large_cluster_spread_their_requests(scene: Scene) -> None:
    scene.nodes = 5000
    scene.offer(*(PORT._replace(reason=f"{number}") for number in range(50)))
    scene.wait_for_events(50)
    assert max(scene.pauses) <= 5000 / NODES_PER_SECOND
    assert len({*scene.pauses}) == 50


def test_a_missing_permission_is_reported_once_by_its_name_until_it_is_given(scene: Scene) -> None:
    scene.server.forbidden.add("events")
    scene.offer(PORT, OF_NODE, ADDRESS)
    line = scene.witness.log_line("API server refuses Events")
    assert line["level"] == "error"
    assert line["status"] == 403
    assert line["reason"] == 'events is forbidden: User "agent" cannot create resource "events"'
    assert line["remedy"] == "allow the agent's user to create events of events.k8s.io"
    scene.end()
    assert troubles(scene) == ["API server refuses Events"]
    scene.server.forbidden.clear()
    scene.offer(PORT)
    scene.wait_for_events(1)
    scene.witness.log_line("Events are written again")


def test_a_refused_token_is_reported_and_a_renewed_one_used(scene: Scene) -> None:
    scene.server.token = NEW
    scene.offer(PORT)
    assert scene.witness.log_line("API server refuses Events")["status"] == 401
    scene.server.kubeconfig(scene.kubeconfig)
    scene.offer(ADDRESS, OF_NODE)
    scene.server.wait_for(lambda: len(scene.events()) >= 1)


def test_an_object_whose_namespace_is_being_deleted_is_nobodys_trouble(scene: Scene) -> None:
    scene.server.terminating.add("shop")
    scene.offer(PORT._replace(key=ObjectKey("shop", "web")), PORT)
    scene.wait_for_events(1)
    assert troubles(scene) == []


def fail_times(scene: Scene, times: int, failure: Exception) -> None:
    """Let so many requests fail."""
    failing = [failure] * times

    def fail(_: Request) -> None:
        if failing:
            raise failing.pop()

    scene.server.intercept = fail


@pytest.mark.parametrize(
    "failure", [ConnectionAbortedError(), RefusedError(429, "too many requests"), RefusedError(503, "busy")]
)
def test_what_may_pass_is_tried_again(scene: Scene, failure: Exception) -> None:
    fail_times(scene, ATTEMPTS - 1, failure)
    scene.offer(PORT)
    scene.wait_for_events(1)
    assert len(scene.server.asked(EVENTS)) == ATTEMPTS
    assert len(scene.pauses) == 1 + ATTEMPTS - 1
    assert troubles(scene) == []


def test_an_event_that_fails_again_and_again_is_dropped_and_the_next_one_is_written(scene: Scene) -> None:
    fail_times(scene, 2 * ATTEMPTS, RefusedError(503, "busy"))
    scene.offer(PORT, PORT, ADDRESS)
    (found,) = scene.wait_for_events(1)
    assert found["note"].startswith("spec.clusterIP")
    (line,) = scene.witness.log_lines("Event not written")
    assert (line["level"], line["kind"], line["object"]) == ("warning", "Service", "default/web")
    assert (line["reason"], line["status"]) == ("busy", 503)
    scene.witness.log_line("Events are written again")


def test_what_can_not_pass_is_not_tried_again(scene: Scene) -> None:
    fail_times(scene, 1, RefusedError(422, "is invalid"))
    scene.offer(PORT)
    assert scene.witness.log_line("Event not written")["status"] == 422
    assert len(scene.server.asked(EVENTS)) == 1


def test_an_api_server_that_is_away_costs_an_event_and_nothing_else(scene: Scene) -> None:
    scene.server.go_away()
    scene.offer(PORT)
    line = scene.witness.log_line("Event not written")
    assert (line["reason"], line["status"]) == ("Connection refused", 0)
    scene.server.come_back()
    scene.offer(ADDRESS)
    scene.wait_for_events(1)


def test_a_fault_is_shown_with_its_traceback_and_ends_nothing(scene: Scene) -> None:
    scene.offer(PORT._replace(kind="Unknown"), PORT)
    scene.wait_for_events(1)
    assert isinstance(scene.witness.log_line("Event failed unexpectedly")["exc_info"], KeyError)


@pytest.mark.parametrize("busy", [True, False])
def test_stop_ends_the_thread_also_in_a_pause(waiting: Scene, *, busy: bool) -> None:
    pausing = threading.Event()

    def nodes() -> int:
        pausing.set()
        return 10**9

    publisher = EventPublisher(builders.NODE, lambda _: "", waiting.log)
    publisher.start(waiting.api, nodes, BRISK)
    assert "events" in {thread.name for thread in threading.enumerate()}
    if busy:
        publisher.offer(PORT)
        pausing.wait(PATIENCE)
    publisher.stop()
    publisher.join(PATIENCE)
    assert "events" not in {thread.name for thread in threading.enumerate()}
    assert waiting.server.asked(EVENTS) == []


def test_a_publisher_that_was_not_started_can_be_stopped(waiting: Scene) -> None:
    waiting.publisher.stop()
    waiting.publisher.join(PATIENCE)
