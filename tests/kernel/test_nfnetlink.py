"""The questions to nf_tables, against a socket that answers each of them in the same way."""

from __future__ import annotations

import errno
import struct

import pytest

from ipvsproxy.kernel.interface import KernelUnavailableError
from ipvsproxy.kernel.netlink_codec import (
    HEADER,
    NLM_F_CAPPED,
    NLMSG_ERROR,
    decode_messages,
    encode_attribute,
)
from ipvsproxy.kernel.nfnetlink import NfTables

NEWGEN = 10 << 8 | 15
NEWTABLE = 10 << 8 | 0


class NfTablesSocket:
    """Answers with a message of the type and attributes, if any, and the errno, 0 for success."""

    def __init__(self, kind: int = 0, attributes: bytes = b"", code: int = 0) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self.closed = False
        self._answer = (kind, attributes, code)
        self._queue = b""

    def open(self, protocol: int) -> NfTablesSocket:
        assert protocol == 12
        return self

    def send(self, data: bytearray) -> int:
        (request,) = decode_messages(bytes(data))
        self.requests.append((request.type, request.payload))
        kind, attributes, code = self._answer
        if attributes:
            payload = bytes((0, 0, 0, 0)) + attributes
            self._queue += HEADER.pack(HEADER.size + len(payload), kind, 0, request.sequence, 0) + payload
        outcome = struct.pack("=i", -code) + bytes(HEADER.size)
        self._queue += (
            HEADER.pack(HEADER.size + len(outcome), NLMSG_ERROR, NLM_F_CAPPED, request.sequence, 0) + outcome
        )
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:  # noqa: ARG002 - a socket's signature
        answer, self._queue = self._queue, b""
        return answer

    def close(self) -> None:
        self.closed = True


def test_the_generation_is_in_network_byte_order() -> None:
    kernel = NfTablesSocket(NEWGEN, encode_attribute(2, b"pid.") + encode_attribute(1, b"\x00\x00\x01\x02"))
    nf_tables = NfTables(kernel.open)
    assert nf_tables.generation() == 258
    assert kernel.requests == [(10 << 8 | 16, bytes(4))]
    nf_tables.close()
    assert kernel.closed


def test_a_table_is_asked_for_by_name_in_the_family_inet() -> None:
    kernel = NfTablesSocket(NEWTABLE, encode_attribute(1, b"ipvsproxy\0"))
    assert NfTables(kernel.open).has_table("ipvsproxy")
    assert kernel.requests == [(10 << 8 | 1, bytes((1, 0, 0, 0)) + encode_attribute(1, b"ipvsproxy\0"))]


def test_a_missing_table_is_no_error() -> None:
    assert not NfTables(NfTablesSocket(code=errno.ENOENT).open).has_table("ipvsproxy")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_kernel_without_nf_tables_is_named_as_the_reason(code: int) -> None:
    with pytest.raises(KernelUnavailableError, match="load the module nf_tables"):
        NfTables(NfTablesSocket(code=code).open).generation()


def test_a_kernel_without_netfilters_netlink_is_named_as_the_reason() -> None:
    def refuse(_: int) -> NfTablesSocket:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    with pytest.raises(KernelUnavailableError, match="the kernel has no nf_tables"):
        NfTables(refuse)


def test_a_missing_privilege_is_named_as_the_reason() -> None:
    with pytest.raises(KernelUnavailableError, match="CAP_NET_ADMIN"):
        NfTables(NfTablesSocket(code=errno.EPERM).open).generation()


def test_any_other_error_is_the_kernels() -> None:
    with pytest.raises(OSError, match="Cannot allocate memory"):
        NfTables(NfTablesSocket(code=errno.ENOMEM).open).has_table("ipvsproxy")
