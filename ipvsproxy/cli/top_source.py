"""What `ipvsproxy top` reads: the kernel's counters at the right moments, and the agent's report for the names.

By Service and by virtual server a look costs one dump of all virtual servers, with their counters, and one for each
that is shown, for its connections; by endpoint one more for each, for the counters of its real servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.cli.answers import ask_agent, reading_kernel
from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.model.addresses import format_address
from ipvsproxy.observe.traffic import (
    RUN_ESTIMATION,
    Grouping,
    Look,
    Names,
    RealServerLook,
    VirtualServerLook,
    names_of,
)
from ipvsproxy.plan.ownership import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ipvsproxy.kernel.interface import NodeKernel, Sysctls
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.observe.look_times import LookTimes
    from ipvsproxy.observe.schema import AgentInfo, AgentReport
    from ipvsproxy.observe.traffic import Wanted

# How often the agent is asked, in seconds; sooner if there are virtual servers that it did not know.
_REPORT_AGE = 10.0

_NO_NAMES = Names({}, {})


class Frame(NamedTuple):
    """What there is to show: two looks, without the first at the beginning, and what is known about them.

    `ours` are the virtual servers that are ipvsproxy's. `silence` says why no Services are known, "" if they are.
    `counting` is false while the kernel counts nothing.
    """

    before: Look | None
    after: Look
    names: Names
    ours: Sequence[VirtualServerKey]
    agent: AgentInfo | None
    silence: str
    counting: bool


class Node(NamedTuple):
    """The edges of the program: `counted` reads the counters of the whole node, as text; `clock` is in seconds.

    `wait` waits for so many seconds and says whether to end.
    """

    kernel: NodeKernel
    sysctls: Sysctls
    ask: Callable[[], AgentReport]
    counted: Callable[[], str]
    clock: Callable[[], float]
    wait: Callable[[float], bool]


class Source:
    """Reads the kernel and asks the agent, again and again."""

    def __init__(self, node: Node, by: Grouping, wanted: Wanted) -> None:
        """Ask the agent; UsageError for a Service or namespace that it does not know."""
        self._node = node
        self._with_real_server_counters = by is Grouping.ENDPOINT
        self._wanted = wanted
        self._names = _NO_NAMES
        self._agent: AgentInfo | None = None
        self._silence = ""
        self._asked_at = 0.0
        # Virtual servers that the agent did not name at its last answer, and which of them are ours.
        self._unnamed: frozenset[VirtualServerKey] = frozenset()
        self._ours: frozenset[VirtualServerKey] = frozenset()
        self._ask_agent()
        self._require_known()

    @property
    def silence(self) -> str:
        """Why no Services are known, "" if they are."""
        return self._silence

    def frames(self, times: LookTimes) -> Iterator[Frame]:
        """Yield what there is at once, and then at each time; end when `wait` says so.

        IpvsProxyError if the kernel can't be read; UsageError if it never had the endpoint that is wanted.
        """
        before: Look | None = None
        first = self._frame(None)
        self._require_endpoint(first.after)
        yield first
        while True:
            while not times.due(self._node.clock(), self._node.counted()):
                if self._node.wait(times.pause):
                    return
            started = self._node.clock()
            frame = self._frame(before)
            times.took(self._node.clock() - started)
            before = frame.after
            if frame.before:
                yield frame

    def _frame(self, before: Look | None) -> Frame:
        with reading_kernel():
            after, ours = self._look()
            counting = self._node.sysctls.get(RUN_ESTIMATION) != "0"
        return Frame(before, after, self._names, ours, self._agent, self._silence, counting)

    def _look(self) -> tuple[Look, list[VirtualServerKey]]:
        node = self._node
        counters = node.kernel.ipvs.virtual_server_statistics()
        at = node.clock()
        unnamed = frozenset(counters.keys() - self._names.services.keys())
        if at - self._asked_at >= _REPORT_AGE or unnamed - self._unnamed:
            self._ask_agent()
            unnamed = frozenset(counters.keys() - self._names.services.keys())
            self._ours = self._owned(unnamed)
        self._unnamed = unnamed
        services = self._names.services
        ours = [key for key in counters if key in services or key in self._ours]
        shown = [key for key in ours if self._wanted.fits(services.get(key))]
        statuses = node.kernel.ipvs.real_servers(shown)
        totals = node.kernel.ipvs.real_server_statistics(shown) if self._with_real_server_counters else {}
        found = {key: VirtualServerLook(statistics.total, {}) for key, statistics in counters.items()}
        for key, real_servers in statuses.items():
            of_real_servers = totals.get(key, {})
            looks = {}
            for status in real_servers:
                place = (status.real_server.address, status.real_server.port)
                statistics = of_real_servers.get(place)
                looks[place] = RealServerLook(
                    status.real_server.weight,
                    status.active_connections,
                    status.inactive_connections,
                    statistics.total if statistics else None,
                )
            found[key] = found[key]._replace(real_servers=looks)
        return Look(at, found), ours

    def _owned(self, keys: frozenset[VirtualServerKey]) -> frozenset[VirtualServerKey]:
        """Return those that are ours without a Service that is known to ask for them."""
        if not keys:
            return keys
        kernel = self._node.kernel
        bound, elements = kernel.addresses.bound(), kernel.firewall.read().elements
        return frozenset(key for key in keys if is_ours(key, bound, elements))

    def _ask_agent(self) -> None:
        report, self._silence = ask_agent(self._node.ask)
        self._asked_at = self._node.clock()
        self._agent = report.agent if report else None
        self._names = names_of(report, self._asked_at) if report and not self._silence else _NO_NAMES

    def _require_known(self) -> None:
        service, namespace = self._wanted.service, self._wanted.namespace
        if service is None and namespace is None:
            return
        asked = f"--service {service}" if service else f"--namespace {namespace}"
        if self._silence:
            raise IpvsProxyError(
                f"{asked}: only the agent knows Services, and {self._silence}; "
                "without it, top shows virtual servers by address"
            )
        if not any(map(self._wanted.fits, self._names.services.values())):
            raise UsageError(
                f"{asked}: the agent knows no such Service that has virtual servers; "
                "`ipvsproxy dump` shows those that it knows"
            )

    def _require_endpoint(self, look: Look) -> None:
        endpoint = self._wanted.endpoint
        if endpoint is None:
            return
        places = (place for each in look.virtual_servers.values() for place in each.real_servers)
        if all(place[0] != endpoint for place in places):
            raise UsageError(
                f"--endpoint {format_address(endpoint)}: no virtual server has such a real server; "
                "`ipvsproxy dump -o wide` shows all endpoints, and why some serve nobody"
            )
