"""The kernel's side of ctnetlink in memory: entries as Linux writes them, and a socket that answers as before 5.8.

Such a kernel knows no filter but the address family.
"""

from __future__ import annotations

import errno
import itertools
import struct
from collections import deque
from typing import TYPE_CHECKING

from ipvsproxy.kernel.netlink_codec import (
    HEADER,
    NLM_F_ACK,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLMSG_DONE,
    NLMSG_ERROR,
    decode_attributes,
    decode_messages,
    encode_attribute,
)
from ipvsproxy.model.addresses import family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.kernel.fake_conntrack import ConntrackEntry
    from ipvsproxy.kernel.netlink_codec import Message
    from ipvsproxy.model.addresses import Address

NEW, GET, DELETE = (1 << 8 | command for command in range(3))
NESTED = 0x8000
SEEN_REPLY, CONFIRMED = 0x2, 0x8  # IPS_*


def _encode_tuple(source: tuple[Address, int], destination: tuple[Address, int], protocol: int) -> bytes:
    first = 1 if len(source[0]) == 4 else 3
    addresses = encode_attribute(first, source[0]) + encode_attribute(first + 1, destination[0])
    ports = b"".join(
        encode_attribute(kind, port.to_bytes(2)) for kind, port in ((2, source[1]), (3, destination[1]))
    )
    return encode_attribute(1 | NESTED, addresses) + encode_attribute(
        2 | NESTED, encode_attribute(1, bytes((protocol,))) + ports
    )


def original_tuple(entry: ConntrackEntry) -> bytes:
    """Return the value of the entry's CTA_TUPLE_ORIG."""
    address, protocol, port = entry.destination
    return _encode_tuple(entry.source, (address, port), protocol)


def dumped(entry: ConntrackEntry, identifier: int = 1) -> bytes:
    """Return the payload of a dump's answer with the entry (ctnetlink_fill_info()), which makes one by NEW, too."""
    attributes = encode_attribute(1 | NESTED, original_tuple(entry))
    attributes += encode_attribute(
        2 | NESTED, _encode_tuple(entry.endpoint, entry.source, entry.destination.protocol)
    )
    if entry.zone:
        attributes += encode_attribute(18, entry.zone.to_bytes(2))
    status = CONFIRMED | (SEEN_REPLY if entry.answered else 0)
    for kind, value in ((3, status), (7, 600), (8, 0), (12, identifier), (11, 1)):
        attributes += encode_attribute(kind, struct.pack("!I", value))
    return bytes((family(entry.destination.address), 0, 0, 0)) + attributes


class ConntrackKernel:
    """A table of entries, and the socket to it.

    `entries` has each one's identifier, `requests` the types of the messages that came. Dumps and deletions are refused
    with `dump_code` and `deletion_code`, unless they are 0.
    """

    def __init__(self) -> None:
        self.entries: dict[ConntrackEntry, int] = {}
        self.requests: list[int] = []
        self.dump_code = 0
        self.deletion_code = 0
        self.closed = False
        self._names: dict[tuple[bytes, int], ConntrackEntry] = {}
        self._identifiers = itertools.count(1)
        self._queue: deque[bytes] = deque()

    def open(self, protocol: int) -> ConntrackKernel:
        assert protocol == 12
        return self

    def add(self, *entries: ConntrackEntry) -> None:
        """Add entries, or put a successor in the place of each."""
        for entry in entries:
            self.entries[entry] = identifier = next(self._identifiers)
            if entry.zone == 0:
                self._names[original_tuple(entry), identifier] = entry

    def send(self, data: bytearray) -> int:
        for request in decode_messages(bytes(data)):
            self.requests.append(request.type)
            self._queue.extend(self._answers(request))
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:  # noqa: ARG002 - a socket's signature
        if not self._queue:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        return self._queue.popleft()

    def close(self) -> None:
        self.closed = True

    def _answers(self, request: Message) -> Iterator[bytes]:
        dump = request.flags & NLM_F_DUMP
        if dump and not self.dump_code:
            for entry, identifier in self.entries.items():
                if family(entry.destination.address) == request.payload[0]:
                    yield _message(NEW, request, dumped(entry, identifier))
            yield _message(NLMSG_DONE, request, struct.pack("=i", 0))
            return
        code = self.dump_code if dump else self.deletion_code or self._delete(request)
        if code or request.flags & NLM_F_ACK:
            yield _message(NLMSG_ERROR, request, struct.pack("=i", -code) + bytes(HEADER.size), NLM_F_CAPPED)

    def _delete(self, request: Message) -> int:
        """Delete the entry of zone 0 with that tuple and identifier; return the errno."""
        attributes = decode_attributes(request.payload, 4)
        entry = self._names.get((attributes[1], int.from_bytes(attributes[12])))
        if entry is None or self.entries.get(entry) != int.from_bytes(attributes[12]):
            return errno.ENOENT
        del self.entries[entry]
        return 0


def _message(kind: int, request: Message, payload: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(payload), kind, flags, request.sequence, 0) + payload
