"""`ipvsproxy explain`: its words, what it prints, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec
import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.explain import ExplainArguments, read_destination, read_question
from ipvsproxy.cli.explain import show
from ipvsproxy.cli.explain_text import render
from ipvsproxy.cli.main import exit_code
from ipvsproxy.kernel.interface import FirewallError
from ipvsproxy.kernel.routes import Route
from ipvsproxy.model.objects import ObjectKey, Protocol
from ipvsproxy.observe import explain_schema
from ipvsproxy.observe.agent_socket import AgentNotRunningError
from ipvsproxy.observe.clients import HostAt, HostOutside, PodNamed, ProcessOfNode, ServiceNamed
from ipvsproxy.observe.explain_schema import Explanation
from tests.builders import NODE, address, endpoint, endpoint_slice, key, service
from tests.observe.explaining import POD, STRANGER, kernel_state, told
from tests.observe.node import report_of, state, view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.observe.traced import KernelState, Misrouted

WEB = state(
    service("10.96.0.10"),
    endpoint_slice(endpoint("10.244.1.7", node=NODE), endpoint("10.244.2.7", ready=False)),
)
DOCUMENT = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()


def sample(command: str) -> str:
    """Return what docs/explain.md shows as the output of a command."""
    _, _, rest = DOCUMENT.partition(f"```\n$ ipvsproxy explain {command}\n")
    return rest.partition("```\n")[0]


class Ended(NamedTuple):
    code: int
    output: str
    errors: str


class Kernel:
    """A kernel whose state is known; every host is reached by eth0."""

    def __init__(self, found: KernelState) -> None:
        self._found = found

    def state(self, *_: object) -> KernelState:
        return self._found

    def misrouted(self, *_: object) -> set[Misrouted]:
        return set()

    def route_to(self, *_: object) -> Route | None:
        return Route("eth0", None, local=False)


def run(
    *words: str,
    report: Callable[[], AgentReport] = lambda: report_of(WEB),
    found: KernelState | None = None,
    capsys: pytest.CaptureFixture[str],
) -> Ended:
    """Run the command on a node that wants the Service WEB; its kernel has that, or what was found."""

    @contextlib.contextmanager
    def kernel() -> Iterator[Kernel]:
        yield Kernel(found or kernel_state(WEB))

    output, errors = io.StringIO(), io.StringIO()
    arguments = parse(["explain", *words])
    assert isinstance(arguments, ExplainArguments)
    code = exit_code(lambda: show(arguments, report, kernel, no_pod, output, errors))
    return Ended(code, output.getvalue(), errors.getvalue() + capsys.readouterr().err)


def no_pod(_: ObjectKey) -> NoReturn:
    raise AssertionError


def no_agent() -> NoReturn:
    raise AgentNotRunningError("the agent is not running")


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("outside to 10.96.0.10:80", HostOutside()),
        ("outside 10.96.0.10:80/tcp", HostOutside()),
        ("node -> 10.96.0.10:80", ProcessOfNode()),
        ("node->10.96.0.10:80/TCP", ProcessOfNode()),
        ("192.0.2.7 10.96.0.10:80", HostAt(address("192.0.2.7"))),
        ("pod web-1 to 10.96.0.10:80", PodNamed(ObjectKey("default", "web-1"))),
        ("pod kube-system/dns-1 10.96.0.10:80", PodNamed(ObjectKey("kube-system", "dns-1"))),
    ],
)
def test_a_question_is_read_in_each_of_its_forms(text: str, client: object) -> None:
    assert read_question(text) == (client, key("10.96.0.10"))


def test_the_arrow_may_be_a_word_of_its_own_or_in_one_with_all_others() -> None:
    for words in (["pod", "a/b", "->", "10.96.0.10:80"], ["pod a/b -> 10.96.0.10:80"]):
        arguments = parse(["explain", *words, "-o", "json"])
        assert isinstance(arguments, ExplainArguments)
        assert (str(arguments.client), arguments.destination) == ("pod a/b", key("10.96.0.10"))


def test_a_destination_has_a_port_and_a_protocol() -> None:
    assert read_destination("[FD00::1]:53/udp") == key("fd00::1", 53, Protocol.UDP)
    assert read_destination("10.96.0.10:132/sctp") == key("10.96.0.10", 132, Protocol.SCTP)


@pytest.mark.parametrize(
    ("text", "port", "protocol"),
    [
        ("default/web", "", None),
        ("default/web:http", "http", None),
        ("default/web:80", "80", None),
        ("default/web:dns/UDP", "dns", Protocol.UDP),
        ("default/web/sctp", "", Protocol.SCTP),
    ],
)
def test_a_destination_may_be_a_service(text: str, port: str, protocol: Protocol | None) -> None:
    named = ServiceNamed(ObjectKey("default", "web"), port, protocol)
    assert read_destination(text) == named
    assert read_question(f"outside to {text}") == (HostOutside(), named)


@pytest.mark.parametrize(
    "text",
    [
        "outside default/web:",
        "outside default/web/icmp",
        "outside default/Web",
        "outside web",
        "outside a/b/c",
        "10.96.0.10:80",
        "outside",
        "outside inside 10.96.0.10:80",
        "somebody 10.96.0.10:80",
        "outside 10.96.0.10",
        "outside 10.96.0.10:0",
        "outside 10.96.0.10:65536",
        "outside 10.96.0.10:80/icmp",
        "outside fd00::1:80",
        "outside [10.96.0.10:80",
        "pod A/b 10.96.0.10:80",
        "0.0.0.0 10.96.0.10:80",
        "255.255.255.255 10.96.0.10:80",
        "224.0.0.18 10.96.0.10:80",
        ":: [fd00::1]:80",
        "ff02::1 [fd00::1]:80",
    ],
)
def test_other_words_are_refused_in_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: parse(["explain", *text.split()]).execute()) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_arrow_that_the_shell_took_for_a_redirection_is_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # What is left of: explain outside -> 10.96.0.10:80.
    assert exit_code(lambda: parse(["explain", "outside", "-"]).execute()) == 2
    assert "the shell took the > of -> for a redirection" in capsys.readouterr().err


def test_the_text_has_the_way_the_endpoints_the_result_and_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = "192.0.2.7 to 10.96.0.10:80"
    assert run(*command.split(), capsys=capsys) == Ended(0, sample(command), "")


def test_the_text_has_what_the_agent_wants_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    command = "10.244.1.9 to 10.96.0.10:80"
    found = replace(kernel_state(WEB), virtual_servers={}, statuses={})
    assert run(*command.split(), found=found, capsys=capsys) == Ended(1, sample(command), "")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_sentences_are_broken_at_the_width_and_lose_nothing(width: int) -> None:
    explanation = told(key("10.96.0.10"), kernel_state(WEB), report_of(WEB), STRANGER)
    text = render(explanation, width)
    assert all(len(line) <= width for line in text.splitlines() if line.startswith(" "))
    table = re.compile(r"^endpoints:\n(  .*\n)+", re.MULTILINE)
    in_full = render(explanation, None)
    assert table.sub("", text).split() == table.sub("", in_full).split()


def test_on_a_narrow_terminal_what_is_told_of_an_endpoint_stands_below_it() -> None:
    explanation = told(key("10.96.0.10"), kernel_state(WEB), report_of(WEB), STRANGER)
    lines = render(explanation, 60).splitlines()
    first = lines.index("  ENDPOINT") + 1
    assert lines[first : first + 3] == [
        "  10.244.1.7:8080",
        "      ready, state answers, weight 1, connections 0,",
        "      sees 203.0.113.1",
    ]


def test_every_field_is_documented() -> None:
    _, _, table = DOCUMENT.partition("| Field | |\n")
    documented = set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE))
    assert documented == set(paths(Explanation))


def paths(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """Yield the paths of all fields, as docs/explain.md writes them; the agent's own are those of `dump`."""
    for field in msgspec.structs.fields(struct):
        path = f"{prefix}{field.encode_name}"
        yield path
        inner = re.search(r"Explained(?:Client|Destination|Step|Way|Endpoint)\b", str(field.type))
        if inner:
            listed = "[]" if "list[" in str(field.type) else ""
            yield from paths(getattr(explain_schema, inner[0]), f"{path}{listed}.")


def test_a_service_is_asked_for_by_its_name_and_the_choice_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = run(POD, "default/web:80", capsys=capsys)
    assert (ended.code, ended.errors) == (0, "")
    assert (
        "of Service default/web the port 80/tcp was taken, at 10.96.0.10:80/tcp (a clusterIP)" in ended.output
    )
    unknown = run(POD, "default/shop", capsys=capsys)
    assert (unknown.code, unknown.errors) == (2, "ipvsproxy: there is no Service default/shop\n")


def test_without_the_agent_nobody_knows_services(capsys: pytest.CaptureFixture[str]) -> None:
    ended = run(POD, "default/web", report=no_agent, capsys=capsys)
    assert (ended.code, ended.output) == (1, "")
    assert "only the agent knows Services" in ended.errors


def test_an_answer_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    ended = run(POD, "10.96.0.10:80", capsys=capsys)
    assert (ended.code, ended.errors) == (0, "")
    assert f"answered by 10.244.1.7:8080, seeing {POD} as the source\n" in ended.output


def test_a_refusal_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(POD, "10.96.0.10:81", capsys=capsys).code == 1


def test_an_address_that_nobody_has_ends_with_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(POD, "10.96.0.11:80", capsys=capsys) == Ended(
        2, "", "ipvsproxy: 10.96.0.11: no Service has this address, and it is no address of this node\n"
    )


def test_without_an_agent_the_kernel_is_followed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    ended = run(POD, "10.96.0.10:80", report=no_agent, capsys=capsys)
    assert (ended.code, ended.errors) == (
        0,
        "ipvsproxy: the agent is not running: this is the kernel's state alone\n",
    )


def test_an_agent_that_knows_nothing_yet_is_as_good_as_none(capsys: pytest.CaptureFixture[str]) -> None:
    ended = run(POD, "10.96.0.10:80", report=lambda: report_of(view=view_of(synced=False)), capsys=capsys)
    assert ended.errors.startswith("ipvsproxy: the agent has not compared everything with the kernel yet: ")
    assert "default/web" not in ended.output


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(12, "Cannot allocate memory"), "the kernel can't be read: Cannot allocate memory"),
        (FirewallError("nft broke"), "the nftables table can't be read: nft broke"),
    ],
)
def test_a_kernel_that_can_t_be_read_is_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> NoReturn:
        raise error

    arguments = parse(["explain", "node", "10.96.0.10:80"])
    assert isinstance(arguments, ExplainArguments)
    output = io.StringIO()
    code = exit_code(lambda: show(arguments, no_agent, broken, no_pod, output, output))
    assert (code, output.getvalue(), capsys.readouterr().err) == (1, "", f"ipvsproxy: {line}\n")


def test_json_has_all_fields_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    answer: dict[str, Any] = json.loads(run(STRANGER, "10.96.0.10:80", "-o", "json", capsys=capsys).output)
    assert answer.keys() == {field.encode_name for field in msgspec.structs.fields(Explanation)}
    assert (answer["schemaVersion"], answer["outcome"]) == (1, "answered")
