"""The agent put together: the reconciler with its kernel, and all that tells people and load balancers of it."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ipvsproxy import __version__
from ipvsproxy.cli.kernel_settings import KernelSettings
from ipvsproxy.cli.settings import controller_settings, firewall_settings, patience
from ipvsproxy.kernel.address_notices import AddressNotices
from ipvsproxy.kernel.forwarding import Forwarding
from ipvsproxy.kernel.host_firewall import HostFirewallReader
from ipvsproxy.kernel.inspect_tables import read_conntrack_room
from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.kernel.kube_proxy import has_ipsets
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.kernel.sysctl import ProcSysctls
from ipvsproxy.kernel.timed import timed
from ipvsproxy.model.items import describe
from ipvsproxy.observe.agent_socket import REPORT_COMMAND, RESYNC_COMMAND, AgentSocket
from ipvsproxy.observe.health import Health
from ipvsproxy.observe.host_firewall import HostFirewallWatch
from ipvsproxy.observe.http_pages import Pages
from ipvsproxy.observe.http_server import ConfiguredListener, HttpServer, Place
from ipvsproxy.observe.metrics import Metrics, Surroundings
from ipvsproxy.observe.node_port_health import NodePortHealth
from ipvsproxy.observe.report import Identity, build_report
from ipvsproxy.observe.schema import SCHEMA_VERSION, ResyncResult
from ipvsproxy.observe.service_traffic import ServiceTraffic
from ipvsproxy.reconcile.controller import Controller
from ipvsproxy.reconcile.hooks import Hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.config.settings import Config
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import Statistics, VirtualServerKey
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.plan.node import NodeFacts
    from ipvsproxy.plan.view import Round
    from ipvsproxy.source.health import SourceHealth
    from ipvsproxy.source.store import Store

# The longest that the reconciler is busy with one thing: the first sync of a large cluster.
VIEW_TIMEOUT = 10.0
# The longest that a comparison with the kernel is waited for.
RESYNC_TIMEOUT = 60.0


class Part(NamedTuple):
    """What runs in threads of its own, as the functions that start it, make it end soon, and wait for that."""

    start: Callable[[], None]
    stop: Callable[[], None]
    join: Callable[[float | None], None]


class ObjectSource(NamedTuple):
    """Where objects come from, by way of the store; how that goes; and where what can't be used of them is told.

    `has_nodes` says that a Node of the agent's name has to be among them.
    """

    store: Store
    health: SourceHealth
    parts: tuple[Part, ...]
    on_rejection: Callable[[Rejection], None]
    has_nodes: bool = True


class Agent:
    """The reconciler of one node, and its company."""

    def __init__(
        self,
        config: Config,
        source: ObjectSource,
        commands: Mapping[str, Callable[[], msgspec.Struct]],
        configz: Callable[[], Mapping[str, object]],
        log: FilteringBoundLogger,
    ) -> None:
        """Open the kernel and the agent's socket; nothing is written before the parts start.

        `commands` are answered on the agent's socket, beside the report; `configz` is the configuration in effect as
        /configz shows it. KernelUnavailableError and OSError say what is missing.
        """
        self._config = config
        self._store = source.store
        self._source_health = source.health
        self._has_nodes = source.has_nodes
        self._log = log
        self._metrics = Metrics()
        self._settings = KernelSettings(log)
        self._kernel = timed(open_node_kernel(firewall_settings(config, None)), self._metrics.time_call)
        self._host_firewall = HostFirewallWatch(
            HostFirewallReader(NfTables()).look,
            Forwarding(),
            lambda: self.controller.planned().virtual_servers,
            lambda: self._config.masquerade_bit if self._config.accept_forwarded else None,
            log,
        )
        self._health = Health(
            patience(config), config.sync_period, self._is_eligible, time.monotonic, time.time
        )
        self._http = HttpServer(log)
        self._node_ports_health = NodePortHealth(
            self._http, self._health.is_healthy, log, source.on_rejection
        )
        self._healthz = ConfiguredListener(
            self._http,
            "healthzBindAddress",
            _place(config.healthz_bind_address),
            self._metrics.probed(self._health.answer),
            log,
        )
        hooks = Hooks(
            prepare=self._prepare,
            succeeded=self._succeeded,
            rejected=source.on_rejection,
            kube_proxy_is_here=has_ipsets,
            health_check_changed=self._node_ports_health.update,
            node_changed=self._node_changed,
            observe=self._observe,
        )
        self.controller = Controller(
            source.store, self._kernel, controller_settings(config), time.monotonic, log, hooks
        )
        pages = Pages(configz, self._metrics.exposition(self._surroundings(config)))
        self._monitoring = ConfiguredListener(
            self._http, "metricsBindAddress", _place(config.metrics_bind_address), pages.answer, log
        )
        own_commands = {REPORT_COMMAND: self._report, RESYNC_COMMAND: self._resync}
        self._socket = AgentSocket(config.run_directory, {**own_commands, **commands}, log)
        self._notices = AddressNotices(self.controller.addresses_changed, log)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What runs beside the reconciler."""
        notices, firewall = self._notices, self._host_firewall
        return (
            Part(notices.start, notices.stop, notices.join),
            Part(firewall.start, firewall.stop, firewall.join),
        )

    @property
    def has_socket(self) -> bool:
        """Whether commands can ask the agent: not before the run directory has room for its socket."""
        return self._socket.is_there

    def configure(self, config: Config) -> None:
        """Go by another configuration from now on, as far as config.reload says that it can; from one other thread."""
        self._config = config
        self.controller.configure(controller_settings(config))
        self._health.expect(patience(config), config.sync_period)
        self._healthz.move(_place(config.healthz_bind_address))
        self._monitoring.move(_place(config.metrics_bind_address))
        # The reconciler's sockets are its own.
        with contextlib.closing(IpvsNetlink()) as ipvs:
            self._settings.make(config, ipvs)

    def close(self) -> None:
        """Stop to answer anybody."""
        self._http.stop()
        self._socket.stop()

    def _prepare(self) -> None:
        """Make the interface, so that a kernel where that is impossible keeps its settings, and then the settings."""
        # Any other error is the first sync's to report, and to try again.
        with contextlib.suppress(OSError):
            self._kernel.addresses.ensure_interface()
        self._settings.make(self._config, self._kernel.ipvs)

    def _succeeded(self) -> None:
        self._health.succeeded()
        self._settings.look(self._config, self._kernel.ipvs)
        self._healthz.retry()
        self._monitoring.retry()
        self._node_ports_health.retry()
        self._host_firewall.ask()

    def _observe(self, done: Round) -> None:
        self._metrics.observe(done)
        self._health.fails(done.numbers.waiting_since)

    def _surroundings(self, config: Config) -> Surroundings:
        """Return what is looked at for each scrape."""
        store, limit = self._store, config.service_traffic_metrics
        surroundings = Surroundings(
            store.backlog,
            self._source_health.states,
            store.rejections,
            self._node_ports_health.rejections,
            self._is_unknown,
            lambda: self._settings.wrong,
            lambda: read_conntrack_room(ProcSysctls()),
            host_firewall=lambda: self._host_firewall.state,
        )
        if not limit:
            return surroundings
        traffic = ServiceTraffic(
            limit,
            _read_statistics,
            self.controller.planned,
            lambda service: store.state(service).service,
        )
        return surroundings._replace(traffic=traffic.samples)

    def _node_changed(self, facts: NodeFacts) -> None:
        everywhere = self._config.node_port_addresses.all
        self._node_ports_health.listen_on(None if everywhere else facts.node_port_addresses)

    def _is_eligible(self) -> bool:
        node = self._store.node
        return not self._is_unknown() and not (node and node.leaving)

    def _is_unknown(self) -> bool:
        """Say whether the API server has no Node of the agent's name."""
        return self._has_nodes and self._store.synced and not self._store.node_exists

    def _report(self) -> AgentReport:
        store, config = self._store, self._config
        rules = firewall_settings(config, store.node)
        view = self.controller.view(VIEW_TIMEOUT)
        states = [store.state(key) for key in store.service_keys()]
        rejections = [*store.rejections(), *self._node_ports_health.rejections()]
        identity = Identity(__version__, os.getpid(), config.node_name, rules, not self._is_unknown())
        watches = self._source_health.states()
        report = build_report(identity, view, states, rejections, watches)
        return msgspec.structs.replace(report, host_firewall=self._host_firewall.state.reported)

    def _resync(self) -> ResyncResult:
        try:
            found = self.controller.compare(RESYNC_TIMEOUT)
        except TimeoutError:
            reason = f"not done within {RESYNC_TIMEOUT:g} s, the log says what the agent waits for"
            return ResyncResult(SCHEMA_VERSION, RESYNC_TIMEOUT, {}, [], reason)
        except (OSError, FirewallError, KernelUnavailableError) as error:
            return ResyncResult(SCHEMA_VERSION, 0.0, {}, [], str(error))
        # They were looked at before the controller answered.
        everything = {**found.done, "kernel settings made again": self._settings.made_again}
        done = {kind: count for kind, count in everything.items() if count}
        failing = [f"{describe(item)}: {failure.reason}" for item, failure in found.failures.items()]
        return ResyncResult(SCHEMA_VERSION, round(found.seconds, 6), done, failing)


def _place(bind_address: tuple[Address, int] | None) -> Place | None:
    return Place(*bind_address) if bind_address else None


def _read_statistics() -> Mapping[VirtualServerKey, Statistics]:
    """Read the kernel's counters by a socket of its own, for no two threads may share one."""
    with contextlib.closing(IpvsNetlink()) as ipvs:
        return ipvs.virtual_server_statistics()
