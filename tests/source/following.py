"""An agent's source in front of the API server for tests, and ways to wait for what its threads do."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import structlog

from ipvsproxy.source.kubernetes.client import Limits
from ipvsproxy.source.kubernetes.source import KubernetesSource
from ipvsproxy.source.store import Store
from netns_tests.deadline import PATIENCE
from tests import builders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
    from pathlib import Path

    from ipvsproxy.model.objects import EndpointSlice, Node, ObjectKey, Service
    from ipvsproxy.model.reasons import Rejection
    from tests.api_server import ApiServer

BRISK = Limits(first_pause=0.001, longest_pause=0.01)


class Witness:
    """Learns of everything that the source does, and lets a test wait for it."""

    def __init__(self) -> None:
        self._happened = threading.Condition()
        self.logged: list[dict[str, Any]] = []

    def happened(self) -> None:
        with self._happened:
            self._happened.notify_all()

    def wait_for(self, predicate: Callable[[], object]) -> None:
        """Wait until the predicate, which is asked again after each event, is true."""
        with self._happened:
            assert self._happened.wait_for(predicate, PATIENCE), self.logged

    def log_line(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for a log line with that event and those fields, and return it."""
        self.wait_for(lambda: self.log_lines(event, **fields))
        return self.log_lines(event, **fields)[0]

    def log_lines(self, event: str, **fields: object) -> list[dict[str, Any]]:
        wanted = {"event": event, **fields}
        return [line for line in list(self.logged) if wanted.items() <= line.items()]

    def record(self, _: object, level: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Keep the line, as structlog's only processor."""
        self.logged.append({**line, "level": level})
        self.happened()
        raise structlog.DropEvent


class ObservedStore(Store):
    """A store that lets the witness know of each write."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self._witness = witness

    def replace_services(self, services: Iterable[Service], rejected: Iterable[Rejection] = ()) -> None:
        super().replace_services(services, rejected)
        self._witness.happened()

    def replace_slices(self, slices: Iterable[EndpointSlice], rejected: Iterable[Rejection] = ()) -> None:
        super().replace_slices(slices, rejected)
        self._witness.happened()

    def put_service(self, service: Service, rejected: Iterable[Rejection] = ()) -> None:
        super().put_service(service, rejected)
        self._witness.happened()

    def put_slice(self, endpoint_slice: EndpointSlice, rejected: Iterable[Rejection] = ()) -> None:
        super().put_slice(endpoint_slice, rejected)
        self._witness.happened()

    def remove_service(self, key: ObjectKey) -> None:
        super().remove_service(key)
        self._witness.happened()

    def remove_slice(self, key: ObjectKey) -> None:
        super().remove_slice(key)
        self._witness.happened()

    def replace_node(self, node: Node | None, rejected: Iterable[Rejection] = ()) -> None:
        super().replace_node(node, rejected)
        self._witness.happened()

    def reject(self, rejection: Rejection) -> None:
        super().reject(rejection)
        self._witness.happened()


class Agent:
    """The source and its store, and the witness of both."""

    def __init__(
        self,
        server: ApiServer,
        directory: Path,
        limits: Limits = BRISK,
        make_store: Callable[[Witness], Store] = ObservedStore,
    ) -> None:
        self.witness = Witness()
        self.store = make_store(self.witness)
        self.kubeconfig = server.kubeconfig(directory / "kubeconfig")
        log = structlog.wrap_logger(
            None,
            processors=[self.witness.record],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
        )
        self.source = KubernetesSource(self.kubeconfig, self.store, builders.NODE, log, limits=limits)

    def wait_for(self, predicate: Callable[[], object]) -> None:
        self.witness.wait_for(predicate)

    def wait_until_synced(self) -> None:
        """Wait for both lists and the own Node, which exists."""
        self.wait_for(lambda: self.store.synced and self.store.node is not None)

    def names(self) -> set[str]:
        """Return the names of the Services that the store holds."""
        return {key.name for key in self.store.service_keys()}

    def wait_for_names(self, *names: str) -> None:
        self.wait_for(lambda: self.names() == set(names))


@contextlib.contextmanager
def following(
    server: ApiServer,
    directory: Path,
    limits: Limits = BRISK,
    make_store: Callable[[Witness], Store] = ObservedStore,
) -> Iterator[Agent]:
    """Run a source until the end of the block."""
    agent = Agent(server, directory, limits, make_store)
    agent.source.start()
    try:
        yield agent
    finally:
        agent.source.stop()
        agent.source.join(PATIENCE)
