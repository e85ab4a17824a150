"""What is watched, and where its objects go."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from ipvsproxy.source.decode import NotAskedForError, read_endpoint_slice, read_node, read_service
from ipvsproxy.source.health import SourceHealth
from ipvsproxy.source.kubernetes.client import ApiServer, Limits
from ipvsproxy.source.kubernetes.node_addresses import NodeAddresses
from ipvsproxy.source.kubernetes.reach import Reach, resolve
from ipvsproxy.source.kubernetes.watch import Resource, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import Node
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.source.store import Store

# A Service that names another proxy is that proxy's; a headless one has no address to serve.
_SELECTOR: Final = {
    "labelSelector": "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
}


# Seconds that the own Node is held back until the addresses are known that no Service may take over.
ADDRESSES_PATIENCE: Final = 10.0


class KubernetesSource:
    """Fills the store from the API server, with a thread each for Services, EndpointSlices and the own Node.

    Two more find addresses that no Service may take over: those of all nodes, which are listed now and then, and those
    that the API server's name leads to.
    """

    def __init__(  # noqa: PLR0913 - the last two are given in tests only
        self,
        kubeconfig: Path | None,
        store: Store,
        node_name: str,
        log: FilteringBoundLogger,
        *,
        master: str = "",
        limits: Limits | None = None,
        look_up: Callable[[str], frozenset[Address]] = resolve,
    ) -> None:
        """Read the configuration, and send nothing before `start`.

        `kubeconfig` and `master` are as for ApiServer. UsageError names the file, or the part of the
        service account, that can't be used. `look_up` returns the addresses that a name leads to, as `reach.resolve`.
        """
        limits = limits or Limits()
        self._store = store
        self._node_name = node_name
        self._log = log
        self._stopping = threading.Event()
        self._reach = Reach(store.put_api_peers, look_up, log)
        self._api = ApiServer(kubeconfig, limits, master=master, reach=self._reach)
        self.health = SourceHealth()
        """How the watches go."""
        services = Resource(
            "services",
            "Service",
            "/api/v1/services",
            _SELECTOR,
            read_service,
            store.replace_services,
            store.put_service,
            store.remove_service,
            store.reject,
        )
        slices = Resource(
            "endpointslices",
            "EndpointSlice",
            "/apis/discovery.k8s.io/v1/endpointslices",
            _SELECTOR,
            read_endpoint_slice,
            store.replace_slices,
            store.put_slice,
            store.remove_slice,
            store.reject,
        )
        node = Resource(
            "nodes",
            "Node",
            "/api/v1/nodes",
            {"fieldSelector": f"metadata.name={node_name}"},
            read_node,
            self._replace_node,
            self._put_node,
            lambda _: store.remove_node(),
            store.reject,
        )
        self._node_addresses = NodeAddresses(self._api, store.put_node_addresses, limits, self._stopping, log)
        watchers = (
            Watcher(self._api, services, limits, self._stopping, self.health.follow(services.name), log),
            Watcher(self._api, slices, limits, self._stopping, self.health.follow(slices.name), log),
            Watcher(self._api, node, limits, self._stopping, self.health.follow(node.name), log),
        )
        # First: their answers are small, and the first sync waits for them.
        self._threads = [
            threading.Thread(target=self._reach.run, name="api-server-name", daemon=True),
            threading.Thread(target=self._node_addresses.run, name="node-addresses", daemon=True),
        ]
        self._threads += [
            threading.Thread(target=watcher.run, name=f"watch-{watcher.name}", daemon=True)
            for watcher in watchers
        ]

    @property
    def api_server(self) -> ApiServer:
        """The API server, for whoever else asks it; `stop` ends these requests too."""
        return self._api

    def start(self) -> None:
        """Start to follow the API server, now and through every outage."""
        self._log.info("watching the API server", url=self._api.url, node=self._node_name)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Make the threads end soon, also while nothing comes; the store keeps what it has."""
        self._stopping.set()
        self._reach.stop()
        self._api.stop()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the threads to end after `stop`, at most for `timeout` seconds.

        One that waits for a server's first byte can't be woken and may outlive that; it does nothing any more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join(None if deadline is None else max(0, deadline - time.monotonic()))

    def _replace_node(self, nodes: list[Node], rejections: list[Rejection]) -> None:
        self._require_own(*(node.name for node in nodes))
        if not nodes and not rejections:
            self._log.warning(
                "the API server has no such node",
                node=self._node_name,
                remedy="give the node's name with --hostname-override, or let the kubelet register it",
            )
        # The own Node is what the first sync waits for, and no Service may take over an address of these meanwhile.
        for addresses in (self._reach.known, self._node_addresses.asked):
            addresses.wait(ADDRESSES_PATIENCE)
        self._store.replace_node(nodes[0] if nodes else None, rejections)

    def _put_node(self, node: Node, rejections: Iterable[Rejection]) -> None:
        self._require_own(node.name)
        self._store.put_node(node, rejections)

    def _require_own(self, *names: str) -> None:
        """Raise NotAskedForError for a Node that the field selector leaves out: its addresses are another node's."""
        for name in names:
            if name != self._node_name:
                raise NotAskedForError(f"node {name} came for node {self._node_name}")
