"""The sentences of `ipvsproxy explain`: what comes of the packet, why, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import format_address, format_endpoint
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.items import describe
from ipvsproxy.model.objects import AddressKind, Protocol
from ipvsproxy.observe.desired import firewall_settings
from ipvsproxy.observe.explain_schema import EndpointState
from ipvsproxy.observe.words import mentions
from ipvsproxy.plan.endpoints import EndpointReason
from ipvsproxy.plan.firewall import TABLE, PodNetworks
from ipvsproxy.plan.host_rules import Backend
from ipvsproxy.plan.ownership import record_of
from ipvsproxy.plan.trace.values import KernelReason, Outcome, SourceSeen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SourceList
    from ipvsproxy.observe.desired import DesiredVirtualServer
    from ipvsproxy.observe.explain_schema import ExplainedEndpoint
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.observe.traced import KernelState
    from ipvsproxy.plan.host_firewall import HostFirewallFinding
    from ipvsproxy.plan.services import Redirect
    from ipvsproxy.plan.trace.values import Step, Trace

_OUTCOMES = {
    Outcome.ANSWERED: "answered",
    Outcome.REFUSED: "refused at once",
    Outcome.DROPPED: "dropped without an answer",
    Outcome.NODE: "answered by the node itself",
    Outcome.NOT_OURS: "sent elsewhere, for its destination is no address of this node",
}
KINDS = {
    AddressKind.CLUSTER_IP: "a clusterIP",
    AddressKind.NODE_PORT: "a node port",
    AddressKind.LOAD_BALANCER_IP: "an IP of the load balancer",
    AddressKind.EXTERNAL_IP: "an external IP",
}
"""How a Service comes by an address."""
_POLICY_FIELD = {AddressKind.CLUSTER_IP: "internalTrafficPolicy"}
_NOBODY_SERVES = frozenset({FirewallSet.PORTS_WITHOUT_ENDPOINTS, FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS})
_ENOUGH = 10
_FEW_COMMANDS = 3

RULE_WITHOUT_COMMENT = "a rule without a comment"
"""The duty of a rule of somebody's who does not say what it is for."""


class Situation(NamedTuple):
    """What the sentences are about.

    `key` is what the client connects to, `met` the virtual server that its packet meets, which differs if the packet is
    redirected. `desired` is empty without the agent.
    """

    key: VirtualServerKey
    met: VirtualServerKey
    traced: Trace
    kernel: KernelState
    desired: Mapping[VirtualServerKey, DesiredVirtualServer]
    endpoints: Sequence[ExplainedEndpoint]

    @property
    def last(self) -> Step:
        """The step that settled it, if nobody answers."""
        return self.traced.steps[-1]

    @property
    def is_service_port(self) -> bool:
        """Whether a Service has the port, as far as is known: the agent says so, or the kernel's own record."""
        known = self.key in self.desired or record_of(self.key) in self.kernel.elements
        return known or self.key in self.kernel.virtual_servers

    def decided_by(self, *sets: FirewallSet) -> bool:
        """Say whether an element of one of the sets is behind the packet's end."""
        items = [item for step in self.traced.steps[-2:] for item in step.items]
        return any(isinstance(item, SetElement) and item.set in sets for item in items)


def whose(desired: DesiredVirtualServer) -> str:
    """Say whose the address and port are, and by which policy its endpoints are chosen."""
    planned, reported = desired.planned, desired.reported
    port = f", port {reported.port_name}" if reported.port_name else ""
    field = _POLICY_FIELD.get(planned.kind, "externalTrafficPolicy")
    return (
        f"{planned.virtual_server.key} is {KINDS[planned.kind]} of Service {desired.service}{port}, "
        f"with {field} {planned.policy}"
    )


def claims_of_foreign(situation: Situation, report: AgentReport | None) -> list[str]:
    """Return whose Services ask for what somebody else's virtual server has, in sentences."""
    key, kernel = situation.key, situation.kernel
    if key in situation.desired or not _has_foreign(key, kernel) or report is None:
        return []
    return [
        f"Service {each.service} asks for it ({each.field}), and does not get it: {each.reason}"
        for each in report.rejections
        if each.foreign and mentions(each.reason, key.address)
    ]


def _has_foreign(key: VirtualServerKey, kernel: KernelState) -> bool:
    return any(each.address == key.address and not kernel.owns(each) for each in kernel.virtual_servers)


def open_to(sources: SourceList) -> str:
    """Say who may connect."""
    if not sources.networks:
        return "its loadBalancerSourceRanges let in no network of this family: nobody may connect"
    node = ", and with them this node's own processes" if sources.admits_node else ""
    return f"its loadBalancerSourceRanges let in {listed(map(str, sources.networks), 'and')} only{node}"


def redirected(redirect: Redirect) -> str:
    """Say which clients are sent to the ClusterIP."""
    place = format_endpoint(redirect.address, redirect.port)
    return f"clients {redirect.clients} the cluster are sent on to the ClusterIP, {place}"


def foreign_remedy(key: VirtualServerKey | None = None) -> str:
    """Say what to do about somebody else's virtual server that a Service would have to have."""
    flag = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}
    which = f"{flag[key.protocol]} {format_endpoint(key.address, key.port)}" if key else "-t ADDRESS:PORT"
    return (
        "find out who made it, such as keepalived or kube-proxy, and have it removed: `ipvsproxy cleanup --kube-proxy` "
        f"if it is kube-proxy's, else `ipvsadm -D {which}`; the agent takes over at its next resync"
    )


def listed(texts: Iterable[str], word: str) -> str:
    """Return `A, B and C`, with another word if it is given; of many, the first few and how many more there are."""
    every = list(texts)
    if len(every) > _ENOUGH:
        every = [*every[: _ENOUGH - 1], f"{len(every) - _ENOUGH + 1} more"]
    *first, last = every
    return f"{', '.join(first)} {word} {last}" if first else last


def met(traced: Trace) -> str:
    """Say what comes of a packet, and by whom it is answered."""
    if not traced.answers:
        return _OUTCOMES[traced.outcome]
    groups: dict[str, list[str]] = {}
    for address, port, source in traced.answers:
        seen = "the client" if source is SourceSeen.CLIENT else "this node"
        groups.setdefault(seen, []).append(format_endpoint(address, port))
    return _met(traced.outcome, groups)


def _met(outcome: Outcome, groups: Mapping[str, Sequence[str]]) -> str:
    """Say who answers; `groups` has the endpoints by the source that they see."""
    answered = ", or ".join(
        f"{listed(texts, 'or')}, seeing {seen} as the source" for seen, texts in groups.items()
    )
    refused = "" if outcome is Outcome.ANSWERED else f"{_OUTCOMES[outcome]} for some clients, for others "
    return f"{refused}answered by {answered}"


def result(situation: Situation) -> str:
    """Say in one sentence what comes of the packet, and why if it is not answered."""
    if situation.traced.outcome is Outcome.ANSWERED or situation.traced.answers:
        return _answered(situation)
    outcome, cause = _OUTCOMES[situation.traced.outcome], _cause(situation)
    return f"{outcome}: {cause}" if cause else outcome


def _answered(situation: Situation) -> str:
    groups: dict[str, list[str]] = {}
    for endpoint in situation.endpoints:
        if endpoint.state is EndpointState.ANSWERS:
            seen = endpoint.sees or "an address of this node"
            if endpoint.masqueraded and endpoint.sees:
                seen += " (this node)"
            groups.setdefault(seen, []).append(str(endpoint))
    return _met(situation.traced.outcome, groups)


def _cause(situation: Situation) -> str:  # noqa: PLR0911 - one for each
    key, kernel, reason = situation.key, situation.kernel, situation.last.reason or RULE_WITHOUT_COMMENT
    if situation.traced.outcome is Outcome.NOT_OURS:
        wanted = key in situation.desired
        return f"{describe(key.address)} is missing on the dummy interface" if wanted else ""
    if situation.traced.host_drops:
        return "; ".join(drop.meaning for drop in situation.traced.host_drops)
    if situation.traced.outcome is Outcome.NODE:
        return reason
    if situation.decided_by(FirewallSet.RESTRICTED_PORTS):
        source = situation.traced.source
        return f"{format_address(source) if source else 'the source'} is in none of the allowed networks"
    if situation.decided_by(*_NOBODY_SERVES) or reason == KernelReason.NO_REAL_SERVERS:
        return _nobody_serves(situation)
    if situation.traced.outcome is Outcome.DROPPED:
        return reason
    if not situation.is_service_port:
        has = ports_of(key.address, situation)
        known = f"it has {listed(has, 'and')}" if has else "it has none at all"
        nor = f"{reason}, and " if reason == KernelReason.NOT_LISTENING else ""
        port = f"port {key.port}/{key.protocol.name.lower()}"
        return f"{nor}no Service has {port} at {format_address(key.address)}: {known}"
    if key not in kernel.virtual_servers and situation.met not in kernel.virtual_servers:
        return f"{describe(situation.met)} is missing"
    return reason


def _nobody_serves(situation: Situation) -> str:
    desired = situation.desired.get(situation.met)
    name = describe(situation.met)
    if desired is None:
        return f"{name} has no real server that takes new connections"
    reasons = sorted(set(desired.excluded.values()))
    if situation.decided_by(FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS):
        reasons = reasons or [EndpointReason.NOT_LOCAL_EXTERNALLY]
    if not desired.endpoints:
        if desired.reported.without_endpoints:
            return f"Service {desired.service}: {desired.reported.without_endpoints}"
        return f"Service {desired.service} has no endpoints for this port"
    if not reasons:
        return f"{name} has no real server that takes new connections, although endpoints serve"
    return f"no endpoint of Service {desired.service} serves here: {'; '.join(reasons)}"


def ports_of(address: Address, situation: Situation) -> list[str]:
    """Return the service ports that an address has, with their Services where these are known."""
    keys = {key for key in (*situation.desired, *situation.kernel.virtual_servers) if key.address == address}
    keys |= {
        VirtualServerKey(*each.fields) for each in situation.kernel.elements if _is_record(each, address)
    }
    return [
        f"{key.port}/{key.protocol.name.lower()}"
        + (f" ({situation.desired[key].service})" if key in situation.desired else "")
        for key in sorted(keys, key=lambda key: (key.port, key.protocol))
    ]


def _is_record(element: SetElement, address: Address) -> bool:
    return element.set is FirewallSet.SERVICE_PORTS and element.address == address


def advice(
    situation: Situation,
    report: AgentReport | None,
    differences: Sequence[str],
    *,
    certain: bool,
    seen: bool,
) -> Iterator[str]:
    """Yield what to do next; `seen` says that all endpoints of this node were seen to listen."""
    names = {describe(item) for item in (situation.key, situation.met, situation.key.address)}
    for failure in report.failures if report else ():
        if failure.item in names or failure.address == format_address(situation.key.address):
            yield (
                f"the kernel refused {failure.item}: {failure.reason}; the agent tries it again in "
                f"{failure.seconds_until_next_try}s"
            )
    if report and claims_of_foreign(situation, report):
        yield foreign_remedy(situation.key)
    if differences:
        yield (
            "the agent mends what differs at its next resync (--sync-period), or when it is started anew; if it comes "
            "back, somebody else changes it: see `repaired what others changed` in the agent's log"
        )
    elif report is None and not situation.traced.answers and not situation.traced.host_drops:
        yield "start the agent: only it knows what should be there, and it mends what is not"
    if not certain:
        yield "look into what `unless` says: that may keep the packet from the endpoint, or the answer from its client"
    yield from _past_the_host_firewall(situation, report)
    if situation.traced.outcome is not Outcome.ANSWERED:
        yield from _by_outcome(situation, mending=bool(differences))
        if report:
            yield from _misnamed(situation, report.agent.node_name)
    elif certain and not differences:
        listening = "" if seen else "does it listen on that port, "
        yield (
            f"nothing that was looked at on this node stands in the way; if clients wait all the same, look at the "
            f"endpoint ({listening}does a NetworkPolicy keep the source out), and at the way there and back"
        )
    yield from _by_state(situation)


def _past_the_host_firewall(situation: Situation, report: AgentReport | None) -> Iterator[str]:
    for drop in situation.traced.host_drops:
        # Node ports are at addresses of the node: all its other ports stay closed.
        to_service = _destination_at(drop, situation.key.address, situation.key)
        to_endpoints = list(dict.fromkeys(_to_endpoints(situation, drop, report))) or [""]
        commands = [
            f"`{drop.command.replace('SERVICE-CIDR', to_service).replace('POD-CIDR', each)}`"
            for each in to_endpoints[:_FEW_COMMANDS]
        ]
        left = len(to_endpoints) - len(commands)
        more = f", the same for {left} more endpoints" if left else ""
        yield (
            f"so that it passes {drop.base}: {'; '.join(commands)}{more}, and the same in the configuration of that "
            "firewall"
        )


def _to_endpoints(
    situation: Situation, drop: HostFirewallFinding, report: AgentReport | None
) -> Iterator[str]:
    """Yield what matches the endpoints that the chain keeps the packet from: the pods' networks, or each by itself."""
    pods = firewall_settings(report).pods if report else PodNetworks()
    networks = pods.networks if isinstance(pods, PodNetworks) else ()
    for step in situation.traced.steps:
        if step.host_drop == drop and step.real_server:
            address, port, *_ = step.real_server
            found = [str(network) for network in networks if network.contains(address)]
            yield found[0] if found else _destination_at(drop, address, situation.met._replace(port=port))


def _destination_at(drop: HostFirewallFinding, address: Address, to: VirtualServerKey) -> str:
    """Return the conditions for an address, and for a protocol and port, in the words of the chain's own program."""
    protocol = to.protocol.name.lower()
    port = f"{protocol} dport" if drop.base.table.backend is Backend.NFTABLES else f"-p {protocol} --dport"
    return f"{format_address(address)} {port} {to.port}"


def _by_outcome(situation: Situation, *, mending: bool) -> Iterator[str]:
    traced, desired = situation.traced, situation.desired.get(situation.met)
    if traced.host_drops:
        return
    if unreached := _unreached(situation):
        yield from unreached
    elif situation.decided_by(FirewallSet.RESTRICTED_PORTS):
        yield "add the client's network to spec.loadBalancerSourceRanges, or connect from one that is in it"
    elif situation.decided_by(FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS):
        yield (
            "send clients to a node that has a ready endpoint, as a load balancer does that asks the health check node "
            "port; or set externalTrafficPolicy Cluster"
        )
    elif traced.outcome is Outcome.REFUSED and situation.is_service_port and desired and not mending:
        namespace, _, name = desired.service.partition("/")
        if desired.reported.without_endpoints:
            yield (
                "a named targetPort has to be the name of a port of the pods' containers, and an EndpointSlice that "
                "somebody else writes has to name its ports as the Service does"
            )
        yield (
            f"see why no endpoint serves: `kubectl -n {namespace} get endpointslices -l "
            f"kubernetes.io/service-name={name} -o yaml`, and the Pods behind it"
        )
    elif traced.outcome is Outcome.REFUSED and not situation.is_service_port:
        yield "connect to a port that the address has, or add this one to the Service"


def _misnamed(situation: Situation, node_name: str) -> Iterator[str]:
    """Say that the agent may go by another node's name: all endpoints are of another node, and one is at hand."""
    desired = situation.desired.get(situation.met)
    elsewhere = [
        place[0]
        for place, endpoint in (desired.endpoints.items() if desired else ())
        if endpoint.reason in {EndpointReason.NOT_LOCAL_INTERNALLY, EndpointReason.NOT_LOCAL_EXTERNALLY}
    ]
    near = [address for address in elsewhere if address in situation.kernel.near]
    if desired and near and len(elsewhere) == len(desired.endpoints):
        route = situation.kernel.routes.get(near[0])
        by = (
            f"behind the interface {route.interface} of this node"
            if route and not route.local
            else "this node's own"
        )
        yield (
            f"{format_address(near[0])} is {by}, and the agent takes it for another node's: see whether this Node is "
            f"called {node_name} (`kubectl get nodes -o wide`), and start the agent with --hostname-override if not"
        )


def _unreached(situation: Situation) -> list[str]:
    """Say how to find out what keeps the node from its real servers."""
    reasons = {step.reason: step.real_server for step in situation.traced.steps if step.real_server}
    found = []
    if server := reasons.get(KernelReason.NO_ROUTE):
        address = format_address(server.address)
        found.append(
            f"see which route there is, and make one: `ip route get {address}`; routes to pods are the network plugin's"
        )
    if server := reasons.get(KernelReason.LINK_DOWN):
        route = situation.kernel.routes.get(server.address)
        interface = route.interface if route else ""
        found.append(
            f"see why the interface {interface} is down or has no carrier: `ip link show {interface}`"
        )
    return found


def _by_state(situation: Situation) -> Iterator[str]:
    if situation.kernel.table.rules is None:
        yield f"table inet {TABLE} is not there: nothing is masqueraded, dropped or guarded until the agent makes it"
    if any(endpoint.state is EndpointState.FULL for endpoint in situation.endpoints):
        yield (
            "raise ipvsproxy.io/maximum-connections-per-endpoint, or add endpoints: a full one gets no new connections"
        )
