"""From desired and actual state to operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.model.ipvs import Command, RealServer, ServiceFlag
from ipvsproxy.model.objects import ObjectKey, Protocol
from ipvsproxy.plan.desired import Desired
from ipvsproxy.plan.diff import Actual, diff, diff_virtual_server, draining_real_servers
from ipvsproxy.plan.services import NOTHING, PlanSettings, plan_service
from tests.builders import NODE, address, endpoint_slice, key, real_server, service, virtual_server

if TYPE_CHECKING:
    from ipvsproxy.model.ipvs import IpvsOperation, VirtualServer

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
        plan = plan_service(
            service(cluster_ip, of=name), [endpoint_slice("10.244.0.1")], PlanSettings(NODE, "rr")
        )
        desired.replace(name, plan)
    return desired


def test_only_what_was_touched_is_compared() -> None:
    desired = planned("10.96.0.1", "10.96.0.2")
    touched = desired.replace(ObjectKey("default", "web-1"), NOTHING)
    operations = diff(desired, Actual(), touched, drain=True)
    assert not operations


def test_an_address_that_another_interface_has_is_not_bound_and_is_given_up_when_it_was() -> None:
    desired = Desired()
    plan = plan_service(service("10.96.0.1"), [], PlanSettings(NODE, "rr"))
    touched = desired.replace(ObjectKey("default", "web"), plan)
    elsewhere = frozenset({address("10.96.0.1")})
    assert diff(desired, Actual(elsewhere=elsewhere), touched, drain=True).add_addresses == []
    bound = Actual(addresses=set(elsewhere), elsewhere=elsewhere)
    assert diff(desired, bound, touched, drain=True).remove_addresses == [address("10.96.0.1")]


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
