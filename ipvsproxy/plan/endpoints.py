"""Who serves: which endpoints of a Service's port get its traffic, and for each of the others why it does not.

The rule, top to bottom:

1. An endpoint belongs to a Service's port if its slice has a port of the same name and protocol; the number is the
   slice's, so a named targetPort may differ from slice to slice.
2. The same address and port in several slices is one endpoint. One that does not terminate wins, then one that is
   ready, then one that serves, and at last one that is known to run on this node: a pod that ends may have left its
   address to another one (kubernetes#135266).
3. An endpoint whose address is a service address serves nobody: IPVS would hand its packets to the node itself.
4. Under a traffic policy Local, only endpoints of this node remain.
5. The ready endpoints serve. If there is none, those serve that still answer while they terminate (KEP-1669).
6. Under a traffic policy Cluster, hints narrow the ready endpoints down (KEP-2433, KEP-4444, KEP-3015): to those for
   this node if every one has a hint for nodes and one is for this node; else to those for this node's zone, likewise.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ipvsproxy.model.addresses import Address

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping

    from ipvsproxy.model.addresses import Family
    from ipvsproxy.model.objects import Endpoint, EndpointSlice, Protocol

# Of the ports that other slices have.
_NAMED = 10

Place: TypeAlias = tuple[Address, int]
"""The address and port of an endpoint."""


class EndpointReason(enum.StrEnum):
    """Why an endpoint serves or does not, in the words that `dump` shows."""

    READY = "ready"
    SERVING_WHILE_TERMINATING = "serves while it terminates, since no endpoint is ready"
    SERVICE_ADDRESS = "its address is a service address"
    NOT_LOCAL_INTERNALLY = "on another node, and internalTrafficPolicy is Local"
    NOT_LOCAL_EXTERNALLY = "on another node, and externalTrafficPolicy is Local"
    NOT_READY = "not ready"
    TERMINATING = "terminating, and other endpoints are ready"
    OTHER_NODE = "hinted for other nodes, and others are for this node"
    OTHER_ZONE = "hinted for other zones, and others are for this node's zone"


_SERVES = frozenset({EndpointReason.READY, EndpointReason.SERVING_WHILE_TERMINATING})


class Here(NamedTuple):
    """Where the decision is made: the name of this node, and its zone, "" if it has none."""

    node_name: str
    zone: str = ""


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


class EndpointsByPort:
    """The endpoints of one family, by the name and protocol of the port that they belong to.

    A slice has as many as its ports times its endpoints, so they are put together for those ports that are asked for.
    """

    def __init__(self, family: Family, slices: Iterable[EndpointSlice], node_name: str) -> None:
        """Look at the slices' ports, and at none of their endpoints yet."""
        self._node_name = node_name
        self._parts: dict[tuple[str, Protocol], list[tuple[int, EndpointSlice]]] = {}
        for endpoint_slice in slices:
            if endpoint_slice.family == family:
                for name, protocol, number in endpoint_slice.ports:
                    self._parts.setdefault((name, protocol), []).append((number, endpoint_slice))

    def of(self, name: str, protocol: Protocol) -> dict[Place, Endpoint]:
        """Return the endpoints of one port, each once."""
        merged: dict[Place, Endpoint] = {}
        for number, endpoint_slice in self._parts.get((name, protocol), ()):
            for endpoint in endpoint_slice.endpoints:
                place = (endpoint.address, number)
                known = merged.get(place)
                if known is None or _precedence(endpoint, self._node_name) > _precedence(
                    known, self._node_name
                ):
                    merged[place] = endpoint
        return merged


def why_no_endpoint(family: Family, slices: Iterable[EndpointSlice], name: str, protocol: Protocol) -> str:
    """Return why none of a family's endpoints belongs to a port of the Service, "" if one does, or there are none.

    A targetPort by name that no pod has is one cause: then slices have endpoints and no such port.
    """
    of_family = [each for each in slices if each.family == family and each.endpoints]
    ports = {(port.name, port.protocol) for each in of_family for port in each.ports}
    number = len({endpoint.address for each in of_family for endpoint in each.endpoints})
    if not number or (name, protocol) in ports:
        return ""
    known = "1 endpoint is known" if number == 1 else f"{number} endpoints are known"
    wanted = f"a port named {name}" if name else "the port, which has no name"
    if any(name == other for other, _ in ports):
        wanted += f" with the protocol {protocol.name}"
    others = sorted({other or '""' for other, _ in ports})
    named, more = (
        ", ".join(others[:_NAMED]),
        f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "",
    )
    return f"{known}, none has {wanted}" + (f" (their ports: {named}{more})" if named else "")


def decide_endpoints(
    endpoints: Mapping[Place, Endpoint],
    here: Here,
    service_addresses: Container[Address] = frozenset(),
    not_local: EndpointReason | None = None,
) -> list[EndpointDecision]:
    """Decide about every endpoint of a port for one kind of traffic, sorted by address and port.

    `not_local` is what excludes the endpoints of other nodes under a traffic policy Local; None is the policy Cluster.
    """
    ready = [
        endpoint
        for (address, _), endpoint in endpoints.items()
        if endpoint.ready
        and address not in service_addresses
        and (not_local is None or endpoint.node_name == here.node_name)
    ]
    chosen, not_chosen = _narrow(ready, here) if not_local is None else (ready, EndpointReason.READY)
    chosen_ones = None if len(chosen) == len(ready) else set(map(id, chosen))
    nodes = (None, here.node_name)
    decisions = []
    for (address, port), endpoint in sorted(endpoints.items()):
        if address in service_addresses:
            reason = EndpointReason.SERVICE_ADDRESS
        elif not_local is not None and endpoint.node_name != here.node_name:
            reason = not_local
        elif endpoint.ready:
            is_chosen = chosen_ones is None or id(endpoint) in chosen_ones
            reason = EndpointReason.READY if is_chosen else not_chosen
        elif not answers(endpoint):
            reason = EndpointReason.NOT_READY
        else:
            reason = EndpointReason.TERMINATING if ready else EndpointReason.SERVING_WHILE_TERMINATING
        decisions.append(EndpointDecision(address, port, reason, endpoint.node_name in nodes))
    return decisions


def answers(endpoint: Endpoint) -> bool:
    """Say whether the endpoint is ready, or still serves while it terminates."""
    return endpoint.ready or (endpoint.serving and endpoint.terminating)


def _narrow(ready: Collection[Endpoint], here: Here) -> tuple[Collection[Endpoint], EndpointReason]:
    """Return the ready endpoints that hints choose, and the reason of those that they do not."""
    if all(endpoint.for_nodes for endpoint in ready):
        chosen = [endpoint for endpoint in ready if here.node_name in endpoint.for_nodes]
        if chosen:
            return chosen, EndpointReason.OTHER_NODE
    if here.zone and all(endpoint.for_zones for endpoint in ready):
        chosen = [endpoint for endpoint in ready if here.zone in endpoint.for_zones]
        if chosen:
            return chosen, EndpointReason.OTHER_ZONE
    return ready, EndpointReason.READY


def _precedence(endpoint: Endpoint, node_name: str) -> tuple[bool, bool, bool, bool]:
    return not endpoint.terminating, endpoint.ready, endpoint.serving, endpoint.node_name == node_name
