"""Notices of address changes, from a kernel that is written for the test."""

from __future__ import annotations

import errno
import os
import queue
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from ipvsproxy.kernel.address_codec import decode_address
from ipvsproxy.kernel.address_notices import ANYTHING, NOTHING, AddressChange, AddressNotices, NoticeQueue
from ipvsproxy.kernel.netlink_codec import HEADER
from ipvsproxy.model.addresses import Family, family
from netns_tests.deadline import PATIENCE
from tests.builders import address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.address_codec import InterfaceAddress

OWN, OTHER = 7, 2
NEW_LINK, DELETED_LINK, NEW_ADDRESS, DELETED_ADDRESS = 16, 17, 20, 21
TENTATIVE, DUPLICATE = 0x40, 0x08
ELSEWHERE = AddressChange(elsewhere=True)
BRIDGE = 7  # AF_BRIDGE


def encoded(
    kind: Callable[[], Any], message_type: int, attributes: list[tuple[str, str]], **fields: int
) -> bytes:
    message = kind()
    message["header"]["type"], message["header"]["flags"] = message_type, 0
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


def link(index: int = OWN, name: str = "kube-ipvs0", kind: int = NEW_LINK, of: int = 0) -> bytes:
    return encoded(ifinfmsg, kind, [("IFLA_IFNAME", name)], family=of, index=index)


def notice(index: int = OTHER, text: str = "192.0.2.1", kind: int = NEW_ADDRESS, flags: int = 0) -> bytes:
    of = family(address(text))
    attributes = [("IFA_ADDRESS", text)]
    if of is Family.IPV4:
        attributes.append(("IFA_LOCAL", text))
    return encoded(ifaddrmsg, kind, attributes, family=of, flags=flags, index=index)


class Kernel:
    """A netlink socket and the kernel at its other end, which has one interface named as the agent's, or none."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._failures: list[int] = []
        self.own: int | None = OWN
        self.requests = 0
        self.closed = False

    def open(self) -> Kernel:
        return self

    def says(self, *datagrams: bytes) -> None:
        for each in datagrams:
            self._far.send(each)

    def fails(self, code: int) -> None:
        """Have the next receive that finds something end with an error instead."""
        self._failures.append(code)
        self.says(b"")

    def fileno(self) -> int:
        return self._near.fileno()

    def send(self, data: bytearray) -> int:
        self.requests += 1
        if self.own is not None and self._has_room():
            self.says(link(self.own))
        return len(data)

    def _has_room(self) -> bool:
        """Say whether nothing waits: an answer that finds notices there is taken to be lost."""
        try:
            self._near.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        return False

    def recv(self, size: int, flags: int = 0) -> bytes:
        datagram = self._near.recv(size, flags)
        if datagram:
            return datagram
        code = self._failures.pop(0)
        raise OSError(code, os.strerror(code))

    def close(self) -> None:
        self.closed = True
        self._near.close()
        self._far.close()


class RefusingKernel(Kernel):
    """A kernel that takes no request."""

    def send(self, data: bytearray) -> int:
        raise PermissionError(errno.EPERM, f"{len(data)} bytes refused")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture
def notices(kernel: Kernel) -> Iterator[NoticeQueue]:
    notices = NoticeQueue("kube-ipvs0", kernel.open)
    yield notices
    notices.close()


@pytest.mark.parametrize("kind", [NEW_ADDRESS, DELETED_ADDRESS])
@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_another_interface_is_a_change_when_it_comes_and_when_it_goes(
    kernel: Kernel, notices: NoticeQueue, text: str, kind: int
) -> None:
    kernel.says(notice(text=text, kind=kind))
    assert notices.wait(0) == ELSEWHERE
    assert notices.wait(0) == NOTHING


@pytest.mark.parametrize("text", ["10.96.0.1", "fd00:96::1"])
def test_an_address_that_comes_on_the_own_interface_is_no_change(
    kernel: Kernel, notices: NoticeQueue, text: str
) -> None:
    kernel.says(notice(OWN, text))
    assert notices.wait(0) == NOTHING


@pytest.mark.parametrize("text", ["10.96.0.1", "fd00:96::1"])
def test_an_address_that_goes_from_the_own_interface_is_named(
    kernel: Kernel, notices: NoticeQueue, text: str
) -> None:
    kernel.says(notice(OWN, text, DELETED_ADDRESS))
    assert notices.wait(0) == AddressChange(deleted=frozenset({address(text)}))
    assert notices.wait(0) == NOTHING


def test_an_address_that_has_come_back_by_the_time_of_the_look_is_not_named(
    kernel: Kernel, notices: NoticeQueue
) -> None:
    gone, back = "10.96.0.1", "10.96.0.2"
    kernel.says(*(notice(OWN, text, DELETED_ADDRESS) for text in (gone, back)), notice(OWN, back))
    assert notices.wait(0) == AddressChange(deleted=frozenset({address(gone)}))


def test_an_ipv6_link_local_address_of_the_own_interface_is_no_change(
    kernel: Kernel, notices: NoticeQueue
) -> None:
    kernel.says(notice(OWN, "fe80::1", DELETED_ADDRESS))
    assert notices.wait(0) == NOTHING


def test_after_the_own_interface_is_gone_any_of_its_addresses_may_be(
    kernel: Kernel, notices: NoticeQueue
) -> None:
    kernel.own = None
    kernel.says(link(OWN, kind=DELETED_LINK))
    assert notices.wait(0) == AddressChange(any_deleted=True)
    assert notices.wait(0) == NOTHING


def test_all_notices_that_wait_are_one_change(kernel: Kernel, notices: NoticeQueue) -> None:
    kernel.says(notice(), notice(OWN), notice() + notice(OWN), notice(OWN))
    assert notices.wait(0)
    assert not notices.wait(0)


def test_an_ipv6_link_local_address_is_no_change(kernel: Kernel, notices: NoticeQueue) -> None:
    kernel.says(notice(text="fe80::1"))
    assert not notices.wait(0)


@pytest.mark.parametrize("flags", [TENTATIVE, TENTATIVE | DUPLICATE, 0])
def test_every_step_of_duplicate_address_detection_is_a_change(
    kernel: Kernel, notices: NoticeQueue, flags: int
) -> None:
    kernel.says(notice(text="2001:db8::1", flags=flags))
    assert notices.wait(0)


def test_a_tentative_address_counts_and_a_duplicate_one_does_not() -> None:
    def read(flags: int) -> InterfaceAddress | None:
        return decode_address(notice(text="2001:db8::1", flags=flags)[HEADER.size :])

    found = read(TENTATIVE)
    assert found is not None
    assert found[:2] == (OTHER, address("2001:db8::1"))
    assert read(TENTATIVE | DUPLICATE) is None


def test_an_interface_that_is_made_later_is_the_own_one_from_then_on(kernel: Kernel) -> None:
    kernel.own = None
    notices = NoticeQueue("kube-ipvs0", kernel.open)
    kernel.says(notice(OWN), link(OWN), notice(OWN))
    assert notices.wait(0)
    kernel.says(notice(OWN))
    assert not notices.wait(0)


def test_an_interface_that_is_made_anew_has_another_index(kernel: Kernel, notices: NoticeQueue) -> None:
    kernel.own = None
    kernel.says(notice(OWN, kind=DELETED_ADDRESS), link(OWN, kind=DELETED_LINK), link(9), notice(9))
    assert notices.wait(0) == AddressChange(any_deleted=True)
    kernel.says(link(OWN, "eth1"), notice(OWN))
    assert notices.wait(0) == ELSEWHERE


def test_an_interface_that_is_renamed_is_the_own_one_no_more(kernel: Kernel, notices: NoticeQueue) -> None:
    kernel.own = None
    kernel.says(link(OWN, "old"))
    assert notices.wait(0) == ANYTHING
    kernel.says(notice(OWN))
    assert notices.wait(0) == ELSEWHERE


def test_an_interface_that_leaves_a_bridge_stays_the_own_one(kernel: Kernel, notices: NoticeQueue) -> None:
    kernel.says(link(OWN, kind=DELETED_LINK, of=BRIDGE))
    assert not notices.wait(0).elsewhere
    kernel.says(notice(OWN))
    assert notices.wait(0) == NOTHING


def test_other_interfaces_come_and_go_unnoticed_without_addresses(
    kernel: Kernel, notices: NoticeQueue
) -> None:
    kernel.says(link(OTHER, "eth1"), link(OTHER, "eth1", DELETED_LINK), notice(OWN))
    assert not notices.wait(0)


def test_lost_notices_may_be_any_change_and_the_own_index_is_asked_for_anew(
    kernel: Kernel, notices: NoticeQueue
) -> None:
    assert not notices.wait(0)
    kernel.own = 9
    kernel.fails(errno.ENOBUFS)
    kernel.says(notice(OWN), notice(9))
    assert notices.wait(0) == ANYTHING
    kernel.says(notice(9))
    assert not notices.wait(0)
    kernel.says(notice(OWN))
    assert notices.wait(0)
    assert kernel.requests == 2


def test_waking_ends_one_wait(notices: NoticeQueue) -> None:
    notices.wake()
    assert not notices.wait(PATIENCE)


def test_a_queue_that_can_not_be_made_leaves_no_socket_open() -> None:
    kernel = RefusingKernel()
    with pytest.raises(PermissionError):
        NoticeQueue("kube-ipvs0", kernel.open)
    assert kernel.closed


class Follower:
    """What hears of changes; its failures come first, one for each call."""

    def __init__(self, kernel: Kernel, pause: float = 0) -> None:
        self.calls: queue.Queue[str] = queue.Queue()
        self.changes: list[AddressChange] = []
        self.events: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        log: FilteringBoundLogger = structlog.wrap_logger(None, processors=[self._keep])
        self.notices = AddressNotices(self._changed, log, "kube-ipvs0", open_socket=kernel.open, pause=pause)

    def _changed(self, change: AddressChange) -> None:
        self.changes.append(change)
        self.calls.put(threading.current_thread().name)
        if self.failures:
            raise self.failures.pop(0)

    def _keep(self, _logger: object, level: str, event: MutableMapping[str, Any]) -> str:
        self.events.append({**event, "level": level})
        raise structlog.DropEvent

    def ended(self) -> bool:
        self.notices.stop()
        self.notices.join(PATIENCE)
        return not any(each.name == "addresses" for each in threading.enumerate())


def test_a_change_is_told_by_a_thread_with_a_name(kernel: Kernel) -> None:
    follower = Follower(kernel)
    follower.notices.start()
    kernel.says(notice())
    assert follower.calls.get(timeout=PATIENCE) == "addresses"
    assert follower.ended()
    assert follower.calls.empty()
    assert kernel.closed


def test_what_changed_before_the_start_is_told(kernel: Kernel) -> None:
    follower = Follower(kernel)
    kernel.says(notice())
    follower.notices.start()
    follower.calls.get(timeout=PATIENCE)
    assert follower.ended()


def test_a_thread_without_work_ends_when_it_is_told_to(kernel: Kernel) -> None:
    follower = Follower(kernel)
    follower.notices.start()
    assert follower.ended()
    assert follower.calls.empty()


def test_a_thread_that_pauses_ends_when_it_is_told_to(kernel: Kernel) -> None:
    follower = Follower(kernel, pause=10 * PATIENCE)
    follower.failures = [RuntimeError("no room")]
    follower.notices.start()
    kernel.says(notice())
    follower.calls.get(timeout=PATIENCE)
    assert follower.ended()


def test_notices_that_were_not_started_can_be_stopped(kernel: Kernel) -> None:
    assert Follower(kernel).ended()
    assert kernel.closed


def test_a_call_that_fails_is_made_again_and_each_kind_of_failure_is_logged_once(
    kernel: Kernel,
) -> None:
    follower = Follower(kernel)
    trouble = RuntimeError("no room")
    follower.failures = [trouble, RuntimeError("no room"), OSError(errno.EIO, "broken")]
    follower.notices.start()
    kernel.says(notice())
    for _ in range(4):
        follower.calls.get(timeout=PATIENCE)
    assert follower.ended()
    assert [(each["event"], each["level"], each["reason"]) for each in follower.events] == [
        ("address notices failed", "error", "no room"),
        ("address notices failed", "error", "[Errno 5] broken"),
    ]
    assert follower.events[0]["exc_info"] is trouble
    # Nobody knows what became of the first change.
    assert follower.changes == [ELSEWHERE, ANYTHING, ANYTHING, ANYTHING]


@pytest.mark.parametrize("datagram", [b"\1", bytes(15), notice()[:-1], notice()[:24]])
def test_a_notice_that_can_not_be_read_counts_as_a_change_and_ends_nothing(
    kernel: Kernel, datagram: bytes
) -> None:
    follower = Follower(kernel)
    follower.notices.start()
    kernel.says(datagram)
    follower.calls.get(timeout=PATIENCE)
    kernel.says(notice())
    follower.calls.get(timeout=PATIENCE)
    assert follower.ended()
    assert len(follower.events) == 1


def test_a_socket_that_fails_counts_as_a_change_and_ends_nothing(kernel: Kernel) -> None:
    follower = Follower(kernel)
    kernel.fails(errno.EIO)
    follower.notices.start()
    follower.calls.get(timeout=PATIENCE)
    kernel.says(notice())
    follower.calls.get(timeout=PATIENCE)
    assert follower.ended()
    assert [each["reason"] for each in follower.events] == ["[Errno 5] Input/output error"]
