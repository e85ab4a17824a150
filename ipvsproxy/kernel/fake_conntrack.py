"""Connection tracking in memory: the entries that tests put in, and what is left of them.

The contract suite of the tests holds it to what the kernel does. On top it fails on demand, and keeps a log of what
took effect, which it can share with the other fakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.interface import Flow

if TYPE_CHECKING:
    from collections.abc import Collection

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey


class ConntrackEntry(NamedTuple):
    """An entry: a client sent from `source` to `destination`, and `endpoint` answers; each address and port.

    Without NAT `endpoint` is the destination's address and port. IPVS has a part in entries of zone 0 only. `answered`
    says that a reply was seen.
    """

    source: tuple[Address, int]
    destination: VirtualServerKey
    endpoint: tuple[Address, int]
    zone: int = 0
    answered: bool = True


class ForgottenEntries(NamedTuple):
    """The entries that one call of `forget` deleted, in the log."""

    entries: frozenset[ConntrackEntry]


class FakeConntrack:
    """Entries in memory, to be added to at will; `log` has a ForgottenEntries for each call that deleted some."""

    def __init__(self, log: list[object] | None = None) -> None:
        """Begin without entries; what is deleted is appended to `log`."""
        self.log: list[object] = [] if log is None else log
        self.entries: set[ConntrackEntry] = set()
        self._errors: list[Exception] = []

    def fail_calls(self, error: Exception, calls: int = 1) -> None:
        """Raise the error from the next calls, as if the kernel were out of reach; nothing takes effect then."""
        self._errors = [error] * calls

    def forget(self, flows: Collection[Flow]) -> int:
        """Delete the entries of these flows; return how many there were."""
        if self._errors:
            raise self._errors.pop()
        wanted = set(flows)
        found = frozenset(
            entry
            for entry in self.entries
            if entry.zone == 0
            and any(
                Flow(entry.destination, endpoint, unanswered) in wanted
                for endpoint in (None, entry.endpoint)
                for unanswered in ((False,) if entry.answered else (False, True))
            )
        )
        self.entries -= found
        if found:
            self.log.append(ForgottenEntries(found))
        return len(found)
