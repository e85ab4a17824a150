"""What the agent does with a node, an API server and streams that are not as they should be, and how it is stopped."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.observe.agent_socket import ask_report
from netns_tests.bare_node import REPOSITORY, SETTINGS, Node
from netns_tests.deadline import PATIENCE, await_that
from netns_tests.manifests import Port, service
from netns_tests.namespaces import Namespace
from netns_tests.program import PROGRAM
from tests.api_server_http import AnswerError, event, status
from tests.api_server_state import ENDPOINT_SLICES, NODES, SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.api_server_http import Request

WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
OLD, NEW = "old", "new"
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Namespace("node") as namespace:
        node = Node(namespace, tmp_path)
        for name in SETTINGS:
            namespace.sysctl(name, "0")
        yield node


# --- a node that lacks something ---


@pytest.mark.parametrize(
    ("wrapper", "line"),
    [
        (
            WITHOUT_NET_ADMIN,
            "CAP_NET_ADMIN is missing: run as root, or give the container the capability NET_ADMIN",
        ),
        (("env", "PATH=/nowhere"), "the program nft can't be run: install the package nftables"),
        (
            ("unshare", "--user", "--map-root-user"),
            "the kernel refuses to be configured over netlink (EPERM): run",
        ),
    ],
    ids=["no CAP_NET_ADMIN", "no nft", "a user namespace"],
)
def test_what_the_node_lacks_is_said_in_one_line_and_nothing_is_made(
    node: Node, wrapper: tuple[str, ...], line: str
) -> None:
    before = node.state()
    ended = node.run(*wrapper)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (1, "", 1)
    assert ended.stderr.startswith(f"ipvsproxy: {line}")
    assert node.state() == before
    with node.agent() as agent:
        agent.await_line("first sync")


def test_an_interface_of_another_kind_with_the_agents_name_ends_it_before_anything_is_made(
    node: Node,
) -> None:
    node.namespace.run("ip", "link", "add", "kube-ipvs0", "type", "bridge")
    before = node.state()
    ended = node.run()
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(
        "ipvsproxy: interface kube-ipvs0 is of kind bridge, not dummy: "
    )
    assert node.state() == before


def test_a_manifest_directory_that_is_not_there_is_named_and_nothing_is_made(node: Node) -> None:
    before = node.state()
    node.manifests.path.rmdir()
    ended = node.run()
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        f"ipvsproxy: {node.manifests.path} is no directory: name one that contains manifests"
    )
    assert node.state() == before


@pytest.mark.parametrize("run_directory", ["run", "another"])
def test_a_second_agent_leaves_even_while_the_first_still_waits_for_the_api_server(
    node: Node, run_directory: str
) -> None:
    server = node.api_server()
    server.go_away()
    with node.agent(*node.api_flags(server)) as first:
        first.await_line("watch interrupted")
        node.run_directory = node.directory / run_directory
        second = node.run()
        assert second.returncode == 1
        [line] = second.stderr.splitlines()
        assert line.startswith("ipvsproxy: another agent runs ")
        assert f"process {first.process.pid} holds" in line


# --- manifests with what no terminal should get ---


def test_control_characters_of_manifests_reach_no_output_of_a_command_as_they_are(node: Node) -> None:
    hostile = "web\x1b[2J\x9b31m\u202e"
    node.manifests.write(
        "hostile",
        [
            service("good", ["10.96.0.1"], [Port("http", 80, 8080)]),
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": hostile, "namespace": hostile}},
            {"apiVersion": f"v1/{hostile}", "kind": hostile},
        ],
    )
    log = node.directory / "log"
    with node.agent("--log-format=console", node.manifests_flag):
        await_that(lambda: "first sync" in log.read_text(), "the agent has synced")
        outputs = [log.read_text()]
        with node.namespace.entered():
            for words in (
                ["dump"],
                ["dump", "-o", "wide"],
                ["dump", "-o", "json"],
                ["dump", "-o", "yaml"],
                ["check"],
            ):
                command = [*PROGRAM, *words, node.run_directory_flag]
                ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
                outputs += [ended.stdout, ended.stderr]
    assert (
        sum(r"\x1b[2J" in output or r"\u001b[2J" in output or r"\e[2J" in output for output in outputs) >= 5
    )
    for output in outputs:
        assert all(line.isprintable() for line in output.split("\n"))


# --- a run directory that is full, or is somebody else's ---


@pytest.fixture
def run_directory(node: Node) -> Iterator[Callable[[str], None]]:
    """Return a function that makes the run directory a file system of its own, with these options."""

    def mount(options: str) -> None:
        node.run_directory.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(node.run_directory)], check=True)

    yield mount
    subprocess.run(["umount", "--lazy", str(node.run_directory)], check=False)


def test_an_agent_serves_while_its_run_directory_has_no_room_for_files_and_can_be_asked_once_it_has(
    node: Node, run_directory: Callable[[str], None]
) -> None:
    run_directory("nr_inodes=2")
    filler = node.run_directory / "filler"
    filler.touch()
    with node.agent() as agent:
        line = agent.await_line("run directory is full")
        assert line["not_written"] == ["agent.lock", "agent.sock"]
        assert line["directory"] == str(node.run_directory)
        agent.await_line("first sync")
        second = node.run()
        assert second.returncode == 1
        assert "another agent runs in this network namespace already" in second.stderr
        filler.unlink()
        agent.await_line("run directory has room again")
        assert ask_report(node.run_directory).agent.synced
        about_directory = [line["event"] for line in agent.log() if line.get("directory")]
        assert about_directory == ["run directory is full", "run directory has room again"]


def test_an_agent_serves_while_its_run_directory_has_no_room_for_contents(
    node: Node, run_directory: Callable[[str], None]
) -> None:
    run_directory("size=4k")
    (node.run_directory / "filler").write_bytes(bytes(4096))
    with node.agent() as agent:
        assert agent.await_line("run directory is full")["not_written"] == ["agent.lock"]
        agent.await_line("first sync")
        assert ask_report(node.run_directory).agent.synced
        second = node.run()
        assert second.returncode == 1
        assert "another agent runs on this node already" in second.stderr


def test_a_link_in_the_place_of_the_lock_is_named_and_its_target_left_alone(node: Node) -> None:
    target = node.directory / "target"
    target.write_text("precious")
    node.run_directory.mkdir(exist_ok=True)
    (node.run_directory / "agent.lock").symlink_to(target)
    before = node.state()
    ended = node.run()
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"ipvsproxy: {node.run_directory}/agent.lock: is a link")
    assert target.read_text() == "precious"
    assert node.state() == before


# --- an API server that refuses the credentials ---


def test_refused_credentials_are_reported_with_url_and_reason_until_they_are_renewed(node: Node) -> None:
    before = node.state()
    with node.api_server() as server:
        server.token = OLD
        flags = node.api_flags(server)
        server.token = NEW
        with node.agent(*flags) as agent:
            for resource in ("services", "endpointslices", "nodes"):
                line = agent.await_line("API server refuses the credentials", resource=resource)
                assert (line["level"], line["url"], line["reason"], line["status"]) == (
                    "error",
                    server.url,
                    "Unauthorized",
                    401,
                )
                assert line["remedy"].startswith("renew the token or client certificate")
            assert node.state() == before
            (node.directory / "token").write_text(NEW)
            agent.await_line("API server answers again", url=server.url)
            assert agent.await_line("first sync")["virtual_servers"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        status(200, "the proxy has no backend"),
        b'{"metadata":{}}',
        b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[]}',
    ],
    ids=["a Status", "metadata alone", "another list"],
)
def test_an_answer_that_is_not_the_list_leaves_the_kernel_as_it_is(node: Node, answer: bytes) -> None:
    def answer_lists(request: Request) -> None:
        if request.verb == "list":
            raise AnswerError(answer)

    with node.api_server() as server:
        server.initial_events = False
        with node.agent(*node.api_flags(server)) as agent:
            agent.await_line("first sync")
            served = node.state()
            server.intercept = answer_lists
            for resource in (SERVICES, ENDPOINT_SLICES, NODES):
                server.inject(resource, event("ERROR", status(500, "list anew, please")))
                agent.await_line("API server sent what was not asked for", resource=resource.name)
            assert node.state() == served
            assert "0A600001" in served["virtual servers"]
            server.intercept = lambda _: None
            server.state.delete("Service", "default", "web")
            await_that(lambda: "0A600001" not in node.state()["virtual servers"], "the Service is gone")


def test_a_missing_permission_is_reported_with_url_and_reason_until_it_is_given(node: Node) -> None:
    before = node.state()
    with node.api_server() as server:
        server.forbidden.add("endpointslices")
        with node.agent(*node.api_flags(server)) as agent:
            line = agent.await_line("API server refuses the credentials", status=403)
            assert (line["level"], line["url"], line["reason"]) == (
                "error",
                server.url,
                'endpointslices is forbidden: User "agent" cannot list resource "endpointslices"',
            )
            assert line["remedy"].startswith("allow the agent's user to list and watch this resource")
            agent.await_line("list received", resource="services")
            assert node.state() == before
            server.forbidden.clear()
            assert agent.await_line("first sync")["virtual_servers"] == 1


def test_credentials_that_are_refused_later_leave_the_kernel_as_it_is(node: Node) -> None:
    with node.api_server() as server:
        server.token = OLD
        with node.agent(*node.api_flags(server)) as agent:
            agent.await_line("first sync")
            before = node.state()
            server.token = NEW
            server.cut_all()
            agent.await_line("API server refuses the credentials", resource="services")
            assert node.state() == before
            (node.directory / "token").write_text(NEW)
            agent.await_line("API server answers again", resource="services")
            assert node.state() == before


# --- the end ---


@SIGNALS
def test_a_signal_ends_the_agent_with_0_and_leaves_the_kernel_as_it_is(
    node: Node, number: signal.Signals
) -> None:
    node.manifests.write("web", [service("web", ["10.96.0.1"], [Port("", 80, 8080)])])
    with node.agent() as agent:
        agent.await_line("first sync")
        before = node.state()
        assert agent.end(number) == 0
        assert agent.log()[-1]["event"] == "ending, the kernel stays as it is"
        assert agent.log()[-1]["signal"] == number.name
    assert node.state() == before
    assert [path.name for path in (node.directory / "run").iterdir()] == ["agent.lock"]


@SIGNALS
def test_an_agent_whose_watch_is_silent_ends_when_it_is_told_to(node: Node, number: signal.Signals) -> None:
    with node.api_server() as server, node.agent(*node.api_flags(server)) as agent:
        agent.await_line("first sync")
        server.fall_silent()
        assert agent.end(number) == 0


def test_an_agent_that_waits_for_an_api_server_which_is_away_ends_when_it_is_told_to(node: Node) -> None:
    server = node.api_server()
    server.go_away()
    with node.agent(*node.api_flags(server)) as agent:
        agent.await_line("watch interrupted", reason="Connection refused")
        assert agent.end() == 0


def test_an_agent_that_waits_for_a_connection_ends_when_it_is_told_to(node: Node) -> None:
    # A listener whose queue is full: the kernel drops what asks for a connection, as a network that is down does.
    with node.namespace.entered(), socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        kubeconfig = node.directory / "kubeconfig"
        with node.api_server() as server:
            flags = node.api_flags(server)
        place = full.getsockname()
        kubeconfig.write_text(kubeconfig.read_text().replace(server.url, "http://{}:{}".format(*place)))
        with socket.create_connection(place), node.agent(*flags) as agent:
            agent.await_line("watching the API server")
            assert agent.end() == 0


def test_an_agent_that_waits_for_an_answer_ends_when_it_is_told_to(node: Node) -> None:
    asked, over = threading.Semaphore(0), threading.Event()

    def hold_back(_: Request) -> None:
        asked.release()
        over.wait()

    with node.api_server() as server:
        server.intercept = hold_back
        with node.agent(*node.api_flags(server)) as agent:
            for _ in range(3):
                assert asked.acquire(timeout=PATIENCE)
            assert agent.end() == 0
        over.set()


# --- streams ---


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_an_agent_whose_streams_are_closed_or_full_does_its_work(node: Node, closing: str) -> None:
    with node.agent(closing=closing) as agent:
        node.manifests.write("web", [service("web", ["10.96.0.1"], [Port("", 80, 8080)])])
        await_that(lambda: "0A600001:0050" in node.namespace.read("ip_vs"), "the Service is programmed")
        assert agent.end() == 0


def test_an_agent_whose_log_nobody_reads_any_more_goes_on(node: Node) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as log, node.agent(stderr=writer) as agent:
        os.close(writer)
        assert b'"event":"starting"' in log.readline()
        log.close()
        # A line of the thread that reads manifests, and one of the reconciler's.
        node.manifests.write("broken", [{"kind": "Service", "apiVersion": "v1", "metadata": {"name": "X"}}])
        node.manifests.write("web", [service("web", ["10.96.0.1"], [Port("", 80, 8080)])])
        await_that(lambda: "0A600001:0050" in node.namespace.read("ip_vs"), "the Service is programmed")
        assert agent.end() == 0


def test_the_log_is_for_people_on_a_terminal_and_for_machines_elsewhere(node: Node) -> None:
    keyboard, terminal = pty.openpty()
    try:
        with node.agent(node.manifests_flag, "--log-format=auto", stderr=terminal):
            assert b"starting" in (line := os.read(keyboard, 4096))
            assert not line.startswith(b"{")
    finally:
        os.close(keyboard)
        os.close(terminal)
    with node.agent(node.manifests_flag, "--log-format=auto") as agent:
        assert agent.await_line("first sync")["level"] == "info"


def test_an_agent_that_logs_errors_only_says_nothing_while_all_is_well(node: Node) -> None:
    node.manifests.write("web", [service("web", ["10.96.0.1"], [Port("", 80, 8080)])])
    with node.agent(node.manifests_flag, "--log-level=error") as agent:
        await_that(lambda: "0A600001:0050" in node.namespace.read("ip_vs"), "the Service is programmed")
        assert agent.end() == 0
        assert agent.log() == []
