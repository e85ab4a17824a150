"""`ipvsproxy explain`: reads the kernel of this node and the agent's report, and says what becomes of a packet."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from typing import TYPE_CHECKING, Protocol, Self

from ipvsproxy.cli.answers import as_json, ask_agent, await_report, reading_kernel
from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.explain_text import render
from ipvsproxy.cli.notices import notify
from ipvsproxy.cli.privilege import require_operator
from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.kernel.addresses import DummyInterface
from ipvsproxy.kernel.foreign_rules import read_foreign_rules
from ipvsproxy.kernel.host_firewall import HostFirewallReader
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.kernel.listening import listeners, listeners_of
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.nft import NftTable
from ipvsproxy.kernel.routes import Routes, Sender
from ipvsproxy.kernel.sysctl import ProcSysctls
from ipvsproxy.model.addresses import Family, family, format_address
from ipvsproxy.observe.clients import ServiceNamed
from ipvsproxy.observe.desired import firewall_settings
from ipvsproxy.observe.explain import explain, is_owned, why_nobody_has
from ipvsproxy.observe.explain_client import OUTSIDE, question
from ipvsproxy.observe.explain_destination import choose_address
from ipvsproxy.observe.traced import KernelState, Misrouted, endpoints_of, keys_met, keys_wanted
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
    from ipvsproxy.plan.trace.values import Packet
    from ipvsproxy.source.kubernetes.pods import Pod

_API_LIMITS = Limits(connect=5, answer=10)


class Kernel(Protocol):
    """What is read of this node."""

    def state(
        self,
        keys: Collection[VirtualServerKey],
        settings: FirewallSettings,
        endpoints: Collection[Address] = (),
    ) -> KernelState:
        """Return what decides about packets to these addresses and ports, but for what depends on the packet.

        `settings` are those of the agent's table, `endpoints` are looked at beside the real servers.
        """

    def misrouted(self, packet: Packet, kernel: KernelState, mark: int) -> set[Misrouted]:
        """Return which real servers policy routing keeps the packet from, as it is and with a mark."""

    def route_to(self, address: Address, sender: Sender | None = None) -> Route | None:
        """Return the node's way to an address, for packets of a sender; None if it has none."""


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
    with reading_kernel(), open_kernel() as kernel:
        key, chosen = _destination(arguments, report, silence, kernel)
        keys = list(keys_wanted(key, report)) if report else [key]
        settings = firewall_settings(report) if report else FirewallSettings()
        state = kernel.state(keys, settings, endpoints_of(keys, report) if report else ())
        if not is_owned(key.address, state, report):
            why = "".join(f"; {reason}" for reason in why_nobody_has(key.address, report))
            address = format_address(key.address)
            raise UsageError(
                f"{address}: no Service has this address, and it is no address of this node{why}"
            )
        asked = question(arguments.client, key, state, report, kernel.route_to, find_pod)
        asked = asked._replace(assumptions=(*chosen, *asked.assumptions))
        misrouted = kernel.misrouted(asked.packet, state, 1 << settings.masquerade_bit)
        state = dataclasses.replace(state, misrouted=misrouted)
    if silence:
        notify(errors, f"{silence}: this is the kernel's state alone")
    explanation = explain(asked, state, report)
    if arguments.output is OutputFormat.JSON:
        output.write(as_json(explanation))
    else:
        output.write(render(explanation, shutil.get_terminal_size().columns if output.isatty() else None))
    return 0 if explanation.is_well else 1


def _destination(
    arguments: ExplainArguments, report: AgentReport | None, silence: str, kernel: Kernel
) -> tuple[VirtualServerKey, tuple[str, ...]]:
    """Return what is connected to, and sentences about how it was chosen of what a Service has."""
    destination = arguments.destination
    if not isinstance(destination, ServiceNamed):
        return destination, ()
    if report is None:
        raise IpvsProxyError(f"{silence}: only the agent knows Services; ask with an ADDRESS:PORT")

    def is_nodes(address: Address) -> bool:
        route = kernel.route_to(address)
        return route is not None and route.local

    return choose_address(destination, arguments.client, report, is_nodes)


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

    def state(
        self,
        keys: Collection[VirtualServerKey],
        settings: FirewallSettings,
        endpoints: Collection[Address] = (),
    ) -> KernelState:
        """Return what decides about packets to these addresses and ports, as Kernel says."""
        with DummyInterface() as interface:
            bound, own = interface.bound(), set(interface.elsewhere())
        for address in {key.address for key in keys} - bound - own:
            route = self._routes.to(address)
            if route and route.local:
                own.add(address)
        # Whoever makes a virtual server puts it on record first: read after it, the record is there.
        virtual_servers = {each.key: each for chunk in self._ipvs.virtual_servers() for each in chunk}
        table = NftTable(settings, self._nf_tables).look()
        met = {each for key in keys for each in keys_met(key, table.state.elements)}
        statuses = self._ipvs.real_servers(list(met))
        places = {status.real_server.address for found in statuses.values() for status in found} | {
            *endpoints
        }
        routes = {address: self._routes.to(address) for address in places}
        interfaces = {route.interface for route in routes.values() if route and not route.local}
        hops = {(route.next_hop or address, route.interface) for address, route in routes.items() if route}
        sysctls = ProcSysctls()
        return KernelState(
            table=table,
            virtual_servers=virtual_servers,
            statuses=statuses,
            bound=bound,
            own=own,
            listeners=listeners(),
            host_firewall=HostFirewallReader(self._nf_tables).look(),
            tracks_connections=sysctls.get("net.ipv4.vs.conntrack") == "1",
            forwards={of for of, name in FORWARDING.items() if sysctls.get(name) == "1"},
            routes=routes,
            down={each for each in interfaces if not self._routes.is_up(each)},
            not_forwarding={
                each for each in interfaces if sysctls.get(f"net/ipv4/conf/{each}/forwarding") == "0"
            },
            silent={hop for hop, interface in hops if self._routes.is_silent(hop, interface)},
            near={address for address, route in routes.items() if route and self._is_near(address, route)},
            pod_listeners=listeners_of(places - own),
            foreign_rules=read_foreign_rules(),
        )

    def _is_near(self, address: Address, route: Route) -> bool:
        """Say whether an address is the node's, or directly behind an interface that does not lead out of the cluster.

        Where pods are in the network of the nodes, those of all nodes are directly behind the interface that does.
        """
        out = self._routes.to(OUTSIDE[family(address)][0])
        return route.local or (route.next_hop is None and (out is None or out.interface != route.interface))

    def misrouted(self, packet: Packet, kernel: KernelState, mark: int) -> set[Misrouted]:
        """Return which real servers policy routing keeps the packet from, as it is and with a mark.

        Behind IPVS the kernel's NAT asks for the way anew, with the source that the packet has and its mark
        (nf_nat_ipv4_local_fn and its sibling for IPv6, nf_nat_proto.c). IPv4 tells of other hosts' packets only by the
        interface that they come in by, and only where it forwards.
        """
        source, of = packet.source or packet.destination, family(packet.destination)
        by = packet.arrives_by or ""
        foreign = of is Family.IPV4 and source not in kernel.own | kernel.bound
        if foreign and ProcSysctls().get(f"net/ipv4/conf/{by}/forwarding") != "1":
            return set()
        return {
            Misrouted(address, bool(each))
            for address, route in kernel.routes.items()
            if route and not route.local and family(address) is of
            for each in (0, mark)
            if self._routes.to(address, Sender(source, each, by if foreign else "")) is None
        }

    def route_to(self, address: Address, sender: Sender | None = None) -> Route | None:
        """Return the node's way to an address, for packets of a sender; None if it has none."""
        return self._routes.to(address, sender)


def _find_pod(kubeconfig: Path | None, key: ObjectKey) -> Pod:
    return ask_for_pod(ApiServer(kubeconfig, _API_LIMITS), key, _API_LIMITS.answer)
