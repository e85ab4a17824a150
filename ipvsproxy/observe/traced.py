"""The two states that a packet is traced through: what the kernel has now, and what the agent wants there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.kernel.foreign_rules import NO_FOREIGN_RULES
from ipvsproxy.model.addresses import Family, format_address, parse_address
from ipvsproxy.model.ipvs import RealServer, VirtualServerKey
from ipvsproxy.model.objects import AddressKind
from ipvsproxy.plan.desired import agent_port, elements_of
from ipvsproxy.plan.firewall import ruleset
from ipvsproxy.plan.ownership import guards, is_ours
from ipvsproxy.plan.trace.shapes import leave_out
from ipvsproxy.plan.trace.table import FirewallTable
from ipvsproxy.plan.trace.values import KernelReason, TracedState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ipvsproxy.kernel.foreign_rules import ForeignRules
    from ipvsproxy.kernel.host_firewall import HostFirewall
    from ipvsproxy.kernel.listening import Listener
    from ipvsproxy.kernel.nft import FoundTable
    from ipvsproxy.kernel.routes import Route
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.model.ipvs import RealServerStatus, VirtualServer
    from ipvsproxy.observe.desired import DesiredVirtualServer
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.plan.firewall import FirewallSettings


class Misrouted(NamedTuple):
    """A real server, and whether it is the marked packet that policy routing keeps from it."""

    address: Address
    masqueraded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelState:
    """What the kernel of this node has.

    `virtual_servers` are everybody's, without their real servers; those are in `statuses`, for the virtual servers that
    packets may come to. `own` are the addresses on other interfaces than the dummy, and others that are local.
    `tracks_connections` is net.ipv4.vs.conntrack, which masquerading needs; `forwards` are the IP families of which the
    node passes on what is for others, as answers to clients beyond it are.

    `routes` are the ways to real servers and to other endpoints, None where there is none; the source of a route is
    what masquerading puts in. Of the interfaces and next hops on these ways, `down` can't send, `not_forwarding` keep
    what comes in by them, and `silent` did not answer lately. `misrouted` are real servers that the packet in question
    is kept from by policy routing, as it is, and once it is marked to be masqueraded. `near` are the endpoints that
    have an address of the node, or are behind an interface of it that does not lead out of the cluster.
    `pod_listeners` are the sockets of the pods of this node whose network can be seen. `foreign_rules` are those of
    others that come before the agent's.
    """

    table: FoundTable
    virtual_servers: Mapping[VirtualServerKey, VirtualServer]
    statuses: Mapping[VirtualServerKey, Sequence[RealServerStatus]]
    bound: AbstractSet[Address]
    own: AbstractSet[Address]
    listeners: Collection[Listener]
    host_firewall: HostFirewall
    tracks_connections: bool = True
    forwards: AbstractSet[Family] = frozenset(Family)
    routes: Mapping[Address, Route | None] = field(default_factory=dict)
    down: AbstractSet[str] = frozenset()
    not_forwarding: AbstractSet[str] = frozenset()
    silent: AbstractSet[Address] = frozenset()
    misrouted: AbstractSet[Misrouted] = frozenset()
    near: AbstractSet[Address] = frozenset()
    pod_listeners: Mapping[Address, Collection[Listener]] = field(default_factory=dict)

    @property
    def ways(self) -> Mapping[Address, str]:
        """The interfaces that lead to endpoints, as far as they are known."""
        return {address: way.interface for address, way in self.routes.items() if way and way.interface}

    foreign_rules: ForeignRules = NO_FOREIGN_RULES

    @property
    def elements(self) -> AbstractSet[SetElement]:
        """The elements of the table's sets."""
        return self.table.state.elements

    def found(self, key: VirtualServerKey) -> VirtualServer | None:
        """Return the virtual server with its real servers; None if it is not there."""
        virtual_server, statuses = self.virtual_servers.get(key), self.statuses.get(key)
        if virtual_server is None or statuses is None:
            return None
        return virtual_server._replace(real_servers=tuple(status.real_server for status in statuses))

    def unreached(self) -> dict[Address, KernelReason]:
        """Return the real servers that the node can't send to, and why."""
        return {
            address: KernelReason.LINK_DOWN if route else KernelReason.NO_ROUTE
            for address, route in self.routes.items()
            if route is None or route.interface in self.down
        }

    def owns(self, key: VirtualServerKey) -> bool:
        """Say whether a virtual server of the kernel is ours."""
        return is_ours(key, self.bound, self.elements)


def keys_met(key: VirtualServerKey, elements: Iterable[SetElement]) -> Iterator[VirtualServerKey]:
    """Yield what clients connect to, and what the table sends some of them to instead."""
    yield key
    for element in elements:
        match element.fields:
            case (address, protocol, port, target, number) if (address, protocol, port) == key:
                yield VirtualServerKey(target, protocol, number)


def keys_wanted(key: VirtualServerKey, report: AgentReport) -> Iterator[VirtualServerKey]:
    """Yield what clients connect to, and what the agent wants some of them to be sent to instead."""
    yield key
    text = format_address(key.address)
    for reported in (each for service in report.services for each in service.virtual_servers):
        redirect, texts = reported.redirect, [each.address for each in reported.addresses]
        asked = text in texts and (reported.port, reported.protocol) == (key.port, key.protocol.name)
        if redirect and asked:
            yield VirtualServerKey(parse_address(redirect.address), key.protocol, redirect.port)


def endpoints_of(keys: Collection[VirtualServerKey], report: AgentReport) -> set[Address]:
    """Return the addresses of all endpoints that the agent knows of these virtual servers."""
    asked = {(format_address(key.address), key.port, key.protocol.name) for key in keys}
    return {
        parse_address(endpoint.address)
        for service in report.services
        for each in service.virtual_servers
        if any((place.address, each.port, each.protocol) in asked for place in each.addresses)
        for endpoint in each.endpoints
    }


def trace_kernel(kernel: KernelState, destination: Address) -> tuple[TracedState, list[str]]:
    """Return the state to trace a packet to an address through, and sentences about what can't be followed of it."""
    rules = kernel.table.rules
    chains, problems = leave_out(rules.chains) if rules else ((), ())
    unknown = [(each.chain, each.text) for each in rules.unknown] if rules else []
    for problem in problems:
        text = problem.rule.duty or "without a comment" if problem.rule else problem.why
        unknown.append((problem.chain, text))
    unless = [
        f"chain {chain} of table inet ipvsproxy has a rule that the agent does not make, and that can't be followed: "
        f"{text}"
        for chain, text in dict.fromkeys(unknown)
    ]
    if kernel.table.strange:
        unless.append(
            "table inet ipvsproxy has elements such as the agent never adds, which can't be followed"
        )
    table = FirewallTable(chains, kernel.elements, kernel.host_firewall.tables)
    return _state(kernel, table, _virtual_servers(kernel), kernel.bound, destination), unless


def trace_desired(
    settings: FirewallSettings,
    wanted: Iterable[DesiredVirtualServer],
    agent_ports: Iterable[int],
    kernel: KernelState,
    destination: Address,
) -> TracedState:
    """Return the state that the agent wants, with what others have in the kernel and the node's own addresses."""
    everybody = _virtual_servers(kernel)
    virtual_servers = {key: each for key, each in everybody.items() if not kernel.owns(key)}
    elements = set(map(agent_port, agent_ports))
    bound: set[Address] = set()
    for desired in wanted:
        key = desired.virtual_server.key
        virtual_servers[key] = _with_draining(desired)
        elements.update(each for each in elements_of(desired.planned) if not guards(each, kernel.own))
        if desired.planned.kind is not AddressKind.NODE_PORT and key.address not in kernel.own:
            bound.add(key.address)
    table = FirewallTable(ruleset(settings), elements, kernel.host_firewall.tables)
    return _state(kernel, table, virtual_servers, bound, destination)


def _virtual_servers(kernel: KernelState) -> dict[VirtualServerKey, VirtualServer]:
    """Return everybody's virtual servers, with their real servers where they matter."""
    return {key: kernel.found(key) or each for key, each in kernel.virtual_servers.items()}


def _with_draining(desired: DesiredVirtualServer) -> VirtualServer:
    virtual_server = desired.virtual_server
    draining = (RealServer(*place, weight=0) for place in desired.draining)
    return virtual_server._replace(real_servers=tuple(sorted((*virtual_server.real_servers, *draining))))


def _state(
    kernel: KernelState,
    table: FirewallTable,
    virtual_servers: Mapping[VirtualServerKey, VirtualServer],
    bound: AbstractSet[Address],
    destination: Address,
) -> TracedState:
    full = {
        (key, status.real_server)
        for key, statuses in kernel.statuses.items()
        for status in statuses
        if is_full(status)
    }
    listening = {(int(each.protocol), each.port) for each in kernel.listeners if each.hears(destination)}
    return TracedState(
        table, virtual_servers, bound, sorted(kernel.own), listening, full, kernel.unreached(), kernel.ways
    )


def is_full(status: RealServerStatus) -> bool:
    """Say whether a real server has as many connections as it may have (ip_vs_bind_dest, ip_vs_conn.c)."""
    limit = status.real_server.upper_threshold
    return bool(limit) and status.active_connections + status.inactive_connections >= limit
