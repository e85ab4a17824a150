"""The real agent as a process in a node's namespace: start it, end it in every way, read its log."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from netns_tests.addressing import ALLOWED_EXTERNAL_IPS
from netns_tests.deadline import DeadlineError, await_that
from netns_tests.manifests import ManifestDirectory
from netns_tests.program import PROGRAM, run_to_end
from netns_tests.topology import CLUSTER_CIDRS

if TYPE_CHECKING:
    from netns_tests.topology import Host

_REPOSITORY = Path(__file__).parents[1]
FLAGS = (
    f"--cluster-cidr={','.join(CLUSTER_CIDRS)}",
    f"--allowed-external-ips={','.join(ALLOWED_EXTERNAL_IPS)}",
)
"""What every agent is told of the topology."""


class Agent:
    """The agent of one node, with a manifest directory and a run directory of its own."""

    def __init__(self, node: Host, directory: Path, sync_period: str = "30s") -> None:
        """Prepare the directories; the agent does not run yet. `flags` are more flags of its next start."""
        self.node = node
        self.manifests = ManifestDirectory(directory / "manifests")
        self.sync_period = sync_period
        self.flags: tuple[str, ...] = ()
        self._run_directory = directory / "run"
        self._log = directory / "agent.log"
        self._log.touch()
        self._start_of_log = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Return the agent, to be killed at the end of the block if it runs then."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind."""
        if self.runs:
            self.kill()

    @property
    def runs(self) -> bool:
        """Whether the agent was started and not ended from here."""
        return self._process is not None

    @property
    def run_directory(self) -> Path:
        """The directory with its lock and its socket."""
        return self._run_directory

    def start(self) -> None:
        """Start the agent, and return once it has compared the whole kernel with its manifests."""
        self._start_of_log = self._log.stat().st_size
        with self.node.namespace.entered(), self._log.open("ab") as log:
            self._process = subprocess.Popen(self._run_command(), stdout=log, stderr=log, cwd=_REPOSITORY)
        self.await_event("first sync")

    def run_a_second_one(self) -> subprocess.CompletedProcess[str]:
        """Start another agent beside the one that runs, and wait for it to end."""
        with self.node.namespace.entered():
            return subprocess.run(
                self._run_command(), capture_output=True, text=True, check=False, cwd=_REPOSITORY
            )

    def kill(self) -> None:
        """End the agent by SIGKILL, so that it can do nothing about it."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """Ask the agent to end, by SIGTERM, and return its exit code."""
        return self._end(signal.SIGTERM)

    def dump(self, *options: str) -> str:
        """Return what `ipvsproxy dump` prints on this node."""
        ended = self.ask("dump", *options)
        ended.check_returncode()
        return ended.stdout

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of the commands that ask this agent, on this node, and wait for it to end."""
        with self.node.namespace.entered():
            return run_to_end(self.command(*words))

    def command(self, *words: str) -> list[str]:
        """Return the command line of one of the commands that ask this agent."""
        return [*PROGRAM, *words, *self._run_directory_option()]

    def cleanup(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `ipvsproxy cleanup` on this node to its end, without a terminal."""
        return self.ask("cleanup", *options)

    def finish_change(self) -> None:
        """Return once the agent has done the whole change that it is at: it answers questions in between only."""
        self.dump()

    def log(self) -> str:
        """Return what all runs of the agent wrote."""
        return self._log.read_text(errors="replace")

    def await_event(self, event: str) -> None:
        """Wait until the last run has written a line of that event."""
        try:
            await_that(lambda: self.logged(event), f"the agent logs {event!r}")
        except DeadlineError as error:
            raise DeadlineError(f"{error}; its log:\n{self.log()}") from None

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of that event which the last run wrote; AssertionError if it ended by itself."""
        assert self._process is None or self._process.poll() is None, f"the agent ended:\n{self.log()}"
        with self._log.open("rb") as log:
            log.seek(self._start_of_log)
            lines = [json.loads(line) for line in log if line.startswith(b"{") and line.endswith(b"}\n")]
        return [line for line in lines if line["event"] == event]

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None, "the agent does not run"
        self._process.send_signal(how)
        code = self._process.wait()
        self._process = None
        return code

    def _run_command(self) -> list[str]:
        return [
            *PROGRAM,
            "run",
            f"--manifests={self.manifests.path}",
            f"--hostname-override={self.node.name}",
            *FLAGS,
            f"--sync-period={self.sync_period}",
            "--min-sync-period=0s",
            "--log-format=json",
            *self._run_directory_option(),
            *self.flags,
        ]

    def _run_directory_option(self) -> list[str]:
        return [f"--run-directory={self._run_directory}"]
