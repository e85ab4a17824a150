"""`ipvsproxy dump`, from the agent's answer and a kernel to what a person or a program reads."""

from __future__ import annotations

import errno
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack, get_args, get_origin, get_type_hints

import msgspec
import pytest

from ipvsproxy.cli.arguments.dump import DumpArguments, ServicePlace
from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.dump import look_at_kernel, show
from ipvsproxy.cli.tables import NO_DIFFERENCE
from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.kernel.fake import FakeAddresses, FakeIpvs
from ipvsproxy.kernel.fake_conntrack import FakeConntrack
from ipvsproxy.kernel.fake_firewall import FakeFirewall
from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError, NodeKernel
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import Command, IpvsOperation, Statistics, Traffic, VirtualServer
from ipvsproxy.model.objects import (
    ObjectKey,
    Protocol,
    ServiceOptions,
    ServiceType,
    SlicePort,
    TrafficPolicy,
)
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe import schema
from ipvsproxy.observe.agent_socket import AgentNotRunningError, AgentSilentError
from ipvsproxy.plan.host_firewall import find_drops
from ipvsproxy.plan.view import Drain, DrainKey, Failure
from tests.builders import NODE, address, endpoint, endpoint_slice, key, port, real_server, service
from tests.golden import assert_golden
from tests.host_tables import tables
from tests.observe.node import IDENTITY, NOW, planned, report_of, state, view_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.plan.firewall import FirewallSettings
    from ipvsproxy.source.store import ServiceState

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "dump.md").read_text()

WEB_NAME = ObjectKey("default", "web")
WEB = state(
    service(
        "10.96.0.10",
        ports=(port(80, "http"),),
        affinity=10800,
        options=ServiceOptions(maximum_connections=100),
    ),
    endpoint_slice(
        endpoint("10.244.0.5", node=NODE),
        endpoint("10.244.1.7"),
        endpoint("10.244.1.8", ready=False, serving=False),
        ports=(SlicePort("http", Protocol.TCP, 8080),),
    ),
)
DNS_NAME = ObjectKey("kube-system", "kube-dns")
DNS = state(
    service("10.96.0.53", of=DNS_NAME, ports=(port(53, "dns", Protocol.UDP), port(53, "dns-tcp"))),
    endpoint_slice(
        "10.244.1.2",
        of=DNS_NAME,
        name="kube-dns-1",
        ports=(SlicePort("dns", Protocol.UDP, 53), SlicePort("dns-tcp", Protocol.TCP, 53)),
    ),
)
API = state(service("fd00:10:96::20", of=ObjectKey("default", "api"), ports=(port(443, "https"),)))
EXTERNAL = state(service(of=ObjectKey("default", "mail"), kind=ServiceType.EXTERNAL_NAME))
SHOP_NAME = ObjectKey("default", "shop")
SHOP = state(
    service(
        "10.96.0.30",
        of=SHOP_NAME,
        kind=ServiceType.LOAD_BALANCER,
        ports=(port(80, node_port=30080),),
        load_balancer_ips=("192.0.2.10",),
        external_ips=("192.0.2.1",),
        external=TrafficPolicy.LOCAL,
        source_ranges=("198.51.100.0/24",),
    ),
    endpoint_slice("10.244.1.20", of=SHOP_NAME, name="shop-1"),
)
STATES = (API, DNS, EXTERNAL, SHOP, WEB)

WEB_KEY, API_KEY = key("10.96.0.10"), key("fd00:10:96::20", 443)
LEFT, DENIED = (
    real_server("10.244.1.9", weight=0)._replace(upper_threshold=100),
    Failure("adding the address: EACCES: Permission denied", 3, NOW + 4, NOW),
)


def the_report() -> AgentReport:
    """Return the report of a node where a few things are wrong."""
    view = view_of(
        *STATES,
        drains={DrainKey(WEB_KEY, LEFT.address, LEFT.port): Drain(NOW - 40, NOW + 860)},
        failures={API_KEY.address: DENIED},
    )._replace(last_resync=NOW - 12)
    broken = Rejection(
        "Service", ObjectKey("default", "broken"), "spec.ports[0].port", "0 is not a port from 1 to 65535"
    )
    report = report_of(*STATES, view=view, rejections=[broken])
    (dropping,) = find_drops(tables(INPUT="DROP"), ())
    firewall = schema.HostFirewallInfo(
        [str(dropping)], chains=["chain IPVSPROXY-FORWARD of table ip filter (iptables-legacy)"]
    )
    lost = "the API server can't be reached: Connection refused"
    watches = [
        schema.WatchInfo("endpointslices", connected=False, seconds_since_contact=95, error=lost),
        schema.WatchInfo("nodes", connected=True, seconds_since_contact=8, error=None),
        schema.WatchInfo("services", connected=True, seconds_since_contact=3, error=None),
    ]
    return msgspec.structs.replace(report, watches=watches, host_firewall=firewall)


class Kernel(NamedTuple):
    ipvs: FakeIpvs
    addresses: FakeAddresses
    firewall: FakeFirewall
    conntrack: FakeConntrack


def kernel_with(*states: ServiceState) -> Kernel:
    """Return a kernel that has what these Services ask for."""
    desired = planned(states)
    kernel = Kernel(FakeIpvs(), FakeAddresses(), FakeFirewall(settings=IDENTITY.firewall), FakeConntrack())
    kernel.addresses.ensure_interface()
    kernel.addresses.apply(desired.addresses, ())
    kernel.firewall.install(desired.elements)
    for virtual_server in (each.virtual_server for each in desired.virtual_servers.values()):
        operations = [IpvsOperation(Command.NEW_SERVICE, virtual_server)]
        operations += [
            IpvsOperation(Command.NEW_DEST, virtual_server, each) for each in virtual_server.real_servers
        ]
        assert kernel.ipvs.apply(operations) == {}
    return kernel


def the_kernel() -> Kernel:
    """Return the kernel of that node: somebody changed a weight, and IPv6 is off on the dummy interface."""
    kernel = kernel_with(*STATES)
    kernel.addresses.apply((), [API_KEY.address])
    web = kernel.ipvs.state()[WEB_KEY]
    changed = real_server("10.244.1.7", weight=5)._replace(upper_threshold=100)
    assert not kernel.ipvs.apply(
        [
            IpvsOperation(Command.NEW_DEST, web, LEFT),
            IpvsOperation(Command.SET_DEST, web, changed),
        ]
    )
    busy = address("10.244.0.5")
    kernel.ipvs.set_connections(WEB_KEY, busy, 8080, active=12, inactive=3, persistent=7)
    counted = Statistics(
        Traffic(2180, 19_400, 17_100, 2_100_000, 88_300_000), Traffic(4, 36, 31, 3_900, 164_200)
    )
    kernel.ipvs.set_statistics(WEB_KEY, counted)
    kernel.ipvs.set_statistics(WEB_KEY, counted, busy, 8080)
    kernel.ipvs.set_connections(WEB_KEY, LEFT.address, LEFT.port, active=1)
    return kernel


class Shown(NamedTuple):
    output: str
    errors: str
    code: int = 0


class Others(TypedDict, total=False):
    address: ServicePlace
    endpoint: Address
    diff: bool


class Settings(dict[str, str]):
    """Kernel settings."""

    def set(self, name: str, value: str) -> None:
        self[name] = value


def dumped(report: AgentReport | None, kernel: Kernel) -> schema.Dump:
    """Return what there is to show, with the kernel's counters."""

    def open_kernel(settings: FirewallSettings) -> NodeKernel:
        kernel.firewall.reopen(settings)
        return NodeKernel(*kernel)

    return look_at_kernel(report, open_kernel, Settings())


def no_kernel(_: FirewallSettings) -> NodeKernel:
    raise KernelUnavailableError("the kernel has no IPVS")


def dump(
    report: AgentReport | IpvsProxyError,
    kernel: Kernel,
    output: OutputFormat = OutputFormat.TABLE,
    of: ObjectKey | None = None,
    settings: Settings = Settings(),  # noqa: B008 - nothing changes it
    **others: Unpack[Others],
) -> Shown:
    def ask() -> AgentReport:
        if isinstance(report, IpvsProxyError):
            raise report
        return report

    def open_kernel(settings: FirewallSettings) -> NodeKernel:
        kernel.firewall.reopen(settings)
        return NodeKernel(*kernel)

    written, errors = io.StringIO(), io.StringIO()
    arguments = DumpArguments(output, of, Path("/run/ipvsproxy"), **others)
    code = show(arguments, ask, open_kernel, settings, written, errors)
    return Shown(written.getvalue(), errors.getvalue(), code)


@pytest.mark.parametrize(
    ("command", "output", "of"),
    [
        ("ipvsproxy dump", OutputFormat.TABLE, None),
        ("ipvsproxy dump -o wide", OutputFormat.WIDE, None),
        ("ipvsproxy dump -o yaml --service default/web", OutputFormat.YAML, WEB_NAME),
    ],
)
def test_the_example_of_the_page_is_what_is_printed(
    command: str, output: OutputFormat, of: ObjectKey | None
) -> None:
    (example,) = re.findall(rf"^\$ {command}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert dump(the_report(), the_kernel(), output, of) == (example, "", 0)


def test_the_examples_of_a_part_are_what_is_printed() -> None:
    endpoint_example, diff_example = re.findall(
        r"^\$ ipvsproxy dump (?:--endpoint \S+|--diff)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
    part = dump(the_report(), the_kernel(), endpoint=address("10.244.1.20"))
    assert part == (endpoint_example, "", 0)
    assert dump(the_report(), the_kernel(), diff=True) == (diff_example, "", 1)
    assert f"```\n{NO_DIFFERENCE}```\n" in PAGE


def paths(structure: type[schema.Schema], prefix: str = "") -> Iterator[str]:
    types = get_type_hints(structure)
    for field in msgspec.structs.fields(structure):
        path = prefix + field.encode_name
        yield path
        kind = types[field.name]
        below = next((each for each in (kind, *get_args(kind)) if is_structure(each)), None)
        listed = next((each for each in get_args(kind) if get_origin(each) is list), kind)
        if get_origin(listed) is list:
            path += "[]"
            below = next(filter(is_structure, get_args(listed)), None)
        if below:
            yield from paths(below, f"{path}.")


def is_structure(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, schema.Schema)


def test_every_field_is_described_on_the_page() -> None:
    rows = re.findall(r"^\| `([^`]+)`", PAGE, re.MULTILINE)
    assert rows == list(paths(schema.Dump))


def test_the_json_schema_is_that_of_the_code() -> None:
    (reference,), components = msgspec.json.schema_components((schema.Dump,), ref_template="#/$defs/{name}")
    for component in components.values():
        # For readers of the code; what a field means to others stands on the page.
        component.pop("description", None)
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ipvsproxy dump -o json, schema version {schema.SCHEMA_VERSION}",
        **reference,
        "$defs": components,
    }
    text = msgspec.json.format(msgspec.json.encode(document, order="sorted").decode(), indent=2)
    assert_golden(DOCS / "dump.schema.json", f"{text}\n")


@pytest.mark.parametrize("diff", [False, True])
def test_json_has_nothing_that_the_schema_does_not_know(*, diff: bool) -> None:
    text = dump(the_report(), the_kernel(), OutputFormat.JSON, diff=diff).output
    document = msgspec.json.decode(text, type=schema.Dump, strict=True)
    assert msgspec.json.decode(msgspec.json.encode(document)) == msgspec.json.decode(text)


def test_json_and_yaml_hold_the_same_document() -> None:
    as_json = dump(the_report(), the_kernel(), OutputFormat.JSON).output
    as_yaml = dump(the_report(), the_kernel(), OutputFormat.YAML).output
    document = msgspec.json.decode(as_json, type=schema.Dump)
    assert msgspec.yaml.decode(as_yaml, type=schema.Dump) == document
    assert document.agent == the_report().agent


def test_nothing_programmed_leaves_the_headers() -> None:
    assert dump(report_of(), kernel_with()).output == (
        "SERVICE   VIRTUAL SERVER   REAL SERVER   WEIGHT   ACTIVE   INACTIVE   STATE\n"
    )


def test_when_all_is_as_it_should_be_there_is_one_table() -> None:
    shown = dump(report_of(WEB), kernel_with(WEB)).output
    assert shown.splitlines()[1:] == [
        "default/web   10.96.0.10:80/tcp   10.244.0.5:8080   1        0        0          serving",
        "default/web   10.96.0.10:80/tcp   10.244.1.7:8080   1        0        0          serving",
    ]


def test_a_virtual_server_that_is_gone_is_shown_as_it_should_be() -> None:
    kernel = kernel_with(WEB)
    kernel.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, kernel.ipvs.state()[WEB_KEY])])
    row, *_ = wide_rows(report_of(WEB), kernel)
    assert (row["SCHEDULER"], row["PERSISTENCE"]) == ("-, desired rr", "-, desired 3h")
    assert (row["REAL SERVER"], row["WEIGHT"], row["MAXIMUM"], row["STATE"]) == (
        "10.244.0.5:8080",
        "-, desired 1",
        "-, desired 100",
        "missing",
    )
    assert "virtual server 10.96.0.10:80/tcp is missing" in dump(report_of(WEB), kernel).output


def test_what_nothing_asks_for_is_unwanted() -> None:
    shown = dump(report_of(), kernel_with(WEB), OutputFormat.WIDE).output
    assert re.search(r"^-  .*10\.244\.0\.5:8080 .* unwanted  +-$", shown, re.MULTILINE)
    assert re.search(r"^10\.96\.0\.10 +unwanted$", shown, re.MULTILINE)
    assert re.search(r"^service-ports-ipv4 +10\.96\.0\.10 \. tcp \. 80 +unwanted$", shown, re.MULTILINE)


def wide_rows(report: AgentReport | IpvsProxyError, kernel: Kernel) -> list[dict[str, str]]:
    """Return the rows of the main table, each with its cells by their column."""
    lines = dump(report, kernel, OutputFormat.WIDE).output.partition("\n\n")[0].splitlines()
    headers, *rows = (re.split(" {3,}", line) for line in lines)
    return [dict(zip(headers, row, strict=True)) for row in rows]


def test_limits_that_differ_stand_side_by_side() -> None:
    kernel = kernel_with(WEB)
    web = kernel.ipvs.state()[WEB_KEY]
    changed = real_server("10.244.1.7")._replace(upper_threshold=5)
    assert not kernel.ipvs.apply([IpvsOperation(Command.SET_DEST, web, changed)])
    (row,) = (each for each in wide_rows(report_of(WEB), kernel) if each["REAL SERVER"] == "10.244.1.7:8080")
    assert (row["WEIGHT"], row["MAXIMUM"], row["STATE"]) == ("1", "5, desired 100", "differs")


@pytest.mark.parametrize(
    ("source_ranges", "sources"),
    [
        (None, "all"),
        (("0.0.0.0/0",), "all"),
        (("198.51.100.0/24", "203.0.113.64/26"), "198.51.100.0/24,203.0.113.64/26"),
        (("2001:db8::/32",), "none"),
    ],
)
def test_the_sources_that_may_use_a_load_balancers_address_are_there(
    source_ranges: tuple[str, ...] | None, sources: str
) -> None:
    asking = service("10.96.0.30", load_balancer_ips=("192.0.2.10",), source_ranges=source_ranges)
    rows = wide_rows(report_of(state(asking)), kernel_with(state(asking)))
    assert {each["KIND"]: each["SOURCES"] for each in rows} == {"clusterIP": "all", "loadBalancerIP": sources}


def test_a_virtual_server_that_only_drains_refuses_new_connections() -> None:
    kernel = kernel_with(API)
    left = real_server("fd00:10:244::9", weight=0)
    assert not kernel.ipvs.apply([IpvsOperation(Command.NEW_DEST, kernel.ipvs.state()[API_KEY], left)])
    drains = {DrainKey(API_KEY, left.address, left.port): Drain(NOW - 90, NOW + 810)}
    rows = wide_rows(report_of(API, view=view_of(API, drains=drains)), kernel)
    assert [each["STATE"] for each in rows] == [
        "refusing, no real servers",
        "draining for 1m30s, 13m30s left",
    ]


def test_a_node_port_that_somebody_else_serves_is_rejected_and_what_they_have_not_shown() -> None:
    kernel = kernel_with()
    theirs = VirtualServer(key("203.0.113.2", 30080), "rr")
    operations = [
        IpvsOperation(Command.NEW_SERVICE, theirs),
        IpvsOperation(Command.NEW_DEST, theirs, real_server("10.9.9.9")),
    ]
    assert not kernel.ipvs.apply(operations)
    shown = dump(report_of(SHOP, view=view_of(SHOP, foreign=[theirs.key])), kernel).output
    assert "10.9.9.9" not in shown
    assert "default/shop   203.0.113.1:30080/tcp" in shown
    assert "default/shop   203.0.113.2:30080/tcp" not in shown
    assert re.search(
        r"^Service +default/shop +spec.ports\[\].nodePort +"
        r"virtual server 203.0.113.2:30080/tcp is not ipvsproxy's$",
        shown,
        re.MULTILINE,
    )


def test_an_address_of_another_interface_is_no_difference() -> None:
    kernel = kernel_with(WEB)
    kernel.addresses.apply((), [WEB_KEY.address])
    kernel.firewall.change((), [SetElement(FirewallSet.SERVICE_ADDRESSES, (WEB_KEY.address,))])
    kernel.addresses.other_addresses.add(WEB_KEY.address)
    shown = dump(report_of(WEB), kernel, OutputFormat.WIDE).output
    assert re.search(r"^10\.96\.0\.10 +on another interface$", shown, re.MULTILINE)
    assert "DIFFERENCE" not in shown


def test_rules_that_follow_from_other_settings_than_the_agents_are_a_difference() -> None:
    kernel = kernel_with(WEB)
    kernel.firewall.edit_rules()
    shown = dump(report_of(WEB), kernel).output
    assert shown.endswith("-         table inet ipvsproxy is not as the agent makes it\n")


NOT_RUNNING = AgentNotRunningError("the agent is not running, nobody listens on /run/ipvsproxy/agent.sock")
SILENT = AgentSilentError("the agent is busy, try again in a moment")
UNSYNCED = report_of(WEB, view=view_of(synced=False))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (NOT_RUNNING, "the agent is not running, nobody listens on /run/ipvsproxy/agent.sock"),
        (SILENT, "the agent is busy, try again in a moment"),
        (UNSYNCED, "the agent has not compared everything with the kernel yet"),
    ],
)
def test_when_the_agent_has_nothing_to_say_the_kernel_is_shown_alone_and_one_line_says_why(
    answer: AgentReport | IpvsProxyError, reason: str
) -> None:
    shown = dump(answer, kernel_with(WEB, API))
    assert shown.errors == f"ipvsproxy: {reason}: this is the kernel's state alone\n"
    assert shown.output.splitlines()[1:] == [
        "-         10.96.0.10:80/tcp          10.244.0.5:8080   1        0        0          serving",
        "-         10.96.0.10:80/tcp          10.244.1.7:8080   1        0        0          serving",
        "-         [fd00:10:96::20]:443/tcp   -                 -        -        -          refusing, no real servers",
    ]


def test_the_kernel_alone_tells_who_refuses_from_who_drops() -> None:
    rows = wide_rows(NOT_RUNNING, kernel_with(API, SHOP))
    assert {each["VIRTUAL SERVER"]: each["STATE"] for each in rows} == {
        "10.96.0.30:80/tcp": "serving",
        "192.0.2.10:80/tcp": "dropping, no local endpoints",
        "203.0.113.1:30080/tcp": "dropping, no local endpoints",
        "203.0.113.2:30080/tcp": "dropping, no local endpoints",
        "[fd00:10:96::20]:443/tcp": "refusing, no real servers",
    }


@pytest.mark.parametrize("answer", [NOT_RUNNING, SILENT, UNSYNCED])
def test_one_service_needs_an_agent_that_knows_services(answer: AgentReport | IpvsProxyError) -> None:
    with pytest.raises(
        IpvsProxyError, match="--service default/web: only the agent knows Services, and the agent"
    ):
        dump(answer, kernel_with(WEB), of=WEB_NAME)


def test_a_service_that_the_agent_does_not_know_is_a_wrong_flag() -> None:
    with pytest.raises(UsageError, match="--service default/nope: the agent knows no such Service"):
        dump(the_report(), the_kernel(), of=ObjectKey("default", "nope"))


@pytest.mark.parametrize("report", [None, "the report"])
def test_an_address_or_an_endpoint_that_nobody_has_is_a_wrong_flag(report: str | None) -> None:
    answer = the_report() if report else NOT_RUNNING
    with pytest.raises(UsageError, match=re.escape("--address 10.9.9.9:80: no Service that is known here")):
        dump(answer, the_kernel(), address=ServicePlace(address("10.9.9.9"), 80))
    with pytest.raises(UsageError, match="--endpoint fd00::9: no Service that is known here has such"):
        dump(answer, the_kernel(), endpoint=address("fd00::9"))


def test_without_the_agent_an_endpoint_is_found_in_the_kernel() -> None:
    shown = dump(NOT_RUNNING, the_kernel(), endpoint=address("10.244.1.7"))
    assert shown.output.splitlines()[1:] == [
        "-         10.96.0.10:80/tcp   10.244.1.7:8080   5        0        0          serving"
    ]
    assert shown.errors.endswith("this is the kernel's state alone\n")


@pytest.mark.parametrize("output", list(OutputFormat))
def test_the_exit_code_of_diff_tells_whether_anything_differs(output: OutputFormat) -> None:
    assert dump(the_report(), the_kernel(), output, diff=True).code == 1
    assert dump(report_of(WEB), kernel_with(WEB), output, diff=True).code == 0
    assert dump(the_report(), the_kernel(), output).code == 0


def test_that_nothing_differs_is_said() -> None:
    assert dump(report_of(WEB), kernel_with(WEB), diff=True) == (NO_DIFFERENCE, "", 0)


@pytest.mark.parametrize("answer", [NOT_RUNNING, SILENT, UNSYNCED])
def test_diff_needs_something_to_compare_with(answer: AgentReport | IpvsProxyError) -> None:
    with pytest.raises(
        IpvsProxyError, match="--diff: there is nothing to compare the kernel with: the agent"
    ):
        dump(answer, kernel_with(WEB), diff=True)


def test_a_virtual_server_that_the_kernel_refuses_has_the_time_of_the_next_try() -> None:
    kernel = kernel_with(WEB)
    kernel.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, kernel.ipvs.state()[WEB_KEY])])
    report = report_of(WEB, view=view_of(WEB, failures={WEB_KEY: DENIED}))
    first, *_ = wide_rows(report, kernel)
    assert (first["REAL SERVER"], first["STATE"]) == ("-", "missing, failed, next try in 4s")


def test_what_is_followed_is_a_table_when_it_is_not_followed() -> None:
    watches = [schema.WatchInfo("services", connected=True, seconds_since_contact=3, error=None)]
    report = msgspec.structs.replace(report_of(WEB), watches=watches)
    assert "WATCHED" not in dump(report, kernel_with(WEB)).output
    wide = dump(report, kernel_with(WEB), OutputFormat.WIDE).output
    assert re.search(r"^services +connected +3s ago +-$", wide, re.MULTILINE)


def test_a_service_that_is_not_programmed_is_known_all_the_same() -> None:
    shown = dump(the_report(), the_kernel(), of=ObjectKey("default", "broken")).output
    assert "not programmed, rejected: 0 is not a port from 1 to 65535" in shown
    assert re.search(r"^Service +default/broken +spec.ports\[0\].port ", shown, re.MULTILINE)


def test_a_rejected_object_without_a_namespace_goes_by_its_name() -> None:
    rejection = Rejection("Node", ObjectKey("", NODE), "", "no such Node")
    shown = dump(report_of(rejections=[rejection]), kernel_with()).output
    assert "Node       node-a   -       no such Node" in shown


def test_a_kernel_that_cannot_be_read_is_an_error() -> None:
    kernel = kernel_with(WEB)
    kernel.ipvs.fail_calls(OSError(errno.EPERM, "Operation not permitted"))
    with pytest.raises(IpvsProxyError, match="the kernel can't be read: Operation not permitted"):
        dump(report_of(WEB), kernel)


def test_a_table_that_nft_does_not_read_is_an_error() -> None:
    kernel = kernel_with(WEB)
    kernel.firewall.fail_calls(FirewallError("nft did not end within 60 seconds"))
    with pytest.raises(IpvsProxyError, match="the nftables table can't be read: nft did not end"):
        dump(report_of(WEB), kernel)


def test_rates_of_a_kernel_that_does_not_count_are_not_shown() -> None:
    settings = Settings({"net.ipv4.vs.run_estimation": "0"})
    wide = dump(the_report(), the_kernel(), OutputFormat.WIDE, settings=settings)
    assert wide.errors == (
        "ipvsproxy: the kernel does not count packets and connections, net.ipv4.vs.run_estimation is 0: "
        "`sysctl net.ipv4.vs.run_estimation=1` has it count\n"
    )
    (row,) = (
        line for line in wide.output.splitlines() if " 10.244.0.5:8080 " in line and " serving " in line
    )
    assert re.search(r"100 +- +- +- +serving", row)
    document = dump(the_report(), the_kernel(), OutputFormat.JSON, WEB_NAME, settings=settings).output
    (virtual_server,) = msgspec.json.decode(document, type=schema.Dump).virtual_servers
    assert virtual_server.statistics is not None
    assert (virtual_server.statistics.total.connections, virtual_server.statistics.per_second) == (2180, None)


def test_the_table_without_rates_says_nothing_of_a_kernel_that_does_not_count() -> None:
    settings = Settings({"net.ipv4.vs.run_estimation": "0"})
    assert dump(the_report(), the_kernel(), settings=settings).errors == ""


def test_without_agent_and_kernel_there_is_one_error_and_nothing_else_to_read() -> None:
    def ask() -> AgentReport:
        raise NOT_RUNNING

    arguments = DumpArguments(OutputFormat.TABLE, None, Path("/run/ipvsproxy"))
    output, errors = io.StringIO(), io.StringIO()
    with pytest.raises(KernelUnavailableError, match="the kernel has no IPVS"):
        show(arguments, ask, no_kernel, Settings(), output, errors)
    assert output.getvalue() + errors.getvalue() == ""
