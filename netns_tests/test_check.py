"""What `ipvsproxy check` says of a node on which something was broken on purpose, and whether its advice mends it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from pyroute2.ipset import IPSet

from ipvsproxy import __version__
from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.check import CheckArguments
from ipvsproxy.cli.check import Inspection
from ipvsproxy.kernel.addresses import DummyInterface
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.model.addresses import Family, parse_address
from ipvsproxy.model.ipvs import Command, IpvsOperation, VirtualServer
from ipvsproxy.model.objects import ServiceType
from ipvsproxy.observe.check import check_result
from ipvsproxy.plan.check.finding import by_severity, exit_code
from netns_tests import manifests
from netns_tests.bare_node import Node
from netns_tests.deadline import await_that
from netns_tests.manifests import Endpoint, Port, ServiceSpec
from netns_tests.namespaces import Namespace
from netns_tests.program import PROGRAM, run_to_end
from tests import api_server_objects
from tests.builders import key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.bare_node import Agent
    from tests.api_server import ApiServer

# What is the machine's own is as a namespace of the test finds it, and can't set it.
FLAGS = ("--hostname-override=node-a", "--conntrack-max-per-core=0", "--sync-period=1h")
MAXIMUM = Path("/proc/sys/net/netfilter/nf_conntrack_max")
POLICY_DROP = """
table inet filter {{
    {flags}
    chain input {{
        type filter hook input priority 10; policy drop;
        iif lo accept
    }}
}}
"""


class Found(NamedTuple):
    """How a check ended."""

    code: int
    findings: list[dict[str, Any]]

    def of(self, check: str) -> list[tuple[str, str]]:
        """Return severity and meaning of what was found by one check."""
        return [(each["severity"], each["meaning"]) for each in self.findings if each["check"] == check]

    def the(self, check: str, about: str | None = None) -> dict[str, Any]:
        """Return the only finding of a check, or the only one about something."""
        (found,) = (
            each for each in self.findings if each["check"] == check and about in {None, each["about"]}
        )
        return found

    def severities(self, *others_than: str) -> dict[str, str]:
        """Return what is not as it should be: the worst severity of each check, without the checks named."""
        # The worst comes first.
        worst = {each["check"]: each["severity"] for each in reversed(self.findings)}
        return {
            check: severity
            for check, severity in worst.items()
            if severity not in {"ok", "info", "unknown"} and check not in others_than
        }


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Namespace("node") as namespace:
        yield Node(namespace, tmp_path)


def run(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    with node.namespace.entered():
        return run_to_end([*PROGRAM, "check", node.run_directory_flag, *words])


def check(node: Node, *words: str) -> Found:
    """Do what the program does, without a start of Python for each look."""
    arguments = parse(["check", node.run_directory_flag, *words])
    assert isinstance(arguments, CheckArguments)
    with node.namespace.entered(), Inspection(arguments) as inspection:
        findings = by_severity(inspection.findings())
    shown = check_result(findings, __version__).findings
    return Found(exit_code(findings), msgspec.to_builtins(shown))


@contextlib.contextmanager
def running(node: Node, *words: str) -> Iterator[Agent]:
    with node.agent(node.manifests_flag, *FLAGS, *words) as agent:
        agent.await_line("first sync")
        yield agent


def write_service(
    node: Node,
    *endpoints: str,
    addresses: tuple[str, ...] = ("10.96.0.10",),
    spec: ServiceSpec = manifests.PLAIN,
) -> None:
    ports = [Port("http", 80, 8080)]
    node.manifests.write(
        "web",
        [
            manifests.service("web", addresses, ports, spec),
            manifests.endpoint_slice(
                "web-1", "web", Family.IPV4, [Endpoint(each, "node-a") for each in endpoints], ports
            ),
        ],
    )


def follow(node: Node, advice: str) -> None:
    """Run the first command of a finding's advice."""
    node.namespace.run(*advice.partition(";")[0].partition(",")[0].split())


def test_a_fresh_node_has_no_fault_and_lists_what_the_agent_will_do(node: Node) -> None:
    # A namespace may have it from the kernel's first one.
    node.namespace.sysctl("net/ipv4/ip_forward", "0")
    found = check(node, *FLAGS)
    assert (found.code, found.severities()) == (0, {})
    forwarding = found.the("kernel-setting", "net.ipv4.ip_forward")
    assert forwarding["severity"] == "info"
    assert (
        forwarding["meaning"] == "net.ipv4.ip_forward is 0 and should be 1: the agent sets it when it starts"
    )
    assert "has left no rules: this node has none yet" in found.the("agent")["meaning"]
    assert found.of("nft") == [("ok", found.the("nft")["meaning"])]
    assert found.of("port") == [("ok", "free: TCP port 10256 and 10249")]


def test_beside_a_healthy_agent_everything_is_ok_and_nothing_is_changed(node: Node) -> None:
    write_service(node, "10.244.1.10")
    with running(node) as agent:
        before = node.state()
        found = check(node)
        assert (found.code, found.severities()) == (0, {})
        answers = "it answers, and has compared everything with the kernel"
        assert found.of("agent") == [
            ("ok", f"agent {__version__}, process {agent.process.pid}, node node-a: {answers}")
        ]
        assert found.of("watch") == [("ok", "connected: manifests")]
        assert found.of("differences") == [("ok", "the kernel has what the agent wants")]
        assert found.of("resync")[0][0] == "ok"
        completed = run(node, "-o", "json")
        assert (completed.returncode, completed.stderr) == (0, "")
        shown = json.loads(completed.stdout)
        assert (shown["schemaVersion"], shown["version"], shown["worst"]) == (1, __version__, "ok")
        assert node.state() == before


def test_a_person_reads_lines_with_the_worst_first_and_the_mend_below(node: Node) -> None:
    with running(node):
        node.namespace.sysctl("net/ipv4/ip_forward", "0")
        completed = run(node)
    assert completed.returncode == 1
    first, second, *_, last = completed.stdout.splitlines()
    assert first.split(maxsplit=2) == [
        "error",
        "kernel-setting",
        "net.ipv4.ip_forward is 0 and should be 1: the node does not pass IPv4 traffic on to pods",
    ]
    assert second.strip() == "mend: sysctl -w net.ipv4.ip_forward=1"
    assert last.startswith("1 error, ")
    assert "\x1b" not in completed.stdout


def test_a_setting_that_somebody_changed_is_an_error_and_the_command_mends_it(node: Node) -> None:
    with running(node):
        node.namespace.sysctl("net/ipv4/vs/conntrack", "0")
        found = check(node)
        setting = found.the("kernel-setting", "net.ipv4.vs.conntrack")
        assert (found.code, setting["severity"]) == (1, "error")
        assert (
            "nothing is masqueraded: processes of the node, and pods that reach themselves"
            in setting["meaning"]
        )
        follow(node, setting["mend"])
        assert check(node).code == 0


def test_what_is_expected_follows_from_the_agents_own_configuration_unless_flags_are_given(
    node: Node,
) -> None:
    with running(node, "--ipvs-strict-arp"):
        assert check(node).severities() == {}
        node.namespace.sysctl("net/ipv4/conf/all/arp_ignore", "0")
        found = check(node)
        assert (found.code, found.severities()) == (3, {"kernel-setting": "warning"})
        assert found.the("kernel-setting", "net.ipv4.conf.all.arp_ignore")["mend"] == (
            "sysctl -w net.ipv4.conf.all.arp_ignore=1"
        )
        assert check(node, "--conntrack-max-per-core=0").severities() == {}


def test_a_stopped_agent_is_an_error_that_says_what_still_works(node: Node) -> None:
    write_service(node, "10.244.1.10")
    with running(node):
        pass
    found = check(node, *FLAGS)
    assert found.code == 1
    assert found.severities() == {"agent": "error"}
    assert found.the("agent")["meaning"] == (
        f"the agent is not running, nobody listens on {node.run_directory}/agent.sock: the kernel goes on with what "
        "it has, and no change of Services and endpoints reaches it"
    )


def test_an_agent_with_another_run_directory_is_found(node: Node, tmp_path: Path) -> None:
    with running(node) as agent:
        found = check(node, f"--run-directory={tmp_path / 'elsewhere'}")
        other = found.the("other-agent")
        assert (found.code, other["severity"]) == (1, "error")
        assert other["meaning"] == (
            f"an agent runs in this network namespace, process {agent.process.pid}, "
            "with another run directory than this one"
        )
        assert check(node).of("other-agent")[0][0] == "ok"


def test_an_api_server_out_of_reach_is_one_error_for_all_watches(node: Node) -> None:
    with node.api_server() as server, node.agent(*node.api_flags(server), *FLAGS) as agent:
        agent.await_line("first sync")
        assert check(node).of("watch")[0][0] == "ok"
        server.go_away()

        def all_broken() -> bool:
            return [each["about"] for each in watches(check(node))] == ["endpointslices, nodes and services"]

        await_that(all_broken, "every watch is out of reach")
        found = check(node)
        assert (found.code, found.severities()) == (1, {"watch": "error"})
        watch = found.the("watch")
        assert "are out of reach, last heard of " in watch["meaning"]
        assert "so changes are not seen: " in watch["meaning"]
        assert "see that the API server can be reached from this node" in watch["mend"]


def test_without_nft_a_node_is_not_fit_and_a_running_agent_is_said_to_have_its_own(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        found = check(node, *FLAGS)
    assert (found.code, found.the("nft")["severity"]) == (1, "error")
    assert (
        found.the("nft")["meaning"] == "there is no program nft on the PATH: the agent can't write its rules"
    )
    assert "apt-get install nftables" in found.the("nft")["mend"]
    with running(node):
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(tmp_path))
            found = check(node)
        assert (found.code, found.the("nft")["severity"]) == (3, "warning")
        assert found.the("differences")["severity"] == "unknown"
        assert found.the("host-firewall")["severity"] == "unknown"


def test_a_host_firewall_that_drops_is_a_warning_once_and_none_while_its_table_is_dormant(node: Node) -> None:
    node.namespace.run("nft", "-f", "-", stdin=POLICY_DROP.format(flags=""))
    with running(node) as agent:
        # From here on the agent has it among its own warnings, too.
        agent.await_line("host firewall drops")
        found = check(node)
        assert (found.code, found.severities()) == (3, {"host-firewall": "warning"})
        firewall = found.the("host-firewall")
        assert firewall["about"] == "inet filter input"
        assert firewall["mend"].startswith("nft insert rule inet filter input ip daddr SERVICE-CIDR accept;")
    node.namespace.run("nft", "delete", "table", "inet", "filter")
    node.namespace.run("nft", "-f", "-", stdin=POLICY_DROP.format(flags="flags dormant;"))
    assert check(node, *FLAGS).of("host-firewall")[0][0] == "ok"


@contextlib.contextmanager
def maximum_of(connections: int) -> Iterator[None]:
    """Let every network namespace track so many connections; only the kernel's first one can say so."""
    before = MAXIMUM.read_text()
    try:
        MAXIMUM.write_text(str(connections))
    except OSError:
        pytest.skip("this is not the kernel's first network namespace")
    try:
        yield
    finally:
        MAXIMUM.write_text(before)


EARLY = """
table inet early {
    chain redirections { tcp dport 443 redirect to :8443; }
    chain pre { type nat hook prerouting priority -150; jump redirections; }
}
"""


@pytest.mark.parametrize("program", ["iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"])
def test_rules_of_others_that_come_first_are_a_warning_if_service_traffic_may_fit_them(
    node: Node, program: str
) -> None:
    write_service(node, "10.244.1.10")
    with running(node):
        assert check(node).the("foreign-rules")["severity"] == "ok"
        for port in ("80", "81"):
            options = ("-A", "PREROUTING", "-p", "tcp", "--dport", port, "-j", "NOTRACK")
            node.namespace.run(program, "-t", "raw", *options)
        found = check(node).the("foreign-rules")
        assert (found["severity"], "PREROUTING" in found["about"]) == ("warning", True)
        node.namespace.run(program, "-t", "raw", "-F")
        node.namespace.run("nft", "-f", "-", stdin=EARLY)
        assert check(node).the("foreign-rules")["severity"] == "ok"
        node.namespace.run("nft", "-f", "-", stdin=EARLY.replace("443", "80"))
        assert check(node).the("foreign-rules")["about"] == "chain redirections of table inet early"


def test_a_connection_tracking_table_that_fills_up_is_a_warning_and_a_full_one_an_error(node: Node) -> None:
    # Its rules make the kernel track connections in the namespace.
    with running(node), maximum_of(50), contextlib.ExitStack() as connections:
        with node.namespace.entered():
            server = connections.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))

        def connect(number: int) -> None:
            for _ in range(number):
                with node.namespace.entered():
                    connections.enter_context(socket.create_connection(server.getsockname()))
                connections.enter_context(server.accept()[0])

        connect(42)
        found = check(node)
        assert (found.code, found.severities()) == (3, {"conntrack-room": "warning"})
        room = found.the("conntrack-room")
        assert room["meaning"] == (
            "42 of 50 tracked connections (84%): once the table is full, the node drops new connections"
        )
        assert room["mend"].startswith("sysctl -w net.netfilter.nf_conntrack_max=100")
        connect(8)
        # There is no room for it, and nothing that could make room: all others are established.
        with (
            node.namespace.entered(),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
            pytest.raises(PermissionError),
        ):
            client.sendto(b"", server.getsockname())
        found = check(node)
        assert (found.code, found.the("conntrack-room")["severity"]) == (1, "error")
        assert found.the("conntrack-room")["meaning"] == (
            "50 of 50 tracked connections (100%): a full table drops new connections, those to services and all others"
        )
        assert found.the("conntrack-drops")["meaning"].startswith("connection tracking has dropped 1 packets")


def test_a_running_kube_proxy_is_a_warning_before_the_agent_and_an_error_beside_it(
    node: Node, tmp_path: Path
) -> None:
    program = tmp_path / "kube-proxy"
    shutil.copy(shutil.which("sleep") or "", program)
    with node.namespace.entered():
        process = subprocess.Popen([program, "1000"])
    try:
        found = check(node, *FLAGS)
        assert (found.code, found.severities()) == (3, {"kube-proxy": "warning"})
        assert found.the("kube-proxy")["meaning"] == (
            f"kube-proxy runs, process {process.pid}: stop it before the agent starts"
        )
        with running(node):
            found = check(node)
            assert (found.code, found.severities()) == (1, {"kube-proxy": "error"})
    finally:
        process.kill()
        process.wait()


def test_what_kube_proxy_left_is_counted_and_cleanup_is_what_mends_it(node: Node) -> None:
    node.namespace.run("nft", "add", "table", "ip", "nat")
    for chain in ("KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-KUBELET-CANARY"):
        node.namespace.run("nft", "add", "chain", "ip", "nat", chain)
    with node.namespace.netlink(IPSet) as ipsets:
        ipsets.create("KUBE-CLUSTER-IP", stype="hash:ip,port")
    with node.namespace.entered(), DummyInterface() as interface:
        interface.ensure_interface()
        interface.apply([parse_address("10.96.0.1")], [])
        server = VirtualServer(key("10.96.0.1", 443), "rr", 0, 0, ())
        with IpvsNetlink() as ipvs:
            assert ipvs.apply([IpvsOperation(Command.NEW_SERVICE, server)]) == {}
    found = check(node, *FLAGS)
    assert (found.code, found.severities()) == (3, {"kube-proxy-leftovers": "warning"})
    left = found.the("kube-proxy-leftovers")
    assert left["meaning"].startswith("kube-proxy left 2 chains of iptables, 1 ipset, 1 virtual server: ")
    assert left["mend"] == "ipvsproxy cleanup --kube-proxy --dry-run; then ipvsproxy cleanup --kube-proxy"


def test_a_port_of_the_agents_that_somebody_has_is_a_warning_before_it_starts(node: Node) -> None:
    with node.namespace.entered():
        taken = socket.create_server(("127.0.0.1", 10256))
    with taken:
        found = check(node, *FLAGS)
    assert (found.code, found.severities()) == (3, {"port": "warning"})
    assert found.the("port")["meaning"].startswith(
        "somebody listens on TCP port 10256, where the agent is to answer"
    )


def test_load_balancer_addresses_without_strict_arp_are_a_warning_where_a_program_answers_arp(
    node: Node,
) -> None:
    spec = ServiceSpec(type=ServiceType.LOAD_BALANCER, load_balancer_ips=("198.51.100.200",))
    write_service(node, "10.244.1.10", spec=spec)
    with running(node):
        found = check(node)
        assert (found.code, found.the("arp")["severity"]) == (0, "info")
        with node.namespace.entered():
            speaker = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
            speaker.bind(("lo", 0x0806))
        with speaker:
            found = check(node)
        assert (found.code, found.severities()) == (3, {"arp": "warning"})
        arp = found.the("arp")["meaning"]
        assert "arp_ignore is 0 and arp_announce 0: the node answers ARP requests for 198.51.100.200" in arp
        assert "a program answers ARP on lo, as MetalLB does" in arp
        assert "--ipvs-strict-arp" in found.the("arp")["mend"]


def test_pods_on_a_bridge_that_netfilter_does_not_see_are_an_error_that_the_setting_mends(node: Node) -> None:
    run_ip = node.namespace.run
    run_ip("ip", "link", "add", "cni0", "type", "bridge")
    run_ip("ip", "address", "add", "10.244.1.1/24", "dev", "cni0")
    run_ip("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    run_ip("ip", "link", "set", "veth0", "master", "cni0")
    node.namespace.sysctl("net/bridge/bridge-nf-call-iptables", "0")
    write_service(node, "10.244.1.10")
    with running(node):
        found = check(node)
        assert (found.code, found.severities()) == (1, {"bridge": "error"})
        bridge = found.the("bridge", "cni0 10.244.1.0/24")
        assert bridge["meaning"] == (
            "what passes from port to port of the bridge cni0 (10.244.1.0/24) is not seen by netfilter: pods get no "
            "answer from a service whose endpoint is on the same bridge"
        )
        assert bridge["mend"] == "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1"
        follow(node, bridge["mend"].partition("; ")[2])
        assert check(node).of("bridge")[0][0] == "ok"
        node.namespace.sysctl("net/bridge/bridge-nf-call-iptables", "0")
        run_ip("ip", "link", "set", "cni0", "type", "bridge", "nf_call_iptables", "1")
        assert check(node).of("bridge")[0][0] == "ok"


def test_ipv6_that_is_switched_off_is_an_error_where_there_are_ipv6_services(node: Node) -> None:
    write_service(node, "10.244.1.10", addresses=("10.96.0.10", "fd00:10:96::10"))
    for interface in ("default", "all"):
        node.namespace.sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1")
    with running(node):
        found = check(node)
        assert found.code == 1
        # That the kernel refuses the address, and that it is missing, are the same cause.
        assert found.severities() == {"ipv6": "error"}
        assert found.the("ipv6")["meaning"] == (
            "IPv6 is switched off on kube-ipvs0, and there are 1 IPv6 service addresses: they can't be bound"
        )


def errors(found: Found) -> list[tuple[str, str | None]]:
    """Return the check and the kind of each error."""
    return [(each["check"], each["about"]) for each in found.findings if each["severity"] == "error"]


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("ipvsadm", "virtual servers that are missing"),
        ("nft flush table inet ipvsproxy", "rules that are not the agent's"),
        ("nft flush ruleset", "rules that are not the agent's"),
    ],
)
def test_what_others_take_away_so_that_traffic_fails_is_one_error(
    node: Node, command: str, kind: str
) -> None:
    write_service(node, "10.244.1.10", addresses=("10.96.0.10", "fd00:10:96::10"))
    with running(node):
        with node.namespace.entered(), IpvsNetlink() as ipvs:
            if command == "ipvsadm":
                servers = [each for chunk in ipvs.virtual_servers() for each in chunk]
                ipvs.apply([IpvsOperation(Command.DEL_SERVICE, each) for each in servers])
            else:
                node.namespace.run(*command.split())
        found = check(node)
        assert (found.code, errors(found)) == (1, [("differences", kind)])
        assert found.severities() == {"differences": "error"}
        assert "ipvsproxy dump --diff" in found.the("differences")["mend"]


def test_what_others_change_otherwise_is_a_warning(node: Node) -> None:
    write_service(node, "10.244.1.10")
    with running(node):
        with node.namespace.entered(), DummyInterface() as interface:
            interface.apply([parse_address("10.96.0.99")], [])
        found = check(node)
        assert (found.code, found.severities()) == (3, {"differences": "warning"})
        assert "10.96.0.99" in found.the("differences")["meaning"]


def test_a_service_that_is_not_served_is_an_error_and_other_rejections_are_warnings_beside_it(
    node: Node,
) -> None:
    spec = ServiceSpec(external_ips=("203.0.113.7", "203.0.113.8"))
    write_service(node, "10.244.1.10", spec=spec)
    node.manifests.write("broken", [manifests.service("broken", ["10.96.0.11"], [Port("http", 0, 80)])])
    with running(node, "--allowed-external-ips=198.51.100.0/24"):
        found = check(node)
        assert (found.code, found.severities()) == (1, {"rejections": "error"})
        unserved = found.the("rejections", "rejected, no address is served")
        assert "Service default/broken spec.ports[0].port" in unserved["meaning"]
        others = found.the("rejections", "rejected, Service spec.externalIPs")
        assert others["severity"] == "warning"
        for address in spec.external_ips:
            assert address in others["meaning"]


def test_a_clusterip_that_a_foreign_virtual_server_keeps_is_an_error(node: Node) -> None:
    theirs = VirtualServer(key("10.96.0.10", 443), "rr", 0, 0, ())
    with node.namespace.entered(), IpvsNetlink() as ipvs:
        assert ipvs.apply([IpvsOperation(Command.NEW_SERVICE, theirs)]) == {}
    write_service(node, "10.244.1.10")
    with running(node):
        found = check(node)
        assert (found.code, errors(found)) == (1, [("rejections", "rejected, no address is served")])


def test_a_node_port_that_the_nodes_own_connections_may_begin_at_is_a_warning_that_the_command_mends(
    node: Node,
) -> None:
    node.namespace.run("ip", "link", "set", "lo", "up")
    node.namespace.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    node.namespace.sysctl("net/ipv4/ip_local_reserved_ports", "30081")
    ports = [Port("http", 80, 8080, node_port=30080)]
    spec = ServiceSpec(type=ServiceType.NODE_PORT)
    node.manifests.write("web", [manifests.service("web", ["10.96.0.10"], ports, spec)])
    with running(node):
        assert check(node).of("node-ports")[0][0] == "ok"
        node.namespace.sysctl("net/ipv4/ip_local_port_range", "30000 60999")
        found = check(node)
        assert (found.code, found.severities()) == (3, {"node-ports": "warning"})
        node.namespace.run(*found.the("node-ports")["mend"].partition(";")[0].split())
        assert check(node).of("node-ports")[0][0] == "ok"
        with node.namespace.entered():
            assert Path("/proc/sys/net/ipv4/ip_local_reserved_ports").read_text() == "30080-30081\n"


def test_a_node_name_that_the_api_server_does_not_know_is_an_error(node: Node) -> None:
    flags = ("--hostname-override=node-z", *FLAGS[1:])
    with (
        node.api_server() as server,
        node.agent(f"--kubeconfig={server.kubeconfig(node.directory / 'kubeconfig')}", *flags) as agent,
    ):
        agent.await_line("first sync")
        found = check(node)
        assert (found.code, errors(found)) == (1, [("node", None)])
        assert found.of("agent-warning") == []
        assert "--hostname-override" in found.the("node")["mend"]
        server.state.apply(api_server_objects.node("node-z"))
        await_that(lambda: check(node).of("node")[0][0] == "ok", "the node is known")


@pytest.mark.parametrize(
    ("refuse", "remedy"),
    [
        (lambda server: setattr(server, "token", "another"), "renew the token or client certificate"),
        (lambda server: server.forbidden.update(("services", "endpointslices", "nodes")), "ClusterRole"),
    ],
    ids=["401", "403"],
)
def test_credentials_that_the_api_server_refuses_are_one_error_with_a_remedy_about_them(
    node: Node, refuse: Callable[[ApiServer], None], remedy: str
) -> None:
    with node.api_server() as server:
        flags = node.api_flags(server)
        refuse(server)
        with node.agent(*flags, *FLAGS):
            await_that(
                lambda: (
                    [watch["about"] for watch in watches(check(node))]
                    == ["endpointslices, nodes and services"]
                ),
                "all watches are refused",
            )
            found = check(node)
            assert found.severities() == {"watch": "error"}
            (watch,) = watches(found)
            assert remedy in watch["mend"]


def watches(found: Found) -> list[dict[str, Any]]:
    return [each for each in found.findings if each["check"] == "watch"]


def test_a_run_directory_that_others_may_enter_is_a_warning_and_the_command_mends_it(node: Node) -> None:
    with running(node):
        node.run_directory.chmod(0o755)
        found = check(node)
        assert (found.code, found.severities()) == (3, {"run-directory": "warning"})
        directory = found.the("run-directory")
        assert f"{node.run_directory} belongs to user 0 with permissions 755" in directory["meaning"]
        follow(node, directory["mend"].partition("; ")[2])
        assert check(node).of("run-directory")[0][0] == "ok"


def test_an_agent_of_another_schema_version_is_an_error_and_all_else_is_looked_at(node: Node) -> None:
    node.run_directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.run_directory / "agent.sock"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'{"schemaVersion": 99}')

        agent = threading.Thread(target=answer)
        agent.start()
        found = check(node, *FLAGS)
        agent.join()
    assert (found.code, found.severities()) == (1, {"agent": "error"})
    assert "the agent answers in schema version 99, this program reads 1" in found.the("agent")["meaning"]
    assert found.of("kernel-version")[0][0] == "ok"


def check_by(node: Node, *privileges: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these options of setpriv."""
    with node.namespace.entered():
        return run_to_end(["setpriv", *privileges, *PROGRAM, "check"])


def test_a_root_without_the_right_to_configure_the_network_is_told_what_can_be_seen(node: Node) -> None:
    completed = check_by(node, "--bounding-set=-net_admin")
    assert (completed.returncode, completed.stderr) == (1, "")
    found = completed.stdout
    assert "CAP_NET_ADMIN is missing: the agent can't run here" in " ".join(found.split())
    assert "give the container the capability NET_ADMIN" in found
    assert f"Linux {os.uname().release}" in found


def test_without_root_one_line_says_so(node: Node) -> None:
    completed = check_by(node, "--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
    assert (completed.returncode, completed.stdout) == (77, "")
    assert completed.stderr == (
        "ipvsproxy: CAP_NET_ADMIN is missing: run as root, or give the container the capability NET_ADMIN\n"
    )
