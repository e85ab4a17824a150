"""Objects as clusters have them, for the API server for tests: with all that controllers and kubectl add."""

from __future__ import annotations

import ipaddress
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.api_server_state import Object

CREATED = "2026-10-01T08:00:00Z"
SERVICE_NETWORK = ipaddress.IPv4Network("10.96.0.0/12")
POD_NETWORK = ipaddress.IPv4Network("10.128.0.0/9")
ENDPOINTS_IN_A_SLICE = 100  # the EndpointSlice controller's default


def metadata(name: str, namespace: str, labels: dict[str, str], manager: str, fields: Object) -> Object:
    found: Object = {
        "name": name,
        "namespace": namespace,
        "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{manager}/{namespace}/{name}")),
        "creationTimestamp": CREATED,
        "labels": labels,
        "managedFields": [
            {
                "manager": manager,
                "operation": "Update",
                "apiVersion": "v1",
                "time": CREATED,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields,
            }
        ],
    }
    return found


def service(name: str, cluster_ip: str, port: int = 80, *, namespace: str = "default") -> Object:
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm"}
    fields = {
        "f:metadata": {"f:labels": {".": {}, **{f"f:{label}": {} for label in labels}}},
        "f:spec": {
            "f:internalTrafficPolicy": {},
            "f:ports": {
                ".": {},
                f'k:{{"port":{port},"protocol":"TCP"}}': {".": {}, "f:port": {}, "f:targetPort": {}},
            },
            "f:selector": {},
            "f:sessionAffinity": {},
            "f:type": {},
        },
    }
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": metadata(name, namespace, labels, "helm", fields),
        "spec": {
            "ports": [{"name": "http", "protocol": "TCP", "port": port, "targetPort": 8080}],
            "selector": {"app.kubernetes.io/name": name},
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
        },
        "status": {"loadBalancer": {}},
    }


def endpoint(pod: str, address: str, node: str, *, namespace: str = "default") -> Object:
    zone = f"eu-central-1{'abc'[sum(node.encode()) % 3]}"
    return {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "targetRef": {
            "kind": "Pod",
            "namespace": namespace,
            "name": pod,
            "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, pod)),
        },
        "nodeName": node,
        "zone": zone,
        "hints": {"forZones": [{"name": zone}]},
    }


def endpoint_slice(name: str, of: str, *endpoints: Object, namespace: str = "default") -> Object:
    labels = {
        "app.kubernetes.io/name": of,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": of,
    }
    fields: Object = {
        "f:addressType": {},
        "f:endpoints": {},
        "f:metadata": {
            "f:annotations": {".": {}, "f:endpoints.kubernetes.io/last-change-trigger-time": {}},
            "f:generateName": {},
            "f:labels": {".": {}, **{f"f:{label}": {} for label in labels}},
            "f:ownerReferences": {".": {}, f'k:{{"uid":"{uuid.uuid5(uuid.NAMESPACE_DNS, of)}"}}': {}},
        },
        "f:ports": {},
    }
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": metadata(name, namespace, labels, "kube-controller-manager", fields),
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    }


def node(name: str, labels: dict[str, str] | None = None, *addresses: tuple[str, str]) -> Object:
    found = metadata(name, "", {"kubernetes.io/hostname": name} | (labels or {}), "kubelet", {"f:status": {}})
    del found["namespace"]
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": found,
        "spec": {"podCIDR": "10.128.0.0/24", "podCIDRs": ["10.128.0.0/24"]},
        "status": {
            "addresses": [
                {"type": kind, "address": address}
                for kind, address in addresses or (("InternalIP", "192.0.2.1"),)
            ]
        },
    }


def pod(name: str, node: str, *addresses: str, host_addresses: tuple[str, ...] = ()) -> Object:
    """Return a Pod that runs, as far as somebody needs it who asks where; with the addresses of its node."""
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/main"}]},
        "status": {
            "phase": "Running",
            "hostIP": next(iter(host_addresses), ""),
            "hostIPs": [{"ip": address} for address in host_addresses],
            "podIP": next(iter(addresses), ""),
            "podIPs": [{"ip": address} for address in addresses],
        },
    }


def node_table(nodes: Iterable[Object], metadata: Mapping[str, str]) -> Object:
    """Return the Table of the Nodes, with the columns of printNode in pkg/printers/internalversion of Kubernetes."""
    columns = ("Name", "Status", "Roles", "Age", "Version", "Internal-IP", "External-IP", "OS-Image")
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(metadata),
        "columnDefinitions": [
            {"name": name, "type": "string", "format": "", "description": "", "priority": int(number > 4)}
            for number, name in enumerate(columns)
        ],
        "rows": [
            {
                "cells": [
                    contents["metadata"]["name"],
                    *("Ready", "<none>", "51d", "v1.34.2"),
                    _first_address(contents, "InternalIP"),
                    _first_address(contents, "ExternalIP"),
                    "Debian GNU/Linux 12 (bookworm)",
                ],
                "object": None,
            }
            for contents in nodes
        ],
    }


def _first_address(contents: Object, kind: str) -> str:
    found = (entry["address"] for entry in contents["status"]["addresses"] if entry["type"] == kind)
    return next(found, "<none>")


def cluster(services: int, endpoints: int, nodes: int = 100) -> Iterator[Object]:
    """Yield Services with the endpoints spread evenly over them, and Nodes named node-0, node-1 and so on."""
    for number in range(nodes):
        yield node(f"node-{number}")
    for number in range(services):
        name = f"service-{number}"
        yield service(name, str(SERVICE_NETWORK[number + 10]))
        share = range(endpoints * number // services, endpoints * (number + 1) // services)
        for first in range(0, len(share), ENDPOINTS_IN_A_SLICE):
            yield endpoint_slice(
                f"{name}-{first // ENDPOINTS_IN_A_SLICE}",
                name,
                *(
                    endpoint(
                        f"{name}-5d8c7b9f4-{index}", str(POD_NETWORK[index + 10]), f"node-{index % nodes}"
                    )
                    for index in share[first : first + ENDPOINTS_IN_A_SLICE]
                ),
            )
