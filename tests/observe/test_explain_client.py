"""Who connects, and what has to be assumed of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.errors import UsageError
from ipvsproxy.kernel.routes import Route
from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.observe.clients import HostAt, HostOutside, PodNamed, ProcessOfNode
from ipvsproxy.observe.explain_client import question
from ipvsproxy.source.kubernetes.pods import Pod
from tests.builders import address, addresses, key
from tests.observe.explaining import NODE_ADDRESS, POD, STRANGER, kernel_state
from tests.observe.node import report_of

if TYPE_CHECKING:
    from ipvsproxy.kernel.routes import Sender
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.observe.clients import Client
    from ipvsproxy.observe.explain import Question
    from ipvsproxy.observe.traced import KernelState

KERNEL = kernel_state()
WEB = ObjectKey("default", "web-1")
BY_POD, BY_UPLINK = Route("cali1", None, local=False), Route("eth0", None, local=False)
ROUTES = {
    "127.0.0.5": Route("lo", None, local=True),
    POD: BY_POD,
    STRANGER: BY_UPLINK,
    "203.0.113.1": BY_UPLINK,
    "198.51.100.1": BY_UPLINK,
}


def ask(
    client: Client,
    pod: Pod | None = None,
    to: str = "10.96.0.10",
    kernel: KernelState = KERNEL,
    no_way_from: str = "",
) -> Question:
    def find_pod(name: ObjectKey) -> Pod:
        assert pod
        assert name == pod.key
        return pod

    def route_to(to: Address, sender: Sender | None = None, /) -> Route | None:
        closed = sender and format_address(sender.source) == no_way_from
        return None if closed else ROUTES.get(format_address(to))

    return question(client, key(to), kernel, report_of(), route_to, find_pod)


def pod(*ips: str, on: str = NODE_ADDRESS, host_network: bool = False) -> Pod:
    return Pod(WEB, addresses(*ips), "node-x", addresses(on), host_network)


def test_a_process_of_the_node_leaves_its_source_to_the_kernel() -> None:
    asked = ask(ProcessOfNode())
    assert (asked.client, asked.packet.source, asked.packet.arrives_by) == ("node", None, None)
    assert asked.assumptions == (
        "a process of this node sends the packet, and leaves its source to the kernel",
    )


def test_packets_of_an_address_arrive_by_the_interface_that_leads_there() -> None:
    asked = ask(HostAt(address(POD)))
    assert (asked.client, asked.packet.source, asked.packet.arrives_by) == (POD, address(POD), "cali1")
    assert asked.assumptions == (f"packets of {POD} arrive by interface cali1, by which the node reaches it",)


def test_an_address_of_the_node_is_a_process_that_chose_its_source() -> None:
    asked = ask(HostAt(address(NODE_ADDRESS)))
    assert (asked.packet.source, asked.packet.arrives_by) == (address(NODE_ADDRESS), None)
    assert asked.assumptions[0].endswith(f"and chose {NODE_ADDRESS} as its source")
    assert ask(HostAt(address("127.0.0.5"))).packet.arrives_by is None


def test_without_a_route_the_packet_arrives_by_no_interface_of_a_pod() -> None:
    asked = ask(HostAt(address("100.64.0.1")))
    assert asked.packet.arrives_by == ""
    assert asked.unless[0].startswith("the node has no route to 100.64.0.1")


def test_answers_find_their_way_back_from_the_service_address() -> None:
    bound = replace(KERNEL, bound=frozenset(addresses("10.96.0.10")))
    assert ask(HostAt(address(POD)), kernel=bound).unless == ()
    (unless,) = ask(HostAt(address(POD)), kernel=bound, no_way_from="10.96.0.10").unless
    assert unless.startswith(f"policy routing has no way for answers with the source 10.96.0.10 to {POD}")
    assert ask(ProcessOfNode(), kernel=bound, no_way_from="10.96.0.10").unless == ()


def test_outside_is_an_address_for_documentation_that_the_node_does_not_have() -> None:
    asked = ask(HostOutside())
    assert (asked.client, asked.packet.source) == ("outside", address("198.51.100.1"))
    assert asked.assumptions[0].startswith(
        "outside is a host with the address 198.51.100.1, which is in no pod"
    )
    assert asked.assumptions[1].startswith("packets of 198.51.100.1 arrive by interface eth0")
    assert ask(HostOutside(), to="fd00::1").packet.source == address("2001:db8::1")


def test_a_pod_of_this_node_sends_from_its_address() -> None:
    asked = ask(PodNamed(WEB), pod("fd00:244::9", POD))
    assert (asked.client, asked.packet.source, asked.packet.arrives_by) == (
        "pod default/web-1",
        address(POD),
        "cali1",
    )
    assert asked.assumptions[0] == f"pod default/web-1 runs on this node; its address is {POD}"


def test_a_pod_of_another_node_is_to_be_asked_about_there() -> None:
    asked = ask(PodNamed(WEB), pod(STRANGER, on="192.0.2.200"))
    assert asked.assumptions[0] == f"pod default/web-1 runs on node node-x; its address is {STRANGER}"
    assert asked.assumptions[1].startswith("node node-x handles what its pods send to services: ask there")


def test_a_pod_in_the_nodes_network_is_a_process_of_the_node() -> None:
    asked = ask(PodNamed(WEB), pod(NODE_ADDRESS, host_network=True))
    assert (asked.packet.source, asked.packet.arrives_by) == (None, None)
    elsewhere = ask(PodNamed(WEB), pod(STRANGER, on="192.0.2.200", host_network=True))
    assert elsewhere.packet.arrives_by == "eth0"


@pytest.mark.parametrize(
    ("client", "to", "why"),
    [
        (HostAt(address(POD)), "fd00::1", "of different IP families"),
        (PodNamed(WEB), "fd00::1", "has no address of that IP family"),
    ],
)
def test_a_client_of_the_other_family_is_a_wrong_word(client: Client, to: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        ask(client, pod(POD), to)


def test_all_addresses_for_documentation_may_be_taken() -> None:
    taken = replace(KERNEL, own=frozenset(addresses("203.0.113.1", "198.51.100.1", "192.0.2.1")))
    asked = question(HostOutside(), key("10.96.0.10"), taken, None, lambda *_: None, lambda _: pod(POD))
    assert asked.packet.source == address("192.0.2.1")
