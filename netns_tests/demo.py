"""The agent at work in a few seconds: `python -m netns_tests.demo`, as root, on a kernel with IPVS.

Everything happens in network namespaces that go with the process. The exit code is 0 if no request failed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import Family
from netns_tests.cluster import Cluster, ServiceUnderTest
from netns_tests.deadline import DeadlineError
from netns_tests.emulation import IS_EMULATED
from netns_tests.load import Load, Style
from netns_tests.manifests import Port
from netns_tests.servers import HTTP_PORT
from netns_tests.terminal import Terminal
from netns_tests.topology import Kind, Topology
from netns_tests.traffic import NoAnswerError, request

if TYPE_CHECKING:
    from collections.abc import Mapping

TOPOLOGY = Topology(nodes={"node-a": ("web-1", "web-2", "client"), "node-b": ("web-3", "web-4", "web-5")})
EXAMPLE = Path(__file__).parents[1] / "examples" / "demo"
ADDRESSES = {Family.IPV4: "10.96.0.80", Family.IPV6: "fd00:10:96::80"}
"""The Service's, as the example has them."""

# SGR parameters of ECMA-48.
BOLD, RED, GREEN = "1", "31", "32"

_REQUESTS_OF_A_STEP = 300
_WIDTH_OF_A_BAR = 40
_INDENT = "   "
# What commands print fits a terminal of 100 columns; it has as many lines as they could need.
_COLUMNS, _ROWS = 100, 200


class Demo:
    """The steps in their order; each says what it does and shows what comes of it."""

    def __init__(self, cluster: Cluster) -> None:
        """Take a cluster whose agent does not run yet."""
        self._cluster = cluster
        self._web = ServiceUnderTest(cluster, "web", ADDRESSES, [Port("http", 80, HTTP_PORT)])
        client = cluster["client"]
        self._new_connections = Load(client, self._web.target(Family.IPV4), Style.EACH_ITS_OWN)
        self._kept_connections = Load(client, self._web.target(Family.IPV6), Style.KEPT_ALIVE)
        self._loads = self._new_connections, self._kept_connections
        self._steps = 0

    def run(self) -> bool:
        """Take all steps; return whether every request was answered."""
        self._show_cluster()
        self._start_agent()
        self._ask()
        with self._new_connections, self._kept_connections:
            self._scale("web-1", "web-2", "web-3", "web-4", "web-5")
            self._scale("web-4", "web-5")
            self._show("dump")
            client = self._cluster["client"].addresses[Family.IPV4]
            self._show("explain", client, "to", f"{ADDRESSES[Family.IPV4]}:80")
            self._show("check")
            self._kill_and_restart()
        return self._sum_up()

    def _show_cluster(self) -> None:
        if IS_EMULATED:
            _print(
                "This machine emulates a processor for the test kernel. The times below mean nothing.", BOLD
            )
        self._headline("Two nodes, five pods with HTTP servers and a client, each a network namespace")
        network = self._cluster.network
        for host in network.of(Kind.NODE) + network.of(Kind.POD):
            self._line(f"{host.name:8}{host.addresses[Family.IPV4]:14}{host.addresses[Family.IPV6]}")

    def _start_agent(self) -> None:
        self._headline("The agent starts on node-a; examples/demo has a Service with three endpoints")
        agent = self._cluster.agent
        shutil.copytree(EXAMPLE, agent.manifests.path, dirs_exist_ok=True)
        agent.start()
        [first_sync] = agent.logged("first sync")
        self._line(f"the kernel was programmed in {first_sync['milliseconds']} ms")

    def _ask(self) -> None:
        self._headline("The client asks the Service 30 times at each of its addresses: endpoints take turns")
        for family in Family:
            target = self._web.target(family)
            self._line(f"{target}")
            self._bars(Counter(request(self._cluster["client"], target).server for _ in range(30)))

    def _scale(self, *pods: str) -> None:
        self._headline(f"Under load, the Service gets the endpoints {', '.join(pods)}")
        self._web.set_endpoints(*pods)
        self._line("requests on new connections are answered by")
        self._bars(self._new_connections.answers_from_now(_REQUESTS_OF_A_STEP))
        self._line("requests on connections opened before are answered by")
        self._bars(self._kept_connections.answers_from_now(_REQUESTS_OF_A_STEP))
        self._line(self._load())

    def _show(self, *words: str) -> None:
        self._headline(f"What `ipvsproxy {' '.join(words)}` says on node-a")
        command, node = self._cluster.agent.command(*words), self._cluster.node
        with Terminal(command, _COLUMNS - len(_INDENT), _ROWS, node) as terminal:
            terminal.await_end()
            for line in terminal.contents():
                self._line(line.plain)

    def _kill_and_restart(self) -> None:
        self._headline("Under load, the agent is killed with SIGKILL, and started again")
        self._cluster.agent.kill()
        self._go_on()
        self._line(f"without an agent: {self._load()}")
        self._cluster.agent.start()
        self._go_on()
        self._line(f"with a new one:   {self._load()}")

    def _sum_up(self) -> bool:
        failures = [failure for load in self._loads for failure in load.failures]
        self._headline("Result")
        self._line(self._load(), RED if failures else GREEN)
        for failure in failures[:10]:
            self._line(failure, RED)
        return not failures

    def _go_on(self) -> None:
        for load in self._loads:
            load.go_on(_REQUESTS_OF_A_STEP)

    def _load(self) -> str:
        answered = sum(load.answered for load in self._loads)
        failed = sum(len(load.failures) for load in self._loads)
        return f"{answered + failed} requests under load so far, {failed} failed"

    def _headline(self, text: str) -> None:
        self._steps += 1
        _print(f"\n{self._steps}. {text}", BOLD)

    def _line(self, text: str, style: str = "") -> None:
        _print(f"{_INDENT}{text}".rstrip(), style)

    def _bars(self, answers: Mapping[str, int]) -> None:
        largest = max(answers.values())
        for server, count in sorted(answers.items()):
            bar = "█" * round(count / largest * _WIDTH_OF_A_BAR)
            self._line(f"   {server:6} {bar} {count}")


def _print(text: str, style: str = "") -> None:
    """Print the text at once, in its style if somebody looks who sees it."""
    if style and (sys.stdout.isatty() or "FORCE_COLOR" in os.environ):
        text = f"\x1b[{style}m{text}\x1b[0m"
    print(text, flush=True)


def main() -> int:
    """Run the demo in a temporary directory; return 0 if no request failed."""
    with tempfile.TemporaryDirectory() as directory, Cluster.built(Path(directory), TOPOLOGY) as cluster:
        try:
            return 0 if Demo(cluster).run() else 1
        except (AssertionError, DeadlineError, NoAnswerError) as error:
            _print(f"\n{error}\n\nthe agent's log:\n{cluster.agent.log()}", RED)
            return 1


if __name__ == "__main__":
    sys.exit(main())
