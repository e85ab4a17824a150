"""How full the kernel's tables of connections are, as /proc tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.plan.check.room import Conntrack, IpvsTable

if TYPE_CHECKING:
    from ipvsproxy.kernel.interface import Sysctls

_PROC_NET = Path("/proc/thread-self/net")
_SIZE = re.compile(r"\(size=(\d+)\)")


class IpvsSummary(NamedTuple):
    """The table of IPVS connections, and the schedulers that virtual servers have, whoever made them."""

    table: IpvsTable
    schedulers: frozenset[str]


def read_conntrack_drops(proc_net: Path = _PROC_NET) -> int:
    """Return how many packets connection tracking has dropped; OSError where there is none, ValueError."""
    header, *processors = (proc_net / "stat" / "nf_conntrack").read_text().splitlines()
    column = header.split().index("drop")
    return sum(int(line.split()[column], 16) for line in processors)


def read_conntrack(sysctls: Sysctls, drops_before: int, proc_net: Path = _PROC_NET) -> Conntrack:
    """Read how full connection tracking is, and what it has dropped since there were `drops_before`.

    OSError where there is no connection tracking, ValueError for what can't be understood.
    """
    dropped = read_conntrack_drops(proc_net)
    room = read_conntrack_room(sysctls)
    if room is None:
        raise ValueError("connection tracking does not say how many connections it has")
    return Conntrack(*room, dropped, dropped - drops_before)


def read_conntrack_room(sysctls: Sysctls) -> tuple[int, int] | None:
    """Return how many connections are tracked and how many may be, 0 for no limit; None without connection tracking."""
    count, maximum = (sysctls.get(f"net.netfilter.nf_conntrack_{name}") for name in ("count", "max"))
    return None if count is None or maximum is None else (int(count), int(maximum))


def read_ipvs(sysctls: Sysctls, proc_net: Path = _PROC_NET) -> IpvsSummary:
    """Read what IPVS has; OSError where there is no IPVS, ValueError for what can't be understood.

    The lines are those of /proc/net/ip_vs: `TCP  0A60000A:0050 rr`, and below it its real servers,
    `  -> 0AF4010A:1F90      Masq    1      2          5`, active and inactive connections last.
    """
    with (proc_net / "ip_vs").open() as lines:
        size = _SIZE.search(next(lines, ""))
        if size is None:
            raise ValueError("/proc/net/ip_vs does not begin with the table's size")
        # Two lines with the names of columns.
        next(lines, "")
        next(lines, "")
        schedulers, connections = set(), 0
        for line in lines:
            words = line.split()
            if words[0] == "->":
                connections += int(words[-2]) + int(words[-1])
            else:
                schedulers.add(words[2])
    # A kernel that resizes the table has a setting for how full it may become.
    resizable = sysctls.get("net.ipv4.vs.conn_lfactor") is not None
    return IpvsSummary(IpvsTable(connections, int(size[1]), resizable), frozenset(schedulers))
