"""The reconciler's state at one moment, for those who show it; times are in the seconds of its clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.plan.services import Context, PlannedVirtualServer


class Failure(NamedTuple):
    """Why an item is not as it should be, how often it was tried, and when it is tried next."""

    reason: str
    attempts: int
    next_try: float


class DrainKey(NamedTuple):
    """One real server of one virtual server."""

    virtual_server: VirtualServerKey
    address: Address
    port: int


class Drain(NamedTuple):
    """Since when a real server drains, and until when it may."""

    since: float
    until: float


class View(NamedTuple):
    """What is desired, by whom, and what has become of it; `synced` once everything was compared with the kernel."""

    now: float
    owners: Mapping[VirtualServerKey, ObjectKey]
    virtual_servers: Mapping[VirtualServerKey, PlannedVirtualServer]
    rejections: Sequence[Rejection]
    failures: Mapping[Item, Failure]
    drains: Mapping[DrainKey, Drain]
    context: Context
    synced: bool
