"""The reconciler's state at one moment, and what it did in one round, for those who show it.

Times are in the seconds of its clock, where nothing else is said.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.plan.services import Context, PlannedVirtualServer


class Failure(NamedTuple):
    """Why an item is not as it should be, since when, how often it was tried, and when it is tried next."""

    reason: str
    attempts: int
    next_try: float
    since: float


class DrainKey(NamedTuple):
    """One real server of one virtual server."""

    virtual_server: VirtualServerKey
    address: Address
    port: int


class Drain(NamedTuple):
    """Since when a real server drains, and until when it may."""

    since: float
    until: float


class DrainEnd(enum.StrEnum):
    """How a drain ended.

    CONNECTIONS_ENDED: the real server was deleted since none was left. TIMED_OUT: it was deleted with those that were
    left. RETURNED: it serves again. DELETED: its virtual server was, or somebody else deleted it.
    """

    CONNECTIONS_ENDED = "connections ended"
    TIMED_OUT = "timed out"
    RETURNED = "returned"
    DELETED = "deleted"


class Planned(NamedTuple):
    """The virtual servers that should be, and whose they are."""

    owners: Mapping[VirtualServerKey, ObjectKey]
    virtual_servers: Mapping[VirtualServerKey, PlannedVirtualServer]


class View(NamedTuple):
    """What is desired, by whom, and what has become of it; `synced` once everything was compared with the kernel.

    `last_resync` is when that was done the last time; None before the first. At `agent_ports` the agent is reached, by
    TCP.
    """

    now: float
    owners: Mapping[VirtualServerKey, ObjectKey]
    virtual_servers: Mapping[VirtualServerKey, PlannedVirtualServer]
    rejections: Sequence[Rejection]
    failures: Mapping[Item, Failure]
    drains: Mapping[DrainKey, Drain]
    context: Context
    synced: bool
    last_resync: float | None = None
    agent_ports: AbstractSet[int] = frozenset()


class Occasion(enum.StrEnum):
    """What a round was for."""

    FIRST_SYNC = "first sync"
    CHANGES = "changes"
    RETRY = "retry"
    DRAINS = "drains"
    REPAIR = "repair"
    RESYNC = "resync"


class Numbers(NamedTuple):
    """How much there is after a round.

    `virtual_servers` and `real_servers` are ours and in the kernel; of the latter `draining` drain. `waiting` are the
    items that failed and wait for their next try, by what they are: "virtual server", "address", "set element". The
    oldest of these failures is from `waiting_since`, in seconds of the controller's clock. `refused` counts the parts
    of Services that can't be had. `without_local_endpoints` are the Services with endpoints on other nodes alone, by
    the traffic policy that is Local: "internal", "external".
    """

    virtual_servers: int
    real_servers: int
    draining: int
    waiting: Mapping[str, int]
    waiting_since: float | None
    refused: int
    without_local_endpoints: Mapping[str, int]


class Comparison(NamedTuple):
    """What came of a comparison of everything with the kernel.

    `done` counts what was repaired, by the kind of operation. `failures` are the items that are not as they should be.
    """

    seconds: float
    done: Mapping[str, int]
    failures: Mapping[Item, Failure]


class Round(NamedTuple):
    """What the reconciler did in one go, for `seconds` of its own time.

    `done` and `refused` count operations by their kind, such as "real servers added": what the kernel carried out and
    what it refused. `triggered` are the times, in seconds since the epoch, at which that happened in the cluster which
    is in the kernel now.
    """

    occasion: Occasion
    seconds: float
    done: Mapping[str, int]
    refused: Mapping[str, int]
    drains_ended: Mapping[DrainEnd, int]
    triggered: Sequence[float]
    numbers: Numbers
