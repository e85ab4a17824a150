"""One Pod, asked for by its name: where it runs, and which addresses it has."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.model.addresses import parse_stored_address
from ipvsproxy.source import json_text
from ipvsproxy.source.kubernetes.client import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.source.kubernetes.client import ApiServer


_REMEDIES: Mapping[int, str] = {
    http.HTTPStatus.FORBIDDEN: (
        "; allow the verb get on pods, as the chart does with readPods=true, or ask with the Pod's address"
    ),
    http.HTTPStatus.UNAUTHORIZED: (
        "; name credentials that are accepted by --kubeconfig, or ask with the Pod's address"
    ),
}


class Pod(NamedTuple):
    """A Pod. `node_addresses` are those that its kubelet says its node has, `host_network` is as in its spec."""

    key: ObjectKey
    addresses: tuple[Address, ...]
    node_name: str
    node_addresses: tuple[Address, ...]
    host_network: bool


class _Address(msgspec.Struct):
    ip: str = ""


class _Status(msgspec.Struct, rename={"pod_ips": "podIPs", "host_ip": "hostIP", "host_ips": "hostIPs"}):
    phase: str = ""
    pod_ips: list[_Address] = []
    host_ip: str = ""
    host_ips: list[_Address] = []


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    host_network: bool = False


class _Pod(msgspec.Struct, kw_only=True, rename="camel"):
    """The fields of a v1 Pod that are used."""

    kind: Literal["Pod"]
    api_version: Literal["v1"]
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_decoder = msgspec.json.Decoder(_Pod)


def ask_for_pod(api: ApiServer, key: ObjectKey, timeout: float) -> Pod:
    """Return the Pod, by one GET that may be silent for `timeout` seconds.

    UsageError if there is none of the name, or it has no address; IpvsProxyError if the API server does not say.
    """
    try:
        with api.get(f"/api/v1/namespaces/{key.namespace}/pods/{key.name}", {}, timeout) as response:
            document = json_text.decode(_decoder, response.read())
        status = document.status
        addresses = _addresses(each.ip for each in status.pod_ips)
        node_addresses = _addresses((status.host_ip, *(each.ip for each in status.host_ips)))
    except ApiError as error:
        if error.status == http.HTTPStatus.NOT_FOUND:
            raise UsageError(f"pod {key}: the API server knows no such Pod") from error
        remedy = _REMEDIES.get(error.status, "")
        raise IpvsProxyError(
            f"pod {key}: the API server at {api.url} does not say: {error}{remedy}"
        ) from error
    # No JSON, no text at all, or an address that is none.
    except ValueError as error:
        raise IpvsProxyError(f"pod {key}: the answer of {api.url} is no Pod: {error}") from error
    if not addresses or status.phase in {"Succeeded", "Failed"}:
        raise UsageError(f"pod {key}: it sends nothing, its phase is {status.phase or 'unknown'}")
    return Pod(key, addresses, document.spec.node_name, node_addresses, document.spec.host_network)


def _addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    return tuple(parse_stored_address(text) for text in dict.fromkeys(texts) if text)
