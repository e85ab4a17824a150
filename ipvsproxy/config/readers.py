"""From text to the value of a setting: each reader raises ValueError with a phrase that quotes what it got."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ipvsproxy.config.durations import parse_duration
from ipvsproxy.model.addresses import parse_network

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Network

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


def read_boolean(text: str) -> bool:
    """Read `true` or `false`."""
    if text.lower() not in {"true", "false"}:
        raise ValueError(f"{text!r} is not true or false")
    return text.lower() == "true"


def read_node_name(text: str) -> str:
    """Read a Node's name, in lower case as the kubelet registers it; "" stays "", the host's own name."""
    name = text.strip().lower()
    if text and not name:
        raise ValueError(f"{text!r} is not the name of a Node")
    return name


def read_optional_path(text: str) -> Path | None:
    """Read a path; "" is none."""
    return Path(text) if text else None


def read_networks(text: str) -> tuple[Network, ...]:
    """Read networks in CIDR notation with commas between them, at most one for each family; "" is none."""
    networks = tuple(parse_network(part.strip()) for part in text.split(",")) if text else ()
    if len({network.family for network in networks}) < len(networks):
        raise ValueError(f"{text!r} has more than one network of a family")
    return networks


def read_scheduler(text: str) -> str:
    """Read the name of an IPVS scheduler."""
    if text not in SCHEDULERS:
        raise ValueError(f"{text!r} is not an IPVS scheduler: {', '.join(SCHEDULERS)}")
    return text


def read_mark_bit(text: str) -> int:
    """Read the number of a bit of the packet mark, 0 to 31."""
    if not text.isascii() or not text.isdigit() or int(text) > HIGHEST_BIT:
        raise ValueError(f"{text!r} is not a bit of the packet mark: 0 to {HIGHEST_BIT}")
    return int(text)


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
