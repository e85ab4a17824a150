"""One file of manifests, as people write them for kubectl, into the objects that it contains.

YAML with several documents, or JSON; `kind: List` counts as its items. Lines are counted from 1.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import yaml

from ipvsproxy.model.objects import EndpointSlice, Node, Service, ServiceType, SliceAuthor
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source.decode import (
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

# The deepest path that is read has 6 steps; libyaml's loader recurses on the C stack, which overflows at some 10,000.
MAXIMUM_DEPTH: Final = 100

# The API's YAML is JSON in disguise: a date is a string.
_RESOLVERS: Final = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in SafeLoader.yaml_implicit_resolvers.items()
}


_API_VERSIONS: Final = {
    "Service": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Endpoints": "v1",
    "Node": "v1",
}


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
        if _API_VERSIONS.get(kind) == api_version:
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
    try:
        return [_Document(1, json.loads(_text(data)), [])]
    except json.JSONDecodeError as error:
        raise ManifestError(error.lineno, error.msg) from None
    except RecursionError:
        raise ManifestError(1, "is nested too deeply") from None
    except ValueError as error:
        raise ManifestError(1, str(error)) from None


def _yaml_documents(data: bytes) -> list[_Document]:
    documents = []
    line = 1
    try:
        text = _text(data)
        _check_depth(text)
        loader = SafeLoader(text)
        loader.yaml_implicit_resolvers = _RESOLVERS
        while loader.check_node() and (node := loader.get_node()):
            line = _line(node.start_mark)
            content = loader.construct_document(node)
            if content is not None:
                documents.append(_Document(line, content, _item_lines(node)))
    except yaml.MarkedYAMLError as error:
        reason = " ".join(filter(None, (error.problem, error.context)))
        raise ManifestError(_line(error.problem_mark or error.context_mark), reason) from None
    except yaml.reader.ReaderError as error:
        raise ManifestError(_line_of(data, error.position), error.reason) from None
    except ManifestError:
        raise
    except Exception as error:  # noqa: BLE001 - constructors raise anything, such as KeyError for `!!bool x`
        raise ManifestError(line, f"a value does not suit its tag: {error}") from None
    return documents


def _item_lines(node: yaml.Node) -> list[int]:
    """Return the lines where the entries of the mapping's `items` begin."""
    lines: list[int] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "items" and isinstance(value, yaml.SequenceNode):
                lines = [_line(item.start_mark) for item in value.value]
    return lines


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAXIMUM_DEPTH:
                raise ManifestError(_line(event.start_mark), f"is nested deeper than {MAXIMUM_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(mark: Mark | CMark | None) -> int:
    return mark.line + 1 if mark else 1


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(_line_of(data, error.start), "is not UTF-8") from None


def _line_of(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1
