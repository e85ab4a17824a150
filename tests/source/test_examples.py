from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipvsproxy.model.addresses import format_address, format_endpoint
from ipvsproxy.model.ipvs import ServiceFlag
from ipvsproxy.model.objects import EndpointSlice, Service, ServiceOptions, ServiceType, TrafficPolicy
from ipvsproxy.source.annotations import ANNOTATIONS
from ipvsproxy.source.manifest_file import Remark, read_manifest
from ipvsproxy.source.manifests import combine
from tests.builders import addresses, networks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.model.addresses import Address, Network
    from ipvsproxy.source.manifest_file import Manifest

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFESTS = {
    path.name: read_manifest(path.name, path.read_bytes()) for path in sorted(EXAMPLES.glob("*.yaml"))
}
README = (EXAMPLES / "README.md").read_text()
SERVICE_NETWORKS = networks("10.96.0.0/16", "fd00:10:96::/112")
OUTSIDE_NETWORKS = networks("198.51.100.0/24")
ENDPOINT_NETWORKS = networks("10.244.0.0/16", "fd00:10:244::/56", "192.0.2.0/24")


class Read(NamedTuple):
    """What an example says, in text: addresses, ports, and for each slice its ports and its ready endpoints."""

    cluster_ips: list[str]
    ports: list[str]
    slices: list[tuple[list[str], list[str]]]


def service(name: str) -> Service:
    (found,) = [value for value in values(MANIFESTS[name]) if isinstance(value, Service)]
    return found


def values(manifest: Manifest) -> list[object]:
    return [value for found in manifest.objects for value in found.values]


def read(name: str) -> Read:
    of = service(name)
    slices = [value for value in values(MANIFESTS[name]) if isinstance(value, EndpointSlice)]
    assert all(each.service == of.key for each in slices)
    return Read(
        [format_address(address) for address in of.cluster_ips],
        [f"{port.name}:{port.port}/{port.protocol.name}" for port in of.ports],
        [
            (
                [f"{port.name}:{port.port}/{port.protocol.name}" for port in each.ports],
                [format_address(endpoint.address) for endpoint in each.endpoints if endpoint.ready],
            )
            for each in slices
        ],
    )


def test_cluster_ip_has_two_ready_endpoints_and_one_that_is_not() -> None:
    expected = [([":8080/TCP"], ["10.244.1.10", "10.244.2.10"])]
    assert read("cluster-ip.yaml") == Read(["10.96.0.10"], [":80/TCP"], expected)
    (found,) = [value for value in values(MANIFESTS["cluster-ip.yaml"]) if isinstance(value, EndpointSlice)]
    assert [(each.ready, each.node_name) for each in found.endpoints] == [
        (True, "node-1"),
        (True, "node-2"),
        (False, "node-2"),
    ]


def test_multi_port_has_names_for_its_ports_and_two_protocols_on_one_number() -> None:
    assert read("multi-port.yaml") == Read(
        ["10.96.0.53"],
        ["dns:53/UDP", "dns-tcp:53/TCP", "metrics:9153/TCP"],
        [(["dns:5353/UDP", "dns-tcp:5353/TCP", "metrics:9153/TCP"], ["10.244.1.53", "10.244.2.53"])],
    )


def test_named_target_port_has_a_slice_for_each_number() -> None:
    assert read("named-target-port.yaml") == Read(
        ["10.96.0.20"],
        ["http:80/TCP"],
        [(["http:8080/TCP"], ["10.244.1.20"]), (["http:8081/TCP"], ["10.244.2.20"])],
    )
    assert MANIFESTS["named-target-port.yaml"].ignored == (Remark(2, "v1/Pod"),)


def test_without_selector_has_its_addresses_from_endpoints() -> None:
    assert read("without-selector.yaml") == Read(
        ["10.96.0.30"], [":5432/TCP"], [([":5432/TCP"], ["192.0.2.42", "192.0.2.43"])]
    )


def test_headless_has_no_address() -> None:
    assert read("headless.yaml") == Read([], ["gossip:7946/TCP"], [])


def test_headless_without_selector_has_neither_address_nor_ports() -> None:
    assert read("headless-without-selector.yaml") == Read([], [], [([], ["192.0.2.60"])])


def test_external_name_is_told_by_its_type() -> None:
    found = service("external-name.yaml")
    assert (found.type, found.cluster_ips, str(found.key)) == (ServiceType.EXTERNAL_NAME, (), "office/mail")


def test_session_affinity_has_a_timeout() -> None:
    assert service("session-affinity.yaml").session_affinity_timeout == 600
    assert read("session-affinity.yaml") == Read(
        ["10.96.0.40"], [":6667/TCP"], [([":6667/TCP"], ["10.244.1.50", "10.244.2.50"])]
    )


def test_dual_stack_has_a_slice_for_each_family() -> None:
    assert read("dual-stack.yaml") == Read(
        ["10.96.0.60", "fd00:10:96::60"],
        ["https:443/TCP"],
        [
            (["https:8443/TCP"], ["10.244.1.60", "10.244.2.60"]),
            (["https:8443/TCP"], ["fd00:10:244:1::60", "fd00:10:244:2::60"]),
        ],
    )


def test_node_port_has_the_port_that_it_chose() -> None:
    assert read("node-port.yaml") == Read(
        ["10.96.0.70"], ["http:80/TCP"], [(["http:8080/TCP"], ["10.244.1.70", "10.244.2.70"])]
    )
    found = service("node-port.yaml")
    assert found.type is ServiceType.NODE_PORT
    assert [port.node_port for port in found.ports] == [30080]


def test_load_balancer_has_an_address_and_source_ranges() -> None:
    assert read("load-balancer.yaml") == Read(
        ["10.96.0.80"], ["https:443/TCP"], [(["https:8443/TCP"], ["10.244.1.80", "10.244.2.80"])]
    )
    found = service("load-balancer.yaml")
    assert found.type is ServiceType.LOAD_BALANCER
    assert found.load_balancer_ips == addresses("198.51.100.80")
    assert found.load_balancer_source_ranges == networks("192.0.2.0/24", "10.244.0.0/16")
    assert [port.node_port for port in found.ports] == [30443]
    assert found.external_traffic_policy is TrafficPolicy.CLUSTER


def test_external_ips_has_one_beside_its_cluster_ip() -> None:
    assert read("external-ips.yaml") == Read(
        ["10.96.0.90"], ["http:80/TCP"], [(["http:9376/TCP"], ["10.244.1.90"])]
    )
    assert service("external-ips.yaml").external_ips == addresses("198.51.100.90")


def test_traffic_policies_are_both_local_with_a_health_check() -> None:
    assert read("traffic-policies.yaml") == Read(
        ["10.96.0.110"], ["http:80/TCP"], [(["http:8080/TCP"], ["10.244.1.110", "10.244.2.110"])]
    )
    found = service("traffic-policies.yaml")
    assert found.internal_traffic_policy is TrafficPolicy.LOCAL
    assert found.external_traffic_policy is TrafficPolicy.LOCAL
    assert found.health_check_node_port == 32110
    assert found.load_balancer_ips == addresses("198.51.100.110")
    assert found.load_balancer_source_ranges is None


def test_annotations_are_all_there_and_all_right() -> None:
    assert read("annotations.yaml") == Read(
        ["10.96.0.100"], [":6379/TCP"], [([":6379/TCP"], ["10.244.1.100", "10.244.2.100"])]
    )
    assert service("annotations.yaml").options == ServiceOptions(
        scheduler="mh",
        scheduler_flags=ServiceFlag.SCHEDULER_1 | ServiceFlag.SCHEDULER_2,
        drain_timeout=120.0,
        maximum_connections=1000,
    )
    text = (EXAMPLES / "annotations.yaml").read_text()
    assert all(f"    {annotation}: " in text for annotation in ANNOTATIONS)


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_example_has_a_test_and_a_row_in_the_readme(name: str) -> None:
    prefix = f"test_{name.removesuffix('.yaml').replace('-', '_')}_"
    assert any(test.startswith(prefix) for test in globals())
    assert f"| [{name}]({name}) |" in README


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_readme_tells_every_virtual_server_of_an_example(name: str) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith(f"| [{name}]")]
    of = service(name)
    for port in of.ports:
        protocol = port.protocol.name.lower()
        for address in of.cluster_ips + of.external_ips + of.load_balancer_ips:
            assert f"{format_endpoint(address, port.port)}/{protocol}" in row
        assert (f"node port {port.node_port}/{protocol}" in row) is bool(port.node_port)
    assert (f"a health check at port {of.health_check_node_port}" in row) is bool(of.health_check_node_port)
    assert ("| nothing |" in row) is (not of.cluster_ips)


def test_the_examples_can_be_read_together() -> None:
    combined = combine(MANIFESTS)
    assert combined.rejections == []
    assert combined.duplicates == frozenset()
    assert [manifest.unusable for manifest in MANIFESTS.values() if manifest.unusable] == []
    cluster_ips = [address for found in combined.services for address in found.cluster_ips]
    outside = [
        address for found in combined.services for address in found.external_ips + found.load_balancer_ips
    ]
    node_ports = [port.node_port for found in combined.services for port in found.ports if port.node_port]
    node_ports += [
        found.health_check_node_port for found in combined.services if found.health_check_node_port
    ]
    endpoints = {endpoint.address for found in combined.slices for endpoint in found.endpoints}
    for unique in (cluster_ips, outside, node_ports):
        assert len(unique) == len(set(unique))
    assert all(30000 <= port <= 32767 for port in node_ports)
    assert are_of(cluster_ips, SERVICE_NETWORKS)
    assert are_of(outside, OUTSIDE_NETWORKS)
    assert are_of(endpoints, ENDPOINT_NETWORKS)


def are_of(found: Iterable[Address], allowed: Iterable[Network]) -> bool:
    return all(any(network.contains(address) for network in allowed) for address in found)
