"""What `ipvsproxy explain` says where the way to an endpoint is closed, and what clients meet there."""

from __future__ import annotations

import contextlib
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol, ServiceType, TrafficPolicy
from netns_tests import others, tables
from netns_tests.addressing import Via
from netns_tests.cluster import Cluster
from netns_tests.deadline import await_that
from netns_tests.servers import HTTP_PORT
from netns_tests.test_explain import ask, endpoint, explained, run, text
from netns_tests.traffic import Answer, Failure, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.cluster import ServiceUnderTest
    from netns_tests.traffic import Target

    NewService = Callable[..., ServiceUnderTest]

SILENT = 0.5
"""Seconds after which a client that should meet silence takes it for that."""
SECONDS_OF_RESOLUTION = 10
"""More than the kernel takes to find out that a next hop does not answer."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.built(tmp_path_factory.mktemp("cluster"), sync_period="1h") as built:
        built.agent.start()
        yield built


@contextlib.contextmanager
def routing(cluster: Cluster, family: Family, *words: str) -> Iterator[None]:
    """Have a route or a rule on the node for the block, in the words of `ip` that add it."""
    of = "-6" if family is Family.IPV6 else "-4"
    thing, *rest = words
    cluster.node.namespace.run("ip", of, thing, "add", *rest)
    try:
        yield
    finally:
        cluster.node.namespace.run("ip", of, thing, "del", *rest)


@contextlib.contextmanager
def setting(cluster: Cluster, name: str, value: str) -> Iterator[None]:
    """Have a setting of the node that is 1 at another value for the block."""
    cluster.node.namespace.sysctl(name, value)
    try:
        yield
    finally:
        cluster.node.namespace.sysctl(name, "1")


def is_certain(cluster: Cluster, client: str, target: Target) -> bool:
    """Say whether the command ends with 0, and with it says that nothing stands in the way."""
    told = ask(cluster, client, target)
    clear = "nothing that was looked at on this node stands in the way" in told.stdout
    assert clear is (told.returncode == 0), told.stdout
    return clear


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_route_that_leads_nowhere_is_a_refusal_by_ipvs(
    cluster: Cluster, new_service: NewService, family: Family, kind: str
) -> None:
    target = new_service("web-3", "web-4").target(family)
    closed = cluster["web-3"].addresses[family]
    with routing(cluster, family, "route", kind, f"{closed}/{family.bits}", "metric", "1"):
        answer = explained(cluster, "client", target)
        met = {failure_of(cluster["client"], target) for _ in range(2)}
        assert not is_certain(cluster, "client", target)
    assert Failure.UNREACHABLE in met
    assert {each["address"]: each["state"] for each in answer["endpoints"]} == {
        closed: "unreached",
        cluster["web-4"].addresses[family]: "answers",
    }
    assert (answer["outcome"], answer["wanted"]) == ("refused", None)
    assert any(f"ip route get {closed}" in sentence for sentence in answer["next"])
    assert is_certain(cluster, "client", target)


def test_without_any_route_it_is_a_refusal_too(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-3").target(family)
    of = "-6" if family is Family.IPV6 else "-4"
    via = ["via", cluster.node.upstream[family], "dev", "eth0", "onlink"]
    cluster.node.namespace.run("ip", of, "route", "del", "default")
    try:
        told, met = ask(cluster, "client", target), failure_of(cluster["client"], target)
    finally:
        cluster.node.namespace.run("ip", of, "route", "add", "default", *via)
    assert (told.returncode, met) == (1, Failure.UNREACHABLE)
    assert "refused at once: the node has no route to the real server" in told.stdout


def test_behind_a_link_without_a_carrier_and_one_that_is_down_nobody_answers(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-2").target(family)
    pod = cluster["web-2"]
    pod.namespace.run("ip", "link", "set", "eth0", "down")
    try:
        await_that(partial(has_no_carrier, cluster, "web-2"), "the link has no carrier")
        answer, met = explained(cluster, "client", target), failure_of(cluster["client"], target, SILENT)
        assert not is_certain(cluster, "client", target)
    finally:
        pod.namespace.run("ip", "link", "set", "eth0", "up")
        # It took its routes along.
        for of, gateway in (("-4", pod.upstream[Family.IPV4]), ("-6", pod.upstream[Family.IPV6])):
            via = ("default", "via", gateway, "dev", "eth0", "onlink")
            pod.namespace.run("ip", of, "route", "replace", *via)
        await_that(lambda: not has_no_carrier(cluster, "web-2"), "the link has a carrier again")
    assert met is Failure.SILENCE
    assert answer["outcome"] == "dropped"
    assert any("ip link show web-2" in sentence for sentence in answer["next"])


def has_no_carrier(cluster: Cluster, interface: str) -> bool:
    return "NO-CARRIER" in cluster.node.namespace.run("ip", "link", "show", interface)


def test_a_next_hop_that_did_not_answer_is_a_doubt(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-4").target(family)
    nobody = "198.51.100.77" if family is Family.IPV4 else "2001:db8:64::77"
    via = ["via", nobody, "dev", "eth0", "onlink", "metric", "1"]
    network = f"{cluster['web-4'].addresses[family]}/{family.bits}"
    with routing(cluster, family, "route", network, *via):
        met = failure_of(cluster["client"], target, SECONDS_OF_RESOLUTION)
        (unless,) = explained(cluster, "client", target)["unless"]
        assert not is_certain(cluster, "client", target)
    assert met in {Failure.UNREACHABLE, Failure.SILENCE}
    assert unless.startswith(
        f"{nobody}, the next hop by eth0 to {endpoint(cluster, 'web-4', family)}, did not"
    )


@pytest.mark.parametrize(
    ("client", "rule"),
    [("client", ("from", "SOURCE")), ("stranger", ("fwmark", "0x4000/0x4000"))],
    ids=["by the source", "by the mark"],
)
def test_policy_routing_is_asked_with_the_source_and_the_mark_of_the_packet(
    cluster: Cluster, new_service: NewService, family: Family, client: str, rule: tuple[str, str]
) -> None:
    target = new_service("web-3").target(family)
    selector, value = rule
    value = cluster[client].addresses[family] if value == "SOURCE" else value
    with routing(cluster, family, "rule", "pref", "10", selector, value, "blackhole"):
        met = failure_of(cluster[client], target, SILENT)
        (unless,) = explained(cluster, client, target)["unless"]
        assert not is_certain(cluster, client, target)
        # Pods' packets have neither.
        assert is_certain(cluster, "web-1", target)
        assert isinstance(failure_of(cluster["web-1"], target), Answer)
    assert not isinstance(met, Answer)
    assert unless.startswith(f"policy routing has no way to {endpoint(cluster, 'web-3', family)}")


def test_policy_routing_by_the_service_address_concerns_processes_and_everybodys_answers(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-3").target(family)
    with routing(cluster, family, "rule", "pref", "10", "from", target.address, "blackhole"):
        (of_process,) = explained(cluster, "node", target)["unless"]
        (of_pod,) = explained(cluster, "client", target)["unless"]
        met = [failure_of(each, target, SILENT) for each in (cluster.node, cluster["client"])]
    assert of_process.startswith(f"policy routing has no way to {endpoint(cluster, 'web-3', family)}")
    assert of_pod.startswith(f"policy routing has no way for answers with the source {target.address}")
    assert not any(isinstance(each, Answer) for each in met)


def test_a_client_that_no_answer_finds_back_to_is_a_doubt(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-3").target(family)
    client = cluster["stranger"].addresses[family]
    with routing(cluster, family, "route", "blackhole", f"{client}/{family.bits}", "metric", "1"):
        told, met = ask(cluster, "stranger", target), failure_of(cluster["stranger"], target, SILENT)
    assert (told.returncode, met) == (1, Failure.SILENCE)
    assert "no answer finds the way back" in told.stdout


def test_an_interface_that_does_not_forward_keeps_answers_of_the_endpoints_behind_it(
    cluster: Cluster, new_service: NewService
) -> None:
    target = new_service("web-3").target(Family.IPV4)
    with setting(cluster, "net/ipv4/conf/eth0/forwarding", "0"):
        met = failure_of(cluster["client"], target, SILENT)
        assert not is_certain(cluster, "client", target)
        assert is_certain(cluster, "node", target)
        assert isinstance(failure_of(cluster.node, target), Answer)
    assert met is Failure.SILENCE
    # The client's own interface has nothing to pass on.
    with setting(cluster, "net/ipv4/conf/client/forwarding", "0"):
        assert is_certain(cluster, "client", target)
        assert isinstance(failure_of(cluster["client"], target), Answer)


def test_without_connection_tracking_in_ipvs_redirected_clients_get_no_answer(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-3")
    service.become(ServiceType.LOAD_BALANCER, external_traffic_policy=TrafficPolicy.LOCAL)
    target = service.target(family, via=Via.LOAD_BALANCER_IP)
    await_that(partial(tables.has_address, cluster.node, target.address), f"{target.address} is bound")
    with setting(cluster, "net/ipv4/vs/conntrack", "0"):
        met = failure_of(cluster["client"], target, SILENT)
        assert not is_certain(cluster, "client", target)
        # By the ClusterIP nothing is rewritten that connection tracking would have to know.
        assert is_certain(cluster, "client", service.target(family))
        assert isinstance(failure_of(cluster["client"], service.target(family)), Answer)
    assert met is Failure.SILENCE


def test_a_pod_of_this_node_is_looked_into_where_one_of_its_processes_can_be_seen(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    target = new_service("web-1").target(family)
    at = endpoint(cluster, "web-1", family)
    # The servers of the tests listen in the pods' networks, and run outside of them.
    unseen = ask(cluster, "client", target)
    assert unseen.returncode == 0
    assert f"somebody listens at {at} (tcp): whether that is so could not be seen" in unseen.stdout
    with cluster["web-1"].namespace.entered():
        process = subprocess.Popen(["sleep", "1000"])
    try:
        heard = explained(cluster, "client", target)
        assert (heard["unless"], [each for each in heard["assumptions"] if "listens" in each]) == ([], [])
        cluster.servers.leave(cluster["web-1"])
        deaf = explained(cluster, "client", target)
        met = failure_of(cluster["client"], target)
        assert not is_certain(cluster, "client", target)
    finally:
        process.kill()
        process.wait()
        cluster.servers.start(cluster["web-1"])
    assert met is Failure.REFUSED
    assert deaf["unless"][0].startswith(f"nobody listens at {at} (tcp)")


def test_an_endpoint_at_the_nodes_own_address_is_one_of_its_processes(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-1")
    service.write([service.slice(family, [cluster.endpoint("node-a", family)])])
    target = service.target(family)
    service.await_real_servers(target, {(cluster.node.addresses[family], HTTP_PORT)})
    assert failure_of(cluster["client"], target) is Failure.REFUSED
    assert not is_certain(cluster, "client", target)
    cluster.servers.start(cluster.node)
    try:
        assert is_certain(cluster, "client", target)
        assert isinstance(failure_of(cluster["client"], target), Answer)
    finally:
        cluster.servers.leave(cluster.node)


def test_a_service_is_asked_for_by_its_name(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = new_service("web-3")
    service.become(ServiceType.LOAD_BALANCER)
    balancer = service.target(family, via=Via.LOAD_BALANCER_IP)
    await_that(partial(tables.has_address, cluster.node, balancer.address), f"{balancer.address} is bound")
    service.await_sync()
    name = f"default/{service.name}"
    stranger, pod = cluster["stranger"].addresses[family], cluster["client"].addresses[family]
    for client, port, expected in (
        (stranger, ":http", balancer),
        (pod, ":80", service.target(family)),
        (stranger, ":81", balancer._replace(port=81)),
        (pod, ":dns/udp", service.target(family, Protocol.UDP)),
    ):
        told = run(cluster, client, "to", f"{name}{port}")
        assert (told.returncode, told.stderr) == (0, "")
        assert told.stdout.splitlines()[0].endswith(f" -> {text(expected)}")
    wrong = run(cluster, pod, "to", f"{name}:https")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == (
        f"ipvsproxy: Service {name} has no port https: it has dns 53/udp, http 80/tcp, admin 81/tcp and "
        "diameter 3868/sctp\n"
    )
    assert run(cluster, "outside", "to", "default/nobody").returncode == 2


def test_who_wants_what_a_foreign_virtual_server_holds_is_told_with_the_command_that_ends_it(
    cluster: Cluster, family: Family
) -> None:
    service = cluster.reserve_service()
    theirs = service.target(family, port=443)
    others.add_virtual_server(cluster.node, theirs, "rr", [(cluster["web-1"].addresses[family], HTTP_PORT)])
    cluster.agent.kill()
    cluster.agent.start()
    service.write_pods("web-3")
    name = f"default/{service.name}"

    def is_rejected() -> bool:
        return "is not ipvsproxy's" in cluster.agent.log()

    await_that(is_rejected, "the Service is refused the address")
    told = run(cluster, cluster["client"].addresses[family], "to", text(theirs))
    assert f"Service {name} asks for it (spec.clusterIPs), and does not get it" in told.stdout
    flag = "-t [" if family is Family.IPV6 else "-t "
    assert f"ipvsadm -D {flag}{theirs.address}" in told.stdout
    others.delete_virtual_server(cluster.node, theirs)
    service.remove()
