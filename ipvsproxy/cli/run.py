"""`ipvsproxy run`: the agent. Puts the parts together, starts the threads and waits for a signal.

The threads: one for each watched resource, one reconciler that alone owns the kernel's sockets, one for the agent's
own socket, and the main one, which waits for signals. The kernel stays as it is when the agent ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ipvsproxy import __version__
from ipvsproxy.cli.ending import Ending
from ipvsproxy.cli.lock import AgentLock
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.kernel.preflight import require_net_admin, require_nftables
from ipvsproxy.kernel.sysctl import ProcSysctls, apply_settings
from ipvsproxy.observe.agent_socket import REPORT_COMMAND, AgentSocket
from ipvsproxy.observe.log import configure
from ipvsproxy.observe.report import Identity, build_report
from ipvsproxy.plan.firewall import FirewallSettings
from ipvsproxy.plan.services import PlanSettings
from ipvsproxy.plan.sysctls import IPV6_FORWARDING, SysctlSettings, parse_kernel_release, sysctl_plan
from ipvsproxy.reconcile.controller import Controller, Settings
from ipvsproxy.source.store import Store

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.cli.arguments import RunArguments
    from ipvsproxy.config.settings import Config
    from ipvsproxy.kernel.interface import NodeKernel
    from ipvsproxy.observe.schema import AgentReport

# A terminated agent is gone within a second; a thread that hangs in a system call does not change that.
STOP_TIMEOUT = 0.3
# New objects between two looks for garbage; Python's default is 700.
GARBAGE_THRESHOLD = 100_000
# The longest that the reconciler is busy with one thing: the first sync of a large cluster.
VIEW_TIMEOUT = 10.0


class Source(Protocol):
    """What fills the store."""

    def start(self) -> None:
        """Start the threads."""

    def stop(self) -> None:
        """Make the threads end soon."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for the threads to end, at most for `timeout` seconds."""


def run(arguments: RunArguments) -> int:
    """Run the agent until SIGTERM or SIGINT; return the exit code."""
    # The objects of a cluster are many, live long and refer to each other in no circles.
    gc.set_threshold(GARBAGE_THRESHOLD)
    ending = Ending()
    config = arguments.config
    log = configure(config.log_format, config.log_level, sys.stderr)
    require_net_admin()
    store = Store()
    source = _source(arguments, store, ending, log)
    lock = AgentLock(config.run_directory)
    try:
        with contextlib.closing(NfTables()) as nf_tables:
            require_nftables(nf_tables)
        kernel = open_node_kernel(_firewall_settings(config))
        prepare = partial(_prepare, kernel, config, log)
        controller = Controller(store, kernel, _settings(config), time.monotonic, log, prepare)
        report = partial(_report, config, store, controller)
        agent_socket = AgentSocket(config.run_directory, {REPORT_COMMAND: report}, log)
        try:
            # Whatever makes the start impossible is the only line.
            _log_start(arguments, log)
            _run_threads(source, controller, ending, log)
        finally:
            agent_socket.stop()
    finally:
        lock.release()
    return 0


def _run_threads(source: Source, controller: Controller, ending: Ending, log: FilteringBoundLogger) -> None:
    def reconcile() -> None:
        try:
            controller.run()
        except Exception as error:  # noqa: BLE001 - the main thread raises it again
            ending.fail(error)

    reconciler = threading.Thread(target=reconcile, name="reconciler", daemon=True)
    ending.take_signals()
    source.start()
    reconciler.start()
    try:
        log.info("ending, the kernel stays as it is", signal=ending.wait().name)
    finally:
        source.stop()
        controller.stop()
        deadline = time.monotonic() + STOP_TIMEOUT
        reconciler.join(STOP_TIMEOUT)
        source.join(max(0, deadline - time.monotonic()))


def _prepare(kernel: NodeKernel, config: Config, log: FilteringBoundLogger) -> None:
    """Make the interface, so that a kernel where that is impossible keeps its settings, and then the settings."""
    # Any other error is the first sync's to report, and to try again.
    with contextlib.suppress(OSError):
        kernel.addresses.ensure_interface()
    _make_kernel_settings(config, log)


def _make_kernel_settings(config: Config, log: FilteringBoundLogger) -> None:
    sysctls = ProcSysctls()
    settings = SysctlSettings(
        parse_kernel_release(os.uname().release),
        ipv6=sysctls.get(IPV6_FORWARDING) is not None,
        strict_arp=config.strict_arp,
    )
    for setting, found, error in apply_settings(sysctls, sysctl_plan(settings)):
        log.warning(
            "kernel setting not made",
            setting=setting.name,
            wanted=setting.value,
            found=found,
            reason=str(error),
            meaning=setting.meaning,
        )


def _firewall_settings(config: Config) -> FirewallSettings:
    return FirewallSettings(config.cluster_cidrs, config.masquerade_all, config.masquerade_bit)


def _report(config: Config, store: Store, controller: Controller) -> AgentReport:
    identity = Identity(__version__, os.getpid(), config.node_name, _firewall_settings(config))
    view = controller.view(VIEW_TIMEOUT)
    states = [store.state(key) for key in store.service_keys()]
    return build_report(identity, view, states, store.rejections())


def _settings(config: Config) -> Settings:
    return Settings(
        plan=PlanSettings(config.node_name, config.scheduler),
        sync_period=config.sync_period,
        minimum_sync_period=config.min_sync_period,
        drain_timeout=config.drain_timeout,
    )


def _source(arguments: RunArguments, store: Store, ending: Ending, log: FilteringBoundLogger) -> Source:
    # Each source needs libraries that the other does without, and they take long to import.
    if arguments.manifests:
        from ipvsproxy.source.manifests import ManifestSource  # noqa: PLC0415 - see above

        return ManifestSource(
            arguments.manifests, store, arguments.config.node_name, log, on_failure=ending.fail
        )
    from ipvsproxy.source.kubernetes import KubernetesSource  # noqa: PLC0415 - see above

    return KubernetesSource(arguments.config.kubeconfig, store, arguments.config.node_name, log)


def _log_start(arguments: RunArguments, log: FilteringBoundLogger) -> None:
    config = arguments.config
    log.info(
        "starting",
        version=__version__,
        node=config.node_name,
        source=str(arguments.manifests or config.kubeconfig or "service account"),
        cluster_cidrs=[str(network) for network in config.cluster_cidrs],
        masquerade_all=config.masquerade_all,
        scheduler=config.scheduler,
        sync_period=config.sync_period,
        min_sync_period=config.min_sync_period,
    )
    if arguments.ignored_fields:
        log.warning(
            "configuration fields without effect",
            file=str(arguments.config_file),
            fields=list(arguments.ignored_fields),
        )
