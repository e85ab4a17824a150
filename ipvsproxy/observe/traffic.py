"""What goes through the virtual servers: from two looks at the kernel's counters to the rates in between.

Pure. Rates are differences of counters, exact for the time between the looks, where the kernel's own are smoothed.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ipvsproxy.model.addresses import Address, format_endpoint, parse_address
from ipvsproxy.model.ipvs import Traffic, VirtualServerKey
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.observe.schema import AgentReport

Place: TypeAlias = tuple[Address, int]

RUN_ESTIMATION: Final = "net.ipv4.vs.run_estimation"
"""The kernel setting; while it is 0, counters and the kernel's own rates stay as they are."""

NOT_COUNTING: Final = (
    f"the kernel does not count packets and connections, {RUN_ESTIMATION} is 0: "
    f"`sysctl {RUN_ESTIMATION}=1` has it count"
)


class RealServerLook(NamedTuple):
    """A real server at one moment; `total` is None where its counters were not asked for."""

    weight: int
    active_connections: int
    inactive_connections: int
    total: Traffic | None = None


class VirtualServerLook(NamedTuple):
    """A virtual server at one moment; `real_servers` is empty where they were not asked for."""

    total: Traffic
    real_servers: Mapping[Place, RealServerLook]


class Look(NamedTuple):
    """All virtual servers, everybody's, at one moment: `at`, in seconds of a clock that never goes back."""

    at: float
    virtual_servers: Mapping[VirtualServerKey, VirtualServerLook]


class Names(NamedTuple):
    """What the agent says of virtual servers: the Service of each, and when the draining of real servers ends.

    `drain_ends` is in seconds of the clock of `Look.at`.
    """

    services: Mapping[VirtualServerKey, str]
    drain_ends: Mapping[tuple[VirtualServerKey, Place], float]


class Grouping(enum.StrEnum):
    """What a row is about."""

    SERVICE = "service"
    ENDPOINT = "endpoint"
    VIRTUAL_SERVER = "virtual-server"


class Order(enum.StrEnum):
    """What rows are sorted by; packets and bytes are those of both directions."""

    BYTES = "bytes"
    PACKETS = "packets"
    CONNECTIONS = "connections"
    ACTIVE = "active"
    INACTIVE = "inactive"
    NAME = "name"


class Wanted(NamedTuple):
    """Which part of the node to show: all that fits each of these; None fits everything."""

    service: ObjectKey | None = None
    namespace: str | None = None
    endpoint: Address | None = None

    def fits(self, service: str | None) -> bool:
        """Say whether the Service, NAMESPACE/NAME, is wanted; None for a virtual server that none is known to have."""
        if self.service is not None and service != str(self.service):
            return False
        return self.namespace is None or (service or "").partition("/")[0] == self.namespace


class Rates(NamedTuple):
    """What went through in a second, in the order of Traffic."""

    connections: float = 0
    packets_in: float = 0
    packets_out: float = 0
    bytes_in: float = 0
    bytes_out: float = 0


class Row(NamedTuple):
    """A Service, a virtual server, or an endpoint of one of the two; all three are None for the total of rows.

    `serving` and `draining` are numbers of endpoints: of their addresses, whatever ports they have.
    `drain_seconds_left` is until the last of those that drain has its connections cut off, None if nothing drains or
    nobody knows. `rates` is None before there are two looks.
    """

    service: str | None
    virtual_server: VirtualServerKey | None
    endpoint: Place | None
    serving: int
    draining: int
    drain_seconds_left: float | None
    active_connections: int
    inactive_connections: int
    rates: Rates | None

    @property
    def name(self) -> str:
        """The Service, else the virtual server."""
        return self.service or str(self.virtual_server or "")

    @property
    def endpoint_name(self) -> str:
        """The endpoint as `ADDRESS:PORT`, "" for none."""
        return format_endpoint(*self.endpoint) if self.endpoint else ""


class _Group:
    """What is added up for one row."""

    __slots__ = ("active", "drain_end", "drained", "inactive", "rates", "serving")

    def __init__(self) -> None:
        self.serving: set[Place] = set()
        self.drained: set[Place] = set()
        self.drain_end: float | None = None
        self.active = 0
        self.inactive = 0
        self.rates = Rates()

    def add(self, place: Place, real_server: RealServerLook, drain_end: float | None) -> None:
        self.active += real_server.active_connections
        self.inactive += real_server.inactive_connections
        if real_server.weight:
            self.serving.add(place)
        else:
            self.drained.add(place)
            self.drain_end = max(
                (each for each in (self.drain_end, drain_end) if each is not None), default=None
            )

    def add_rates(self, rates: Rates) -> None:
        self.rates = Rates(*map(sum, zip(self.rates, rates, strict=True)))


_GroupKey: TypeAlias = tuple[str | None, VirtualServerKey | None, Place | None]


def names_of(report: AgentReport, now: float) -> Names:
    """Return what the agent's report says of virtual servers; `now` is when it was asked."""
    services: dict[VirtualServerKey, str] = {}
    drain_ends: dict[tuple[VirtualServerKey, Place], float] = {}
    for service in report.services:
        name = str(service)
        for virtual_server in service.virtual_servers:
            protocol, port = Protocol[virtual_server.protocol], virtual_server.port
            for each in virtual_server.addresses:
                key = VirtualServerKey(parse_address(each.address), protocol, port)
                services[key] = name
                for drains in each.draining:
                    drain_ends[key, (parse_address(drains.address), drains.port)] = now + drains.seconds_left
    return Names(services, drain_ends)


def rows_of(
    before: Look | None,
    after: Look,
    names: Names,
    ours: Iterable[VirtualServerKey],
    grouping: Grouping,
    wanted: Wanted = Wanted(),  # noqa: B008 - immutable
) -> list[Row]:
    """Return the rows of the virtual servers `ours`, in no order; without a look `before` there are no rates.

    By Service, a virtual server that no Service is known to have is a row of its own.
    """
    groups: dict[_GroupKey, _Group] = {}
    elapsed = after.at - before.at if before else 0.0
    for key in ours:
        now, service = after.virtual_servers.get(key), names.services.get(key)
        if now is None or not wanted.fits(service):
            continue
        places = [place for place in now.real_servers if wanted.endpoint in {None, place[0]}]
        if not places and wanted.endpoint is not None:
            continue
        then = before.virtual_servers.get(key) if before else None
        by_service = service is not None and grouping is not Grouping.VIRTUAL_SERVER
        head = (service, None if by_service else key)
        if grouping is Grouping.ENDPOINT:
            for place in places:
                group = groups.setdefault((*head, place), _Group())
                real_server = now.real_servers[place]
                group.add(place, real_server, names.drain_ends.get((key, place)))
                earlier = then.real_servers.get(place) if then else None
                # One that was not there before may have counters of an earlier life.
                if earlier and earlier.total and real_server.total:
                    group.add_rates(_rates(earlier.total, real_server.total, elapsed))
        else:
            group = groups.setdefault((*head, None), _Group())
            for place, real_server in now.real_servers.items():
                group.add(place, real_server, names.drain_ends.get((key, place)))
            if before:
                group.add_rates(_rates(then.total if then else Traffic(), now.total, elapsed))
    return [_row(key, group, after.at, known=before is not None) for key, group in groups.items()]


def total_of(rows: Sequence[Row]) -> Row:
    """Return the sum of the rows, whose `drain_seconds_left` is the longest."""
    left = [row.drain_seconds_left for row in rows if row.drain_seconds_left is not None]
    rates = [row.rates for row in rows if row.rates]
    return Row(
        None,
        None,
        None,
        sum(row.serving for row in rows),
        sum(row.draining for row in rows),
        max(left, default=None),
        sum(row.active_connections for row in rows),
        sum(row.inactive_connections for row in rows),
        Rates(*map(sum, zip(*rates, strict=True))) if rates else None,
    )


def in_order(rows: Iterable[Row], order: Order, *, reverse: bool = False) -> list[Row]:
    """Return the rows sorted: names from A to Z, numbers from the largest; `reverse` is the other way round.

    Rows that are equal in that are sorted by name.
    """
    by_name = sorted(rows, key=_name_key, reverse=reverse and order is Order.NAME)
    if order is Order.NAME:
        return by_name
    return sorted(by_name, key=lambda row: _amount(row, order), reverse=not reverse)


def matching(rows: Iterable[Row], text: str) -> Iterator[Row]:
    """Yield the rows that have the text in a name or in their state, in upper or lower case."""
    folded = text.casefold()
    for row in rows:
        key = str(row.virtual_server or "")
        if any(folded in part.casefold() for part in (row.name, key, row.endpoint_name, state_of(row))):
            yield row


def state_of(row: Row) -> str:
    """Return what becomes of the row's clients, without how long it goes on; `dump` says why nobody serves."""
    if row.draining:
        return "draining" if row.endpoint else f"{row.draining} draining"
    return "serving" if row.serving else "no endpoints"


def _row(key: _GroupKey, group: _Group, now: float, *, known: bool) -> Row:
    return Row(
        *key,
        serving=len({address for address, _ in group.serving}),
        # What serves at another of the Service's addresses, or has come back there, is not about to go.
        draining=len({address for address, _ in group.drained - group.serving}),
        drain_seconds_left=None if group.drain_end is None else max(0.0, group.drain_end - now),
        active_connections=group.active,
        inactive_connections=group.inactive,
        rates=group.rates if known else None,
    )


def _name_key(
    row: Row,
) -> tuple[bool, str, tuple[int, VirtualServerKey] | tuple[()], tuple[int, Place] | tuple[()]]:
    key, endpoint = row.virtual_server, row.endpoint
    return (
        row.service is None,
        row.service or "",
        (len(key.address), key) if key else (),
        (len(endpoint[0]), endpoint) if endpoint else (),
    )


def _amount(row: Row, order: Order) -> float:
    rates = row.rates or Rates()
    match order:
        case Order.ACTIVE:
            return row.active_connections
        case Order.INACTIVE:
            return row.inactive_connections
        case Order.CONNECTIONS:
            return rates.connections
        case Order.PACKETS:
            return rates.packets_in + rates.packets_out
        case _:
            return rates.bytes_in + rates.bytes_out


def _rates(then: Traffic, now: Traffic, elapsed: float) -> Rates:
    """Return the rates between two states of the counters; counters that begin again have counted from 0 since."""
    pairs = list(zip(then, now, strict=True))
    if any(later < earlier for earlier, later in pairs):
        pairs = [(0, later) for later in now]
    return Rates(*((later - earlier) / elapsed for earlier, later in pairs)) if elapsed > 0 else Rates()
