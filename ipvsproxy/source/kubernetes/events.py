"""Events that tell people, on the object itself, what the agent can't use of it: `kubectl describe` shows them.

Every agent of the cluster sees the same bad object. They write one Event between them: its name follows from the
object and the reason, so the first POST makes it, and the API server answers the others 409, already exists. A POST of
each agent is the cost, and it stores nothing: before it the agent waits at random, the longer the more nodes there
are. So the API server gets 50 of these requests a second about one object, at most 100 about many, whatever the size
of the cluster, and the first one comes after a moment all the same.

The Event names as its reportingInstance the node whose agent was first. The API server forgets it after an hour
(--event-ttl), also if nobody has mended the object; the log and `dump` go on telling.

Written through events.k8s.io/v1 (KEP-383); `kubectl describe` finds Events by kind, namespace, name and uid.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http
import queue
import random
import threading
import urllib.parse
from typing import TYPE_CHECKING, Final

import tenacity

from ipvsproxy.source.kubernetes.client import ApiError, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.source.kubernetes.client import ApiServer

NODES_PER_SECOND: Final = 50
QUEUE_LENGTH: Final = 1000
ATTEMPTS: Final = 4

_CONTROLLER: Final = "ipvsproxy"
_API_VERSIONS: Final = {
    "Service": "v1",
    "Endpoints": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Node": "v1",
}
# Where Events about objects without a namespace belong.
_DEFAULT_NAMESPACE: Final = "default"

# pkg/apis/core/validation/events.go of Kubernetes: the lengths are in bytes. Names are DNS subdomains.
_NOTE_BYTES: Final = 1024
_INSTANCE_BYTES: Final = 128
_NAME_BYTES: Final = 253

# Failures that another attempt may not meet; 0 is a connection that failed.
_PASSING: Final = frozenset(
    {
        0,
        http.HTTPStatus.TOO_MANY_REQUESTS,
        http.HTTPStatus.INTERNAL_SERVER_ERROR,
        http.HTTPStatus.BAD_GATEWAY,
        http.HTTPStatus.SERVICE_UNAVAILABLE,
        http.HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_REMEDIES: Final[Mapping[int, str]] = {
    http.HTTPStatus.UNAUTHORIZED: "renew the token or client certificate: it is read again at each attempt",
    http.HTTPStatus.FORBIDDEN: "allow the agent's user to create events of events.k8s.io",
}


class EventPublisher:
    """Writes Events in a thread of its own named `events`; whatever goes wrong there is logged and harms nothing."""

    def __init__(
        self,
        node_name: str,
        reason_against: Callable[[Rejection], str],
        log: FilteringBoundLogger,
        *,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """Take rejections from now on; nothing is sent before `start`.

        `reason_against` says why a rejection gets no Event, "" if it gets one; it is called in the thread. `sleep`
        takes seconds; without one `stop` ends the pauses.
        """
        self._node_name = node_name
        self._reason_against = reason_against
        self._log = log
        self._now = now
        self._stopping = threading.Event()
        self._sleep = sleep or tenacity.sleep_using_event(self._stopping)
        self._queue: queue.Queue[Rejection | None] = queue.Queue(QUEUE_LENGTH)
        self._trouble: int | None = None
        self._thread: threading.Thread | None = None

    def offer(self, rejection: Rejection) -> None:
        """Have an Event written, if there is none and there are not too many; from any thread, without waiting."""
        try:
            self._queue.put_nowait(rejection)
        except queue.Full:
            self._report_drop(rejection, "too many are waiting")

    def start(self, api: ApiServer, nodes: Callable[[], int], limits: Limits | None = None) -> None:
        """Begin to write. `nodes` tells how many nodes the cluster has, roughly, 0 if that is not known."""
        self._thread = threading.Thread(
            target=self._run, args=(api, nodes, limits or Limits()), name="events", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Make the thread end soon; what waits is not written."""
        self._stopping.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end after `stop`, at most for `timeout` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self, api: ApiServer, nodes: Callable[[], int], limits: Limits) -> None:
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random_exponential(limits.first_pause, limits.longest_pause),
            sleep=self._sleep,
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(ATTEMPTS), tenacity.stop_when_event_set(self._stopping)
            ),
            reraise=True,
        )
        while (rejection := self._queue.get()) is not None and not self._stopping.is_set():
            try:
                if reason := self._reason_against(rejection):
                    self._report_drop(rejection, reason)
                    continue
                self._sleep(random.uniform(0, nodes() / NODES_PER_SECOND))  # noqa: S311 - nothing secret hangs on it
                if not self._stopping.is_set():
                    attempts(self._write, api, rejection)
            except Exception as error:  # noqa: BLE001 - the next one is another matter
                if not self._stopping.is_set():
                    self._report_failure(rejection, error)

    def _write(self, api: ApiServer, rejection: Rejection) -> None:
        document = event(rejection, self._node_name, self._now())
        namespace = urllib.parse.quote(_namespace(rejection), safe="")
        try:
            api.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", document)
        except ApiError as error:
            if error.status != http.HTTPStatus.CONFLICT:
                raise
        if self._trouble is not None:
            self._trouble = None
            self._log.info("Events are written again", url=api.url)

    def _report_drop(self, rejection: Rejection, reason: str) -> None:
        self._log.debug("no Event written", kind=rejection.kind, object=str(rejection.key), reason=reason)

    def _report_failure(self, rejection: Rejection, error: Exception) -> None:
        """Log a failure; one that is like the last is for debugging only."""
        if not isinstance(error, ApiError):
            self._log.error("Event failed unexpectedly", exc_info=error)
        elif _namespace_is_going(error) or error.status == self._trouble:
            self._report_drop(rejection, str(error))
        else:
            self._trouble = error.status
            log = self._log.bind(reason=str(error), status=error.status)
            if error.status in _REMEDIES:
                log.error("API server refuses Events", remedy=_REMEDIES[error.status])
            else:
                log.warning("Event not written", kind=rejection.kind, object=str(rejection.key))


def event(rejection: Rejection, node_name: str, now: dt.datetime) -> dict[str, object]:
    """Return the Event as JSON has it; those of all agents about the same thing have the same name."""
    namespace, name = rejection.key
    regarding = {
        "apiVersion": _API_VERSIONS[rejection.kind],
        "kind": rejection.kind,
        "namespace": namespace,
        "name": name,
        "uid": rejection.uid,
    }
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": _namespace(rejection), "name": _event_name(rejection)},
        "eventTime": now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Warning",
        "reason": "Rejected",
        "action": "Program",
        "note": _cut(
            f"{rejection.field}: {rejection.reason}" if rejection.field else rejection.reason, _NOTE_BYTES
        ),
        "regarding": {field: text for field, text in regarding.items() if text},
        "reportingController": _CONTROLLER,
        "reportingInstance": _cut(node_name, _INSTANCE_BYTES),
    }


def _namespace(rejection: Rejection) -> str:
    return rejection.key.namespace or _DEFAULT_NAMESPACE


def _event_name(rejection: Rejection) -> str:
    """Return OBJECT.DIGEST; the uid makes it another one for an object that is deleted and made again."""
    identity = "\0".join((rejection.kind, *rejection.key, rejection.uid, rejection.field, rejection.reason))
    digest = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
    return f"{rejection.key.name[: _NAME_BYTES - len(digest) - 1].rstrip('.-')}.{digest}"


def _cut(text: str, limit: int) -> str:
    """Return no more than so many bytes of the text, characters whole."""
    return text.encode()[:limit].decode(errors="ignore")


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.status in _PASSING


def _namespace_is_going(error: ApiError) -> bool:
    """Say whether the object's namespace is gone or being deleted, and the object with it."""
    return error.status == http.HTTPStatus.NOT_FOUND or "NamespaceTerminating" in error.causes
