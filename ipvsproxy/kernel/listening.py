"""The ports that processes of a network namespace listen on, as /proc/net tells of them."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import Address, parse_address, parse_network
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

# TCP_LISTEN and TCP_CLOSE, which a UDP socket without a peer is in, net/tcp_states.h.
_FILES = {
    "tcp": (Protocol.TCP, "0A"),
    "tcp6": (Protocol.TCP, "0A"),
    "udp": (Protocol.UDP, "07"),
    "udp6": (Protocol.UDP, "07"),
}
_ANY_IPV4, _ANY_IPV6 = parse_address("0.0.0.0"), parse_address("::")  # noqa: S104 - compared with, not bound
_MAPPED = parse_network("::ffff:0:0/96")


class Listener(NamedTuple):
    """A socket that takes new connections or datagrams."""

    address: Address
    protocol: Protocol
    port: int

    def hears(self, destination: Address) -> bool:
        """Say whether it takes what is sent to an address; one for all IPv6 addresses takes IPv4 too, mostly."""
        if self.address in {destination, _ANY_IPV6}:
            return True
        return self.address == _ANY_IPV4 and len(destination) == len(_ANY_IPV4)


def listeners(proc_net: Path = Path("/proc/thread-self/net")) -> frozenset[Listener]:
    """Return the TCP, UDP and SCTP sockets; a protocol that the kernel does not have has none."""
    found: set[Listener] = set()
    for name, (protocol, state) in _FILES.items():
        with contextlib.suppress(FileNotFoundError):
            text = (proc_net / name).read_text()
            found.update(_internet_sockets(text, protocol, state))
    with contextlib.suppress(FileNotFoundError):
        found.update(_sctp_endpoints((proc_net / "sctp" / "eps").read_text()))
    return frozenset(found)


def _internet_sockets(text: str, protocol: Protocol, state: str) -> Iterator[Listener]:
    """Read lines such as `0: 0100007F:1F90 00000000:0000 0A …`: the words of an address are in the host's order."""
    for line in text.splitlines()[1:]:
        words = line.split()
        address, _, port = words[1].partition(":")
        if words[3] == state:
            numbers = bytes.fromhex(address)
            plain = b"".join(struct.pack("!I", number) for (number,) in struct.iter_unpack("=I", numbers))
            yield Listener(_unmapped(Address(plain)), protocol, int(port, 16))


def _sctp_endpoints(text: str) -> Iterator[Listener]:
    """Read lines of ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS; a listening one is in the state 10, TCP_LISTEN."""
    for line in text.splitlines()[1:]:
        words = line.split()
        if words[3] == "10":
            for address in words[8:]:
                yield Listener(_unmapped(parse_address(address)), Protocol.SCTP, int(words[5]))


def _unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, or the address itself."""
    return Address(address[-4:]) if _MAPPED.contains(address) else address
