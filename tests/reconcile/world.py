"""A node in memory: a store to write to, strict fakes of the kernel, and a clock that tests move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from ipvsproxy.kernel.fake import FakeAddresses, FakeIpvs
from ipvsproxy.kernel.fake_firewall import FakeFirewall
from ipvsproxy.kernel.interface import NodeKernel
from ipvsproxy.model.objects import Service
from ipvsproxy.plan.services import PlanSettings
from ipvsproxy.reconcile.controller import Controller, Settings
from ipvsproxy.source.store import Store
from tests.builders import NODE

if TYPE_CHECKING:
    from ipvsproxy.model.objects import EndpointSlice

SETTINGS = Settings(
    plan=PlanSettings(NODE, "rr"), sync_period=30.0, minimum_sync_period=0.0, drain_timeout=900.0
)


class World:
    """The kernel outlives the agent: `restart` begins with a new store and a new controller."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.settings = settings
        self.log: list[object] = []
        self.ipvs = FakeIpvs(self.log)
        self.addresses = FakeAddresses(self.log)
        self.firewall = FakeFirewall(self.log)
        self.now = 1000.0
        self.events = structlog.testing.LogCapture()
        self.restart()

    def restart(self) -> None:
        self.firewall.reopen()
        self.store = Store()
        kernel = NodeKernel(self.ipvs, self.addresses, self.firewall)
        log = structlog.wrap_logger(None, processors=[self.events], wrapper_class=structlog.BoundLogger)
        self.controller = Controller(self.store, kernel, self.settings, lambda: self.now, log)

    def list_objects(self, *objects: Service | EndpointSlice) -> None:
        """Let the source deliver both lists, and settle."""
        self.store.replace_services(each for each in objects if isinstance(each, Service))
        self.store.replace_slices(each for each in objects if not isinstance(each, Service))
        self.settle()

    def put(self, *objects: Service | EndpointSlice) -> None:
        """Let the source deliver changes, and settle."""
        for each in objects:
            if isinstance(each, Service):
                self.store.put_service(each)
            else:
                self.store.put_slice(each)
        self.settle()

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
