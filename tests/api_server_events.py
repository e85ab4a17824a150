"""What the API server for tests demands of an Event: the rules of pkg/apis/core/validation/events.go of Kubernetes.

Fields that the API does not know are refused, too, where kube-apiserver only warns of them.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.api_server_state import Object

_FIELDS = {
    "apiVersion",
    "kind",
    "metadata",
    "eventTime",
    "type",
    "reason",
    "action",
    "note",
    "regarding",
    "related",
    "series",
    "reportingController",
    "reportingInstance",
}
_REFERENCE = {"apiVersion", "kind", "namespace", "name", "uid", "resourceVersion", "fieldPath"}
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED_NAME = re.compile(r"([-a-z0-9.]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LENGTHS = {"reportingInstance": 128, "action": 128, "reason": 128, "note": 1024}


class Problem(NamedTuple):
    """Why an Event is refused, with the HTTP status."""

    code: int
    message: str


def problem_of(contents: Any, namespace: str) -> Problem | None:  # noqa: ANN401 - whatever was sent
    """Return what is wrong with an Event that is to be created in the namespace, None for a good one."""
    if not isinstance(contents, dict) or (contents.get("apiVersion"), contents.get("kind")) != (
        "events.k8s.io/v1",
        "Event",
    ):
        return Problem(400, "the object provided is not an Event of events.k8s.io/v1")
    unknown = contents.keys() - _FIELDS | contents.get("regarding", {}).keys() - _REFERENCE
    if unknown:
        return Problem(400, f"strict decoding error: unknown fields {sorted(unknown)}")
    if contents["metadata"].get("namespace", namespace) != namespace:
        message = "the namespace of the provided object does not match the namespace sent on the request"
        return Problem(400, message)
    invalid = [*_invalid_names(contents, namespace), *_invalid_texts(contents)]
    if invalid:
        return Problem(422, f'Event.events.k8s.io "{contents["metadata"].get("name")}" is invalid: {invalid}')
    return None


def _invalid_names(contents: Object, namespace: str) -> list[str]:
    found = []
    name = contents["metadata"].get("name", "")
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        found.append(f"metadata.name: Invalid value: {name!r}")
    if not _SUBDOMAIN.fullmatch(namespace):
        found.append(f"metadata.namespace: Invalid value: {namespace!r}")
    of_object = contents.get("regarding", {}).get("namespace", "")
    if of_object != namespace and (of_object or namespace not in ("default", "kube-system")):
        found.append(f"involvedObject.namespace: {of_object!r} does not match event.namespace")
    if not _QUALIFIED_NAME.fullmatch(contents.get("reportingController", "")):
        found.append("reportingController: Required value")
    return found


def _invalid_texts(contents: Object) -> list[str]:
    found = [
        f"{field}: can have at most {limit} characters"
        for field, limit in _LENGTHS.items()
        if len(contents.get(field, "").encode()) > limit
    ]
    found += [
        f"{field}: Required value"
        for field in ("reportingInstance", "action", "reason")
        if not contents.get(field)
    ]
    if contents.get("type") not in ("Normal", "Warning"):
        found.append(f"type: Invalid value: {contents.get('type')!r}")
    try:
        dt.datetime.strptime(contents.get("eventTime", ""), "%Y-%m-%dT%H:%M:%S.%f%z")
    except ValueError:
        found.append("eventTime: Required value, as RFC 3339 with microseconds")
    if "series" in contents and contents["series"].get("count", 0) < 2:
        found.append("series.count: should be at least 2")
    return found
