"""A network namespace that is a node of an API server's, and the agent there as a process."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from netns_tests.deadline import PATIENCE, DeadlineError, await_that
from netns_tests.manifests import ManifestDirectory
from netns_tests.program import PROGRAM
from tests import api_server_objects as objects
from tests.api_server import ApiServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netns_tests.namespaces import Namespace

REPOSITORY = Path(__file__).parents[1]
# Of those that the agent sets, those that a new network namespace has otherwise, or can have.
SETTINGS = (
    "net/ipv4/vs/conntrack",
    "net/ipv4/vs/expire_nodest_conn",
    "net/ipv4/vs/expire_quiescent_template",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
)


class Agent:
    """The agent of the node as a process, until the end of a `with` block."""

    def __init__(
        self,
        node: Node,
        words: Sequence[str],
        stderr: int | None = None,
        closing: str = "",
        wrapper: Sequence[str] = (),
    ) -> None:
        """Start it; without `stderr` its log goes to a file. `closing` closes streams, in the shell's words.

        `wrapper` is a program, and what it is told before the command that it becomes.
        """
        self._log = node.directory / "log"
        self._start = self._log.stat().st_size
        command = [*wrapper, *PROGRAM, "run", node.run_directory_flag, "--log-format=json", *words]
        with node.namespace.entered(), self._log.open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f'exec "$@" {closing}', "sh", *command],
                stderr=log if stderr is None else stderr,
                cwd=REPOSITORY,
            )

    def __enter__(self) -> Self:
        """Return the agent."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind."""
        self.process.kill()
        self.process.wait()

    def log(self) -> list[dict[str, Any]]:
        """Return the lines that it has written."""
        with self._log.open("rb") as log:
            log.seek(self._start)
            return [json.loads(line) for line in log if line.endswith(b"}\n")]

    def await_line(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for a line with that event and those fields, and return it."""
        wanted = {"event": event, **fields}

        def found() -> list[dict[str, Any]]:
            assert self.process.poll() is None, f"the agent ended: {self._log.read_text()}"
            return [line for line in self.log() if wanted.items() <= line.items()]

        try:
            await_that(found, f"the agent logs {wanted}")
        except DeadlineError as error:
            raise DeadlineError(f"{error}; its log:\n{self._log.read_text()}") from None
        return found()[0]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


class Node:
    """A network namespace with nothing but `lo`, and the files of an agent on it."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        """Bring `lo` up."""
        self.namespace = namespace
        self.directory = directory
        self.manifests = ManifestDirectory(directory / "manifests")
        self.run_directory = directory / "run"
        self.manifests_flag = f"--manifests={self.manifests.path}"
        (directory / "log").touch()
        namespace.run("ip", "link", "set", "lo", "up")

    @property
    def run_directory_flag(self) -> str:
        """The flag that names the run directory."""
        return f"--run-directory={self.run_directory}"

    def state(self) -> dict[str, str]:
        """Return all that the agent could change."""
        run, read = self.namespace.run, self.namespace.read
        with self.namespace.entered():
            settings = {name: Path("/proc/sys", name).read_text() for name in SETTINGS}
        return {
            "addresses": run("ip", "-brief", "address"),
            "nftables": run("nft", "list", "ruleset"),
            "virtual servers": read("ip_vs"),
            **settings,
        }

    def agent(self, *words: str, stderr: int | None = None, closing: str = "") -> Agent:
        """Start the agent, on the manifests unless told otherwise."""
        return Agent(self, words or (self.manifests_flag,), stderr, closing)

    def run(self, *wrapper: str) -> subprocess.CompletedProcess[str]:
        """Run the agent on the manifests to its end."""
        with self.namespace.entered():
            return subprocess.run(
                [*wrapper, *PROGRAM, "run", self.manifests_flag, self.run_directory_flag],
                capture_output=True,
                text=True,
                check=False,
                cwd=REPOSITORY,
                timeout=PATIENCE,
            )

    def api_server(self) -> ApiServer:
        """Return an API server on the node's loopback interface, with one Service."""
        with self.namespace.entered():
            server = ApiServer()
        server.state.apply(objects.node("node-a"))
        server.state.apply(objects.service("web", "10.96.0.1"))
        server.state.apply(
            objects.endpoint_slice("web-1", "web", objects.endpoint("web-x", "10.128.0.1", "b"))
        )
        return server

    def api_flags(self, server: ApiServer) -> tuple[str, ...]:
        """Return the flags that lead to an API server."""
        return (
            f"--kubeconfig={server.kubeconfig(self.directory / 'kubeconfig')}",
            "--hostname-override=node-a",
        )
