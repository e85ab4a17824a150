"""How one resource is followed, in three functions, each inside the one before.

* `Watcher.run`, endless: tries again after whatever failed, with a random pause that grows with each failure in a row.
* `Watcher._follow`: lists unless it knows the place to resume from, then watches. A failure that puts the place in
  doubt forgets it; the list that follows is compared with what the store holds, so deletions come to light.
* `Watcher._watch`: one HTTP request. Without a place it asks for the initial events (KEP-3157) instead of a list.

Nothing that fails here takes anything out of the store.
"""

from __future__ import annotations

import http
import random
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import msgspec
import tenacity

from ipvsproxy.source.decode import API_VERSIONS, NotAskedForError, check_kind, object_key
from ipvsproxy.source.kubernetes import messages
from ipvsproxy.source.kubernetes.client import ApiError, lines

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import urllib3
    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.source.decode import Decoded
    from ipvsproxy.source.health import WatchRecord
    from ipvsproxy.source.kubernetes.client import ApiServer, Limits

Value = TypeVar("Value")

_REMEDIES: Final[Mapping[int, str]] = {
    http.HTTPStatus.UNAUTHORIZED: "renew the token or client certificate: it is read again at each attempt",
    http.HTTPStatus.FORBIDDEN: (
        "allow the agent's user to list and watch this resource, by a ClusterRole as the chart has it"
    ),
}

# What a server that can't send the initial events answers: sendInitialEvents or resourceVersionMatch is forbidden.
_WITHOUT_INITIAL_EVENTS: Final = frozenset(
    {http.HTTPStatus.BAD_REQUEST, http.HTTPStatus.UNPROCESSABLE_ENTITY}
)

# Failures that say nothing about the place: the watch resumes there. 0 is a connection that failed.
_PLACE_IS_GOOD: Final = frozenset(
    {
        0,
        http.HTTPStatus.UNAUTHORIZED,
        http.HTTPStatus.FORBIDDEN,
        http.HTTPStatus.TOO_MANY_REQUESTS,
        http.HTTPStatus.BAD_GATEWAY,
        http.HTTPStatus.SERVICE_UNAVAILABLE,
    }
)


class Resource(NamedTuple, Generic[Value]):
    """What is followed, and where its objects go.

    `name` stands in log lines, `kind` is that of the objects; `selector` holds the query parameters that select them.
    """

    name: str
    kind: str
    path: str
    selector: Mapping[str, str]
    read: Callable[[msgspec.Raw], Decoded[Value]]
    replace: Callable[[list[Value], list[Rejection]], None]
    put: Callable[[Value, tuple[Rejection, ...]], None]
    remove: Callable[[ObjectKey], None]
    reject: Callable[[Rejection], None]


class Watcher(Generic[Value]):
    """Follows one resource, in the thread that calls `run`."""

    def __init__(
        self,
        api: ApiServer,
        resource: Resource[Value],
        limits: Limits,
        stopping: threading.Event,
        health: WatchRecord,
        log: FilteringBoundLogger,
    ) -> None:
        """Prepare; nothing is asked for before `run`, which ends soon after `stopping` is set.

        How it goes is noted in `health`.
        """
        self._api = api
        self._resource = resource
        self._limits = limits
        self._stopping = stopping
        self._health = health
        self._log = log.bind(resource=resource.name)
        self._backoff = tenacity.wait_random_exponential(limits.first_pause, limits.longest_pause)
        self._place = ""
        self._use_pages = False
        self._progressed = False
        self._place_is_gone = False
        self._listed_at_once = False
        self._trouble = ""
        self._reported: dict[ObjectKey, tuple[Rejection, ...]] = {}

    @property
    def name(self) -> str:
        """The resource's name."""
        return self._resource.name

    def run(self) -> None:
        """Follow the resource until stopped."""
        attempts = tenacity.Retrying(
            wait=self._next_pause,
            sleep=tenacity.sleep_using_event(self._stopping),
            stop=tenacity.stop_when_event_set(self._stopping),
            retry_error_callback=lambda _: None,
        )
        while not self._stopping.is_set():
            attempts(self._follow)

    def _next_pause(self, state: tenacity.RetryCallState) -> float:
        """Return how many seconds to wait after a failure; one after events is the first of a new row.

        A list is no event: a watch that fails after each list, again and again, gets longer pauses. That the place to
        resume from is gone says nothing against the server, which answered: the list that it calls for comes at once,
        but not a second time before an event.
        """
        if self._progressed:
            state.attempt_number = 1
            self._listed_at_once = False
        elif self._place_is_gone and not self._listed_at_once:
            self._listed_at_once = True
            return 0
        return self._backoff(state)

    def _follow(self) -> None:
        """List if need be, and watch until the server ends the watch in good order; raise whatever failed."""
        self._progressed = False
        try:
            if self._use_pages and not self._place:
                self._list_pages()
            self._watch()
        except Exception as error:
            status = error.status if isinstance(error, ApiError) else None
            self._place_is_gone = status == http.HTTPStatus.GONE
            if status not in _PLACE_IS_GOOD:
                self._place = ""
            if not self._stopping.is_set():
                self._health.failed(str(error), _REMEDIES.get(status or 0, ""))
                self._report_failure(error)
            raise

    def _watch(self) -> None:
        """Send one watch request and take what it brings, until it ends."""
        # The time is random, so that nodes which connected together do not come back together.
        seconds = self._limits.watch * random.uniform(0.5, 1)  # noqa: S311 - nothing secret hangs on it
        query = {
            **self._resource.selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        resuming = bool(self._place)
        if resuming:
            query["resourceVersion"] = self._place
        else:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        try:
            with self._api.get(self._resource.path, query, self._limits.silence) as response:
                self._answered()
                events = self._events(response)
                if not resuming:
                    self._take_initial(events)
                self._take(events)
        except ApiError as error:
            if resuming or error.status not in _WITHOUT_INITIAL_EVENTS:
                raise
            self._use_pages = True
            self._log.info("API server sends no initial events, listing in pages", reason=str(error))
            return
        if resuming and not self._progressed:
            raise ApiError("the watch ended before any event")

    def _events(self, response: urllib3.BaseHTTPResponse) -> Iterator[messages.Event]:
        """Yield the events of a watch; ApiError for an event that says that the watch has failed."""
        for line in lines(response):
            event = messages.read_event(line)
            if event.type == "ERROR":
                status = messages.read_status(event.object)
                reason = status.message or "the watch failed, and the API server does not say why"
                raise ApiError(reason, status.code or http.HTTPStatus.INTERNAL_SERVER_ERROR)
            # Objects that are put are looked at when they are read.
            if event.type in {"DELETED", "BOOKMARK"}:
                head = messages.read_head(event.object)
                check_kind(self._resource.kind, head.kind, head.api_version)
            self._health.heard()
            yield event

    def _take_initial(self, events: Iterator[messages.Event]) -> None:
        """Take the initial events up to the bookmark that ends them, as one list.

        Changes made meanwhile may come before the bookmark. They are taken after the list, in their order.
        """
        self._use_pages = True  # next time, unless the bookmark comes
        listed: list[Decoded[Value]] = []
        changes: list[messages.Event] = []
        for event in events:
            if event.type == "ADDED" and not changes:
                listed.append(self._resource.read(event.object))
            elif event.type != "BOOKMARK":
                changes.append(event)
            elif messages.ends_initial_events(event.object):
                self._use_pages = False
                self._replace(listed)
                self._take(changes)
                self._place = messages.resource_version(event.object)
                return
        raise ApiError("the watch ended before its initial events did")

    def _take(self, events: Iterable[messages.Event]) -> None:
        """Put each event's change into the store; the last one taken is the place to resume from."""
        latest: msgspec.Raw | None = None
        try:
            for event in events:
                if event.type == "DELETED":
                    self._remove(event.object)
                elif event.type != "BOOKMARK":
                    self._put(event.object)
                latest = event.object
                self._progressed = True
        finally:
            if latest is not None:
                # An object that does not tell its version leaves the place where it was.
                self._place = messages.resource_version(latest) or self._place

    def _list_pages(self) -> None:
        """List everything, page by page, and take it as the whole."""
        query = {**self._resource.selector, "limit": str(self._limits.page)}
        listed: list[Decoded[Value]] = []
        while True:
            try:
                metadata = self._read_page(query, listed)
            except ApiError as error:
                if error.status != http.HTTPStatus.GONE or "limit" not in query:
                    raise
                # The snapshot that the pages are from was compacted away: a list in one piece can't outlive its own.
                query = dict(self._resource.selector)
                listed.clear()
                continue
            if not metadata.continue_:
                break
            query["continue"] = metadata.continue_
        if not metadata.resource_version:
            raise NotAskedForError("a list without a resourceVersion came, from which no watch can go on")
        self._replace(listed)
        self._place = metadata.resource_version

    def _read_page(self, query: Mapping[str, str], listed: list[Decoded[Value]]) -> messages.Metadata:
        """Add what one page has to the list; its bytes are not kept."""
        kind = self._resource.kind
        with self._api.get(self._resource.path, query, self._limits.answer) as response:
            page = messages.read_page(response.read(), f"{API_VERSIONS[kind]}/{kind}List")
            self._answered()
        listed += map(self._resource.read, page.entries)
        return page.metadata

    def _replace(self, listed: Iterable[Decoded[Value]]) -> None:
        """Give the store a complete list."""
        values = [decoded.value for decoded in listed if decoded.value is not None]
        rejections = [rejection for decoded in listed for rejection in decoded.rejections]
        self._resource.replace(values, rejections)
        self._log.info("list received", objects=len(values), rejections=len(rejections))
        reported, self._reported = self._reported, {}
        for rejection in rejections:
            self._reported[rejection.key] = (*self._reported.get(rejection.key, ()), rejection)
        for key, found in self._reported.items():
            self._log_rejections(found, reported.get(key, ()))

    def _put(self, document: msgspec.Raw) -> None:
        """Do with one object what `source.decode` says."""
        value, rejections = self._resource.read(document)
        if value is not None:
            self._resource.put(value, rejections)
        elif rejections:
            self._resource.reject(rejections[0])
        else:
            self._remove(document)
        if rejections:
            key = rejections[0].key
            self._log_rejections(rejections, self._reported.get(key, ()))
            self._reported[key] = rejections
        elif self._reported:
            self._reported.pop(object_key(document), None)

    def _remove(self, document: msgspec.Raw) -> None:
        key = object_key(document)
        self._resource.remove(key)
        self._reported.pop(key, None)

    def _log_rejections(self, found: Iterable[Rejection], reported: tuple[Rejection, ...]) -> None:
        """Log what was not reported of the object before."""
        for rejection in found:
            if rejection not in reported:
                self._log.warning(
                    "object rejected",
                    kind=rejection.kind,
                    object=str(rejection.key),
                    field=rejection.field,
                    reason=rejection.reason,
                )

    def _answered(self) -> None:
        """Note that a request was answered, and log the end of a row of failures."""
        self._health.connected()
        self._health.heard()
        if self._trouble:
            self._trouble = ""
            self._log.info("API server answers again", url=self._api.url)

    def _report_failure(self, error: Exception) -> None:
        """Log a failure; one that repeats the last is for debugging only."""
        status = error.status if isinstance(error, ApiError) else 0
        if status == http.HTTPStatus.GONE:
            self._log.info("resource version expired, listing anew", reason=str(error))
            return
        log = self._log.bind(url=self._api.url, reason=str(error))
        if status:
            log = log.bind(status=status)
        if str(error) == self._trouble:
            log.debug("watch interrupted again")
        elif status in _REMEDIES:
            log.error("API server refuses the credentials", remedy=_REMEDIES[status])
        elif isinstance(error, ApiError):
            log.warning("watch interrupted")
        elif isinstance(error, msgspec.DecodeError | NotAskedForError):
            log.warning("API server sent what was not asked for")
        else:
            log.error("watch failed unexpectedly", exc_info=error)
        self._trouble = str(error)
