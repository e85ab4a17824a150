"""Which addresses are pods', and which Services claim an address for clients outside.

A Service that claims a pod's address would take that pod's traffic on every node. The claim is refused, whichever of
the two came first, and both Services are told.

EndpointSlices say where the pods are. Whoever may write them in one namespace must not take another's address away by
naming it as an endpoint. So only those count that are kept by the control plane's controller, which copies the pods'
status and undoes what others write, or by the operator of this node, who writes manifests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.objects import SliceAuthor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import EndpointSlice, ObjectKey, Service


def pod_addresses(service: Service | None, slices: Iterable[EndpointSlice]) -> Iterator[Address]:
    """Yield the addresses that are certainly pods', as the Service's EndpointSlices tell.

    The controller looks after no slice of a Service without a selector or of type ExternalName (syncService in
    pkg/controller/endpointslice of Kubernetes): the label of such a slice may be anybody's.
    """
    kept = service is not None and service.is_balanced and service.has_selector
    for each in slices:
        if each.author is SliceAuthor.OPERATOR or (each.author is SliceAuthor.CONTROLLER and kept):
            yield from (endpoint.address for endpoint in each.endpoints if endpoint.node_name)


class AddressIndex:
    """Which Services have which addresses, from both sides. Not thread-safe."""

    def __init__(self) -> None:
        """Begin with no Services."""
        self._addresses: dict[ObjectKey, tuple[Address, ...]] = {}
        self._services: dict[Address, tuple[ObjectKey, ...]] = {}

    @property
    def services(self) -> Mapping[Address, tuple[ObjectKey, ...]]:
        """The Services that have an address, at least one for each."""
        return self._services

    def replace(self, service: ObjectKey, addresses: Iterable[Address]) -> set[Address]:
        """Let the Service have these addresses in place of its former ones; return those that came or went."""
        has = frozenset(addresses)
        changed = has.symmetric_difference(self._addresses.pop(service, ()))
        if has:
            self._addresses[service] = tuple(has)
        # Most addresses are of one Service: they share this.
        alone = (service,)
        for address in changed:
            others = tuple(each for each in self._services.pop(address, ()) if each != service)
            holders = others if address not in has else tuple(sorted((*others, service))) if others else alone
            if holders:
                self._services[address] = holders
        return set(changed)


class Claims:
    """The addresses of all pods and all claims, as far as the Services that were looked at tell. Not thread-safe."""

    def __init__(self) -> None:
        """Begin with no Services."""
        self._pods = AddressIndex()
        self._claims = AddressIndex()

    @property
    def pods(self) -> Mapping[Address, tuple[ObjectKey, ...]]:
        """The addresses of pods, with the Services whose endpoints they are."""
        return self._pods.services

    @property
    def claimants(self) -> Mapping[Address, tuple[ObjectKey, ...]]:
        """The load balancers' and external IPs, with the Services that ask for them."""
        return self._claims.services

    def replace(
        self, key: ObjectKey, service: Service | None, slices: Iterable[EndpointSlice]
    ) -> set[ObjectKey]:
        """Take in what a Service has now; return the Services whose plans may depend on what changed."""
        claimed = (
            (*service.load_balancer_ips, *service.external_ips) if service and service.is_balanced else ()
        )
        concerned: set[ObjectKey] = set()
        for address in self._pods.replace(key, pod_addresses(service, slices)):
            concerned.update(self.claimants.get(address, ()))
        for address in self._claims.replace(key, claimed):
            concerned.update(self.pods.get(address, ()))
        return concerned
