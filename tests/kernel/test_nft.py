"""The table over an nft that is written for the test."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.kernel.interface import FirewallError, FirewallState, KernelUnavailableError
from ipvsproxy.kernel.nft import Completed, FoundTable, NftTable, run_nft
from ipvsproxy.kernel.nft_text import table_text
from ipvsproxy.plan.firewall import ruleset
from tests.kernel.contract_firewall import (
    ADDRESS,
    PLAIN,
    PORT,
    WITH_POD_INTERFACES,
    WITH_POD_NETWORKS,
    redirection,
)
from tests.kernel.nft_json import objects_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INSTALLED: list[dict[str, Any]] = [{"chain": {"name": "input"}}]
MISSING = Completed(1, b"", b"Error: No such file or directory\nlist table inet ipvsproxy\n ^^^\n")


class Nft:
    """An nft whose transactions all succeed, and a kernel that counts them.

    `listing` has the objects that it lists, None without a table. `rise` is what a transaction adds to the counter.
    """

    def __init__(self) -> None:
        self.transactions: list[str] = []
        self.listing: list[dict[str, Any]] | None = None
        self.counter = 7
        self.failure: Completed | None = None
        self.rise = 1
        self.before_list: Callable[[], None] = lambda: None
        self.before_transaction: Callable[[], None] = lambda: None

    def generation(self) -> int:
        return self.counter

    def has_table(self, name: str) -> bool:
        assert name == "ipvsproxy"
        return self.listing is not None

    def run(self, command: Sequence[str], text: bytes) -> Completed:
        (self.before_list if command[1] == "-j" else self.before_transaction)()
        if self.failure:
            return self.failure
        if command[1] == "-j":
            assert not text
            output = json.dumps({"nftables": self.listing}).encode()
            return MISSING if self.listing is None else Completed(0, output, b"")
        self.transactions.append(text.decode())
        self.counter = (self.counter + self.rise) % 2**32
        if text.startswith(b"add table"):
            self.listing = list(INSTALLED)
        elif text.startswith(b"add chain"):
            assert self.listing is not None
            self.listing.append({"chain": {"name": text.decode().split()[-1]}})
        return Completed(0, b"", b"")

    def others_change_something(self) -> None:
        self.counter = (self.counter + 1) % 2**32


@pytest.fixture
def nft() -> Nft:
    return Nft()


@pytest.fixture
def table(nft: Nft) -> NftTable:
    return NftTable(PLAIN, nft, nft.run)


def test_an_installation_is_one_transaction_and_then_its_record(nft: Nft, table: NftTable) -> None:
    table.install([ADDRESS])
    installation, record = nft.transactions
    assert installation.startswith(
        "add table inet ipvsproxy\ndelete table inet ipvsproxy\ntable inet ipvsproxy {\n"
    )
    assert installation.endswith("}\nadd element inet ipvsproxy service-addresses-ipv4 { 10.96.0.1 }\n")
    assert re.fullmatch(r"add chain inet ipvsproxy digest-[0-9a-f]{32}\n", record)
    assert table.read().intact


def test_a_table_that_others_may_have_changed_before_its_record_is_not_recorded(
    nft: Nft, table: NftTable
) -> None:
    nft.before_list = nft.others_change_something
    table.install([ADDRESS])
    assert len(nft.transactions) == 1
    assert table.changed_by_others()
    assert not table.read().intact


def test_a_table_that_others_delete_before_its_record_is_not_recorded(nft: Nft, table: NftTable) -> None:
    def delete() -> None:
        nft.listing = None
        nft.counter += 1

    nft.before_list = delete
    table.install([ADDRESS])
    assert len(nft.transactions) == 1
    assert table.changed_by_others()


def test_a_change_is_one_transaction_that_removes_first(nft: Nft, table: NftTable) -> None:
    table.change([ADDRESS], [PORT])
    (transaction,) = nft.transactions
    assert transaction == (
        "add element inet ipvsproxy service-ports-ipv4 { 10.96.0.1 . 6 . 80 }\n"
        "delete element inet ipvsproxy service-ports-ipv4 { 10.96.0.1 . 6 . 80 }\n"
        "add element inet ipvsproxy service-addresses-ipv4 { 10.96.0.1 }\n"
    )


def test_a_key_of_a_map_is_free_before_it_gets_another_value(nft: Nft, table: NftTable) -> None:
    table.change([redirection("10.96.0.2")], [redirection("10.96.0.1")])
    (transaction,) = nft.transactions
    assert [line.partition(" ")[0] for line in transaction.splitlines()] == ["add", "delete", "add"]
    assert transaction.endswith(" { 203.0.113.1 . 6 . 80 : 10.96.0.2 . 80 }\n")


def test_other_settings_are_installed_next_time_and_no_sooner(nft: Nft, table: NftTable) -> None:
    table.install([])
    del nft.transactions[:]
    table.use(WITH_POD_NETWORKS)
    table.use(WITH_POD_INTERFACES)
    assert nft.transactions == []
    assert table.changed_by_others()
    table.install([])
    assert nft.transactions[0] == table_text(ruleset(WITH_POD_INTERFACES))
    assert not table.changed_by_others()


def test_the_same_settings_change_nothing(table: NftTable) -> None:
    table.install([])
    table.use(PLAIN)
    assert not table.changed_by_others()


def test_without_changes_no_program_runs(nft: Nft, table: NftTable) -> None:
    table.change([], [])
    assert nft.transactions == []


@pytest.mark.parametrize("counter", [7, 2**32 - 2, 2**32 - 1])
def test_a_change_by_others_during_an_own_transaction_is_noticed(
    nft: Nft, table: NftTable, counter: int
) -> None:
    table.install([])
    nft.counter = counter
    table.read()
    assert not table.changed_by_others()
    nft.before_transaction = nft.others_change_something
    table.change([ADDRESS], [])
    assert table.changed_by_others()


def test_a_change_by_others_before_an_own_transaction_stays_noticed(nft: Nft, table: NftTable) -> None:
    table.install([])
    nft.others_change_something()
    table.change([ADDRESS], [])
    assert table.changed_by_others()


def test_a_transaction_that_changes_nothing_does_not_raise_the_generation(nft: Nft, table: NftTable) -> None:
    table.install([])
    nft.rise = 0
    table.change([ADDRESS], [])
    assert not table.changed_by_others()


def test_a_table_that_is_not_intact_calls_for_a_look_until_it_is_installed(nft: Nft, table: NftTable) -> None:
    nft.listing = list(INSTALLED)
    assert not table.read().intact
    assert table.changed_by_others()
    table.install([])
    assert not table.changed_by_others()


def test_a_change_by_others_while_the_table_is_read_is_noticed(nft: Nft, table: NftTable) -> None:
    table.install([ADDRESS])
    nft.before_list = nft.others_change_something
    assert table.read().intact
    assert table.changed_by_others()


@pytest.mark.parametrize("counter", [2**32 - 3, 2**32 - 2, 2**32 - 1])
def test_the_generation_may_wrap_around(nft: Nft, table: NftTable, counter: int) -> None:
    nft.counter = counter
    table.install([])
    assert not table.changed_by_others()
    table.change([ADDRESS], [])
    assert not table.changed_by_others()


def test_a_refusal_is_the_first_line_of_what_nft_says(nft: Nft, table: NftTable) -> None:
    table.install([])
    nft.failure = Completed(1, b"", b"/dev/stdin:1:5-9: Error: no\xff\nadd element\n    ^^^^^\n")
    with pytest.raises(FirewallError) as refusal:
        table.change([ADDRESS], [])
    assert str(refusal.value) == "/dev/stdin:1:5-9: Error: no\ufffd"
    assert table.changed_by_others()


def test_a_silent_failure_has_its_exit_code(nft: Nft, table: NftTable) -> None:
    nft.failure = Completed(-9, b"", b"")
    with pytest.raises(FirewallError, match="exit code -9"):
        table.install([])


def test_a_table_that_is_there_and_can_not_be_listed_is_an_error(nft: Nft, table: NftTable) -> None:
    nft.listing = []
    nft.failure = Completed(1, b"", b"Error: JSON support not compiled-in\n")
    with pytest.raises(FirewallError, match="JSON support"):
        table.read()


def test_a_listing_that_is_none_is_an_error(nft: Nft, table: NftTable) -> None:
    nft.failure = Completed(0, b"table inet ipvsproxy {}", b"")
    with pytest.raises(FirewallError, match="can't be read"):
        table.read()


def test_without_the_table_there_is_nothing(table: NftTable) -> None:
    assert table.read() == FirewallState(frozenset(), intact=False)


def test_a_missing_program_is_said_with_what_to_do() -> None:
    with pytest.raises(KernelUnavailableError, match="install the package nftables"):
        run_nft(["no-such-program-as-nft"], b"")


def test_a_program_that_does_not_end_is_stopped() -> None:
    with pytest.raises(FirewallError, match=r"did not end within 0\.01 seconds"):
        run_nft([sys.executable, "-c", "import time; time.sleep(600)"], b"", timeout=0.01)


def test_a_program_gets_its_text_and_is_heard() -> None:
    script = "import sys; print(sys.stdin.read()); print('no', file=sys.stderr); sys.exit(3)"
    assert run_nft([sys.executable, "-c", script], b"table") == Completed(3, b"table\n", b"no\n")


def test_a_look_at_the_table_tells_the_rules_too(nft: Nft, table: NftTable) -> None:
    assert table.look() == FoundTable(FirewallState(frozenset(), intact=False), strange=False, rules=None)
    nft.listing = objects_of(ruleset(PLAIN))
    found = table.look()
    assert found.rules == (ruleset(PLAIN), ())
    assert (found.state, found.strange) == (table.read(), False)
    nft.listing.append({"set": {"name": "somebodys", "elem": ["10.96.0.1"]}})
    assert table.look().strange


def test_a_look_at_an_intact_table_settles_that_nobody_changed_it(nft: Nft, table: NftTable) -> None:
    table.install([])
    nft.others_change_something()
    assert table.changed_by_others()
    assert table.look().state.intact
    assert not table.changed_by_others()


def test_rules_that_cant_be_read_are_an_error(nft: Nft, table: NftTable) -> None:
    nft.listing = [{"rule": {"chain": "input", "expr": "all of them"}}]
    with pytest.raises(FirewallError, match="nft printed a table that can't be read"):
        table.look()
