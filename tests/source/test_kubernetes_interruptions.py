"""What happens when connections break, stall or are refused, and when the API server is away for long."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.source.kubernetes import client
from ipvsproxy.source.kubernetes.client import ApiError
from netns_tests.deadline import PATIENCE
from tests.api_server_http import event, status
from tests.api_server_objects import node, service
from tests.api_server_state import SERVICES
from tests.builders import WEB
from tests.source.following import BRISK, Agent, ObservedStore, following

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.model.objects import Service
    from ipvsproxy.model.reasons import Rejection
    from tests.api_server import ApiServer
    from tests.api_server_http import Request

KEEPALIVE_TIMER = "02"  # of /proc/net/tcp, Documentation/networking/proc_net_tcp.rst


def all_watch(server: ApiServer) -> None:
    server.wait_for(lambda: len(server.watches) == 3)


def test_a_watch_that_was_cut_resumes_after_the_last_event(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")
        reached = str(server.state.revision)
        server.cut_all()
        server.state.apply(service("news", "10.96.0.3"))
        agent.wait_for_names("mail", "news", "web")
        assert server.asked(SERVICES)[1]["resourceVersion"] == reached
        assert all("watch" in query for query in server.asked(SERVICES))


def test_a_bookmark_moves_the_place_to_resume_from(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        all_watch(server)
        server.state.apply(node("node-c"))
        server.bookmark()
        reached = str(server.state.revision)
        server.end_watches()
        server.wait_for(lambda: len(server.asked(SERVICES)) > 1)
        assert server.asked(SERVICES)[1]["resourceVersion"] == reached


def test_a_watch_that_ends_in_good_order_is_followed_by_another_without_a_word(
    server: ApiServer, tmp_path: Path
) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        all_watch(server)
        server.bookmark()
        server.end_watches()
        server.wait_for(lambda: len(server.asked(SERVICES)) > 1)
        assert not agent.witness.log_lines("watch interrupted")


def test_a_watch_that_ends_before_any_event_counts_as_a_failure(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.cut_all()
        server.wait_for(lambda: len(server.asked(SERVICES)) > 1)
        all_watch(server)
        server.end_watches()
        agent.witness.log_line("watch interrupted", reason="the watch ended before any event")


@pytest.mark.parametrize("gone_at_once", [True, False])
def test_objects_deleted_during_an_outage_are_found_by_the_next_list(
    server: ApiServer, tmp_path: Path, *, gone_at_once: bool
) -> None:
    server.gone_at_once = gone_at_once
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.go_away()
        server.state.delete("Service", "default", "web")
        server.state.delete("EndpointSlice", "default", "web-1")
        server.state.apply(service("mail", "10.96.0.2"))
        server.state.compact()
        server.come_back()
        agent.wait_for(lambda: agent.names() == {"mail"} and not agent.store.state(WEB).slices)
        agent.witness.log_line("resource version expired, listing anew", resource="services")


def test_a_place_that_is_gone_leads_to_a_new_list_without_a_pause(server: ApiServer, tmp_path: Path) -> None:
    patient = dataclasses.replace(BRISK, first_pause=1e6, longest_pause=1e6)
    with following(server, tmp_path, patient) as agent:
        agent.wait_until_synced()
        all_watch(server)
        server.inject(SERVICES, event("ERROR", status(410, "too old resource version")))
        server.wait_for(lambda: sum("sendInitialEvents" in query for query in server.asked(SERVICES)) == 2)


def test_an_outage_changes_nothing_in_the_store(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        agent.store.take()
        before = agent.store.state(WEB)
        server.go_away()
        for resource in ("services", "endpointslices", "nodes"):
            agent.witness.log_line("watch interrupted again", resource=resource, reason="Connection refused")
        assert agent.store.state(WEB) == before
        server.come_back()
        agent.witness.log_line("API server answers again", url=server.url)
        assert agent.store.take() == {}


def test_an_api_server_that_is_away_at_the_start_is_waited_for(server: ApiServer, tmp_path: Path) -> None:
    server.go_away()
    with following(server, tmp_path) as agent:
        line = agent.witness.log_line("watch interrupted", resource="services")
        assert line["url"] == server.url
        server.come_back()
        agent.wait_until_synced()


def test_a_connection_that_falls_silent_is_given_up(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path, dataclasses.replace(BRISK, silence=0.2)) as agent:
        agent.wait_until_synced()
        all_watch(server)
        server.fall_silent()
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")
        agent.witness.log_line("watch interrupted", reason="nothing came for 0.2 s")


def test_a_server_that_takes_a_connection_and_shakes_no_hands_is_given_up_as_one_that_takes_none(
    server: ApiServer, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")
        port = listening.getsockname()[1]
        kubeconfig.write_text(kubeconfig.read_text().replace(server.url, f"https://127.0.0.1:{port}"))
        api = client.ApiServer(kubeconfig, dataclasses.replace(BRISK, connect=0.05))
        with pytest.raises(ApiError, match=r"^no connection within 0\.05 s$"), api.get(SERVICES.path, {}, 60):
            pass


def test_the_kernel_probes_idle_connections(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        agent.witness.log_line("node addresses listed")
        port = f":{int(server.url.rpartition(':')[2]):04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    timers = [row[5].partition(":")[0] for row in rows if row[2].endswith(port) and row[3] == "01"]
    assert len(timers) >= 3
    assert set(timers) == {KEEPALIVE_TIMER}


@pytest.mark.parametrize("cleanly", [True, False])
def test_a_line_that_the_end_of_a_stream_cuts_off_is_not_taken(
    server: ApiServer, tmp_path: Path, *, cleanly: bool
) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        all_watch(server)
        ghost = service("ghost", "10.96.0.5")
        ghost["metadata"]["resourceVersion"] = str(server.state.revision)
        server.inject(SERVICES, event("ADDED", json.dumps(ghost).encode())[:-1])
        if cleanly:
            server.end_watches()
        else:
            server.cut_all()
        server.wait_for(lambda: len(server.asked(SERVICES)) > 1)
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")


def test_a_connection_that_closes_without_an_answer_is_reported(server: ApiServer, tmp_path: Path) -> None:
    def close(request: Request) -> None:
        if request.resource == SERVICES.name:
            server.intercept = lambda _: None
            raise ConnectionAbortedError

    server.intercept = close
    with following(server, tmp_path) as agent:
        agent.witness.log_line("watch interrupted", reason="Remote end closed connection without response")
        agent.wait_until_synced()


@pytest.mark.parametrize(
    "line",
    [
        b"<html>the proxy is broken</html>\n",
        b'{"type":"UNHEARD-OF","object":{}}\n',
        event("ERROR", status(500, "etcd is broken")),
    ],
)
def test_a_line_that_is_no_event_leads_to_a_new_list(server: ApiServer, tmp_path: Path, line: bytes) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        all_watch(server)
        server.inject(SERVICES, line)
        server.wait_for(lambda: sum("sendInitialEvents" in query for query in server.asked(SERVICES)) == 2)
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")


@pytest.mark.parametrize(("code", "lists"), [(429, 1), (503, 1), (500, 2), (504, 2)])
def test_a_refused_watch_resumes_unless_the_place_is_in_doubt(
    server: ApiServer, tmp_path: Path, code: int, lists: int
) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.refuse_once(SERVICES, code)
        server.cut_all()
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")
        agent.witness.log_line("watch interrupted", status=code)
    assert sum("sendInitialEvents" in query for query in server.asked(SERVICES)) == lists


def test_pauses_begin_small_again_after_progress(server: ApiServer, tmp_path: Path) -> None:
    # Doubled at each of these failures, the pause would last for days in the end.
    with following(server, tmp_path, dataclasses.replace(BRISK, longest_pause=1e9)) as agent:
        agent.wait_until_synced()
        for number in range(40):
            server.wait_for(lambda: any(watch.resource is SERVICES for watch in server.watches))
            server.state.apply(service(f"s{number}", f"10.96.1.{number}"))
            agent.wait_for_names("web", *(f"s{earlier}" for earlier in range(number + 1)))
            server.cut_all()


def test_an_unexpected_failure_is_shown_with_its_traceback_and_mended_by_a_new_list(
    server: ApiServer, tmp_path: Path
) -> None:
    class FailingStore(ObservedStore):
        broken = True

        def put_service(self, service: Service, rejected: Iterable[Rejection] = ()) -> None:
            if self.broken:
                self.broken = False
                raise RuntimeError("not foreseen")
            super().put_service(service, rejected)

    with following(server, tmp_path, make_store=FailingStore) as agent:
        agent.wait_until_synced()
        server.state.apply(service("mail", "10.96.0.2"))
        line = agent.witness.log_line("watch failed unexpectedly")
        assert isinstance(line["exc_info"], RuntimeError)
        agent.wait_for_names("mail", "web")


def test_stop_ends_watches_on_which_nothing_comes(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        all_watch(server)
        server.fall_silent()
        agent.source.stop()
        agent.source.join(PATIENCE)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]
        assert agent.names() == {"web"}
        assert not agent.witness.log_lines("watch interrupted")


def test_stop_ends_the_pause_between_attempts(server: ApiServer, tmp_path: Path) -> None:
    server.go_away()
    patient = dataclasses.replace(BRISK, first_pause=1e6, longest_pause=1e6)
    with following(server, tmp_path, patient) as agent:
        agent.witness.log_line("watch interrupted", resource="services")
        agent.source.stop()
        agent.source.join(PATIENCE)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]


def test_no_request_begins_after_stop(server: ApiServer, tmp_path: Path) -> None:
    api = client.ApiServer(server.kubeconfig(tmp_path / "kubeconfig"), BRISK)
    api.stop()
    with pytest.raises(ApiError), api.get(SERVICES.path, {}, BRISK.answer):
        pass


def test_the_health_of_each_watch_tells_whether_it_is_connected_and_why_not(
    server: ApiServer, tmp_path: Path
) -> None:
    def health(agent: Agent) -> list[tuple[str, bool, str | None]]:
        return [(state.resource, state.connected, state.error) for state in agent.source.health.states()]

    watches = ("services", "endpointslices", "nodes")
    assert health(Agent(server, tmp_path)) == [(name, False, None) for name in watches]
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        assert health(agent) == [(name, True, None) for name in watches]
        assert all(state.seconds_since_contact is not None for state in agent.source.health.states())
        server.go_away()
        for name in watches:
            agent.witness.log_line("watch interrupted", resource=name, reason="Connection refused")
        assert health(agent) == [(name, False, "Connection refused") for name in watches]
        server.come_back()
        for name in watches:
            agent.witness.log_line("API server answers again", resource=name)
        assert health(agent) == [(name, True, None) for name in watches]
