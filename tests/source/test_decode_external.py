"""How a Service is reached from outside of the cluster: addresses, node ports, source ranges and policies."""

from __future__ import annotations

from typing import Any

import pytest

from ipvsproxy.model.objects import TrafficPolicy
from tests.builders import addresses, networks
from tests.source.documents import load_balancer, partly, service, wholly

NODE_PORT_TYPES = ["NodePort", "LoadBalancer"]


def test_external_ips_are_read_in_their_order() -> None:
    document = service(
        clusterIPs=["10.96.0.10", "fd00:10:96::a"], externalIPs=["2001:db8::9", "198.51.100.9", "192.0.2.9"]
    )
    assert wholly(document).external_ips == addresses("2001:db8::9", "198.51.100.9", "192.0.2.9")


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_external_ips_go_with_every_type(kind: str) -> None:
    assert wholly(service(type=kind, externalIPs=["192.0.2.9"])).external_ips == addresses("192.0.2.9")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("example.org", "'example.org' is not an IP address"),
        ("", "is missing"),
        ("0.0.0.0", "0.0.0.0 is the unspecified address"),
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("169.254.169.254", "169.254.169.254 is a link-local address"),
        ("224.0.0.1", "224.0.0.1 is a multicast address"),
        ("192.0.2.9", "192.0.2.9 is listed twice"),
        ("2001:db8::9", "2001:db8::9 is not used: the Service has no clusterIP of that family"),
    ],
)
def test_a_bad_external_ip_is_left_out_and_the_rest_stays(text: str, reason: str) -> None:
    found, left_out = partly(service(externalIPs=["192.0.2.9", text]))
    assert found.external_ips == addresses("192.0.2.9")
    assert found.cluster_ips == addresses("10.96.0.10")
    assert left_out == [("spec.externalIPs[1]", reason)]


def test_a_service_keeps_its_cluster_ip_when_all_external_ips_are_bad() -> None:
    found, left_out = partly(service(externalIPs=["a", "b"]))
    assert (found.cluster_ips, found.external_ips) == (addresses("10.96.0.10"), ())
    assert len(left_out) == 2


def test_a_headless_service_gets_no_external_ips() -> None:
    found, left_out = partly(service(clusterIP="None", externalIPs=["192.0.2.9"]))
    assert found.external_ips == ()
    assert left_out == [
        ("spec.externalIPs[0]", "192.0.2.9 is not used: the Service has no clusterIP of that family")
    ]


@pytest.mark.parametrize("mode", [{}, {"ipMode": None}, {"ipMode": ""}, {"ipMode": "VIP"}])
def test_an_ip_of_a_load_balancer_counts_if_its_mode_is_vip(mode: dict[str, Any]) -> None:
    found = wholly(load_balancer({"ip": "198.51.100.1", **mode}, {"ip": "198.51.100.2", "hostname": "b"}))
    assert found.load_balancer_ips == addresses("198.51.100.1", "198.51.100.2")


@pytest.mark.parametrize(
    "entry",
    [
        {"ip": "198.51.100.1", "ipMode": "Proxy"},
        {"hostname": "lb.example.org"},
        {"hostname": "lb.example.org", "ipMode": "Somehow"},
        {"ip": "", "hostname": "lb.example.org"},
        {},
    ],
)
def test_a_load_balancer_that_keeps_its_address_to_itself_is_no_fault(entry: dict[str, Any]) -> None:
    assert wholly(load_balancer(entry)).load_balancer_ips == ()


@pytest.mark.parametrize(
    ("entry", "field", "reason"),
    [
        ({"ip": "198.51.100.2", "ipMode": "Tunnel"}, "ipMode", "'Tunnel' is not VIP or Proxy"),
        ({"ip": "198.51.100"}, "ip", "'198.51.100' is not an IP address"),
        ({"ip": "127.0.0.1"}, "ip", "127.0.0.1 is a loopback address"),
        ({"ip": "198.51.100.1"}, "ip", "198.51.100.1 is listed twice"),
        (
            {"ip": "2001:db8::1"},
            "ip",
            "2001:db8::1 is not used: the Service has no clusterIP of that family",
        ),
    ],
)
def test_a_bad_ip_of_a_load_balancer_is_left_out(entry: dict[str, Any], field: str, reason: str) -> None:
    found, left_out = partly(load_balancer({"ip": "198.51.100.1"}, entry))
    assert found.load_balancer_ips == addresses("198.51.100.1")
    assert left_out == [(f"status.loadBalancer.ingress[1].{field}", reason)]


@pytest.mark.parametrize("kind", [None, "ClusterIP", "NodePort", "ExternalName"])
def test_a_service_that_is_no_load_balancer_any_more_has_none_of_its_ips(kind: str | None) -> None:
    assert wholly(load_balancer({"ip": "nonsense"}, type=kind)).load_balancer_ips == ()


@pytest.mark.parametrize("kind", NODE_PORT_TYPES)
def test_node_ports_belong_to_their_ports(kind: str) -> None:
    document = service(
        {"name": "http", "port": 80, "nodePort": 30080},
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30080},
        {"name": "none", "port": 81},
        {"name": "zero", "port": 82, "nodePort": 0},
        {"name": "first", "port": 83, "nodePort": 1},
        {"name": "last", "port": 84, "nodePort": 65535},
        type=kind,
    )
    assert [port.node_port for port in wholly(document).ports] == [30080, 30080, 0, 0, 1, 65535]


@pytest.mark.parametrize("kind", [None, "ClusterIP", "ExternalName"])
@pytest.mark.parametrize("number", [30080, -1])
def test_other_types_have_no_node_ports(kind: str | None, number: int) -> None:
    assert wholly(service({"port": 80, "nodePort": number}, type=kind)).ports[0].node_port == 0


@pytest.mark.parametrize("kind", NODE_PORT_TYPES)
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (-1, "-1 is not from 1 to 65535; the port has no node port"),
        (65536, "65536 is not from 1 to 65535; the port has no node port"),
        (30443, "30443/TCP is listed twice; the port has no node port"),
    ],
)
def test_a_bad_node_port_is_left_out_and_its_port_stays(kind: str, number: int, reason: str) -> None:
    document = service(
        {"name": "https", "port": 443, "nodePort": 30443},
        {"name": "http", "port": 80, "nodePort": number},
        type=kind,
    )
    found, left_out = partly(document)
    assert [(port.port, port.node_port) for port in found.ports] == [(443, 30443), (80, 0)]
    assert left_out == [("spec.ports[1].nodePort", reason)]


def test_a_port_that_is_left_out_takes_no_node_port_from_another() -> None:
    document = service(
        {"name": "bad", "port": 0, "nodePort": 30080},
        {"name": "good", "port": 80, "nodePort": 30080},
        type="NodePort",
    )
    found, left_out = partly(document)
    assert [port.node_port for port in found.ports] == [30080]
    assert [field for field, _ in left_out] == ["spec.ports[0].port"]


@pytest.mark.parametrize(
    ("text", "policy"),
    [("Cluster", "Cluster"), ("Local", "Local"), (None, "Cluster"), ("", "Cluster")],
)
def test_both_policies_are_read_each_for_itself(text: str | None, policy: str) -> None:
    internal = wholly(service(internalTrafficPolicy=text))
    external = wholly(service(externalTrafficPolicy=text))
    assert (internal.internal_traffic_policy, internal.external_traffic_policy) == (policy, "Cluster")
    assert (external.internal_traffic_policy, external.external_traffic_policy) == ("Cluster", policy)


@pytest.mark.parametrize("field", ["internalTrafficPolicy", "externalTrafficPolicy"])
@pytest.mark.parametrize("text", ["PreferLocal", "local"])
def test_an_unknown_policy_counts_as_cluster(field: str, text: str) -> None:
    document = service()
    document["spec"][field] = text
    found, left_out = partly(document)
    assert found.internal_traffic_policy is TrafficPolicy.CLUSTER
    assert found.external_traffic_policy is TrafficPolicy.CLUSTER
    assert left_out == [(f"spec.{field}", f"{text!r} is not Cluster or Local; Cluster is used")]


@pytest.mark.parametrize(
    ("kind", "policy", "expected"),
    [
        ("LoadBalancer", "Local", 32100),
        ("LoadBalancer", "Cluster", 0),
        ("LoadBalancer", None, 0),
        ("NodePort", "Local", 0),
        ("ClusterIP", "Local", 0),
    ],
)
def test_a_health_check_goes_with_a_local_load_balancer_only(
    kind: str, policy: str | None, expected: int
) -> None:
    document = service(type=kind, externalTrafficPolicy=policy, healthCheckNodePort=32100)
    assert wholly(document).health_check_node_port == expected
    none = service(type=kind, externalTrafficPolicy=policy)
    assert wholly(none).health_check_node_port == 0


@pytest.mark.parametrize("number", [-1, 65536])
def test_a_health_check_node_port_out_of_range_is_none(number: int) -> None:
    found, left_out = partly(
        service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=number)
    )
    assert found.health_check_node_port == 0
    assert left_out == [
        ("spec.healthCheckNodePort", f"{number} is not from 1 to 65535; there is no health check")
    ]
    assert partly(service(type="NodePort", healthCheckNodePort=number))[1] == []


def test_source_ranges_are_read_with_the_spaces_that_the_api_allows() -> None:
    ranges = [" 192.0.2.0/24", "2001:db8::/32 ", "0.0.0.0/0", "::/0", "198.51.100.7/24"]
    found = wholly(load_balancer(loadBalancerSourceRanges=ranges))
    assert found.load_balancer_source_ranges == networks(
        "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/0", "::/0", "198.51.100.0/24"
    )


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("010.000.000.000/08", "10.0.0.0/8"),
        ("192.000.002.129/25", "192.0.2.128/25"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.000.002.007/128", "192.0.2.7/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:192.0.2.0/64", "::/64"),
        ("02001:0db8::/032", "2001:db8::/32"),
    ],
)
def test_a_stored_source_range_is_read_as_kubernetes_reads_it(text: str, network: str) -> None:
    found = wholly(load_balancer(loadBalancerSourceRanges=[text]))
    assert found.load_balancer_source_ranges == networks(network)


@pytest.mark.parametrize("text", ["::ffff:192.0.2.0/129", "192.000.002.000/33", "0192.0.2.0", "0x10.0.0.0/8"])
def test_a_source_range_that_kubernetes_can_not_read_lets_nobody_in(text: str) -> None:
    found, _ = partly(load_balancer(loadBalancerSourceRanges=[text]))
    assert found.load_balancer_source_ranges == ()


@pytest.mark.parametrize("ranges", [None, []])
def test_without_source_ranges_every_source_is_let_in(ranges: list[str] | None) -> None:
    assert wholly(load_balancer(loadBalancerSourceRanges=ranges)).load_balancer_source_ranges is None


@pytest.mark.parametrize("kind", [None, "ClusterIP", "NodePort"])
def test_source_ranges_belong_to_load_balancers_only(kind: str | None) -> None:
    document = service(type=kind, loadBalancerSourceRanges=["192.0.2.0/24", "nonsense"])
    assert wholly(document).load_balancer_source_ranges is None


def test_an_unreadable_source_range_is_left_out_and_the_others_count() -> None:
    found, left_out = partly(load_balancer(loadBalancerSourceRanges=["192.0.2.0/33", "192.0.2.0/24", "all"]))
    assert found.load_balancer_source_ranges == networks("192.0.2.0/24")
    assert [field for field, _ in left_out] == [
        "spec.loadBalancerSourceRanges[0]",
        "spec.loadBalancerSourceRanges[2]",
    ]
    assert left_out[1][1] == "'all' is not a network in CIDR notation"


def test_nobody_is_let_in_when_all_source_ranges_are_unreadable() -> None:
    found, left_out = partly(load_balancer(loadBalancerSourceRanges=["192.0.2.0", ""]))
    assert found.load_balancer_source_ranges == ()
    assert [field for field, _ in left_out] == [
        "spec.loadBalancerSourceRanges[0]",
        "spec.loadBalancerSourceRanges[1]",
        "spec.loadBalancerSourceRanges",
    ]
    assert left_out[2][1] == "has no readable entry, so no source is let in"
