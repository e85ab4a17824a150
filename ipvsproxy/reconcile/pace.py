"""How often the reconciler looks: not before the minimum sync period since the last sync began, as kube-proxy does."""

from __future__ import annotations


class Pace:
    """Lets the first change through at once, and what follows it after the minimum period, together."""

    def __init__(self, minimum: float) -> None:
        """Set the minimum period in seconds; 0 never holds anything back."""
        self._minimum = minimum
        self._not_before = 0.0

    def pause(self, now: float) -> float:
        """Return the seconds until the next sync may begin, 0 or less when it may begin now."""
        return self._not_before - now

    def began(self, now: float) -> None:
        """Note that a sync begins."""
        self._not_before = now + self._minimum
