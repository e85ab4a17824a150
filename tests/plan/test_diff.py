"""From desired and actual state to operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.addresses import Holding
from ipvsproxy.model.firewall import FirewallSet
from ipvsproxy.model.ipvs import Command, RealServer, ServiceFlag
from ipvsproxy.model.objects import ObjectKey, Protocol, ServiceOptions, ServiceType, TrafficPolicy
from ipvsproxy.plan.desired import Desired
from ipvsproxy.plan.diff import Actual, KnownElements, diff, diff_virtual_server, draining_real_servers
from ipvsproxy.plan.services import NOTHING, plan_service
from tests.builders import (
    NODE,
    address,
    endpoint,
    endpoint_slice,
    key,
    real_server,
    service,
    source_list,
    virtual_server,
)
from tests.plan.context import CONTEXT

if TYPE_CHECKING:
    from ipvsproxy.model.ipvs import IpvsOperation, VirtualServer
    from ipvsproxy.model.objects import EndpointSlice, Service
    from ipvsproxy.plan.diff import Operations

WEB = key("10.96.0.1")
DNS = key("10.96.0.10", 53, Protocol.UDP)
ONE, TWO = real_server("10.244.0.1"), real_server("10.244.0.2")


def commands(wanted: VirtualServer, found: VirtualServer | None, *, drain: bool = True) -> list[str]:
    return [
        f"{operation.command.name} {operation.real_server or ''}".strip()
        + (f" weight {operation.real_server.weight}" if operation.real_server else "")
        for operation in diff_virtual_server(wanted, found, drain=drain).operations
    ]


def test_a_new_virtual_server_comes_before_its_real_servers() -> None:
    assert commands(virtual_server(WEB, ONE, TWO), None) == [
        "NEW_SERVICE",
        "NEW_DEST 10.244.0.1:8080 weight 1",
        "NEW_DEST 10.244.0.2:8080 weight 1",
    ]


def test_equal_states_need_no_operation() -> None:
    assert commands(virtual_server(WEB, ONE), virtual_server(WEB, ONE)) == []


def test_scheduler_flags_and_timeout_are_edited_in_place() -> None:
    found = virtual_server(WEB, ONE)
    for wanted in (
        virtual_server(WEB, ONE, scheduler="lc"),
        virtual_server(WEB, ONE, flags=ServiceFlag.PERSISTENT, timeout=60),
        virtual_server(WEB, ONE, timeout=1),
    ):
        assert commands(wanted, found) == ["SET_SERVICE"]


def test_a_tcp_real_server_that_leaves_drains_and_is_not_touched_again() -> None:
    edit = diff_virtual_server(virtual_server(WEB, ONE), virtual_server(WEB, ONE, TWO), drain=True)
    quiet = TWO._replace(weight=0)
    assert [operation[::2] for operation in edit.operations] == [(Command.SET_DEST, quiet)]
    assert edit.after == virtual_server(WEB, ONE, quiet)
    assert draining_real_servers(virtual_server(WEB, ONE), edit.after) == [quiet]
    assert commands(virtual_server(WEB, ONE), edit.after) == []


def test_a_real_server_that_returns_while_it_drains_gets_its_weight_back_in_place() -> None:
    draining = virtual_server(WEB, ONE, TWO._replace(weight=0))
    assert commands(virtual_server(WEB, ONE, TWO), draining) == ["SET_DEST 10.244.0.2:8080 weight 1"]


def test_new_real_servers_come_before_old_ones_lose_their_weight() -> None:
    assert commands(virtual_server(WEB, TWO), virtual_server(WEB, ONE)) == [
        "NEW_DEST 10.244.0.2:8080 weight 1",
        "SET_DEST 10.244.0.1:8080 weight 0",
    ]


def test_a_udp_real_server_that_leaves_is_deleted_at_once() -> None:
    assert commands(virtual_server(DNS), virtual_server(DNS, ONE)) == ["DEL_DEST 10.244.0.1:8080 weight 1"]


def test_without_a_drain_timeout_a_real_server_that_leaves_is_deleted_at_once() -> None:
    assert commands(virtual_server(WEB), virtual_server(WEB, ONE), drain=False) == [
        "DEL_DEST 10.244.0.1:8080 weight 1"
    ]


def planned(*cluster_ips: str) -> Desired:
    desired = Desired()
    for number, cluster_ip in enumerate(cluster_ips):
        name = ObjectKey("default", f"web-{number}")
        plan = plan_service(service(cluster_ip, of=name), [endpoint_slice("10.244.0.1")], CONTEXT)
        desired.replace(name, plan)
    return desired


def test_only_what_was_touched_is_compared() -> None:
    desired = planned("10.96.0.1", "10.96.0.2")
    touched = desired.replace(ObjectKey("default", "web-1"), NOTHING)
    operations = diff(desired, Actual(), touched)
    assert not operations


def test_an_address_that_another_interface_has_is_not_bound_and_is_given_up_when_it_was() -> None:
    desired = Desired()
    plan = plan_service(service("10.96.0.1"), [], CONTEXT)
    touched = desired.replace(ObjectKey("default", "web"), plan)
    elsewhere = {address("10.96.0.1"): Holding.ALONE}
    assert diff(desired, Actual(elsewhere=elsewhere), touched).add_addresses == []
    bound = Actual(addresses=set(elsewhere), elsewhere=elsewhere)
    assert diff(desired, bound, touched).remove_addresses == [address("10.96.0.1")]


def test_how_a_real_server_leaves_is_the_services_own_to_say() -> None:
    for drain_timeout, command in ((0.0, Command.DEL_DEST), (60.0, Command.SET_DEST)):
        desired = Desired()
        value = service("10.96.0.1", options=ServiceOptions(drain_timeout=drain_timeout))
        touched = desired.replace(value.key, plan_service(value, [], CONTEXT))
        actual = Actual({WEB: virtual_server(WEB, ONE)})
        (edit,) = diff(desired, actual, touched).edits
        assert [operation.command for operation in edit.operations] == [command]


def external(policy: TrafficPolicy, *source_ranges: str) -> Service:
    return service(
        "10.96.0.1",
        kind=ServiceType.LOAD_BALANCER,
        load_balancer_ips=("203.0.113.1",),
        external=policy,
        source_ranges=source_ranges or None,
    )


HERE_AND_ELSEWHERE = endpoint_slice(endpoint("10.244.0.1", node=NODE), "10.244.1.1")


def change(
    before: Service,
    after: Service,
    behind: EndpointSlice = HERE_AND_ELSEWHERE,
    then: EndpointSlice = HERE_AND_ELSEWHERE,
) -> Operations:
    """Return what has to be done when a Service and its endpoints change, from a kernel that has the first."""
    desired = Desired()
    desired.replace(before.key, plan_service(before, [behind], CONTEXT))
    actual = Actual(
        {at: planned.virtual_server for at, planned in desired.virtual_servers.items()},
        set(desired.addresses),
        KnownElements(desired.elements),
    )
    return diff(desired, actual, desired.replace(after.key, plan_service(after, [then], CONTEXT)))


def test_while_the_external_traffic_policy_changes_its_virtual_server_stays_masqueraded() -> None:
    to_local = change(external(TrafficPolicy.CLUSTER), external(TrafficPolicy.LOCAL))
    assert [element.set for element in to_local.remove_elements] == [FirewallSet.MASQUERADED_PORTS]
    assert to_local.replaced_elements == []
    to_cluster = change(external(TrafficPolicy.LOCAL), external(TrafficPolicy.CLUSTER))
    assert [element.set for element in to_cluster.add_elements] == [FirewallSet.MASQUERADED_PORTS]
    assert {element.set for element in to_cluster.remove_elements} == {
        FirewallSet.LOCAL_PORTS,
        FirewallSet.IN_CLUSTER_DESTINATIONS,
    }


@pytest.mark.parametrize("kind", [TrafficPolicy.CLUSTER, TrafficPolicy.LOCAL])
def test_while_the_roles_of_two_virtual_servers_are_turned_round_clients_are_masqueraded(
    kind: TrafficPolicy,
) -> None:
    value = external(TrafficPolicy.LOCAL)
    turned = value._replace(internal_traffic_policy=TrafficPolicy.LOCAL)
    before, after = (value, turned) if kind is TrafficPolicy.LOCAL else (turned, value)
    operations = change(before, after)
    added, removed = (
        {element.set for element in elements}
        for elements in (operations.add_elements, operations.remove_elements)
    )
    maps = [FirewallSet.IN_CLUSTER_DESTINATIONS, FirewallSet.OUTSIDE_DESTINATIONS]
    went, came = maps if kind is TrafficPolicy.LOCAL else reversed(maps)
    assert added == {FirewallSet.MASQUERADED_PORTS, came}
    assert removed == {FirewallSet.MASQUERADED_PORTS, went}


def test_a_new_virtual_server_that_redirects_is_not_masqueraded_first() -> None:
    desired = Desired()
    plan = plan_service(external(TrafficPolicy.LOCAL), [HERE_AND_ELSEWHERE], CONTEXT)
    operations = diff(desired, Actual(), desired.replace(ObjectKey("default", "web"), plan))
    assert operations.remove_elements == []


def test_clients_that_were_dropped_are_refused_as_soon_as_nobody_serves() -> None:
    value = external(TrafficPolicy.LOCAL)
    nobody, others = endpoint_slice(), endpoint_slice("10.244.1.1")
    operations = change(value, value, others, nobody)
    of = FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS
    assert [element.set for element in operations.replaced_elements] == [of]
    back = change(value, value, nobody, others)
    assert of in {element.set for element in back.add_elements}
    here = change(value, value, others, HERE_AND_ELSEWHERE)
    assert [element.set for element in here.remove_elements] == [of]


def test_source_ranges_change_in_one_transaction() -> None:
    cluster = TrafficPolicy.CLUSTER
    narrowed = change(external(cluster, "10.0.0.0/8"), external(cluster, "10.1.0.0/16"))
    wide, narrow = source_list("10.0.0.0/8"), source_list("10.1.0.0/16")
    assert {str(each) for each in narrowed.replaced_elements} == {
        f"203.0.113.1 . tcp . 80 : jump {wide.name}",
        "10.0.0.0/8",
    }
    assert {str(each) for each in narrowed.add_elements} == {
        f"203.0.113.1 . tcp . 80 : jump {narrow.name}",
        "10.1.0.0/16",
    }
    opened = change(external(cluster, "10.0.0.0/8"), external(cluster))
    assert {each.set for each in opened.replaced_elements} == {
        FirewallSet.RESTRICTED_PORTS,
        FirewallSet.SOURCE_LISTS,
    }


def test_a_key_of_a_map_that_gets_another_value_loses_the_old_one_in_the_same_transaction() -> None:
    moved = external(TrafficPolicy.LOCAL)
    operations = change(moved, moved._replace(cluster_ips=(address("10.96.0.2"),)))
    of = FirewallSet.IN_CLUSTER_DESTINATIONS
    assert [str(each) for each in operations.replaced_elements] == ["203.0.113.1 . tcp . 80 : 10.96.0.1 . 80"]
    assert [str(each) for each in operations.add_elements if each.set is of] == [
        "203.0.113.1 . tcp . 80 : 10.96.0.2 . 80"
    ]


def carry_out(operations: list[IpvsOperation], found: VirtualServer | None) -> VirtualServer:
    """Do what the kernel does, as strictly."""
    state = found
    servers = {each[:2]: each for each in found.real_servers} if found else {}
    for command, wanted, server in operations:
        if command is Command.NEW_SERVICE:
            assert state is None
            state = wanted
            continue
        assert state is not None
        if command is Command.SET_SERVICE:
            state = wanted
            continue
        assert server is not None
        assert (server[:2] in servers) is (command is not Command.NEW_DEST)
        if command is Command.DEL_DEST:
            del servers[server[:2]]
        else:
            servers[server[:2]] = server
    assert state is not None
    return state._replace(real_servers=tuple(sorted(servers.values())))


REAL_SERVERS = st.lists(
    st.builds(
        RealServer,
        st.sampled_from([address(f"10.244.0.{number}") for number in range(4)]),
        st.sampled_from((80, 81)),
        st.integers(0, 2),
    ),
    unique_by=lambda server: server[:2],
    max_size=6,
)
VIRTUAL_SERVERS = st.builds(
    lambda servers, scheduler, timeout: virtual_server(WEB, *servers, scheduler=scheduler, timeout=timeout),
    REAL_SERVERS,
    st.sampled_from(("rr", "lc")),
    st.sampled_from((0, 60)),
)


@given(wanted=VIRTUAL_SERVERS, found=st.none() | VIRTUAL_SERVERS, drain=st.booleans())
def test_the_operations_lead_from_any_state_to_the_one_they_promise(
    wanted: VirtualServer, found: VirtualServer | None, *, drain: bool
) -> None:
    edit = diff_virtual_server(wanted, found, drain=drain)
    assert carry_out(edit.operations, found) == edit.after
    assert diff_virtual_server(wanted, edit.after, drain=drain).operations == []
    kept = {server[:2] for server in wanted.real_servers}
    assert [server for server in edit.after.real_servers if server[:2] in kept] == list(wanted.real_servers)
