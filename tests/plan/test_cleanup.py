"""What goes if all that is ours does, and what if all that kube-proxy left does."""

from __future__ import annotations

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.cleanup import NodeTables, Removal, removal_of_kube_proxys, removal_of_ours
from ipvsproxy.plan.kube_proxy import NamedPorts
from tests.builders import address, key

CLUSTER_IP, CLUSTER_IP6 = key("10.96.0.1"), key("fd00:96::1")
NODE_PORT, KUBE_PROXYS_NODE_PORT, SOMEBODYS = (key("192.0.2.1", port) for port in (30080, 30081, 8080))
NAMED = NamedPorts({(Family.IPV4, Protocol.TCP): {30080, 30081}}, set())
FOUND = NodeTables(
    [SOMEBODYS, CLUSTER_IP6, NODE_PORT, KUBE_PROXYS_NODE_PORT, CLUSTER_IP],
    {address("fd00:96::1"), address("10.96.0.1")},
    {address("192.0.2.1")},
    {SetElement(FirewallSet.SERVICE_PORTS, NODE_PORT)},
    has_interface=True,
    has_table=True,
)
WITHOUT_TABLE = FOUND._replace(elements=frozenset(), has_table=False)
ADDRESSES = (address("10.96.0.1"), address("fd00:96::1"))


def test_ours_is_what_is_on_the_interface_or_on_record_sorted() -> None:
    assert removal_of_ours(FOUND) == Removal(
        ADDRESSES,
        (CLUSTER_IP, NODE_PORT, CLUSTER_IP6),
        interface=True,
        others=(SOMEBODYS, KUBE_PROXYS_NODE_PORT),
    )


def test_without_the_table_nothing_is_ours() -> None:
    removal = removal_of_ours(WITHOUT_TABLE)
    assert not removal
    assert len(removal.others) == 5


def test_kube_proxys_beside_ours_is_what_its_ipsets_name_and_is_not_on_record() -> None:
    for agent_runs in (True, False):
        removal = removal_of_kube_proxys(FOUND, NAMED, agent_runs=agent_runs)
        assert removal[:3] == ((), (KUBE_PROXYS_NODE_PORT,), False)


def test_an_agent_that_runs_has_what_is_on_the_interface_even_when_somebody_flushed_its_table() -> None:
    removal = removal_of_kube_proxys(WITHOUT_TABLE, NAMED, agent_runs=True)
    assert removal[:3] == ((), (NODE_PORT, KUBE_PROXYS_NODE_PORT), False)


def test_without_an_agent_and_its_table_the_interface_is_kube_proxys() -> None:
    assert removal_of_kube_proxys(WITHOUT_TABLE, NAMED, agent_runs=False) == Removal(
        ADDRESSES,
        (CLUSTER_IP, NODE_PORT, KUBE_PROXYS_NODE_PORT, CLUSTER_IP6),
        interface=True,
        others=(SOMEBODYS,),
    )
