"""The plans of all Services put together, one change at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import RealServer
from ipvsproxy.model.objects import AddressKind, Clients, ObjectKey, ServiceType, TrafficPolicy
from ipvsproxy.plan.desired import Desired, agent_port, elements_of
from ipvsproxy.plan.node import Dependency
from ipvsproxy.plan.services import (
    NOTHING,
    HealthCheck,
    PlannedVirtualServer,
    Redirect,
    ServicePlan,
    plan_service,
)
from tests.builders import (
    NODE,
    WEB,
    address,
    addresses,
    endpoint,
    endpoint_slice,
    key,
    port,
    service,
    source_list,
    virtual_server,
)
from tests.plan.context import CONTEXT, context

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.plan.desired import Touched

OLD, NEW = ObjectKey("default", "old"), ObjectKey("default", "new")


def plan(*cluster_ips: str, created: int = 0, ports: tuple[int, ...] = (80,)) -> ServicePlan:
    local = endpoint_slice(endpoint("10.244.0.1", node=NODE))
    value = service(*cluster_ips, created=created, ports=tuple(port(each) for each in ports))
    return plan_service(value, [local], CONTEXT)


def test_a_new_service_touches_its_virtual_server_address_and_elements() -> None:
    touched = Desired().replace(OLD, plan("10.96.0.1"))
    assert touched.virtual_servers == {key("10.96.0.1")}
    assert touched.addresses == {address("10.96.0.1")}
    assert touched.elements == {
        SetElement(FirewallSet.SERVICE_ADDRESSES, (address("10.96.0.1"),)),
        SetElement(FirewallSet.SERVICE_PORTS, key("10.96.0.1")),
        SetElement(FirewallSet.LOCAL_ENDPOINTS, (address("10.244.0.1"), address("10.244.0.1"))),
    }


def test_a_port_without_endpoints_is_on_record_as_such_until_it_has_one() -> None:
    desired = Desired()
    without = SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, key("10.96.0.1"))
    desired.replace(OLD, plan_service(service("10.96.0.1"), [], CONTEXT))
    assert without in desired.elements
    assert without in desired.replace(OLD, plan("10.96.0.1")).elements
    assert without not in desired.elements


def test_the_same_plan_again_touches_nothing() -> None:
    desired = Desired()
    desired.replace(OLD, plan("10.96.0.1"))
    assert not desired.replace(OLD, plan("10.96.0.1"))


def test_an_address_goes_with_its_last_port() -> None:
    desired = Desired()
    desired.replace(OLD, plan("10.96.0.1", ports=(80, 443)))
    assert not desired.replace(OLD, plan("10.96.0.1", ports=(80,))).addresses
    assert desired.addresses == {address("10.96.0.1")}
    assert desired.replace(OLD, NOTHING).addresses == {address("10.96.0.1")}
    assert not desired.addresses


def test_of_two_services_that_claim_one_virtual_server_the_older_has_it_whatever_the_order() -> None:
    for first, second in ((OLD, NEW), (NEW, OLD)):
        desired = Desired()
        plans = {OLD: plan("10.96.0.1", created=1), NEW: plan("10.96.0.1", created=2)}
        desired.replace(first, plans[first])
        desired.replace(second, plans[second])
        assert desired.owners[key("10.96.0.1")] == OLD
        (rejection,) = desired.rejections()
        assert str(rejection) == (
            "Service default/new: spec.clusterIPs: "
            "10.96.0.1:80/tcp belongs to Service default/old, the older one, or the first by name"
        )


def test_when_the_older_claim_goes_the_younger_service_takes_over_without_a_gap() -> None:
    desired = Desired()
    desired.replace(OLD, plan("10.96.0.1", created=1))
    desired.replace(NEW, plan("10.96.0.1", created=2))
    touched = desired.replace(OLD, NOTHING)
    assert desired.owners[key("10.96.0.1")] == NEW
    assert touched.addresses == set()
    assert not list(desired.rejections())


def claim(kind: AddressKind, text: str = "203.0.113.1", created: int = 0) -> ServicePlan:
    """Return the plan of a Service that claims one address as this kind of address."""
    planned = PlannedVirtualServer(virtual_server(key(text)), kind=kind)
    return ServicePlan({key(text): planned}, created)


def test_a_node_port_of_another_service_is_one_rejection_that_names_no_address_of_the_node() -> None:
    desired = Desired()
    around = context(node_ports_on=addresses("192.0.2.1", "192.0.2.2", "2001:db8::1"))
    cluster_ips = {OLD: ("10.96.0.1", "fd00::1"), NEW: ("10.96.0.2", "fd00::2")}
    for created, (each, ips) in enumerate(cluster_ips.items()):
        asked = service(
            *ips, of=each, created=created, kind=ServiceType.NODE_PORT, ports=(port(80, node_port=30080),)
        )
        desired.replace(each, plan_service(asked, [], around))
    assert [str(each) for each in desired.rejections()] == [
        (
            "Service default/new: spec.ports[].nodePort: 30080/tcp belongs to Service default/old, "
            "the older one, or the first by name"
        )
    ]


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD)])
def test_a_cluster_ip_cannot_be_taken_over_by_an_older_service_with_that_external_ip(
    order: tuple[ObjectKey, ObjectKey],
) -> None:
    desired = Desired()
    plans = {OLD: claim(AddressKind.EXTERNAL_IP, created=1), NEW: claim(AddressKind.CLUSTER_IP, created=2)}
    for each in order:
        desired.replace(each, plans[each])
    assert desired.owners == {key("203.0.113.1"): NEW}
    assert [str(each) for each in desired.rejections()] == [
        (
            "Service default/old: spec.externalIPs: 203.0.113.1:80/tcp belongs to Service default/new, "
            "whose clusterIP it is"
        )
    ]


def test_of_two_services_with_one_external_ip_and_port_the_older_keeps_it() -> None:
    desired = Desired()
    desired.replace(NEW, claim(AddressKind.EXTERNAL_IP, created=2))
    assert desired.owners == {key("203.0.113.1"): NEW}
    desired.replace(OLD, claim(AddressKind.EXTERNAL_IP, created=1))
    assert desired.owners == {key("203.0.113.1"): OLD}
    (rejection,) = desired.rejections_of(NEW)
    assert "belongs to Service default/old, the older one" in rejection.reason


def test_a_claim_that_changes_its_kind_is_settled_anew() -> None:
    desired = Desired()
    desired.replace(OLD, claim(AddressKind.LOAD_BALANCER_IP))
    desired.replace(NEW, claim(AddressKind.EXTERNAL_IP))
    desired.replace(OLD, claim(AddressKind.EXTERNAL_IP, created=9))
    assert desired.owners == {key("203.0.113.1"): NEW}


def test_nothing_is_desired_on_an_address_with_a_foreign_virtual_server_until_that_is_gone() -> None:
    desired = Desired()
    desired.replace(OLD, plan("10.96.0.1", ports=(80, 443)))
    touched = desired.exclude({key("10.96.0.1", 7777)})
    assert touched.virtual_servers == {key("10.96.0.1"), key("10.96.0.1", 443)}
    assert not desired.addresses
    assert not desired.elements
    assert "10.96.0.1 carries a virtual server that is not ipvsproxy's" in str(next(desired.rejections()))
    assert desired.exclude(()).virtual_servers == touched.virtual_servers
    assert desired.addresses == {address("10.96.0.1")}


def test_at_an_address_that_another_interface_holds_a_foreign_virtual_server_keeps_its_own_port_only() -> (
    None
):
    desired = Desired()
    at, foreign = address("203.0.113.1"), {key("203.0.113.1"), key("203.0.113.1", 7777)}
    desired.replace(OLD, plan("203.0.113.1", ports=(80, 443)))
    desired.exclude(foreign, {at})
    assert desired.owners == {key("203.0.113.1", 443): OLD}
    (rejection,) = desired.rejections()
    assert rejection.reason == "virtual server 203.0.113.1:80/tcp is not ipvsproxy's"
    assert desired.exclude(foreign).virtual_servers >= {key("203.0.113.1", 443)}
    assert not desired.owners
    assert desired.exclude(foreign, {at}).virtual_servers >= {key("203.0.113.1", 443)}
    assert desired.owners == {key("203.0.113.1", 443): OLD}


def test_a_foreign_virtual_server_at_a_node_address_keeps_its_own_port_only() -> None:
    desired = Desired()
    keys = key("198.51.100.1", 30080), key("198.51.100.1", 30081)
    planned = [PlannedVirtualServer(virtual_server(each), kind=AddressKind.NODE_PORT) for each in keys]
    desired.replace(OLD, ServicePlan(dict(zip(keys, planned, strict=True))))
    desired.exclude({keys[0], key("198.51.100.1", 443)})
    assert desired.owners == {keys[1]: OLD}
    (rejection,) = desired.rejections()
    assert rejection.reason == "virtual server 198.51.100.1:30080/tcp is not ipvsproxy's"
    assert rejection.field == "spec.ports[].nodePort"


def elements(planned: PlannedVirtualServer) -> dict[FirewallSet, list[str]]:
    found: dict[FirewallSet, list[str]] = {}
    for element in elements_of(planned):
        found.setdefault(element.set, []).append(str(element))
    return found


class TestElements:
    EXTERNAL = PlannedVirtualServer(
        virtual_server(key("203.0.113.1"), RealServer(address("10.244.0.1"), 8080)),
        kind=AddressKind.EXTERNAL_IP,
    )
    PORT: ClassVar = ["203.0.113.1 . tcp . 80"]

    def test_a_port_that_is_reached_from_outside_is_masqueraded(self) -> None:
        assert elements(self.EXTERNAL) == {
            FirewallSet.SERVICE_PORTS: self.PORT,
            FirewallSet.SERVICE_ADDRESSES: ["203.0.113.1"],
            FirewallSet.MASQUERADED_PORTS: self.PORT,
            FirewallSet.KEPT_PORTS: self.PORT,
        }

    def test_under_a_policy_local_it_is_not_and_the_cluster_uses_the_cluster_ip(self) -> None:
        planned = self.EXTERNAL._replace(
            policy=TrafficPolicy.LOCAL, redirect=Redirect(Clients.INSIDE, address("10.96.0.1"), 8080)
        )
        assert elements(planned) == {
            FirewallSet.SERVICE_PORTS: self.PORT,
            FirewallSet.SERVICE_ADDRESSES: ["203.0.113.1"],
            FirewallSet.LOCAL_PORTS: self.PORT,
            FirewallSet.KEPT_PORTS: self.PORT,
            FirewallSet.IN_CLUSTER_DESTINATIONS: ["203.0.113.1 . tcp . 80 : 10.96.0.1 . 8080"],
        }

    def test_under_two_policies_local_clients_outside_use_the_cluster_ip(self) -> None:
        redirect = Redirect(Clients.OUTSIDE, address("10.96.0.1"), 8080)
        found = elements(self.EXTERNAL._replace(policy=TrafficPolicy.LOCAL, redirect=redirect))
        assert found[FirewallSet.OUTSIDE_DESTINATIONS] == ["203.0.113.1 . tcp . 80 : 10.96.0.1 . 8080"]
        assert FirewallSet.IN_CLUSTER_DESTINATIONS not in found

    def test_clients_outside_are_dropped_though_the_virtual_server_has_endpoints_of_other_nodes(self) -> None:
        found = elements(self.EXTERNAL._replace(policy=TrafficPolicy.LOCAL, only_remote_endpoints=True))
        assert found[FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS] == self.PORT
        assert FirewallSet.PORTS_WITHOUT_ENDPOINTS not in found

    def test_a_node_port_is_at_an_address_that_is_neither_guarded_nor_bound(self) -> None:
        planned = self.EXTERNAL._replace(kind=AddressKind.NODE_PORT)
        assert FirewallSet.SERVICE_ADDRESSES not in elements(planned)
        desired = Desired()
        desired.replace(OLD, ServicePlan({planned.virtual_server.key: planned}))
        assert not desired.addresses

    def test_without_endpoints_it_refuses_and_without_local_ones_it_drops(self) -> None:
        empty = virtual_server(key("203.0.113.1"))
        nobody = self.EXTERNAL._replace(virtual_server=empty, policy=TrafficPolicy.LOCAL)
        assert elements(nobody)[FirewallSet.PORTS_WITHOUT_ENDPOINTS] == self.PORT
        others = elements(nobody._replace(only_remote_endpoints=True))
        assert others[FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS] == self.PORT
        assert FirewallSet.PORTS_WITHOUT_ENDPOINTS not in others

    def test_a_cluster_ip_without_local_endpoints_refuses(self) -> None:
        cluster_ip = PlannedVirtualServer(
            virtual_server(key("10.96.0.1")), policy=TrafficPolicy.LOCAL, only_remote_endpoints=True
        )
        assert FirewallSet.PORTS_WITHOUT_ENDPOINTS in elements(cluster_ip)

    def test_source_ranges_restrict_the_port_to_their_networks(self) -> None:
        for sources in (source_list("192.0.2.0/24"), source_list()):
            restricted = elements(self.EXTERNAL._replace(allowed_sources=sources))
            assert restricted[FirewallSet.RESTRICTED_PORTS] == [
                f"203.0.113.1 . tcp . 80 : jump {sources.name}"
            ]
            assert restricted[FirewallSet.SOURCE_LISTS] == [", ".join(map(str, sources.networks))]
        assert FirewallSet.RESTRICTED_PORTS not in elements(self.EXTERNAL)

    def test_two_services_with_the_same_ranges_share_a_source_list(self) -> None:
        desired = Desired()
        for number, name in enumerate(("web", "shop"), start=1):
            value = service(
                f"10.96.0.{number}",
                of=ObjectKey("default", name),
                load_balancer_ips=(f"203.0.113.{number}",),
                source_ranges=("192.0.2.0/24",),
            )
            desired.replace(value.key, plan_service(value, [], CONTEXT))
        lists = [each for each in desired.elements if each.set is FirewallSet.SOURCE_LISTS]
        assert lists == [SetElement(FirewallSet.SOURCE_LISTS, (source_list("192.0.2.0/24"),))]
        gone = desired.replace(ObjectKey("default", "web"), NOTHING)
        assert lists[0] not in gone.elements
        assert lists[0] in desired.replace(ObjectKey("default", "shop"), NOTHING).elements


def test_the_virtual_servers_that_are_redirected_to_a_cluster_ip_are_known() -> None:
    value = service(
        "10.96.0.1",
        ports=(port(80, "a"), port(81, "b")),
        external=TrafficPolicy.LOCAL,
        external_ips=("203.0.113.1",),
    )
    desired = Desired()
    desired.replace(WEB, plan_service(value, [], CONTEXT))
    assert list(desired.redirected_to({key("10.96.0.1", 81)})) == [
        (key("203.0.113.1", 81), key("10.96.0.1", 81))
    ]
    assert list(desired.redirected_to({key("203.0.113.1", 81), key("10.96.0.9", 81)})) == []


class TestAgentPorts:
    """The ports that the agent itself answers at, which are open at every address."""

    def check(self, desired: Desired, of: ObjectKey, number: int | None) -> Touched:
        check = None if number is None else HealthCheck(number, 0)
        return desired.replace(of, plan("10.96.0.1")._replace(health_check=check))

    def test_a_health_check_node_port_is_open_as_long_as_a_service_has_it(self) -> None:
        desired = Desired()
        element = agent_port(32000)
        assert element in self.check(desired, OLD, 32000).elements
        assert element in desired.elements
        assert self.check(desired, NEW, 32000).elements.isdisjoint({element})
        assert self.check(desired, OLD, None).elements.isdisjoint({element})
        assert desired.agent_ports == {32000}
        assert self.check(desired, NEW, 32001).elements >= {element, agent_port(32001)}
        assert element not in desired.elements
        assert agent_port(32001) in desired.replace(NEW, NOTHING).elements
        assert not desired.agent_ports
        assert set(desired.elements) == elements_of_plan(desired)

    def test_the_agents_own_ports_are_open_until_it_has_others(self) -> None:
        desired = Desired()
        self.check(desired, OLD, 32000)
        assert desired.answer_at(frozenset({10256, 32000})).elements == {agent_port(10256)}
        assert desired.agent_ports == {10256, 32000}
        assert desired.answer_at(frozenset({9100})).elements == {agent_port(10256), agent_port(9100)}
        assert desired.agent_ports == {9100, 32000}


def elements_of_plan(desired: Desired) -> set[SetElement]:
    return {each for planned in desired.virtual_servers.values() for each in elements_of(planned)}


def test_services_are_found_by_what_their_plans_depend_on() -> None:
    desired = Desired()
    desired.replace(OLD, plan("10.96.0.1"))
    desired.replace(NEW, plan("10.96.0.2")._replace(depends_on=Dependency.ZONE))
    assert desired.depending_on(Dependency.ZONE | Dependency.ADDRESSES) == [NEW]
    assert desired.depending_on(Dependency.ADDRESSES) == []


def test_services_of_which_an_endpoint_is_left_out_for_its_address_are_known() -> None:
    desired = Desired()
    desired.replace(NEW, plan("10.96.0.2"))
    around = context(service_addresses=addresses("10.244.0.1"))
    desired.replace(OLD, plan_service(service("10.96.0.1"), [endpoint_slice("10.244.0.1")], around))
    assert desired.without_service_addresses() == [OLD]


ADDRESSES = [f"10.96.0.{number}" for number in range(3)]
PODS = [address(f"10.244.0.{number}") for number in range(3)]
PLANS = st.builds(
    lambda servers, created: ServicePlan({each.virtual_server.key: each for each in servers}, created),
    st.lists(
        st.builds(
            lambda ip, number, pods, kind, policy: PlannedVirtualServer(
                virtual_server(key(ip, number)), tuple(pods), kind, policy
            ),
            st.sampled_from(ADDRESSES),
            st.sampled_from((80, 443)),
            st.lists(st.sampled_from(PODS), max_size=2),
            st.sampled_from(AddressKind),
            st.sampled_from(TrafficPolicy),
        ),
        max_size=4,
    ),
    st.integers(0, 2),
)


class _Others(NamedTuple):
    """The virtual servers that are somebody else's, and the addresses that other interfaces hold."""

    foreign: frozenset[VirtualServerKey]
    elsewhere: frozenset[Address]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([ObjectKey("default", name) for name in "abc"]), PLANS),
        st.builds(
            _Others,
            st.frozensets(
                st.builds(key, st.sampled_from(ADDRESSES), st.sampled_from((80, 443, 53))), max_size=2
            ),
            st.frozensets(st.sampled_from(ADDRESSES).map(address), max_size=2),
        ),
    ),
    max_size=12,
)


@given(STEPS)
def test_all_that_changed_is_touched_and_the_whole_is_the_sum_of_the_plans(
    steps: list[tuple[ObjectKey, ServicePlan] | _Others],
) -> None:
    desired = Desired()
    plans: dict[ObjectKey, ServicePlan] = {}
    others = _Others(frozenset(), frozenset())
    for step in steps:
        before = dict(desired.virtual_servers), set(desired.addresses), set(desired.elements)
        touched: Touched
        if isinstance(step, _Others):
            others = step
            touched = desired.exclude(*others)
        else:
            plans[step[0]] = step[1]
            touched = desired.replace(*step)
        expected = settled(plans, others)
        assert dict(desired.owners) == {each: name for each, (name, _) in expected.items()}
        assert set(desired.addresses) == {
            each.address
            for each, (_, planned) in expected.items()
            if planned.kind is not AddressKind.NODE_PORT
        }
        assert set(desired.elements) == {
            element for _, planned in expected.values() for element in elements_of(planned)
        }
        changed = {
            each
            for each in before[0].keys() | desired.virtual_servers.keys()
            if before[0].get(each) != desired.virtual_servers.get(each)
        }
        assert changed <= touched.virtual_servers
        assert before[1] ^ set(desired.addresses) <= touched.addresses
        assert before[2] ^ set(desired.elements) <= touched.elements


def settled(
    plans: dict[ObjectKey, ServicePlan], others: _Others
) -> dict[VirtualServerKey, tuple[ObjectKey, PlannedVirtualServer]]:
    """Say who has what, looking at everything at once."""
    claims = sorted(
        (planned.kind, value.created, name, each)
        for name, value in plans.items()
        for each, planned in value.virtual_servers.items()
    )
    closed = {each.address for each in others.foreign} - others.elsewhere
    owned: dict[VirtualServerKey, tuple[ObjectKey, PlannedVirtualServer]] = {}
    for _, _, name, each in claims:
        owned.setdefault(each, (name, plans[name].virtual_servers[each]))
    return {
        each: owner
        for each, owner in owned.items()
        if each not in others.foreign
        and (owner[1].kind is AddressKind.NODE_PORT or each.address not in closed)
    }
