"""What becomes of a client's first packet to an address and port, step by step, and why: the tracer, given a voice.

Pure: from the kernel's tables and the agent's report to an `Explanation`. What is traced is what the kernel has; what
the agent wants there is traced beside it, to say where the two part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ipvsproxy.config.durations import format_duration
from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.firewall import SetElement
from ipvsproxy.model.ipvs import ServiceFlag, VirtualServerKey
from ipvsproxy.model.items import describe
from ipvsproxy.observe import explain_words as words
from ipvsproxy.observe.concerning import differences_about
from ipvsproxy.observe.desired import desired_virtual_servers, firewall_settings
from ipvsproxy.observe.explain_doubts import doubts, unseen_listeners
from ipvsproxy.observe.explain_schema import (
    EXPLANATION_VERSION,
    EndpointState,
    ExplainedClient,
    ExplainedDestination,
    ExplainedEndpoint,
    ExplainedOutcome,
    ExplainedStep,
    ExplainedWay,
    Explanation,
)
from ipvsproxy.observe.traced import is_full, keys_met, trace_desired, trace_kernel
from ipvsproxy.observe.words import mentions
from ipvsproxy.plan.foreign_rules import that_meet
from ipvsproxy.plan.trace import trace
from ipvsproxy.plan.trace.values import Outcome, SourceSeen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import RealServerStatus
    from ipvsproxy.observe.desired import DesiredVirtualServer
    from ipvsproxy.observe.explain_words import Situation
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.observe.traced import KernelState
    from ipvsproxy.plan.trace.values import Packet, Step, Trace

_OUTCOMES = {
    Outcome.ANSWERED: ExplainedOutcome.ANSWERED,
    Outcome.REFUSED: ExplainedOutcome.REFUSED,
    Outcome.DROPPED: ExplainedOutcome.DROPPED,
    Outcome.NODE: ExplainedOutcome.NODE,
    Outcome.NOT_OURS: ExplainedOutcome.NOT_OURS,
}


class Question(NamedTuple):
    """Who connects to what: `client` in the asker's words, with sentences about what was assumed of it.

    `unless` are sentences about what may keep the answer from the client.
    """

    client: str
    packet: Packet
    key: VirtualServerKey
    assumptions: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


def is_owned(address: Address, kernel: KernelState, report: AgentReport | None) -> bool:
    """Say whether an address is the node's, or a Service's, or has a virtual server, whoever made it."""
    if address in kernel.bound or address in kernel.own:
        return True
    services = report.services if report else ()
    wanted = (each.address for service in services for of in service.virtual_servers for each in of.addresses)
    return format_address(address) in wanted or any(key.address == address for key in kernel.virtual_servers)


def why_nobody_has(address: Address, report: AgentReport | None) -> list[str]:
    """Return why Services do not get an address that they ask for, in sentences."""
    return [
        f"{each.kind} {each.namespace}/{each.name}: {each.field}: {each.reason}"
        for each in (report.rejections if report else ())
        if mentions(each.reason, address)
    ]


def explain(question: Question, kernel: KernelState, report: AgentReport | None) -> Explanation:
    """Trace the packet, and say everything about it; `report` is of an agent that is synced, None without one."""
    state, unfollowed = trace_kernel(kernel, question.key.address)
    traced = trace(question.packet, state)
    key, met = question.key, _met(question.key, traced)
    desired = {each.virtual_server.key: each for each in desired_virtual_servers(report)} if report else {}
    # Whatever else may drop a packet makes no other end of one that is dropped.
    is_dropped = traced.outcome is Outcome.DROPPED and not traced.answers
    may_drop = [*question.unless, *map(str, traced.undecided), *kernel.host_firewall.unseen]
    unless = [
        *unfollowed,
        *([] if is_dropped else may_drop),
        *_before_ours(key, met, kernel),
        *doubts(question.packet, met, traced, kernel, desired.get(met)),
    ]
    endpoints = list(_endpoints(desired.get(met), kernel, met, traced))
    situation = words.Situation(key, met, traced, kernel, desired, endpoints)
    unseen = list(unseen_listeners(met, traced, kernel, desired.get(met)))
    wanted, differences = None, None
    if report:
        differences = list(differences_about(key, desired, kernel))
        wanted_state = trace_desired(
            firewall_settings(report), desired.values(), report.agent_ports, kernel, key.address
        )
        wanted = _wanted(traced, trace(question.packet, wanted_state), differences)
    return Explanation(
        EXPLANATION_VERSION,
        agent=report.agent if report else None,
        client=ExplainedClient(
            question.client,
            format_address(traced.source) if traced.source else None,
            question.packet.arrives_by,
        ),
        destination=_destination(key, desired.get(key)),
        about=[*_about(situation), *words.claims_of_foreign(situation, report)],
        assumptions=[*question.assumptions, *kernel.foreign_rules.unseen, *unseen],
        steps=[_explained(step) for step in traced.steps if step.real_server is None],
        ways=_ways(traced),
        endpoints=endpoints,
        outcome=_OUTCOMES[traced.outcome],
        result=words.result(situation),
        unless=unless,
        wanted=wanted,
        differences=differences,
        next=list(words.advice(situation, report, differences or [], certain=not unless, seen=not unseen)),
    )


def _met(key: VirtualServerKey, traced: Trace) -> VirtualServerKey:
    """Return what IPVS looked at; what the client connects to, or is redirected to, if the packet came to no IPVS."""
    items = [item for step in traced.steps for item in step.items]
    of_ipvs = [item for item in items if isinstance(item, VirtualServerKey)]
    redirected = list(keys_met(key, [item for item in items if isinstance(item, SetElement)]))
    return of_ipvs[0] if of_ipvs else redirected[-1]


def _destination(key: VirtualServerKey, desired: DesiredVirtualServer | None) -> ExplainedDestination:
    return ExplainedDestination(
        format_address(key.address),
        key.port,
        key.protocol.name,
        desired.service if desired else None,
        desired.reported.port_name if desired else None,
        desired.reported.kind if desired else None,
        desired.planned.policy if desired else None,
    )


def _about(situation: Situation) -> Iterator[str]:
    """Yield what is known of the address, and of the virtual server that the packet meets."""
    key, kernel = situation.key, situation.kernel
    asked = situation.desired.get(key)
    if asked:
        yield words.whose(asked)
        if asked.planned.allowed_sources is not None:
            yield words.open_to(asked.planned.allowed_sources)
        if asked.planned.redirect is not None:
            yield words.redirected(asked.planned.redirect)
    elif key in kernel.virtual_servers and not kernel.owns(key):
        yield f"{describe(key)} is somebody else's: ipvsproxy did not make it and leaves it alone"
    found = kernel.found(situation.met)
    if found:
        stays = ""
        if found.flags & ServiceFlag.PERSISTENT:
            stays = (
                f"; a client that comes back within {format_duration(found.timeout)} stays with its endpoint, "
                "as long as that serves"
            )
        yield f"{describe(situation.met)} has the scheduler {found.scheduler}{stays}"


# --- the endpoints ---


def _endpoints(
    desired: DesiredVirtualServer | None, kernel: KernelState, met: VirtualServerKey, traced: Trace
) -> Iterator[ExplainedEndpoint]:
    """Yield the real servers of the virtual server, and the endpoints that are none."""
    statuses = {status.real_server[:2]: status for status in kernel.statuses.get(met, ())}
    answers = {answer[:2]: answer.source is SourceSeen.MASQUERADED for answer in traced.answers}
    for place in sorted(statuses.keys() | (desired.endpoints.keys() if desired else set())):
        endpoint = desired.endpoints.get(place) if desired else None
        drain = desired.draining.get(place) if desired else None
        status, masqueraded = statuses.get(place), answers.get(place, False)
        serves = endpoint is not None and endpoint.serves
        state = _endpoint_state(status, serves=serves, answers=place in answers)
        route = kernel.routes.get(place[0])
        sees = (route.source if route else None) if masqueraded else traced.source
        yield ExplainedEndpoint(
            format_address(place[0]),
            place[1],
            state,
            endpoint.reason if endpoint else None,
            format_address(sees) if sees and place in answers else None,
            masqueraded,
            status.real_server.weight if status else None,
            status.real_server.upper_threshold if status else None,
            status.active_connections if status else None,
            status.inactive_connections if status else None,
            drain.seconds_left if drain and state is EndpointState.DRAINING else None,
        )


def _endpoint_state(status: RealServerStatus | None, *, serves: bool, answers: bool) -> EndpointState:
    if status is None:
        return EndpointState.MISSING if serves else EndpointState.EXCLUDED
    if status.real_server.weight == 0:
        return EndpointState.DRAINING
    if is_full(status):
        return EndpointState.FULL
    return EndpointState.ANSWERS if answers else EndpointState.UNREACHED


# --- the way ---


def _ways(traced: Trace) -> list[ExplainedWay]:
    """Return the steps behind IPVS, real servers with the same ones together."""
    ways: dict[tuple[object, ...], ExplainedWay] = {}
    for server in dict.fromkeys(step.real_server for step in traced.steps if step.real_server):
        chosen, *rest = (_explained(step) for step in traced.steps if step.real_server == server)
        chosen = msgspec.structs.replace(chosen, effect="the destination becomes the real server")
        alike = tuple((step.stage, step.chain, step.reason, step.effect) for step in rest)
        way = ways.setdefault(alike, ExplainedWay([], [chosen, *rest]))
        way.real_servers.append(str(server))
    return list(ways.values())


def _explained(step: Step) -> ExplainedStep:
    entries = [describe(item) for item in step.items]
    reason = step.reason or words.RULE_WITHOUT_COMMENT
    return ExplainedStep(step.stage, step.chain or None, reason, step.effect, entries)


def _before_ours(key: VirtualServerKey, met: VirtualServerKey, kernel: KernelState) -> Iterator[str]:
    """Yield the rules of others that the packet, or the answer to it, may fit before it meets the agent's own."""
    places = {(each.address, each.port) for each in (key, met)}
    places |= {status.real_server[:2] for status in kernel.statuses.get(met, ())}
    yield from map(str, that_meet(kernel.foreign_rules.rules, places))


def _wanted(traced: Trace, wanted: Trace, differences: Sequence[str]) -> str | None:
    """Say what the agent wants to come of the packet, and what stands against it; None if it comes to the same."""
    if (wanted.outcome, wanted.answers) == (traced.outcome, traced.answers):
        return None
    stands_against = f", but {'; '.join(differences)}" if differences else ""
    return f"as the agent wants it, the packet would be {words.met(wanted)}{stands_against}"
