"""The kernel's notices that the node's addresses change (rtnetlink(7)).

The kernel says each change to whoever has joined its groups: an address comes or goes, one with each notice, also when
its interface is deleted, is moved to another namespace, or goes down and takes its IPv6 addresses along. An IPv6
address comes twice, before and after duplicate address detection.

Notices name an interface by its index. The dummy interface's own, by which its thousands of changes are told from the
others, follows from notices about links, which come by the same socket and so in their place among the changes. Of its
changes only deletions are passed on, the agent's own among them: who made a change of an IPv6 address is not told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ipvsproxy.kernel.address_codec import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    decode_changed_address,
    decode_interface_index,
    decode_link_name,
    encode_get_link,
)
from ipvsproxy.kernel.netlink import NETLINK_ROUTE, DatagramSocket, open_socket
from ipvsproxy.kernel.netlink_codec import decode_messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.netlink_codec import Message
    from ipvsproxy.model.addresses import Address

# linux/rtnetlink.h, RTMGRP_*: RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR as bits.
_GROUPS: Final = 1 << 0 | 1 << 4 | 1 << 8

_DATAGRAM_SIZE: Final = 1 << 16
_PAUSE_AFTER_FAILURE: Final = 5.0


class AddressChange(NamedTuple):
    """What changed of the node's addresses; false if nothing did. IPv6 link-local addresses do not count.

    `elsewhere` says that addresses of other interfaces than the dummy one may have changed. `deleted` are addresses
    that were deleted from the dummy interface, and `any_deleted` says that any of them may have been.
    """

    elsewhere: bool = False
    deleted: frozenset[Address] = frozenset()
    any_deleted: bool = False

    def __bool__(self) -> bool:
        """Say whether anything changed."""
        return self != NOTHING


NOTHING: Final = AddressChange()
ANYTHING: Final = AddressChange(elsewhere=True, any_deleted=True)


class NoticeSocket(DatagramSocket, Protocol):
    """What is needed of a netlink socket; `recv` raises BlockingIOError if nothing waits, with MSG_DONTWAIT."""

    def fileno(self) -> int:
        """Return the descriptor, which poll(2) says to be readable when a notice waits."""


def open_notice_socket() -> socket.socket:
    """Return a netlink socket that gets the notices of the calling thread's network namespace from now on."""
    opened = open_socket(NETLINK_ROUTE)
    opened.bind((0, _GROUPS))
    return opened


class NoticeQueue:
    """The notices of one network namespace: that of the thread that makes the object.

    Used by one thread; any may call `wake`.
    """

    def __init__(self, interface: str, open_socket: Callable[[], NoticeSocket] = open_notice_socket) -> None:
        """Join the groups and ask for the dummy interface of that name, which need not be there; OSError if refused."""
        self._interface = interface
        # None for no interface of that name; `_doubted` if notices about it may be missing.
        self._own_index: int | None = None
        self._doubted = False
        self._elsewhere = self._any_deleted = False
        self._deleted: set[Address] = set()
        with contextlib.ExitStack() as undo:
            self._socket = open_socket()
            undo.callback(self._socket.close)
            self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._wakeup)
            self._poll = select.poll()
            self._poll.register(self._socket.fileno(), select.POLLIN)
            self._poll.register(self._wakeup, select.POLLIN)
            self._ask_for_own_index()
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Leave the groups; nothing may be called after it."""
        self._undo.close()

    def wake(self) -> None:
        """End the wait under way, or else the next one."""
        os.eventfd_write(self._wakeup, 1)

    def wait(self, timeout: float | None) -> AddressChange:
        """Wait for notices, for `wake` or for `timeout` seconds; return what they say all together.

        Anything may have changed when the kernel had no room for all notices. Raise OSError if the socket fails.
        """
        self._poll.poll(None if timeout is None else timeout * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        self._drain()
        # The kernel drops an answer that finds no room as silently as a notice: so not before the queue is empty.
        while self._doubted:
            self._doubted = False
            self._ask_for_own_index()
            self._drain()
        change = AddressChange(self._elsewhere, frozenset(self._deleted), self._any_deleted)
        self._elsewhere = self._any_deleted = False
        self._deleted.clear()
        return change

    def _drain(self) -> None:
        """Take all notices that are there."""
        while True:
            try:
                datagram = self._socket.recv(_DATAGRAM_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._doubted = self._elsewhere = self._any_deleted = True
                continue
            for notice in decode_messages(datagram):
                self._take(notice)

    def _ask_for_own_index(self) -> None:
        """Ask for the dummy interface: the answer comes among the notices, and as one of them."""
        self._own_index = None
        self._socket.send(bytearray(encode_get_link(self._interface)))

    def _take(self, notice: Message) -> None:
        """Follow the own index, and note what the notice says of addresses."""
        if notice.type in {RTM_NEWADDR, RTM_DELADDR}:
            changed = decode_changed_address(notice.payload)
            if changed is None:
                return
            if changed.interface_index != self._own_index:
                self._elsewhere = True
            elif notice.type == RTM_DELADDR:
                self._deleted.add(changed.address)
            else:
                self._deleted.discard(changed.address)
        elif notice.type in {RTM_NEWLINK, RTM_DELLINK}:
            index = decode_interface_index(notice.payload)
            if notice.type == RTM_NEWLINK and decode_link_name(notice.payload) == self._interface:
                self._own_index = index
            elif index == self._own_index:
                # It has another name now, or is gone, or has left a bridge, which looks the same.
                self._elsewhere |= notice.type == RTM_NEWLINK
                self._own_index = None
                self._doubted = self._any_deleted = True


class AddressNotices:
    """Says when the node's addresses change, in a thread of its own named `addresses`."""

    def __init__(
        self,
        on_change: Callable[[AddressChange], None],
        log: FilteringBoundLogger,
        interface: str = "kube-ipvs0",
        *,
        open_socket: Callable[[], NoticeSocket] = open_notice_socket,
        pause: float = _PAUSE_AFTER_FAILURE,
    ) -> None:
        """Take note from now on, in the calling thread's network namespace; OSError if the kernel refuses.

        `on_change` is called, from the thread, once for all notices that wait; `interface` is the dummy interface.
        After a failure, its own included, the thread pauses for `pause` seconds and says that anything may have
        changed, so that no change is missed for longer.
        """
        self._on_change = on_change
        self._log = log
        self._pause = pause
        self._reported: set[tuple[type[Exception], int | None]] = set()
        self._stopping = threading.Event()
        self._queue = NoticeQueue(interface, open_socket)
        self._thread = threading.Thread(target=self._run, name="addresses", daemon=True)

    def start(self) -> None:
        """Start to say what changes; what has changed since the object was made is said at once."""
        self._thread.start()

    def stop(self) -> None:
        """Make the thread end soon; nothing may be called but `join` after it."""
        self._stopping.set()
        self._queue.wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end after `stop`, at most for `timeout` seconds."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if not self._thread.is_alive():
            self._queue.close()

    def _run(self) -> None:
        missed = False
        while not self._stopping.is_set():
            try:
                change = self._queue.wait(0 if missed else None)
                if missed:
                    change = ANYTHING
                if change:
                    self._on_change(change)
                missed = False
            except Exception as error:  # noqa: BLE001 - what was missed is made up for by the call after the pause
                self._report(error)
                missed = True
                self._stopping.wait(self._pause)

    def _report(self, error: Exception) -> None:
        """Log a failure, each kind once."""
        kind = (type(error), error.errno if isinstance(error, OSError) else None)
        if kind not in self._reported:
            self._reported.add(kind)
            self._log.error("address notices failed", reason=str(error), exc_info=error)
