"""What connection tracking holds of clients' flows, and has to forget when their way changes.

An entry keeps for good how its first packet was translated, and whether its source was masqueraded. So what a client
sent before there was a virtual server, or through a real server that is gone, decides about all that it sends later,
as long as it keeps its port and sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.kernel.interface import UNREACHABLE, Flow
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.kernel.interface import Conntrack
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.plan.desired import Desired


def stale_flow(key: VirtualServerKey) -> Flow:
    """Return what has to begin anew of the flows to a service port which was not translated as it is now.

    A connection that somebody has answered goes on. UDP has no connections, only flows.
    """
    return Flow(key, unanswered=key.protocol is not Protocol.UDP)


class Flows:
    """The flows of all clients; what could not be forgotten is tried once more."""

    def __init__(self, conntrack: Conntrack, desired: Desired, log: FilteringBoundLogger) -> None:
        """Take connection tracking, and what is desired, to be looked at only."""
        self._conntrack = conntrack
        self._desired = desired
        self._log = log
        self._left: set[Flow] = set()

    def before(self, created: AbstractSet[VirtualServerKey]) -> set[Flow]:
        """Return the flows of clients who came before these virtual servers were there."""
        return {stale_flow(key) for key, _ in self._ways_to(created)}

    def between(self, keys: Iterable[VirtualServerKey], bound: AbstractSet[Address]) -> set[Flow]:
        """Return the flows of clients who came to these virtual servers before their addresses were bound just now.

        Nobody has translated those. What came since is translated already, and stays.
        """
        return {
            stale_flow(key)._replace(endpoint=(key.address, key.port)) for key in keys if key.address in bound
        }

    def through(self, gone: Mapping[VirtualServerKey, AbstractSet[tuple[Address, int]]]) -> set[Flow]:
        """Return the flows that went to these real servers of virtual servers, by all addresses that lead to them."""
        return {Flow(key, place) for key, target in self._ways_to(gone.keys()) for place in gone[target]}

    def forget(self, flows: set[Flow], done: Counter[str]) -> None:
        """Delete the entries of these flows, and of those that are left of the last time; count them in `done`."""
        stale, self._left = self._left | flows, set()
        if not stale:
            return
        try:
            if count := self._conntrack.forget(stale):
                done["flows moved on"] += count
        except UNREACHABLE as error:
            self._left = flows
            self._log.warning(
                "connection tracking entries not deleted, clients may go on without an answer",
                flows=len(stale),
                reason=str(error),
            )

    def _ways_to(
        self, keys: AbstractSet[VirtualServerKey]
    ) -> Iterator[tuple[VirtualServerKey, VirtualServerKey]]:
        """Yield what clients send to, and which of these virtual servers has it then."""
        yield from ((key, key) for key in keys)
        yield from self._desired.redirected_to(keys)
