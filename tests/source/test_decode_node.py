from __future__ import annotations

import json
from typing import Any

import pytest

from ipvsproxy.model.objects import Node, ObjectKey
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source.decode import Decoded, read_node
from tests.builders import addresses, networks, node

ZONE = "topology.kubernetes.io/zone"


def document(
    labels: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **spec: object
) -> dict[str, Any]:
    return {"metadata": {"name": "node-a", "labels": labels}, "spec": spec, "status": status}


def read(given: dict[str, Any]) -> Decoded[Node]:
    decoded = read_node(given)
    assert decoded == read_node(json.dumps(given).encode())
    return decoded


def with_addresses(*entries: tuple[str, str]) -> dict[str, Any]:
    return document(status={"addresses": [{"type": kind, "address": text} for kind, text in entries]})


def test_a_node_is_read_from_what_an_api_server_sends() -> None:
    raw = (
        b'{"metadata":{"name":"node-a","uid":"8","labels":{"topology.kubernetes.io/zone":"z","kubernetes.io/os":"linux"},'
        b'"annotations":{"node.alpha.kubernetes.io/ttl":"0"}},'
        b'"spec":{"podCIDR":"10.244.3.0/24","podCIDRs":["10.244.3.0/24","fd00:10:244:3::/64"],'
        b'"taints":[{"key":"node.kubernetes.io/unschedulable","effect":"NoSchedule"}],"unschedulable":true},'
        b'"status":{"capacity":{"cpu":"2"},"addresses":[{"type":"ExternalIP","address":"198.51.100.3"},'
        b'{"type":"InternalIP","address":"192.0.2.3"},{"type":"InternalIP","address":"2001:db8::3"},'
        b'{"type":"Hostname","address":"node-a"},{"type":"InternalDNS","address":"node-a.example.org"}]}}'
    )
    assert read_node(raw) == Decoded(
        Node(
            "node-a",
            "z",
            networks("10.244.3.0/24", "fd00:10:244:3::/64"),
            addresses("192.0.2.3", "2001:db8::3", "198.51.100.3"),
            leaving=False,
        )
    )


@pytest.mark.parametrize(
    "given",
    [
        {"metadata": {"name": "node-a"}},
        document(),
        document({}, {}),
        document({ZONE: None}, {"addresses": None}, podCIDR=None, podCIDRs=None, taints=None),
        document({ZONE: ""}, {"addresses": [{}, {"type": "Hostname", "address": "node-a"}]}, podCIDR=""),
    ],
)
def test_a_node_may_have_next_to_nothing(given: dict[str, Any]) -> None:
    assert read(given) == Decoded(node("node-a"))


def test_the_older_single_pod_network_counts_where_there_is_no_list() -> None:
    assert read(document(podCIDR="10.244.3.0/24")) == Decoded(node("node-a", pod_cidrs=("10.244.3.0/24",)))


def test_a_network_of_a_node_that_is_none_is_left_out() -> None:
    decoded = read(document(podCIDRs=["10.244.3.0", "fd00::/64"]))
    assert decoded.value == node("node-a", pod_cidrs=("fd00::/64",))
    assert [found.field for found in decoded.rejections] == ["spec.podCIDRs[0]"]
    assert decoded.rejections[0].key == ObjectKey("", "node-a")


def test_internal_addresses_come_before_external_ones_each_once() -> None:
    given = with_addresses(
        ("ExternalIP", "198.51.100.3"),
        ("InternalIP", "192.0.2.3"),
        ("InternalIP", "2001:db8::3"),
        ("ExternalIP", "192.0.2.3"),
    )
    assert read(given) == Decoded(node("node-a", ips=("192.0.2.3", "2001:db8::3", "198.51.100.3")))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("node-a", "'node-a' is not an IP address"),
        ("", "is missing"),
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
    ],
)
def test_an_unusable_address_of_a_node_is_left_out(text: str, reason: str) -> None:
    decoded = read(with_addresses(("InternalIP", "192.0.2.3"), ("ExternalIP", text)))
    assert decoded.value == node("node-a", ips=("192.0.2.3",))
    key = ObjectKey("", "node-a")
    assert decoded.rejections == (Rejection("Node", key, "status.addresses[1].address", reason),)


def test_a_node_that_is_being_deleted_is_leaving() -> None:
    given = document()
    given["metadata"]["deletionTimestamp"] = "2026-10-01T08:00:00Z"
    assert read(given) == Decoded(node("node-a", leaving=True))


@pytest.mark.parametrize(
    ("taint", "leaving"),
    [
        ({"key": "ToBeDeletedByClusterAutoscaler", "value": "1790000000", "effect": "NoSchedule"}, True),
        ({"key": "DeletionCandidateOfClusterAutoscaler"}, False),
        ({"key": "node.kubernetes.io/unschedulable", "value": "ToBeDeletedByClusterAutoscaler"}, False),
        ({}, False),
    ],
)
def test_a_node_that_the_autoscaler_is_about_to_delete_is_leaving(
    taint: dict[str, str], *, leaving: bool
) -> None:
    assert read(document(taints=[{"key": "other"}, taint])) == Decoded(node("node-a", leaving=leaving))


def test_the_zone_of_all_is_one_string() -> None:
    given = json.dumps(document({ZONE: "zone-of-this-test"})).encode()
    first, second = read_node(given).value, read_node(given).value
    assert first is not None
    assert second is not None
    assert first.zone is second.zone
