"""What the metrics say, as Prometheus' client library reads them, and the page that describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ipvsproxy.kernel.timed import Call
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.http_connection import Response
from ipvsproxy.observe.metrics import Metrics, Surroundings
from ipvsproxy.observe.metrics_table import METRICS, OPERATIONS, Kind
from ipvsproxy.plan.view import DrainEnd, Numbers, Occasion, Round
from ipvsproxy.reconcile.apply import DONE
from ipvsproxy.source.health import SourceHealth
from ipvsproxy.source.store import Backlog
from tests.builders import WEB
from tests.observe import metrics_document

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from ipvsproxy.source.health import WatchState

NUMBERS = Numbers(3, 10, 2, {"address": 1}, 5.0, 4, {"internal": 2})
CHANGES = Round(Occasion.CHANGES, 0.0004, {}, {}, {}, (), NUMBERS)
SYNC = "kubeproxy_sync_proxy_rules_duration_seconds"
PARTIAL = "kubeproxy_sync_partial_proxy_rules_duration_seconds"
FULL = "kubeproxy_sync_full_proxy_rules_duration_seconds"
PROGRAMMING = "kubeproxy_network_programming_duration_seconds"


class Scene:
    """Metrics, what they look at, and both clocks."""

    def __init__(self) -> None:
        self.now = 500.0
        self.wall = 1_700_000_000.0
        self.backlog = Backlog()
        self.health = SourceHealth(lambda: self.now)
        self.unusable: list[Rejection] = []
        self.unavailable: list[Rejection] = []
        self.metrics = Metrics(lambda: self.now, lambda: self.wall)
        self.node_is_unknown = False
        self.wrong_settings: list[str] = []
        self.conntrack_room: tuple[int, int] | None = None
        self.exposition = self.metrics.exposition(
            Surroundings(
                lambda: self.backlog,
                self.watches,
                lambda: self.unusable,
                lambda: self.unavailable,
                lambda: self.node_is_unknown,
                lambda: self.wrong_settings,
                lambda: self.conntrack_room,
            )
        )

    def watches(self) -> list[WatchState]:
        return self.health.states()

    def families(self) -> dict[str, Metric]:
        text = self.exposition().decode()
        return {family.name: family for family in text_string_to_metric_families(text)}

    def numbers(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families().values()
            for sample in family.samples
        }

    def number(self, name: str, **labels: str) -> float | None:
        return self.numbers().get((name, frozenset(labels.items())))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_every_metric_of_the_table_is_there_with_its_type_and_meaning(scene: Scene) -> None:
    families = scene.families()
    for metric in METRICS.values():
        family = families[metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)


def test_there_are_no_metrics_but_those_of_the_table_and_the_processs_own(scene: Scene) -> None:
    known = {name.removesuffix("_total") for name in METRICS} | METRICS.keys()
    assert {name for name in scene.families() if not name.startswith("process_")} <= known


def test_what_is_counted_by_a_label_of_few_values_is_there_from_the_start_at_zero(scene: Scene) -> None:
    numbers = scene.numbers()
    expected: list[tuple[str, dict[str, str]]] = [
        ("kubeproxy_proxy_livez_total", {"code": "503"}),
        ("ipvsproxy_refused_parts", {"object": "Node", "reason": "unusable"}),
    ]
    for kind in OPERATIONS:
        expected += [
            ("ipvsproxy_operations_total", {"kind": kind, "result": "done"}),
            ("ipvsproxy_operations_total", {"kind": kind, "result": "refused"}),
            ("ipvsproxy_resync_repairs_total", {"kind": kind}),
        ]
    expected += [("ipvsproxy_drains_ended_total", {"how": how}) for how in DrainEnd]
    assert [numbers[name, frozenset(labels.items())] for name, labels in expected] == [0] * len(expected)


def test_the_operations_of_ipvs_are_among_those_that_are_counted() -> None:
    assert {kind.replace(" ", "_") for kind in DONE.values()} <= set(OPERATIONS)


def test_a_round_is_counted_by_what_it_did(scene: Scene) -> None:
    done, refused = {"real servers added": 3, "set elements added": 0}, {"addresses added": 2}
    scene.metrics.observe(CHANGES._replace(done=done, refused=refused))
    scene.metrics.observe(CHANGES._replace(done=done))
    assert scene.number("ipvsproxy_operations_total", kind="real_servers_added", result="done") == 6
    assert scene.number("ipvsproxy_operations_total", kind="addresses_added", result="refused") == 2
    assert scene.number("ipvsproxy_resync_repairs_total", kind="real_servers_added") == 0


def test_whether_the_node_is_known_is_told(scene: Scene) -> None:
    assert scene.number("ipvsproxy_node_unknown") == 0
    scene.node_is_unknown = True
    assert scene.number("ipvsproxy_node_unknown") == 1


def test_a_wrong_kernel_setting_is_there_as_long_as_it_is_wrong(scene: Scene) -> None:
    scene.wrong_settings = ["net.ipv4.ip_forward"]
    assert scene.number("ipvsproxy_kernel_setting_wrong", setting="net.ipv4.ip_forward") == 1
    scene.wrong_settings = []
    assert scene.number("ipvsproxy_kernel_setting_wrong", setting="net.ipv4.ip_forward") is None


def test_the_room_of_connection_tracking_is_told_where_there_is_any(scene: Scene) -> None:
    assert scene.number("ipvsproxy_conntrack_entries") is None
    scene.conntrack_room = 7, 100
    assert scene.number("ipvsproxy_conntrack_entries") == 7
    assert scene.number("ipvsproxy_conntrack_limit") == 100


@pytest.mark.parametrize("occasion", [Occasion.RESYNC, Occasion.REPAIR])
def test_what_a_comparison_mends_is_a_repair_too(scene: Scene, occasion: Occasion) -> None:
    scene.metrics.observe(CHANGES._replace(occasion=occasion, done={"virtual servers created": 1}))
    assert scene.number("ipvsproxy_operations_total", kind="virtual_servers_created", result="done") == 1
    assert scene.number("ipvsproxy_resync_repairs_total", kind="virtual_servers_created") == 1


@pytest.mark.parametrize(
    ("occasion", "partial", "full"),
    [
        (Occasion.CHANGES, 1, 0),
        (Occasion.FIRST_SYNC, 0, 1),
        (Occasion.RESYNC, 0, 1),
        (Occasion.RETRY, 0, 0),
        (Occasion.DRAINS, 0, 0),
    ],
)
def test_a_sync_is_full_or_partial_and_a_retry_or_a_look_at_drains_is_none(
    scene: Scene, occasion: Occasion, partial: int, full: int
) -> None:
    scene.metrics.observe(CHANGES._replace(occasion=occasion))
    assert scene.number(f"{SYNC}_count") == partial + full
    assert scene.number(f"{PARTIAL}_count") == partial
    assert scene.number(f"{FULL}_count") == full
    assert scene.number("kubeproxy_sync_proxy_rules_last_timestamp_seconds") == scene.wall


def test_the_buckets_of_kube_proxy_are_among_the_histograms(scene: Scene) -> None:
    scene.metrics.observe(CHANGES._replace(seconds=0.003))
    assert scene.number(f"{SYNC}_bucket", le="0.002") == 0
    assert scene.number(f"{SYNC}_bucket", le="0.004") == 1
    bounds = set(METRICS[SYNC].buckets)
    assert {0.001 * 2**power for power in range(15)} <= bounds
    assert {0.25, 0.5, *range(1, 61), *range(60, 116, 5), *range(120, 301, 30)} <= set(
        METRICS[PROGRAMMING].buckets
    )


def test_network_programming_is_from_the_trigger_to_the_end_of_the_round(scene: Scene) -> None:
    scene.metrics.observe(CHANGES._replace(triggered=(scene.wall - 2, scene.wall - 4)))
    assert scene.number(f"{PROGRAMMING}_count") == 2
    assert scene.number(f"{PROGRAMMING}_sum") == 6


def test_a_clock_that_is_behind_counts_as_no_time(scene: Scene) -> None:
    scene.metrics.observe(CHANGES._replace(triggered=(scene.wall + 60,)))
    assert scene.number(f"{PROGRAMMING}_sum") == 0


def test_the_last_rounds_numbers_are_shown(scene: Scene) -> None:
    scene.metrics.observe(CHANGES)
    assert scene.number("ipvsproxy_virtual_servers") == 3
    assert scene.number("ipvsproxy_real_servers", state="serving") == 8
    assert scene.number("ipvsproxy_real_servers", state="draining") == 2
    assert scene.number("ipvsproxy_waiting_failures", item="address") == 1
    assert scene.number("ipvsproxy_waiting_failures", item="virtual server") == 0
    no_local = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
    assert scene.number(no_local, traffic_policy="internal") == 2
    assert scene.number(no_local, traffic_policy="external") == 0


def test_drains_are_counted_by_how_they_ended(scene: Scene) -> None:
    scene.metrics.observe(CHANGES._replace(drains_ended={DrainEnd.TIMED_OUT: 2}))
    assert scene.number("ipvsproxy_drains_ended_total", how="timed out") == 2


def test_the_time_since_the_last_comparison_goes_on(scene: Scene) -> None:
    assert scene.number("ipvsproxy_seconds_since_resync") == -1
    scene.metrics.observe(CHANGES._replace(occasion=Occasion.RESYNC))
    scene.now += 40
    scene.metrics.observe(CHANGES)
    assert scene.number("ipvsproxy_seconds_since_resync") == 40


def test_the_backlog_of_the_store_is_shown(scene: Scene) -> None:
    scene.backlog = Backlog(7, 1, 9, 2, 3, 1_699_999_999.0)
    prefix = "kubeproxy_sync_proxy_rules_"
    assert scene.number(f"{prefix}service_changes_total") == 7
    assert scene.number(f"{prefix}service_changes_pending") == 1
    assert scene.number(f"{prefix}endpoint_changes_total") == 9
    assert scene.number(f"{prefix}endpoint_changes_pending") == 2
    assert scene.number("ipvsproxy_dirty_services") == 3
    assert scene.number(f"{prefix}last_queued_timestamp_seconds") == 1_699_999_999.0


def test_a_watch_is_shown_with_its_silence_and_its_failures(scene: Scene) -> None:
    watch = scene.health.follow("services")
    assert scene.number("ipvsproxy_watch_connected", resource="services") == 0
    assert scene.number("ipvsproxy_watch_seconds_since_contact", resource="services") is None
    watch.connected()
    watch.heard()
    scene.now += 20
    assert scene.number("ipvsproxy_watch_connected", resource="services") == 1
    assert scene.number("ipvsproxy_watch_seconds_since_contact", resource="services") == 20
    watch.failed("Connection refused")
    assert scene.number("ipvsproxy_watch_connections_total", resource="services") == 1
    assert scene.number("ipvsproxy_watch_failures_total", resource="services") == 1


def test_refused_parts_are_counted_by_kind_and_never_by_name(scene: Scene) -> None:
    scene.metrics.observe(CHANGES)
    scene.unusable = [Rejection("Service", WEB, "spec.ports[0].port", "is missing")] * 2
    scene.unavailable = [Rejection("Service", WEB, "spec.healthCheckNodePort", "is taken")]
    assert scene.number("ipvsproxy_refused_parts", object="Service", reason="unusable") == 2
    assert scene.number("ipvsproxy_refused_parts", object="Service", reason="unavailable") == 4 + 1


def test_calls_to_the_kernel_are_timed_by_adapter_and_access(scene: Scene) -> None:
    scene.metrics.time_call(Call("nftables", "change"), 0.003)
    name = "ipvsproxy_kernel_call_duration_seconds"
    assert scene.number(f"{name}_sum", adapter="nftables", access="change") == 0.003
    assert scene.number(f"{name}_count", adapter="ipvs", access="read") == 0


def test_answers_to_health_checks_are_counted_and_handed_on(scene: Scene) -> None:
    answer = Response(503, b"unhealthy")
    handler = scene.metrics.probed(lambda path: None if path == "/nothing" else answer)
    assert [handler(path) for path in ("/healthz", "/livez", "/readyz", "/nothing", "/livez")] == [
        answer,
        answer,
        answer,
        None,
        answer,
    ]
    assert scene.number("kubeproxy_proxy_healthz_total", code="503") == 1
    assert scene.number("kubeproxy_proxy_livez_total", code="503") == 2
    assert scene.number("kubeproxy_proxy_livez_total", code="200") == 0


def test_nothing_says_when_a_number_was_first_there(scene: Scene) -> None:
    assert [name for name, _ in scene.numbers() if name.endswith("_created")] == []


def test_the_page_is_the_one_that_the_table_makes() -> None:
    assert metrics_document.DOCUMENT.read_text() == metrics_document.text(), (
        "run `python -m tests.observe.metrics_document`"
    )


def test_the_table_speaks_in_sentences_of_names_that_prometheus_takes() -> None:
    for metric in METRICS.values():
        assert metric.meaning.endswith(".")
        assert metric.advice.endswith(".")
        assert metric.name.startswith(("ipvsproxy_", "kubeproxy_"))
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert all(label.values or label.words for label in metric.labels)
