"""What docs/troubleshooting.md is about, made on purpose: a situation for each of its sections, by its heading.

A situation is a generator: it makes the trouble, sees that clients meet it, and yields the shell in which the page's
commands are run. Afterwards it sees that they helped, where they should have, and clears up.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType, TrafficPolicy
from ipvsproxy.observe.agent_socket import ask_report
from netns_tests import kube_proxy, manifests, others, tables
from netns_tests.addressing import load_balancer_ip
from netns_tests.bare_node import Node
from netns_tests.cluster import TOPOLOGY, Cluster
from netns_tests.deadline import PATIENCE, await_that
from netns_tests.kube_proxy import Served
from netns_tests.manifests import PLAIN, Port, ServiceSpec
from netns_tests.namespaces import Namespace
from netns_tests.servers import HTTP_PORT
from netns_tests.shell import Shell
from netns_tests.traffic import (
    Answer,
    Connection,
    Failure,
    NoAnswerError,
    Target,
    failure_of,
    request,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from netns_tests.manifests import Endpoint

HTTP = Port("http", 80, HTTP_PORT)
WEB = Target("10.96.0.10", 80)
LOAD_BALANCER = WEB._replace(address=load_balancer_ip(10, Family.IPV4))
SILENT = 0.3
"""Seconds after which a client that should meet silence takes it for that."""
BARE = ("--hostname-override=node-a", "--conntrack-max-per-core=0", "--sync-period=1h")
RESOURCES = ("services", "endpointslices", "nodes")
MAXIMUM = Path("/proc/sys/net/netfilter/nf_conntrack_max")
HOST_FIREWALL = """
table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname "lo" accept
        tcp dport 22 accept
    }
}
"""


Situation: TypeAlias = "Callable[[Cluster, Path], Iterator[Shell]]"
SITUATIONS: dict[str, Situation] = {}


def situation(heading: str) -> Callable[[Situation], Situation]:
    """Enter a situation for the section of that heading."""

    def enter(made: Situation) -> Situation:
        assert heading not in SITUATIONS
        SITUATIONS[heading] = made
        return made

    return enter


@contextlib.contextmanager
def running_cluster(directory: Path) -> Iterator[Cluster]:
    """Build the cluster that the situations share; its agent leaves what others change as it is."""
    with Cluster.built(directory, TOPOLOGY, sync_period="1h") as cluster:
        cluster.agent.flags = ("--conntrack-max-per-core=0", "--nodeport-addresses=198.51.100.0/24")
        cluster.agent.start()
        yield cluster


def _shell(cluster: Cluster) -> Shell:
    return Shell(cluster.node.namespace, cluster.agent.run_directory, {})


def _write(
    cluster: Cluster,
    endpoints: Sequence[Endpoint],
    serving: Sequence[Endpoint] | None = None,
    spec: ServiceSpec = PLAIN,
    port: Port = HTTP,
) -> None:
    """Write the Service default/web, and wait until these of its endpoints serve on the node, all unless given."""
    objects = [
        manifests.service("web", [WEB.address], [port], spec),
        manifests.endpoint_slice("web-1", "web", Family.IPV4, endpoints, [port]),
    ]
    cluster.agent.manifests.write("web", objects)
    expected = {(each.address, port.target) for each in (endpoints if serving is None else serving)}
    await_that(
        lambda: (
            tables.serving(cluster.node).get(WEB) == expected
            and tables.has_address(cluster.node, WEB.address)
        ),
        f"{expected} serve default/web",
    )
    # The agent answers between two changes: by then it has done all of this one.
    ask_report(cluster.agent.run_directory)


@contextlib.contextmanager
def _web(
    cluster: Cluster,
    endpoints: Sequence[Endpoint],
    serving: Sequence[Endpoint] | None = None,
    spec: ServiceSpec = PLAIN,
    port: Port = HTTP,
) -> Iterator[None]:
    """Have the Service default/web for the block."""
    try:
        _write(cluster, endpoints, serving, spec, port)
        yield
    finally:
        cluster.agent.manifests.remove("web")
    await_that(lambda: not tables.has_address(cluster.node, WEB.address), "default/web is gone")


def _pods(cluster: Cluster, *names: str, **conditions: bool) -> list[Endpoint]:
    return [cluster.endpoint(name, Family.IPV4, **conditions) for name in names]


def _load_balancer(**fields: Any) -> ServiceSpec:  # noqa: ANN401 - those of ServiceSpec
    return ServiceSpec(type=ServiceType.LOAD_BALANCER, load_balancer_ips=(LOAD_BALANCER.address,), **fields)


def _met(cluster: Cluster, client: str, target: Target = WEB) -> Failure | str:
    """Return which server answers a client, or what it meets instead."""
    met = failure_of(cluster[client], target)
    return met.server if isinstance(met, Answer) else met


def _waits(cluster: Cluster, client: str, target: Target = WEB) -> bool:
    """Say whether a client gets no answer at all, for as long as it is watched."""
    return failure_of(cluster[client], target, SILENT) is Failure.SILENCE


@contextlib.contextmanager
def _setting(cluster: Cluster, name: str, value: str) -> Iterator[None]:
    """Have a kernel setting that is 1 at another value for the block."""
    cluster.node.namespace.sysctl(name, value)
    try:
        yield
    finally:
        cluster.node.namespace.sysctl(name, "1")


@situation("Always begin with these")
def all_is_well(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1", "web-3")):
        found = _shell(cluster).run("ipvsproxy check")
        assert not re.search("^(error|warning)", found, re.MULTILINE), found
        yield _shell(cluster)


@situation("No endpoint serves")
def no_endpoint_is_ready(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1", ready=False), serving=[]):
        assert _met(cluster, "client") is Failure.REFUSED
        yield _shell(cluster)


@situation("No endpoint has the Service's port")
def no_port_of_the_name(cluster: Cluster, _: Path) -> Iterator[Shell]:
    (pod,) = _pods(cluster, "web-1")
    with _web(cluster, [pod]):
        # As the controller writes it where no pod has the port that the targetPort names.
        objects = [
            manifests.service("web", [WEB.address], [HTTP]),
            manifests.endpoint_slice("web-1", "web", Family.IPV4, [pod], []),
        ]
        cluster.agent.manifests.write("web", objects)
        await_that(lambda: tables.serving(cluster.node).get(WEB) == set(), "nobody serves default/web")
        ask_report(cluster.agent.run_directory)
        assert _met(cluster, "client") is Failure.REFUSED
        yield _shell(cluster)


@situation("The node has no route to the endpoint")
def no_route(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-3")), contextlib.ExitStack() as stack:
        route = ("blackhole", f"{cluster['web-3'].addresses[Family.IPV4]}/32")
        cluster.node.namespace.run("ip", "route", "add", *route)
        stack.callback(cluster.node.namespace.run, "ip", "route", "del", *route)
        assert _met(cluster, "client") is Failure.UNREACHABLE
        yield _shell(cluster)


@situation("Nobody listens")
def nobody_listens(cluster: Cluster, _: Path) -> Iterator[Shell]:
    pod = cluster["web-1"]
    with _web(cluster, _pods(cluster, "web-1")), contextlib.ExitStack() as stack:
        cluster.servers.leave(pod)
        stack.callback(cluster.servers.start, pod)
        with pod.namespace.entered():
            # The servers of the tests have no process in the pod's network.
            process = stack.enter_context(subprocess.Popen(["sleep", "1000"]))
        stack.callback(process.kill)
        assert _met(cluster, "client") is Failure.REFUSED
        yield _shell(cluster)


@situation("The Service does not have the port")
def another_port(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1")):
        assert _met(cluster, "client", WEB._replace(port=HTTP_PORT)) is Failure.REFUSED
        yield _shell(cluster)


@situation("Connections time out")
def the_node_does_not_forward(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-3")), _setting(cluster, "net/ipv4/ip_forward", "0"):
        assert _waits(cluster, "client")
        yield _shell(cluster)
        assert _met(cluster, "client") == "web-3"


@situation("Some connections fail")
def one_endpoint_does_not_listen(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1", "web-2")), contextlib.ExitStack() as connections:
        cluster.servers.leave(cluster["web-2"])
        connections.callback(cluster.servers.start, cluster["web-2"])
        refused = 0
        for _number in range(6):
            try:
                connections.enter_context(Connection(cluster["client"], WEB)).ask()
            except NoAnswerError as error:
                refused += error.failure is Failure.REFUSED
        assert refused == 3
        yield _shell(cluster)


@situation("externalTrafficPolicy is Local")
def local_without_local_endpoints(cluster: Cluster, _: Path) -> Iterator[Shell]:
    spec = _load_balancer(external_traffic_policy=TrafficPolicy.LOCAL)
    with _web(cluster, _pods(cluster, "web-3"), spec=spec):
        assert _met(cluster, "client", LOAD_BALANCER) == "web-3"
        assert _waits(cluster, "outside", LOAD_BALANCER)
        yield _shell(cluster)


@situation("The agent has another name than its Node")
def another_node_name(cluster: Cluster, _: Path) -> Iterator[Shell]:
    (here,) = _pods(cluster, "web-1")
    spec = _load_balancer(external_traffic_policy=TrafficPolicy.LOCAL)
    with _web(cluster, [here._replace(node="node-z")], spec=spec):
        assert _met(cluster, "client", LOAD_BALANCER) == "web-1"
        assert _waits(cluster, "outside", LOAD_BALANCER)
        yield _shell(cluster)


@situation("The client is in none of the source ranges")
def source_ranges(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1"), spec=_load_balancer(source_ranges=("192.0.2.0/26",))):
        assert _met(cluster, "outside", LOAD_BALANCER) == "web-1"
        assert _waits(cluster, "stranger", LOAD_BALANCER)
        yield _shell(cluster)


@situation("A firewall of the node drops it")
def host_firewall(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1"), spec=_load_balancer()), contextlib.ExitStack() as stack:
        cluster.node.namespace.run("nft", "-f", "-", stdin=HOST_FIREWALL)
        stack.callback(others.nft, cluster.node, "delete table inet filter")
        assert _waits(cluster, "outside", LOAD_BALANCER)
        yield _shell(cluster)
        assert _met(cluster, "outside", LOAD_BALANCER) == "web-1"


@situation("The endpoint has another port than the pod")
def wrong_target_port(cluster: Cluster, _: Path) -> Iterator[Shell]:
    pods = _pods(cluster, "web-1")
    with _web(cluster, pods, port=HTTP._replace(target=8081)):
        assert _met(cluster, "client", Target(pods[0].address, HTTP_PORT)) == "web-1"
        assert _met(cluster, "client") is Failure.REFUSED
        yield _shell(cluster)


@situation("Nothing is masqueraded")
def nothing_is_masqueraded(cluster: Cluster, _: Path) -> Iterator[Shell]:
    pods = _pods(cluster, "web-1")
    with _web(cluster, pods), _setting(cluster, "net/ipv4/vs/conntrack", "0"):
        assert _met(cluster, "client") == "web-1"
        assert _met(cluster, "web-1", Target(pods[0].address, HTTP_PORT)) == "web-1"
        assert _waits(cluster, "web-1")
        yield _shell(cluster)
        assert _met(cluster, "web-1") == "web-1"


@situation("Some connections of the node itself hang")
def a_node_port_among_local_ports(cluster: Cluster, _: Path) -> Iterator[Shell]:
    port, spec = HTTP._replace(node_port=30010), ServiceSpec(type=ServiceType.NODE_PORT)
    outside = cluster["outside"].addresses[Family.IPV4], HTTP_PORT
    node, namespace = cluster.node.addresses[Family.IPV4], cluster.node.namespace
    with _web(cluster, _pods(cluster, "web-1"), port=port, spec=spec), contextlib.ExitStack() as stack:
        namespace.sysctl("net/ipv4/ip_local_port_range", "30000 60999")
        stack.callback(namespace.sysctl, "net/ipv4/ip_local_port_range", "32768 60999")
        stack.callback(namespace.sysctl, "net/ipv4/ip_local_reserved_ports", "")
        for number, hangs in ((30010, True), (30011, False)):
            with namespace.entered(), socket.socket() as client:
                client.settimeout(SILENT if hangs else PATIENCE)
                client.bind((node, number))
                with pytest.raises(TimeoutError) if hangs else contextlib.nullcontext():
                    client.connect(outside)
        yield _shell(cluster)


@situation("A client always gets the same pod")
def session_affinity(cluster: Cluster, _: Path) -> Iterator[Shell]:
    spec = ServiceSpec(session_affinity_timeout=10800)
    with _web(cluster, _pods(cluster, "web-1", "web-3"), spec=spec):
        assert len({_met(cluster, "client") for _number in range(6)}) == 1
        yield _shell(cluster)


@situation("An endpoint gets no traffic")
def hints_for_another_zone(cluster: Cluster, _: Path) -> Iterator[Shell]:
    cluster.agent.manifests.write("node", [manifests.node("node-a", zone="west")])
    here, there = _pods(cluster, "web-1", "web-3")
    endpoints = [here._replace(for_zones=("west",)), there._replace(for_zones=("east",))]
    with _web(cluster, endpoints, serving=[here]):
        yield _shell(cluster)
    cluster.agent.manifests.remove("node")


@situation("A pod that is gone still gets traffic")
def draining(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1")), Connection(cluster["client"], WEB) as connection:
        connection.ask()
        _write(cluster, _pods(cluster, "web-3"))
        assert connection.ask().server == "web-1"
        assert {_met(cluster, "client") for _number in range(4)} == {"web-3"}
        yield _shell(cluster)


@situation("A node port does not answer at one address")
def node_port_addresses(cluster: Cluster, _: Path) -> Iterator[Shell]:
    address, gateway = (
        Target(each[Family.IPV4], 30010) for each in (cluster.node.addresses, cluster.node.gateways)
    )
    port, spec = HTTP._replace(node_port=30010), ServiceSpec(type=ServiceType.NODE_PORT)
    with _web(cluster, _pods(cluster, "web-1"), port=port, spec=spec):
        assert _met(cluster, "outside", address) == "web-1"
        assert _met(cluster, "outside", gateway) is Failure.REFUSED
        yield _shell(cluster)


@situation("An external IP or a load balancer's IP is not served")
def refused_addresses(cluster: Cluster, _: Path) -> Iterator[Shell]:
    node = cluster["node-b"].addresses[Family.IPV4]
    cluster.agent.manifests.write("node", [manifests.node("node-b", addresses=[node])])
    with _web(cluster, _pods(cluster, "web-1"), spec=ServiceSpec(external_ips=("203.0.113.9", node))):
        yield _shell(cluster)
    cluster.agent.manifests.remove("node")


@situation("The agent does not run")
def no_agent(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1")):
        cluster.agent.kill()
        try:
            assert _met(cluster, "client") == "web-1"
            yield _shell(cluster)
        finally:
            cluster.agent.start()


@situation("The agent does not start, or ends again and again")
def a_second_agent(cluster: Cluster, directory: Path) -> Iterator[Shell]:
    renamed = {str(directory): "/etc/ipvsproxy", str(cluster.agent.manifests.path): "/etc/manifests"}
    yield Shell(cluster.node.namespace, cluster.agent.run_directory, renamed)


@situation("The agent is not ready")
def not_ready(_: Cluster, directory: Path) -> Iterator[Shell]:
    with _bare_node(directory) as node, node.api_server() as server:
        server.go_away()
        with node.agent(*node.api_flags(server), *BARE) as agent:
            for resource in RESOURCES:
                agent.await_line("watch interrupted", resource=resource)
            yield Shell(node.namespace, node.run_directory, {})


@situation("The API server can't be reached")
def api_server_away(_: Cluster, directory: Path) -> Iterator[Shell]:
    with (
        _bare_node(directory) as node,
        node.api_server() as server,
        node.agent(*node.api_flags(server), *BARE) as agent,
    ):
        agent.await_line("first sync")
        server.go_away()
        for resource in RESOURCES:
            agent.await_line("watch interrupted", resource=resource)
        yield Shell(node.namespace, node.run_directory, {})


@situation("A changed configuration has no effect")
def changed_configuration(_: Cluster, directory: Path) -> Iterator[Shell]:
    head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
    file = directory / "config.conf"
    file.write_text(f"{head}hostnameOverride: node-a\n")
    with (
        _bare_node(directory) as node,
        node.agent(node.manifests_flag, f"--config={file}", "--ipvs-scheduler=wlc") as agent,
    ):
        agent.await_line("first sync")
        file.write_text(f"{head}hostnameOverride: node-7\nipvs: {{scheduler: lc}}\n")
        agent.await_line("restart needed")
        yield Shell(node.namespace, node.run_directory, {str(file): "/etc/ipvsproxy/config.conf"})


@situation("Somebody changes the kernel")
def others_at_work(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1")):
        try:
            others.delete_virtual_server(cluster.node, WEB)
            others.nft(cluster.node, f"flush table {tables.TABLE}")
            cluster.node.namespace.run("ip", "address", "add", "203.0.113.99/32", "dev", tables.INTERFACE)
            assert _met(cluster, "client") is Failure.REFUSED
            yield _shell(cluster)
        finally:
            cluster.agent.kill()
            cluster.agent.start()
        assert _met(cluster, "client") == "web-1"


@situation("The connection tracking table is full")
def full_conntrack(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1")):
        with _no_room_for_connections(cluster):
            yield _shell(cluster)
        assert _met(cluster, "client") == "web-1"


@situation("Connections take a second or more to come about")
def lost_first_packet(cluster: Cluster, _: Path) -> Iterator[Shell]:
    with _web(cluster, _pods(cluster, "web-1")), ThreadPoolExecutor(1) as client:
        with _no_room_for_connections(cluster):
            dropped, begin = _dropped(cluster), time.monotonic()
            attempt = client.submit(request, cluster["client"], WEB)
            await_that(lambda: _dropped(cluster) > dropped, "the first packet is dropped")
        assert attempt.result().server == "web-1"
        assert time.monotonic() - begin > 1
        yield _shell(cluster)


@situation("What kube-proxy left is in the way")
def leftovers(cluster: Cluster, _: Path) -> Iterator[Shell]:
    gone = (cluster["web-3"].addresses[Family.IPV4], HTTP_PORT)
    with _web(cluster, _pods(cluster, "web-1")):
        kube_proxy.leave_iptables(cluster.node, [Served(WEB, [gone])])
        assert _met(cluster, "client") == "web-1"
        yield _shell(cluster)
        assert _met(cluster, "client") == "web-1"


@situation("A bundle for a bug report")
def bundle(cluster: Cluster, directory: Path) -> Iterator[Shell]:
    file = directory / "bundle.tar.gz"
    with _web(cluster, _pods(cluster, "web-1")):
        yield Shell(cluster.node.namespace, cluster.agent.run_directory, {str(file): "/root/node-a.tar.gz"})
        assert file.exists()


@contextlib.contextmanager
def _no_room_for_connections(cluster: Cluster) -> Iterator[None]:
    """Let the node track as many connections as it may, which are kept with default/web, for the block."""
    before = MAXIMUM.read_text()
    with contextlib.ExitStack() as connections:
        for _number in range(50):
            connections.enter_context(Connection(cluster["client"], WEB))
        try:
            MAXIMUM.write_text("50")
        except OSError:
            pytest.skip("only the kernel's first network namespace may say how many connections are tracked")
        connections.callback(MAXIMUM.write_text, before)
        # The kernel makes room at the expense of connections that came to nothing, as long as it finds some.
        await_that(lambda: _waits(cluster, "client"), "the table is full")
        yield


def _dropped(cluster: Cluster) -> int:
    """Return how many packets the node's connection tracking has dropped."""
    names, *processors = cluster.node.namespace.read("stat/nf_conntrack").splitlines()
    return sum(int(line.split()[names.split().index("drop")], 16) for line in processors)


@contextlib.contextmanager
def _bare_node(directory: Path) -> Iterator[Node]:
    with Namespace("node") as namespace:
        yield Node(namespace, directory)
