"""What virtual servers, addresses and set elements are called in what people read, and in which order they come."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.firewall import SetElement
from ipvsproxy.model.ipvs import ServiceFlag, VirtualServerKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import ElementFields
    from ipvsproxy.model.items import Item


def address_of(item: Item) -> Address | None:
    """Return the address that the item is about, None if it is about all."""
    return item.address if isinstance(item, (VirtualServerKey, SetElement)) else item


def flag_names(flags: int) -> list[str]:
    """Return the names of a virtual server's flags, in lower case with hyphens, as `dump` has them."""
    return [(flag.name or "").lower().replace("_", "-") for flag in ServiceFlag(flags)]


def flags_of(names: Iterable[str]) -> int:
    """Return the flags with these names; KeyError for one that is no flag's."""
    flags = ServiceFlag(0)
    for name in names:
        flags |= ServiceFlag[name.upper().replace("-", "_")]
    return int(flags)


def by_address(address: Address) -> tuple[int, Address]:
    """Return what IPv4 addresses sort before IPv6 ones by, and each family by number."""
    return len(address), address


def by_key(key: VirtualServerKey) -> tuple[int, VirtualServerKey]:
    """Return what virtual servers sort by: the address as in `by_address`, then the protocol, then the port."""
    return len(key.address), key


def by_element(element: SetElement) -> tuple[str, int, ElementFields]:
    """Return what set elements sort by: the name of the set, then the fields by number; source lists by name."""
    return element.set, element.family.bits if element.family else 0, element.fields


def mentions(text: str, address: Address) -> bool:
    """Say whether a text for people names the address in its canonical spelling, alone or with a port."""
    after = r"\w|\.\d|/\d" if len(address) == 4 else r"\w|/\d|:[\w:]"  # noqa: PLR2004 - bytes of an IPv4 address
    return re.search(rf"(?<![\w.:]){re.escape(format_address(address))}(?!{after})", text) is not None
