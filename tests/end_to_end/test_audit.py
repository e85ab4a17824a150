"""What is read from kube-apiserver's audit log: events as audit.k8s.io/v1 has them, with all that they say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netns_tests.end_to_end import audit
from netns_tests.end_to_end.control_plane import USER, Asked, Right


def event(verb: str, user: str = USER, decision: str = "allow", **reference: str) -> str:
    found: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": "6b7c1d5e-3c9b-4a59-9d4b-0d7c0a1e5f0a",
        "stage": "ResponseStarted" if verb == "watch" else "ResponseComplete",
        "requestURI": "/api/v1/services?watch=true",
        "verb": verb,
        "user": {"username": user, "groups": ["system:serviceaccounts", "system:authenticated"]},
        "sourceIPs": ["127.0.0.1"],
        "userAgent": "ipvsproxy/0.1.0",
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "2026-10-01T08:00:00.000000Z",
        "stageTimestamp": "2026-10-01T08:00:00.000000Z",
        "annotations": {
            "authorization.k8s.io/decision": decision,
            "authorization.k8s.io/reason": 'RBAC: allowed by ClusterRoleBinding "ipvsproxy"',
        },
    }
    if reference:
        found["objectRef"] = {"apiVersion": "v1", **reference}
    return json.dumps(found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (event("watch", resource="services"), Asked(Right("", "services", "watch"), allowed=True)),
        (
            event("create", resource="events", apiGroup="events.k8s.io", namespace="default", name="web.1"),
            Asked(Right("events.k8s.io", "events", "create"), allowed=True),
        ),
        (
            event("get", decision="forbid", resource="secrets", namespace="default"),
            Asked(Right("", "secrets", "get"), allowed=False),
        ),
        (
            event("patch", resource="services", subresource="status"),
            Asked(Right("", "services/status", "patch"), allowed=True),
        ),
    ],
)
def test_a_request_of_the_agents_is_the_right_that_it_needed(line: str, expected: Asked) -> None:
    assert list(audit.read([line])) == [expected]


def test_requests_of_others_and_those_for_no_resource_are_left_out() -> None:
    lines = [event("list", "administrator", resource="services"), event("get")]

    assert list(audit.read(lines)) == []
