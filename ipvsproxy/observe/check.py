"""From what the agent reports to what `ipvsproxy check` judges, and from what it finds to what programs read."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ipvsproxy.config.settings import SETTINGS, Config
from ipvsproxy.errors import UsageError
from ipvsproxy.model.addresses import Family, family, parse_address
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.items import describe
from ipvsproxy.model.objects import AddressKind, Protocol
from ipvsproxy.observe.check_schema import CHECK_SCHEMA_VERSION, CheckResult, ShownFinding
from ipvsproxy.observe.differences import compare_address
from ipvsproxy.observe.report import no_such_node
from ipvsproxy.observe.schema import AddressKindName, DifferenceKind, VirtualServerState
from ipvsproxy.plan.check.agent import Health, Several, Watch
from ipvsproxy.plan.check.finding import worst
from ipvsproxy.plan.services import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.observe.configuration import Configuration
    from ipvsproxy.observe.schema import AgentReport, Difference, Dump, Rejection
    from ipvsproxy.observe.schema import VirtualServer as ShownVirtualServer
    from ipvsproxy.plan.check.finding import Finding

_NAMES = {
    DifferenceKind.VIRTUAL_SERVER: "virtual servers",
    DifferenceKind.REAL_SERVER: "real servers",
    DifferenceKind.ADDRESS: "addresses",
    DifferenceKind.ELEMENT: "elements of sets",
}


def check_result(findings: Sequence[Finding], version: str) -> CheckResult:
    """Return what is written for programs; `version` is this program's."""
    return CheckResult(
        CHECK_SCHEMA_VERSION,
        version,
        worst(findings),
        [
            ShownFinding(each.check, each.severity, each.about or None, each.meaning, each.mend or None)
            for each in findings
        ],
    )


def config_of(answer: Configuration) -> Config:
    """Return the configuration that the agent goes by; UsageError if its settings are others than this program's."""
    settings = {setting.flags[0]: setting for setting in SETTINGS.values()}
    known = [(settings[each.flag], each.value) for each in answer.settings if each.flag in settings]
    try:
        values: dict[str, Any] = {setting.name: setting.read(value) for setting, value in known}
        return Config(**values)
    except ValueError as error:
        raise UsageError(f"the agent's configuration is not understood: {error}") from error


def health_of(
    report: AgentReport,
    overdue_after: float,
    dump: Dump | None,
    *,
    ipv6_refused: bool = False,
) -> Health:
    """Return what the agent says of itself; `dump` has it beside the kernel, None if that can't be looked at.

    `ipv6_refused` says that this node takes no IPv6 addresses: what follows from that is not told again.
    """
    agent = report.agent
    known = no_such_node(agent.node_name)
    return Health(
        agent.version,
        agent.pid,
        agent.node_name,
        agent.synced,
        agent.seconds_since_resync,
        overdue_after,
        agent.node_known,
        [
            Watch(
                each.resource,
                each.connected,
                each.seconds_since_contact,
                each.error or "",
                each.remedy or "",
            )
            for each in report.watches
        ],
        [
            f"{each.item}: {each.reason}"
            for each in report.failures
            if not (ipv6_refused and family(parse_address(each.address)) is Family.IPV6)
        ],
        list(_rejections(report)),
        None if dump is None else list(_differences(dump)),
        [warning for warning in report.warnings if warning != known],
    )


def schedulers_of(report: AgentReport) -> set[str]:
    """Return the schedulers that Services ask for."""
    return {each.scheduler for service in report.services for each in service.virtual_servers}


def shared_addresses(report: AgentReport, bound: AbstractSet[Address]) -> list[Address]:
    """Return the IPv4 addresses on the dummy interface that clients outside the cluster use, in order."""
    outside = {AddressKindName.LOAD_BALANCER_IP, AddressKindName.EXTERNAL_IP}
    wanted = {
        parse_address(place.address)
        for service in report.services
        for each in service.virtual_servers
        if each.kind in outside
        for place in each.addresses
    }
    return sorted(address for address in wanted & bound if family(address) is Family.IPV4)


def local_endpoints(report: AgentReport) -> set[Address]:
    """Return the addresses of the endpoints that serve and may be of this node."""
    return {
        parse_address(endpoint.address)
        for service in report.services
        for each in service.virtual_servers
        for endpoint in each.endpoints
        if endpoint.serves and endpoint.may_be_local
    }


def ipv6_addresses(report: AgentReport) -> int:
    """Return how many IPv6 service addresses are to be bound."""
    return len(
        {
            place.address
            for service in report.services
            for each in service.virtual_servers
            if each.kind is not AddressKindName.NODE_PORT
            for place in each.addresses
            if ":" in place.address
        }
    )


def node_ports(report: AgentReport) -> set[int]:
    """Return the numbers of all node ports, whatever their protocol."""
    return {
        each.port
        for service in report.services
        for each in service.virtual_servers
        if each.kind is AddressKindName.NODE_PORT
    }


def _rejections(report: AgentReport) -> Iterator[Several]:
    """Yield what is rejected by the kind of object and its field, what makes traffic fail first."""
    unserved = {str(each) for each in report.services if not each.virtual_servers}
    kinds: dict[tuple[bool, str], list[str]] = {}
    for each in report.rejections:
        fails = each.field == FIELDS[AddressKind.CLUSTER_IP] or each.service in unserved
        kind = "no address is served" if fails else f"{each.kind} {each.field}".rstrip()
        kinds.setdefault((not fails, f"rejected, {kind}"), []).append(_rejected(each))
    for (harmless, kind), sentences in sorted(kinds.items()):
        yield Several(kind, sentences, fails=not harmless)


def _differences(dump: Dump) -> Iterator[Several]:
    """Yield what differs from what the agent wants by its kind, what makes traffic fail first."""
    missing = [each for each in dump.virtual_servers if each.state is VirtualServerState.MISSING]
    emptied = [each for each in dump.virtual_servers if _is_emptied(each)]
    unbound = [
        each.address for each in dump.addresses if each.desired and not each.actual and not each.elsewhere
    ]
    told = {sentence for each in missing for sentence in each.differences}
    told |= {sentence for each in emptied for server in each.real_servers for sentence in server.differences}
    for address in unbound:
        told |= {*compare_address(parse_address(address), desired=True, bound=False, elsewhere=False)}
    # What the kernel refuses is told as that.
    refused = {each.item for each in dump.failures}
    unbound = [each for each in unbound if describe(parse_address(each)) not in refused]
    missing = [each for each in missing if describe(_key(each)) not in refused]
    others: dict[DifferenceKind, list[str]] = defaultdict(list)
    for each in dump.differences or ():
        if each.sentence not in told:
            others[each.kind].append(_difference(each))
    rules = others.pop(DifferenceKind.RULES, [])
    if rules:
        # Whoever flushes the rules takes the elements along.
        others.pop(DifferenceKind.ELEMENT, None)
    for kind, sentences in (
        ("virtual servers that are missing", list(map(_named, missing))),
        ("virtual servers without a real server, although endpoints serve", list(map(_named, emptied))),
        ("service addresses that are missing on the dummy interface", unbound),
        ("rules that are not the agent's", rules),
    ):
        if sentences:
            yield Several(kind, sentences, fails=True)
    for of, sentences in others.items():
        yield Several(f"{_NAMES[of]} that are not as the agent wants them", sentences)


def _is_emptied(virtual_server: ShownVirtualServer) -> bool:
    """Say whether endpoints should get new connections, and none does."""
    servers = virtual_server.real_servers
    return (
        virtual_server.actual is not None
        and any(each.desired for each in servers)
        and not any(each.actual and each.actual.weight for each in servers)
    )


def _key(shown: ShownVirtualServer) -> VirtualServerKey:
    return VirtualServerKey(parse_address(shown.address), Protocol[shown.protocol], shown.port)


def _named(shown: ShownVirtualServer) -> str:
    return f"{_key(shown)} of {shown.service}"


def _rejected(rejection: Rejection) -> str:
    field = f" {rejection.field}" if rejection.field else ""
    name = f"{rejection.namespace}/{rejection.name}" if rejection.namespace else rejection.name
    return f"{rejection.kind} {name}{field}: {rejection.reason}"


def _difference(difference: Difference) -> str:
    return f"{difference.service}: {difference.sentence}" if difference.service else difference.sentence
