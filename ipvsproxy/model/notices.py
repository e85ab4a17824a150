"""What the agent has to say of an API object beside what it rejects of it, for an Event on that object."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.model.reasons import Rejection


class Notice(NamedTuple):
    """Something that happened to an object, or is the matter with it.

    `kind` is the API's, `reason` a word in CamelCase that does not change, `note` a sentence without a full stop.
    `warning` says that somebody should do something about it. `uid` is the object's, "" if unknown.
    """

    kind: str
    key: ObjectKey
    reason: str
    note: str
    warning: bool
    uid: str = ""


Told: TypeAlias = Rejection | Notice
"""What an Event tells of."""


def node_notice(node_name: str, reason: str, note: str, *, warning: bool = True) -> Notice:
    """Return a notice on a Node, whose uid is its name here.

    The kubelet and kube-proxy (NodeRef in cmd/kube-proxy/app/server.go) name it so, and `kubectl describe node` looks
    for that beside the Node's own.
    """
    return Notice("Node", ObjectKey("", node_name), reason, note, warning, uid=node_name)
