"""The fake firewall keeps the contract, and fails on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.fake_firewall import FakeFirewall, FirewallChange
from ipvsproxy.kernel.interface import FirewallError, FirewallState, KernelUnavailableError
from ipvsproxy.model.firewall import FirewallSet, SetElement
from tests.builders import address, key
from tests.kernel.contract_firewall import (
    ADDRESS,
    ENDPOINT,
    PLAIN,
    PORT,
    PORT6,
    FirewallContract,
    listing,
    redirection,
    restriction,
)

if TYPE_CHECKING:
    from ipvsproxy.plan.firewall import FirewallSettings

MISSHAPEN = [
    SetElement(FirewallSet.SERVICE_ADDRESSES, key("10.96.0.1")),
    SetElement(FirewallSet.SERVICE_PORTS, (address("10.96.0.1"),)),
    SetElement(FirewallSet.SERVICE_PORTS, key("10.96.0.1", -1)),
    SetElement(FirewallSet.LOCAL_ENDPOINTS, (address("10.244.0.1"), address("fd00:244::1"))),
    SetElement(FirewallSet.LOCAL_ENDPOINTS, (address("10.244.0.1"), 80)),  # type: ignore[arg-type]
    SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, (address("10.96.0.1"), 6, 80)),  # type: ignore[arg-type]
    SetElement(FirewallSet.RESTRICTED_PORTS, redirection("10.96.0.1").fields),
    SetElement(FirewallSet.RESTRICTED_PORTS, key("10.96.0.1")),
    SetElement(FirewallSet.RESTRICTED_PORTS, listing("10.0.0.0/8").fields),
    SetElement(FirewallSet.SOURCE_LISTS, (address("10.96.0.1"),)),
    SetElement(FirewallSet.IN_CLUSTER_DESTINATIONS, restriction(listing("10.0.0.0/8")).fields),
    redirection("fd00:96::1"),
]


class FakeNode(FakeFirewall):
    """A fake that plays the others, too; the agents that start on it are one object, opened again."""

    def firewall(self, settings: FirewallSettings = PLAIN) -> FakeFirewall:
        self.reopen(settings)
        return self


class TestFakeFirewall(FirewallContract):
    @pytest.fixture
    def node(self) -> FakeNode:
        return FakeNode()


def test_the_log_has_what_every_transaction_changed() -> None:
    log: list[object] = ["what another fake did"]
    firewall = FakeFirewall(log)
    firewall.install([ADDRESS, PORT])
    firewall.change([ENDPOINT, ADDRESS], [PORT, PORT6])
    firewall.change([ENDPOINT], [PORT])
    firewall.install([ENDPOINT, PORT])
    assert log == [
        "what another fake did",
        FirewallChange(frozenset((ADDRESS, PORT)), frozenset()),
        FirewallChange(frozenset((ENDPOINT,)), frozenset((PORT,))),
        FirewallChange(frozenset((PORT,)), frozenset((ADDRESS,))),
    ]


def test_no_change_runs_no_program() -> None:
    firewall = FakeFirewall()
    firewall.install([ADDRESS])
    runs = firewall.runs
    firewall.change([], [])
    assert firewall.runs == runs
    firewall.change([PORT], [])
    assert firewall.runs == runs + 1


def test_transactions_are_refused_on_demand_and_take_no_effect() -> None:
    firewall = FakeFirewall()
    firewall.install([ADDRESS])
    firewall.refuse("Error: no", times=2)
    with pytest.raises(FirewallError, match="Error: no"):
        firewall.change([PORT], [ADDRESS])
    with pytest.raises(FirewallError, match="Error: no"):
        firewall.install([PORT])
    assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=True)
    firewall.change([PORT], [ADDRESS])
    assert firewall.read().elements == {PORT}


def test_every_call_fails_on_demand() -> None:
    firewall = FakeFirewall()
    firewall.fail_calls(KernelUnavailableError("no nft"), calls=5)
    for call in (
        lambda: firewall.install([]),
        lambda: firewall.change([], []),
        firewall.read,
        firewall.changed_by_others,
        lambda: firewall.use(PLAIN),
    ):
        with pytest.raises(KernelUnavailableError):
            call()
    firewall.install([])


@pytest.mark.parametrize("element", MISSHAPEN)
def test_an_element_that_does_not_fit_its_set_is_refused(element: SetElement) -> None:
    firewall = FakeFirewall()
    firewall.install([])
    with pytest.raises(FirewallError):
        firewall.change([element], [])
    with pytest.raises(FirewallError):
        firewall.install([element])


def test_others_can_change_only_a_table_that_is_there() -> None:
    firewall = FakeFirewall()
    with pytest.raises(LookupError):
        firewall.edit_rules()
    with pytest.raises(LookupError):
        firewall.add_element(ADDRESS)
