"""Events that tell people, on the object itself, what the agent can't use of it: `kubectl describe` shows them.

Every agent of the cluster sees the same bad object. They write one Event between them: its name follows from the
object and the reason, so the first POST makes it, and the API server answers the others 409, already exists. A POST of
each agent is the cost, and it stores nothing: before it the agent waits at random, the longer the more nodes there
are. So the API server gets 50 of these requests a second about one object, at most 100 about many, whatever the size
of the cluster, and the first one comes after a moment all the same.

The Event names as its reportingInstance the node whose agent was first. The API server forgets it after an hour
(--event-ttl), also if nobody has mended the object; the log and `dump` go on telling.

What the agent has to say of its own Node is told in the same way, by that one agent. A warning is about a state, so
there is one for as long as the API server keeps it; what is no warning is about a moment, and has a name of its own.

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

from ipvsproxy.model.notices import Notice
from ipvsproxy.source.decode import API_VERSIONS
from ipvsproxy.source.kubernetes.client import ApiError, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.notices import Told
    from ipvsproxy.source.kubernetes.client import ApiServer

NODES_PER_SECOND: Final = 50
QUEUE_LENGTH: Final = 1000
ATTEMPTS: Final = 4

_CONTROLLER: Final = "ipvsproxy"
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
        reason_against: Callable[[Told], str],
        log: FilteringBoundLogger,
        *,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """Take rejections and notices from now on; nothing is sent before `start`.

        `reason_against` says why one gets no Event, "" if it gets one; it is called in the thread. `sleep`
        takes seconds; without one `stop` ends the pauses.
        """
        self._node_name = node_name
        self._reason_against = reason_against
        self._log = log
        self._now = now
        self._stopping = threading.Event()
        self._sleep = sleep or tenacity.sleep_using_event(self._stopping)
        self._queue: queue.Queue[Told | None] = queue.Queue(QUEUE_LENGTH)
        self._trouble: int | None = None
        self._thread: threading.Thread | None = None

    def offer(self, told: Told) -> None:
        """Have an Event written, if there is none and there are not too many; from any thread, without waiting."""
        try:
            self._queue.put_nowait(told)
        except queue.Full:
            self._report_drop(told, "too many are waiting")

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
        while (told := self._queue.get()) is not None and not self._stopping.is_set():
            try:
                if reason := self._reason_against(told):
                    self._report_drop(told, reason)
                    continue
                self._sleep(random.uniform(0, nodes() / NODES_PER_SECOND))  # noqa: S311 - nothing secret hangs on it
                if not self._stopping.is_set():
                    attempts(self._write, api, told)
            except Exception as error:  # noqa: BLE001 - the next one is another matter
                if not self._stopping.is_set():
                    self._report_failure(told, error)

    def _write(self, api: ApiServer, told: Told) -> None:
        document = event(told, self._node_name, self._now())
        namespace = urllib.parse.quote(_namespace(told), safe="")
        try:
            api.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", document)
        except ApiError as error:
            if error.status != http.HTTPStatus.CONFLICT:
                raise
        if self._trouble is not None:
            self._trouble = None
            self._log.info("Events are written again", url=api.url)

    def _report_drop(self, told: Told, reason: str) -> None:
        self._log.debug("no Event written", kind=told.kind, object=str(told.key), reason=reason)

    def _report_failure(self, told: Told, error: Exception) -> None:
        """Log a failure; one that is like the last is for debugging only."""
        if not isinstance(error, ApiError):
            self._log.error("Event failed unexpectedly", exc_info=error)
        elif _namespace_is_going(error) or error.status == self._trouble:
            self._report_drop(told, str(error))
        else:
            self._trouble = error.status
            log = self._log.bind(reason=str(error), status=error.status)
            if error.status in _REMEDIES:
                log.error("API server refuses Events", remedy=_REMEDIES[error.status])
            else:
                log.warning("Event not written", kind=told.kind, object=str(told.key))


def event(told: Told, node_name: str, now: dt.datetime) -> dict[str, object]:
    """Return the Event as JSON has it; those of all agents about the same thing have the same name."""
    namespace, name = told.key
    regarding = {
        "apiVersion": API_VERSIONS[told.kind],
        "kind": told.kind,
        "namespace": namespace,
        "name": name,
        "uid": told.uid,
    }
    time = now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    warning, reason, note = _words(told)
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": _namespace(told), "name": _event_name(told, "" if warning else time)},
        "eventTime": time,
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "action": "Program",
        "note": _cut(note, _NOTE_BYTES),
        "regarding": {field: text for field, text in regarding.items() if text},
        "reportingController": _CONTROLLER,
        "reportingInstance": _cut(node_name, _INSTANCE_BYTES),
    }


def _words(told: Told) -> tuple[bool, str, str]:
    """Return whether it is a warning, its reason and its note."""
    if isinstance(told, Notice):
        return told.warning, told.reason, told.note
    return True, "Rejected", f"{told.field}: {told.reason}" if told.field else told.reason


def _namespace(told: Told) -> str:
    return told.key.namespace or _DEFAULT_NAMESPACE


def _event_name(told: Told, moment: str) -> str:
    """Return OBJECT.DIGEST; the uid makes it another one for an object that is deleted and made again."""
    _, reason, note = _words(told)
    identity = "\0".join((told.kind, *told.key, told.uid, reason, note, moment))
    digest = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
    return f"{told.key.name[: _NAME_BYTES - len(digest) - 1].rstrip('.-')}.{digest}"


def _cut(text: str, limit: int) -> str:
    """Return no more than so many bytes of the text, characters whole."""
    return text.encode()[:limit].decode(errors="ignore")


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.status in _PASSING


def _namespace_is_going(error: ApiError) -> bool:
    """Say whether the object's namespace is gone or being deleted, and the object with it."""
    return error.status == http.HTTPStatus.NOT_FOUND or "NamespaceTerminating" in error.causes
