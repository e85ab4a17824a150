"""Entries are forgotten as the contract says: by the fake, and by the adapter on a kernel that knows no filters."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.conntrack import ConntrackNetlink
from ipvsproxy.kernel.fake_conntrack import FakeConntrack, ForgottenEntries
from ipvsproxy.kernel.interface import Flow, KernelUnavailableError
from ipvsproxy.model.objects import Protocol
from tests.builders import key
from tests.kernel.conntrack_kernel import DELETE, GET, ConntrackKernel
from tests.kernel.contract_conntrack import CLIENT, DNS, ENTRY, ENTRY6, FIRST, ConntrackContract

if TYPE_CHECKING:
    from ipvsproxy.kernel.fake_conntrack import ConntrackEntry


class FakeTable:
    def __init__(self) -> None:
        self.conntrack = FakeConntrack()

    def add(self, *entries: ConntrackEntry) -> None:
        self.conntrack.entries.update(entries)

    def entries(self) -> set[ConntrackEntry]:
        return self.conntrack.entries


class TestFakeConntrack(ConntrackContract):
    @pytest.fixture
    def table(self) -> FakeTable:
        return FakeTable()


class TableWithoutFilters:
    def __init__(self) -> None:
        self.kernel = ConntrackKernel()
        self.conntrack = ConntrackNetlink(self.kernel.open)

    def add(self, *entries: ConntrackEntry) -> None:
        self.kernel.add(*entries)

    def entries(self) -> set[ConntrackEntry]:
        return set(self.kernel.entries)


class TestConntrackNetlinkWithoutFilters(ConntrackContract):
    @pytest.fixture
    def table(self) -> TableWithoutFilters:
        return TableWithoutFilters()


def test_the_log_has_the_entries_that_were_deleted_if_there_were_any() -> None:
    log: list[object] = ["what another fake did"]
    conntrack = FakeConntrack(log)
    conntrack.entries |= {ENTRY, ENTRY6}
    conntrack.forget([Flow(DNS, FIRST)])
    conntrack.forget([Flow(DNS, FIRST)])
    assert log == ["what another fake did", ForgottenEntries(frozenset((ENTRY,)))]


def test_the_fake_is_out_of_reach_on_demand_and_forgets_nothing_then() -> None:
    conntrack = FakeConntrack()
    conntrack.entries.add(ENTRY)
    conntrack.fail_calls(OSError(errno.ENOBUFS, "no answer"), calls=2)
    for _ in range(2):
        with pytest.raises(OSError, match="no answer"):
            conntrack.forget([Flow(DNS)])
    assert conntrack.entries == {ENTRY}
    assert conntrack.forget([Flow(DNS)]) == 1


def test_nothing_to_forget_asks_the_kernel_nothing() -> None:
    kernel = ConntrackKernel()
    assert ConntrackNetlink(kernel.open).forget([]) == 0
    assert kernel.requests == []


@pytest.mark.parametrize(("count", "dumps"), [(1, 1), (8, 8), (9, 1), (100, 1)])
def test_few_destinations_are_asked_for_one_by_one_and_many_by_one_dump(count: int, dumps: int) -> None:
    kernel = ConntrackKernel()
    flows = [Flow(key(f"10.96.1.{number}", 53, Protocol.UDP), FIRST) for number in range(count)]
    ConntrackNetlink(kernel.open).forget(flows)
    assert kernel.requests == [GET] * dumps


def test_ipv6_destinations_with_one_port_are_asked_for_once() -> None:
    kernel = ConntrackKernel()
    flows = [Flow(key(f"fd00:96::{number}", 53, Protocol.UDP)) for number in range(1, 5)]
    ConntrackNetlink(kernel.open).forget(flows)
    assert kernel.requests == [GET]


def test_one_destination_is_asked_for_once_whatever_its_endpoints() -> None:
    kernel = ConntrackKernel()
    ConntrackNetlink(kernel.open).forget([Flow(DNS, (FIRST[0], port)) for port in range(1, 20)])
    assert kernel.requests == [GET]


def test_an_entry_that_is_gone_when_its_turn_comes_is_no_error_and_not_counted() -> None:
    class ImpatientKernel(ConntrackKernel):
        """Every entry has a successor with the same tuple by the time that it is to be deleted."""

        def send(self, data: bytearray) -> int:
            sent = super().send(data)
            if self.requests[-1] == GET:
                self.add(*self.entries)
            return sent

    kernel = ImpatientKernel()
    kernel.add(ENTRY, ENTRY._replace(source=(CLIENT[0], 40001)))
    assert ConntrackNetlink(kernel.open).forget([Flow(DNS, FIRST)]) == 0
    assert kernel.requests == [GET, DELETE, DELETE]
    assert len(kernel.entries) == 2


def test_a_refused_deletion_comes_out_with_the_kernels_error() -> None:
    kernel = ConntrackKernel()
    kernel.add(ENTRY)
    kernel.deletion_code = errno.ENOMEM
    with pytest.raises(OSError, match="can't be deleted: ENOMEM") as caught:
        ConntrackNetlink(kernel.open).forget([Flow(DNS)])
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize(
    ("code", "text"),
    [(errno.EINVAL, "load the module with `modprobe nf_conntrack_netlink`"), (errno.ENOMEM, "memory")],
)
def test_a_refused_dump_comes_out_and_names_the_module_if_it_is_missing(code: int, text: str) -> None:
    kernel = ConntrackKernel()
    kernel.dump_code = code
    with pytest.raises(OSError, match=text) as caught:
        ConntrackNetlink(kernel.open).forget([Flow(DNS)])
    assert caught.value.errno == code


def test_without_the_capability_the_error_names_it() -> None:
    kernel = ConntrackKernel()
    kernel.dump_code = errno.EPERM
    with pytest.raises(KernelUnavailableError, match="CAP_NET_ADMIN"):
        ConntrackNetlink(kernel.open).forget([Flow(DNS)])


def test_the_end_of_the_with_statement_closes_the_socket() -> None:
    kernel = ConntrackKernel()
    with ConntrackNetlink(kernel.open):
        assert not kernel.closed
    assert kernel.closed
