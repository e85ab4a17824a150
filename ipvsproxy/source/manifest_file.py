"""One file of manifests, as people write them for kubectl, into the objects that it contains.

YAML with several documents, or JSON; `kind: List` counts as its items. Lines are counted from 1.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from ipvsproxy.model.objects import EndpointSlice, Node, Service, ServiceType, SliceAuthor
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source import json_text
from ipvsproxy.source.decode import (
    API_VERSIONS,
    Decoded,
    object_key,
    read_endpoint_slice,
    read_endpoints,
    read_node,
    read_service,
)

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from yaml._yaml import Mark as CMark
    from yaml.error import Mark

    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.source.decode import Document

Value: TypeAlias = Service | EndpointSlice | Node
_Parser: TypeAlias = type[SafeLoader] | type[yaml.SafeLoader]

# As the API server's decoder has it. libyaml takes half a second for so many levels, and longer by the square of them.
MAXIMUM_DEPTH: Final = 10_000

# Python converts no more digits than 4,300 into an integer, and no field has more than 20.
_LONGEST_INTEGER: Final = 100


def _read_endpoint_slice(document: Document) -> Decoded[EndpointSlice]:
    value, rejections = read_endpoint_slice(document)
    return Decoded(value and value._replace(author=SliceAuthor.OPERATOR), rejections)


_READERS: Final[dict[str, Callable[[Document], Decoded[Any]]]] = {
    "Service": read_service,
    "EndpointSlice": _read_endpoint_slice,
    "Endpoints": read_endpoints,
    "Node": read_node,
}


class ManifestError(Exception):
    """The file can't be read at all: because of (line, reason)."""

    def __init__(self, line: int, reason: str) -> None:
        """Say what is wrong in `line`."""
        super().__init__(line, reason)
        self.line = line
        self.reason = reason


class ManifestObject(NamedTuple):
    """One object of a manifest: what it says, and what is wrong with it.

    There is one value, but for an Endpoints, which becomes any number of EndpointSlices. Without values it can't
    be used, for the reason that `rejections` has, or it is of no concern to the agent.
    """

    kind: str
    key: ObjectKey
    line: int
    values: tuple[Value, ...]
    rejections: tuple[Rejection, ...]


class Remark(NamedTuple):
    """Something to tell about a place in the file."""

    line: int
    text: str


class Manifest(NamedTuple):
    """What a file contains.

    `ignored` has the apiVersion and kind of what the agent has no use for, `unusable` what is no API object at all.
    """

    objects: tuple[ManifestObject, ...] = ()
    ignored: tuple[Remark, ...] = ()
    unusable: tuple[Remark, ...] = ()


def read_manifest(name: str, data: bytes) -> Manifest:
    """Read a file's contents; its name says whether they are JSON. ManifestError if they are not what it says."""
    objects: list[ManifestObject] = []
    ignored: list[Remark] = []
    unusable: list[Remark] = []
    documents = _json_document(data) if name.endswith(".json") else _yaml_documents(data)
    for line, document in (item for found in documents for item in _items(found)):
        if not isinstance(document, dict) or not (document.get("kind") and document.get("apiVersion")):
            unusable.append(Remark(line, "is no API object, which has apiVersion and kind"))
            continue
        kind, api_version = str(document["kind"]), str(document["apiVersion"])
        if API_VERSIONS.get(kind) == api_version:
            objects.append(_object(line, kind, document))
        else:
            ignored.append(Remark(line, f"{api_version}/{kind}"))
    return Manifest(tuple(objects), tuple(ignored), tuple(unusable))


def keep_last_good(earlier: Manifest, later: Manifest) -> Manifest:
    """Return `later`, in which objects that became unusable have the values that they had in `earlier`."""
    values = {(found.kind, found.key): found.values for found in earlier.objects}
    objects = [
        found
        if found.values or not found.rejections
        else found._replace(values=values.get((found.kind, found.key), ()))
        for found in later.objects
    ]
    return later._replace(objects=tuple(objects))


def _object(line: int, kind: str, document: dict[str, Any]) -> ManifestObject:
    if kind != "Node":
        document = _in_a_namespace(document)
    decoded = _READERS[kind](document)
    if kind == "Service":
        decoded = _with_an_address(decoded, document)
    values: tuple[Value, ...] = ()
    if decoded.value is not None:
        values = decoded.value if kind == "Endpoints" else (decoded.value,)
    return ManifestObject(kind, object_key(document), line, values, decoded.rejections)


def _in_a_namespace(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the namespace that kubectl would put it in."""
    metadata = document.get("metadata")
    if isinstance(metadata, dict) and not metadata.get("namespace"):
        return {**document, "metadata": {**metadata, "namespace": "default"}}
    return document


def _with_an_address(decoded: Decoded[Service], document: dict[str, Any]) -> Decoded[Service]:
    """Refuse a Service that leaves it to the API server to choose its address."""
    service = decoded.value
    if service is None or service.cluster_ips or service.type is ServiceType.EXTERNAL_NAME:
        return decoded
    spec = document.get("spec") or {}
    if spec.get("clusterIP") or spec.get("clusterIPs"):
        return decoded
    reason = "no address: a directory of manifests has no allocator, so name one"
    return Decoded(None, (Rejection("Service", service.key, "spec.clusterIP", reason, service.uid),))


class _Document(NamedTuple):
    """A document, with the line where it begins and those where its items begin, if it has any."""

    line: int
    content: Any
    item_lines: list[int]


def _items(document: _Document) -> Iterator[tuple[int, Any]]:
    """Return the objects of a document with their lines: itself, or if it is a List its items."""
    content = document.content
    if not isinstance(content, dict) or content.get("kind") != "List" or content.get("apiVersion") != "v1":
        yield document.line, content
        return
    items = content.get("items") or []
    if not isinstance(items, list):
        yield document.line, items
        return
    yield from itertools.zip_longest(document.item_lines, items, fillvalue=document.line)


def _json_document(data: bytes) -> list[_Document]:
    text = _text(data)
    try:
        try:
            content = _parse_json(text)
        except RecursionError:
            content = _parse_json(json_text.mended(text.encode()).decode())
    except json.JSONDecodeError as error:
        raise ManifestError(error.lineno, error.msg) from None
    return [_Document(1, content, [])]


def _parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(json_text.without_halves(text), parse_int=_parse_integer)


def _parse_integer(text: str) -> float:
    """Return the number; one that no field can have as a float, which is what Python can make of any digits."""
    return int(text) if len(text) <= _LONGEST_INTEGER else float(text)


class _Forgiving(SafeConstructor):
    """Spoils a value that it can't make, not the whole text.

    A scalar that does not suit its tag becomes its text, and a mapping that can't be one becomes a text as well. So
    whoever reads the object finds a value of the wrong type there, if the field is one that is used.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in SafeLoader.yaml_implicit_resolvers.items()
    }
    """The API's YAML is JSON in disguise: a date is a string."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - as the base class
        """Return the value of a node."""
        try:
            return super().construct_object(node, deep=deep)
        except Exception:  # noqa: BLE001 - constructors raise anything, such as KeyError for `!!bool x`
            self.recursive_objects.pop(node, None)
            return node.value if isinstance(node, yaml.ScalarNode) else f"no value for {node.tag}"

    def construct_whole_mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        """Return a mapping with all that is in it, so that what is wrong with it is raised by now."""
        return self.construct_mapping(node, deep=True)


_Forgiving.add_constructor(  # type: ignore[type-var] # it is no loader by itself
    "tag:yaml.org,2002:map", _Forgiving.construct_whole_mapping
)


class _Loader(_Forgiving, SafeLoader):
    """Makes of a text what kubectl sees in it."""


class _ShallowLoader(_Forgiving, Composer, Resolver):
    """As `_Loader`, but with null in place of what is nested deeper than is read."""

    def __init__(self, text: str, parser: _Parser) -> None:
        """Take the text; what is wrong with it is a YAMLError, raised where it is met."""
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._events = _without_depths(yaml.parse(text, parser))
        self._next: yaml.Event | None = next(self._events, None)

    def check_event(self, *kinds: type[yaml.Event]) -> bool:
        """Say whether the next event is of one of these kinds, as a Composer asks."""
        return isinstance(self._next, kinds or yaml.Event)

    def peek_event(self) -> yaml.Event | None:
        """Return the next event and leave it there."""
        return self._next

    def get_event(self) -> yaml.Event | None:
        """Return the next event."""
        event, self._next = self._next, next(self._events, None)
        return event


def _yaml_documents(data: bytes) -> list[_Document]:
    documents = []
    try:
        text = _text(data)
        parser, depth = _parser_and_depth(text)
        loader = _Loader(text) if depth <= json_text.MAXIMUM_DEPTH else _ShallowLoader(text, parser)
        while loader.check_node() and (node := loader.get_node()):
            content = loader.construct_document(node)
            if content is not None:
                documents.append(_Document(_line(node.start_mark), content, _item_lines(node)))
    except yaml.MarkedYAMLError as error:
        reason = " ".join(filter(None, (error.problem, error.context)))
        raise ManifestError(_line(error.problem_mark or error.context_mark), reason) from None
    except yaml.reader.ReaderError as error:
        raise ManifestError(_line_of(data, error.position), error.reason) from None
    return documents


def _parser_and_depth(text: str) -> tuple[_Parser, int]:
    """Return who can follow the text, and how deeply it is nested.

    From version 0.2.6 on, libyaml follows 1,000 levels and no more. Python's own parser follows all, and takes many
    times as long: it is not asked about errors in texts that are not deep.
    """
    deepest = 0
    try:
        for depth in _depths(text, SafeLoader):
            deepest = max(depth, deepest)
    except yaml.MarkedYAMLError:
        if deepest <= json_text.MAXIMUM_DEPTH:
            raise
        return yaml.SafeLoader, max(_depths(text, yaml.SafeLoader))
    return SafeLoader, deepest


def _depths(text: str, parser: _Parser) -> Iterator[int]:
    """Yield how deeply each collection of the text is nested; ManifestError for more than the API would take."""
    depth = 0
    for event in yaml.parse(text, parser):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAXIMUM_DEPTH:
                raise ManifestError(_line(event.start_mark), f"is nested deeper than {MAXIMUM_DEPTH} levels")
            yield depth
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _without_depths(events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    """Yield the events, null in place of what is nested deeper than is read, and of aliases to what was in there."""
    depth = 0
    lost: set[str] = set()
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        inside = depth > json_text.MAXIMUM_DEPTH
        if anchor := getattr(event, "anchor", None):
            if isinstance(event, yaml.AliasEvent):
                if anchor in lost and not inside:
                    yield _null(event)
                    continue
            elif inside:
                lost.add(anchor)
            else:
                lost.discard(anchor)
        if not inside:
            yield event
        if isinstance(event, yaml.CollectionEndEvent):
            if depth == json_text.MAXIMUM_DEPTH + 1:
                yield _null(event)
            depth -= 1


def _null(place: yaml.Event) -> yaml.Event:
    return yaml.ScalarEvent(None, None, (True, False), "null", place.start_mark, place.end_mark)


def _item_lines(node: yaml.Node) -> list[int]:
    """Return the lines where the entries of the mapping's `items` begin."""
    lines: list[int] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "items" and isinstance(value, yaml.SequenceNode):
                lines = [_line(item.start_mark) for item in value.value]
    return lines


def _line(mark: Mark | CMark | None) -> int:
    return mark.line + 1 if mark else 1


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(_line_of(data, error.start), "is not UTF-8") from None


def _line_of(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1
