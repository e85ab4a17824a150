"""Documents of the API in the shape of parsed JSON, and short ways to look at what is read from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.source.decode import Decoded, Document

    Read: TypeAlias = Callable[[Document], Decoded[Any]]


def metadata(**more: object) -> dict[str, Any]:
    return {"namespace": "default", "name": "web", **more}


def service(*ports: dict[str, Any], labels: dict[str, Any] | None = None, **spec: object) -> dict[str, Any]:
    spec = {"clusterIP": "10.96.0.10", "ports": list(ports) or [{"port": 80}], **spec}
    return {"metadata": metadata(labels=labels), "spec": spec}


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


def is_ignored(decoded: Decoded[Any]) -> bool:
    return decoded.value is None and decoded.rejections == ()
