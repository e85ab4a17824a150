"""What the API server sends around the objects: pages of lists, Tables, watch events, and the Status of a refusal.

The objects themselves stay undecoded here (msgspec.Raw), so each is parsed once, into the fields that are used.
The shapes are those of k8s.io/apimachinery, meta/v1: ListMeta, Table, WatchEvent, Status.
"""

# No `from __future__ import annotations`: msgspec evaluates the annotations.
from typing import Final, Literal

import msgspec

from ipvsproxy.source import json_text
from ipvsproxy.source.decode import NotAskedForError

# KEP-3157: the bookmark that says that all initial events of a watch have been sent.
INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"


class Message(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Any part of what the API server sends."""


class Metadata(Message, frozen=True):
    """The metadata of a list, or of the object of an event.

    `resource_version` is opaque. `continue_` asks for the next page, "" on the last one.
    """

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    annotations: dict[str, str] | None = None


class Column(Message, frozen=True):
    """The head of a Table's column."""

    name: str


class Row(Message, frozen=True):
    """A row of a Table, with a cell for each column: text, for the most part."""

    cells: list[object]


class Page(Message, frozen=True):
    """A list or a Table, or a page of one; or anything else, before `read_page` has looked at it.

    A Table has `rows` and a column for each of their cells, as `kubectl get -o wide` prints them; a list has `items`.
    """

    kind: str = ""
    api_version: str = ""
    message: str = ""
    metadata: Metadata = Metadata()
    items: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET
    rows: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET
    column_definitions: list[Column] = []

    @property
    def is_table(self) -> bool:
        """Whether it is a Table."""
        return self.kind == "Table"

    @property
    def entries(self) -> list[msgspec.Raw]:
        """The items or rows; null is how Go writes a list without any."""
        return (self.rows if self.is_table else self.items) or []


class Event(Message, frozen=True):
    """One line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


class Marks(Message, frozen=True):
    """The metadata that any object has for a watch, whatever their types are."""

    resource_version: object = ""
    annotations: object = None


class Head(Message, frozen=True):
    """Any object, read for what a watch needs of it."""

    kind: str | None = None
    api_version: str | None = None
    metadata: Marks = Marks()


class StatusCause(Message, frozen=True):
    """A reason for a program to read."""

    reason: str = ""


class StatusDetails(Message, frozen=True):
    """What a Status has beside its message."""

    causes: list[StatusCause] | None = None


class Status(Message, frozen=True):
    """Why a request was refused or a watch ended; `code` is an HTTP status."""

    message: str = ""
    code: int = 0
    details: StatusDetails | None = None

    @property
    def causes(self) -> frozenset[str]:
        """The reasons of its causes."""
        found = self.details.causes if self.details else None
        return frozenset(cause.reason for cause in found or ())


_PAGE: Final = msgspec.json.Decoder(Page)
_ROW: Final = msgspec.json.Decoder(Row)
_EVENT: Final = msgspec.json.Decoder(Event)
_STATUS: Final = msgspec.json.Decoder(Status)
_HEAD: Final = msgspec.json.Decoder(Head)


def read_page(text: bytes, *wanted: str) -> Page:
    """Return a page of one of the kinds that are `wanted`, such as "v1/ServiceList".

    NotAskedForError for everything else, such as a Status or a list without a field for its items: none of it says that
    there are no objects. msgspec.DecodeError for what is no JSON. A malformed item is left to whoever reads the item.
    """
    try:
        page = json_text.decode(_PAGE, text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        page = _taken_apart(text)
    kind = f"{page.api_version}/{page.kind}"
    if kind not in wanted:
        came = f"a {kind}" if page.kind else "an answer without a kind"
        said = f": {page.message}" if page.message else ""
        raise NotAskedForError(f"{came} came for a {' or a '.join(wanted)}{said}")
    if (page.rows if page.is_table else page.items) is msgspec.UNSET:
        raise NotAskedForError(f"a {kind} without its {'rows' if page.is_table else 'items'} came")
    return page


def _taken_apart(text: bytes) -> Page:
    """Return a page of which some items are no JSON."""
    found = json_text.members(text)
    entries = {name: found.pop(name) for name in ("items", "rows") if name in found}
    rest = b",".join(b"%s:%s" % (msgspec.json.encode(name), value) for name, value in found.items())
    page = json_text.decode(_PAGE, b"{%s}" % rest)
    raws = {name: list(map(msgspec.Raw, json_text.elements(value))) for name, value in entries.items()}
    return msgspec.structs.replace(page, **raws)


def read_row(row: msgspec.Raw) -> Row:
    """Return a row of a Table; msgspec.DecodeError if it is none."""
    return json_text.decode(_ROW, row)


def read_event(line: bytes) -> Event:
    """Return the event that a line of a watch tells; its object may be malformed. msgspec.DecodeError for no event."""
    try:
        return json_text.decode(_EVENT, line)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        found = json_text.members(line)
        changed = found.pop("object", b"null")
        event = json_text.decode(_EVENT, b'{"type":%s,"object":null}' % found.get("type", b"null"))
        return msgspec.structs.replace(event, object=msgspec.Raw(changed))


def read_status(text: bytes | msgspec.Raw) -> Status:
    """Return the Status; an empty one if it is none."""
    try:
        return json_text.decode(_STATUS, text)
    except msgspec.DecodeError:
        return Status()


def read_head(document: msgspec.Raw) -> Head:
    """Return the head of an object, as much of it as can be read."""
    try:
        return json_text.decode(_HEAD, document)
    except msgspec.DecodeError:
        version = json_text.member(bytes(document), "metadata", "resourceVersion")
        return Head(metadata=Marks(version))


def resource_version(document: msgspec.Raw) -> str:
    """Return the object's metadata.resourceVersion, "" if it has none that can be read."""
    found = read_head(document).metadata.resource_version
    return found if isinstance(found, str) else ""


def ends_initial_events(bookmark: msgspec.Raw) -> bool:
    """Say whether a BOOKMARK's object marks the end of the initial events."""
    annotations = read_head(bookmark).metadata.annotations
    return isinstance(annotations, dict) and annotations.get(INITIAL_EVENTS_END) == "true"
