"""Firewall and settings keep their contracts on nft and a kernel; what others can do to the table is noticed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.interface import FirewallState
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.nft import NftTable
from ipvsproxy.kernel.nft_text import SET_NAMES, add_text
from ipvsproxy.kernel.sysctl import ProcSysctls, apply_settings
from ipvsproxy.model.addresses import Family
from ipvsproxy.plan.firewall import NODE_ALONE, TABLE, FirewallSettings, PodInterfaces
from ipvsproxy.plan.sysctls import SysctlSettings, parse_kernel_release, sysctl_plan
from netns_tests.namespaces import Namespace
from tests.kernel.contract_firewall import (
    ADDRESS,
    EACH_SHAPE,
    INSIDE,
    PLAIN,
    WITH_NODE,
    WITH_POD_INTERFACES,
    WITH_POD_NETWORKS,
    FirewallContract,
    SysctlsContract,
    restriction,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.model.firewall import FirewallSet, SetElement

ONE_ADDRESS = frozenset((ADDRESS,))


class NftNode:
    """A namespace whose nftables others change by nft."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._opened: list[NfTables] = []

    def firewall(self, settings: FirewallSettings = PLAIN) -> NftTable:
        self._opened.append(NfTables())
        return NftTable(settings, self._opened[-1])

    def nft(self, *commands: str) -> None:
        self.namespace.run("nft", "-f", "-", stdin="\n".join((*commands, "")))

    def saved(self) -> str:
        return self.namespace.run("nft", "list", "ruleset")

    def change_another_table(self) -> None:
        self.nft("add table inet other", "delete table inet other")

    def delete_table(self) -> None:
        self.nft(f"delete table inet {TABLE}")

    def edit_rules(self) -> None:
        self.nft(f"add rule inet {TABLE} input counter")

    def delete_set(self, of: FirewallSet) -> None:
        sets = (f"delete set inet {TABLE} {SET_NAMES[of, each]}" for each in Family)
        self.nft(f"flush table inet {TABLE}", *sets)

    def add_element(self, element: SetElement) -> None:
        self.nft(add_text([element]))

    def close(self) -> None:
        for each in self._opened:
            each.close()


@pytest.fixture
def node() -> Iterator[NftNode]:
    with Namespace("firewall") as namespace, namespace.entered():
        node = NftNode(namespace)
        yield node
        node.close()


class TestNftTable(FirewallContract):
    pass


class TestProcSysctls(SysctlsContract):
    @pytest.fixture
    def sysctls(self) -> Iterator[ProcSysctls]:
        with Namespace("settings") as namespace, namespace.entered():
            sysctls = ProcSysctls()
            sysctls.set("net.ipv4.ip_forward", "0")
            yield sysctls


@pytest.mark.parametrize(
    "settings",
    [
        PLAIN,
        WITH_POD_NETWORKS,
        WITH_POD_INTERFACES,
        FirewallSettings(PodInterfaces("cni0"), masquerade_all=True),
        FirewallSettings(masquerade_bit=31),
    ],
)
def test_nft_takes_the_rules_of_every_setting(node: NftNode, settings: FirewallSettings) -> None:
    node.firewall(settings).install(EACH_SHAPE)
    assert node.firewall(settings).read() == FirewallState(EACH_SHAPE, intact=True)


@pytest.mark.parametrize(
    "commands",
    [
        "flush chain inet ipvsproxy input",
        "flush table inet ipvsproxy",
        "insert rule inet ipvsproxy input accept",
        "chain inet ipvsproxy input { policy drop; }",
        "add chain inet ipvsproxy extra { type filter hook input priority 0; policy drop; }",
        "add set inet ipvsproxy extra { type ipv4_addr; elements = { 10.0.0.1 }; }",
        "add table inet ipvsproxy { flags dormant; }",
        'add element inet ipvsproxy service-addresses-ipv4 { 10.0.0.1 comment "mine" }',
        "add element inet ipvsproxy service-ports-ipv4 { 10.0.0.1 . icmp . 0 }",
        "add element inet ipvsproxy restricted-service-ports-ipv4 { 10.0.0.1 . tcp . 80 : drop }",
        "add element inet ipvsproxy restricted-service-ports-ipv4 { 10.0.0.1 . tcp . 80 : goto refusal }",
        f"add element inet ipvsproxy {NODE_ALONE[0].name} {{ 10.0.0.0/8 }}",
        f"flush chain inet ipvsproxy {NODE_ALONE[1].name}",
        "add set inet ipvsproxy sources-ipv4-0 { type ipv4_addr; flags interval; }",
        "add chain inet ipvsproxy sources-ipv4-0",
        'add element inet ipvsproxy in-cluster-destinations-ipv4 { 10.0.0.1 . tcp . 80 comment "x" : 10.0.0.2 . 80 }',
        "add map inet ipvsproxy extra { type ipv4_addr : ipv4_addr; elements = { 10.0.0.1 : 10.0.0.2 }; }",
    ],
)
def test_what_others_do_to_the_table_is_noticed_and_repaired(node: NftNode, commands: str) -> None:
    firewall = node.firewall()
    firewall.install(ONE_ADDRESS)
    node.nft(commands)
    assert firewall.changed_by_others()
    assert firewall.read() == FirewallState(ONE_ADDRESS, intact=False)
    firewall.install(ONE_ADDRESS)
    assert node.firewall().read() == FirewallState(ONE_ADDRESS, intact=True)


@pytest.mark.parametrize("element", [INSIDE, WITH_NODE])
@pytest.mark.parametrize(
    "command",
    [
        "add element inet ipvsproxy {} {{ 100.64.0.0/10 }}",
        "add element inet ipvsproxy {} {{ 100.64.0.0-100.64.0.2 }}",
        'add element inet ipvsproxy {} {{ 100.64.0.0/10 comment "mine" }}',
        "delete element inet ipvsproxy {} {{ 10.0.0.0/8 }}",
        "flush set inet ipvsproxy {}",
        "flush chain inet ipvsproxy {}",
        "insert rule inet ipvsproxy {} return",
        "add rule inet ipvsproxy {} counter",
    ],
)
def test_what_others_do_to_a_source_list_is_noticed_and_repaired(
    node: NftNode, element: SetElement, command: str
) -> None:
    elements = frozenset((ADDRESS, INSIDE, WITH_NODE, restriction(element)))
    firewall = node.firewall()
    firewall.install(elements)
    node.nft(command.format(element.set_name))
    assert firewall.read() == FirewallState(elements - {element}, intact=False)
    firewall.install(elements)
    assert node.firewall().read() == FirewallState(elements, intact=True)


def test_a_source_list_of_another_name_is_noticed(node: NftNode) -> None:
    elements = frozenset((ADDRESS, WITH_NODE, restriction(WITH_NODE)))
    node.firewall().install(elements)
    node.nft("flush ruleset", node.saved().replace("10.0.0.0/8", "10.0.0.0/9"))
    assert node.firewall().read() == FirewallState(elements - {WITH_NODE}, intact=False)


def test_a_replaced_rule_is_noticed(node: NftNode) -> None:
    node.firewall().install(ONE_ADDRESS)
    listing = node.namespace.run("nft", "-a", "list", "chain", "inet", TABLE, "unmarking")
    handle = listing.partition("meta mark set")[2].partition("# handle ")[2].split()[0]
    node.nft(f"replace rule inet {TABLE} unmarking handle {handle} counter")
    assert node.firewall().read() == FirewallState(ONE_ADDRESS, intact=False)


def test_rules_in_another_order_are_noticed(node: NftNode) -> None:
    node.firewall().install(ONE_ADDRESS)
    first, second = [line for line in node.saved().splitlines() if "refuse" in line and "goto" not in line]
    node.nft(
        f"flush chain inet {TABLE} refusal",
        f"add rule inet {TABLE} refusal {second.strip()}",
        f"add rule inet {TABLE} refusal {first.strip()}",
    )
    assert node.firewall().read() == FirewallState(ONE_ADDRESS, intact=False)


def test_a_saved_table_that_is_restored_is_intact_unless_it_was_edited(node: NftNode) -> None:
    node.firewall(WITH_POD_NETWORKS).install(EACH_SHAPE)
    saved = node.saved()
    node.nft("flush ruleset", saved)
    assert node.firewall(WITH_POD_NETWORKS).read() == FirewallState(EACH_SHAPE, intact=True)
    node.nft("flush ruleset", saved.replace("10.244.0.0/16", "10.245.0.0/16"))
    assert node.firewall(WITH_POD_NETWORKS).read() == FirewallState(EACH_SHAPE, intact=False)


def test_tables_of_others_are_left_alone(node: NftNode) -> None:
    node.nft("table inet other { set service-addresses-ipv4 { type ipv4_addr; elements = { 10.0.0.1 }; }; }")
    firewall = node.firewall()
    firewall.install(ONE_ADDRESS)
    assert firewall.read() == FirewallState(ONE_ADDRESS, intact=True)
    assert "10.0.0.1" in node.namespace.run("nft", "list", "table", "inet", "other")


def test_a_new_namespace_takes_every_setting() -> None:
    plan = sysctl_plan(SysctlSettings(parse_kernel_release(os.uname().release), strict_arp=True))
    with Namespace("settings") as namespace, namespace.entered():
        assert apply_settings(ProcSysctls(), plan).failures == []
        assert {each.name: ProcSysctls().get(each.name) for each in plan} == {
            each.name: each.value for each in plan
        }
