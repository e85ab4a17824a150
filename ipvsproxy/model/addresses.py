"""IP addresses and networks as the bytes that the kernel uses.

An `Address` is 4 bytes (IPv4) or 16 bytes (IPv6) in network order. Bytes have one spelling for each
address, sort numerically, hash fast and go into netlink messages as they are; text exists at the edges only.
"""

import enum
import socket
from typing import NamedTuple, NewType

Address = NewType("Address", bytes)


class Family(enum.IntEnum):
    """The address family, with the kernel's numbers (linux/socket.h)."""

    IPV4 = socket.AF_INET
    IPV6 = socket.AF_INET6

    @property
    def bits(self) -> int:
        """The length of one address in bits: 32 or 128."""
        return 32 if self is Family.IPV4 else 128


def family(address: Address) -> Family:
    """Return the family that the address's length says."""
    return Family.IPV4 if len(address) == 4 else Family.IPV6  # noqa: PLR2004 - bytes of an IPv4 address


def parse_address(text: str) -> Address:
    """Return the address that `text` spells; ValueError for anything that is not exactly one address."""
    try:
        return Address(socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text))
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is not an IP address") from None


def format_address(address: Address) -> str:
    """Return the canonical text of the address (RFC 5952 for IPv6)."""
    return socket.inet_ntop(family(address), address)


def format_endpoint(address: Address, port: int) -> str:
    """Return `ADDRESS:PORT`, with brackets around an IPv6 address."""
    text = format_address(address)
    return f"{text}:{port}" if len(address) == 4 else f"[{text}]:{port}"  # noqa: PLR2004 - bytes of an IPv4 address


class Holding(enum.Enum):
    """How an interface of the node, other than the agent's dummy interface, holds an address.

    WITH_NETWORK: the address brings its network along (a prefix shorter than the address), so it is the node's own.
    ALONE: it is one host's (/32, /128), or one more of an IPv4 network that the interface is in already. Programs that
    announce a load balancer's address from a node add it in such a way; kube-vip does.
    """

    WITH_NETWORK = enum.auto()
    ALONE = enum.auto()


class Network(NamedTuple):
    """An IP network: the bits of `address` beyond `prefix_length` are zero."""

    address: Address
    prefix_length: int

    def __str__(self) -> str:
        """Return CIDR notation."""
        return f"{format_address(self.address)}/{self.prefix_length}"

    @property
    def family(self) -> Family:
        """The family of the network's addresses."""
        return family(self.address)

    def contains(self, address: Address) -> bool:
        """Say whether the address is of this network; never for one of the other family."""
        if len(address) != len(self.address):
            return False
        shift = 8 * len(address) - self.prefix_length
        return int.from_bytes(address) >> shift == int.from_bytes(self.address) >> shift


def parse_network(text: str) -> Network:
    """Return the network that `text` spells in CIDR notation, host bits dropped; ValueError otherwise."""
    address_text, slash, length_text = text.partition("/")
    try:
        address = parse_address(address_text)
    except ValueError:
        raise ValueError(f"{text!r} is not a network in CIDR notation") from None
    bits = family(address).bits
    if not slash or not length_text.isascii() or not length_text.isdigit() or int(length_text) > bits:
        raise ValueError(f"{text!r} is not a network in CIDR notation: the prefix length is 0 to {bits}")
    shift = bits - int(length_text)
    masked = (int.from_bytes(address) >> shift) << shift
    return Network(Address(masked.to_bytes(bits // 8)), int(length_text))
