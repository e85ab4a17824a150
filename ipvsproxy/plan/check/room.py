"""How much room the node's tables of connections have left."""

from __future__ import annotations

from typing import Final, NamedTuple

from ipvsproxy.plan.check.finding import Check, Finding, Severity

_NEARLY_FULL: Final = 0.95
_FILLING: Final = 0.80
# Every packet is looked up by walking through one bucket.
_MANY_PER_BUCKET: Final = 16
_MAXIMUM: Final = "net.netfilter.nf_conntrack_max"


class Conntrack(NamedTuple):
    """How full connection tracking is, and how many packets it has dropped since the boot.

    `maximum` is 0 without a limit; `dropped_now` are those of the drops that came while this was looked at.
    """

    tracked: int
    maximum: int
    dropped: int
    dropped_now: int


class IpvsTable(NamedTuple):
    """The table of IPVS connections; `resizable` if the kernel makes it larger by itself ."""

    connections: int
    buckets: int
    resizable: bool


def judge_conntrack(conntrack: Conntrack) -> list[Finding]:
    """Judge how full connection tracking is, and what it had to drop."""
    return [_judge_room(conntrack), _judge_drops(conntrack)]


def _judge_room(conntrack: Conntrack) -> Finding:
    tracked, maximum = conntrack.tracked, conntrack.maximum
    if not maximum:
        return Finding(Check.CONNTRACK_ROOM, Severity.OK, f"{tracked} tracked connections, no limit")
    share = tracked / maximum
    state = f"{tracked} of {maximum} tracked connections ({share:.0%})"
    mend = f"sysctl -w {_MAXIMUM}={2 * maximum}; to keep it: --conntrack-max-per-core, or --conntrack-min"
    if share >= _NEARLY_FULL:
        meaning = f"{state}: a full table drops new connections, those to services and all others"
        return Finding(Check.CONNTRACK_ROOM, Severity.ERROR, meaning, mend)
    if share >= _FILLING:
        meaning = f"{state}: once the table is full, the node drops new connections"
        return Finding(Check.CONNTRACK_ROOM, Severity.WARNING, meaning, mend)
    return Finding(Check.CONNTRACK_ROOM, Severity.OK, state)


def _judge_drops(conntrack: Conntrack) -> Finding:
    if conntrack.dropped_now:
        return Finding(
            Check.CONNTRACK_DROPS,
            Severity.ERROR,
            f"connection tracking drops packets, {conntrack.dropped_now} while this was looked at: "
            "the table is full, or was a moment ago",
            f"sysctl -w {_MAXIMUM}={2 * conntrack.maximum}",
        )
    if conntrack.dropped:
        return Finding(
            Check.CONNTRACK_DROPS,
            Severity.INFO,
            f"connection tracking has dropped {conntrack.dropped} packets since the boot, and none now: "
            "the table was full, or packets of one new connection raced",
        )
    return Finding(Check.CONNTRACK_DROPS, Severity.OK, "connection tracking has dropped nothing")


def judge_ipvs_table(table: IpvsTable) -> Finding:
    """Judge whether the buckets of the connection table are enough for what IPVS has."""
    state = f"{table.connections} IPVS connections in a table of {table.buckets}"
    if table.resizable or table.connections <= _MANY_PER_BUCKET * table.buckets:
        return Finding(Check.IPVS_TABLE, Severity.OK, state)
    # 2**20 is the most that every kernel takes (CONFIG_IP_VS_TAB_BITS).
    bits = min(table.connections.bit_length(), 20)
    return Finding(
        Check.IPVS_TABLE,
        Severity.WARNING,
        f"{state}: each packet is looked up among {table.connections // table.buckets} of them, which costs time",
        f"echo options ip_vs conn_tab_bits={bits} > /etc/modprobe.d/ip_vs.conf, and reboot; "
        f"where ip_vs is built in, boot with ip_vs.conn_tab_bits={bits}",
    )
