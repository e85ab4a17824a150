"""From what the agent reports to what `ipvsproxy check` judges, and from what it finds to what programs read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipvsproxy.config.settings import SETTINGS, Config
from ipvsproxy.errors import UsageError
from ipvsproxy.model.addresses import Family, family, parse_address
from ipvsproxy.observe.check_schema import CHECK_SCHEMA_VERSION, CheckResult, ShownFinding
from ipvsproxy.observe.schema import AddressKindName
from ipvsproxy.plan.check.agent import Health, Several, Watch
from ipvsproxy.plan.check.finding import worst

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.observe.configuration import Configuration
    from ipvsproxy.observe.schema import AgentReport, Difference, Rejection
    from ipvsproxy.plan.check.finding import Finding


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
    differences: Sequence[Difference] | None,
) -> Health:
    """Return what the agent says of itself."""
    agent, failures, rejections = report.agent, report.failures, report.rejections
    return Health(
        agent.version,
        agent.pid,
        agent.node_name,
        agent.synced,
        agent.seconds_since_resync,
        overdue_after,
        [
            Watch(each.resource, each.connected, each.seconds_since_contact, each.error or "")
            for each in report.watches
        ],
        _several([f"{each.item}: {each.reason}" for each in failures]),
        _several([_rejected(each) for each in rejections]),
        None if differences is None else _several([_difference(each) for each in differences]),
        report.warnings,
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


def _several(sentences: Sequence[str]) -> Several:
    return Several(len(sentences), sentences[0] if sentences else "")


def _rejected(rejection: Rejection) -> str:
    field = f" {rejection.field}" if rejection.field else ""
    name = f"{rejection.namespace}/{rejection.name}" if rejection.namespace else rejection.name
    return f"{rejection.kind} {name}{field}: {rejection.reason}"


def _difference(difference: Difference) -> str:
    return f"{difference.service}: {difference.sentence}" if difference.service else difference.sentence
