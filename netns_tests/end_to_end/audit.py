"""What kube-apiserver's audit log says of the agent's requests (audit.k8s.io/v1, one event a line)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from netns_tests.end_to_end.control_plane import USER, Asked, Right

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [USER]}, {"level": "None"}],
}
"""Notes all that the agent asks for, and nothing of anybody else."""


def read(lines: Iterable[str]) -> Iterator[Asked]:
    """Yield each request of the agent's for a resource, a watch again when it ends."""
    for line in lines:
        event = json.loads(line)
        resource = event.get("objectRef", {})
        if event["user"].get("username") != USER or not resource:
            continue
        name = "/".join(filter(None, (resource["resource"], resource.get("subresource"))))
        decision = event.get("annotations", {}).get("authorization.k8s.io/decision")
        yield Asked(Right(resource.get("apiGroup", ""), name, event["verb"]), decision == "allow")
