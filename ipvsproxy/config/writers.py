"""From the value of a setting to a text: the one that its reader reads as the same value again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ipvsproxy.config import readers
from ipvsproxy.config.durations import format_duration, parse_duration
from ipvsproxy.model.addresses import format_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipvsproxy.config.declaration import Setting
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.selection import NodePortAddresses


def write(setting: Setting, value: object) -> str:
    """Return the text that `setting.read` reads as this value; "" is a value that is the default."""
    return _WRITERS.get(setting.reader, str)(value)


def _boolean(value: object) -> str:
    return str(value).lower()


def _optional(value: object) -> str:
    return "" if value is None else str(value)


def _list(values: Iterable[object]) -> str:
    return ",".join(map(str, values))


def _allowed_networks(values: Iterable[object]) -> str:
    return _list(values) or readers.NONE


def _node_port_addresses(value: NodePortAddresses) -> str:
    return _list([*(["primary"] if value.primary else []), *value.networks]) or "all"


def _listening_address(value: tuple[Address, int] | None) -> str:
    return format_endpoint(*value) if value else readers.NONE


# Readers without an entry have values whose str() is the text.
_WRITERS: Final[dict[Callable[[str], object], Callable[[Any], str]]] = {
    parse_duration: format_duration,
    readers.read_period: format_duration,
    readers.read_timeout: format_duration,
    readers.read_boolean: _boolean,
    readers.read_optional_path: _optional,
    readers.read_networks: _list,
    readers.read_allowed_networks: _allowed_networks,
    readers.read_node_port_addresses: _node_port_addresses,
    readers.read_healthz_address: _listening_address,
    readers.read_metrics_address: _listening_address,
}
