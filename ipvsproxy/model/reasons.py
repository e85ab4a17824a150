"""Why an object, an endpoint or a virtual server is not used: the same words in logs, `dump` and tests."""

from typing import NamedTuple

from ipvsproxy.model.objects import ObjectKey


class Rejection(NamedTuple):
    """An API object, or a part of one, that the agent does not program.

    `kind` is the API's (Service, EndpointSlice, …), `field` the path within the object (spec.ports[2].port, or ""
    for the whole object), `reason` a sentence without a full stop. `uid` is the object's metadata.uid, "" if unknown.
    `foreign` says that somebody else's virtual server in the kernel of this node is the reason.
    """

    kind: str
    key: ObjectKey
    field: str
    reason: str
    uid: str = ""
    foreign: bool = False

    def __str__(self) -> str:
        """Return one line: `KIND NAMESPACE/NAME: FIELD: REASON`."""
        field = f"{self.field}: " if self.field else ""
        return f"{self.kind} {self.key}: {field}{self.reason}"
