"""API objects, as JSON or as parsed YAML, into values of `model.objects`, with a reason for what can't be used.

Every `read_*` function returns `Decoded(value, rejections)`, and never raises for what the object contains. It raises
NotAskedForError for an object of another kind, since that is no fault of the object:

* a value: use it. Its rejections name the parts that were left out, such as one port or one endpoint.
* no value, and one rejection: the object can't be used at all; what it said before stays valid.
* no value and no rejection: the object is none of the agent's concern, and counts as not there. So an object that
  was held before has to be removed: it got another proxy's label, or lost the label that names its Service.

So a source does, for each object it receives:

    decoded = read_service(document)
    if decoded.value is not None:
        store.put_service(decoded.value, decoded.rejections)
    elif decoded.rejections:
        store.reject(decoded.rejections[0])
    else:
        store.remove_service(object_key(document))

A document is the JSON of one object (bytes, or msgspec.Raw out of a list or watch event), or a dict of JSON's types.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from ipvsproxy.model.addresses import Family, family
from ipvsproxy.model.objects import (
    Endpoint,
    EndpointSlice,
    Node,
    ObjectKey,
    Service,
    ServiceType,
    SliceAuthor,
)
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source import fields, json_text, schema
from ipvsproxy.source.annotations import read_options
from ipvsproxy.source.fields import UnusableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Each rejection of an object is a line in the log, a row of `dump` and an Event, and may quote what the object says.
MAXIMUM_REJECTIONS: Final = 20
MAXIMUM_TEXT: Final = 300

Document: TypeAlias = bytes | msgspec.Raw | dict[str, Any]

Parsed = TypeVar("Parsed")
ParsedObject = TypeVar("ParsedObject", bound=schema.ApiObject)
Value = TypeVar("Value")

API_VERSIONS: Final = {
    "Service": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Endpoints": "v1",
    "Node": "v1",
}
"""The kinds that are read, and the version of each."""

_FAMILIES: Final = {"IPv4": Family.IPV4, "IPv6": Family.IPV6}
_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")

_SERVICE: Final = msgspec.json.Decoder(schema.ServiceObject)
_ENDPOINT_SLICE: Final = msgspec.json.Decoder(schema.EndpointSliceObject)
_ENDPOINTS: Final = msgspec.json.Decoder(schema.EndpointsObject)
_NODE: Final = msgspec.json.Decoder(schema.NodeObject)
_NAMED: Final = msgspec.json.Decoder(schema.NamedObject)

_CONTROLLER: Final = "endpointslice-controller.k8s.io"

_NO_CONDITIONS: Final = schema.Conditions()


class NotAskedForError(Exception):
    """The API server sent something else than it was asked for; the message says what, without a full stop."""


def check_kind(kind: str, found_kind: str | None, found_api_version: str | None) -> None:
    """Raise NotAskedForError if an object says that it is of another kind or version; one of a list may say neither."""
    api_version = API_VERSIONS[kind]
    if found_kind not in (None, kind) or found_api_version not in (None, api_version):
        raise NotAskedForError(f"a {found_api_version}/{found_kind} came for a {api_version}/{kind}")


class Decoded(NamedTuple, Generic[Value]):
    """What one object says; the module's docstring tells the three cases."""

    value: Value | None
    rejections: tuple[Rejection, ...] = ()


def read_service(document: Document) -> Decoded[Service]:
    """Read a v1 Service. Headless ones and those of type ExternalName are read too: the value tells which it is."""
    return _read("Service", document, _SERVICE, _service)


def read_endpoint_slice(document: Document) -> Decoded[EndpointSlice]:
    """Read a discovery.k8s.io/v1 EndpointSlice; one of addressType FQDN or of no Service is of no concern."""
    return _read("EndpointSlice", document, _ENDPOINT_SLICE, _endpoint_slice)


def read_endpoints(document: Document) -> Decoded[tuple[EndpointSlice, ...]]:
    """Read a v1 Endpoints as the EndpointSlices that mirror it: one for each of its subsets and families.

    Their names have a slash, which no EndpointSlice's own name can have.
    """
    return _read("Endpoints", document, _ENDPOINTS, _endpoints)


def read_node(document: Document) -> Decoded[Node]:
    """Read a v1 Node."""
    return _read("Node", document, _NODE, _node)


def object_key(document: Document) -> ObjectKey:
    """Return the object's namespace and name; what can't be read of them is ""."""
    return _identity(document)[0]


def _identity(document: Document) -> tuple[ObjectKey, str]:
    """Return the object's key and metadata.uid; what can't be read of them is ""."""
    found: Iterable[object]
    try:
        metadata = _parse(document, _NAMED).metadata
        found = (metadata.namespace, metadata.name, metadata.uid)
    except msgspec.DecodeError:
        if isinstance(document, dict):
            return ObjectKey("", ""), ""
        text = bytes(document)
        found = (json_text.member(text, "metadata", name) for name in ("namespace", "name", "uid"))
    namespace, name, uid = (part if isinstance(part, str) else "" for part in found)
    return ObjectKey(namespace, name), uid


def _read(
    kind: str,
    document: Document,
    decoder: msgspec.json.Decoder[ParsedObject],
    build: Callable[[ObjectKey, ParsedObject, list[UnusableError]], Value | None],
) -> Decoded[Value]:
    """Parse the document and let `build` make the value of it, which lists the parts that it left out."""
    left_out: list[UnusableError] = []
    try:
        parsed = _parse(document, decoder)
        check_kind(kind, parsed.kind, parsed.api_version)
        key = _key(parsed.metadata, namespaced=kind != "Node")
        value = build(key, parsed, left_out)
    except UnusableError as error:
        field, reason = error.field, error.reason
    except msgspec.ValidationError as error:
        field, reason = _explain(error)
    except msgspec.DecodeError as error:
        field, reason = "", f"is not valid JSON: {error}"
    else:
        identity = kind, key, parsed.metadata.uid or ""
        return Decoded(value, _rejections(identity, left_out) if left_out else ())
    return Decoded(None, _rejections((kind, *_identity(document)), [UnusableError(field, reason)]))


def _rejections(identity: tuple[str, ObjectKey, str], left_out: list[UnusableError]) -> tuple[Rejection, ...]:
    """Return no more than somebody reads of what is wrong with the object of that kind, key and uid."""
    kind, key, uid = identity
    more = len(left_out) - MAXIMUM_REJECTIONS
    told = left_out[:MAXIMUM_REJECTIONS]
    if more > 0:
        told.append(UnusableError("", f"parts left out that are not listed: {more}"))
    return tuple(Rejection(kind, key, _clipped(part.field), _clipped(part.reason), uid) for part in told)


def _clipped(text: str) -> str:
    return text if len(text) <= MAXIMUM_TEXT else f"{text[:MAXIMUM_TEXT]}…"


def _parse(document: Document, decoder: msgspec.json.Decoder[Parsed]) -> Parsed:
    if isinstance(document, dict):
        return msgspec.convert(document, decoder.type)
    return json_text.decode(decoder, document)


def _explain(error: msgspec.ValidationError) -> tuple[str, str]:
    """Turn "Expected `int`, got `str` - at `$.spec.ports[0].port`" into the field and the reason."""
    reason, _, place = str(error).partition(" - at ")
    field = place.removeprefix("`key` in ").strip("`").removeprefix("$").removeprefix(".")
    return field, reason[:1].lower() + reason[1:]


def _key(metadata: schema.Metadata, *, namespaced: bool) -> ObjectKey:
    """Return the object's key; UnusableError for names that the API would not take."""
    name, namespace = metadata.name or "", metadata.namespace or ""
    if not _NAME.fullmatch(name):
        raise UnusableError("metadata.name", _not_a_name(name))
    if not namespaced:
        return ObjectKey("", name)
    if not _NAME.fullmatch(namespace):
        raise UnusableError("metadata.namespace", _not_a_name(namespace))
    return ObjectKey(sys.intern(namespace), name)


def _not_a_name(text: str) -> str:
    return f"{text!r} is not a name: up to 253 of a-z, 0-9, - and . are" if text else "is missing"


def _of_another_proxy(labels: dict[str, str | None] | None) -> bool:
    """Say whether the label selector of the agent's watches leaves the object out."""
    return labels is not None and (
        "service.kubernetes.io/service-proxy-name" in labels or "service.kubernetes.io/headless" in labels
    )


def _service(key: ObjectKey, parsed: schema.ServiceObject, left_out: list[UnusableError]) -> Service | None:
    if _of_another_proxy(parsed.metadata.labels):
        return None
    spec = parsed.spec
    service_type = spec.type or ServiceType.CLUSTER_IP
    cluster_ips = fields.cluster_ips(spec, left_out)
    ports = fields.service_ports(spec, left_out)
    if cluster_ips and not ports and service_type is not ServiceType.EXTERNAL_NAME:
        raise UnusableError("spec.ports", "has no entry")
    external = fields.traffic_policy("spec.externalTrafficPolicy", spec.external_traffic_policy, left_out)
    internal = fields.traffic_policy("spec.internalTrafficPolicy", spec.internal_traffic_policy, left_out)
    created = parsed.metadata.creation_timestamp
    return Service(
        key,
        service_type,
        cluster_ips,
        ports,
        session_affinity_timeout=fields.session_affinity_timeout(spec, left_out),
        created=int(created.timestamp()) if created else 0,
        external_ips=fields.external_ips(spec, cluster_ips, left_out),
        load_balancer_ips=fields.load_balancer_ips(parsed, cluster_ips, left_out),
        internal_traffic_policy=internal,
        external_traffic_policy=external,
        load_balancer_source_ranges=fields.load_balancer_source_ranges(spec, left_out),
        health_check_node_port=fields.health_check_node_port(spec, external, left_out),
        options=read_options(parsed.metadata.annotations, left_out),
        uid=parsed.metadata.uid or "",
        has_selector=bool(spec.selector),
    )


def _endpoint_slice(
    key: ObjectKey, parsed: schema.EndpointSliceObject, left_out: list[UnusableError]
) -> EndpointSlice | None:
    labels = parsed.metadata.labels or {}
    service_name = labels.get("kubernetes.io/service-name")
    if not service_name or parsed.address_type == "FQDN" or _of_another_proxy(labels):
        return None
    slice_family = _FAMILIES.get(parsed.address_type or "")
    if slice_family is None:
        raise UnusableError("addressType", f"{parsed.address_type!r} is not IPv4, IPv6 or FQDN")
    endpoints = []
    for index, endpoint in enumerate(parsed.endpoints or ()):
        try:
            address = fields.usable_address(endpoint.addresses[0] if endpoint.addresses else "", slice_family)
        except ValueError as error:
            left_out.append(UnusableError(f"endpoints[{index}].addresses[0]", error))
            continue
        conditions = endpoint.conditions or _NO_CONDITIONS
        for_zones, for_nodes = fields.hinted(endpoint.hints) if endpoint.hints else ((), ())
        endpoints.append(
            Endpoint(
                address,
                conditions.ready is not False,
                conditions.serving is not False,
                conditions.terminating is True,
                sys.intern(endpoint.node_name) if endpoint.node_name else None,
                for_zones,
                for_nodes,
            )
        )
    ports = fields.slice_ports("ports", parsed.ports or [], left_out)
    return EndpointSlice(
        key,
        ObjectKey(key.namespace, service_name),
        slice_family,
        ports,
        tuple(endpoints),
        _author(parsed.metadata),
        fields.trigger_time(parsed.metadata.annotations),
    )


def _author(metadata: schema.SliceMetadata) -> SliceAuthor:
    """Return who keeps the EndpointSlice. The controller lets one alone that a finalizer keeps from its deletion."""
    labelled = (metadata.labels or {}).get("endpointslice.kubernetes.io/managed-by") == _CONTROLLER
    return SliceAuthor.CONTROLLER if labelled and metadata.deletion_timestamp is None else SliceAuthor.ANYBODY


def _endpoints(
    key: ObjectKey, parsed: schema.EndpointsObject, left_out: list[UnusableError]
) -> tuple[EndpointSlice, ...] | None:
    labels = parsed.metadata.labels or {}
    if labels.get("endpointslice.kubernetes.io/skip-mirror") == "true" or _of_another_proxy(labels):
        return None
    slices = []
    for index, subset in enumerate(parsed.subsets or ()):
        field = f"subsets[{index}]"
        endpoints = [
            *_subset_endpoints(f"{field}.addresses", subset.addresses or [], left_out, ready=True),
            *_subset_endpoints(
                f"{field}.notReadyAddresses", subset.not_ready_addresses or [], left_out, ready=False
            ),
        ]
        ports = fields.slice_ports(f"{field}.ports", subset.ports or [], left_out)
        for name, number in _FAMILIES.items():
            of_family = tuple(endpoint for endpoint in endpoints if family(endpoint.address) is number)
            if of_family:
                slice_key = ObjectKey(key.namespace, f"{key.name}/{field}/{name}")
                slices.append(EndpointSlice(slice_key, key, number, ports, of_family, SliceAuthor.OPERATOR))
    return tuple(slices)


def _subset_endpoints(
    field: str, entries: list[schema.EndpointAddress], left_out: list[UnusableError], *, ready: bool
) -> Iterator[Endpoint]:
    for index, entry in enumerate(entries):
        try:
            address = fields.usable_address(entry.ip or "")
        except ValueError as error:
            left_out.append(UnusableError(f"{field}[{index}].ip", error))
        else:
            yield Endpoint(
                address,
                ready=ready,
                serving=ready,
                node_name=sys.intern(entry.node_name) if entry.node_name else None,
            )


def _node(key: ObjectKey, parsed: schema.NodeObject, left_out: list[UnusableError]) -> Node:
    spec, metadata = parsed.spec, parsed.metadata
    pod_cidrs = spec.pod_cidrs or ([spec.pod_cidr] if spec.pod_cidr else [])
    taints = {taint.key for taint in spec.taints or ()}
    return Node(
        key.name,
        sys.intern((metadata.labels or {}).get("topology.kubernetes.io/zone") or ""),
        fields.networks("spec.podCIDRs", pod_cidrs, left_out),
        fields.node_addresses(parsed.status, left_out),
        leaving=metadata.deletion_timestamp is not None or "ToBeDeletedByClusterAutoscaler" in taints,
    )
