"""The table of cases, as `ipvsproxy explain` answers it from a real kernel: what the table says, and packets meet."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, NoReturn, cast

import pytest

from ipvsproxy.cli.explain import NodeKernel
from ipvsproxy.model.addresses import format_address, parse_address
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.observe.agent_socket import ask_report
from ipvsproxy.observe.clients import HostAt, ProcessOfNode
from ipvsproxy.observe.desired import firewall_settings
from ipvsproxy.observe.explain import explain, is_owned
from ipvsproxy.observe.explain_client import question
from ipvsproxy.observe.explain_schema import EndpointState, ExplainedOutcome
from netns_tests.case_language import SERVER_PORTS, Answered, Outcome
from netns_tests.cluster import Cluster
from netns_tests.test_cases import TRIED, Programmed
from netns_tests.topology import Kind
from netns_tests.traffic import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ipvsproxy.observe.explain_schema import Explanation
    from ipvsproxy.observe.schema import AgentReport
    from netns_tests.case_language import Case, Environment

# A ping has no port, and explain asks for one.
ASKABLE = [case for case in TRIED if case.protocol]
ENVIRONMENTS = list(dict.fromkeys(case.environment for case in ASKABLE))
OUTCOMES = {
    ExplainedOutcome.REFUSED: Outcome.REFUSED,
    ExplainedOutcome.DROPPED: Outcome.DROPPED,
    ExplainedOutcome.NODE: Outcome.NODE_ITSELF,
}


class Node:
    """The node of an environment, with all Services of it; its kernel and its agent are asked once, for all cases."""

    def __init__(self, cluster: Cluster, environment: Environment) -> None:
        """Program the Services, and read what there is then."""
        self.cluster = cluster
        self.cases = [case for case in ASKABLE if case.environment == environment]
        self.programmed = Programmed(cluster, environment)
        self.report = ask_report(cluster.agent.run_directory)
        settings = firewall_settings(self.report)
        with cluster.node.namespace.entered(), NodeKernel() as kernel:
            self.state = kernel.state({self.key(case) for case in self.cases}, settings)
            clients = {self.cluster[case.client].addresses[case.family] for case in self.cases}
            self.routes = {address: kernel.route_to(parse_address(address)) for address in clients}
        self.hosts = {
            address: host.name
            for kind in (Kind.POD, Kind.NODE, Kind.OUTSIDE)
            for host in cluster.network.of(kind)
            for address in host.addresses.values()
        }

    def key(self, case: Case) -> VirtualServerKey:
        """Return what the client of a case connects to."""
        assert case.protocol
        target = case.target(self.cluster.node)
        return VirtualServerKey(parse_address(target.address), case.protocol, target.port)

    def explained(self, case: Case, report: AgentReport | None = None) -> Explanation:
        """Return the answer to who connects to what in a case."""
        host = self.cluster[case.client]
        address = parse_address(host.addresses[case.family])
        client = ProcessOfNode() if host is self.cluster.node else HostAt(address)

        asked = question(
            client,
            self.key(case),
            self.state,
            report,
            lambda address, _=None: self.routes[format_address(address)],
            nobody_asks_for_a_pod,
        )
        return explain(asked, self.state, report)

    def answering(self, explanation: Explanation) -> dict[str, str | None]:
        """Return the endpoints that answer, by their hosts' names, with the source that each of them sees."""
        return {
            self.hosts[each.address]: each.sees
            for each in explanation.endpoints
            if each.state is EndpointState.ANSWERS
        }

    def agrees(self, case: Case, explanation: Explanation) -> bool:
        """Say whether the answer is what the table says."""
        if isinstance(case.expected, Answered):
            expected = {name: self.programmed.sees(source, case) for name, source in case.expected.sources}
            answering = self.answering(explanation)
            return (
                explanation.outcome is ExplainedOutcome.ANSWERED
                and answering.keys() == expected.keys()
                and all(answering[name] in sources for name, sources in expected.items())
            )
        outcome = OUTCOMES.get(explanation.outcome)
        # The servers of the node listen; on another port it refuses by itself.
        refuses = case.expected is Outcome.NODE_ITSELF and case.port not in SERVER_PORTS.values()
        return outcome is (Outcome.REFUSED if refuses else case.expected)


def nobody_asks_for_a_pod(_: object) -> NoReturn:
    raise AssertionError


@pytest.fixture(scope="module")
def node_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Environment], Node]]:
    """Build the cluster of an environment when its first test comes."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def build(environment: Environment) -> Node:
            cluster = stack.enter_context(Cluster.built(tmp_path_factory.mktemp("cluster")))
            return Node(cluster, environment)

        yield build


@pytest.fixture(params=ENVIRONMENTS, ids=lambda environment: environment.title)
def node(request: pytest.FixtureRequest, node_of: Callable[[Environment], Node]) -> Node:
    return node_of(cast("Environment", request.param))


@pytest.fixture
def cluster(node: Node) -> Cluster:
    """Return the cluster, whose state is shown beside a failure."""
    return node.cluster


@pytest.mark.usefixtures("cluster")
def test_explain_says_what_the_table_says(node: Node) -> None:
    wrong = []
    for case in one_of_each_kind(node.cases):
        explanation = node.explained(case)
        if not node.agrees(case, explanation):
            wrong.append(f"{case}\nexplained: {explanation.result}\n{explanation}")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.usefixtures("cluster")
def test_the_agent_wants_nothing_else(node: Node) -> None:
    for case in {case.sentence: case for case in one_of_each_kind(node.cases)}.values():
        explanation = node.explained(case, node.report)
        aside = (explanation.wanted, explanation.differences, explanation.unless)
        assert aside == (None, [], []), str(case)
        assert node.agrees(case, explanation), str(case)


@pytest.mark.usefixtures("cluster")
def test_an_address_that_is_not_the_nodes_is_nobodys(node: Node) -> None:
    for case in node.cases:
        owned = is_owned(node.key(case).address, node.state, node.report)
        assert owned is (case.expected is not Outcome.NOT_SERVED), str(case)


@pytest.mark.usefixtures("cluster")
def test_packets_meet_the_endpoints_and_carry_the_sources_that_explain_says(node: Node) -> None:
    for case in one_of_each_kind(node.cases):
        met, explanation = node.programmed.meets(case), node.explained(case)
        words = f"{case}\nexplained: {explanation.result}\nmet: {met}"
        answers = {each.server: each.source for each in met if not isinstance(each, Failure)}
        match explanation.outcome:
            case ExplainedOutcome.ANSWERED:
                answering = node.answering(explanation)
                assert answers.items() <= answering.items(), words
                assert len(answers) == (1 if is_sticky(case) else len(answering)), words
            case ExplainedOutcome.NODE:
                assert set(answers) == {node.cluster.node.name}, words
            case ExplainedOutcome.REFUSED:
                assert set(met) == {Failure.REFUSED}, words
            case ExplainedOutcome.DROPPED:
                assert set(met) == {Failure.SILENCE}, words
            case outcome:
                raise AssertionError(f"{outcome}\n{words}")


def one_of_each_kind(cases: Sequence[Case]) -> list[Case]:
    """Return one case for each sentence and client: of the ways, families and protocols there are, one in turn."""
    kinds: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if case.expected is not Outcome.NOT_SERVED:
            kinds.setdefault((case.sentence, case.client), []).append(case)
    return [alike[number % len(alike)] for number, alike in enumerate(kinds.values())]


def is_sticky(case: Case) -> bool:
    return isinstance(case.expected, Answered) and case.expected.sticky
