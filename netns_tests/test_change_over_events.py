"""Events on Services while a node is changed over from kube-proxy's mode ipvs: none for what kube-proxy has left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.ipset import IPSet

from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.model.ipvs import Command, IpvsOperation, VirtualServer
from ipvsproxy.observe.agent_socket import ask_report
from netns_tests.bare_node import Node
from netns_tests.deadline import await_that
from netns_tests.namespaces import Namespace
from tests import api_server_objects as objects
from tests.api_server_state import EVENTS
from tests.builders import key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from netns_tests.bare_node import Agent
    from tests.api_server import ApiServer

FLAGS = ("--conntrack-max-per-core=0", "--sync-period=1s", "--log-level=debug")
ADDRESSES = ("192.0.2.1", "192.0.2.2")
NODE_PORTS = (30080, 30443)
RECORD = "KUBE-CLUSTER-IP"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Have a node with kube-proxy's virtual servers at its node ports, and one of kube-proxy's ipsets."""
    with Namespace("node") as namespace:
        for address in ADDRESSES:
            namespace.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        with namespace.entered(), IpvsNetlink() as ipvs:
            theirs = [key(address, number) for address in ADDRESSES for number in NODE_PORTS]
            made = [
                IpvsOperation(Command.NEW_SERVICE, VirtualServer(each, "rr", 0, 0, ())) for each in theirs
            ]
            assert ipvs.apply(made) == {}
        with namespace.netlink(IPSet) as ipsets:
            ipsets.create(RECORD, stype="hash:ip,port")
        yield Node(namespace, tmp_path)


def apply_service(server: ApiServer) -> None:
    service = objects.service("shop", "10.96.0.7")
    service["spec"]["type"] = "NodePort"
    service["spec"]["ports"] = [
        {"name": f"p{number}", "protocol": "TCP", "port": number, "nodePort": number} for number in NODE_PORTS
    ]
    server.state.apply(service)


def rejected(server: ApiServer) -> list[dict[str, Any]]:
    return [each for each in server.state.objects(EVENTS) if each["reason"] == "Rejected"]


def comparisons(agent: Agent) -> int:
    return sum(line["event"] == "resynced" for line in agent.log())


def test_there_is_none_while_kube_proxys_records_are_there_and_one_for_each_service_afterwards(
    node: Node,
) -> None:
    with node.api_server() as server:
        apply_service(server)
        with node.agent(*node.api_flags(server), *FLAGS) as agent:
            agent.await_line("first sync")
            await_that(lambda: comparisons(agent) >= 3, "several comparisons with the kernel")
            # In `dump` is each port at each address.
            report = ask_report(node.run_directory)
            assert len([each for each in report.rejections if each.foreign]) == 4
            assert rejected(server) == []
            with node.namespace.netlink(IPSet) as ipsets:
                ipsets.destroy(RECORD)
            await_that(lambda: rejected(server), "what is somebody else's then is told")
            (event,) = rejected(server)
            assert event["regarding"]["name"] == "shop"
            # All nodes write this one, so that nothing of it is this node's but who reports it.
            assert not any(address in event["note"] for address in ADDRESSES)
