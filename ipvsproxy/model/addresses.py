"""IP addresses and networks as the bytes that the kernel uses.

An `Address` is 4 bytes (IPv4) or 16 bytes (IPv6) in network order. Bytes have one spelling for each
address, sort numerically, hash fast and go into netlink messages as they are; text exists at the edges only.
"""

import enum
import re
import socket
from collections.abc import Callable
from typing import Final, NamedTuple, NewType

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


_LEADING_ZEROS: Final = re.compile(r"(?<![0-9a-fA-F])0+(?=[0-9a-fA-F])")
_MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"
_MAPPED_BITS: Final = 8 * len(_MAPPED_PREFIX)


def parse_stored_address(text: str) -> Address:
    """Return the address as Kubernetes reads the texts of stored objects; ValueError as for `parse_address`.

    ParseIPSloppy of k8s.io/utils/net: numbers with leading zeros are decimal, and an IPv4-mapped IPv6 address is the
    IPv4 address.
    """
    try:
        address = parse_address(text)
    except ValueError:
        address = _parse_with_zeros(text)
    # Most addresses begin with something else than 0, and this is done for each endpoint of a cluster.
    return Address(address[-4:]) if not address[0] and address.startswith(_MAPPED_PREFIX) else address


def _parse_with_zeros(text: str) -> Address:
    try:
        return parse_address(_LEADING_ZEROS.sub("", text))
    except ValueError:
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
    return _parse_network(text, parse_address)


def parse_stored_network(text: str) -> Network:
    """Return the network as Kubernetes reads the texts of stored objects; ValueError as for `parse_network`.

    ParseCIDRSloppy of k8s.io/utils/net: leading zeros as for `parse_stored_address`. ::ffff:192.0.2.0/120 is
    192.0.2.0/24; with a prefix shorter than 96 it is a network of IPv6 addresses that no packet has.
    """
    network = _parse_network(text, _parse_with_zeros)
    if network.prefix_length >= _MAPPED_BITS and network.address.startswith(_MAPPED_PREFIX):
        return Network(Address(network.address[-4:]), network.prefix_length - _MAPPED_BITS)
    return network


def _parse_network(text: str, parse: Callable[[str], Address]) -> Network:
    address_text, slash, length_text = text.partition("/")
    try:
        address = parse(address_text)
    except ValueError:
        raise ValueError(f"{text!r} is not a network in CIDR notation") from None
    bits = family(address).bits
    if not slash or not length_text.isascii() or not length_text.isdigit() or int(length_text) > bits:
        raise ValueError(f"{text!r} is not a network in CIDR notation: the prefix length is 0 to {bits}")
    shift = bits - int(length_text)
    masked = (int.from_bytes(address) >> shift) << shift
    return Network(Address(masked.to_bytes(bits // 8)), int(length_text))
