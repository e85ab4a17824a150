"""`ipvsproxy run`: the agent. Starts the threads and waits for signals.

The threads: one for each watched resource, one for notices of the node's addresses, one reconciler that alone owns the
kernel's tables, one for HTTP, one for the agent's own socket, one that writes Events, one that reads the configuration
again, and the main one, which waits for signals. The kernel stays as it is when the agent ends.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from ipvsproxy import __version__
from ipvsproxy.cli.agent import Agent, ObjectSource, Part
from ipvsproxy.cli.config_watch import ConfigurationWatch
from ipvsproxy.cli.ending import Ending
from ipvsproxy.cli.lock import LOCK_NAME, AgentLock
from ipvsproxy.cli.reload import RunningConfiguration
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.preflight import require_net_admin, require_nftables
from ipvsproxy.observe.agent_socket import CONFIG_COMMAND, EVENTS_COMMAND, SOCKET_NAME
from ipvsproxy.observe.log import Threshold, configure
from ipvsproxy.observe.node_events import NodeEvents
from ipvsproxy.observe.recent import RecentEvents
from ipvsproxy.source.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.cli.arguments.run import RunArguments
    from ipvsproxy.config.settings import Config
    from ipvsproxy.reconcile.controller import Controller

# A terminated agent is gone within a second; a thread that hangs in a system call does not change that.
STOP_TIMEOUT = 0.3
# New objects between two looks for garbage; Python's default is 700.
GARBAGE_THRESHOLD = 100_000


def run(arguments: RunArguments) -> int:
    """Run the agent until SIGTERM or SIGINT; return the exit code."""
    # The objects of a cluster are many, live long and refer to each other in no circles.
    gc.set_threshold(GARBAGE_THRESHOLD)
    ending = Ending()
    config = arguments.config
    recent, node_events, threshold = RecentEvents(), NodeEvents(config.node_name), Threshold(config.log_level)
    log = configure(config.log_format, threshold, sys.stderr, recent.hear, node_events.hear)
    require_net_admin()
    source = (
        _manifests(arguments.manifests, config, ending, log)
        if arguments.manifests
        else _api_server(config, node_events, log)
    )
    running = RunningConfiguration(arguments.layers, arguments.effective, arguments.manifests, log)
    lock = AgentLock(config.run_directory)
    try:
        with contextlib.closing(NfTables()) as nf_tables:
            require_nftables(nf_tables)
        commands = {EVENTS_COMMAND: recent.answer, CONFIG_COMMAND: running.answer}
        agent = Agent(config, source, commands, running.configz, log)
        try:
            # Whatever makes the start impossible is the only line.
            _log_start(arguments, log)
            _log_full_directory(config.run_directory, lock, agent, log)
            watch = _watch(
                arguments.layers.file, lambda asked: running.reload(agent.configure, asked=asked), log
            )
            parts = (
                *source.parts,
                *agent.parts,
                *([Part(watch.start, watch.stop, watch.join)] if watch else []),
            )
            _run_threads(parts, agent.controller, ending, _signals(watch, threshold, log), log)
        finally:
            agent.close()
    finally:
        lock.release()
    return 0


def _watch(
    file: Path | None, on_change: Callable[[bool], None], log: FilteringBoundLogger
) -> ConfigurationWatch | None:
    return ConfigurationWatch(file, on_change, log, clock=time.monotonic) if file else None


def _signals(
    watch: ConfigurationWatch | None, threshold: Threshold, log: FilteringBoundLogger
) -> Mapping[signal.Signals, Callable[[], None]]:
    """Return what the signals do that do not end the agent; none of it takes long."""

    def read_again() -> None:
        if watch:
            watch.ask()
        else:
            log.info("no configuration file to read again", remedy="start the agent with --config FILE")

    def move(by: int) -> None:
        level = threshold.neighbour(by)
        # While the level holds that writes more, so that the line is seen.
        if by < 0:
            threshold.level = level
        log.warning("log level changed", to=level)
        threshold.level = level

    return {
        signal.SIGHUP: read_again,
        signal.SIGUSR1: partial(move, -1),
        signal.SIGUSR2: partial(move, 1),
    }


def _run_threads(
    parts: Sequence[Part],
    controller: Controller,
    ending: Ending,
    signals: Mapping[signal.Signals, Callable[[], None]],
    log: FilteringBoundLogger,
) -> None:
    def reconcile() -> None:
        try:
            controller.run()
        except Exception as error:  # noqa: BLE001 - the main thread raises it again
            ending.fail(error)

    reconciler = threading.Thread(target=reconcile, name="reconciler", daemon=True)
    ending.take_signals()
    for part in parts:
        part.start()
    reconciler.start()
    try:
        while action := signals.get(number := ending.wait()):
            action()
        log.info("ending, the kernel stays as it is", signal=number.name)
    finally:
        for part in parts:
            part.stop()
        controller.stop()
        deadline = time.monotonic() + STOP_TIMEOUT
        reconciler.join(STOP_TIMEOUT)
        for part in parts:
            part.join(max(0, deadline - time.monotonic()))


# Each source needs libraries that the other does without, and they take long to import.


def _manifests(directory: Path, config: Config, ending: Ending, log: FilteringBoundLogger) -> ObjectSource:
    from ipvsproxy.source.manifests import ManifestSource  # noqa: PLC0415 - see above

    store = Store()
    source = ManifestSource(directory, store, config.node_name, log, on_failure=ending.fail)
    parts = (Part(source.start, source.stop, source.join),)
    return ObjectSource(store, source.health, parts, lambda _: None, has_nodes=False)


def _api_server(config: Config, node_events: NodeEvents, log: FilteringBoundLogger) -> ObjectSource:
    from ipvsproxy.observe.events import EventFilter  # noqa: PLC0415 - see above
    from ipvsproxy.source.kubernetes import KubernetesSource  # noqa: PLC0415 - see above
    from ipvsproxy.source.kubernetes.events import EventPublisher  # noqa: PLC0415 - see above

    events = EventPublisher(config.node_name, EventFilter(time.monotonic).reason_against, log)
    node_events.publish(events.offer)
    store = Store(events.offer)
    source = KubernetesSource(config.kubeconfig, store, config.node_name, log, master=config.master)
    publish = partial(events.start, source.api_server, lambda: len(store.node_addresses))
    parts = (Part(source.start, source.stop, source.join), Part(publish, events.stop, events.join))
    return ObjectSource(store, source.health, parts, events.offer)


def _log_full_directory(directory: Path, lock: AgentLock, agent: Agent, log: FilteringBoundLogger) -> None:
    """Warn, once, of what there was no room for."""
    missing = [*(() if lock.is_written else (LOCK_NAME,)), *(() if agent.has_socket else (SOCKET_NAME,))]
    if missing:
        log.warning(
            "run directory is full",
            directory=str(directory),
            not_written=missing,
            remedy="make room there: the agent serves all the same, and makes its socket once it can, "
            "without which no command can ask it",
        )


def _log_start(arguments: RunArguments, log: FilteringBoundLogger) -> None:
    config = arguments.config
    log.info(
        "starting",
        version=__version__,
        node=config.node_name,
        source=str(arguments.manifests or config.master or config.kubeconfig or "service account"),
        detect_local_mode=config.detect_local_mode,
        cluster_cidrs=[str(network) for network in config.cluster_cidrs],
        masquerade_all=config.masquerade_all,
        scheduler=config.scheduler,
        sync_period=config.sync_period,
        min_sync_period=config.min_sync_period,
    )
    if arguments.layers.without_effect:
        log.warning("flags of kube-proxy without effect", flags=list(arguments.layers.without_effect))
    if arguments.effective.ignored:
        log.warning(
            "configuration fields without effect",
            file=str(arguments.layers.file),
            fields=list(arguments.effective.ignored),
        )
    if arguments.effective.remarks:
        log.warning(
            "configuration passed over in part",
            file=str(arguments.layers.file),
            remarks=list(arguments.effective.remarks),
        )
