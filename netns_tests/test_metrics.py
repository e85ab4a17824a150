"""The agent's metrics, scraped as Prometheus does and read by its client library's parser."""

from __future__ import annotations

import datetime as dt
import http.client
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from ipvsproxy.observe.metrics_table import METRICS
from netns_tests import others, tables
from netns_tests.addressing import Via
from netns_tests.cluster import Cluster
from netns_tests.deadline import PATIENCE, await_that
from netns_tests.traffic import Connection, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.cluster import ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

PORT = 10249
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
DRAIN_TIMEOUT = "ipvsproxy.io/drain-timeout"


class Scrape:
    """The numbers of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """Return a number, 0 for one that is not there."""
        return self._samples.get((name, frozenset(labels.items())), 0.0)


def scrape(cluster: Cluster) -> Scrape:
    with cluster.node.namespace.entered():
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE)
        connection.connect()
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert (response.status, response.headers.get_content_type()) == (200, "text/plain")
    text = response.read().decode()
    connection.close()
    return Scrape(text)


def await_number(cluster: Cluster, reached: Callable[[Scrape], bool], what: str) -> None:
    await_that(lambda: reached(scrape(cluster)), what)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.built(tmp_path_factory.mktemp("cluster"), sync_period="2s") as built:
        built.agent.flags = ("--service-traffic-metrics=100",)
        built.agent.start()
        yield built


def test_every_metric_of_the_table_is_there_with_its_type_and_labels(
    cluster: Cluster, new_service: NewService
) -> None:
    new_service("web-1")
    found = scrape(cluster)
    for metric in METRICS.values():
        family = found.families[
            metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
        ]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == {label.name for label in metric.labels}


def test_a_change_is_counted_by_what_it_did_and_the_tables_are_as_the_kernel_has_them(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1")
    before = scrape(cluster)
    service.set_endpoints("web-1", "web-2")
    after = scrape(cluster)
    added = {"kind": "real_servers_added", "result": "done"}
    growth = after("ipvsproxy_operations_total", **added) - before("ipvsproxy_operations_total", **added)
    assert growth == 2 * len(service.ports)
    changes = "kubeproxy_sync_proxy_rules_endpoint_changes_total"
    assert after(changes) - before(changes) == 2
    syncs = "kubeproxy_sync_partial_proxy_rules_duration_seconds_count"
    assert after(syncs) > before(syncs)
    assert after("ipvsproxy_kernel_call_duration_seconds_count", adapter="ipvs", access="change") > before(
        "ipvsproxy_kernel_call_duration_seconds_count", adapter="ipvs", access="change"
    )
    found = tables.virtual_servers(cluster.node)
    assert after("ipvsproxy_virtual_servers") == len(found)
    assert after("ipvsproxy_real_servers", state="serving") == 4 * len(service.ports)
    assert after("ipvsproxy_dirty_services") == 0


def test_a_repair_is_counted_when_somebody_deletes_a_virtual_server(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1")
    repairs = "ipvsproxy_resync_repairs_total"
    before = scrape(cluster)(repairs, kind="virtual_servers_created")
    others.delete_virtual_server(cluster.node, service.target(Family.IPV4))
    await_number(
        cluster,
        lambda found: found(repairs, kind="virtual_servers_created") == before + 1,
        "the repair is counted",
    )
    assert scrape(cluster)("kubeproxy_sync_full_proxy_rules_duration_seconds_count") > 1


def test_drains_are_counted_while_they_last_and_by_how_they_end(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1", "web-2")
    ended = "ipvsproxy_drains_ended_total"
    before = scrape(cluster)
    with Connection(cluster["client"], service.target(Family.IPV4)) as connection:
        leaves = connection.ask().server
        (stays,) = {"web-1", "web-2"} - {leaves}
        service.set_endpoints(stays)
        idle = 2 * 3 - 1  # TCP twice and SCTP, in both families, but for the one with the connection
        await_number(
            cluster,
            lambda found: (
                found(ended, how="connections ended") == before(ended, how="connections ended") + idle
            ),
            "those without connections are gone",
        )
        assert scrape(cluster)("ipvsproxy_real_servers", state="draining") == 1
        service.set_endpoints("web-1", "web-2")
        found = scrape(cluster)
        assert found(ended, how="returned") == before(ended, how="returned") + 1
        assert found("ipvsproxy_real_servers", state="draining") == 0
        service.become(ServiceType.CLUSTER_IP, annotations=((DRAIN_TIMEOUT, "1s"),))
        service.set_endpoints(stays)
        await_number(
            cluster,
            lambda found: found(ended, how="timed out") == before(ended, how="timed out") + 1,
            "the connection was cut off",
        )


def test_what_is_refused_is_counted_by_kind_and_by_whether_it_is_unusable_or_unavailable(
    cluster: Cluster, new_service: NewService
) -> None:
    refused = "ipvsproxy_refused_parts"
    before = scrape(cluster)
    service = new_service("web-1")
    service.become(ServiceType.LOAD_BALANCER, external_ips=("192.0.2.77",))
    await_number(
        cluster,
        lambda found: (
            found(refused, object="Service", reason="unavailable")
            == before(refused, object="Service", reason="unavailable") + 1
        ),
        "an external IP that is not allowed is counted",
    )
    endpoints = service.slice(Family.IPV4, [cluster.endpoint("web-1", Family.IPV4)])
    endpoints["endpoints"].append({"addresses": ["127.0.0.1"]})
    service.write([endpoints])
    await_number(
        cluster,
        lambda found: (
            found(refused, object="EndpointSlice", reason="unusable")
            == before(refused, object="EndpointSlice", reason="unusable") + 1
        ),
        "an endpoint that can't be used is counted",
    )


def test_network_programming_is_measured_from_the_annotation_of_a_slice(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1")
    name = "kubeproxy_network_programming_duration_seconds"
    before = scrape(cluster)
    endpoints = service.slice(Family.IPV4, [cluster.endpoint("web-2", Family.IPV4)])
    # A time that is surely over, and after the agent's start.
    now = dt.datetime.now(dt.UTC)
    endpoints["metadata"]["annotations"] = {TRIGGER_TIME: f"{now:%Y-%m-%dT%H:%M:%S.%f}789Z"}
    service.write([endpoints])
    await_number(
        cluster,
        lambda found: found(f"{name}_count") == before(f"{name}_count") + 1,
        "the change is measured",
    )
    seconds = scrape(cluster)(f"{name}_sum") - before(f"{name}_sum")
    assert 0 < seconds < 60


def test_traffic_is_counted_by_service_and_port_and_carries_on_as_addresses_come_and_go(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1")

    def connections(found: Scrape) -> float:
        labels = {"namespace": "default", "service": service.name, "port": "http"}
        return found("ipvsproxy_service_connections_total", **labels)

    for _ in range(3):
        request(cluster["client"], service.target(Family.IPV4))
    # The kernel brings its counters up to date every 2 seconds.
    await_number(cluster, lambda found: connections(found) == 3, "three connections are counted")
    found = scrape(cluster)
    labels = {"namespace": "default", "service": service.name, "port": "http"}
    assert found("ipvsproxy_service_packets_total", **labels, direction="in") >= 9
    assert found("ipvsproxy_service_bytes_total", **labels, direction="out") > 0
    service.become(ServiceType.LOAD_BALANCER)
    service.await_pods("web-1", via=Via.LOAD_BALANCER_IP)
    request(cluster["outside"], service.target(Family.IPV4, via=Via.LOAD_BALANCER_IP))
    await_number(
        cluster, lambda found: connections(found) == 4, "one at another address is counted with them"
    )
    service.become(ServiceType.CLUSTER_IP)
    external = service.target(Family.IPV4).address
    await_that(
        lambda: (
            {target.address for target in tables.virtual_servers(cluster.node)} >= {external}
            and len(tables.virtual_servers(cluster.node)) == 2 * len(service.ports)
        ),
        "the other addresses are gone",
    )
    assert connections(scrape(cluster)) == 4


def summary(cluster: Cluster, service: ServiceUnderTest) -> list[dict[str, Any]]:
    name = f"default/{service.name}"
    return [line for line in cluster.agent.logged("service changed") if line["service"] == name]


def test_each_change_of_a_service_is_one_line_of_the_log_in_words(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1")
    cluster.agent.finish_change()
    (came,) = summary(cluster, service)
    address, web_1, web_2 = (
        service.addresses[Family.IPV4],
        cluster["web-1"].addresses[Family.IPV4],
        cluster["web-2"].addresses[Family.IPV4],
    )
    assert f"{address}:80/tcp" in came["virtual_servers_added"]
    service.set_endpoints("web-2")
    cluster.agent.finish_change()
    changed = summary(cluster, service)[1]
    assert f"{web_2}:8080: ready" in changed["began_to_serve"]
    assert f"{web_1}:8080: no endpoint any more" in changed["stopped_serving"]
    assert f"{web_1}:8080" in changed["now_draining"]
    await_that(
        lambda: any("drained" in line for line in summary(cluster, service)), "the end of the drain is told"
    )
    (drained,) = [line for line in summary(cluster, service) if "drained" in line]
    assert f"{web_1}:8080: connections ended" in drained["drained"]
