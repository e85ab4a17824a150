"""A node in memory: a store to write to, strict fakes of the kernel, and a clock that tests move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from ipvsproxy.kernel.address_notices import AddressChange
from ipvsproxy.kernel.fake import FakeAddresses, FakeIpvs
from ipvsproxy.kernel.fake_conntrack import FakeConntrack
from ipvsproxy.kernel.fake_firewall import FakeFirewall
from ipvsproxy.kernel.interface import NodeKernel
from ipvsproxy.model.objects import Node, Service
from ipvsproxy.model.selection import NodePortAddresses
from ipvsproxy.plan.firewall import FirewallSettings, PodNetworks
from ipvsproxy.reconcile.controller import Controller, Settings
from ipvsproxy.reconcile.hooks import Hooks
from ipvsproxy.source.store import Store
from tests.builders import NODE
from tests.plan import context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import IpvsOperation, VirtualServerKey
    from ipvsproxy.model.objects import EndpointSlice, ObjectKey
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.plan.node import NodeFacts
    from ipvsproxy.plan.services import HealthCheck
    from ipvsproxy.reconcile.apply import Shuffle


def firewall(node: Node | None) -> FirewallSettings:
    """Recognise pods by the networks of their Node."""
    return FirewallSettings(PodNetworks(node.pod_cidrs if node else ()))


SETTINGS = Settings(
    NODE, context.SETTINGS, NodePortAddresses(), (), firewall, sync_period=30.0, minimum_sync_period=0.0
)


def _keep_order(operations: list[IpvsOperation]) -> None:
    """Leave real servers in the order of the plan."""


class World:
    """The kernel outlives the agent: `restart` begins with a new store and a new controller."""

    def __init__(
        self, settings: Settings = SETTINGS, hooks: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self.settings = settings
        self.hooks = hooks or {}
        self.log: list[object] = []
        self.ipvs = FakeIpvs(self.log)
        self.addresses = FakeAddresses(self.log)
        self.firewall = FakeFirewall(self.log)
        self.conntrack = FakeConntrack(self.log)
        self.now = 1000.0
        self.shuffle: Shuffle = _keep_order
        self.events = structlog.testing.LogCapture()
        self.restart()

    def restart(self) -> None:
        self.firewall.reopen()
        self.store = Store()
        self.health_checks: dict[ObjectKey, HealthCheck] = {}
        self.rejected: list[Rejection] = []
        self.facts: list[NodeFacts] = []
        self.successes = 0
        kernel = NodeKernel(self.ipvs, self.addresses, self.firewall, self.conntrack)
        hooks = Hooks(
            succeeded=self._succeeded,
            rejected=self.rejected.append,
            health_check_changed=self._check,
            node_changed=self.facts.append,
            shuffle=self.shuffle,
        )._replace(**self.hooks)
        log = structlog.wrap_logger(None, processors=[self.events], wrapper_class=structlog.BoundLogger)
        self.controller = Controller(self.store, kernel, self.settings, lambda: self.now, log, hooks)

    @property
    def owners(self) -> Mapping[VirtualServerKey, ObjectKey]:
        """The virtual servers that the agent wants, with their Services."""
        return self.controller.planned().owners

    def _succeeded(self) -> None:
        self.successes += 1

    def _check(self, service: ObjectKey, check: HealthCheck | None) -> None:
        self.health_checks.pop(service, None)
        if check:
            self.health_checks[service] = check

    def list_objects(self, *objects: Service | EndpointSlice, node: Node | None = None) -> None:
        """Let the source deliver the lists, and settle."""
        self.store.replace_node(node)
        self.store.replace_services(each for each in objects if isinstance(each, Service))
        self.store.replace_slices(each for each in objects if not isinstance(each, Service))
        self.settle()

    def put(self, *objects: Service | EndpointSlice | Node) -> None:
        """Let the source deliver changes, and settle."""
        for each in objects:
            if isinstance(each, Node):
                self.store.put_node(each)
            elif isinstance(each, Service):
                self.store.put_service(each)
            else:
                self.store.put_slice(each)
        self.settle()

    def change_addresses(self, *addresses: Address, alone: tuple[Address, ...] = ()) -> None:
        """Give the node these addresses in place of those it has, beside the dummy interface's, and settle.

        Its interfaces hold those of `alone` without a network.
        """
        self.addresses.other_addresses.clear()
        self.addresses.other_addresses.update(addresses, alone)
        self.addresses.lone_addresses = set(alone)
        self.controller.addresses_changed(AddressChange(elsewhere=True))
        self.settle()

    def delete_addresses(self, *addresses: Address) -> None:
        """Delete service addresses as somebody else does, and settle."""
        assert self.addresses.apply((), addresses) == {}
        self.log.clear()
        self.controller.addresses_changed(AddressChange(deleted=frozenset(addresses)))
        self.settle()

    def drain_timeout(self, key: VirtualServerKey) -> float:
        """Return how many seconds the Service that has the virtual server now gives those who leave it."""
        planned = self.controller._state.desired.virtual_servers.get(key)  # noqa: SLF001 - the loop is not running
        return planned.drain_timeout if planned else 0.0

    def restricted(self) -> set[VirtualServerKey]:
        """Return the virtual servers that not every source may use, as they should be now."""
        desired = self.controller._state.desired.virtual_servers  # noqa: SLF001 - the loop is not running
        return {key for key, planned in desired.items() if planned.allowed_sources is not None}

    def settle(self) -> None:
        """Step until there is nothing to do at this time."""
        for _ in range(1000):
            if self.controller.step().seconds != 0:
                return
        raise AssertionError("the controller does not come to rest")

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def taken_log(self) -> list[object]:
        """Return what took effect since the last look."""
        taken = list(self.log)
        self.log.clear()
        return taken
