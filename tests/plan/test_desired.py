"""The plans of all Services put together, one change at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.plan.desired import Desired, elements_of
from ipvsproxy.plan.services import NOTHING, PlannedVirtualServer, PlanSettings, ServicePlan, plan_service
from tests.builders import NODE, address, endpoint, endpoint_slice, key, port, service, virtual_server

if TYPE_CHECKING:
    from ipvsproxy.plan.desired import Touched

SETTINGS = PlanSettings(NODE, "rr")
OLD, NEW = ObjectKey("default", "old"), ObjectKey("default", "new")


def plan(*cluster_ips: str, created: int = 0, ports: tuple[int, ...] = (80,)) -> ServicePlan:
    local = endpoint_slice(endpoint("10.244.0.1", node=NODE))
    value = service(*cluster_ips, created=created, ports=tuple(port(each) for each in ports))
    return plan_service(value, [local], SETTINGS)


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
    desired.replace(OLD, plan_service(service("10.96.0.1"), [], SETTINGS))
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


def test_nothing_is_desired_on_an_address_with_a_foreign_virtual_server_until_that_is_gone() -> None:
    desired = Desired()
    desired.replace(OLD, plan("10.96.0.1", ports=(80, 443)))
    touched = desired.exclude({address("10.96.0.1")})
    assert touched.virtual_servers == {key("10.96.0.1"), key("10.96.0.1", 443)}
    assert not desired.addresses
    assert not desired.elements
    assert "carries a virtual server that is not ipvsproxy's" in str(next(desired.rejections()))
    assert desired.exclude(()).virtual_servers == touched.virtual_servers
    assert desired.addresses == {address("10.96.0.1")}


ADDRESSES = [f"10.96.0.{number}" for number in range(3)]
PODS = [address(f"10.244.0.{number}") for number in range(3)]
PLANS = st.builds(
    lambda servers, created: ServicePlan({each.virtual_server.key: each for each in servers}, created),
    st.lists(
        st.builds(
            lambda ip, number, pods: PlannedVirtualServer(virtual_server(key(ip, number)), tuple(pods)),
            st.sampled_from(ADDRESSES),
            st.sampled_from((80, 443)),
            st.lists(st.sampled_from(PODS), max_size=2),
        ),
        max_size=4,
    ),
    st.integers(0, 2),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([ObjectKey("default", name) for name in "abc"]), PLANS),
        st.sets(st.sampled_from(ADDRESSES), max_size=2),
    ),
    max_size=12,
)


@given(STEPS)
def test_all_that_changed_is_touched_and_the_whole_is_the_sum_of_the_plans(
    steps: list[tuple[ObjectKey, ServicePlan] | set[str]],
) -> None:
    desired = Desired()
    plans: dict[ObjectKey, ServicePlan] = {}
    foreign: set[str] = set()
    for step in steps:
        before = dict(desired.virtual_servers), set(desired.addresses), set(desired.elements)
        touched: Touched
        if isinstance(step, set):
            foreign = step
            touched = desired.exclude(address(each) for each in foreign)
        else:
            plans[step[0]] = step[1]
            touched = desired.replace(*step)
        excluded = {address(each) for each in foreign}
        expected: dict[object, tuple[ObjectKey, PlannedVirtualServer]] = {}
        for _, name in sorted((value.created, name) for name, value in plans.items()):
            for each, planned in plans[name].virtual_servers.items():
                if each.address not in excluded:
                    expected.setdefault(each, (name, planned))
        assert dict(desired.owners) == {each: name for each, (name, _) in expected.items()}
        assert set(desired.addresses) == {
            planned.virtual_server.key.address for _, planned in expected.values()
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
