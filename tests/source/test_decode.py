from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ipvsproxy.model.addresses import parse_address
from ipvsproxy.model.objects import (
    Protocol,
    Service,
    ServiceOptions,
    ServicePort,
    ServiceType,
    TrafficPolicy,
)
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source.decode import Decoded, read_endpoint_slice, read_endpoints, read_node, read_service
from tests.builders import WEB, addresses, networks
from tests.source.documents import (
    endpoint,
    endpoint_slice,
    is_ignored,
    load_balancer,
    metadata,
    problems,
    service,
    wholly,
)


def test_a_service_is_read_from_what_an_api_server_sends() -> None:
    raw = msgspec.Raw(
        b'{"kind":"Service","apiVersion":"v1","metadata":{"name":"web","namespace":"default","uid":"7",'
        b'"creationTimestamp":"2024-05-01T12:34:56Z","labels":{"app":"web"},"managedFields":[{"manager":"kubectl"}],'
        b'"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","ipvsproxy.io/scheduler":"lc"}},'
        b'"spec":{"ports":[{"name":"http","protocol":"TCP","port":80,"targetPort":"http","nodePort":30080},'
        b'{"name":"dns","protocol":"UDP","port":53,"targetPort":53}],"selector":{"app":"web"},'
        b'"clusterIP":"10.96.0.10","clusterIPs":["10.96.0.10","fd00:10:96::a"],"type":"LoadBalancer",'
        b'"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":600}},'
        b'"ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"RequireDualStack","externalIPs":["198.51.100.9"],'
        b'"internalTrafficPolicy":"Cluster","externalTrafficPolicy":"Local","healthCheckNodePort":32100,'
        b'"allocateLoadBalancerNodePorts":true,"loadBalancerSourceRanges":["192.0.2.0/24"]},'
        b'"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.1","ipMode":"VIP"}]}}}'
    )
    assert read_service(raw) == Decoded(
        Service(
            WEB,
            ServiceType.LOAD_BALANCER,
            (parse_address("10.96.0.10"), parse_address("fd00:10:96::a")),
            (ServicePort("http", Protocol.TCP, 80, 30080), ServicePort("dns", Protocol.UDP, 53)),
            session_affinity_timeout=600,
            created=1714566896,
            external_ips=addresses("198.51.100.9"),
            load_balancer_ips=addresses("198.51.100.1"),
            external_traffic_policy=TrafficPolicy.LOCAL,
            load_balancer_source_ranges=networks("192.0.2.0/24"),
            health_check_node_port=32100,
            options=ServiceOptions("lc"),
            uid="7",
            has_selector=True,
        )
    )


@pytest.mark.parametrize("selector", [None, {}], ids=["null", "empty"])
def test_an_empty_selector_is_none(selector: dict[str, str] | None) -> None:
    document = service({"port": 80})
    document["spec"]["selector"] = selector
    assert not wholly(document).has_selector


def test_what_a_service_does_not_say_has_the_defaults_of_the_api() -> None:
    assert wholly(service({"port": 80})) == Service(
        WEB, ServiceType.CLUSTER_IP, (parse_address("10.96.0.10"),), (ServicePort("", Protocol.TCP, 80),)
    )


def test_null_means_the_same_as_a_field_that_is_not_there() -> None:
    document = service(
        {"port": 80, "name": None, "protocol": None, "nodePort": None},
        type=None,
        clusterIPs=None,
        externalIPs=None,
        internalTrafficPolicy=None,
        externalTrafficPolicy=None,
        loadBalancerSourceRanges=None,
        healthCheckNodePort=None,
        sessionAffinity=None,
        sessionAffinityConfig=None,
    )
    document["metadata"] |= {"creationTimestamp": None, "annotations": None, "uid": None}
    for status in (None, {"loadBalancer": None}, {"loadBalancer": {"ingress": None}}):
        assert wholly({**document, "status": status}) == wholly(service({"port": 80}))


@pytest.mark.parametrize(
    "spec", [{"clusterIP": "None"}, {"clusterIP": ""}, {"clusterIP": None}, {"clusterIPs": ["None"]}]
)
def test_a_headless_service_has_no_cluster_ips(spec: dict[str, Any]) -> None:
    assert wholly(service(**spec)).cluster_ips == ()


def test_a_headless_service_needs_no_ports() -> None:
    assert wholly({"metadata": metadata(), "spec": {"clusterIP": "None"}}).ports == ()


def test_an_external_name_keeps_its_type_and_needs_no_ports() -> None:
    document = {"metadata": metadata(), "spec": {"type": "ExternalName", "externalName": "example.org"}}
    assert wholly(document) == Service(WEB, ServiceType.EXTERNAL_NAME, (), ())
    document["spec"]["clusterIP"] = "10.96.0.10"
    assert wholly(document).cluster_ips == (parse_address("10.96.0.10"),)


@pytest.mark.parametrize("policy", ["SingleStack", "PreferDualStack", "RequireDualStack", None])
@pytest.mark.parametrize(
    ("families", "cluster_ips"),
    [
        (["IPv4"], ["10.96.0.10"]),
        (["IPv6"], ["fd00:10:96::a"]),
        (["IPv4", "IPv6"], ["10.96.0.10", "fd00:10:96::a"]),
        (["IPv6", "IPv4"], ["fd00:10:96::a", "10.96.0.10"]),
        (["IPv6"], ["10.96.0.10"]),
        (None, ["10.96.0.10", "fd00:10:96::a"]),
    ],
)
def test_the_cluster_ips_alone_say_which_families_a_service_has(
    policy: str | None, families: list[str] | None, cluster_ips: list[str]
) -> None:
    document = service(
        clusterIP=cluster_ips[0], clusterIPs=cluster_ips, ipFamilyPolicy=policy, ipFamilies=families
    )
    assert wholly(document).cluster_ips == addresses(*cluster_ips)


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, 0),
        ({"sessionAffinity": "None"}, 0),
        ({"sessionAffinity": "ClientIP"}, 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": None}}, 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}, 60),
        ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}, 0),
    ],
)
def test_session_affinity_is_a_number_of_seconds(spec: dict[str, Any], seconds: int) -> None:
    assert wholly(service(**spec)).session_affinity_timeout == seconds


@pytest.mark.parametrize(
    "label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"]
)
@pytest.mark.parametrize("value", ["", "other", None])
def test_what_another_proxy_serves_is_of_no_concern(label: str, value: str | None) -> None:
    labels = {label: value, "kubernetes.io/service-name": "web"}
    assert is_ignored(read_service(service(labels=labels)))
    assert is_ignored(read_endpoint_slice(endpoint_slice(metadata=metadata(labels=labels))))
    assert is_ignored(read_endpoints({"metadata": metadata(labels=labels)}))


@pytest.mark.parametrize(
    ("entry", "field", "reason"),
    [
        ({}, "port", "is missing"),
        ({"port": 0}, "port", "0 is not from 1 to 65535"),
        ({"port": -1}, "port", "-1 is not from 1 to 65535"),
        ({"port": 65536}, "port", "65536 is not from 1 to 65535"),
        ({"port": 80, "protocol": "ICMP"}, "protocol", "'ICMP' is not TCP, UDP or SCTP"),
        ({"port": 80, "protocol": "tcp"}, "protocol", "'tcp' is not TCP, UDP or SCTP"),
        ({"name": "other", "port": 443}, "port", "443/TCP is listed twice"),
        (
            {"name": "https", "port": 8443},
            "name",
            "another port has the name 'https' too: each needs its own",
        ),
    ],
)
def test_a_bad_port_is_left_out_and_the_others_stay(entry: dict[str, Any], field: str, reason: str) -> None:
    decoded = read_service(
        service({"name": "https", "port": 443}, entry, {"name": "dns", "port": 53, "protocol": "UDP"})
    )
    assert decoded.value is not None
    assert [port.port for port in decoded.value.ports] == [443, 53]
    assert decoded.rejections == (Rejection("Service", WEB, f"spec.ports[1].{field}", reason),)


def test_one_number_may_serve_two_protocols() -> None:
    ports = wholly(service({"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53})).ports
    assert ports == (ServicePort("udp", Protocol.UDP, 53), ServicePort("tcp", Protocol.TCP, 53))


def test_a_service_without_a_usable_port_is_rejected_for_the_first_reason() -> None:
    decoded = read_service(service({"port": 0}, {"port": 80, "protocol": "IP"}))
    assert decoded == Decoded(
        None, (Rejection("Service", WEB, "spec.ports[0].port", "0 is not from 1 to 65535"),)
    )


def test_a_service_with_an_address_and_no_port_is_rejected() -> None:
    assert problems(read_service(service(ports=[]))) == [("spec.ports", "has no entry")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.96.0", "'10.96.0' is not an IP address"),
        ("", "is missing"),
        ("0.0.0.0", "0.0.0.0 is the unspecified address"),
        ("::", ":: is the unspecified address"),
        ("255.255.255.255", "255.255.255.255 is the broadcast address"),
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("::1", "::1 is a loopback address"),
        ("169.254.169.254", "169.254.169.254 is a link-local address"),
        ("fe80::1", "fe80::1 is a link-local address"),
        ("239.1.1.1", "239.1.1.1 is a multicast address"),
        ("ff02::1", "ff02::1 is a multicast address"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1 is a loopback address"),
        ("169.254.0169.254", "169.254.0169.254 is a link-local address"),
        ("::ffff:10.96.0.10", "::ffff:10.96.0.10 is listed twice"),
        ("010.096.000.010", "010.096.000.010 is listed twice"),
        ("10.96.0.10", "10.96.0.10 is listed twice"),
    ],
)
def test_a_bad_cluster_ip_is_left_out_and_the_others_stay(text: str, reason: str) -> None:
    decoded = read_service(service(clusterIPs=["10.96.0.10", text]))
    assert decoded.value is not None
    assert decoded.value.cluster_ips == (parse_address("10.96.0.10"),)
    assert problems(decoded) == [("spec.clusterIPs[1]", reason)]


@pytest.mark.parametrize("text", ["010.96.0.011", "::ffff:10.96.0.11", "::ffff:a60:b", "0000010.96.0.11"])
def test_a_stored_address_is_read_as_kubernetes_reads_it(text: str) -> None:
    address = parse_address("10.96.0.11")
    found = read_service(service(clusterIPs=["10.96.0.10", text], externalIPs=[])).value
    assert found is not None
    assert found.cluster_ips == (parse_address("10.96.0.10"), address)
    found = read_service(service(externalIPs=[text])).value
    assert found is not None
    assert found.external_ips == (address,)
    found = read_service(load_balancer({"ip": text})).value
    assert found is not None
    assert found.load_balancer_ips == (address,)
    slices = read_endpoint_slice(endpoint_slice(endpoint(text))).value
    assert slices is not None
    assert [each.address for each in slices.endpoints] == [address]
    mirrored = read_endpoints({"metadata": metadata(), "subsets": [{"addresses": [{"ip": text}]}]}).value
    assert mirrored is not None
    assert [each.address for each in mirrored[0].endpoints] == [address]
    node = {
        "metadata": {"name": "node-a"},
        "status": {"addresses": [{"type": "InternalIP", "address": text}]},
    }
    own = read_node(node).value
    assert own is not None
    assert own.addresses == (address,)


def test_a_service_without_a_usable_cluster_ip_is_rejected() -> None:
    decoded = read_service(service(clusterIP="10.96.0.1000"))
    assert decoded == Decoded(
        None, (Rejection("Service", WEB, "spec.clusterIP", "'10.96.0.1000' is not an IP address"),)
    )


@pytest.mark.parametrize("seconds", [0, -1, 86401])
def test_a_session_affinity_timeout_out_of_range_counts_as_the_default(seconds: int) -> None:
    decoded = read_service(
        service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": seconds}})
    )
    assert decoded.value is not None
    assert decoded.value.session_affinity_timeout == 10800
    field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
    assert problems(decoded) == [(field, f"{seconds} is not from 1 to 86400 seconds; 10800 is used")]


def test_an_unknown_session_affinity_counts_as_none() -> None:
    decoded = read_service(service(sessionAffinity="Cookie"))
    assert decoded.value is not None
    assert decoded.value.session_affinity_timeout == 0
    assert problems(decoded) == [("spec.sessionAffinity", "'Cookie' is not ClientIP or None; None is used")]
