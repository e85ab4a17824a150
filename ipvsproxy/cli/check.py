"""`ipvsproxy check`: looks at the node, one thing after the other, and says what it finds.

What is found is judged by the rules in `plan/check`. A thing that can't be looked at is a finding of its own, and never
the end of the others.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ipvsproxy import __version__
from ipvsproxy.cli.answers import as_json, await_report
from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.check_text import render
from ipvsproxy.cli.kernel_settings import expected_settings
from ipvsproxy.cli.layout import look_of
from ipvsproxy.cli.lock import holder
from ipvsproxy.cli.privilege import require_operator
from ipvsproxy.cli.settings import patience
from ipvsproxy.errors import IpvsProxyError, NotPermittedError
from ipvsproxy.kernel.addresses import DummyInterface
from ipvsproxy.kernel.foreign_rules import read_foreign_rules
from ipvsproxy.kernel.host_firewall import HostFirewallReader
from ipvsproxy.kernel.inspect_modules import read_modules
from ipvsproxy.kernel.inspect_network import read_arp, read_ipv6_disabled, read_links
from ipvsproxy.kernel.inspect_tables import read_conntrack, read_conntrack_drops, read_ipvs
from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.kernel.ipsets import IpSets
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.kernel.kube_proxy import KubeProxyReader, running_process
from ipvsproxy.kernel.listening import listeners
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.nft import NftTable
from ipvsproxy.kernel.preflight import read_nft_program, read_privileges
from ipvsproxy.kernel.sysctl import ProcSysctls, find_settings
from ipvsproxy.model.objects import Protocol
from ipvsproxy.observe.agent_socket import (
    CONFIG_COMMAND,
    AgentNotRunningError,
    AgentSilentError,
    OtherSchemaError,
    ask,
)
from ipvsproxy.observe.check import (
    check_result,
    config_of,
    health_of,
    ipv6_addresses,
    local_endpoints,
    node_ports,
    schedulers_of,
    shared_addresses,
)
from ipvsproxy.observe.comparison import Comparison, KernelTables
from ipvsproxy.observe.configuration import Configuration
from ipvsproxy.observe.desired import desired_virtual_servers, firewall_settings
from ipvsproxy.plan.check import agent, kernel, network, others, room, settings
from ipvsproxy.plan.check.finding import Check, by_severity, exit_code, unknown
from ipvsproxy.plan.firewall import TABLE, FirewallSettings
from ipvsproxy.plan.host_firewall import find_drops
from ipvsproxy.plan.kube_proxy import named, removal_of
from ipvsproxy.plan.ownership import record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ipvsproxy.cli.arguments.check import CheckArguments
    from ipvsproxy.config.settings import Config
    from ipvsproxy.kernel.inspect_tables import IpvsSummary
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.plan.check.finding import Finding

# What the adapters raise where something can't be looked at.
_UNSEEN = (OSError, ValueError, IpvsProxyError, FirewallError)


def check(arguments: CheckArguments) -> int:
    """Look at this node; return the exit code, which tells the worst.

    A root without CAP_NET_ADMIN, that of a container for one, is told as much as it can see.
    """
    if os.geteuid() != 0:
        require_operator()
    with Inspection(arguments) as inspection:
        findings = by_severity(inspection.findings())
    if arguments.output is OutputFormat.JSON:
        sys.stdout.write(as_json(check_result(findings, __version__)))
    else:
        sys.stdout.write(render(findings, look_of(sys.stdout)))
    return exit_code(findings)


def guarded(check: Check, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what is found, or that it could not be looked at, and why."""
    findings = []
    try:
        for finding in look():
            findings.append(finding)  # noqa: PERF402 - what comes before an error counts
    except NotPermittedError:
        raise
    except _UNSEEN as error:
        findings.append(unknown(check, error))
    return findings


class Inspection:
    """One look at the node of the calling thread's network namespace."""

    def __init__(self, arguments: CheckArguments) -> None:
        """Ask the agent; NotPermittedError if its socket is not for this user."""
        self._arguments = arguments
        self._sysctls = ProcSysctls()
        self._release = os.uname().release
        # Counted again at the end.
        self._drops_before = None
        with contextlib.suppress(OSError, ValueError):
            self._drops_before = read_conntrack_drops()
        self._report, self._silence = self._ask()
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Return the inspection, whose sockets the end of the `with` statement closes."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the sockets."""
        self._opened.close()

    def findings(self) -> Iterator[Finding]:
        """Yield everything that is found."""
        looks: tuple[tuple[Check, Callable[[], Iterable[Finding]]], ...] = (
            (Check.KERNEL_VERSION, self._version),
            (Check.KERNEL_MODULE, self._modules),
            (Check.PRIVILEGE, self._privileges),
            (Check.NFT, self._nft),
            (Check.KERNEL_SETTING, self._settings),
            (Check.IPVS_TABLE, self._ipvs_table),
            (Check.HOST_FIREWALL, self._host_firewall),
            (Check.FOREIGN_RULES, self._foreign_rules),
            (Check.ARP, self._arp),
            (Check.BRIDGE, self._bridges),
            (Check.IPV6, self._ipv6),
            (Check.NODE_PORTS, self._node_ports),
            (Check.KUBE_PROXY, self._kube_proxy),
            (Check.KUBE_PROXY_LEFTOVERS, self._leftovers),
            (Check.PORT, self._ports),
            (Check.RUN_DIRECTORY, self._run_directory),
            (Check.AGENT, self._agent),
            (Check.CONFIGURATION, self._configuration),
            (Check.OTHER_AGENT, self._other_agent),
            (Check.CONNTRACK_ROOM, self._conntrack),
        )
        for check, look in looks:
            yield from guarded(check, look)

    # --- the agent ---

    def _ask(
        self,
    ) -> tuple[AgentReport | None, AgentNotRunningError | AgentSilentError | OtherSchemaError | None]:
        try:
            return await_report(self._arguments.config.run_directory, sys.stderr), None
        except (AgentNotRunningError, AgentSilentError, OtherSchemaError) as error:
            return None, error

    @cached_property
    def _answer(self) -> Configuration | None:
        """What the agent goes by; None if it does not say, or if flags ask for another configuration."""
        if self._report is None or not self._arguments.asks_agent:
            return None
        try:
            return ask(self._arguments.config.run_directory, CONFIG_COMMAND, Configuration)
        except (AgentNotRunningError, AgentSilentError, OtherSchemaError):
            return None

    @cached_property
    def _config(self) -> Config:
        answer = self._answer
        return config_of(answer) if answer else self._arguments.config

    @cached_property
    def _in_use(self) -> bool:
        """Whether an agent runs, or was here: its table is in the kernel then."""
        if self._report:
            return True
        if self._module_states["nf_tables"] not in {kernel.ModuleState.LOADED, kernel.ModuleState.BUILT_IN}:
            return False
        return self._nf_tables.has_table(TABLE)

    def _agent(self) -> Iterable[Finding]:
        if self._silence:
            not_running = isinstance(self._silence, AgentNotRunningError)
            yield agent.judge_silence(
                str(self._silence), was_here=self._in_use or not not_running, not_running=not_running
            )
        if not self._report:
            return
        dump = None
        unseen = None
        if self._report.agent.synced:
            try:
                comparison = Comparison(self._report, self._tables)
                real_servers = self._ipvs.real_servers(comparison.virtual_servers)
                dump = comparison.dump(real_servers)
            except _UNSEEN as error:
                unseen = unknown(Check.DIFFERENCES, error)
        health = health_of(
            self._report,
            patience(self._config),
            dump,
            ipv6_refused=read_ipv6_disabled(self._sysctls) is not False,
        )
        for finding in agent.judge_health(health, __version__):
            yield unseen if unseen and finding.check is Check.DIFFERENCES else finding

    def _configuration(self) -> Iterable[Finding]:
        answer = self._answer
        if answer:
            waiting = [each.field for each in answer.settings if each.after_restart is not None]
            yield agent.judge_configuration(answer.file or "", answer.file_error, waiting)
        elif self._report and self._arguments.asks_agent:
            yield unknown(
                Check.CONFIGURATION,
                "the agent does not say what it goes by, so the defaults are expected here",
            )

    def _other_agent(self) -> Iterable[Finding]:
        found = holder()
        name = others.AgentName(found.process, found.may_be_agent) if found else None
        silent = isinstance(self._silence, (AgentSilentError, OtherSchemaError))
        yield others.judge_name(name, self._report.agent.pid if self._report else None, silent=silent)

    def _run_directory(self) -> Iterable[Finding]:
        path = self._config.run_directory
        try:
            status = path.stat()
        except FileNotFoundError:
            return
        yield agent.judge_run_directory(agent.RunDirectory(str(path), status.st_uid, status.st_mode & 0o7777))

    # --- the kernel ---

    @cached_property
    def _ipvs_summary(self) -> IpvsSummary | None:
        """What IPVS has; None where it is not loaded."""
        try:
            return read_ipvs(self._sysctls)
        except FileNotFoundError:
            return None

    @cached_property
    def _module_states(self) -> Mapping[str, kernel.ModuleState]:
        wanted = {self._config.scheduler}
        if self._report:
            wanted |= schedulers_of(self._report)
        lists = read_modules(self._release, self._ipvs_summary.schedulers if self._ipvs_summary else ())
        names = (*kernel.MODULES, *kernel.scheduler_modules(wanted))
        states = {name: lists.state(name) for name in names}
        if states["nf_tables"] is kernel.ModuleState.UNKNOWN:
            # Where nothing tells, the answer of nf_tables itself does.
            try:
                self._nf_tables.generation()
                states["nf_tables"] = kernel.ModuleState.LOADED
            except KernelUnavailableError:
                states["nf_tables"] = kernel.ModuleState.MISSING
        return states

    @cached_property
    def _nf_tables(self) -> NfTables:
        return self._opened.enter_context(contextlib.closing(NfTables()))

    @cached_property
    def _addresses(self) -> DummyInterface:
        return self._opened.enter_context(DummyInterface())

    @cached_property
    def _ipvs(self) -> IpvsNetlink:
        return self._opened.enter_context(IpvsNetlink())

    @cached_property
    def _tables(self) -> KernelTables:
        rules = firewall_settings(self._report) if self._report else FirewallSettings()
        # Whoever makes a virtual server puts it on record first: read after it, the record is there.
        virtual_servers = {each.key: each for chunk in self._ipvs.virtual_servers() for each in chunk}
        bound, elsewhere = self._addresses.bound(), self._addresses.elsewhere().keys()
        return KernelTables(virtual_servers, bound, elsewhere, NftTable(rules, self._nf_tables).read())

    def _version(self) -> Iterable[Finding]:
        yield kernel.judge_version(self._release)

    def _modules(self) -> Iterable[Finding]:
        # Settings of the network may be found elsewhere, this one is here only.
        disabled = ProcSysctls(Path("/proc/sys")).get("kernel.modules_disabled") == "1"
        return kernel.judge_modules(self._module_states, self._release, loading_disabled=disabled)

    def _privileges(self) -> Iterable[Finding]:
        must_load = kernel.must_be_loaded_by_hand(self._module_states, self._release)
        return kernel.judge_privileges(read_privileges(), must_load=must_load)

    def _nft(self) -> Iterable[Finding]:
        yield kernel.judge_nft(read_nft_program(), agent_runs=self._report is not None)

    def _settings(self) -> Iterable[Finding]:
        expected = expected_settings(self._config, self._sysctls)
        # An agent that has not synced yet has not set anything yet.
        in_use = self._report.agent.synced if self._report else self._in_use
        return settings.judge_settings(find_settings(self._sysctls, expected), in_use=in_use)

    def _ipvs_table(self) -> Iterable[Finding]:
        if self._ipvs_summary:
            yield room.judge_ipvs_table(self._ipvs_summary.table)

    def _conntrack(self) -> Iterable[Finding]:
        if self._drops_before is None:
            # Its module is not loaded, which is a finding already.
            return ()
        return room.judge_conntrack(read_conntrack(self._sysctls, self._drops_before))

    # --- what is in the way ---

    def _host_firewall(self) -> Iterable[Finding]:
        """Look anew: what the agent saw may have changed since, but for what it could not do."""
        found = HostFirewallReader(self._nf_tables).look()
        served = (
            {desired.virtual_server.key for desired in desired_virtual_servers(self._report)}
            if self._report
            else ()
        )
        failed = self._report.host_firewall.failed if self._report else ()
        return network.judge_host_firewall(
            find_drops(found.tables, served),
            found.unseen,
            failed,
            agent_mends=self._config.accept_forwarded and not self._in_use,
        )

    def _foreign_rules(self) -> Iterable[Finding]:
        found = read_foreign_rules()
        places: set[tuple[Address, int]] = set()
        if found.rules and self._ipvs_summary:
            virtual_servers = self._ipvs.real_servers(list(self._tables.virtual_servers))
            places.update((key.address, key.port) for key in virtual_servers)
            places.update(each.real_server[:2] for every in virtual_servers.values() for each in every)
        return others.judge_foreign_rules(found.rules, found.unseen, places)

    def _arp(self) -> Iterable[Finding]:
        bound = self._addresses.bound()
        # Without the agent nobody knows what an address is for.
        shared = shared_addresses(self._report, bound) if self._report else None
        yield network.judge_arp(
            read_arp(self._sysctls, read_links(self._sysctls).names), shared if bound else ()
        )

    def _bridges(self) -> Iterable[Finding]:
        pods = local_endpoints(self._report) if self._report and self._report.agent.synced else None
        masquerade_all = self._config.masquerade_all
        return network.judge_bridges(read_links(self._sysctls).bridges, pods, masquerade_all=masquerade_all)

    def _ipv6(self) -> Iterable[Finding]:
        wanted = ipv6_addresses(self._report) if self._report else 0
        yield network.judge_ipv6(disabled=read_ipv6_disabled(self._sysctls), wanted=wanted)

    def _node_ports(self) -> Iterable[Finding]:
        local, reserved = (
            self._sysctls.get(f"net.ipv4.ip_local_{name}") for name in ("port_range", "reserved_ports")
        )
        if local is not None:
            ports = node_ports(self._report) if self._report else set()
            yield network.judge_node_ports(ports, local, reserved or "")

    # --- others ---

    def _kube_proxy(self) -> Iterable[Finding]:
        yield others.judge_kube_proxy(running_process(), in_use=self._in_use)

    def _leftovers(self) -> Iterable[Finding]:
        with IpSets() as ipsets:
            reader = KubeProxyReader(ipsets)
            found = reader.look()
            theirs = self._unrecorded(reader) if self._ipvs_summary and not self._report else []
            removals = [removal_of(table) for table in reader.tables()] if found.chains else []
        kept = {
            (removal.table, chain): reason for removal in removals for chain, reason in removal.kept.items()
        }
        return others.judge_leftovers(found, theirs, kept, running=running_process() is not None)

    def _unrecorded(self, reader: KubeProxyReader) -> list[VirtualServerKey]:
        """Return the virtual servers that are kube-proxy's; an agent that runs makes them its own, or ends them."""
        tables = self._tables
        unrecorded = [key for key in tables.virtual_servers if record_of(key) not in tables.firewall.elements]
        by_name = named(unrecorded, reader.named_ports(), tables.elsewhere)
        return [key for key in unrecorded if key.address in tables.bound or key in by_name]

    def _ports(self) -> Iterable[Finding]:
        if not isinstance(self._silence, AgentNotRunningError):
            return ()
        held = {(each.protocol, each.port) for each in listeners()}
        config = self._config
        places = ((config.healthz_bind_address, "health checks"), (config.metrics_bind_address, "metrics"))
        ports = [
            others.Port(place[1], purpose, (Protocol.TCP, place[1]) in held)
            for place, purpose in places
            if place
        ]
        return others.judge_ports(ports)
