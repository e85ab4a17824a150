"""What the API server for tests holds: objects, and every change of them by resource version, as etcd would."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, TypeAlias

import msgspec

Object: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str]


class Resource(NamedTuple):
    """A kind of objects that the server knows."""

    name: str
    kind: str
    prefix: str
    namespaced: bool

    @property
    def path(self) -> str:
        return f"{self.prefix}/{self.name}"

    @property
    def api_version(self) -> str:
        return self.prefix.removeprefix("/apis/").removeprefix("/api/")


SERVICES = Resource("services", "Service", "/api/v1", namespaced=True)
ENDPOINT_SLICES = Resource("endpointslices", "EndpointSlice", "/apis/discovery.k8s.io/v1", namespaced=True)
NODES = Resource("nodes", "Node", "/api/v1", namespaced=False)
EVENTS = Resource("events", "Event", "/apis/events.k8s.io/v1", namespaced=True)
PODS = Resource("pods", "Pod", "/api/v1", namespaced=True)
RESOURCES = (SERVICES, ENDPOINT_SLICES, NODES, EVENTS, PODS)


class ExpiredError(Exception):
    """A resource version or continue token from before the last compaction."""


class ExistsError(Exception):
    """There is an object of that kind and name already."""


class Selector(NamedTuple):
    """Labels that must be absent, and the name that must be the object's: all that the agent ever selects by."""

    absent_labels: frozenset[str] = frozenset()
    name: str | None = None

    def matches(self, stored: Stored | None) -> bool:
        if stored is None or (self.name is not None and stored.key[1] != self.name):
            return False
        return not self.absent_labels or self.absent_labels.isdisjoint(stored.labels)


def parse_selector(labels: str, fields: str) -> Selector:
    """Read a labelSelector and a fieldSelector; ValueError for a form that the agent does not use."""
    absent = frozenset(term.removeprefix("!") for term in labels.split(",") if term)
    if labels and labels.count("!") != len(absent):
        raise ValueError(f"unable to parse labelSelector {labels!r}")
    if fields and not fields.startswith("metadata.name="):
        raise ValueError(f"unable to parse fieldSelector {fields!r}")
    return Selector(absent, fields.removeprefix("metadata.name=") if fields else None)


class Stored(NamedTuple):
    """An object as of one resource version, with the JSON that lists and events have of it."""

    key: Key
    labels: frozenset[str]
    contents: Object
    json: bytes


class Change(NamedTuple):
    """What one write did to one object."""

    revision: int
    before: Stored | None
    after: Stored | None


class Snapshot(NamedTuple):
    """A list as of one resource version."""

    revision: int
    items: list[Stored]


class State:
    """All objects. `changed` guards them and is notified of every change; methods may be called from any thread."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.revision = 1
        self._compacted = 0
        self._objects: dict[Resource, dict[Key, Stored]] = {resource: {} for resource in RESOURCES}
        self._changes: dict[Resource, list[Change]] = {resource: [] for resource in RESOURCES}
        self._snapshots: dict[tuple[Resource, Selector, int], list[Stored]] = {}

    def apply(self, contents: Object) -> None:
        """Create the object, or replace the one of that kind and name."""
        resource = next(each for each in RESOURCES if each.kind == contents["kind"])
        key = (contents["metadata"].get("namespace", ""), contents["metadata"]["name"])
        with self.changed:
            self.revision += 1
            after = _store(key, contents, self.revision)
            before = self._objects[resource].get(key)
            self._objects[resource][key] = after
            self._changes[resource].append(Change(self.revision, before, after))
            self.changed.notify_all()

    def create(self, resource: Resource, contents: Object) -> None:
        """Create the object; ExistsError if there is one of its name."""
        key = (contents["metadata"].get("namespace", ""), contents["metadata"]["name"])
        with self.changed:
            if key in self._objects[resource]:
                raise ExistsError
            self.apply(contents)

    def objects(self, resource: Resource) -> list[Object]:
        """Return all objects of the resource, by namespace and name."""
        with self.changed:
            return [stored.contents for _, stored in sorted(self._objects[resource].items())]

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete the object; KeyError if there is none."""
        resource = next(each for each in RESOURCES if each.kind == kind)
        with self.changed:
            before = self._objects[resource].pop((namespace, name))
            self.revision += 1
            self._changes[resource].append(Change(self.revision, before, None))
            self.changed.notify_all()

    def compact(self) -> None:
        """Forget the past: no watch can start, and no list go on, from before now."""
        with self.changed:
            self._compacted = self.revision
            self._snapshots.clear()
            for changes in self._changes.values():
                changes.clear()

    def snapshot(self, resource: Resource, selector: Selector, revision: int = 0) -> Snapshot:
        """Return what there is, or was at a revision that was asked for before; ExpiredError after a compaction."""
        with self.changed:
            if revision:
                held = self._snapshots.get((resource, selector, revision))
                if held is None:
                    raise ExpiredError
                return Snapshot(revision, held)
            items = [
                stored for _, stored in sorted(self._objects[resource].items()) if selector.matches(stored)
            ]
            self._snapshots[resource, selector, self.revision] = items
            return Snapshot(self.revision, items)

    def check(self, since: int) -> None:
        """Raise ExpiredError if changes after this revision are not all known any more."""
        with self.changed:
            if since < self._compacted:
                raise ExpiredError

    def events(
        self, resource: Resource, selector: Selector, since: int
    ) -> tuple[int, list[tuple[str, bytes]]]:
        """Return the latest revision, and type and object of each event after `since`."""
        with self.changed:
            changes = self._changes[resource]
            first = len(changes)
            while first and changes[first - 1].revision > since:
                first -= 1
            found = (_event(change, selector) for change in changes[first:])
            return self.revision, [event for event in found if event is not None]


def _event(change: Change, selector: Selector) -> tuple[str, bytes] | None:
    """Return what a watch with that selector sees: an object that stops matching is DELETED for it."""
    was, now = selector.matches(change.before), selector.matches(change.after)
    if now and change.after is not None:
        return ("MODIFIED" if was else "ADDED", change.after.json)
    if was and change.before is not None:
        return "DELETED", _store(change.before.key, change.before.contents, change.revision).json
    return None


def _store(key: Key, contents: Object, revision: int) -> Stored:
    versioned = contents | {"metadata": contents["metadata"] | {"resourceVersion": str(revision)}}
    labels = frozenset(contents["metadata"].get("labels") or ())
    return Stored(key, labels, contents, msgspec.json.encode(versioned))
