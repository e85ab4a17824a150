"""Which rejections and notices get an Event, so that no object, however wrong and however often, makes many.

Pure but for the clock, which is passed in. The limits are those of client-go's spam filter (EventSourceObjectSpamFilter
in tools/record/events_cache.go): a token bucket for each object; and one more for everything that the agent writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.notices import Told
    from ipvsproxy.model.objects import ObjectKey


class Allowance(NamedTuple):
    """How many Events may be written: `burst` at once, and one more every `refill` seconds."""

    burst: int
    refill: float


class EventLimits(NamedTuple):
    """What `EventFilter` is set to.

    The same one gets another Event after `repeat` seconds at the earliest: the API server keeps Events for an
    hour (--event-ttl), and until then the first one is still there. The allowances of `objects` objects are
    remembered; the object that was not heard of for longest makes room for another and begins anew.
    """

    of_object: Allowance = Allowance(25, 300)
    of_agent: Allowance = Allowance(100, 10)
    repeat: float = 3600
    objects: int = 4096


class EventFilter:
    """Decides about each of them, one after the other; for one thread."""

    def __init__(self, clock: Callable[[], float], limits: EventLimits = EventLimits()) -> None:  # noqa: B008 - immutable
        """Begin with full buckets; `clock` is monotonic, in seconds."""
        self._clock = clock
        self._limits = limits
        self._written: dict[Told, float] = {}
        self._of_objects: dict[tuple[str, ObjectKey, str], _Bucket] = {}
        self._of_agent = _Bucket(limits.of_agent, clock())

    def reason_against(self, told: Told) -> str:
        """Return why it gets no Event, "" if it gets one, which is counted then."""
        now = self._clock()
        self._forget(now)
        if told in self._written:
            return "an Event says so already"
        of_object = self._bucket(told, now)
        if not of_object.has_token(now):
            return "too many Events on this object"
        if not self._of_agent.has_token(now):
            return "too many Events"
        of_object.take()
        self._of_agent.take()
        self._written[told] = now
        return ""

    def _bucket(self, told: Told, now: float) -> _Bucket:
        """Return the object's bucket, as the one used last."""
        identity = (told.kind, told.key, told.uid)
        bucket = self._of_objects.pop(identity, None) or _Bucket(self._limits.of_object, now)
        self._of_objects[identity] = bucket
        if len(self._of_objects) > self._limits.objects:
            del self._of_objects[next(iter(self._of_objects))]
        return bucket

    def _forget(self, now: float) -> None:
        """Forget what may be written again; the oldest comes first."""
        while self._written:
            told, written = next(iter(self._written.items()))
            if now - written < self._limits.repeat:
                break
            del self._written[told]


class _Bucket:
    """A token bucket that begins full."""

    def __init__(self, allowance: Allowance, now: float) -> None:
        self._allowance = allowance
        self._tokens = float(allowance.burst)
        self._filled = now

    def has_token(self, now: float) -> bool:
        gained = (now - self._filled) / self._allowance.refill
        self._tokens = min(self._tokens + gained, self._allowance.burst)
        self._filled = now
        return self._tokens >= 1

    def take(self) -> None:
        self._tokens -= 1
