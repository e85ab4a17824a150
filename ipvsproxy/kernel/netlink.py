"""A netlink client that sends many requests in one system call and knows what became of each.

The kernel works through the requests of one datagram in order, before `send` returns, and answers only those that
fail. So only the last request of a batch asks for an acknowledgement: it arrives after every other answer, and what
has none by then was done. An answer is matched by its sequence number, which no two requests of a client share.

Answers wait in the socket's receive buffer. When they do not fit, the kernel drops some and the next receive fails
with ENOBUFS: then nobody knows about the requests without an answer, and each is reported with that error.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import struct
from typing import TYPE_CHECKING, Protocol, Self

from ipvsproxy.kernel.interface import KernelError, KernelUnavailableError
from ipvsproxy.kernel.netlink_codec import (
    FLAGS_OFFSET,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    SEQUENCE_OFFSET,
    decode_attributes,
    decode_error,
    decode_messages,
    encode_attribute,
    encode_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipvsproxy.kernel.netlink_codec import Message

# linux/netlink.h
NETLINK_ROUTE = 0
NETLINK_GENERIC = 16
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12

# asm-generic/socket.h; Python has no name for it.
SO_RCVBUFFORCE = 33

# linux/genetlink.h
GENL_ID_CTRL = 0x10
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2
GENL_HEADER_SIZE = 4

# The errors of 256 requests, each a buffer of 1 KiB or less to the kernel, fit into its default receive buffer.
MAX_IN_FLIGHT = 256

# Room for twice the errors of a batch with long texts, should the process be allowed to have it.
_RECEIVE_BUFFER = 1 << 20
# The kernel cuts a dump into datagrams of at most 32 KiB, and of no more than the last receive had room for.
_DATAGRAM_SIZE = 1 << 16
# Answers are there when `send` returns: whoever waits this long has met a bug of the kernel.
_TIMEOUT_SECONDS = 5
_DUMP_ATTEMPTS = 5
_MAX_SEQUENCE = 0xFFFFFFFF

_LOST = KernelError(errno.ENOBUFS, "the kernel's answer was lost")

_UINT16 = struct.Struct("=H")
_UINT32 = struct.Struct("=I")


class DatagramSocket(Protocol):
    """What the client needs of a netlink socket; `recv` raises BlockingIOError after the socket's timeout."""

    def send(self, data: bytearray, /) -> int:
        """Send one datagram."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive one datagram."""

    def close(self) -> None:
        """Close the socket."""


def open_socket(protocol: int) -> socket.socket:
    """Return a netlink socket of the calling thread's network namespace.

    It reports errors with their text and without the request, and filters dumps by the request's fields, if it can.
    """
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
        opened.setsockopt(SOL_NETLINK, option, 1)
    # Before 4.20 the kernel dumps everything, and whoever asked for less picks it out.
    with contextlib.suppress(OSError):
        opened.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
    # The kernel's own timeout: Python's would cost a poll(2) before each receive.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _TIMEOUT_SECONDS, 0))
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return opened


class NetlinkClient:
    """Requests over one netlink socket, for one thread.

    Messages come without a sequence number and without NLM_F_ACK or NLM_F_DUMP, and padded to 4 bytes.
    """

    def __init__(
        self,
        protocol: int,
        open_socket: Callable[[int], DatagramSocket] = open_socket,
        first_sequence: int = 1,
    ) -> None:
        """Open a socket of the netlink protocol, NETLINK_GENERIC for one; number the requests from `first_sequence`."""
        self._protocol = protocol
        self._open_socket = open_socket
        self._socket = open_socket(protocol)
        self._next_sequence = first_sequence

    def __enter__(self) -> Self:
        """Return the client, which the end of the `with` statement closes."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the socket."""
        self.close()

    def close(self) -> None:
        """Close the socket; the client is of no use any more."""
        self._socket.close()

    def execute(self, messages: Iterable[bytes]) -> dict[int, KernelError]:
        """Send requests that have no answer but success or failure; return the failed ones by their index.

        ENOBUFS means that the answer was lost: the request may or may not have been done.
        """
        errors: dict[int, KernelError] = {}
        remaining = iter(messages)
        start = 0
        while batch := list(itertools.islice(remaining, MAX_IN_FLIGHT)):
            for index, error in self._execute_batch(batch).items():
                errors[start + index] = error
            start += len(batch)
        return errors

    def ask(self, message: bytes) -> list[bytes]:
        """Send one request that is answered with messages, but no dump; return their payloads.

        Raise OSError with the kernel's errno and text if it is refused, or if the answer got lost.
        """
        sequence = self._send([message], NLM_F_ACK)
        payloads: list[bytes] = []
        while True:
            for answer in self._receive(sequence):
                if answer.type == NLMSG_ERROR:
                    _raise_for(decode_error(answer))
                    return payloads
                payloads.append(answer.payload)

    def dump(self, message: bytes) -> list[list[bytes]]:
        """Send one dump request; return the payloads of its answers, a list for each datagram of a few dozen.

        The dump is read to its end before it is returned: the kernel keeps its place by counting entries, so that a
        change in between would hide some. One that others' changes interrupted (NLM_F_DUMP_INTR) is begun again.
        Raise OSError with the kernel's errno and text if it is refused, with EINTR if it is interrupted every time.
        """
        for _ in range(_DUMP_ATTEMPTS):
            chunks, interrupted = self._dump_once(message)
            if not interrupted:
                return chunks
        raise OSError(
            errno.EINTR, f"a netlink dump was interrupted by changes {_DUMP_ATTEMPTS} times in a row"
        )

    def _execute_batch(self, batch: list[bytes]) -> dict[int, KernelError]:
        """Send at most MAX_IN_FLIGHT requests; return the failed ones by their index."""
        try:
            first = self._send(batch, NLM_F_ACK)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return dict.fromkeys(range(len(batch)), _LOST)
        requests = range(first, first + len(batch))
        outcomes: dict[int, KernelError] = {}
        try:
            self._collect(requests, outcomes)
        except OSError as error:
            if error.errno not in {errno.ENOBUFS, errno.EAGAIN}:
                raise
            # What was queued before the buffer was full is still there.
            with contextlib.suppress(BlockingIOError):
                self._collect(requests, outcomes, socket.MSG_DONTWAIT)
            self._renew()
            outcomes = dict.fromkeys(requests, _LOST) | outcomes
        for outcome in outcomes.values():
            if outcome.code == errno.EPERM:
                _raise_for(outcome)
        return {sequence - first: outcome for sequence, outcome in outcomes.items() if outcome.code}

    def _collect(self, requests: range, outcomes: dict[int, KernelError], flags: int = 0) -> None:
        """Receive the outcomes of requests, by sequence number, until the last request has its own."""
        while requests[-1] not in outcomes:
            for answer in decode_messages(self._socket.recv(_DATAGRAM_SIZE, flags)):
                if answer.type == NLMSG_ERROR and answer.sequence in requests:
                    outcomes[answer.sequence] = decode_error(answer)

    def _dump_once(self, message: bytes) -> tuple[list[list[bytes]], bool]:
        """Return the payloads of a dump and whether it was interrupted."""
        sequence = self._send([message], NLM_F_DUMP)
        chunks: list[list[bytes]] = []
        interrupted = False
        ended = False
        while not ended:
            payloads: list[bytes] = []
            for answer in self._receive(sequence):
                if answer.flags & NLM_F_DUMP_INTR:
                    interrupted = True
                if answer.type in {NLMSG_DONE, NLMSG_ERROR}:
                    _raise_for(decode_error(answer))
                    ended = True
                else:
                    payloads.append(answer.payload)
            if payloads:
                chunks.append(payloads)
        return chunks, interrupted

    def _send(self, batch: list[bytes], flags: int) -> int:
        """Send the requests, the last one with the flags added; return the first one's sequence number."""
        if self._next_sequence + len(batch) - 1 > _MAX_SEQUENCE:
            self._next_sequence = 1
        first = self._next_sequence
        self._next_sequence += len(batch)
        datagram = bytearray().join(batch)
        write_sequence = _UINT32.pack_into
        offset = 0
        for sequence, message in enumerate(batch, first):
            write_sequence(datagram, offset + SEQUENCE_OFFSET, sequence)
            offset += len(message)
        flags_offset = offset - len(batch[-1]) + FLAGS_OFFSET
        _UINT16.pack_into(datagram, flags_offset, _UINT16.unpack_from(datagram, flags_offset)[0] | flags)
        self._socket.send(datagram)
        return first

    def _receive(self, sequence: int) -> list[Message]:
        """Receive one datagram; return its messages that answer the request.

        If the answer is lost, renew the socket, which ends a dump that is still running, and raise OSError.
        """
        try:
            datagram = self._socket.recv(_DATAGRAM_SIZE)
        except OSError as error:
            self._renew()
            if error.errno in {errno.ENOBUFS, errno.EAGAIN}:
                raise OSError(errno.ENOBUFS, _LOST.message) from None
            raise
        return [message for message in decode_messages(datagram) if message.sequence == sequence]

    def _renew(self) -> None:
        """Replace the socket, and with it every answer that still waits there."""
        self._socket.close()
        self._socket = self._open_socket(self._protocol)


def generic_family(client: NetlinkClient, name: str) -> int:
    """Return the message type of a generic netlink family; OSError ENOENT if the kernel has none of that name.

    From 5.16 on the kernel loads the module that has the family.
    """
    request = bytes((CTRL_CMD_GETFAMILY, 1, 0, 0)) + encode_attribute(
        CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0"
    )
    (answer,) = client.ask(encode_message(GENL_ID_CTRL, 0, request))
    message_type: int = _UINT16.unpack(decode_attributes(answer, GENL_HEADER_SIZE)[CTRL_ATTR_FAMILY_ID])[0]
    return message_type


def _raise_for(error: KernelError) -> None:
    """Raise OSError for a code other than 0, and KernelUnavailableError where no request will ever be granted."""
    if error.code == errno.EPERM:
        raise KernelUnavailableError(
            "the kernel refuses to be configured over netlink (EPERM): "
            "run with the capability CAP_NET_ADMIN, outside of user namespaces"
        )
    if error.code:
        raise OSError(error.code, error.message or os.strerror(error.code))
