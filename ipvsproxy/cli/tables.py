"""What `ipvsproxy dump` prints for a person: tables, first the real servers, last what is not as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.cli.layout import NOTHING, Column, Table, lay_out
from ipvsproxy.cli.units import compact
from ipvsproxy.config.durations import format_duration
from ipvsproxy.model.addresses import format_endpoint, parse_address
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.items import describe
from ipvsproxy.model.objects import Protocol
from ipvsproxy.observe.schema import RealServerState, VirtualServerState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ipvsproxy.cli.layout import Look
    from ipvsproxy.observe.schema import (
        ActualRealServer,
        Balancing,
        DesiredRealServer,
        Dump,
        RealServer,
        Statistics,
        VirtualServer,
    )

NO_DIFFERENCE: Final = "nothing differs: the kernel has what the agent wants\n"


class _Row(NamedTuple):
    """A row of the main table, wide."""

    service: str
    port_name: str = NOTHING
    kind: str = NOTHING
    policy: str = NOTHING
    virtual_server: str = NOTHING
    sources: str = NOTHING
    scheduler: str = NOTHING
    persistence: str = NOTHING
    real_server: str = NOTHING
    weight: str = NOTHING
    active: str = NOTHING
    inactive: str = NOTHING
    persistent: str = NOTHING
    maximum: str = NOTHING
    connections_per_second: str = NOTHING
    in_per_second: str = NOTHING
    out_per_second: str = NOTHING
    state: str = NOTHING
    reason: str = NOTHING


# Of a virtual server's source list; all of them are in the JSON and YAML output.
_MAXIMUM_SOURCES: Final = 10

_MAIN: Final = {
    "service": Column("SERVICE", 0, is_name=True),
    "port_name": Column("PORT NAME", 1),
    "kind": Column("KIND", 1),
    "policy": Column("POLICY", 1),
    "virtual_server": Column("VIRTUAL SERVER", 1, is_name=True),
    "sources": Column("SOURCES", 1),
    "scheduler": Column("SCHEDULER", 1),
    "persistence": Column("PERSISTENCE", 1),
    "real_server": Column("REAL SERVER", 2, is_name=True),
    "weight": Column("WEIGHT", 2),
    "active": Column("ACTIVE", 2),
    "inactive": Column("INACTIVE", 2),
    "persistent": Column("PERSISTENT", 2),
    "maximum": Column("MAXIMUM", 2),
    "connections_per_second": Column("NEW/S", 2),
    "in_per_second": Column("BYTES/S IN", 2),
    "out_per_second": Column("BYTES/S OUT", 2),
    "state": Column("STATE", 2),
    "reason": Column("REASON", 2, joins=True),
}
# The other columns are for `wide`.
_COMPACT: Final = ("service", "virtual_server", "real_server", "weight", "active", "inactive", "state")

# What the virtual server does with its clients while it sends them to nobody.
_TURNED_AWAY: Final = {
    VirtualServerState.REFUSING: "refusing, no real servers",
    VirtualServerState.DROPPING: "dropping, no local endpoints",
}


class Detail(NamedTuple):
    """How much is shown: all that there is (`wide`), and the endpoints that do not serve (`excluded`)."""

    wide: bool = False
    excluded: bool = False


def render(dump: Dump, detail: Detail, look: Look) -> str:
    """Return the tables, an empty line between two, each but the first only if it has something to say."""
    wide = detail.wide
    columns = _Row._fields if wide else _COMPACT
    main = Table(
        [_MAIN[column] for column in columns],
        [[getattr(row, column) for column in columns] for row in _rows(dump, detail)],
    )
    details = [_addresses(dump), _elements(dump)] if wide else []
    others = [
        *details,
        _differences(dump),
        _rejections(dump),
        _failures(dump),
        _warnings(dump),
        _host_firewall_chains(dump),
        _watches(dump, wide=wide),
    ]
    if wide:
        others.append(_agent(dump))
    return "\n".join(lay_out(table, look) for table in (main, *(table for table in others if table.rows)))


def render_differences(dump: Dump, detail: Detail, look: Look) -> str:
    """Return the tables of what `selection.only_differences` left, or a line that says that nothing differs."""
    return render(dump, detail, look) if dump.differences else NO_DIFFERENCE


def _rows(dump: Dump, detail: Detail) -> list[_Row]:
    """Return the virtual servers with their real servers, and the Services without any, by Service."""
    rows = [
        _Row(
            _object(service.namespace, service.name),
            state="not programmed" if detail.wide else f"not programmed, {service.not_programmed}",
            reason=service.not_programmed,
        )
        for service in dump.services or ()
        if service.not_programmed
    ]
    for virtual_server in dump.virtual_servers:
        rows += _virtual_server_rows(virtual_server, dump.source_lists, detail)
    return sorted(rows, key=lambda row: (row.service == NOTHING, row.service))


def _virtual_server_rows(
    virtual_server: VirtualServer, source_lists: Mapping[str, Sequence[str]], detail: Detail
) -> Iterator[_Row]:
    wanted, found = virtual_server.desired, virtual_server.actual
    row = _Row(
        virtual_server.service or NOTHING,
        virtual_server.port_name or NOTHING,
        virtual_server.kind or NOTHING,
        virtual_server.traffic_policy or NOTHING,
        f"{_endpoint(virtual_server)}/{virtual_server.protocol.lower()}",
        _sources(virtual_server, source_lists),
        _beside(_scheduler(found), _scheduler(wanted)),
        _beside(_persistence(found), _persistence(wanted)),
    )
    shown = [
        each
        for each in virtual_server.real_servers
        if detail.wide or detail.excluded or each.state is not RealServerState.EXCLUDED
    ]
    state = _virtual_server_state(virtual_server)
    if state or not shown:
        yield _with_rates(row, virtual_server.statistics)._replace(state=state or virtual_server.state)
    for each in shown:
        actual, desired = each.actual, each.desired
        yield _with_rates(row, actual.statistics if actual else None)._replace(
            real_server=_endpoint(each),
            weight=_beside(str(actual.weight) if actual else None, str(desired.weight) if desired else None),
            active=str(actual.active_connections) if actual else NOTHING,
            inactive=str(actual.inactive_connections) if actual else NOTHING,
            persistent=str(actual.persistent_connections) if actual else NOTHING,
            maximum=_beside(_maximum(actual), _maximum(desired)),
            state=_state(each, detail),
            reason=each.reason or NOTHING,
        )


def _virtual_server_state(virtual_server: VirtualServer) -> str:
    """Return what there is to say of the virtual server beside its real servers, "" for nothing."""
    state = _TURNED_AWAY.get(virtual_server.state, "")
    if virtual_server.without_endpoints and not any(each.actual for each in virtual_server.real_servers):
        state = f"{virtual_server.state}, {virtual_server.without_endpoints}"
    gone = virtual_server.state in {VirtualServerState.MISSING, VirtualServerState.UNWANTED}
    if virtual_server.differences and not gone:
        state = f"{state or virtual_server.state}, differs"
    failure = next((each for each in virtual_server.failures if each.item == _item(virtual_server)), None)
    if failure:
        next_try = format_duration(failure.seconds_until_next_try)
        state = f"{state or virtual_server.state}, failed, next try in {next_try}"
    return state


def _item(virtual_server: VirtualServer) -> str:
    address, protocol = parse_address(virtual_server.address), Protocol[virtual_server.protocol]
    return describe(VirtualServerKey(address, protocol, virtual_server.port))


def _with_rates(row: _Row, statistics: Statistics | None) -> _Row:
    if statistics is None or statistics.per_second is None:
        return row
    rate = statistics.per_second
    return row._replace(
        connections_per_second=compact(rate.connections),
        in_per_second=compact(rate.bytes_in),
        out_per_second=compact(rate.bytes_out),
    )


def _state(real_server: RealServer, detail: Detail) -> str:
    if real_server.state is RealServerState.EXCLUDED and not detail.wide:
        return f"{real_server.state}, {real_server.reason}"
    since, left = real_server.drain_seconds, real_server.drain_seconds_left
    if since is None or left is None:
        return real_server.state
    return f"{real_server.state} for {format_duration(since)}, {format_duration(left)} left"


def _sources(virtual_server: VirtualServer, source_lists: Mapping[str, Sequence[str]]) -> str:
    if virtual_server.service is None:
        return NOTHING
    if virtual_server.source_list is None:
        return "all"
    networks = source_lists[virtual_server.source_list]
    more = len(networks) - _MAXIMUM_SOURCES
    return ",".join([*networks[:_MAXIMUM_SOURCES], *([f"{more} more"] if more > 0 else [])]) or "none"


def _addresses(dump: Dump) -> Table:
    comparable = dump.differences is not None
    rows = [
        (
            each.address,
            "on another interface"
            if each.elsewhere and not each.actual
            else _presence(desired=each.desired or not comparable, actual=each.actual),
        )
        for each in dump.addresses
    ]
    return Table((Column("ADDRESS", is_name=True), Column("STATE")), rows)


def _elements(dump: Dump) -> Table:
    comparable = dump.differences is not None
    rows = [
        (each.set, each.element, _presence(desired=each.desired or not comparable, actual=each.actual))
        for each in dump.firewall.elements
    ]
    columns = (Column("SET", 0, is_name=True), Column("ELEMENT", 1, is_name=True), Column("STATE", 1))
    return Table(columns, rows)


def _presence(*, desired: bool, actual: bool) -> str:
    if desired:
        return "present" if actual else RealServerState.MISSING
    return RealServerState.UNWANTED


def _differences(dump: Dump) -> Table:
    rows = [(each.service or NOTHING, each.sentence) for each in dump.differences or ()]
    return Table((Column("SERVICE", is_name=True), Column("DIFFERENCE")), rows)


def _rejections(dump: Dump) -> Table:
    rows = [
        (each.kind, _object(each.namespace, each.name), each.field or NOTHING, each.reason)
        for each in dump.rejections
    ]
    columns = (Column("REJECTED", is_name=True), Column("OBJECT"), Column("FIELD"), Column("REASON"))
    return Table(columns, rows)


def _failures(dump: Dump) -> Table:
    rows = [
        (each.item, str(each.attempts), format_duration(each.seconds_until_next_try), each.reason)
        for each in dump.failures
    ]
    columns = (Column("FAILED", is_name=True), Column("ATTEMPTS"), Column("NEXT TRY"), Column("REASON"))
    return Table(columns, rows)


def _warnings(dump: Dump) -> Table:
    return Table((Column("WARNING"),), [(each,) for each in dump.warnings])


def _host_firewall_chains(dump: Dump) -> Table:
    return Table(
        (Column("OWN CHAIN IN THE HOST'S FIREWALL"),), [(each,) for each in dump.host_firewall_chains]
    )


def _watches(dump: Dump, *, wide: bool) -> Table:
    """Return what the agent follows; unless it is `wide`, what it can't follow at present."""
    rows = [
        (
            each.resource,
            "connected" if each.connected else "not connected",
            _ago(each.seconds_since_contact),
            each.error or NOTHING,
        )
        for each in dump.watches
        if wide or not each.connected
    ]
    columns = (Column("WATCHED", is_name=True), Column("STATE"), Column("LAST CONTACT"), Column("ERROR"))
    return Table(columns, rows)


def _agent(dump: Dump) -> Table:
    agent = dump.agent
    rows = (
        [
            (
                agent.version,
                str(agent.pid),
                agent.node_name,
                "yes" if agent.synced else "no",
                _ago(agent.seconds_since_resync),
            )
        ]
        if agent
        else []
    )
    columns = (
        Column("AGENT", is_name=True),
        Column("PID"),
        Column("NODE"),
        Column("SYNCED"),
        Column("LAST RESYNC"),
    )
    return Table(columns, rows)


def _ago(seconds: int | None) -> str:
    return NOTHING if seconds is None else f"{format_duration(seconds)} ago"


def _beside(actual: str | None, desired: str | None) -> str:
    """Return what is, and what should be if that is something else."""
    if desired is None or actual == desired:
        return actual or NOTHING
    return f"{actual or NOTHING}, desired {desired}"


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
