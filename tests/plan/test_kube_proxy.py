"""What is kube-proxy's by its names, and what of it goes."""

from __future__ import annotations

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.host_rules import Backend, TableName
from ipvsproxy.plan.kube_proxy import (
    IPSETS,
    Jump,
    Leftovers,
    NamedPorts,
    Table,
    is_chain,
    named,
    removal_of,
    set_name,
)
from tests.builders import address, key

NAT = TableName(Backend.IPTABLES_NFT, "ip", "nat")
FILTER = TableName(Backend.LEGACY, "ip6", "filter")


def table(
    name: TableName, *jumps: tuple[str, str], chains: tuple[str, ...] = (), drops: bool = False
) -> Table:
    """Return a table with these jumps, each deleted by its number, and the chains that they name."""
    names = {*chains, *(name for jump in jumps for name in jump)}
    return Table(name, frozenset(names), tuple(Jump(*each, str(i)) for i, each in enumerate(jumps)), drops)


class TestNames:
    @pytest.mark.parametrize(
        ("of", "name"),
        [
            ("nat", "KUBE-SERVICES"),
            ("nat", "KUBE-NODE-PORT"),
            ("nat", "KUBE-FIREWALL"),
            ("nat", "KUBE-SVC-NPX46M4PTMTKRN6Y"),
            ("nat", "KUBE-SEP-OP4AXEAS4OXHBEQX"),
            ("nat", "KUBE-EXT-NPX46M4PTMTKRN6Y"),
            ("filter", "KUBE-IPVS-OUT-FILTER"),
            ("filter", "KUBE-EXTERNAL-SERVICES"),
            ("mangle", "KUBE-PROXY-CANARY"),
        ],
    )
    def test_of_its_chains(self, of: str, name: str) -> None:
        assert is_chain(of, name)

    @pytest.mark.parametrize(
        ("of", "name"),
        [
            ("filter", "KUBE-FIREWALL"),
            ("nat", "KUBE-MARK-DROP"),
            ("mangle", "KUBE-IPTABLES-HINT"),
            ("nat", "KUBE-KUBELET-CANARY"),
            ("nat", "KUBE-SVC-MINE"),
            ("filter", "KUBE-SVC-NPX46M4PTMTKRN6Y"),
            ("nat", "KUBE-ROUTER-POD"),
            ("raw", "KUBE-SERVICES"),
            ("nat", "PREROUTING"),
        ],
    )
    def test_the_kubelets_and_other_chains_are_not_its(self, of: str, name: str) -> None:
        assert not is_chain(of, name)

    def test_of_an_ipset_for_ipv6_is_cut_as_kube_proxy_cuts_it(self) -> None:
        long = "KUBE-LOAD-BALANCER-SOURCE-CIDR"
        assert set_name(long, Family.IPV4) == long
        assert set_name(long, Family.IPV6) == "KUBE-6-LOAD-BALANCER-SOURCE-CID"
        assert "KUBE-6-LOAD-BALANCER-SOURCE-CID" in IPSETS
        assert len(IPSETS) == 34


class TestRemoval:
    def test_chains_go_with_the_rules_of_builtin_chains_that_lead_there(self) -> None:
        removal = removal_of(
            table(
                NAT,
                ("PREROUTING", "KUBE-SERVICES"),
                ("PREROUTING", "DOCKER"),
                ("KUBE-SERVICES", "KUBE-MARK-MASQ"),
                ("KUBE-SERVICES", "DOCKER"),
                chains=("KUBE-KUBELET-CANARY",),
            )
        )
        assert removal.jumps == (Jump("PREROUTING", "KUBE-SERVICES", "0"),)
        assert removal.chains == ("KUBE-MARK-MASQ", "KUBE-SERVICES")
        assert removal.kept == {}

    def test_what_somebody_elses_chain_leads_to_stays_and_so_does_what_that_leads_to(self) -> None:
        removal = removal_of(
            table(
                NAT,
                ("OUTPUT", "KUBE-SERVICES"),
                ("POSTROUTING", "KUBE-POSTROUTING"),
                ("MINE", "KUBE-LOAD-BALANCER"),
                ("KUBE-LOAD-BALANCER", "KUBE-MARK-MASQ"),
            )
        )
        assert removal.chains == ("KUBE-SERVICES",)
        assert removal.jumps == (Jump("OUTPUT", "KUBE-SERVICES", "0"),)
        assert removal.kept == {
            "KUBE-LOAD-BALANCER": "chain MINE leads to it, which is not kube-proxy's",
            "KUBE-MARK-MASQ": "chain KUBE-LOAD-BALANCER leads to it, which stays",
            "KUBE-POSTROUTING": "it masquerades what chain KUBE-MARK-MASQ marks, which stays",
        }

    def test_what_lets_answers_through_stays_where_all_else_is_dropped(self) -> None:
        jumps = (("FORWARD", "KUBE-FORWARD"), ("FORWARD", "KUBE-PROXY-FIREWALL"))
        assert removal_of(table(FILTER, *jumps)).chains == ("KUBE-FORWARD", "KUBE-PROXY-FIREWALL")
        removal = removal_of(table(FILTER, *jumps, drops=True))
        assert removal.chains == ("KUBE-PROXY-FIREWALL",)
        assert removal.jumps == (Jump("FORWARD", "KUBE-PROXY-FIREWALL", "1"),)
        assert removal.kept == {
            "KUBE-FORWARD": "chain FORWARD drops what no rule accepts, this one accepts answers of endpoints, "
            "and the agent has no chain of its own there"
        }

    def test_what_lets_answers_through_goes_once_the_agents_own_chain_does_it(self) -> None:
        jumps = (("FORWARD", "IPVSPROXY-FORWARD"), ("FORWARD", "KUBE-FORWARD"))
        removal = removal_of(table(FILTER, *jumps, drops=True))
        assert (removal.chains, removal.kept) == (("KUBE-FORWARD",), {})

    def test_chains_that_lead_to_each_other_end(self) -> None:
        removal = removal_of(table(NAT, ("MINE", "KUBE-SERVICES"), ("KUBE-SERVICES", "KUBE-SERVICES")))
        assert removal.chains == ()

    def test_a_table_is_told_by_its_family_and_by_who_made_it(self) -> None:
        assert str(NAT) == "table ip nat (iptables-nft)"
        assert str(FILTER) == "table ip6 filter (iptables-legacy)"


def test_node_ports_are_named_at_the_nodes_addresses_and_others_by_address() -> None:
    by = NamedPorts(
        {(Family.IPV4, Protocol.TCP): {30080}, (Family.IPV6, Protocol.UDP): {30053}},
        {key("203.0.113.1", 80)},
    )
    node = {address("192.0.2.1"), address("2001:db8::1")}
    theirs = [key("192.0.2.1", 30080), key("2001:db8::1", 30053, Protocol.UDP), key("203.0.113.1", 80)]
    not_theirs = [
        key("192.0.2.1", 30080, Protocol.UDP),
        key("192.0.2.1", 30081),
        key("192.0.2.2", 30080),
        key("2001:db8::1", 30080),
        key("203.0.113.1", 81),
    ]
    assert named([*not_theirs, *theirs], by, node) == theirs


def test_nothing_left_is_false_even_if_something_could_not_be_seen() -> None:
    assert not Leftovers(unseen=("nftables can't be looked at",))
    assert Leftovers(ipsets=("KUBE-CLUSTER-IP",))
    assert Leftovers(chains=((NAT, "KUBE-SERVICES"),))
    assert Leftovers(tables=(("ip", "kube-proxy"),))
