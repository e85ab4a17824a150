"""The kernel's notices that the node's addresses change (rtnetlink(7)), but for those on the agent's dummy interface.

The kernel says each change to whoever has joined its groups: an address comes or goes, one with each notice, also when
its interface is deleted, is moved to another namespace, or goes down and takes its IPv6 addresses along. An IPv6
address comes twice, before and after duplicate address detection.

Notices name an interface by its index. The dummy interface's own, by which its thousands of changes are told from the
others, follows from notices about links, which come by the same socket and so in their place among the changes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from typing import TYPE_CHECKING, Final, Protocol

from ipvsproxy.kernel.address_codec import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    decode_interface_index,
    decode_link_name,
    encode_get_link,
    is_link_local,
)
from ipvsproxy.kernel.netlink import NETLINK_ROUTE, DatagramSocket, open_socket
from ipvsproxy.kernel.netlink_codec import decode_messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.netlink_codec import Message

# linux/rtnetlink.h, RTMGRP_*: RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR as bits.
_GROUPS: Final = 1 << 0 | 1 << 4 | 1 << 8

_DATAGRAM_SIZE: Final = 1 << 16
_PAUSE_AFTER_FAILURE: Final = 5.0


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

    def wait(self, timeout: float | None) -> bool:
        """Wait for notices, for `wake` or for `timeout` seconds; say whether addresses of other interfaces changed.

        They may have, too, when the kernel had no room for all notices. IPv6 link-local addresses do not count. Raise
        OSError if the socket fails.
        """
        self._poll.poll(None if timeout is None else timeout * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        changed = self._drain()
        # The kernel drops an answer that finds no room as silently as a notice: so not before the queue is empty.
        while self._doubted:
            self._doubted = False
            self._ask_for_own_index()
            changed |= self._drain()
        return changed

    def _drain(self) -> bool:
        """Take all notices that are there; say whether they, or lost ones, are about addresses of other interfaces."""
        changed = False
        while True:
            try:
                datagram = self._socket.recv(_DATAGRAM_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._doubted = changed = True
                continue
            for notice in decode_messages(datagram):
                changed |= self._take(notice)

    def _ask_for_own_index(self) -> None:
        """Ask for the dummy interface: the answer comes among the notices, and as one of them."""
        self._own_index = None
        self._socket.send(bytearray(encode_get_link(self._interface)))

    def _take(self, notice: Message) -> bool:
        """Follow the own index; say whether the notice is about an address of another interface."""
        if notice.type in {RTM_NEWADDR, RTM_DELADDR}:
            other = decode_interface_index(notice.payload) != self._own_index
            return other and not is_link_local(notice.payload)
        if notice.type in {RTM_NEWLINK, RTM_DELLINK}:
            index = decode_interface_index(notice.payload)
            if notice.type == RTM_NEWLINK and decode_link_name(notice.payload) == self._interface:
                self._own_index = index
            elif index == self._own_index:
                # It has another name now, or is gone, or has left a bridge, which looks the same.
                self._own_index = None
                self._doubted = True
        return False


class AddressNotices:
    """Says when the node's addresses change, in a thread of its own named `addresses`."""

    def __init__(
        self,
        on_change: Callable[[], None],
        log: FilteringBoundLogger,
        interface: str = "kube-ipvs0",
        *,
        open_socket: Callable[[], NoticeSocket] = open_notice_socket,
        pause: float = _PAUSE_AFTER_FAILURE,
    ) -> None:
        """Take note from now on, in the calling thread's network namespace; OSError if the kernel refuses.

        `on_change` is called, from the thread, once for all notices that wait: addresses of other interfaces than
        `interface` came, went or changed, or notices were lost. After a failure, its own included, the thread pauses
        for `pause` seconds and calls it again, so that no change is missed for longer.
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
        changed = False
        while not self._stopping.is_set():
            try:
                changed |= self._queue.wait(0 if changed else None)
                if changed:
                    self._on_change()
                changed = False
            except Exception as error:  # noqa: BLE001 - what was missed is made up for by the call after the pause
                self._report(error)
                changed = True
                self._stopping.wait(self._pause)

    def _report(self, error: Exception) -> None:
        """Log a failure, each kind once."""
        kind = (type(error), error.errno if isinstance(error, OSError) else None)
        if kind not in self._reported:
            self._reported.add(kind)
            self._log.error("address notices failed", reason=str(error), exc_info=error)
