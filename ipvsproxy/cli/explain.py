"""`ipvsproxy explain`: reads the kernel of this node and the agent's report, and says what becomes of a packet."""

from __future__ import annotations

import contextlib
import shutil
import sys
from typing import TYPE_CHECKING, Protocol, Self

from ipvsproxy.cli.answers import as_json, ask_agent, await_report, reading_kernel
from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.explain_text import render
from ipvsproxy.cli.privilege import require_operator
from ipvsproxy.errors import UsageError
from ipvsproxy.kernel.addresses import DummyInterface
from ipvsproxy.kernel.host_firewall import HostFirewallReader
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.kernel.listening import listeners
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.nft import NftTable
from ipvsproxy.kernel.routes import Routes
from ipvsproxy.kernel.sysctl import ProcSysctls
from ipvsproxy.model.addresses import format_address
from ipvsproxy.observe.desired import firewall_settings
from ipvsproxy.observe.explain import explain, is_owned, why_nobody_has
from ipvsproxy.observe.explain_client import question
from ipvsproxy.observe.traced import KernelState, keys_met, keys_wanted
from ipvsproxy.plan.firewall import FirewallSettings
from ipvsproxy.plan.sysctls import FORWARDING
from ipvsproxy.source.kubernetes.client import ApiServer, Limits
from ipvsproxy.source.kubernetes.pods import ask_for_pod

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path
    from typing import TextIO

    from ipvsproxy.cli.arguments.explain import ExplainArguments
    from ipvsproxy.kernel.routes import Route
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.source.kubernetes.pods import Pod

_API_LIMITS = Limits(connect=5, answer=10)


class Kernel(Protocol):
    """What is read of this node."""

    def state(self, keys: Collection[VirtualServerKey], settings: FirewallSettings) -> KernelState:
        """Return what decides about packets to these addresses and ports; `settings` are those of the agent's table."""

    def route_to(self, address: Address) -> Route | None:
        """Return the node's way to an address; None if it has none."""


def explain_packet(arguments: ExplainArguments) -> int:
    """Say what becomes of the packet; return the exit code."""
    require_operator()
    return show(
        arguments,
        lambda: await_report(arguments.run_directory, sys.stderr),
        NodeKernel,
        lambda key: _find_pod(arguments.kubeconfig, key),
        sys.stdout,
        sys.stderr,
    )


def show(
    arguments: ExplainArguments,
    ask: Callable[[], AgentReport],
    open_kernel: Callable[[], contextlib.AbstractContextManager[Kernel]],
    find_pod: Callable[[ObjectKey], Pod],
    output: TextIO,
    errors: TextIO,
) -> int:
    """Ask the agent, read the kernel, and write the explanation; from the kernel alone if no agent answers."""
    answer, silence = ask_agent(ask)
    # Only an agent that is synced says what it wants.
    report = None if silence else answer
    key = arguments.key
    with reading_kernel(), open_kernel() as kernel:
        keys = list(keys_wanted(key, report)) if report else [key]
        state = kernel.state(keys, firewall_settings(report) if report else FirewallSettings())
        if not is_owned(key.address, state, report):
            why = "".join(f"; {reason}" for reason in why_nobody_has(key.address, report))
            address = format_address(key.address)
            raise UsageError(
                f"{address}: no Service has this address, and it is no address of this node{why}"
            )
        asked = question(arguments.client, key, state, report, kernel.route_to, find_pod)
    if silence:
        errors.write(f"ipvsproxy: {silence}: this is the kernel's state alone\n")
    explanation = explain(asked, state, report)
    if arguments.output is OutputFormat.JSON:
        output.write(as_json(explanation))
    else:
        output.write(render(explanation, shutil.get_terminal_size().columns if output.isatty() else None))
    return 0 if explanation.is_well else 1


class NodeKernel:
    """The kernel of the calling thread's network namespace, until the end of a `with` block."""

    def __init__(self) -> None:
        """Open the adapters; KernelUnavailableError says what is missing."""
        with contextlib.ExitStack() as opened:
            self._nf_tables = opened.enter_context(contextlib.closing(NfTables()))
            self._ipvs = opened.enter_context(IpvsNetlink())
            self._routes = opened.enter_context(contextlib.closing(Routes()))
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        """Return the object."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close all sockets."""
        self._opened.close()

    def state(self, keys: Collection[VirtualServerKey], settings: FirewallSettings) -> KernelState:
        """Return what decides about packets to these addresses and ports; `settings` are those of the agent's table."""
        with DummyInterface() as interface:
            bound, own = interface.bound(), interface.elsewhere()
        for address in {key.address for key in keys} - bound - own:
            route = self._routes.to(address)
            if route and route.local:
                own.add(address)
        # Whoever makes a virtual server puts it on record first: read after it, the record is there.
        virtual_servers = {each.key: each for chunk in self._ipvs.virtual_servers() for each in chunk}
        table = NftTable(settings, self._nf_tables).look()
        met = {each for key in keys for each in keys_met(key, table.state.elements)}
        statuses = self._ipvs.real_servers(list(met))
        real_servers = {status.real_server.address for found in statuses.values() for status in found}
        routes = {address: self._routes.to(address) for address in real_servers}
        sysctls = ProcSysctls()
        return KernelState(
            table=table,
            virtual_servers=virtual_servers,
            statuses=statuses,
            bound=bound,
            own=own,
            listeners=listeners(),
            host_firewall=HostFirewallReader(self._nf_tables).look(),
            sources={address: way.source for address, way in routes.items() if way and way.source},
            ways={address: way.interface for address, way in routes.items() if way and way.interface},
            tracks_connections=sysctls.get("net.ipv4.vs.conntrack") == "1",
            forwards={family for family, name in FORWARDING.items() if sysctls.get(name) == "1"},
        )

    def route_to(self, address: Address) -> Route | None:
        """Return the node's way to an address; None if it has none."""
        return self._routes.to(address)


def _find_pod(kubeconfig: Path | None, key: ObjectKey) -> Pod:
    return ask_for_pod(ApiServer(kubeconfig, _API_LIMITS), key, _API_LIMITS.answer)
