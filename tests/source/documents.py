"""Documents of the API in the shape of parsed JSON, and short ways to look at what is read from them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from ipvsproxy.source.decode import read_service

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.objects import Service
    from ipvsproxy.source.decode import Decoded, Document

    Read: TypeAlias = Callable[[Document], Decoded[Any]]


def metadata(**more: object) -> dict[str, Any]:
    return {"namespace": "default", "name": "web", **more}


def service(
    *ports: dict[str, Any], labels: dict[str, Any] | None = None, annotations: object = None, **spec: object
) -> dict[str, Any]:
    spec = {"clusterIP": "10.96.0.10", "ports": list(ports) or [{"port": 80}], **spec}
    return {"metadata": metadata(labels=labels, annotations=annotations), "spec": spec}


def load_balancer(*ingress: dict[str, Any], **spec: object) -> dict[str, Any]:
    document = service()
    document["spec"] |= {"type": "LoadBalancer", **spec}
    return {**document, "status": {"loadBalancer": {"ingress": list(ingress)}}}


def endpoint_slice(*endpoints: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "metadata": metadata(name="web-1", labels={"kubernetes.io/service-name": "web"}),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": list(endpoints),
        **more,
    }


def endpoint(address: str = "10.244.1.7", **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


def problems(decoded: Decoded[Any]) -> list[tuple[str, str]]:
    return [(found.field, found.reason) for found in decoded.rejections]


def partly(document: dict[str, Any]) -> tuple[Service, list[tuple[str, str]]]:
    """Return the Service that both ways of reading give, and the parts that it leaves out."""
    decoded = read_service(document)
    assert decoded == read_service(json.dumps(document).encode())
    assert decoded.value is not None
    return decoded.value, problems(decoded)


def wholly(document: dict[str, Any]) -> Service:
    """Return the Service that both ways of reading give, of which nothing is left out."""
    service, left_out = partly(document)
    assert left_out == []
    return service


def is_ignored(decoded: Decoded[Any]) -> bool:
    return decoded.value is None and decoded.rejections == ()
