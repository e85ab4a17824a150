"""Which log lines are also told on the agent's own Node, where `kubectl describe node` shows them.

The line has been logged already, in full, and without credentials: the Event repeats what an operator acts on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.model.notices import node_notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict

    from ipvsproxy.model.notices import Notice


class Told(NamedTuple):
    """How a log line becomes an Event: its reason, and its note with the line's fields in braces."""

    reason: str
    note: str
    warning: bool = True


LINES: Final = {
    # kube-proxy's reason.
    "starting": Told("Starting", "ipvsproxy {version} programs this node's Services", warning=False),
    "first sync failed": Told("FirstSyncFailed", "no Service is programmed yet: {reason}"),
    "host firewall drops": Told("HostFirewallDrops", "{meaning}"),
    "host firewall not changed": Told("HostFirewallDrops", "{reason}"),
    "kernel setting not made": Told(
        "KernelSettingNotMade", "{setting} can't be set to {wanted}, it is {found}: {reason}; {meaning}"
    ),
    "IPVS timeouts not set": Told("KernelSettingNotMade", "the timeouts of IPVS can't be set: {reason}"),
    "HTTP server not listening": Told("NotListening", "{setting}: {address} can't be had: {reason}"),
    "configuration refused, the one before stays in effect": Told(
        "ConfigurationRefused", "the configuration before it stays in effect: {reason}"
    ),
    "restart needed": Told(
        "RestartNeeded", "{setting} is {new} by now, and {old} until the agent is restarted"
    ),
}
"""The events of the log that are told."""


class NodeEvents:
    """Hears the log; what is to be told goes to whoever publishes it, once there is somebody."""

    def __init__(self, node_name: str) -> None:
        """Tell nobody yet."""
        self._node_name = node_name
        self._offer: Callable[[Notice], None] | None = None

    def publish(self, offer: Callable[[Notice], None]) -> None:
        """Have notices offered from now on; `offer` may be called by any thread, and must not wait."""
        self._offer = offer

    def hear(self, event: EventDict) -> None:
        """Tell of a line if it is one of those."""
        if self._offer and (told := LINES.get(event["event"])):
            note = told.note.format_map(event)
            self._offer(node_notice(self._node_name, told.reason, note, warning=told.warning))
