"""Who serves: which endpoints of a Service's port get its traffic, and for each of the others why it does not.

The rule, top to bottom:

1. An endpoint belongs to a Service's port if its slice has a port of the same name and protocol; the number is the
   slice's, so a named targetPort may differ from slice to slice.
2. The same address and port in several slices is one endpoint; one that is known to run on this node wins, then one
   that is ready, then one that serves.
3. The ready endpoints serve. If there is none, those serve that still answer while they terminate (KEP-1669).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.model.addresses import Address, Family
    from ipvsproxy.model.objects import Endpoint, EndpointSlice, ServicePort


class EndpointReason(enum.StrEnum):
    """Why an endpoint serves or does not, in the words that `dump` shows."""

    READY = "ready"
    SERVING_WHILE_TERMINATING = "serves while it terminates, since no endpoint is ready"
    NOT_READY = "not ready"
    TERMINATING = "terminating, and other endpoints are ready"


_SERVES = frozenset({EndpointReason.READY, EndpointReason.SERVING_WHILE_TERMINATING})


class EndpointDecision(NamedTuple):
    """What was decided about one address and port; `may_be_local` unless the endpoint is of another node."""

    address: Address
    port: int
    reason: EndpointReason
    may_be_local: bool

    @property
    def serves(self) -> bool:
        """Whether the endpoint gets traffic."""
        return self.reason in _SERVES


def decide_endpoints(
    port: ServicePort, family: Family, slices: Iterable[EndpointSlice], node_name: str
) -> list[EndpointDecision]:
    """Decide about every endpoint of the Service's port in one family, sorted by address and port."""
    endpoints = _merge(port, family, slices, node_name)
    any_ready = any(endpoint.ready for endpoint in endpoints.values())
    here = (None, node_name)
    return [
        EndpointDecision(
            *place, _reason(endpoint, any_ready=any_ready), may_be_local=endpoint.node_name in here
        )
        for place, endpoint in sorted(endpoints.items())
    ]


def _merge(
    port: ServicePort, family: Family, slices: Iterable[EndpointSlice], node_name: str
) -> dict[tuple[Address, int], Endpoint]:
    merged: dict[tuple[Address, int], Endpoint] = {}
    for endpoint_slice in slices:
        if endpoint_slice.family != family:
            continue
        for slice_port in endpoint_slice.ports:
            if slice_port.name != port.name or slice_port.protocol != port.protocol:
                continue
            for endpoint in endpoint_slice.endpoints:
                key = (endpoint.address, slice_port.port)
                known = merged.get(key)
                if known is None or _precedence(endpoint, node_name) > _precedence(known, node_name):
                    merged[key] = endpoint
    return merged


def _precedence(endpoint: Endpoint, node_name: str) -> tuple[bool, bool, bool]:
    return endpoint.node_name == node_name, endpoint.ready, endpoint.serving


def _reason(endpoint: Endpoint, *, any_ready: bool) -> EndpointReason:
    if endpoint.ready:
        return EndpointReason.READY
    if not (endpoint.serving and endpoint.terminating):
        return EndpointReason.NOT_READY
    return EndpointReason.TERMINATING if any_ready else EndpointReason.SERVING_WHILE_TERMINATING
