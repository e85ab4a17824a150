"""`ipvsproxy dump`: what should be, as the agent says, beside what is, as the kernel says at this moment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.privilege import require_operator
from ipvsproxy.cli.tables import render
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.kernel.interface import FirewallError
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.observe.agent_socket import AgentNotRunningError, AgentSilentError, ask_report
from ipvsproxy.observe.comparison import Comparison, KernelTables
from ipvsproxy.observe.desired import firewall_settings
from ipvsproxy.plan.firewall import FirewallSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from ipvsproxy.cli.arguments.dump import DumpArguments
    from ipvsproxy.kernel.interface import NodeKernel
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.observe.schema import AgentReport, Dump


def dump(arguments: DumpArguments) -> int:
    """Show this node's state; return the exit code."""
    require_operator()
    return show(
        arguments, lambda: ask_report(arguments.run_directory), open_node_kernel, sys.stdout, sys.stderr
    )


def show(
    arguments: DumpArguments,
    ask: Callable[[], AgentReport],
    open_kernel: Callable[[FirewallSettings], NodeKernel],
    output: TextIO,
    errors: TextIO,
) -> int:
    """Ask the agent, read the kernel, and write both; with the kernel alone if the agent has nothing to say."""
    report, silence = _ask(ask)
    if arguments.service:
        _require_known(arguments.service, report, silence)
    try:
        kernel = open_kernel(firewall_settings(report) if report else FirewallSettings())
        found = _compare(report, kernel, arguments.service)
    except FirewallError as error:
        raise IpvsProxyError(f"the nftables table can't be read: {error}") from error
    except OSError as error:
        raise IpvsProxyError(f"the kernel can't be read: {error.strerror or error}") from error
    if silence:
        errors.write(f"ipvsproxy: {silence}: this is the kernel's state alone\n")
    output.write(_text(found, arguments.output))
    return 0


def _ask(ask: Callable[[], AgentReport]) -> tuple[AgentReport | None, str]:
    """Return the report, and why there is nothing to compare the kernel with, "" if there is."""
    try:
        report = ask()
    except (AgentNotRunningError, AgentSilentError) as error:
        return None, str(error)
    return report, "" if report.agent.synced else "the agent has not compared everything with the kernel yet"


def _require_known(service: ObjectKey, report: AgentReport | None, silence: str) -> None:
    """Raise IpvsProxyError unless the report has the Service."""
    if report is None or silence:
        raise IpvsProxyError(
            f"--service {service}: only the agent knows Services, and {silence}; "
            "without --service, dump shows the kernel's state"
        )
    if all(str(each) != str(service) for each in report.services):
        raise IpvsProxyError(
            f"--service {service}: the agent knows no such Service; without --service, dump shows those that it knows"
        )


def _compare(report: AgentReport | None, kernel: NodeKernel, service: ObjectKey | None) -> Dump:
    # Whoever makes a virtual server puts it on record first: read after it, the record is there.
    virtual_servers = {each.key: each for chunk in kernel.ipvs.virtual_servers() for each in chunk}
    tables = KernelTables(
        virtual_servers, kernel.addresses.bound(), kernel.addresses.elsewhere(), kernel.firewall.read()
    )
    comparison = Comparison(report, tables, service)
    return comparison.dump(kernel.ipvs.real_servers(comparison.virtual_servers))


def _text(found: Dump, output: OutputFormat) -> str:
    if output is OutputFormat.JSON:
        return msgspec.json.format(msgspec.json.encode(found).decode(), indent=2) + "\n"
    if output is OutputFormat.YAML:
        return msgspec.yaml.encode(found).decode()
    return render(found, wide=output is OutputFormat.WIDE)
