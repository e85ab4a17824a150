"""What the benches share: fresh network namespaces, Services to program, and the lines that they print."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import structlog

from ipvsproxy.kernel.address_notices import AddressChange
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.model.addresses import Address, Family
from ipvsproxy.model.objects import (
    Endpoint,
    EndpointSlice,
    ObjectKey,
    Protocol,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
)
from ipvsproxy.model.selection import NodePortAddresses
from ipvsproxy.plan.endpoints import Here
from ipvsproxy.plan.firewall import FirewallSettings
from ipvsproxy.plan.node import NodeFacts
from ipvsproxy.plan.services import Context, PlanSettings
from ipvsproxy.reconcile.controller import Controller, Settings
from ipvsproxy.source.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Result = TypeVar("Result")

NODE_NAME = "node-a"
CONTEXT = Context(PlanSettings("rr", 900.0, ()), NodeFacts(Here(NODE_NAME)))

CLONE_NEWNET = 0x40000000  # linux/sched.h


def in_new_network_namespace(measure: Callable[[], Result]) -> Result:
    """Return what `measure` returns in a thread with an empty network namespace of its own.

    IPVS searches the real servers that were deleted within the last two minutes for each one that is added, so
    a measurement in a used namespace would be another one.
    """

    def enter_and_measure() -> Result:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare: run the bench as root")
        # Without any address the kernel takes no real servers.
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return measure()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter_and_measure).result()


class AgentInProcess:
    """A controller on the kernel of this thread's network namespace, with a store in place of a source."""

    def __init__(self, services: Iterable[Service], slices: Iterable[EndpointSlice]) -> None:
        """Program the Services."""
        self._store = Store()
        self._store.replace_services(services)
        self._store.replace_slices(slices)
        self._store.replace_node(None)
        log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[])
        settings = Settings(
            NODE_NAME, CONTEXT.settings, NodePortAddresses(), (), lambda _: FirewallSettings(), 3600.0, 0.0
        )
        self._controller = Controller(
            self._store, open_node_kernel(FirewallSettings()), settings, time.monotonic, log
        )
        while self._controller.step().seconds == 0:
            pass

    def change(self, changed: EndpointSlice) -> float:
        """Deliver a changed EndpointSlice; return the microseconds until the kernel has it."""
        began = time.perf_counter()
        self._store.put_slice(changed)
        self._controller.step()
        return (time.perf_counter() - began) * 1e6

    def change_addresses(self) -> float:
        """Tell that the node's addresses changed; return the microseconds until the kernel has what follows."""
        began = time.perf_counter()
        self._controller.addresses_changed(AddressChange(elsewhere=True))
        self._controller.step()
        return (time.perf_counter() - began) * 1e6


def machine() -> str:
    """Return a line that names the machine, the kernel and Python."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    kernel = f"Linux {platform.release()}"
    if any("user mode" in line.lower() for line in _lines("/proc/cpuinfo")):
        kernel += " (user-mode)"
    return f"{cpu}, {os.cpu_count()} CPU, {kernel}, Python {platform.python_version()}"


def services(count: int) -> list[Service]:
    """Return Services default/service-0 … with clusterIPs from 10.96.0.0 on and one port."""
    return [
        Service(
            ObjectKey("default", f"service-{number}"),
            ServiceType.CLUSTER_IP,
            (Address((0x0A600000 + number).to_bytes(4)),),
            (ServicePort("", Protocol.TCP, 80),),
        )
        for number in range(count)
    ]


def endpoint_slice(number: int, endpoints: int, *, unready: int = 0, node: str = "") -> EndpointSlice:
    """Return the EndpointSlice of Service `number`; the first `unready` are not ready.

    The endpoints are each on another node, or all on `node`.
    """
    name = f"service-{number}"
    first = 0x0AF40000 + number * endpoints
    return EndpointSlice(
        ObjectKey("default", f"{name}-abcde"),
        ObjectKey("default", name),
        Family.IPV4,
        (SlicePort("", Protocol.TCP, 8080),),
        tuple(
            Endpoint(
                Address((first + each).to_bytes(4)),
                ready=each >= unready,
                serving=each >= unready,
                node_name=node or f"node-{each}",
            )
            for each in range(endpoints)
        ),
    )


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - one line either way
        return file.readlines()
