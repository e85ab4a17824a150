"""Failures and their next tries."""

from __future__ import annotations

from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.plan.desired import Touched
from ipvsproxy.reconcile.retry import LONGEST_PAUSE, Retries
from tests.builders import address, key

WEB = key("10.96.0.1")
TRIED = Touched(virtual_servers={WEB})


def test_each_failure_doubles_the_pause_up_to_the_longest() -> None:
    retries = Retries()
    now, pauses = 0.0, []
    for _ in range(12):
        retries.settle(TRIED, {WEB: "ENOENT"}, now)
        next_try = retries.next_try()
        assert next_try is not None
        pauses.append(next_try - now)
        now = next_try
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST_PAUSE
    assert retries.failures[WEB].attempts == 12


def test_an_item_is_due_when_its_pause_is_over_and_not_before() -> None:
    retries = Retries()
    retries.settle(TRIED, {WEB: "ENOENT"}, 10.0)
    assert not retries.due(10.5)
    assert retries.due(11.0).virtual_servers == {WEB}


def test_a_try_before_its_turn_that_fails_as_before_does_not_lengthen_the_pause() -> None:
    retries = Retries()
    retries.settle(TRIED, {WEB: "ENOENT"}, 10.0)
    retries.settle(TRIED, {WEB: "ENOENT"}, 10.5)
    assert retries.next_try() == 11.0
    retries.settle(TRIED, {WEB: "ENOMEM"}, 10.5)
    assert retries.next_try() == 12.5
    assert retries.failures[WEB].reason == "ENOMEM"


def test_it_is_known_since_when_something_fails() -> None:
    assert Retries().since is None
    retries = Retries()
    retries.settle(TRIED, {WEB: "ENOENT"}, 10.0)
    retries.settle(Touched(addresses={address("10.96.0.2")}), {address("10.96.0.2"): "EPERM"}, 12.0)
    retries.settle(TRIED, {WEB: "ENOMEM"}, 15.0)
    assert retries.since == 10.0
    retries.settle(TRIED, {}, 20.0)
    assert retries.since == 12.0


def test_success_forgets_the_failure() -> None:
    retries = Retries()
    retries.settle(TRIED, {WEB: "ENOENT"}, 10.0)
    retries.settle(TRIED, {}, 11.0)
    assert retries.next_try() is None


def test_the_success_of_others_does_not_forget_a_failure() -> None:
    retries = Retries()
    retries.settle(TRIED, {WEB: "ENOENT"}, 10.0)
    retries.settle(Touched(virtual_servers={key("10.96.0.2")}), {}, 11.0)
    assert retries.failures.keys() == {WEB}


def test_what_waits_for_a_virtual_server_is_tried_with_it() -> None:
    retries = Retries()
    retries.settle(TRIED, {WEB: "ENOENT"}, 10.0)
    due = retries.due(11.0)
    assert due.addresses == {address("10.96.0.1")}
    assert SetElement(FirewallSet.SERVICE_PORTS, WEB) in due.elements


def test_addresses_and_elements_are_tried_by_themselves() -> None:
    retries = Retries()
    element = SetElement(FirewallSet.SERVICE_ADDRESSES, (address("10.96.0.1"),))
    retries.settle(Touched(), {address("10.96.0.2"): "EPERM", element: "EPERM"}, 0.0)
    due = retries.due(1.0)
    assert (due.addresses, due.elements, due.virtual_servers) == ({address("10.96.0.2")}, {element}, set())
