"""`ipvsproxy dump`: what should be, as the agent says, beside what is, as the kernel says at this moment."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from ipvsproxy.cli.answers import as_json, as_yaml, ask_agent, await_report, reading_kernel
from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.layout import look_of
from ipvsproxy.cli.notices import notify
from ipvsproxy.cli.privilege import require_operator
from ipvsproxy.cli.tables import Detail, render, render_differences
from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.kernel.sysctl import ProcSysctls
from ipvsproxy.observe.comparison import Comparison, KernelTables
from ipvsproxy.observe.desired import firewall_settings
from ipvsproxy.observe.selection import Selection, is_empty, nothing_found, only_differences
from ipvsproxy.observe.shown import KernelStatistics
from ipvsproxy.observe.traffic import NOT_COUNTING, RUN_ESTIMATION
from ipvsproxy.plan.firewall import FirewallSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from ipvsproxy.cli.arguments.dump import DumpArguments
    from ipvsproxy.kernel.interface import NodeKernel, Sysctls
    from ipvsproxy.observe.schema import AgentReport, Dump

_EVERYTHING = Selection()


def dump(arguments: DumpArguments) -> int:
    """Show this node's state, or write it to an archive; return the exit code."""
    require_operator()
    # Whatever is made from here on lives to the end. To look for garbage in it takes longer than all the rest.
    gc.disable()
    if arguments.bundle is not None:
        from ipvsproxy.cli.bundle import bundle  # noqa: PLC0415 - what archives need is imported for them alone

        return bundle(arguments.bundle, arguments.run_directory)
    return show(
        arguments,
        lambda: await_report(arguments.run_directory, sys.stderr),
        open_node_kernel,
        ProcSysctls(),
        sys.stdout,
        sys.stderr,
    )


def show(
    arguments: DumpArguments,
    ask: Callable[[], AgentReport],
    open_kernel: Callable[[FirewallSettings], NodeKernel],
    sysctls: Sysctls,
    output: TextIO,
    errors: TextIO,
) -> int:
    """Ask the agent, read the kernel, and write both; with the kernel alone if the agent has nothing to say."""
    selection = _selection(arguments)
    report, silence = ask_agent(ask)
    _require_agent(arguments, report, silence)
    # The kernel's counters take as long to read as all the rest: the table goes without.
    count = arguments.output is not OutputFormat.TABLE
    found = look_at_kernel(report, open_kernel, sysctls if count else None, selection)
    if arguments.diff:
        found = only_differences(found)
    if silence:
        notify(errors, f"{silence}: this is the kernel's state alone")
    if count and not _counts(sysctls):
        notify(errors, NOT_COUNTING)
    output.write(_text(found, arguments, output))
    return 1 if arguments.diff and found.differences else 0


def look_at_kernel(
    report: AgentReport | None,
    open_kernel: Callable[[FirewallSettings], NodeKernel],
    sysctls: Sysctls | None = None,
    selection: Selection = _EVERYTHING,
) -> Dump:
    """Read the kernel and put it beside the report; with the settings of the kernel, also its counters.

    UsageError if there is nothing of what is selected, IpvsProxyError if the kernel can't be read.
    """
    with reading_kernel():
        kernel = open_kernel(firewall_settings(report) if report else FirewallSettings())
        return _compare(report, kernel, sysctls, selection)


def _selection(arguments: DumpArguments) -> Selection:
    if arguments.address is None:
        return Selection(arguments.service, endpoint=arguments.endpoint)
    return Selection(arguments.service, *arguments.address, arguments.endpoint)


def _require_agent(arguments: DumpArguments, report: AgentReport | None, silence: str) -> None:
    """Raise IpvsProxyError if the agent has nothing to say and what is asked for needs it.

    UsageError if there is no such Service.
    """
    service = arguments.service
    if service and (report is None or silence):
        raise IpvsProxyError(
            f"--service {service}: only the agent knows Services, and {silence}; "
            "without --service, dump shows the kernel's state"
        )
    if arguments.diff and silence:
        raise IpvsProxyError(
            f"--diff: there is nothing to compare the kernel with: {silence}; "
            "without --diff, dump shows the kernel's state"
        )
    if service and report and all(str(each) != str(service) for each in report.services):
        raise UsageError(
            f"--service {service}: the agent knows no such Service; without --service, dump shows those that it knows"
        )


def _counts(sysctls: Sysctls) -> bool:
    return sysctls.get(RUN_ESTIMATION) != "0"


def _compare(
    report: AgentReport | None, kernel: NodeKernel, sysctls: Sysctls | None, selection: Selection
) -> Dump:
    # Whoever makes a virtual server puts it on record first: read after it, the record is there.
    virtual_servers = {each.key: each for chunk in kernel.ipvs.virtual_servers() for each in chunk}
    tables = KernelTables(
        virtual_servers, kernel.addresses.bound(), kernel.addresses.elsewhere().keys(), kernel.firewall.read()
    )
    comparison = Comparison(report, tables, selection)
    keys = comparison.virtual_servers
    statistics = KernelStatistics()
    if sysctls is not None:
        statistics = KernelStatistics(
            kernel.ipvs.virtual_server_statistics(),
            kernel.ipvs.real_server_statistics(keys),
            counting=_counts(sysctls),
        )
    found = comparison.dump(kernel.ipvs.real_servers(keys), statistics)
    if selection.places and is_empty(found):
        raise UsageError(nothing_found(selection, virtual_servers, comparison.ours, tables.elsewhere))
    return found


def _text(found: Dump, arguments: DumpArguments, output: TextIO) -> str:
    if arguments.output is OutputFormat.JSON:
        return as_json(found)
    if arguments.output is OutputFormat.YAML:
        return as_yaml(found)
    detail = Detail(wide=arguments.output is OutputFormat.WIDE, excluded=arguments.endpoint is not None)
    return (render_differences if arguments.diff else render)(found, detail, look_of(output))
