"""A Service with very many source ranges and ports beside others: what they wait for at a start, and at a change.

Run it in a kernel with IPVS, as root: `python -m bench.source_ranges`.
"""

from __future__ import annotations

import time
from functools import partial

import structlog

from bench.common import CONTEXT, NODE_NAME, endpoint_slice, in_new_network_namespace, machine, services
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.model.addresses import Address, Network
from ipvsproxy.model.objects import ObjectKey, Protocol, Service, ServicePort, ServiceType
from ipvsproxy.model.selection import NodePortAddresses
from ipvsproxy.plan.firewall import FirewallSettings
from ipvsproxy.plan.services import plan_service
from ipvsproxy.reconcile.controller import Controller, Settings
from ipvsproxy.source.store import Store

OTHERS = 100
SIZES = ((1, 10), (100, 1000), (1600, 1000), (1600, 20_000))


def restricted(ports: int, ranges: int) -> Service:
    """Return a Service with a load balancer's IP, so many ports and so many source ranges."""
    return Service(
        ObjectKey("default", "restricted"),
        ServiceType.LOAD_BALANCER,
        (Address(bytes((10, 97, 0, 1))),),
        tuple(ServicePort(f"p{number}", Protocol.TCP, number) for number in range(1, ports + 1)),
        load_balancer_ips=(Address(bytes((203, 0, 113, 1))),),
        load_balancer_source_ranges=tuple(
            Network(Address((0x0A000000 + 256 * number).to_bytes(4)), 24) for number in range(ranges)
        ),
    )


def measure(ports: int, ranges: int) -> tuple[float, float, float, float]:
    """Return the seconds of planning it, of the first sync, until all ranges are there, and of another's change."""
    service = restricted(ports, ranges)
    began = time.monotonic()
    plan_service(service, (), CONTEXT)
    planned = time.monotonic() - began
    store = Store()
    store.replace_services([service, *services(OTHERS)])
    store.replace_slices(endpoint_slice(number, 10) for number in range(OTHERS))
    store.replace_node(None)
    log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[])
    settings = Settings(
        NODE_NAME, CONTEXT.settings, NodePortAddresses(), (), lambda _: FirewallSettings(), 3600.0, 0.0
    )
    kernel = open_node_kernel(FirewallSettings())
    controller = Controller(store, kernel, settings, time.monotonic, log)
    began = time.monotonic()
    controller.step()
    synced = time.monotonic() - began
    while controller.step().seconds == 0:
        pass
    complete = time.monotonic() - began
    began = time.monotonic()
    store.put_slice(endpoint_slice(0, 10, unready=10))
    controller.step()
    return planned, synced, complete, time.monotonic() - began


def main() -> None:
    """Print a line for each size."""
    print(machine())
    print("ports   ranges   planning   first sync   all ranges   a change of another Service (seconds)")
    for ports, ranges in SIZES:
        figures = in_new_network_namespace(partial(measure, ports, ranges))
        print(
            f"{ports:5} {ranges:8} {figures[0]:10.3f} {figures[1]:12.2f} {figures[2]:12.2f} {figures[3]:12.2f}"
        )


if __name__ == "__main__":
    main()
