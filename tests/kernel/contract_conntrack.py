"""What every implementation of `Conntrack` does: run on the fake everywhere, and on a kernel in netns_tests.

A subclass named Test* provides the fixture `table`: a connection tracking table without entries.
"""

from __future__ import annotations

import typing
from random import Random
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.fake_conntrack import ConntrackEntry
from ipvsproxy.kernel.interface import Flow
from ipvsproxy.model.objects import Protocol
from tests.builders import address, key

if TYPE_CHECKING:
    from collections.abc import Collection

    from ipvsproxy.kernel.interface import Conntrack
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey

DNS = key("10.96.0.10", 53, Protocol.UDP)
DNS6 = key("fd00:96::10", 53, Protocol.UDP)
FIRST = (address("10.244.0.1"), 5353)
SECOND = (address("10.244.0.2"), 5353)
FIRST6 = (address("fd00:244::1"), 5353)
CLIENT = (address("10.244.1.7"), 40000)
CLIENT6 = (address("fd00:244:1::7"), 40000)

ENTRY = ConntrackEntry(CLIENT, DNS, FIRST)
ENTRY6 = ConntrackEntry(CLIENT6, DNS6, FIRST6)


class ConntrackTable(typing.Protocol):
    """A table that entries are put into by other means than the implementation's."""

    conntrack: Conntrack

    def add(self, *entries: ConntrackEntry) -> None: ...

    def entries(self) -> set[ConntrackEntry]: ...


def numbered(*entries: ConntrackEntry) -> list[ConntrackEntry]:
    """Return the entries, each with a source port of its own: the kernel takes none whose replies look alike."""
    return [entry._replace(source=(entry.source[0], 40001 + number)) for number, entry in enumerate(entries)]


def without_nat(destination: VirtualServerKey) -> ConntrackEntry:
    """Return the entry of a datagram that went out while the service address had no virtual server."""
    return ConntrackEntry(CLIENT, destination, (destination.address, destination.port), answered=False)


class ConntrackContract:
    def test_the_entries_of_an_endpoint_go_and_are_counted(self, table: ConntrackTable) -> None:
        table.add(*numbered(ENTRY, ENTRY, ENTRY))
        assert table.conntrack.forget([Flow(DNS, FIRST)]) == 3
        assert table.entries() == set()

    def test_what_is_forgotten_already_is_no_error(self, table: ConntrackTable) -> None:
        table.add(ENTRY)
        assert table.conntrack.forget([Flow(DNS, FIRST)]) == 1
        assert table.conntrack.forget([Flow(DNS, FIRST), Flow(DNS6)]) == 0

    def test_no_flows_are_no_entries(self, table: ConntrackTable) -> None:
        table.add(ENTRY)
        assert table.conntrack.forget([]) == 0
        assert table.entries() == {ENTRY}

    def test_flows_of_other_endpoints_of_the_service_stay(self, table: ConntrackTable) -> None:
        stay = numbered(
            ENTRY._replace(endpoint=SECOND),
            ENTRY._replace(endpoint=(FIRST[0], 5354)),
            without_nat(DNS),
        )
        table.add(ENTRY, *stay)
        assert table.conntrack.forget([Flow(DNS, FIRST)]) == 1
        assert table.entries() == set(stay)

    def test_flows_of_the_endpoint_through_other_service_ports_stay(self, table: ConntrackTable) -> None:
        stay = numbered(
            ENTRY._replace(destination=key("10.96.0.11", 53, Protocol.UDP)),
            ENTRY._replace(destination=DNS._replace(port=54)),
            ENTRY._replace(destination=DNS._replace(protocol=Protocol.TCP)),
            ENTRY._replace(destination=key("10.244.0.1", 5353, Protocol.UDP)),
        )
        table.add(ENTRY, *stay)
        assert table.conntrack.forget([Flow(DNS, FIRST)]) == 1
        assert table.entries() == set(stay)

    def test_flows_through_other_ipv6_addresses_stay(self, table: ConntrackTable) -> None:
        (stay,) = numbered(ENTRY6._replace(destination=key("fd00:96::11", 53, Protocol.UDP)))
        table.add(ENTRY6, stay)
        assert table.conntrack.forget([Flow(DNS6, FIRST6)]) == 1
        assert table.entries() == {stay}

    def test_without_an_endpoint_all_entries_to_the_service_port_go(self, table: ConntrackTable) -> None:
        (stay,) = numbered(ENTRY._replace(destination=DNS._replace(port=54)))
        table.add(stay, *numbered(stay, ENTRY, ENTRY._replace(endpoint=SECOND), without_nat(DNS))[1:])
        assert table.conntrack.forget([Flow(DNS)]) == 3
        assert table.entries() == {stay}

    @pytest.mark.parametrize("protocol", Protocol)
    @pytest.mark.parametrize("entry", [ENTRY, ENTRY6], ids=["IPv4", "IPv6"])
    @pytest.mark.parametrize("by_endpoint", [False, True])
    def test_the_entries_that_nobody_answered_go_alone_if_that_is_asked_for(
        self, table: ConntrackTable, entry: ConntrackEntry, protocol: Protocol, *, by_endpoint: bool
    ) -> None:
        answered, unanswered, other = numbered(
            *(entry._replace(destination=entry.destination._replace(protocol=protocol)) for _ in range(3))
        )
        unanswered = unanswered._replace(answered=False)
        other = other._replace(answered=False, destination=other.destination._replace(port=54))
        table.add(answered, unanswered, other)
        endpoint = entry.endpoint if by_endpoint else None
        assert table.conntrack.forget([Flow(answered.destination, endpoint, unanswered=True)]) == 1
        assert table.entries() == {answered, other}

    @pytest.mark.parametrize("count", [8, 9])
    def test_unanswered_entries_of_many_service_ports_go_in_one_call(
        self, table: ConntrackTable, count: int
    ) -> None:
        destinations = [key(f"10.96.1.{number}", 80) for number in range(count)]
        entries = numbered(
            *(
                ConntrackEntry(CLIENT, each, FIRST, answered=answered)
                for each in destinations
                for answered in (False, True)
            )
        )
        table.add(*entries)
        flows = [Flow(each, unanswered=True) for each in destinations]
        assert table.conntrack.forget(flows) == count
        assert table.entries() == {each for each in entries if each.answered}

    def test_what_the_service_address_sends_itself_stays(self, table: ConntrackTable) -> None:
        sent = ConntrackEntry((DNS.address, DNS.port), key("10.244.0.1", 5353, Protocol.UDP), FIRST)
        table.add(sent)
        assert table.conntrack.forget([Flow(DNS), Flow(DNS, FIRST)]) == 0
        assert table.entries() == {sent}

    @pytest.mark.parametrize("protocol", Protocol)
    @pytest.mark.parametrize("entry", [ENTRY, ENTRY6], ids=["IPv4", "IPv6"])
    def test_every_protocol_and_family_is_told_apart(
        self, table: ConntrackTable, entry: ConntrackEntry, protocol: Protocol
    ) -> None:
        entries = numbered(
            *(
                entry._replace(destination=entry.destination._replace(protocol=each, port=port))
                for each in Protocol
                for port in (53, 54)
            )
        )
        table.add(*entries)
        gone = entry.destination._replace(protocol=protocol, port=53)
        assert table.conntrack.forget([Flow(gone, entry.endpoint)]) == 1
        assert table.entries() == {each for each in entries if each.destination != gone}

    def test_flows_of_both_families_and_several_protocols_go_in_one_call(self, table: ConntrackTable) -> None:
        by_tcp = ENTRY._replace(destination=DNS._replace(protocol=Protocol.TCP))
        table.add(*numbered(ENTRY, ENTRY6, by_tcp))
        flows = [Flow(DNS, FIRST), Flow(DNS6), Flow(by_tcp.destination, FIRST)]
        assert table.conntrack.forget(flows) == 3
        assert table.entries() == set()

    def test_entries_of_flows_that_overlap_count_once(self, table: ConntrackTable) -> None:
        table.add(*numbered(ENTRY, ENTRY._replace(endpoint=SECOND)))
        flows = [Flow(DNS, FIRST), Flow(DNS), Flow(DNS, FIRST), Flow(DNS, SECOND)]
        assert table.conntrack.forget(flows) == 2

    def test_several_ports_of_one_address_count_once_each(self, table: ConntrackTable) -> None:
        ports = [key("10.96.0.10", port, Protocol.SCTP) for port in (1, 2, 3)]
        table.add(*numbered(*(ENTRY._replace(destination=each) for each in ports)))
        assert table.conntrack.forget([Flow(each, FIRST) for each in ports]) == 3

    def test_entries_of_another_zone_stay(self, table: ConntrackTable) -> None:
        (elsewhere,) = numbered(ENTRY._replace(zone=5))
        table.add(ENTRY, elsewhere)
        assert table.conntrack.forget([Flow(DNS), Flow(DNS, FIRST)]) == 1
        assert table.entries() == {elsewhere}

    def test_300_of_2000_entries_go_and_the_others_stay(self, table: ConntrackTable) -> None:
        entries = numbered(
            *(ENTRY._replace(endpoint=FIRST if number % 20 < 3 else SECOND) for number in range(2000))
        )
        table.add(*entries)
        assert table.conntrack.forget([Flow(DNS, FIRST)]) == 300
        assert table.entries() == {each for each in entries if each.endpoint == SECOND}

    @pytest.mark.parametrize("count", [8, 9, 40])
    def test_flows_of_many_service_ports_go_in_one_call(self, table: ConntrackTable, count: int) -> None:
        destinations = [key(f"10.96.1.{number}", 53, Protocol.UDP) for number in range(count + 1)]
        entries = numbered(
            *(ConntrackEntry(CLIENT, each, endpoint) for each in destinations for endpoint in (FIRST, SECOND))
        )
        table.add(*entries)
        assert table.conntrack.forget([Flow(each, FIRST) for each in destinations[:-1]]) == count
        assert table.entries() == {
            each for each in entries if each.endpoint == SECOND or each.destination == destinations[-1]
        }

    @pytest.mark.parametrize("seed", range(5))
    def test_any_flows_go_and_all_else_stays(self, table: ConntrackTable, seed: int) -> None:
        random = Random(seed)  # noqa: S311 - no secrets
        entries = numbered(*(any_entry(random) for _ in range(200)))
        table.add(*entries)
        flows = [any_flow(random) for _ in range(random.choice([2, 10]))]
        stay = {each for each in entries if not is_of(each, flows)}
        assert table.conntrack.forget(flows) == len(entries) - len(stay)
        assert table.entries() == stay


def is_of(entry: ConntrackEntry, flows: Collection[Flow]) -> bool:
    return any(
        flow.destination == entry.destination
        and flow.endpoint in (None, entry.endpoint)
        and not (flow.unanswered and entry.answered)
        for flow in flows
    )


def any_destination(random: Random) -> VirtualServerKey:
    text = random.choice(["10.96.0.10", "10.96.0.11", "fd00:96::10"])
    return key(text, random.choice([53, 54]), random.choice(list(Protocol)))


def any_endpoint(random: Random, destination: VirtualServerKey) -> tuple[Address, int]:
    first = FIRST if len(destination.address) == len(FIRST[0]) else FIRST6
    return random.choice([first, (first[0], 5354), (destination.address, destination.port)])


def any_entry(random: Random) -> ConntrackEntry:
    destination = any_destination(random)
    client = CLIENT if len(destination.address) == len(CLIENT[0]) else CLIENT6
    answered = random.choice([False, True])
    return ConntrackEntry(client, destination, any_endpoint(random, destination), answered=answered)


def any_flow(random: Random) -> Flow:
    destination = any_destination(random)
    endpoint = random.choice([None, any_endpoint(random, destination)])
    return Flow(destination, endpoint, unanswered=random.choice([False, True]))
