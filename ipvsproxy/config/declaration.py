"""How a setting is declared: once, as a field of `settings.Config`, with all that the other layers make of it."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")


class Group(enum.StrEnum):
    """The heading of the help under which a setting's flags stand."""

    SOURCE = "source of Services and EndpointSlices"
    BALANCING = "load balancing"
    ADDRESSES = "addresses"
    MASQUERADING = "masquerading"
    CONNECTION_TRACKING = "connection tracking"
    AGENT = "agent"


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """How a field of `Config` is set.

    `reader` turns text into the value and `default` is such a text. `flags` are the spellings on the command line,
    `metavar` stands for the text there. `path` is the field of KubeProxyConfiguration, with dots, "" without one.
    """

    name: str
    reader: Callable[[str], object]
    default: str
    flags: tuple[str, ...]
    metavar: str
    path: str
    group: Group
    meaning: str

    def read(self, text: str) -> object:
        """Return the value; an empty text means the default, as for kube-proxy. ValueError says what is wrong."""
        return self.reader(text or self.default)

    def __str__(self) -> str:
        """Return how people know it: `--sync-period (ipvs.syncPeriod)`."""
        return f"{self.flags[0]} ({self.path})" if self.path else self.flags[0]


def setting(
    reader: Callable[[str], Value],
    default: str,
    *flags: str,
    metavar: str,
    group: Group,
    meaning: str,
    path: str = "",
) -> Value:
    """Declare a field of `Config`: for the type checker its value, for `dataclasses` a field with a default."""
    details = {
        "reader": reader,
        "default": default,
        "flags": flags,
        "metavar": metavar,
        "path": path,
        "group": group,
        "meaning": meaning,
    }
    return dataclasses.field(default=reader(default), metadata=details)
