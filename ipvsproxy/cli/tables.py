"""What `ipvsproxy dump` prints for a person: columns as kubectl has them, nothing cut short, `-` for nothing.

Every row has all the names in full, so that a line that grep finds stands for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ipvsproxy.config.durations import format_duration
from ipvsproxy.model.addresses import format_endpoint, parse_address
from ipvsproxy.observe.schema import RealServerState, VirtualServerState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ipvsproxy.observe.schema import (
        ActualRealServer,
        Balancing,
        DesiredRealServer,
        Dump,
        RealServer,
        VirtualServer,
    )

    _Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]]]

_SEPARATOR = " " * 3
_NOTHING = "-"


class _Row(NamedTuple):
    """A row of the main table, wide."""

    service: str
    port_name: str = _NOTHING
    kind: str = _NOTHING
    policy: str = _NOTHING
    virtual_server: str = _NOTHING
    sources: str = _NOTHING
    scheduler: str = _NOTHING
    persistence: str = _NOTHING
    real_server: str = _NOTHING
    weight: str = _NOTHING
    active: str = _NOTHING
    inactive: str = _NOTHING
    maximum: str = _NOTHING
    state: str = _NOTHING
    reason: str = _NOTHING


# The other columns are for `wide`.
_COMPACT = ("service", "virtual_server", "real_server", "weight", "active", "inactive", "state")

# What the virtual server does with its clients while it sends them to nobody.
_TURNED_AWAY = {
    VirtualServerState.REFUSING: "refusing, no real servers",
    VirtualServerState.DROPPING: "dropping, no local endpoints",
}


def render(dump: Dump, *, wide: bool) -> str:
    """Return the tables, an empty line between two: first the real servers, last what is not as it should be."""
    columns = _Row._fields if wide else _COMPACT
    main = _table(
        [column.replace("_", " ").upper() for column in columns],
        [[getattr(row, column) for column in columns] for row in _rows(dump, wide=wide)],
    )
    details = [_addresses(dump), _elements(dump)] if wide else []
    others = [*details, _differences(dump), _rejections(dump), _failures(dump), _warnings(dump)]
    return "\n".join((main, *(_table(headers, rows) for headers, rows in others if rows)))


def _rows(dump: Dump, *, wide: bool) -> list[_Row]:
    """Return the virtual servers with their real servers, and the Services without any, by Service."""
    rows = [
        _Row(
            _object(service.namespace, service.name),
            state="not programmed" if wide else f"not programmed, {service.not_programmed}",
            reason=service.not_programmed,
        )
        for service in dump.services or ()
        if service.not_programmed
    ]
    for virtual_server in dump.virtual_servers:
        rows += _virtual_server_rows(virtual_server, wide=wide)
    return sorted(rows, key=lambda row: (row.service == _NOTHING, row.service))


def _virtual_server_rows(virtual_server: VirtualServer, *, wide: bool) -> Iterator[_Row]:
    wanted, found = virtual_server.desired, virtual_server.actual
    row = _Row(
        virtual_server.service or _NOTHING,
        virtual_server.port_name or _NOTHING,
        virtual_server.kind or _NOTHING,
        virtual_server.traffic_policy or _NOTHING,
        f"{_endpoint(virtual_server)}/{virtual_server.protocol.lower()}",
        _sources(virtual_server),
        _beside(_scheduler(found), _scheduler(wanted)),
        _beside(_persistence(found), _persistence(wanted)),
    )
    shown = [
        each for each in virtual_server.real_servers if wide or each.state is not RealServerState.EXCLUDED
    ]
    turned_away = _TURNED_AWAY.get(virtual_server.state)
    if turned_away or not shown:
        yield row._replace(state=turned_away or virtual_server.state)
    for each in shown:
        actual, desired = each.actual, each.desired
        yield row._replace(
            real_server=_endpoint(each),
            weight=_beside(str(actual.weight) if actual else None, str(desired.weight) if desired else None),
            active=str(actual.active_connections) if actual else _NOTHING,
            inactive=str(actual.inactive_connections) if actual else _NOTHING,
            maximum=_beside(_maximum(actual), _maximum(desired)),
            state=_state(each),
            reason=each.reason or _NOTHING,
        )


def _state(real_server: RealServer) -> str:
    since, left = real_server.drain_seconds, real_server.drain_seconds_left
    if since is None or left is None:
        return real_server.state
    return f"{real_server.state} for {format_duration(since)}, {format_duration(left)} left"


def _sources(virtual_server: VirtualServer) -> str:
    if virtual_server.service is None:
        return _NOTHING
    if virtual_server.allowed_sources is None:
        return "all"
    return ",".join(virtual_server.allowed_sources) or "none"


def _addresses(dump: Dump) -> _Table:
    comparable = dump.differences is not None
    return ("ADDRESS", "STATE"), [
        (
            each.address,
            "on another interface"
            if each.elsewhere and not each.actual
            else _presence(desired=each.desired or not comparable, actual=each.actual),
        )
        for each in dump.addresses
    ]


def _elements(dump: Dump) -> _Table:
    comparable = dump.differences is not None
    return ("SET", "ELEMENT", "STATE"), [
        (each.set, each.element, _presence(desired=each.desired or not comparable, actual=each.actual))
        for each in dump.firewall.elements
    ]


def _presence(*, desired: bool, actual: bool) -> str:
    if desired:
        return "present" if actual else RealServerState.MISSING
    return RealServerState.UNWANTED


def _differences(dump: Dump) -> _Table:
    return ("SERVICE", "DIFFERENCE"), [
        (each.service or _NOTHING, each.sentence) for each in dump.differences or ()
    ]


def _rejections(dump: Dump) -> _Table:
    return ("REJECTED", "OBJECT", "FIELD", "REASON"), [
        (each.kind, _object(each.namespace, each.name), each.field or _NOTHING, each.reason)
        for each in dump.rejections
    ]


def _failures(dump: Dump) -> _Table:
    return ("FAILED", "ATTEMPTS", "NEXT TRY", "REASON"), [
        (each.item, str(each.attempts), format_duration(each.seconds_until_next_try), each.reason)
        for each in dump.failures
    ]


def _warnings(dump: Dump) -> _Table:
    return ("WARNING",), [(each,) for each in dump.warnings]


def _beside(actual: str | None, desired: str | None) -> str:
    """Return what is, and what should be if that is something else."""
    if desired is None or actual == desired:
        return actual or _NOTHING
    return f"{actual or _NOTHING}, desired {desired}"


def _scheduler(balancing: Balancing | None) -> str | None:
    if balancing is None:
        return None
    return ",".join((balancing.scheduler, *(flag for flag in balancing.flags if flag != "persistent")))


def _persistence(balancing: Balancing | None) -> str | None:
    if balancing is None:
        return None
    timeout = balancing.persistence_timeout_seconds
    return format_duration(timeout) if timeout else "none"


def _maximum(real_server: ActualRealServer | DesiredRealServer | None) -> str | None:
    if real_server is None:
        return None
    return str(real_server.maximum_connections) if real_server.maximum_connections else "none"


def _endpoint(server: VirtualServer | RealServer) -> str:
    return format_endpoint(parse_address(server.address), server.port)


def _object(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the columns under their headers, each as wide as its widest cell."""
    lines = [headers, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        _SEPARATOR.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )
