"""The ports that processes of a network namespace listen on, as /proc/net tells of them.

The namespace is the calling thread's, or that of a pod, which is found by a process in it that can be seen from here.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import Address, parse_address, parse_network
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

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


def listeners_of(
    addresses: AbstractSet[Address], proc: Path = Path("/proc")
) -> dict[Address, frozenset[Listener]]:
    """Return who listens in the other network namespaces that have one of these addresses, by the address.

    An address is left out whose namespace has no process that can be seen from here, as is the case in a container
    without the host's processes.
    """
    found: dict[Address, frozenset[Listener]] = {}
    seen = {(proc / "thread-self/ns/net").stat().st_ino}
    for process in proc.glob("[0-9]*"):
        if found.keys() >= addresses:
            break
        # Processes end while they are looked at.
        with contextlib.suppress(OSError):
            namespace = (process / "ns/net").stat().st_ino
            if namespace not in seen:
                if has := addresses & _local_addresses(process / "net"):
                    found |= dict.fromkeys(has, listeners(process / "net"))
                seen.add(namespace)
    return found


def _local_addresses(proc_net: Path) -> set[Address]:
    """Return the addresses of a namespace: those of IPv4 stand above `/32 host LOCAL`, those of IPv6 come first."""
    lines = [line.split() for line in (proc_net / "fib_trie").read_text().splitlines()]
    found = {
        parse_address(line[-1])
        for line, below in itertools.pairwise(lines)
        if line[0] == "|--" and below == ["/32", "host", "LOCAL"]
    }
    with contextlib.suppress(FileNotFoundError):
        for line in (proc_net / "if_inet6").read_text().splitlines():
            found.add(Address(bytes.fromhex(line.split()[0])))
    return found


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
