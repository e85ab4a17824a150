"""What of the host's firewall stands in the way of service traffic, told once and kept to be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.kernel.host_firewall import HostFirewall

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger


class HostFirewallWatch:
    """Looks when it is told to, in one thread; the warnings may be read by any."""

    def __init__(self, look: Callable[[], HostFirewall], log: FilteringBoundLogger) -> None:
        """Take what looks at the host's firewall."""
        self._look = look
        self._log = log
        self._found = HostFirewall()

    @property
    def warnings(self) -> list[str]:
        """What was found at the last look, and what could not be looked at: sentences without a full stop."""
        return [*map(str, self._found.findings), *self._found.unseen]

    def look(self) -> None:
        """Look, and write a line for each thing that was not there at the last look."""
        before, self._found = self._found, self._look()
        for finding in self._found.findings:
            if finding not in before.findings:
                self._log.warning(
                    "host firewall drops on input",
                    backend=finding.backend,
                    family=finding.family,
                    table=finding.table,
                    chain=finding.chain,
                    priority=finding.priority,
                    why=finding.why,
                    meaning=str(finding),
                )
        for reason in self._found.unseen:
            if reason not in before.unseen:
                self._log.info("host firewall not looked at", reason=reason)
