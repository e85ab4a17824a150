"""The metrics of `observe.metrics_table`, fed by the reconciler's rounds and, at each scrape, by looking around."""

from __future__ import annotations

import functools
import platform
import time
from collections import Counter as Counting
from typing import TYPE_CHECKING, NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ipvsproxy import __version__
from ipvsproxy.kernel.timed import TIMED, Call
from ipvsproxy.observe.host_firewall import State as HostFirewallState
from ipvsproxy.observe.metrics_table import METRICS, OPERATIONS, Kind
from ipvsproxy.plan.view import DrainEnd, Numbers, Occasion

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.observe.http_connection import Handler, Response
    from ipvsproxy.observe.metrics_table import Metric
    from ipvsproxy.plan.view import Round
    from ipvsproxy.source.health import WatchState
    from ipvsproxy.source.store import Backlog

# One number of a scrape: the metric's name, the values of its labels, the number.
Sample = tuple[str, tuple[str, ...], float]

_PROBES = {"/healthz": "kubeproxy_proxy_healthz_total", "/livez": "kubeproxy_proxy_livez_total"}
_WHOLE = frozenset({Occasion.FIRST_SYNC, Occasion.RESYNC})
_REPAIRS = frozenset({Occasion.RESYNC, Occasion.REPAIR})
# A look at what drains, or at what failed, is no sync.
_SYNCS = _WHOLE | {Occasion.CHANGES}


class Surroundings(NamedTuple):
    """What is looked at for each scrape, from whichever thread that is in.

    `unusable` are the parts of objects that can't be used, `unavailable` those that can't be had beside what the rounds
    tell. `node_is_unknown` says that there is no Node of the agent's name. `wrong_settings` are the kernel settings
    that can't be made. `conntrack_room` is how many connections are tracked, and how many may be. `traffic` has the
    samples by Service. `host_firewall` is what the last look at the host's firewall found.
    """

    backlog: Callable[[], Backlog]
    watches: Callable[[], Iterable[WatchState]]
    unusable: Callable[[], Iterable[Rejection]]
    unavailable: Callable[[], Collection[Rejection]] = lambda: ()
    node_is_unknown: Callable[[], bool] = lambda: False
    wrong_settings: Callable[[], Iterable[str]] = lambda: ()
    conntrack_room: Callable[[], tuple[int, int] | None] = lambda: None
    traffic: Callable[[], Iterable[Sample]] = lambda: ()
    host_firewall: Callable[[], HostFirewallState] = HostFirewallState


class Metrics:
    """All metrics, in a registry of their own, and what the operating system says of the process.

    `observe` is a hook of the reconciler's, `time_call` goes to `kernel.timed`, and `probed` around the handler of the
    health checks.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """Begin with every number at zero; both clocks are in seconds, the second since the epoch."""
        # It is for the process as a whole, and nothing here is about when a number was first there.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # ships no type for it
        self._clock = clock
        self._wall_clock = wall_clock
        self._numbers = Numbers(0, 0, 0, {}, None, 0, {})
        self._last_round = 0.0
        self._last_resync: float | None = None
        self._registry = CollectorRegistry()
        self._fed: set[str] = set()
        self._sync = self._histogram("kubeproxy_sync_proxy_rules_duration_seconds")
        self._partial = self._histogram("kubeproxy_sync_partial_proxy_rules_duration_seconds")
        self._full = self._histogram("kubeproxy_sync_full_proxy_rules_duration_seconds")
        self._programming = self._histogram("kubeproxy_network_programming_duration_seconds")
        operations = self._counter("ipvsproxy_operations_total")
        self._done = {kind: operations.labels(kind, "done") for kind in OPERATIONS}
        self._refused = {kind: operations.labels(kind, "refused") for kind in OPERATIONS}
        repairs = self._counter("ipvsproxy_resync_repairs_total")
        self._repairs = {kind: repairs.labels(kind) for kind in OPERATIONS}
        drains = self._counter("ipvsproxy_drains_ended_total")
        self._drains = {how: drains.labels(how) for how in DrainEnd}
        calls = self._histogram("ipvsproxy_kernel_call_duration_seconds")
        self._calls = {
            Call(adapter, access): calls.labels(adapter, access)
            for adapter, methods in TIMED.items()
            for access in set(methods.values())
        }
        self._probes = {path: self._counter(name) for path, name in _PROBES.items()}
        for counter in self._probes.values():
            for code in ("200", "503"):
                counter.labels(code)
        ProcessCollector(registry=self._registry)

    def observe(self, told: Round) -> None:
        """Take in what the reconciler did in one round; in its thread."""
        self._numbers = told.numbers
        self._last_round = self._wall_clock()
        if told.occasion in _SYNCS:
            self._sync.observe(told.seconds)
            (self._full if told.occasion in _WHOLE else self._partial).observe(told.seconds)
        if told.occasion in _WHOLE:
            self._last_resync = self._clock()
        for moment in told.triggered:
            self._programming.observe(max(self._last_round - moment, 0.0))
        _add(self._done, told.done)
        _add(self._refused, told.refused)
        if told.occasion in _REPAIRS:
            _add(self._repairs, told.done)
        for how, count in told.drains_ended.items():
            self._drains[how].inc(count)

    def time_call(self, call: Call, seconds: float) -> None:
        """Take in how long a call to the kernel took."""
        self._calls[call].observe(seconds)

    def probed(self, handler: Callable[[str], Response | None]) -> Handler:
        """Return the handler with its answers to /healthz and /livez counted."""

        def count(path: str) -> Response | None:
            response = handler(path)
            if response and path in self._probes:
                self._probes[path].labels(str(int(response.status))).inc()
            return response

        return count

    def exposition(self, surroundings: Surroundings) -> Callable[[], bytes]:
        """Return what makes the text of a scrape, in Prometheus' format; it may be called from any thread."""
        rest = [metric for name, metric in METRICS.items() if name not in self._fed]
        self._registry.register(_Reader(rest, lambda: self._read(surroundings)))
        return functools.partial(prometheus_client.generate_latest, self._registry)

    def _histogram(self, name: str) -> Histogram:
        metric, labels = self._feed(name)
        return Histogram(name, metric.meaning, labels, registry=self._registry, buckets=metric.buckets)

    def _counter(self, name: str) -> Counter:
        metric, labels = self._feed(name)
        return Counter(name, metric.meaning, labels, registry=self._registry)

    def _feed(self, name: str) -> tuple[Metric, tuple[str, ...]]:
        """Return a metric that is fed and not read, and the names of its labels."""
        self._fed.add(name)
        metric = METRICS[name]
        return metric, tuple(label.name for label in metric.labels)

    def _read(self, surroundings: Surroundings) -> Iterator[Sample]:
        """Look around."""
        numbers, backlog = self._numbers, surroundings.backlog()
        last = self._last_resync
        yield "kubeproxy_sync_proxy_rules_last_timestamp_seconds", (), self._last_round
        yield "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", (), backlog.last_change
        yield "kubeproxy_sync_proxy_rules_service_changes_total", (), backlog.service_changes
        yield "kubeproxy_sync_proxy_rules_service_changes_pending", (), backlog.service_changes_pending
        yield "kubeproxy_sync_proxy_rules_endpoint_changes_total", (), backlog.slice_changes
        yield "kubeproxy_sync_proxy_rules_endpoint_changes_pending", (), backlog.slice_changes_pending
        yield "ipvsproxy_dirty_services", (), backlog.services_waiting
        yield "ipvsproxy_seconds_since_resync", (), -1.0 if last is None else self._clock() - last
        yield "ipvsproxy_virtual_servers", (), numbers.virtual_servers
        yield "ipvsproxy_real_servers", ("serving",), numbers.real_servers - numbers.draining
        yield "ipvsproxy_real_servers", ("draining",), numbers.draining
        yield "ipvsproxy_build_info", (__version__, platform.python_version()), 1.0
        for item in METRICS["ipvsproxy_waiting_failures"].labels[0].values:
            yield "ipvsproxy_waiting_failures", (item,), numbers.waiting.get(item, 0)
        for policy in ("internal", "external"):
            number = numbers.without_local_endpoints.get(policy, 0)
            yield "kubeproxy_sync_proxy_rules_no_local_endpoints_total", (policy,), number
        yield "ipvsproxy_node_unknown", (), float(surroundings.node_is_unknown())
        for setting in surroundings.wrong_settings():
            yield "ipvsproxy_kernel_setting_wrong", (setting,), 1.0
        if room := surroundings.conntrack_room():
            yield "ipvsproxy_conntrack_entries", (), room[0]
            yield "ipvsproxy_conntrack_limit", (), room[1]
        firewall = surroundings.host_firewall()
        for hook in METRICS["ipvsproxy_host_firewall_drops"].labels[0].values:
            dropping = sum(finding.base.hook == hook for finding in firewall.findings)
            yield "ipvsproxy_host_firewall_drops", (hook,), dropping
        yield "ipvsproxy_host_firewall_chains", ("in_place",), len(firewall.chains)
        yield "ipvsproxy_host_firewall_chains", ("failed",), len(firewall.unmended)
        yield from self._read_refused(surroundings)
        yield from _read_watches(surroundings)
        yield from surroundings.traffic()

    def _read_refused(self, surroundings: Surroundings) -> Iterator[Sample]:
        unusable = Counting(rejection.kind for rejection in surroundings.unusable())
        for kind in METRICS["ipvsproxy_refused_parts"].labels[0].values:
            yield "ipvsproxy_refused_parts", (kind, "unusable"), unusable[kind]
        unavailable = self._numbers.refused + len(surroundings.unavailable())
        yield "ipvsproxy_refused_parts", ("Service", "unavailable"), unavailable


class _Reader(Collector):
    """Makes metrics of samples that are read at each scrape."""

    def __init__(self, metrics: Collection[Metric], read: Callable[[], Iterable[Sample]]) -> None:
        self._metrics = metrics
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        families = {metric.name: _family(metric) for metric in self._metrics}
        for name, labels, value in self._read():
            families[name].add_metric(labels, value)
        return families.values()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Name nothing: what is registered is not known before it is read."""
        return ()


def _read_watches(surroundings: Surroundings) -> Iterator[Sample]:
    for watch in surroundings.watches():
        resource = (watch.resource,)
        yield "ipvsproxy_watch_connected", resource, float(watch.connected)
        if watch.seconds_since_contact is not None:
            yield "ipvsproxy_watch_seconds_since_contact", resource, watch.seconds_since_contact
        yield "ipvsproxy_watch_connections_total", resource, watch.connections
        yield "ipvsproxy_watch_failures_total", resource, watch.failures


def _family(metric: Metric) -> GaugeMetricFamily | CounterMetricFamily:
    make = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    return make(metric.name, metric.meaning, labels=[label.name for label in metric.labels])


def _add(counters: Mapping[str, Counter], counts: Mapping[str, int]) -> None:
    for kind, count in counts.items():
        if count:
            counters[kind.replace(" ", "_")].inc(count)
