"""What `ipvsproxy explain` says of a node where something is wrong, in words, and what clients meet there."""

from __future__ import annotations

import contextlib
import io
import json
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ipvsproxy.cli.main import main
from ipvsproxy.model.addresses import Family, format_endpoint, parse_address
from ipvsproxy.model.objects import ServiceType, TrafficPolicy
from netns_tests import others, tables
from netns_tests.addressing import Via
from netns_tests.cluster import Cluster
from netns_tests.deadline import await_that
from netns_tests.program import without_waiting
from netns_tests.servers import HTTP_PORT
from netns_tests.tables import Tables
from netns_tests.traffic import Connection, Failure, failure_of, request
from tests import api_server_objects
from tests.api_server import ApiServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from netns_tests.cluster import ServiceUnderTest
    from netns_tests.traffic import Target

    NewService = Callable[..., ServiceUnderTest]

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
UNFOLLOWED = "chain input of table inet ipvsproxy has a rule that the agent does not make"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # What others change stays as it is while it is looked at.
    with Cluster.built(tmp_path_factory.mktemp("cluster"), sync_period="1h") as built:
        built.agent.start()
        yield built


@pytest.fixture
def mended(cluster: Cluster) -> Iterator[None]:
    """Have the agent mend at the end what the test broke."""
    yield
    if cluster.agent.runs:
        cluster.agent.kill()
    cluster.agent.start()


def text(target: Target) -> str:
    address = f"[{target.address}]" if ":" in target.address else target.address
    return f"{address}:{target.port}/{target.protocol.name.lower()}"


def endpoint(cluster: Cluster, pod: str, family: Family) -> str:
    address = cluster[pod].addresses[family]
    return f"[{address}]:{HTTP_PORT}" if family is Family.IPV6 else f"{address}:{HTTP_PORT}"


class Told(NamedTuple):
    """How the command ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def ask(cluster: Cluster, client: str, target: Target, *options: str) -> Told:
    """Ask in words; whoever `client` names of the topology is asked about by its address."""
    return run(cluster, *words(cluster, client, target), "to", text(target), *options)


def run(cluster: Cluster, *words: str) -> Told:
    """Run the command on the node, in this process: a start of Python's takes longer than all the rest."""
    stdout, stderr = io.StringIO(), io.StringIO()
    line = ["explain", *words, f"--run-directory={cluster.agent.run_directory}"]
    with (
        cluster.node.namespace.entered(),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        code = main(line)
    return Told(code, stdout.getvalue(), without_waiting(stderr.getvalue()))


def words(cluster: Cluster, client: str, target: Target) -> list[str]:
    if client == "node" or client.startswith("pod "):
        return client.split()
    family = Family.IPV6 if ":" in target.address else Family.IPV4
    return [cluster[client].addresses[family]]


def explained(cluster: Cluster, client: str, target: Target) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ask(cluster, client, target, "-o", "json").stdout)
    return answer


def test_the_way_is_told_step_by_step_with_rules_and_entries_and_who_answers_at_the_end(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1", "web-3")
    target = service.target(family)
    told = ask(cluster, "stranger", target)
    assert (told.returncode, told.stderr) == (0, "")
    lines = [line.strip() for line in told.stdout.splitlines()]
    ip = f"ipv{4 if family is Family.IPV4 else 6}"
    element = f"element {target.address} . tcp . 80 of set service-ports-{ip}"
    whose = f"{text(target)} is a clusterIP of Service default/{service.name}, port http"
    for expected in (
        f"{whose}, with internalTrafficPolicy Cluster",
        "1. prerouting, chain prerouting: masquerade sources outside the cluster's pods: marked (bit 14)",
        element,
        "2. prerouting, chain destinations: service traffic is not for others' destination NAT: the destination stays",
        "3. routing: the destination is bound on the dummy interface: for the node",
        f"to {endpoint(cluster, 'web-1', family)}, {endpoint(cluster, 'web-3', family)}:",
        "7. postrouting, chain masquerading: masquerade what is marked: the source becomes an address of the node",
    ):
        assert expected in lines, told.stdout
    own = cluster.node.addresses[family], cluster.node.gateways[family]
    assert (
        f"answered by {endpoint(cluster, 'web-1', family)}, seeing {own[1]} (this node) as the source, "
        f"or {endpoint(cluster, 'web-3', family)}, seeing {own[0]} (this node) as the source"
    ) in lines


@pytest.mark.usefixtures("mended")
def test_a_deleted_virtual_server_is_missing_and_the_agent_wants_it(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-1").target(family)
    others.delete_virtual_server(cluster.node, target)
    told = ask(cluster, "client", target)
    missing = f"virtual server {text(target)} is missing"
    assert told.returncode == 1
    assert f"refused at once: {missing}\n" in told.stdout
    assert (
        f"as the agent wants it, the packet would be answered by {endpoint(cluster, 'web-1', family)}, "
        f"seeing the client as the source, but {missing}\n"
    ) in told.stdout
    assert failure_of(cluster["client"], target) is Failure.REFUSED


@pytest.mark.usefixtures("mended")
def test_through_a_flushed_table_the_packet_keeps_its_source_and_nothing_is_refused(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-1").target(family)
    others.nft(cluster.node, f"flush table {tables.TABLE}")
    answer = explained(cluster, "stranger", target)
    assert [step["stage"] for step in answer["steps"]] == ["routing"]
    source = cluster["stranger"].addresses[family]
    web = endpoint(cluster, "web-1", family)
    assert answer["result"] == f"answered by {web}, seeing {source} as the source"
    assert answer["wanted"] == (
        f"as the agent wants it, the packet would be answered by {web}, seeing this node as the source, "
        f"but table {tables.TABLE} is not as the agent makes it"
    )
    assert ask(cluster, "stranger", target).returncode == 1


@pytest.mark.usefixtures("mended")
def test_without_the_table_it_says_so(cluster: Cluster, new_service: NewService) -> None:
    target = new_service("web-1").target(Family.IPV4)
    others.nft(cluster.node, f"delete table {tables.TABLE}")
    assert f"table {tables.TABLE} is not there" in ask(cluster, "stranger", target).stdout


def test_without_a_ready_endpoint_it_says_which_there_are_and_why_they_do_not_serve(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1")
    service.write([service.slice(family, [cluster.endpoint("web-1", family, ready=False)])])
    target = service.target(family)
    service.await_real_servers(target, set())
    told = ask(cluster, "client", target)
    assert told.returncode == 1
    assert (
        f"refused at once: no endpoint of Service default/{service.name} serves here: not ready\n"
        in told.stdout
    )
    excluded = (cluster["web-1"].addresses[family], "excluded", "not ready")

    def shown() -> tuple[str, str, str]:
        (endpoint,) = explained(cluster, "client", target)["endpoints"]
        return endpoint["address"], endpoint["state"], endpoint["reason"]

    await_that(lambda: shown() == excluded, "the endpoint has drained, and is excluded")
    assert failure_of(cluster["client"], target) is Failure.REFUSED


def test_under_the_policy_local_outside_clients_are_dropped_and_pods_are_sent_to_the_cluster_ip(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-3")
    service.become(ServiceType.LOAD_BALANCER, external_traffic_policy=TrafficPolicy.LOCAL)
    target = service.target(family, via=Via.LOAD_BALANCER_IP)
    await_that(partial(tables.has_address, cluster.node, target.address), f"{target.address} is bound")
    outside = ask(cluster, "stranger", target)
    assert outside.returncode == 1
    assert (
        f"dropped without an answer: no endpoint of Service default/{service.name} serves here: "
        "on another node, and externalTrafficPolicy is Local\n"
    ) in outside.stdout
    inside = explained(cluster, "client", target)
    cluster_ip = service.target(family)
    place = format_endpoint(parse_address(cluster_ip.address), cluster_ip.port)
    assert f"clients inside the cluster are sent on to the ClusterIP, {place}" in inside["about"]
    redirection = inside["steps"][0]
    assert (redirection["chain"], redirection["effect"]) == (
        "destinations",
        f"the destination becomes {place}",
    )
    assert inside["result"] == (
        f"answered by {endpoint(cluster, 'web-3', family)}, seeing "
        f"{cluster['client'].addresses[family]} as the source"
    )


def test_a_source_outside_the_ranges_is_dropped_and_one_in_them_is_not(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1")
    allowed = cluster["outside"].addresses[family]
    service.become(
        ServiceType.LOAD_BALANCER,
        source_ranges=(f"{allowed}/{family.bits}",),
    )
    target = service.target(family, via=Via.LOAD_BALANCER_IP)
    await_that(partial(tables.has_address, cluster.node, target.address), f"{target.address} is bound")
    refused, let_in = ask(cluster, "stranger", target), ask(cluster, "outside", target)
    assert (refused.returncode, let_in.returncode) == (1, 0), (refused.stdout, let_in.stdout)
    source = cluster["stranger"].addresses[family]
    assert f"dropped without an answer: {source} is in none of the allowed networks\n" in refused.stdout
    assert "add the client's network to spec.loadBalancerSourceRanges" in refused.stdout
    assert f"its loadBalancerSourceRanges let in {allowed}/{family.bits} only\n" in refused.stdout


def test_an_address_that_nobody_has_is_one_line_and_a_port_that_no_service_has_is_told(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1")
    free = cluster.reserve_service().target(family)
    nobody = ask(cluster, "client", free)
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert nobody.stderr == (
        f"ipvsproxy: {free.address}: no Service has this address, and it is no address of this node\n"
    )
    closed = ask(cluster, "client", service.target(family, port=HTTP_PORT))
    assert closed.returncode == 1
    assert (
        f"refused at once: no Service has port {HTTP_PORT}/tcp at {service.target(family).address}: it has "
        f"53/udp (default/{service.name}), 80/tcp (default/{service.name}), 81/tcp (default/{service.name}) and "
        f"3868/sctp (default/{service.name})\n"
    ) in closed.stdout


def test_a_virtual_server_of_somebody_else_is_followed_and_said_to_be_theirs(cluster: Cluster) -> None:
    node_address = cluster.node.addresses[Family.IPV4]
    theirs = cluster.reserve_service().target(Family.IPV4)._replace(address=node_address, port=8888)
    others.add_virtual_server(
        cluster.node, theirs, "rr", [(cluster["web-1"].addresses[Family.IPV4], HTTP_PORT)]
    )
    answer = explained(cluster, "stranger", theirs)
    others.delete_virtual_server(cluster.node, theirs)
    assert answer["about"][0] == (
        f"virtual server {text(theirs)} is somebody else's: ipvsproxy did not make it and leaves it alone"
    )
    assert (answer["outcome"], answer["differences"]) == ("answered", [])


@pytest.mark.usefixtures("mended")
def test_without_the_agent_the_kernel_is_followed_alone(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-1").target(family)
    cluster.agent.kill()
    told = ask(cluster, "client", target)
    assert told.returncode == 0
    assert told.stderr.startswith("ipvsproxy: the agent is not running, nobody listens on ")
    assert told.stderr.endswith(": this is the kernel's state alone\n")
    assert f"answered by {endpoint(cluster, 'web-1', family)}, seeing " in told.stdout
    answer = explained(cluster, "client", target)
    assert (answer["agent"], answer["wanted"], answer["differences"]) == (None, None, None)


@pytest.mark.usefixtures("mended")
def test_a_changed_weight_is_named_and_one_of_0_gets_no_new_connections(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-1", "web-2").target(family)
    pod = cluster["web-1"].addresses[family]
    others.set_weight(cluster.node, target, pod, HTTP_PORT, weight=7)
    more = explained(cluster, "client", target)
    sentence = f"real server {endpoint(cluster, 'web-1', family)} of virtual server {text(target)} has weight"
    assert (more["differences"], more["wanted"]) == ([f"{sentence} 7 instead of 1"], None)
    others.set_weight(cluster.node, target, pod, HTTP_PORT, weight=0)
    none = explained(cluster, "client", target)
    assert {each["address"]: each["state"] for each in none["endpoints"]} == {
        pod: "draining",
        cluster["web-2"].addresses[family]: "answers",
    }
    assert none["wanted"].endswith(f", but {sentence} 0 instead of 1")


FORWARDING = {Family.IPV4: "net/ipv4/ip_forward", Family.IPV6: "net/ipv6/conf/all/forwarding"}


def test_a_node_that_does_not_forward_keeps_the_answers_from_all_but_its_own_processes(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-1").target(family)
    setting = FORWARDING[family]
    cluster.node.namespace.sysctl(setting, "0")
    try:
        told, by_process = ask(cluster, "client", target), ask(cluster, "node", target)
        met = failure_of(cluster["client"], target, 0.5)
        of_node = request(cluster.node, target).server
    finally:
        cluster.node.namespace.sysctl(setting, "1")
    assert (met, of_node) == (Failure.SILENCE, "web-1")
    assert (told.returncode, by_process.returncode) == (1, 0)
    assert (
        f"unless:\n  {setting.replace('/', '.')} is not 1: the node does not pass answers on to clients beyond it; "
        "set it to 1\n"
    ) in told.stdout


def test_a_firewall_of_the_host_that_drops_is_the_end_with_its_place_and_what_to_do(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-1").target(family)
    cluster.node.namespace.run("nft", "-f", "-", stdin=HOST_FIREWALL)
    try:
        told, by_process = ask(cluster, "client", target), ask(cluster, "node", target)
        answer = explained(cluster, "client", target)
        met = failure_of(cluster["client"], target, 0.5)
    finally:
        others.nft(cluster.node, "delete table inet filter")
    assert met is Failure.SILENCE
    assert (told.returncode, by_process.returncode) == (1, 0)
    last = answer["steps"][-1]
    assert (last["stage"], last["chain"], last["effect"]) == (
        "input",
        "input of table inet filter (nftables)",
        "dropped",
    )
    assert (answer["outcome"], answer["unless"]) == ("dropped", [])
    assert "nft insert rule inet filter input" in answer["next"][0]


@pytest.mark.usefixtures("mended")
def test_a_rule_of_somebody_else_is_followed_if_it_can_be_and_named_if_it_can_t(
    cluster: Cluster, new_service: NewService
) -> None:
    target = new_service("web-1").target(Family.IPV4)
    source = cluster["stranger"].addresses[Family.IPV4]
    others.nft(cluster.node, f"insert rule {tables.TABLE} input ip saddr {source} counter drop")
    dropped = ask(cluster, "stranger", target)
    assert (dropped.returncode, failure_of(cluster["stranger"], target, 0.5)) == (1, Failure.SILENCE)
    assert "input, chain input: a rule without a comment: dropped\n" in dropped.stdout
    assert ask(cluster, "client", target).returncode == 0
    others.nft(cluster.node, f"insert rule {tables.TABLE} input tcp dport 80 limit rate 5/second drop")
    unless = explained(cluster, "client", target)["unless"]
    assert [sentence.startswith(UNFOLLOWED) for sentence in unless] == [True]
    assert ask(cluster, "client", target).returncode == 1


def test_a_real_server_with_its_maximum_of_connections_is_full(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1")
    service.become(
        ServiceType.CLUSTER_IP,
        annotations=(("ipvsproxy.io/maximum-connections-per-endpoint", "1"),),
    )
    target = service.target(family)

    def is_limited() -> bool:
        (shown,) = explained(cluster, "client", target)["endpoints"]
        return bool(shown["maximumConnections"])

    await_that(is_limited, "the real server has a maximum")
    with Connection(cluster["client"], target) as connection:
        connection.ask()
        told = ask(cluster, "web-2", target)
    assert told.returncode == 1
    assert (
        "refused at once: each real server with a weight above 0 has its maximum of connections\n"
        in told.stdout
    )
    assert "raise ipvsproxy.io/maximum-connections-per-endpoint" in told.stdout


def test_a_process_of_the_node_answers_at_the_nodes_own_address(cluster: Cluster, family: Family) -> None:
    target = (
        cluster.reserve_service().target(family)._replace(address=cluster.node.addresses[family], port=7777)
    )
    refused = ask(cluster, "stranger", target)
    address = f"[{target.address}]" if family is Family.IPV6 else target.address
    assert (refused.returncode, refused.stderr) == (1, "")
    assert "no process of the node listens on the port: refused\n" in refused.stdout
    with cluster.node.namespace.entered():
        listener = socket.create_server((target.address, 7777), family=int(family))
    with listener:
        answered = ask(cluster, "stranger", target)
    assert (answered.returncode, address in answered.stdout) == (0, True)
    assert "answered by the node itself: a process of the node listens on the port\n" in answered.stdout


def test_a_pod_is_asked_of_the_api_server(
    cluster: Cluster, new_service: NewService, family: Family, tmp_path: Path
) -> None:
    target = new_service("web-1").target(family)
    with cluster.node.namespace.entered():
        server = ApiServer()
    with server:
        for name, node in (("client", "node-a"), ("web-4", "node-b")):
            addresses = (cluster[name].addresses[each] for each in Family)
            hosts = tuple(cluster[node].addresses[each] for each in Family)
            server.state.apply(api_server_objects.pod(name, node, *addresses, host_addresses=hosts))
        flag = f"--kubeconfig={server.kubeconfig(tmp_path / 'kubeconfig')}"
        here, there = (ask(cluster, f"pod default/{name}", target, flag) for name in ("client", "web-4"))
        unknown = ask(cluster, "pod default/nobody", target, flag)
    source = cluster["client"].addresses[family]
    assert (here.returncode, here.stderr) == (0, "")
    assert here.stdout.startswith(f"pod default/client ({source}, by interface client) -> {text(target)}\n")
    assert f"pod default/client runs on this node; its address is {source}\n" in here.stdout
    assert "node node-b handles what its pods send to services: ask there" in there.stdout
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "ipvsproxy: pod default/nobody: the API server knows no such Pod\n",
    )
    out_of_reach = ask(cluster, "pod default/client", target, flag)
    assert (out_of_reach.returncode, out_of_reach.stdout) == (1, "")
    assert out_of_reach.stderr == (
        f"ipvsproxy: pod default/client: the API server at {server.url} does not say: Connection refused\n"
    )


def test_asking_changes_nothing(cluster: Cluster, new_service: NewService) -> None:
    target = new_service("web-1", "web-3").target(Family.IPV4)
    before = Tables.of(cluster.node)
    told = cluster.agent.ask("explain", "outside", "->", text(target))
    assert told.stdout.startswith(f"outside (203.0.113.1, by interface eth0) -> {text(target)}\n")
    assert Tables.of(cluster.node) == before


def test_words_that_are_wrong_are_one_line(cluster: Cluster) -> None:
    for line, wrong in (
        ("outside 10.96.0.1", "'10.96.0.1' is not ADDRESS:PORT"),
        ("outside 10.96.0.1:0/UDP", "a port is from 1 to 65535"),
        ("somebody 10.96.0.1:80", "'somebody' is no client"),
        ("10.96.0.1:80", "'10.96.0.1:80' is not CLIENT to ADDRESS:PORT"),
    ):
        told = run(cluster, line)
        assert (told.returncode, told.stdout, len(told.stderr.splitlines())) == (2, "", 1)
        assert wrong in told.stderr
