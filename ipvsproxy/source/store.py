"""Where sources and the reconciler meet: the latest objects, and which Services changed since the last look.

Sources write from threads of their own; the reconciler alone takes. A Service is dirty when its own object or one
of its EndpointSlices changed; several changes of one Service before a look are one. The own Node is waited for too,
because who serves depends on it: otherwise a start would plan everything twice.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import EndpointSlice, Node, ObjectKey, Service
    from ipvsproxy.model.reasons import Rejection


class ServiceState(NamedTuple):
    """One Service as the reconciler plans it; `service` is None when it does not exist (any more).

    `slices` is sorted by key, so that equal states compare equal.
    """

    service: Service | None
    slices: tuple[EndpointSlice, ...]


class Backlog(NamedTuple):
    """How many changes there were, how many of them were not yet taken, and when the last came.

    A change is one of a Service's or an EndpointSlice's object that differs from what was held. `services_waiting` are
    the Services that they make dirty. `last_change` is in seconds since the epoch, 0 before the first.
    """

    service_changes: int = 0
    service_changes_pending: int = 0
    slice_changes: int = 0
    slice_changes_pending: int = 0
    services_waiting: int = 0
    last_change: float = 0.0


class Store:
    """The latest good state of every object, and the keys of the Services that changed.

    All methods may be called from any thread.
    """

    def __init__(
        self,
        on_rejection: Callable[[Rejection], None] = lambda _: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Start empty: nothing has been received.

        `on_rejection` is called with each rejection that did not stand before, in the thread of the source that
        brought it and without a lock held. `wall_clock` is in seconds since the epoch.
        """
        self._on_rejection = on_rejection
        self._wall_clock = wall_clock
        self._began = wall_clock()
        self._backlog = Backlog()
        self._triggers: dict[ObjectKey, list[float]] = {}
        self._triggers_taken: dict[ObjectKey, list[float]] = {}
        self._new_rejections: list[Rejection] = []
        self._news = threading.Condition()
        self._services: dict[ObjectKey, Service] = {}
        self._slices: dict[ObjectKey, EndpointSlice] = {}
        self._slices_of: dict[ObjectKey, dict[ObjectKey, EndpointSlice]] = {}
        self._node: Node | None = None
        self._rejections: dict[tuple[str, ObjectKey], tuple[Rejection, ...]] = {}
        self._dirty: set[ObjectKey] = set()
        self._services_received = False
        self._slices_received = False
        self._node_received = False
        self._node_exists = False
        self._node_addresses: frozenset[Address] = frozenset()
        self._api_peers: frozenset[Address] = frozenset()
        self._node_changed = False
        self._woken = False

    # --- for sources ---

    def replace_services(self, services: Iterable[Service], rejected: Iterable[Rejection] = ()) -> None:
        """Take a complete list: what it does not have is gone; only what differs becomes dirty.

        A rejection of an object that `services` has is about a part that was left out. A rejected object that
        it does not have keeps its last good state, if it was held.
        """
        listed = {service.key: service for service in services}
        refused = _by_object(rejected)
        with self._written():
            for key in self._services.keys() - listed.keys():
                if ("Service", key) not in refused:
                    self._drop_service(key)
            for service in listed.values():
                self._hold_service(service)
            self._replace_rejections(("Service",), refused)
            self._received(services=True)

    def replace_slices(self, slices: Iterable[EndpointSlice], rejected: Iterable[Rejection] = ()) -> None:
        """Take a complete list of EndpointSlices, by the rules of `replace_services`.

        Rejections of kind Endpoints belong here too: they are about the objects that slices were made from.
        """
        listed = {endpoint_slice.key: endpoint_slice for endpoint_slice in slices}
        refused = _by_object(rejected)
        with self._written():
            for key in self._slices.keys() - listed.keys():
                if ("EndpointSlice", key) not in refused:
                    self._drop_slice(key)
            for endpoint_slice in listed.values():
                self._hold_slice(endpoint_slice)
            self._replace_rejections(("EndpointSlice", "Endpoints"), refused)
            self._received(slices=True)

    def put_service(self, service: Service, rejected: Iterable[Rejection] = ()) -> None:
        """Hold the Service; `rejected` tells which parts of it were left out, in place of what was said before."""
        with self._written():
            self._hold_service(service)
            self._set_rejections("Service", service.key, rejected)
            self._news.notify_all()

    def put_slice(self, endpoint_slice: EndpointSlice, rejected: Iterable[Rejection] = ()) -> None:
        """Hold the EndpointSlice; `rejected` as for `put_service`."""
        with self._written():
            self._hold_slice(endpoint_slice)
            self._set_rejections("EndpointSlice", endpoint_slice.key, rejected)
            self._news.notify_all()

    def remove_service(self, key: ObjectKey) -> None:
        """Forget the Service and what was rejected of it; one that is not held is no error."""
        with self._written():
            self._drop_service(key)
            self._set_rejections("Service", key, ())
            self._news.notify_all()

    def remove_slice(self, key: ObjectKey) -> None:
        """Forget the EndpointSlice and what was rejected of it; one that is not held is no error."""
        with self._written():
            self._drop_slice(key)
            self._set_rejections("EndpointSlice", key, ())
            self._news.notify_all()

    def replace_node(self, node: Node | None, rejected: Iterable[Rejection] = ()) -> None:
        """Take the complete answer about the agent's own Node; `rejected` as for `put_service`.

        None if there is none or it is rejected: what is known of it stays, for the agent runs on it all the same.
        """
        refused = _by_object(rejected)
        with self._written():
            if node is not None and node != self._node:
                self._node = node
                self._node_changed = True
            self._node_exists = node is not None
            self._replace_rejections(("Node",), refused)
            self._received(node=True)

    def put_node(self, node: Node, rejected: Iterable[Rejection] = ()) -> None:
        """Hold the agent's own Node; `rejected` as for `put_service`."""
        self.replace_node(node, rejected)

    def remove_node(self) -> None:
        """Note that there is no own Node any more; what is known of it stays, as for `replace_node`."""
        self.replace_node(None)

    def put_node_addresses(self, addresses: Iterable[Address]) -> None:
        """Hold the addresses of all nodes of the cluster, as far as they are known."""
        with self._news:
            if (known := frozenset(addresses)) != self._node_addresses:
                self._node_addresses = known
                self._node_changed = True
                self._news.notify_all()

    def put_api_peers(self, addresses: Iterable[Address]) -> None:
        """Hold the addresses by which this node reaches the API server."""
        with self._news:
            if (known := frozenset(addresses)) != self._api_peers:
                self._api_peers = known
                self._node_changed = True
                self._news.notify_all()

    def reject(self, rejection: Rejection) -> None:
        """Record that an object could not be read; its last good state stays until a good one or a removal.

        It takes the place of what was rejected of the object before.
        """
        with self._written():
            self._set_rejections(rejection.kind, rejection.key, (rejection,))

    # --- for the reconciler ---

    def wait(self, timeout: float | None) -> bool:
        """Wait until something changed and all is synced, or `wake` is called; False when the time ran out.

        To become synced is a change by itself, so an empty cluster is seen too. `timeout` is in seconds.
        """
        with self._news:
            in_time = self._news.wait_for(self._has_news, timeout)
            self._woken = False
            return in_time

    def wake(self) -> None:
        """End the wait under way, or else the next one."""
        with self._news:
            self._woken = True
            self._news.notify_all()

    def take(self) -> dict[ObjectKey, ServiceState]:
        """Return the Services that changed, and forget that they and the Node did. None before all is synced."""
        with self._news:
            if not self.synced:
                return {}
            changes = {key: self._state(key) for key in self._dirty}
            self._dirty.clear()
            self._node_changed = False
            self._backlog = self._backlog._replace(service_changes_pending=0, slice_changes_pending=0)
            self._triggers_taken, self._triggers = self._triggers, {}
            return changes

    @property
    def triggers_taken(self) -> Mapping[ObjectKey, Sequence[float]]:
        """What caused the EndpointSlices' changes that the last `take` returned, by Service: when it happened.

        In seconds since the epoch. What happened before the store was there is left out, and what a list brought that
        was the first: nobody waited for these. So are Services of which a slice was deleted since, whose annotation is
        older than that (kube-proxy's EndpointsChangeTracker has it so).
        """
        return self._triggers_taken

    # --- for readers ---

    @property
    def synced(self) -> bool:
        """Whether both lists, and whether there is a Node, were received once."""
        return self._services_received and self._slices_received and self._node_received

    @property
    def node(self) -> Node | None:
        """The agent's own Node; None as long as no readable one was received."""
        return self._node

    @property
    def node_exists(self) -> bool:
        """Whether there is an own Node now, be it one that can't be used."""
        return self._node_exists or any(each.kind == "Node" for each in self.rejections())

    @property
    def node_addresses(self) -> frozenset[Address]:
        """The addresses of all nodes of the cluster, as far as they are known."""
        return self._node_addresses

    @property
    def api_peers(self) -> frozenset[Address]:
        """The addresses by which this node reaches the API server; none without one."""
        return self._api_peers

    def backlog(self) -> Backlog:
        """Return how many changes there were, and how many wait."""
        with self._news:
            return self._backlog._replace(services_waiting=len(self._dirty))

    def state(self, key: ObjectKey) -> ServiceState:
        """Return the latest state of one Service, without taking it; an unknown one is (None, ())."""
        with self._news:
            return self._state(key)

    def service_keys(self) -> list[ObjectKey]:
        """Return the keys of all Services that exist, sorted."""
        with self._news:
            return sorted(self._services)

    def rejections(self) -> list[Rejection]:
        """Return all that is rejected at the moment, sorted by kind, object and field."""
        with self._news:
            return sorted(rejection for found in self._rejections.values() for rejection in found)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Hold the condition for a source's write, and tell of the rejections that are new afterwards."""
        with self._news:
            yield
            rejections, self._new_rejections = self._new_rejections, []
        for rejection in rejections:
            self._on_rejection(rejection)

    # --- with the condition held ---

    def _has_news(self) -> bool:
        return self._woken or (self.synced and (self._node_changed or bool(self._dirty)))

    def _state(self, key: ObjectKey) -> ServiceState:
        slices = self._slices_of.get(key, {})
        return ServiceState(self._services.get(key), tuple(sorted(slices.values())))

    def _received(self, *, services: bool = False, slices: bool = False, node: bool = False) -> None:
        was_synced = self.synced
        self._services_received |= services
        self._slices_received |= slices
        self._node_received |= node
        if self.synced and not was_synced:
            self._woken = True
        self._news.notify_all()

    def _hold_service(self, service: Service) -> None:
        if self._services.get(service.key) != service:
            self._services[service.key] = service
            self._service_changed(service.key)

    def _drop_service(self, key: ObjectKey) -> None:
        if self._services.pop(key, None) is not None:
            self._service_changed(key)

    def _hold_slice(self, endpoint_slice: EndpointSlice) -> None:
        held = self._slices.get(endpoint_slice.key)
        # What triggered it is no change by itself.
        if held is not None and held[:-1] == endpoint_slice[:-1]:
            return
        self._take_away(endpoint_slice.key)
        self._slices[endpoint_slice.key] = endpoint_slice
        self._slices_of.setdefault(endpoint_slice.service, {})[endpoint_slice.key] = endpoint_slice
        self._slice_changed(endpoint_slice.service)
        if self._slices_received and endpoint_slice.triggered > self._began:
            self._triggers.setdefault(endpoint_slice.service, []).append(endpoint_slice.triggered)

    def _drop_slice(self, key: ObjectKey) -> None:
        if held := self._take_away(key):
            self._slice_changed(held.service)
            self._triggers.pop(held.service, None)

    def _take_away(self, key: ObjectKey) -> EndpointSlice | None:
        held = self._slices.pop(key, None)
        if held is None:
            return None
        siblings = self._slices_of[held.service]
        del siblings[key]
        if not siblings:
            del self._slices_of[held.service]
        self._dirty.add(held.service)
        return held

    def _service_changed(self, key: ObjectKey) -> None:
        self._dirty.add(key)
        backlog = self._backlog
        self._backlog = backlog._replace(
            service_changes=backlog.service_changes + 1,
            service_changes_pending=backlog.service_changes_pending + 1,
            last_change=self._wall_clock(),
        )

    def _slice_changed(self, service: ObjectKey) -> None:
        self._dirty.add(service)
        backlog = self._backlog
        self._backlog = backlog._replace(
            slice_changes=backlog.slice_changes + 1,
            slice_changes_pending=backlog.slice_changes_pending + 1,
            last_change=self._wall_clock(),
        )

    def _set_rejections(self, kind: str, key: ObjectKey, rejected: Iterable[Rejection]) -> None:
        before = {(kind, key): self._rejections.pop((kind, key), ())}
        found = _by_object(rejected)
        self._note_new(found, before)
        self._rejections.update(found)

    def _replace_rejections(
        self, kinds: tuple[str, ...], refused: dict[tuple[str, ObjectKey], tuple[Rejection, ...]]
    ) -> None:
        self._note_new(refused, self._rejections)
        others = {identity: found for identity, found in self._rejections.items() if identity[0] not in kinds}
        self._rejections = others | refused

    def _note_new(
        self,
        found: dict[tuple[str, ObjectKey], tuple[Rejection, ...]],
        before: dict[tuple[str, ObjectKey], tuple[Rejection, ...]],
    ) -> None:
        for identity, rejections in found.items():
            known = before.get(identity, ())
            self._new_rejections += [rejection for rejection in rejections if rejection not in known]


def _by_object(rejected: Iterable[Rejection]) -> dict[tuple[str, ObjectKey], tuple[Rejection, ...]]:
    """Group rejections by the kind and key of their object."""
    grouped: dict[tuple[str, ObjectKey], tuple[Rejection, ...]] = {}
    for rejection in rejected:
        identity = (rejection.kind, rejection.key)
        grouped[identity] = (*grouped.get(identity, ()), rejection)
    return grouped
