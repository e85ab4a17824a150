"""What is watched, and where its objects go."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from ipvsproxy.source.decode import read_endpoint_slice, read_node, read_service
from ipvsproxy.source.health import SourceHealth
from ipvsproxy.source.kubernetes.client import ApiServer, Limits
from ipvsproxy.source.kubernetes.node_addresses import NodeAddresses
from ipvsproxy.source.kubernetes.watch import Resource, Watcher

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.objects import Node
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.source.store import Store

# A Service that names another proxy is that proxy's; a headless one has no address to serve.
_SELECTOR: Final = {
    "labelSelector": "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
}


# Seconds that the own Node is held back until the other nodes' addresses are known, or can't be had.
NODE_ADDRESSES_PATIENCE: Final = 10.0


class KubernetesSource:
    """Fills the store from the API server, with a thread each for Services, EndpointSlices and the own Node.

    One more lists the addresses of all nodes now and then; nothing waits for it.
    """

    def __init__(
        self,
        kubeconfig: Path | None,
        store: Store,
        node_name: str,
        log: FilteringBoundLogger,
        *,
        limits: Limits | None = None,
    ) -> None:
        """Read the configuration, and send nothing before `start`.

        Without a kubeconfig the pod's own service account is used. UsageError names the file, or the part of the
        service account, that can't be used.
        """
        limits = limits or Limits()
        self._store = store
        self._node_name = node_name
        self._log = log
        self._stopping = threading.Event()
        self._api = ApiServer(kubeconfig, limits)
        self.health = SourceHealth()
        """How the watches go."""
        services = Resource(
            "services",
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
            "/api/v1/nodes",
            {"fieldSelector": f"metadata.name={node_name}"},
            read_node,
            self._replace_node,
            store.put_node,
            lambda _: store.remove_node(),
            store.reject,
        )
        self._node_addresses = NodeAddresses(self._api, store.put_node_addresses, limits, self._stopping, log)
        watchers = (
            Watcher(self._api, services, limits, self._stopping, self.health.follow(services.name), log),
            Watcher(self._api, slices, limits, self._stopping, self.health.follow(slices.name), log),
            Watcher(self._api, node, limits, self._stopping, self.health.follow(node.name), log),
        )
        # First: its answer is small, and the first sync waits for it.
        self._threads = [
            threading.Thread(target=self._node_addresses.run, name="node-addresses", daemon=True)
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
        self._api.stop()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the threads to end after `stop`, at most for `timeout` seconds.

        One that waits for a server's first byte can't be woken and may outlive that; it does nothing any more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join(None if deadline is None else max(0, deadline - time.monotonic()))

    def _replace_node(self, nodes: list[Node], rejections: list[Rejection]) -> None:
        if not nodes and not rejections:
            self._log.warning(
                "the API server has no such node",
                node=self._node_name,
                remedy="give the node's name with --hostname-override, or let the kubelet register it",
            )
        # The own Node is what the first sync waits for, and no Service may take over another node's address meanwhile.
        self._node_addresses.asked.wait(NODE_ADDRESSES_PATIENCE)
        self._store.replace_node(nodes[0] if nodes else None, rejections)
