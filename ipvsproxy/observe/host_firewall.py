"""What of the host's firewall stands in the way of service traffic, told once and kept to be shown."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ipvsproxy.kernel.host_firewall import HostFirewall

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger


class HostFirewallWatch:
    """Looks when it is asked to, in a thread of its own named `host-firewall`: programs are run for it."""

    def __init__(self, look: Callable[[], HostFirewall], log: FilteringBoundLogger) -> None:
        """Take what looks at the host's firewall."""
        self._look = look
        self._log = log
        self._found = HostFirewall()
        self._asked = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="host-firewall", daemon=True)

    @property
    def warnings(self) -> list[str]:
        """What was found at the last look, and what could not be looked at: sentences without a full stop."""
        return [*map(str, self._found.findings), *self._found.unseen]

    def ask(self) -> None:
        """Ask for another look; from any thread."""
        self._asked.set()

    def start(self) -> None:
        """Start to look when asked."""
        self._thread.start()

    def stop(self) -> None:
        """Make the thread end soon."""
        self._stopping = True
        self._asked.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end after `stop`, at most for `timeout` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopping:
                return
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - a look that fails is no reason to look no more
                self._log.error("host firewall look failed", exc_info=error)

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
