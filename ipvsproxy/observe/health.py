"""The agent's own health, as /healthz, /livez and /readyz show it.

The agent is healthy while its last success, a comparison of everything with the kernel, is not too long ago; before the
first one it is not. /healthz is what load balancers ask: it also turns 503 when the node is about to go, or is not
known, so that new clients come by other nodes. /livez and /readyz are about the agent alone. /readyz also turns 503
while a part of what should be in the kernel can't be programmed: a roll-out stops there. /livez and /healthz do not: a
restart would not help, and all the rest of the node serves.
/healthz and /livez have the bodies of kube-proxy's (pkg/proxy/healthcheck/proxy_health.go of 1.36). /readyz has a
line for a person who watches a roll-out.
"""

from __future__ import annotations

import datetime as dt
import http
import json
from typing import TYPE_CHECKING

from ipvsproxy.observe.http_connection import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What Go's zero time looks like in JSON, which kube-proxy shows for "never".
_NEVER = "0001-01-01T00:00:00Z"
# Both are compared with the kernel at once.
_FAMILIES = ("IPv4", "IPv6")


class Health:
    """Told of successes by one thread, asked by any: its state is one value that is replaced."""

    def __init__(
        self,
        timeout: float,
        tolerance: float,
        is_eligible: Callable[[], bool],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """Begin unhealthy.

        A success makes healthy for `timeout` seconds of `clock`, which is monotonic. What can't be programmed for more
        than `tolerance` seconds makes the agent not ready. `is_eligible` tells whether the node is one for new clients;
        it is called at each request. `wall_clock`, in seconds since the epoch, is for people to read.
        """
        self._timeout = timeout
        self._tolerance = tolerance
        self._failing_since: float | None = None
        self._is_eligible = is_eligible
        self._clock = clock
        self._wall_clock = wall_clock
        self._last_success: float | None = None

    def succeeded(self) -> None:
        """Note that everything is, at this moment, as it should be."""
        self._last_success = self._clock()

    def fails(self, since: float | None) -> None:
        """Note since when a part of what should be in the kernel is not; None if all is there."""
        self._failing_since = since

    def expect(self, timeout: float, tolerance: float) -> None:
        """Go by other times from now on."""
        self._timeout, self._tolerance = timeout, tolerance

    def is_healthy(self) -> bool:
        """Say whether the last success is recent; whether the node is eligible plays no part."""
        last = self._last_success
        return last is not None and self._clock() - last <= self._timeout

    def answer(self, path: str) -> Response | None:
        """Answer /healthz, /livez and /readyz."""
        if path == "/readyz":
            return self._readiness()
        if path == "/healthz":
            eligible = self._is_eligible()
            return self._answer(good=self.is_healthy() and eligible, node={"nodeEligible": eligible})
        if path == "/livez":
            return self._answer(good=self.is_healthy(), node={})
        return None

    def _answer(self, *, good: bool, node: Mapping[str, bool]) -> Response:
        last, now, healthy = self._last_success, self._wall_clock(), self.is_healthy()
        updated = _NEVER if last is None else _rfc3339(now - (self._clock() - last))
        body = {
            # kube-proxy's is the present for who may go by it alone, and the truth is in `status`.
            "lastUpdated": _rfc3339(now) if good else updated,
            "currentTime": _rfc3339(now),
            **node,
            "healthy": healthy,
        }
        if last is not None:
            body["status"] = {family: {"lastUpdated": updated, "healthy": healthy} for family in _FAMILIES}
        status = http.HTTPStatus.OK if good else http.HTTPStatus.SERVICE_UNAVAILABLE
        return Response(status, json.dumps(body, separators=(",", ":")).encode(), "application/json")

    def _readiness(self) -> Response:
        reason = self._reason()
        if reason is None:
            return Response(http.HTTPStatus.OK, b"ready\n")
        return Response(http.HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {reason}\n".encode())

    def _reason(self) -> str | None:
        """Return why the agent is not ready; None if it is."""
        last, since, now = self._last_success, self._failing_since, self._clock()
        if last is None:
            return "nothing has been compared with the kernel yet, the log says what is waited for"
        if not self.is_healthy():
            return f"the last comparison with the kernel was {now - last:.0f} s ago, the log says why"
        if since is not None and now - since > self._tolerance:
            return f"the kernel lacks a part of what it should have for {now - since:.0f} s, see `ipvsproxy dump`"
        return None


def _rfc3339(seconds: float) -> str:
    """Return a time as Go's encoding/json writes one in UTC."""
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}".rstrip("0").rstrip(".") + "Z"
