"""What the API server sends around the objects: pages of lists, Tables, watch events, and the Status of a refusal.

The objects themselves stay undecoded here (msgspec.Raw), so each is parsed once, into the fields that are used.
The shapes are those of k8s.io/apimachinery, meta/v1: ListMeta, Table, WatchEvent, Status.
"""

# No `from __future__ import annotations`: msgspec evaluates the annotations.
from typing import Final, Literal

import msgspec

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


class Page(Message, frozen=True):
    """A list, or a page of one."""

    metadata: Metadata
    items: list[msgspec.Raw] | None = None


class NodeList(Page, frozen=True, tag_field="kind", tag="NodeList"):
    """A page of Nodes, from a server that makes no Table of them."""


class Column(Message, frozen=True):
    """The head of a Table's column."""

    name: str


class Row(Message, frozen=True):
    """A row of a Table, with a cell for each column: text, for the most part."""

    cells: list[object]


class Table(Message, frozen=True, tag_field="kind", tag="Table"):
    """A list, or a page of one, as `kubectl get -o wide` prints it: some facts in place of the objects."""

    metadata: Metadata
    column_definitions: list[Column]
    rows: list[Row] | None = None


class Event(Message, frozen=True):
    """One line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


class WithMetadata(Message, frozen=True):
    """Any object, read for the resource version and annotations that it carries."""

    metadata: Metadata = Metadata()


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


PAGE: Final = msgspec.json.Decoder(Page)
NODES: Final = msgspec.json.Decoder(Table | NodeList)
EVENT: Final = msgspec.json.Decoder(Event)
STATUS: Final = msgspec.json.Decoder(Status)
_WITH_METADATA: Final = msgspec.json.Decoder(WithMetadata)


def resource_version(document: msgspec.Raw) -> str:
    """Return the object's metadata.resourceVersion, "" without one; msgspec.DecodeError if it is malformed."""
    return _WITH_METADATA.decode(document).metadata.resource_version


def ends_initial_events(bookmark: msgspec.Raw) -> bool:
    """Say whether a BOOKMARK's object marks the end of the initial events."""
    annotations = _WITH_METADATA.decode(bookmark).metadata.annotations or {}
    return annotations.get(INITIAL_EVENTS_END) == "true"
