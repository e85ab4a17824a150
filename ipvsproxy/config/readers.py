"""From text to the value of a setting: each reader raises ValueError with a phrase that quotes what it got."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from ipvsproxy.config.durations import parse_duration
from ipvsproxy.model.addresses import parse_address, parse_network
from ipvsproxy.model.selection import NodePortAddresses

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Address, Network

    Choice = TypeVar("Choice", bound=enum.StrEnum)

# net/netfilter/ipvs: one module each, ip_vs_rr to ip_vs_twos.
SCHEDULERS = (
    "rr",
    "wrr",
    "lc",
    "wlc",
    "sh",
    "dh",
    "mh",
    "sed",
    "nq",
    "lblc",
    "lblcr",
    "fo",
    "ovf",
    "twos",
)
HIGHEST_BIT = 31  # of the 32 bits of a packet's mark
HIGHEST_PORT = 65535
HIGHEST_NUMBER = 2**31 - 1  # of an int32, which numbers are in KubeProxyConfiguration and below /proc/sys
# kube-proxy's, of an address without a port.
HEALTHZ_PORT = 10256
METRICS_PORT = 10249

NONE = "none"
MODE = "ipvs"  # the one mode that is what the agent does

# strconv.ParseBool
_TRUE = frozenset({"true", "t", "1"})
_FALSE = frozenset({"false", "f", "0"})
# A word of nodePortAddresses. IPVS serves no loopback address: these are accepted, and select nothing.
_LOCALHOST = (parse_network("127.0.0.0/8"), parse_network("::1/128"))
_ADDRESS_AND_PORT = re.compile(r"(?:\[(?P<ipv6>.*:.*)\]|(?P<ipv4>[^:]*)):(?P<port>[0-9]{1,5})")
# dev_valid_name in net/core/dev.c, IFNAMSIZ less the zero at the end; nft has a meaning of its own for three more.
_INTERFACE = re.compile(r"[^\s/:\"\\*]{1,15}")
# nft writes a prefix with a `*` behind it, and that counts.
_INTERFACE_PREFIX = re.compile(r"[^\s/:\"\\*]{1,14}")


def read_boolean(text: str) -> bool:
    """Read `true` or `false`, and the shorter spellings that Go's flags have for them."""
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(f"{text!r} is not true or false")
    return text.lower() in _TRUE


def read_node_name(text: str) -> str:
    """Read a Node's name, in lower case as the kubelet registers it; "" stays "", the host's own name."""
    name = text.strip().lower()
    if text and not name:
        raise ValueError(f"{text!r} is not the name of a Node")
    return name


def read_optional_path(text: str) -> Path | None:
    """Read a path; "" is none."""
    return Path(text) if text else None


def read_server(text: str) -> str:
    """Read the address of an API server, `HOST[:PORT]` with or without http:// or https:// before it; "" is none."""
    place = urlsplit(text if "://" in text else f"//{text}")
    if text and (
        place.scheme not in {"", "http", "https"} or not place.hostname or any(map(str.isspace, text))
    ):
        raise ValueError(f"{text!r} is not the address of a server such as https://203.0.113.1:6443")
    return text.rstrip("/")


def read_networks(text: str) -> tuple[Network, ...]:
    """Read networks in CIDR notation with commas between them, at most one for each family; "" is none."""
    networks = _networks(text) if text else ()
    if len({network.family for network in networks}) < len(networks):
        raise ValueError(f"{text!r} has more than one network of a family")
    return networks


def read_allowed_networks(text: str) -> tuple[Network, ...]:
    """Read any number of networks in CIDR notation with commas between them, or `none`."""
    return () if text == NONE else _networks(text)


def read_node_port_addresses(text: str) -> NodePortAddresses:
    """Read networks in CIDR notation and the words `primary`, `localhost` and `all`, with commas between them."""
    parts = [part.strip() for part in text.split(",")]
    networks = [_networks_of_node_ports(part) for part in parts if part not in {"primary", "all"}]
    if "all" in parts:
        return NodePortAddresses()
    return NodePortAddresses("primary" in parts, tuple(network for some in networks for network in some))


def listening_address(default_port: int) -> Callable[[str], tuple[Address, int] | None]:
    """Return the reader of ADDRESS:PORT, with brackets around an IPv6 address, or of an ADDRESS alone.

    `none` is None.
    """

    def read(text: str) -> tuple[Address, int] | None:
        if text == NONE:
            return None
        found = _ADDRESS_AND_PORT.fullmatch(text)
        host, port = (found["ipv6"] or found["ipv4"], int(found["port"])) if found else (text, default_port)
        with contextlib.suppress(ValueError):
            if 0 < port <= HIGHEST_PORT:
                return parse_address(host), port
        raise ValueError(
            f"{text!r} is not an address and a port such as 0.0.0.0:{default_port} or [::]:{default_port}, or {NONE}"
        )

    return read


read_healthz_address = listening_address(HEALTHZ_PORT)
read_metrics_address = listening_address(METRICS_PORT)


def read_bridge_interface(text: str) -> str:
    """Read an interface's name; "" is none."""
    if text and not _INTERFACE.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of an interface")
    return text


def read_interface_name_prefix(text: str) -> str:
    """Read the beginning of interfaces' names, without a `*` behind it; "" is none."""
    if text and not _INTERFACE_PREFIX.fullmatch(text):
        raise ValueError(
            f"{text!r} is not how the names of interfaces begin: up to 14 characters, without `*`"
        )
    return text


def read_scheduler(text: str) -> str:
    """Read the name of an IPVS scheduler."""
    if text not in SCHEDULERS:
        raise ValueError(f"{text!r} is not an IPVS scheduler: {', '.join(SCHEDULERS)}")
    return text


def read_mark_bit(text: str) -> int:
    """Read the number of a bit of the packet mark, 0 to 31."""
    if not _is_number(text, HIGHEST_BIT):
        raise ValueError(f"{text!r} is not a bit of the packet mark: 0 to {HIGHEST_BIT}")
    return int(text)


def read_count(text: str) -> int:
    """Read a number of at least 0."""
    if not _is_number(text, HIGHEST_NUMBER):
        raise ValueError(f"{text!r} is not a number: 0 to {HIGHEST_NUMBER}")
    return int(text)


def read_timeout(text: str) -> int:
    """Read a duration, in whole seconds, rounded up; the kernel counts no fractions."""
    seconds = math.ceil(parse_duration(text))
    if seconds > HIGHEST_NUMBER:
        raise ValueError(f"{text!r} is longer than the kernel can count: {HIGHEST_NUMBER}s")
    return seconds


def read_period(text: str) -> float:
    """Read a duration of more than zero, in seconds."""
    seconds = parse_duration(text)
    if not seconds:
        raise ValueError(f"{text!r} is not a duration of more than zero")
    return seconds


def one_of(choices: type[Choice]) -> Callable[[str], Choice]:
    """Return the reader of an enumeration's values."""

    def read(text: str) -> Choice:
        try:
            return choices(text)
        except ValueError:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}") from None

    return read


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(parse_network(part.strip()) for part in text.split(","))


def _networks_of_node_ports(word: str) -> tuple[Network, ...]:
    if word == "localhost":
        return _LOCALHOST
    try:
        return (parse_network(word),)
    except ValueError as error:
        raise ValueError(f"{error}, nor primary, localhost or all") from None


def _is_number(text: str, highest: int) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= highest
