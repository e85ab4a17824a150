"""What nf_tables answers over netlink, without a program: its generation, and whether a table is there.

The names and numbers are those of linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from ipvsproxy.kernel.interface import KernelUnavailableError
from ipvsproxy.kernel.netlink import NetlinkClient, open_socket
from ipvsproxy.kernel.netlink_codec import decode_attributes, encode_attribute, encode_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.kernel.netlink import DatagramSocket

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_GETTABLE = 1
NFT_MSG_GETGEN = 16
NFTA_TABLE_NAME = 1
NFTA_GEN_ID = 1
NFPROTO_UNSPEC = 0
NFPROTO_INET = 1

_UINT32_BE = struct.Struct("!I")
# struct nfgenmsg: family, version 0 and a resource identifier that nf_tables does not use.
_HEADER_SIZE = 4

# nfnetlink without nf_tables answers EINVAL; a kernel without nfnetlink has no such socket.
_MISSING = frozenset((errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT))


class NfTables:
    """nf_tables of one network namespace: that of the thread that makes the object.

    KernelUnavailableError, from every call, says that the kernel has no nf_tables or does not let the process at it.
    """

    def __init__(self, open_socket: Callable[[int], DatagramSocket] = open_socket) -> None:
        """Open a netlink socket."""
        try:
            self._client = NetlinkClient(NETLINK_NETFILTER, open_socket)
        except OSError as error:
            raise _explained(error) from error

    def close(self) -> None:
        """Close the socket."""
        self._client.close()

    def generation(self) -> int:
        """Return the number of changes, modulo 2**32: every transaction that changes anything in nftables adds 1."""
        (answer,) = self._ask(NFT_MSG_GETGEN, NFPROTO_UNSPEC, b"")
        generation: int = _UINT32_BE.unpack(decode_attributes(answer, _HEADER_SIZE)[NFTA_GEN_ID])[0]
        return generation

    def has_table(self, name: str) -> bool:
        """Say whether there is a table of the name in the family inet."""
        try:
            self._ask(
                NFT_MSG_GETTABLE, NFPROTO_INET, encode_attribute(NFTA_TABLE_NAME, name.encode() + b"\0")
            )
        except FileNotFoundError:
            return False
        return True

    def _ask(self, command: int, family: int, attributes: bytes) -> list[bytes]:
        message = bytes((family, 0, 0, 0)) + attributes
        try:
            return self._client.ask(encode_message(NFNL_SUBSYS_NFTABLES << 8 | command, 0, message))
        except OSError as error:
            raise _explained(error) from error


def _explained(error: OSError) -> Exception:
    if error.errno in _MISSING:
        return KernelUnavailableError(
            "the kernel has no nf_tables: load the module nf_tables, or use a kernel built with CONFIG_NF_TABLES"
        )
    return error
