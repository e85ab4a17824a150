"""What failed, why, and when to try it again: with a pause of its own for each item, that doubles."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ipvsproxy.model.firewall import PORT_SETS, FirewallSet, SetElement
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.items import kind_of
from ipvsproxy.plan.desired import Touched
from ipvsproxy.plan.view import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipvsproxy.model.items import Item

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0


class Retries:
    """The failures that wait for their next try."""

    def __init__(self) -> None:
        """Begin without failures."""
        self._failures: dict[Item, Failure] = {}
        self._kinds: Counter[str] = Counter()

    @property
    def failures(self) -> Mapping[Item, Failure]:
        """All failures by item."""
        return self._failures

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many failures there are, by the kind of item."""
        return self._kinds

    @property
    def since(self) -> float | None:
        """When the failure came that is there for longest; None if there is none."""
        return min((failure.since for failure in self._failures.values()), default=None)

    def settle(self, tried: Touched, failures: Mapping[Item, str], now: float) -> None:
        """Forget what was tried and went well; put off what failed, by a longer pause if it was its turn."""
        if self._failures:
            tried_items: tuple[Item, ...] = (*tried.virtual_servers, *tried.elements, *tried.addresses)
            for item in tried_items:
                if item not in failures and item in self._failures:
                    del self._failures[item]
                    self._kinds[kind_of(item)] -= 1
        for item, reason in failures.items():
            known = self._failures.get(item)
            if known and known.reason == reason and now < known.next_try:
                continue
            if known is None:
                self._kinds[kind_of(item)] += 1
            attempts = known.attempts + 1 if known else 1
            pause = min(FIRST_PAUSE * 2 ** (attempts - 1), LONGEST_PAUSE)
            self._failures[item] = Failure(reason, attempts, now + pause, known.since if known else now)

    def spare(self, touched: Touched, now: float) -> None:
        """Take out of `touched` what waits for its next try."""
        if self._failures:
            touched.virtual_servers -= {each for each in touched.virtual_servers if self._waits(each, now)}
            touched.elements -= {each for each in touched.elements if self._waits(each, now)}
            touched.addresses -= {each for each in touched.addresses if self._waits(each, now)}

    def _waits(self, item: Item, now: float) -> bool:
        failure = self._failures.get(item)
        return failure is not None and failure.next_try > now

    def due(self, now: float) -> Touched:
        """Return the items whose pause is over."""
        return _touched(item for item, failure in self._failures.items() if failure.next_try <= now)

    def all(self) -> Touched:
        """Return all items, whatever their pauses."""
        return _touched(self._failures)

    def next_try(self) -> float | None:
        """Return when the next item is due; None if nothing failed."""
        return min((failure.next_try for failure in self._failures.values()), default=None)


def _touched(items: Iterable[Item]) -> Touched:
    touched = Touched()
    for item in items:
        if isinstance(item, VirtualServerKey):
            touched.virtual_servers.add(item)
            # What waited for the virtual server: its address to be bound, its elements to be removed.
            touched.addresses.add(item.address)
            touched.elements |= {SetElement(each, item) for each in PORT_SETS}
            touched.elements.add(SetElement(FirewallSet.SERVICE_ADDRESSES, (item.address,)))
        elif isinstance(item, SetElement):
            touched.elements.add(item)
        else:
            touched.addresses.add(item)
    return touched
