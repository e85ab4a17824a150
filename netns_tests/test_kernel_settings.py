"""Kernel settings that somebody resets while the agent runs, and those that an operator has set more strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from netns_tests.bare_node import Node
from netns_tests.deadline import await_that
from netns_tests.namespaces import Namespace
from tests.observe.http_clients import get

if TYPE_CHECKING:
    from collections.abc import Iterator

ARP_IGNORE, ARP_ANNOUNCE = "net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/arp_announce"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Namespace("node") as namespace:
        yield Node(namespace, tmp_path)


def value(node: Node, name: str) -> str:
    with node.namespace.entered():
        return Path("/proc/sys", name).read_text().strip()


@pytest.mark.parametrize(
    "name",
    [
        "net/ipv4/vs/conntrack",
        "net/ipv4/vs/expire_nodest_conn",
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
    ],
)
def test_what_somebody_resets_is_made_again_with_the_next_resync_and_told(node: Node, name: str) -> None:
    with node.agent(node.manifests_flag, "--sync-period=200ms") as agent:
        agent.await_line("first sync")
        node.namespace.sysctl(name, "0")
        await_that(lambda: value(node, name) == "1", f"{name} is made again")
        line = agent.await_line("kernel setting made again", setting=name.replace("/", "."))
        assert (line["found"], line["wanted"]) == ("0", "1")


def test_what_can_not_be_made_is_told_once_and_counted(node: Node) -> None:
    # The limit of connection tracking is the first namespace's, and read-only in all others.
    flags = ("--sync-period=100ms", "--conntrack-min=1000000000", "--metrics-bind-address=127.0.0.1")
    with node.agent(node.manifests_flag, *flags) as agent:
        agent.await_line("kernel setting not made", setting="net.netfilter.nf_conntrack_max")
        node.namespace.sysctl("net/ipv4/ip_forward", "0")
        agent.await_line("kernel setting made again")
        node.namespace.sysctl("net/ipv4/ip_forward", "0")
        await_that(lambda: value(node, "net/ipv4/ip_forward") == "1", "another resync is over")
        told = [line for line in agent.log() if line.get("setting") == "net.netfilter.nf_conntrack_max"]
        assert len(told) == 1
        with node.namespace.entered():
            metrics = get(10249, "/metrics").body.decode()
        assert 'ipvsproxy_kernel_setting_wrong{setting="net.netfilter.nf_conntrack_max"} 1.0' in metrics
        assert 'setting="net.ipv4.ip_forward"' not in metrics


@pytest.mark.parametrize(("before", "after"), [("0", "1"), ("2", "2"), ("8", "8")])
def test_strict_arp_never_lowers_what_an_operator_has_set(node: Node, before: str, after: str) -> None:
    node.namespace.sysctl(ARP_IGNORE, before)
    with node.agent(node.manifests_flag, "--ipvs-strict-arp") as agent:
        agent.await_line("first sync")
        assert (value(node, ARP_IGNORE), value(node, ARP_ANNOUNCE)) == (after, "2")
