"""`ipvsproxy top`, from a kernel that counts and the agent's answers to what is printed."""

from __future__ import annotations

import datetime as dt
import errno
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.arguments.top import TopArguments
from ipvsproxy.cli.top import write_snapshots
from ipvsproxy.cli.top_source import Node, Source
from ipvsproxy.cli.units import compact, exact
from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.kernel.fake import FakeAddresses, FakeIpvs
from ipvsproxy.kernel.fake_conntrack import FakeConntrack
from ipvsproxy.kernel.fake_firewall import FakeFirewall
from ipvsproxy.kernel.interface import NodeKernel
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import Command, IpvsOperation, Statistics, Traffic
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.observe import schema
from ipvsproxy.observe.agent_socket import AgentNotRunningError, AgentSilentError
from ipvsproxy.observe.look_times import LookTimes
from ipvsproxy.observe.traffic import RUN_ESTIMATION, Grouping, Order, Wanted
from tests.builders import address, endpoint_slice, key, real_server, service, virtual_server
from tests.cli.top_frames import FIRST, FRAME
from tests.observe.node import report_of, state, view_of

if TYPE_CHECKING:
    from ipvsproxy.cli.top_source import Frame
    from ipvsproxy.model.ipvs import VirtualServer
    from ipvsproxy.observe.schema import AgentReport

PAGE = (Path(__file__).parents[2] / "docs" / "top.md").read_text()

WEB = virtual_server(key("10.96.0.10"), real_server("10.244.0.5"), real_server("10.244.1.7"))
SHOP = virtual_server(key("10.96.0.30"), real_server("10.244.1.8"))
THEIRS = virtual_server(key("10.99.0.1"), real_server("10.244.9.9"))
WEB_STATE = state(service("10.96.0.10"), endpoint_slice("10.244.0.5", "10.244.1.7"))
SHOP_STATE = state(
    service("10.96.0.30", of=ObjectKey("shop", "front")),
    endpoint_slice("10.244.1.8", of=ObjectKey("shop", "front"), name="front-1"),
)
NOON = dt.datetime(2026, 11, 21, 15, 49, 7, tzinfo=dt.UTC)


def no_agent() -> AgentReport:
    raise AgentNotRunningError("the agent is not running, nobody listens on /run/ipvsproxy/agent.sock")


class FakeNode:
    """A node whose kernel counts every 2 s; its clock goes on while somebody waits.

    Each second every virtual server gets a connection of 1,000 bytes, and its first real server has it.
    """

    def __init__(self, *states: Any, answers: list[AgentReport | Exception] | None = None) -> None:  # noqa: ANN401
        self.now = 1000.0
        self.ipvs, self.addresses, self.firewall = FakeIpvs(), FakeAddresses(), FakeFirewall()
        self.addresses.ensure_interface()
        self.firewall.install([])
        self.answers = answers or [report_of(*states, view=view_of(*states))]
        self.asked = 0
        self.sysctls = {RUN_ESTIMATION: "1"}
        self.made: list[VirtualServer] = []

    def make(self, *virtual_servers: VirtualServer, ours: bool = True) -> None:
        for each in virtual_servers:
            operations = [IpvsOperation(Command.NEW_SERVICE, each)]
            operations += [IpvsOperation(Command.NEW_DEST, each, server) for server in each.real_servers]
            assert self.ipvs.apply(operations) == {}
            if ours:
                self.firewall.change([SetElement(FirewallSet.SERVICE_PORTS, each.key)], [])
            self.made.append(each)

    def get(self, name: str) -> str | None:
        return self.sysctls.get(name)

    def set(self, name: str, value: str) -> None:
        self.sysctls[name] = value

    def ask(self) -> AgentReport:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    def counted(self) -> str:
        return str(int(self.now / 2))

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        seconds_counted = int(self.now / 2) * 2
        for each in self.made:
            counters = Statistics(Traffic(seconds_counted, 0, 0, 1000 * seconds_counted, 0))
            self.ipvs.set_statistics(each.key, counters)
            first, *_ = each.real_servers
            self.ipvs.set_statistics(each.key, counters, first.address, first.port)
        return False

    def source(self, by: Grouping = Grouping.SERVICE, wanted: Wanted = Wanted()) -> Source:  # noqa: B008 - immutable
        kernel = NodeKernel(self.ipvs, self.addresses, self.firewall, FakeConntrack())
        return Source(Node(kernel, self, self.ask, self.counted, lambda: self.now, self.wait), by, wanted)

    def shown(self, *words: str) -> str:
        """Return what `ipvsproxy top` with these words prints."""
        output, errors = io.StringIO(), io.StringIO()
        arguments = arguments_of(*words)
        frames = self.source(arguments.by, arguments.wanted).frames(LookTimes(arguments.interval))
        write_snapshots(arguments, frames, lambda: NOON, output, errors)
        self.errors = errors.getvalue()
        return output.getvalue()


def arguments_of(*words: str) -> TopArguments:
    arguments = parse(["top", *words])
    assert isinstance(arguments, TopArguments)
    return arguments


def node(*virtual_servers: VirtualServer) -> FakeNode:
    made = FakeNode(WEB_STATE, SHOP_STATE)
    made.make(*virtual_servers or (WEB, SHOP))
    return made


def rows(looked_at: FakeNode, *words: str) -> dict[str, int]:
    """Return the bytes a second from clients by name, to the next hundred: a count is noticed a little late."""
    (snapshot,) = map(json.loads, looked_at.shown("-o", "json", *words).splitlines())
    named = {
        each["endpoint"] or each["service"] or each["virtualServer"]: each
        for each in [*snapshot["rows"], snapshot["total"]]
    }
    return {name or "total": round(each["perSecond"]["bytesIn"] / 100) * 100 for name, each in named.items()}


def test_a_snapshot_has_the_rates_of_one_interval_and_the_total() -> None:
    shown = node().shown()
    assert [line.split()[:5] for line in shown.splitlines()] == [
        ["SERVICE", "ENDPOINTS", "ACTIVE", "INACTIVE", "NEW/S"],
        ["default/web", "2", "0", "0", "1.0"],
        ["shop/front", "1", "0", "0", "1.0"],
        ["TOTAL", "3", "0", "0", "2.0"],
    ]
    assert rows(node()) == {"default/web": 1000, "shop/front": 1000, "total": 2000}


@pytest.mark.parametrize("interval", ["2s", "5s", "10s"])
def test_rates_are_exact_whatever_the_interval(interval: str) -> None:
    (snapshot,) = map(json.loads, node().shown("-o", "json", "--interval", interval).splitlines())
    assert snapshot["total"]["perSecond"]["bytesIn"] == pytest.approx(2000, rel=0.01)
    assert snapshot["intervalSeconds"] == pytest.approx(2 * -(-float(interval[:-1]) // 2), abs=0.03)


def test_several_snapshots_have_a_time_each_and_an_empty_line_in_between() -> None:
    first, second = node().shown("--count", "2").split("\n\n")
    assert first.startswith("2026-11-21T15:49:07Z, the last 2.0s\nSERVICE ")
    assert second.startswith("2026-11-21T15:49:07Z, the last 2.0s\nSERVICE ")


def test_by_endpoint_the_counters_are_those_of_real_servers() -> None:
    assert rows(node(), "--by", "endpoint") == {
        "10.244.0.5:8080": 1000,
        "10.244.1.7:8080": 0,
        "10.244.1.8:8080": 1000,
        "total": 2000,
    }


def test_what_is_somebody_elses_is_never_shown() -> None:
    looked_at = node()
    looked_at.make(THEIRS, ours=False)
    assert "10.99.0.1" not in looked_at.shown("--by", "virtual-server")
    looked_at.answers = [AgentNotRunningError("nobody")]
    assert "10.99.0.1" not in looked_at.shown("--by", "virtual-server")


def test_what_is_ours_and_no_service_asks_for_is_shown_by_its_address() -> None:
    looked_at = node(WEB, SHOP, virtual_server(key("10.96.0.77"), real_server("10.244.1.8")))
    assert rows(looked_at)["10.96.0.77:80/tcp"] == 1000


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--service", "web"], {"default/web", "total"}),
        (["--namespace", "shop"], {"shop/front", "total"}),
        (["--endpoint", "10.244.1.7"], {"10.244.1.7:8080", "total"}),
        (["--endpoint", "10.244.1.7", "--by", "service"], {"default/web", "total"}),
    ],
)
def test_a_part_of_the_node_is_shown_alone(words: list[str], names: set[str]) -> None:
    assert rows(node(), *words).keys() == names


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--service", "nope"],
            "--service default/nope: the agent knows no such Service that has virtual servers",
        ),
        (
            ["--namespace", "nope"],
            "--namespace nope: the agent knows no such Service that has virtual servers",
        ),
        (["--endpoint", "10.1.1.1"], "--endpoint 10.1.1.1: no virtual server has such a real server"),
    ],
)
def test_what_nobody_has_is_an_error_in_the_words(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        node().shown(*words)


def test_without_the_agent_virtual_servers_are_shown_by_address() -> None:
    alone = node()
    alone.answers = [AgentNotRunningError("nobody")]
    assert rows(alone).keys() == {"10.96.0.10:80/tcp", "10.96.0.30:80/tcp", "total"}
    assert json.loads(alone.shown("-o", "json"))["agent"] is None
    with pytest.raises(IpvsProxyError, match="only the agent knows Services, and nobody") as failed:
        alone.shown("--service", "default/web")
    assert failed.value.exit_code == 1


def test_an_agent_that_ends_and_comes_back_is_noticed() -> None:
    report = report_of(WEB_STATE, SHOP_STATE, view=view_of(WEB_STATE, SHOP_STATE))
    looked_at = node()
    looked_at.answers = [report, AgentSilentError("it ended"), report]
    frames = looked_at.source().frames(LookTimes(2))
    found = [next(frames) for _ in range(14)]
    silences = [frame.silence for frame in found]
    assert silences[0] == silences[-1] == ""
    assert "it ended" in silences


def test_a_new_virtual_server_has_its_name_at_the_next_look() -> None:
    looked_at = FakeNode(WEB_STATE)
    looked_at.make(WEB)
    looked_at.answers = [report_of(WEB_STATE), report_of(WEB_STATE, SHOP_STATE)]
    frames = looked_at.source().frames(LookTimes(2))
    first: Frame = next(frames)
    assert SHOP.key not in first.names.services
    looked_at.make(SHOP)
    assert next(frames).names.services[SHOP.key] == "shop/front"
    assert looked_at.asked == 2


def test_the_agent_is_not_asked_at_each_look() -> None:
    looked_at = node()
    frames = looked_at.source().frames(LookTimes(2))
    while looked_at.now < 1060:
        next(frames)
    assert looked_at.asked <= 7


def test_it_says_that_the_kernel_does_not_count() -> None:
    looked_at = node()
    looked_at.set(RUN_ESTIMATION, "0")
    assert json.loads(looked_at.shown("-o", "json", "--count", "1"))["counting"] is False
    assert looked_at.errors == (
        "ipvsproxy: the kernel does not count packets and connections, net.ipv4.vs.run_estimation is 0: "
        "`sysctl net.ipv4.vs.run_estimation=1` has it count\n"
    )
    del looked_at.sysctls[RUN_ESTIMATION]
    looked_at.shown()
    assert looked_at.errors == ""


def test_a_kernel_that_can_not_be_read_is_one_line() -> None:
    broken = node()
    broken.ipvs.fail_calls(OSError(errno.ENOBUFS, "No buffer space available"))
    with pytest.raises(IpvsProxyError, match="the kernel can't be read: No buffer space available"):
        broken.shown()


@pytest.mark.parametrize(
    ("number", "text", "short"),
    [
        (0, "0", "0"),
        (0.04, "0.0", "0.0"),
        (0.5, "0.5", "0.5"),
        (9.96, "10.0", "10.0"),
        (10, "10", "10"),
        (9999, "9999", "9999"),
        (12_345, "12345", "12.3k"),
        (99_960, "99960", "100k"),
        (999_700, "999700", "1.00M"),
        (3_714_286, "3714286", "3.71M"),
        (221_428_571, "221428571", "221M"),
        (4.2e12, "4200000000000", "4.20T"),
    ],
)
def test_a_rate_is_exact_in_snapshots_and_short_on_the_screen(number: float, text: str, short: str) -> None:
    assert (exact(number), compact(number)) == (text, short)
    assert len(short) <= 5


# --- the page docs/top.md ---


def example(words: str) -> str:
    (found,) = re.findall(rf"^\$ ipvsproxy top{words}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert isinstance(found, str)
    return found


def printed(*words: str) -> str:
    output = io.StringIO()
    write_snapshots(arguments_of(*words), iter([FIRST, FRAME]), lambda: NOON, output, io.StringIO())
    return output.getvalue()


def test_the_page_shows_what_top_prints() -> None:
    assert example(" --count 1") == printed("--count", "1")
    assert example(" --by endpoint --sort active --count 1") == printed(
        "--by", "endpoint", "--sort", "active", "--count", "1"
    )


def test_the_page_shows_json_as_top_prints_it() -> None:
    shown = json.loads(example(r" -o json --service default/shop \| jq"))
    assert shown == json.loads(printed("-o", "json", "--service", "default/shop"))


def test_the_page_describes_every_field() -> None:
    fields = set(re.findall(r"^\| `([^`]+)`", PAGE.partition("## For programs")[2], re.MULTILINE))
    expected = set()
    for structure, prefix in (
        (schema.TopSnapshot, ""),
        (schema.TopRow, "rows[]."),
        (schema.TopRates, "rows[].perSecond."),
    ):
        expected |= {prefix + name for name in structure.__struct_encode_fields__}
    assert fields == expected
    assert get_type_hints(schema.TopSnapshot)["total"] is schema.TopRow


# --- the command line ---


def test_top_alone_is_the_live_screen_by_service_with_most_bytes_first() -> None:
    assert arguments_of() == TopArguments(
        OutputFormat.TABLE,
        Grouping.SERVICE,
        Order.BYTES,
        Wanted(),
        2.0,
        None,
        Path("/run/ipvsproxy"),
    )


def test_every_flag_of_top_has_its_place() -> None:
    words = "-o json --by virtual-server --sort name --service a/b --namespace a --endpoint fd00::1"
    words += " --interval 1m --count 0 --run-directory /r"
    assert arguments_of(*words.split()) == TopArguments(
        OutputFormat.JSON,
        Grouping.VIRTUAL_SERVER,
        Order.NAME,
        Wanted(ObjectKey("a", "b"), "a", address("fd00::1")),
        60.0,
        0,
        Path("/r"),
    )


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ("--by pod", "--by: 'pod' is not one of service, endpoint, virtual-server"),
        (
            "--sort weight",
            "--sort: 'weight' is not one of bytes, packets, connections, active, inactive, name",
        ),
        ("--interval 1s", "--interval: 1s is less than 2s, and the kernel counts every 2 seconds only"),
        ("--count=-1", "--count: '-1' is not a number from 0 on"),
        ("--endpoint web", "--endpoint: 'web' is not an IP address"),
        ("-o yaml", "-o/--output: 'yaml' is not one of table, json"),
    ],
)
def test_a_wrong_word_is_named(capsys: pytest.CaptureFixture[str], words: str, refusal: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["top", *words.split()])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"ipvsproxy top: {refusal}\n"
