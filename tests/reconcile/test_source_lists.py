"""Source lists come before the first port that leads to them, go with the last, and the large ones wait for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.fake_firewall import FirewallChange
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import Command, IpvsOperation
from ipvsproxy.model.objects import ObjectKey, ServiceType
from ipvsproxy.plan import source_ranges
from tests.builders import WEB, address, endpoint_slice, key, networks, port, service, source_list
from tests.reconcile.world import World

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Network
    from ipvsproxy.model.firewall import SourceList
    from ipvsproxy.model.objects import Service

OTHER = ObjectKey("default", "other")
BALANCER = key("203.0.113.1")
SMALL = ("192.0.2.0/24",)
LARGE = ("192.0.2.0/24", "198.51.100.0/24", "10.0.0.0/8")
NOBODY = source_list()


@pytest.fixture(autouse=True)
def _two_networks_are_light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_ranges, "LIGHT", 2)


@pytest.fixture
def world() -> World:
    return World()


def balanced(*ranges: str, of: ObjectKey = WEB, at: str = "203.0.113.1", number: int = 1) -> Service:
    return service(
        f"10.96.0.{number}",
        of=of,
        kind=ServiceType.LOAD_BALANCER,
        load_balancer_ips=(at,),
        source_ranges=ranges or None,
    )


def lists(world: World) -> set[SourceList]:
    """Return the source lists that are there."""
    return {
        each.fields[0]  # type: ignore[misc] # a source list, as FirewallSet says
        for each in world.firewall.read().elements
        if each.set is FirewallSet.SOURCE_LISTS
    }


def leads_to(world: World, at: str = "203.0.113.1") -> list[str]:
    """Return the names of the lists that ports of the address lead to."""
    return [
        str(each.fields[-1])
        for each in world.firewall.read().elements
        if each.set is FirewallSet.RESTRICTED_PORTS and each.fields[0] == address(at)
    ]


def transactions(world: World) -> list[set[str]]:
    """Return what each transaction since the last look added, by its set."""
    return [
        {str(each.set) for each in entry.add}
        for entry in world.taken_log()
        if isinstance(entry, FirewallChange)
    ]


def test_services_with_the_same_ranges_share_a_list_that_goes_with_the_last(world: World) -> None:
    second = balanced(*SMALL, of=OTHER, at="203.0.113.2", number=2)
    world.list_objects(balanced(*SMALL), second)
    assert lists(world) == {source_list(*SMALL)}
    world.put(balanced())
    assert lists(world) == {source_list(*SMALL)}
    world.put(second._replace(load_balancer_source_ranges=None))
    assert lists(world) == set()


def test_ranges_that_change_switch_the_port_in_one_transaction(world: World) -> None:
    world.list_objects(balanced(*SMALL))
    world.taken_log()
    world.put(balanced("10.0.0.0/8"))
    (change,) = (entry for entry in world.taken_log() if isinstance(entry, FirewallChange))
    sets = {FirewallSet.SOURCE_LISTS, FirewallSet.RESTRICTED_PORTS}
    assert {each.set for each in change.add} == {each.set for each in change.remove} == sets


class TestLargeLists:
    def test_at_a_start_one_comes_alone_after_all_that_others_need(self, world: World) -> None:
        world.list_objects(
            balanced(*LARGE), service("10.96.0.2", of=OTHER), endpoint_slice("10.244.0.1", of=OTHER)
        )
        log = world.taken_log()
        created = [
            number
            for number, entry in enumerate(log)
            if isinstance(entry, IpvsOperation) and entry.command is Command.NEW_SERVICE
        ]
        large = SetElement(FirewallSet.SOURCE_LISTS, (source_list(*LARGE),))
        (added,) = (n for n, each in enumerate(log) if isinstance(each, FirewallChange) and large in each.add)
        assert added > max(created)
        change = log[added]
        assert isinstance(change, FirewallChange)
        restriction = SetElement(FirewallSet.RESTRICTED_PORTS, (*BALANCER, source_list(*LARGE).name))
        assert change.add == {large, restriction}
        assert lists(world) == {source_list(*LARGE)}

    def test_until_then_nobody_is_let_in(self, world: World) -> None:
        world.store.replace_node(None)
        world.store.replace_services([balanced(*LARGE)])
        world.store.replace_slices([])
        world.controller.step()
        assert leads_to(world) == [NOBODY.name]
        world.settle()
        assert leads_to(world) == [source_list(*LARGE).name]

    def test_ranges_that_become_many_leave_the_few_until_the_many_are_there(self, world: World) -> None:
        world.list_objects(balanced(*SMALL))
        world.store.put_service(balanced(*LARGE))
        world.controller.step()
        assert leads_to(world) == [source_list(*SMALL).name]
        world.settle()
        assert leads_to(world) == [source_list(*LARGE).name]
        assert lists(world) == {source_list(*LARGE)}

    def test_one_that_is_refused_harms_nobody_else_and_is_tried_again(self, world: World) -> None:
        world.list_objects(balanced())
        world.store.put_service(balanced(*LARGE))
        world.controller.step()
        world.firewall.refuse()
        world.settle()
        assert leads_to(world) == [NOBODY.name]
        world.put(service("10.96.0.2", of=OTHER))
        assert key("10.96.0.2") in world.ipvs.state()
        assert leads_to(world) == [NOBODY.name]
        world.advance(1.0)
        assert leads_to(world) == [source_list(*LARGE).name]

    def test_endpoints_change_while_one_is_refused(self, world: World) -> None:
        world.list_objects(balanced(*SMALL))
        world.store.put_service(balanced(*LARGE))
        world.controller.step()
        world.firewall.refuse(times=100)
        world.settle()
        world.put(endpoint_slice("10.244.0.1", of=WEB))
        assert [each.address for each in world.ipvs.state()[BALANCER].real_servers] == [address("10.244.0.1")]

    def test_one_that_is_refused_again_and_again_is_tried_after_pauses_that_double(
        self, world: World
    ) -> None:
        world.list_objects(balanced())
        world.store.put_service(balanced(*LARGE))
        world.controller.step()
        began = world.firewall.runs
        world.firewall.refuse(times=100)
        world.settle()
        tries = []
        for _ in range(8):
            tries.append(world.firewall.runs - began)
            world.advance(1.0)
        assert tries == [1, 2, 2, 3, 3, 3, 3, 4]

    @pytest.mark.parametrize("before", [(), SMALL, LARGE], ids=["none", "few", "many"])
    def test_ranges_that_are_removed_before_their_turn_leave_the_port_open(
        self, world: World, before: tuple[str, ...]
    ) -> None:
        world.list_objects(balanced(*before))
        world.store.put_service(balanced(*LARGE[:-1], "172.16.0.0/12"))
        world.controller.step()
        assert leads_to(world)
        world.put(balanced())
        assert leads_to(world) == []
        assert lists(world) == set()

    def test_a_refused_one_does_not_make_the_whole_table_be_installed(self, world: World) -> None:
        world.list_objects(balanced())
        world.store.put_service(balanced(*LARGE))
        world.controller.step()
        runs = world.firewall.runs
        world.firewall.refuse()
        world.settle()
        assert world.firewall.runs == runs + 1

    def test_ranges_that_are_changed_before_their_turn_are_forgotten(self, world: World) -> None:
        world.list_objects(balanced())
        world.store.put_service(balanced(*LARGE))
        world.controller.step()
        world.put(balanced(*SMALL))
        assert lists(world) == {source_list(*SMALL)}
        world.advance(31.0)
        assert lists(world) == {source_list(*SMALL)}

    def test_a_resync_in_the_meantime_opens_nothing(self, world: World) -> None:
        world.list_objects(balanced())
        world.store.put_service(balanced(*LARGE))
        world.controller.step()
        world.firewall.refuse(times=2)
        world.settle()
        world.advance(31.0)
        assert leads_to(world)
        world.advance(31.0)
        assert leads_to(world) == [source_list(*LARGE).name]

    @pytest.mark.parametrize("edited", [False, True])
    def test_a_restart_leaves_it_where_it_is(self, world: World, *, edited: bool) -> None:
        world.list_objects(balanced(*LARGE))
        if edited:
            world.firewall.edit_rules()
        world.taken_log()
        world.restart()
        world.list_objects(balanced(*LARGE))
        assert world.taken_log() == []
        assert leads_to(world) == [source_list(*LARGE).name]
        assert world.firewall.read().intact

    def test_a_deleted_table_comes_again_closed_and_then_with_the_list(self, world: World) -> None:
        world.list_objects(balanced(*LARGE))
        world.firewall.delete_table()
        world.taken_log()
        world.advance(31.0)
        first, *later = transactions(world)
        assert str(FirewallSet.SERVICE_PORTS) in first
        assert {str(FirewallSet.SOURCE_LISTS), str(FirewallSet.RESTRICTED_PORTS)} in later
        assert lists(world) == {source_list(*LARGE)}


def test_a_list_that_could_not_be_added_comes_with_the_next_port_that_leads_to_it(world: World) -> None:
    world.list_objects(balanced())
    world.firewall.refuse(times=2)
    world.put(balanced(*SMALL))
    assert lists(world) == set()
    world.put(balanced(*SMALL, of=OTHER, at="203.0.113.2", number=2))
    assert lists(world) == {source_list(*SMALL)}
    assert leads_to(world, "203.0.113.2") == [source_list(*SMALL).name]
    world.advance(1.0)
    assert leads_to(world) == [source_list(*SMALL).name]


def test_the_elements_are_as_many_as_ports_and_ranges_together(world: World) -> None:
    ports = tuple(port(number, f"p{number}") for number in range(1, 101))
    ranges: tuple[Network, ...] = networks(*(f"10.{n >> 8}.{n & 255}.0/24" for n in range(1000)))
    value = balanced()._replace(ports=ports, load_balancer_source_ranges=ranges)
    world.list_objects(value)
    found = [each for each in world.firewall.read().elements if each.set is FirewallSet.RESTRICTED_PORTS]
    assert len(found) == 100
    assert [len(each.networks) for each in lists(world)] == [1000]
    world.taken_log()
    world.put(value._replace(load_balancer_source_ranges=ranges[:-1]))
    changes = [entry for entry in world.taken_log() if isinstance(entry, FirewallChange)]
    assert [(len(change.add), len(change.remove)) for change in changes] == [(101, 101)]
