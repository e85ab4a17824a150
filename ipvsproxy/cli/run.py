"""`ipvsproxy run`: the agent. Starts the threads and waits for a signal.

The threads: one for each watched resource, one for notices of the node's addresses, one reconciler that alone owns the
kernel's tables, one for HTTP, one for the agent's own socket, one that writes Events, and the main one, which waits for
signals. The kernel stays as it is when the agent ends.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy import __version__
from ipvsproxy.cli.agent import Agent, Part
from ipvsproxy.cli.ending import Ending
from ipvsproxy.cli.lock import AgentLock
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.preflight import require_net_admin, require_nftables
from ipvsproxy.observe.log import configure
from ipvsproxy.source.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.cli.arguments.run import RunArguments
    from ipvsproxy.config.settings import Config
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.reconcile.controller import Controller

# A terminated agent is gone within a second; a thread that hangs in a system call does not change that.
STOP_TIMEOUT = 0.3
# New objects between two looks for garbage; Python's default is 700.
GARBAGE_THRESHOLD = 100_000


class Origin(NamedTuple):
    """Where objects come from, by way of the store, and where what can't be used of them is told."""

    store: Store
    parts: tuple[Part, ...]
    on_rejection: Callable[[Rejection], None]


def run(arguments: RunArguments) -> int:
    """Run the agent until SIGTERM or SIGINT; return the exit code."""
    # The objects of a cluster are many, live long and refer to each other in no circles.
    gc.set_threshold(GARBAGE_THRESHOLD)
    ending = Ending()
    config = arguments.config
    log = configure(config.log_format, config.log_level, sys.stderr)
    require_net_admin()
    origin = (
        _manifests(arguments.manifests, config, ending, log)
        if arguments.manifests
        else _api_server(config, log)
    )
    lock = AgentLock(config.run_directory)
    try:
        with contextlib.closing(NfTables()) as nf_tables:
            require_nftables(nf_tables)
        agent = Agent(config, origin.store, origin.on_rejection, log)
        try:
            # Whatever makes the start impossible is the only line.
            _log_start(arguments, log)
            _run_threads((*origin.parts, *agent.parts), agent.controller, ending, log)
        finally:
            agent.close()
    finally:
        lock.release()
    return 0


def _run_threads(
    parts: Sequence[Part], controller: Controller, ending: Ending, log: FilteringBoundLogger
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
        log.info("ending, the kernel stays as it is", signal=ending.wait().name)
    finally:
        for part in parts:
            part.stop()
        controller.stop()
        deadline = time.monotonic() + STOP_TIMEOUT
        reconciler.join(STOP_TIMEOUT)
        for part in parts:
            part.join(max(0, deadline - time.monotonic()))


# Each source needs libraries that the other does without, and they take long to import.


def _manifests(directory: Path, config: Config, ending: Ending, log: FilteringBoundLogger) -> Origin:
    from ipvsproxy.source.manifests import ManifestSource  # noqa: PLC0415 - see above

    store = Store()
    source = ManifestSource(directory, store, config.node_name, log, on_failure=ending.fail)
    return Origin(store, (Part(source.start, source.stop, source.join),), lambda _: None)


def _api_server(config: Config, log: FilteringBoundLogger) -> Origin:
    from ipvsproxy.observe.events import EventFilter  # noqa: PLC0415 - see above
    from ipvsproxy.source.kubernetes import KubernetesSource  # noqa: PLC0415 - see above
    from ipvsproxy.source.kubernetes.events import EventPublisher  # noqa: PLC0415 - see above

    events = EventPublisher(config.node_name, EventFilter(time.monotonic).reason_against, log)
    store = Store(events.offer)
    source = KubernetesSource(config.kubeconfig, store, config.node_name, log)
    publish = partial(events.start, source.api_server, lambda: len(store.node_addresses))
    parts = (Part(source.start, source.stop, source.join), Part(publish, events.stop, events.join))
    return Origin(store, parts, events.offer)


def _log_start(arguments: RunArguments, log: FilteringBoundLogger) -> None:
    config = arguments.config
    log.info(
        "starting",
        version=__version__,
        node=config.node_name,
        source=str(arguments.manifests or config.kubeconfig or "service account"),
        detect_local_mode=config.detect_local_mode,
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
