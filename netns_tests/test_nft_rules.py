"""The rules of the table, installed and read back by the real nft, whatever the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as examples

from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.nft import NftTable
from ipvsproxy.plan.firewall import FirewallSettings, ruleset
from netns_tests.namespaces import Namespace
from tests.kernel.firewall_settings import FIREWALL_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def nf_tables() -> Iterator[NfTables]:
    with Namespace("node") as namespace, namespace.entered():
        opened = NfTables()
        yield opened
        opened.close()


# The highest bit is printed in another way than the others.
@pytest.mark.parametrize("bit", [0, 14, 31])
def test_each_bit_of_the_mark_is_read_back(nf_tables: NfTables, bit: int) -> None:
    check(nf_tables, FirewallSettings(masquerade_bit=bit))


@given(FIREWALL_SETTINGS)
@examples(max_examples=8)
def test_what_the_agent_installs_is_read_back_as_it_was_planned(
    nf_tables: NfTables, settings: FirewallSettings
) -> None:
    check(nf_tables, settings)


def check(nf_tables: NfTables, settings: FirewallSettings) -> None:
    table = NftTable(settings, nf_tables)
    table.install(())
    found = table.look()
    assert found.state.intact
    assert found.rules == (ruleset(settings), ())
    assert not found.strange


def test_a_table_that_is_not_there_has_no_rules(nf_tables: NfTables) -> None:
    assert NftTable(FirewallSettings(), nf_tables).look().rules is None
