"""The table of cases on a real kernel: one cluster for each environment, with all Services of the table at once."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from netns_tests.case_language import SERVER_PORTS, Answered, Outcome, Source, objects
from netns_tests.cases import CASES
from netns_tests.cluster import Cluster
from netns_tests.emulation import selected
from netns_tests.topology import Kind
from netns_tests.traffic import Failure, answers_echo, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from netns_tests.case_language import Case, Environment
    from netns_tests.traffic import Answer

TRIED = selected(CASES)

ROUNDS = 2
"""How many times each endpoint has its turn."""
SHORT_PATIENCE = 1.0
"""Seconds without an answer after which none is expected any more."""

SILENT = {
    Outcome.DROPPED: {Failure.SILENCE},
    Outcome.NOT_SERVED: {Failure.SILENCE, Failure.UNREACHABLE},
}


class Programmed:
    """A cluster with all Services of an environment; what is not to be answered is tried all at once, in advance."""

    def __init__(self, cluster: Cluster, environment: Environment) -> None:
        """Write the Services, start the agent, and begin with what waits for nothing."""
        self.cluster = cluster
        of_environment = [case for case in TRIED if case.environment == environment]
        node = cluster.node
        # Who is refused again and again within a second is to hear of it each time: ICMP errors have a limit.
        node.namespace.sysctl("net/ipv4/icmp_ratelimit", "0")
        node.namespace.sysctl("net/ipv6/icmp/ratelimit", "0")
        cluster.servers.start(node)
        cluster.servers.start(cluster["node-b"])
        cluster.agent.flags = environment.flags
        places = {host.name: host for kind in Kind for host in cluster.network.of(kind)}
        cluster.agent.manifests.write("table", objects(of_environment, places, node))
        cluster.agent.start()
        silent = [case for case in of_environment if case.expected in SILENT]
        with ThreadPoolExecutor(max_workers=128) as clients:
            tried = [clients.submit(self._try_once, case, SHORT_PATIENCE) for case in silent]
        self._tried: dict[Case, Future[Failure | Answer]] = dict(zip(silent, tried, strict=True))

    def meets(self, case: Case) -> list[Failure | Answer]:
        """Return what the client meets, as often as it takes to see every endpoint."""
        if case.expected in SILENT:
            return [self._tried[case].result()]
        endpoints = len(case.expected.sources) if isinstance(case.expected, Answered) else 1
        return [self._try_once(case) for _ in range(ROUNDS * endpoints)]

    def echoes(self, case: Case) -> bool:
        """Say whether the client's ping is answered."""
        return answers_echo(self.cluster[case.client], case.target(self.cluster.node).address)

    def sees(self, source: Source, case: Case) -> set[str]:
        """Return the addresses that an endpoint sees then."""
        host = self.cluster[case.client] if source is Source.OWN else self.cluster.node
        return host.own(case.family)

    def _try_once(self, case: Case, *patience: float) -> Failure | Answer:
        return failure_of(self.cluster[case.client], case.target(self.cluster.node), *patience)


@pytest.fixture(scope="module")
def programmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Environment], Programmed]]:
    """Build the cluster of an environment when its first case comes."""
    built: dict[Environment, Programmed | Exception] = {}
    with contextlib.ExitStack() as stack:

        def build(environment: Environment) -> Programmed:
            if environment not in built:
                try:
                    cluster = stack.enter_context(Cluster.built(tmp_path_factory.mktemp("cluster")))
                    built[environment] = Programmed(cluster, environment)
                except Exception as error:  # noqa: BLE001 - once is enough, for all cases of the environment
                    built[environment] = error
            found = built[environment]
            if isinstance(found, Exception):
                raise found
            return found

        yield build


@pytest.fixture
def cluster(case: Case, programmed: Callable[[Environment], Programmed]) -> Cluster:
    """Return the cluster of the case, whose state is shown beside a failure."""
    return programmed(case.environment).cluster


@pytest.mark.chosen
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("case", TRIED, ids=lambda case: case.title)
def test_the_client_meets_what_the_table_says(
    case: Case, programmed: Callable[[Environment], Programmed]
) -> None:
    node = programmed(case.environment)
    if case.expected is Outcome.ECHOED:
        assert node.echoes(case), str(case)
        return
    met = node.meets(case)
    answers = [each for each in met if not isinstance(each, Failure)]
    failures = {each for each in met if isinstance(each, Failure)}
    words = f"{case}\nmet: {met}"
    match case.expected:
        case Answered(sources, sticky):
            assert not failures, words
            servers = {answer.server for answer in answers}
            if sticky:
                assert len(servers) == 1, words
                assert servers <= dict(sources).keys(), words
            else:
                assert servers == dict(sources).keys(), words
            for answer in answers:
                assert answer.source in node.sees(dict(sources)[answer.server], case), words
        case Outcome.NODE_ITSELF if case.port in SERVER_PORTS.values():
            assert {answer.server for answer in answers} == {node.cluster.node.name}, words
        case Outcome.NODE_ITSELF | Outcome.REFUSED:
            assert (answers, failures) == ([], {Failure.REFUSED}), words
        case silence:
            assert not answers, words
            assert failures <= SILENT[silence], words
