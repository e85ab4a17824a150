"""The loop against strict fakes of the kernel."""

from __future__ import annotations

import errno
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.fake import AddressOperation
from ipvsproxy.kernel.fake_firewall import FirewallChange
from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import Command, IpvsOperation
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.plan.desired import agent_port
from ipvsproxy.plan.firewall import FirewallSettings, PodNetworks
from netns_tests.deadline import PATIENCE
from tests.builders import (
    address,
    endpoint_slice,
    key,
    port,
    real_server,
    service,
    virtual_server,
)
from tests.reconcile.world import SETTINGS, World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipvsproxy.kernel.interface import KernelError
    from ipvsproxy.model.objects import EndpointSlice, Service

WEB = key("10.96.0.1")
WEB_ADDRESS = address("10.96.0.1")
ONE, TWO = real_server("10.244.0.1"), real_server("10.244.0.2")
OTHER = ObjectKey("default", "other")
OTHER_KEY = key("10.96.0.2")


def words(log: list[object]) -> list[str]:
    """Say what took effect, in a word for each."""
    said = []
    for entry in log:
        if isinstance(entry, IpvsOperation):
            said.append(f"{entry.command.name} {entry.real_server or entry.virtual_server.key}")
        elif isinstance(entry, AddressOperation):
            said.append("address added" if entry.bound else "address removed")
        elif isinstance(entry, FirewallChange):
            said.append("elements added" if entry.add else "elements removed")
        else:
            said.append(str(entry))
    return said


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def running() -> World:
    """Return a world in which default/web serves with two endpoints, and default/other with one."""
    world = World()
    world.list_objects(
        service("10.96.0.1"),
        endpoint_slice("10.244.0.1", "10.244.0.2"),
        service("10.96.0.2", of=OTHER),
        endpoint_slice("10.244.0.3", of=OTHER, name="other-1"),
    )
    world.taken_log()
    return world


def test_nothing_is_written_before_both_lists_and_the_node_are_in(world: World) -> None:
    world.store.replace_services([service("10.96.0.1")])
    world.settle()
    assert world.addresses.kind is None
    world.store.replace_slices([])
    world.settle()
    assert world.log == []
    world.store.replace_node(None)
    world.settle()
    assert world.ipvs.state() == {WEB: virtual_server(WEB)}


def test_set_up_goes_from_the_firewall_to_the_virtual_server_to_the_address(world: World) -> None:
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.1"))
    assert words(world.log) == [
        "elements added",
        "NEW_SERVICE 10.96.0.1:80/tcp",
        "NEW_DEST 10.244.0.1:8080",
        "address added",
    ]


def test_a_later_service_is_set_up_in_the_same_order(running: World) -> None:
    running.put(service("10.96.0.3", of=ObjectKey("default", "new")))
    assert words(running.log) == ["elements added", "NEW_SERVICE 10.96.0.3:80/tcp", "address added"]


def test_tear_down_goes_the_other_way(running: World) -> None:
    running.store.remove_service(OTHER)
    running.settle()
    assert words(running.log) == ["address removed", "DEL_SERVICE 10.96.0.2:80/tcp", "elements removed"]


def test_a_changed_slice_costs_work_for_its_service_only_and_no_firewall_change(running: World) -> None:
    running.put(endpoint_slice("10.244.0.3", "10.244.0.4", of=OTHER, name="other-1"))
    assert words(running.log) == ["NEW_DEST 10.244.0.4:8080"]


def test_the_first_endpoint_ends_the_refusal_of_clients_and_the_last_one_brings_it_back(world: World) -> None:
    refused = SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, WEB)
    world.list_objects(service("10.96.0.1"))
    assert refused in world.firewall.read().elements
    world.put(endpoint_slice("10.244.0.1"))
    assert refused not in world.firewall.read().elements
    world.put(endpoint_slice())
    assert refused in world.firewall.read().elements


def test_what_follows_a_change_within_the_minimum_sync_period_waits_and_goes_together() -> None:
    world = World(SETTINGS._replace(minimum_sync_period=1.0))
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.9", name="web-9"))
    world.advance(1.0)
    world.taken_log()
    world.put(endpoint_slice("10.244.0.1"))
    assert words(world.taken_log()) == ["NEW_DEST 10.244.0.1:8080"]
    world.put(endpoint_slice("10.244.0.2", name="web-2"))
    world.put(endpoint_slice("10.244.0.3", name="web-3"))
    assert words(world.taken_log()) == []
    assert world.controller.step().paced
    world.advance(1.0)
    assert words(world.taken_log()) == ["NEW_DEST 10.244.0.2:8080", "NEW_DEST 10.244.0.3:8080"]


def test_a_start_over_what_is_right_already_writes_nothing(running: World) -> None:
    before = running.ipvs.state()
    running.restart()
    running.list_objects(
        service("10.96.0.1"),
        endpoint_slice("10.244.0.1", "10.244.0.2"),
        service("10.96.0.2", of=OTHER),
        endpoint_slice("10.244.0.3", of=OTHER, name="other-1"),
    )
    assert running.log == []
    assert running.ipvs.state() == before


def test_a_start_removes_what_of_ours_is_not_desired_any_more(running: World) -> None:
    running.restart()
    running.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.1", "10.244.0.2"))
    assert words(running.log) == ["address removed", "DEL_SERVICE 10.96.0.2:80/tcp", "elements removed"]


class TestDraining:
    def leave(self, world: World, active: int = 1) -> None:
        world.ipvs.set_connections(WEB, TWO.address, TWO.port, active)
        world.put(endpoint_slice("10.244.0.1"))

    def test_a_real_server_that_leaves_keeps_its_connections_and_gets_no_new_ones(
        self, running: World
    ) -> None:
        self.leave(running)
        assert running.ipvs.state()[WEB].real_servers == (ONE, TWO._replace(weight=0))
        running.advance(600)
        assert running.ipvs.state()[WEB].real_servers == (ONE, TWO._replace(weight=0))

    def test_it_goes_when_its_connections_have_ended(self, running: World) -> None:
        self.leave(running)
        running.ipvs.set_connections(WEB, TWO.address, TWO.port, 0, inactive=1)
        running.advance(10)
        assert len(running.ipvs.state()[WEB].real_servers) == 2
        running.ipvs.set_connections(WEB, TWO.address, TWO.port, 0)
        running.advance(10)
        assert running.ipvs.state()[WEB].real_servers == (ONE,)

    def test_it_goes_at_the_deadline_whatever_its_connections(self, running: World) -> None:
        self.leave(running)
        running.advance(899)
        assert len(running.ipvs.state()[WEB].real_servers) == 2
        running.advance(10)
        assert running.ipvs.state()[WEB].real_servers == (ONE,)

    def test_one_that_returns_gets_its_weight_back_in_place(self, running: World) -> None:
        self.leave(running)
        running.taken_log()
        running.put(endpoint_slice("10.244.0.1", "10.244.0.2"))
        assert words(running.log) == ["SET_DEST 10.244.0.2:8080"]
        running.advance(1000)
        assert running.ipvs.state()[WEB].real_servers == (ONE, TWO)

    def test_a_restart_lets_it_drain_on(self, running: World) -> None:
        self.leave(running)
        running.taken_log()
        running.restart()
        running.list_objects(
            service("10.96.0.1"),
            endpoint_slice("10.244.0.1"),
            service("10.96.0.2", of=OTHER),
            endpoint_slice("10.244.0.3", of=OTHER, name="other-1"),
        )
        assert running.taken_log() == []
        running.ipvs.set_connections(WEB, TWO.address, TWO.port, 0)
        running.advance(10)
        assert words(running.log) == ["DEL_DEST 10.244.0.2:8080"]


class TestFailures:
    def test_a_refused_virtual_server_harms_only_itself_and_is_tried_again(self, world: World) -> None:
        world.ipvs.refuse(WEB, errno.ENOENT, times=2)
        world.list_objects(service("10.96.0.1"), service("10.96.0.2", of=OTHER))
        assert world.ipvs.state().keys() == {OTHER_KEY}
        assert world.addresses.bound() == {OTHER_KEY.address}
        world.advance(1)
        assert WEB not in world.ipvs.state()
        world.advance(1)
        assert WEB not in world.ipvs.state()
        world.advance(1)
        assert world.ipvs.state().keys() == {WEB, OTHER_KEY}
        assert world.addresses.bound() == {WEB_ADDRESS, OTHER_KEY.address}

    def test_a_failure_is_logged_with_its_reason_and_shown(self, world: World) -> None:
        world.ipvs.refuse(WEB, errno.ENOMEM, times=1)
        world.list_objects(service("10.96.0.1"))
        (event,) = [each for each in world.events.entries if each["event"] == "not programmed"]
        assert event["item"] == "virtual server 10.96.0.1:80/tcp"
        assert event["reason"] == "creating the virtual server: ENOMEM: Cannot allocate memory"
        assert event["next_try_in_seconds"] == 1

    def test_a_virtual_server_that_cannot_be_deleted_stays_on_record(self, running: World) -> None:
        running.ipvs.refuse(OTHER_KEY, errno.ENOMEM)
        running.store.remove_service(OTHER)
        running.settle()
        record = SetElement(FirewallSet.SERVICE_PORTS, OTHER_KEY)
        assert record in running.firewall.read().elements
        running.advance(1)
        assert OTHER_KEY not in running.ipvs.state()
        assert record not in running.firewall.read().elements

    def test_an_address_that_cannot_be_removed_keeps_its_virtual_server(self, running: World) -> None:
        running.addresses.refuse(OTHER_KEY.address, errno.EPERM)
        running.store.remove_service(OTHER)
        running.settle()
        assert OTHER_KEY in running.ipvs.state()
        running.advance(1)
        assert OTHER_KEY not in running.ipvs.state()
        assert running.addresses.bound() == {WEB_ADDRESS}

    def test_an_address_that_could_not_be_removed_and_is_wanted_again_holds_nothing_up(
        self, running: World
    ) -> None:
        running.addresses.refuse(OTHER_KEY.address, errno.EPERM, times=1)
        running.store.remove_service(OTHER)
        running.settle()
        running.put(service("10.96.0.2", of=OTHER, ports=(port(443),)))
        running.advance(1)
        assert running.ipvs.state().keys() == {WEB, key("10.96.0.2", 443)}

    def test_without_its_firewall_elements_a_virtual_server_is_not_created(self, running: World) -> None:
        new = ObjectKey("default", "new")
        running.firewall.refuse(times=2)
        running.put(service("10.96.0.3", of=new))
        assert key("10.96.0.3") not in running.ipvs.state()
        running.advance(1)
        assert key("10.96.0.3") in running.ipvs.state()
        assert address("10.96.0.3") in running.addresses.bound()

    def test_a_first_sync_that_fails_is_tried_until_it_is_done(self, world: World) -> None:
        world.firewall.refuse(times=2)
        world.list_objects(service("10.96.0.1"))
        assert world.ipvs.state() == {}
        world.put(endpoint_slice("10.244.0.1"))
        world.advance(1)
        assert world.ipvs.state() == {}
        world.advance(1)
        assert world.ipvs.state() == {WEB: virtual_server(WEB, ONE)}

    def test_a_missing_nft_puts_changes_off_and_does_not_end_the_agent(self, running: World) -> None:
        running.firewall.fail_calls(KernelUnavailableError("no nft"), calls=2)
        running.put(service("10.96.0.3", of=ObjectKey("default", "new")))
        assert key("10.96.0.3") not in running.ipvs.state()
        running.advance(1)
        assert key("10.96.0.3") in running.ipvs.state()

    def test_lost_answers_are_made_up_for(self, running: World) -> None:
        running.ipvs.lose_answers(1)
        running.put(endpoint_slice("10.244.0.1", "10.244.0.2", "10.244.0.5"))
        running.advance(1)
        assert len(running.ipvs.state()[WEB].real_servers) == 3

    def test_a_broken_socket_puts_everything_off(self, running: World) -> None:
        running.ipvs.fail_calls(OSError(errno.EIO, "broken"))
        running.put(endpoint_slice("10.244.0.1", "10.244.0.2", "10.244.0.5"))
        assert len(running.ipvs.state()[WEB].real_servers) == 2
        running.advance(1)
        assert len(running.ipvs.state()[WEB].real_servers) == 3

    def test_a_resync_that_cannot_read_the_kernel_is_made_up_for_by_the_next(self, running: World) -> None:
        running.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, virtual_server(WEB))])
        running.ipvs.fail_calls(OSError(errno.EIO, "broken"))
        running.advance(30)
        assert WEB not in running.ipvs.state()
        running.advance(30)
        assert WEB in running.ipvs.state()


class TestResync:
    def test_it_writes_nothing_where_all_is_right(self, running: World) -> None:
        running.advance(30)
        assert running.log == []

    def test_it_repairs_what_others_changed_and_counts_it(self, running: World) -> None:
        running.ipvs.apply(
            [
                IpvsOperation(Command.DEL_SERVICE, virtual_server(WEB)),
                IpvsOperation(
                    Command.SET_DEST, virtual_server(OTHER_KEY), real_server("10.244.0.3", weight=7)
                ),
                IpvsOperation(Command.NEW_DEST, virtual_server(OTHER_KEY), real_server("10.244.0.9")),
            ]
        )
        running.addresses.apply((), [WEB_ADDRESS])
        running.advance(29)
        assert WEB not in running.ipvs.state()
        running.advance(1)
        assert running.ipvs.state()[WEB].real_servers == (ONE, TWO)
        assert real_server("10.244.0.3") in running.ipvs.state()[OTHER_KEY].real_servers
        assert WEB_ADDRESS in running.addresses.bound()
        (event,) = [
            each for each in running.events.entries if each["event"] == "repaired what others changed"
        ]
        assert event["virtual_servers_created"] == 1
        assert event["real_servers_added"] == 2
        assert event["real_servers_changed"] == 2
        assert event["addresses_added"] == 1

    def test_it_tells_of_what_failed_after_its_pauses_alone_and_calls_it_nobody_elses_doing(
        self, world: World
    ) -> None:
        world.ipvs.refuse(WEB, errno.ENOENT, times=100)
        world.list_objects(service("10.96.0.1"), service("10.96.0.2", of=OTHER))
        world.events.entries.clear()
        tries = []
        for _ in range(1200):
            world.advance(1)
            tries += [world.now for each in world.events.entries if each["event"] == "not programmed"]
            assert not [
                each for each in world.events.entries if each["event"] == "repaired what others changed"
            ]
            world.events.entries.clear()
        pauses = [later - earlier for earlier, later in pairwise(tries)]
        assert pauses[:7] == [2, 4, 8, 16, 32, 64, 128]

    @pytest.mark.parametrize("failing", ["virtual server", "address", "element"])
    def test_after_one_that_went_well_everything_that_failed_is_tried_whatever_its_pause(
        self, world: World, failing: str
    ) -> None:
        refuse: dict[str, Callable[[int], None]] = {
            "virtual server": lambda times: world.ipvs.refuse(WEB, errno.ENOMEM, times),
            "address": lambda times: world.addresses.refuse(WEB_ADDRESS, errno.EACCES, times),
            "element": lambda times: world.firewall.refuse(times=times),
        }
        world.list_objects()
        refuse[failing](1000)
        world.put(service("10.96.0.1"))
        for _ in range(600):
            world.advance(1)
        # The next try by itself would be minutes later.
        refuse[failing](0)
        world.events.entries.clear()
        for _ in range(30):
            world.advance(1)
        assert WEB in world.ipvs.state()
        assert WEB_ADDRESS in world.addresses.bound()
        assert "retried" in [each["event"] for each in world.events.entries]
        assert "repaired what others changed" not in [each["event"] for each in world.events.entries]

    def test_one_that_failed_tries_nothing(self, world: World) -> None:
        world.ipvs.refuse(WEB, errno.ENOMEM, times=1000)
        world.list_objects(service("10.96.0.1"))
        for _ in range(600):
            world.advance(1)
        world.ipvs.refuse(WEB, errno.ENOMEM, times=0)
        for _ in range(100):
            world.firewall.change_another_table()
            world.firewall.fail_calls(FirewallError("nft is broken"))
            world.advance(1)
        assert WEB not in world.ipvs.state()

    def test_its_slices_go_by_the_number_of_real_servers(self, world: World) -> None:
        pods = [f"10.244.{number // 250}.{number % 250}" for number in range(1, 400)]
        objects: list[Service | EndpointSlice] = []
        for number in range(4):
            name = ObjectKey("default", f"large-{number}")
            objects.append(service(f"10.96.1.{number}", of=name))
            objects.append(endpoint_slice(*pods, of=name, name=f"large-{number}-1"))
        world.list_objects(*objects)
        world.now += 30
        steps = 0
        while world.controller.step().seconds == 0:
            steps += 1
        small = World()
        small.list_objects(
            *[service(f"10.96.1.{number}", of=ObjectKey("default", str(number))) for number in range(4)]
        )
        small.now += 30
        while small.controller.step().seconds == 0:
            steps -= 1
        assert steps == 1

    def test_it_brings_a_deleted_table_back(self, running: World) -> None:
        before = running.firewall.read()
        running.firewall.delete_table()
        running.advance(30)
        assert running.firewall.read() == before

    def test_it_brings_a_deleted_interface_back(self, running: World) -> None:
        running.addresses.delete_interface()
        running.advance(30)
        assert running.addresses.bound() == {WEB_ADDRESS, OTHER_KEY.address}

    def test_changes_go_between_its_slices(self, running: World) -> None:
        running.now += 30
        assert running.controller.step().seconds == 0
        running.store.put_slice(endpoint_slice("10.244.0.1", "10.244.0.2", "10.244.0.5"))
        assert running.controller.step().seconds == 0
        assert words(running.taken_log()) == ["NEW_DEST 10.244.0.5:8080"]
        running.settle()
        assert running.log == []

    @pytest.mark.parametrize("slices_before", range(8))
    def test_a_change_in_the_midst_of_it_is_neither_undone_nor_taken_for_somebody_elses(
        self, running: World, slices_before: int
    ) -> None:
        running.now += 30
        for _ in range(slices_before):
            running.controller.step()
        running.store.remove_service(OTHER)
        running.put(service("10.96.0.3", of=ObjectKey("default", "new")))
        assert running.ipvs.state().keys() == {WEB, key("10.96.0.3")}
        assert running.addresses.bound() == {WEB_ADDRESS, address("10.96.0.3")}
        assert not [each for each in running.events.entries if each["log_level"] == "warning"]


class TestForeignVirtualServers:
    FOREIGN = virtual_server(WEB, real_server("192.0.2.1"), scheduler="wlc")

    def create(self, world: World) -> None:
        operations = [IpvsOperation(Command.NEW_SERVICE, self.FOREIGN)]
        operations += [
            IpvsOperation(Command.NEW_DEST, self.FOREIGN, each) for each in self.FOREIGN.real_servers
        ]
        assert not world.ipvs.apply(operations)
        world.taken_log()

    def test_one_that_is_there_at_the_start_is_not_touched_nor_is_its_address(self, world: World) -> None:
        self.create(world)
        world.list_objects(
            service("10.96.0.1", ports=(port(80), port(443, "https"))), endpoint_slice("10.244.0.1")
        )
        assert world.ipvs.state() == {WEB: self.FOREIGN}
        assert world.addresses.bound() == set()
        assert world.firewall.read().elements == frozenset()

    def test_one_that_comes_between_two_looks_is_found_before_anything_is_written(
        self, running: World
    ) -> None:
        foreign = virtual_server(key("10.96.0.3"), real_server("192.0.2.1"))
        running.ipvs.apply([IpvsOperation(Command.NEW_SERVICE, foreign._replace(real_servers=()))])
        before = running.firewall.read().elements
        running.taken_log()
        running.put(
            service("10.96.0.3", of=ObjectKey("default", "new"), ports=(port(80), port(443, "https"))),
            endpoint_slice("10.244.0.1", of=ObjectKey("default", "new"), name="new-1"),
        )
        assert running.log == []
        assert running.firewall.read().elements == before

    def test_one_that_comes_in_the_very_moment_is_left_as_it_is(self, running: World) -> None:
        at, new = key("10.96.0.3"), ObjectKey("default", "new")
        before = running.firewall.read().elements
        running.ipvs.refuse(at, errno.EEXIST)
        running.put(
            service("10.96.0.3", of=new, ports=(port(80), port(443, "https"))),
            endpoint_slice("10.244.0.1", of=new, name="new-1"),
        )
        assert key("10.96.0.3", 443) not in running.ipvs.state()
        assert at.address not in running.addresses.bound()
        assert running.firewall.read().elements == before

    def test_a_record_that_could_not_be_taken_back_makes_nothing_ours(
        self, running: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        foreign = virtual_server(key("10.96.0.3"), real_server("192.0.2.1"))
        apply = running.ipvs.apply

        def refuse_what_follows(operations: Sequence[IpvsOperation]) -> dict[int, KernelError]:
            running.firewall.refuse(times=1000)
            return apply(operations)

        running.ipvs.refuse(foreign.key, errno.EEXIST)
        with monkeypatch.context() as patch:
            patch.setattr(running.ipvs, "apply", refuse_what_follows)
            running.put(service("10.96.0.3", of=ObjectKey("default", "new")))
        running.ipvs.apply([IpvsOperation(Command.NEW_SERVICE, foreign)])
        running.ipvs.apply([IpvsOperation(Command.NEW_DEST, foreign, each) for each in foreign.real_servers])
        running.advance(30)
        running.advance(30)
        assert SetElement(FirewallSet.SERVICE_PORTS, foreign.key) in running.firewall.read().elements
        assert running.ipvs.state()[foreign.key] == foreign

    def test_one_that_somebody_puts_on_the_record_is_taken_over_in_place(self, world: World) -> None:
        self.create(world)
        world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.1"))
        world.advance(30)
        assert world.ipvs.state() == {WEB: self.FOREIGN}
        world.firewall.add_element(SetElement(FirewallSet.SERVICE_PORTS, WEB))
        world.taken_log()
        world.advance(30)
        assert world.ipvs.state() == {WEB: virtual_server(WEB, ONE)}
        commands = {each.command for each in world.taken_log() if isinstance(each, IpvsOperation)}
        assert not commands & {Command.NEW_SERVICE, Command.DEL_SERVICE}

    def test_when_it_goes_the_next_resync_takes_over(self, world: World) -> None:
        self.create(world)
        world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.1"))
        world.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, self.FOREIGN)])
        world.advance(30)
        assert world.ipvs.state() == {WEB: virtual_server(WEB, ONE)}
        assert world.addresses.bound() == {WEB_ADDRESS}

    def test_it_is_reported_once(self, world: World) -> None:
        self.create(world)
        world.list_objects(service("10.96.0.1"))
        world.advance(30)
        warnings = [each for each in world.events.entries if each["log_level"] == "warning"]
        reason = "virtual server 10.96.0.1:80/tcp is not ipvsproxy's"
        assert [(each["service"], each["reason"]) for each in warnings] == [("default/web", reason)]
        assert [(each.field, each.foreign) for each in world.rejected] == [("spec.clusterIPs", True)]


def test_a_virtual_server_that_another_service_has_is_reported_when_that_is_so_and_not_again(
    world: World,
) -> None:
    world.list_objects(service("10.96.0.1", created=1))
    for _ in range(2):
        world.put(service("10.96.0.1", of=OTHER, created=2), endpoint_slice("10.244.0.1", of=OTHER))
    world.put(endpoint_slice("10.244.0.2", of=OTHER))
    (event,) = [each for each in world.events.entries if each["event"] == "part of a service rejected"]
    assert event["service"] == "default/other"
    assert (
        event["reason"]
        == "10.96.0.1:80/tcp belongs to Service default/web, the older one, or the first by name"
    )


def test_a_virtual_server_that_an_older_service_takes_over_is_reported_too(world: World) -> None:
    world.list_objects(service("10.96.0.1", of=OTHER, created=2))
    world.put(service("10.96.0.1", created=1))
    (event,) = [each for each in world.events.entries if each["event"] == "part of a service rejected"]
    assert event["service"] == "default/other"


def test_an_address_that_the_node_has_elsewhere_is_served_but_neither_bound_nor_guarded(world: World) -> None:
    guard = SetElement(FirewallSet.SERVICE_ADDRESSES, (WEB_ADDRESS,))
    world.addresses.other_addresses = {WEB_ADDRESS}
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.1"))
    assert world.addresses.bound() == set()
    assert WEB in world.ipvs.state()
    assert guard not in world.firewall.read().elements
    world.addresses.other_addresses = set()
    world.advance(30)
    assert guard in world.firewall.read().elements
    world.addresses.other_addresses = {WEB_ADDRESS}
    world.advance(30)
    assert guard not in world.firewall.read().elements
    assert world.addresses.bound() == set()
    world.taken_log()
    world.restart()
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.0.1"))
    assert world.log == []


def test_a_view_is_answered_by_the_loop_and_stopping_ends_it(running: World) -> None:
    loop = threading.Thread(target=running.controller.run)
    loop.start()
    view = running.controller.view(timeout=PATIENCE)
    running.controller.stop()
    loop.join(10)
    assert not loop.is_alive()
    assert view.owners[OTHER_KEY] == OTHER
    assert view.virtual_servers[WEB].virtual_server == virtual_server(WEB, ONE, TWO)
    assert view.synced


def test_other_settings_are_taken_while_it_runs() -> None:
    world = World()
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.1.5"))
    settings = world.settings
    world.controller.configure(settings._replace(plan=settings.plan._replace(scheduler="wlc")))
    world.settle()
    assert world.ipvs.state()[key("10.96.0.1")].scheduler == "wlc"


def test_other_ports_of_the_agent_are_open_at_once() -> None:
    world = World(SETTINGS._replace(agent_ports=frozenset({10256})))
    world.list_objects(service("10.96.0.1"))
    assert agent_port(10256) in world.firewall.read().elements
    world.controller.configure(world.settings._replace(agent_ports=frozenset({9000})))
    world.settle()
    elements = world.firewall.read().elements
    assert agent_port(9000) in elements
    assert agent_port(10256) not in elements


def test_rules_that_other_settings_ask_for_are_installed() -> None:
    world = World()
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.1.5"))
    other = FirewallSettings(PodNetworks(()), masquerade_all=True)
    world.controller.configure(world.settings._replace(firewall=lambda _: other))
    world.settle()
    assert world.firewall.read().intact
    world.firewall.use(other)
    assert world.firewall.read().intact
    assert [event["event"] for event in world.events.entries].count("synced") == 0


def test_settings_that_come_before_the_first_sync_are_those_of_the_first_sync() -> None:
    world = World()
    settings = world.settings
    world.controller.configure(settings._replace(plan=settings.plan._replace(scheduler="wlc")))
    world.settle()
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.1.5"))
    assert world.ipvs.state()[key("10.96.0.1")].scheduler == "wlc"


def test_a_shorter_sync_period_brings_the_next_resync_forward() -> None:
    world = World()
    world.list_objects(service("10.96.0.1"), endpoint_slice("10.244.1.5"))
    before = world.successes
    world.controller.configure(world.settings._replace(sync_period=5.0))
    world.settle()
    world.advance(6)
    assert world.successes == before + 1


def test_an_endpoint_serves_again_when_its_address_is_no_service_address_and_another_endpoints_is(
    running: World,
) -> None:
    running.put(endpoint_slice("10.96.0.5", "203.0.113.1"))
    running.put(service("10.96.0.5", has_selector=False))
    running.put(service("10.96.0.6", external_ips=("203.0.113.1",), has_selector=False))
    real_servers = running.ipvs.state()[key("10.96.0.6")].real_servers
    assert [str(each) for each in real_servers] == ["10.96.0.5:8080"]
