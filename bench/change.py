"""One changed endpoint, from the decoded event to the kernel, among many Services beside few.

Run it in a kernel with IPVS, as root: `python -m bench.change`. The cost should be that of the change: the ratio is
what counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import structlog

from bench.common import CONTEXT, NODE_NAME, endpoint_slice, in_new_network_namespace, machine, services
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.model.selection import NodePortAddresses
from ipvsproxy.plan.firewall import FirewallSettings
from ipvsproxy.reconcile.controller import Controller, Settings
from ipvsproxy.source.store import Store

ENDPOINTS = 10
ROUNDS = 3


class Agent:
    """A controller on the kernel of this thread's network namespace, with a store in place of a source."""

    def __init__(self, service_count: int) -> None:
        """Program the Services."""
        self.store = Store()
        self.store.replace_services(services(service_count))
        self.store.replace_slices(endpoint_slice(number, ENDPOINTS) for number in range(service_count))
        log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[])
        self.store.replace_node(None)
        settings = Settings(
            NODE_NAME, CONTEXT.settings, NodePortAddresses(), (), lambda _: FirewallSettings(), 3600.0, 0.0
        )
        self.controller = Controller(
            self.store, open_node_kernel(FirewallSettings()), settings, time.monotonic, log
        )
        self.settle()

    def settle(self) -> None:
        """Step until there is nothing to do."""
        while self.controller.step().seconds == 0:
            pass

    def change(self, number: int, *, leaves: bool) -> float:
        """Let an endpoint of a Service leave or return; return the microseconds until the kernel has it."""
        changed = endpoint_slice(number, ENDPOINTS, unready=int(leaves))
        began = time.perf_counter()
        self.store.put_slice(changed)
        self.controller.step()
        return (time.perf_counter() - began) * 1e6


def measure(service_count: int, changes: int, changed_services: int) -> list[float]:
    """Return the microseconds that each change took."""
    agent = Agent(service_count)
    times = []
    for change in range(changes):
        leaves = change // changed_services % 2 == 0
        times.append(agent.change(change % changed_services, leaves=leaves))
    return times


def main() -> None:
    """Measure both sizes in turns and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=50)
    parser.add_argument("--many", type=int, default=5000)
    parser.add_argument("--changes", type=int, default=1000)
    arguments = parser.parse_args()
    print(machine())
    times: dict[int, list[float]] = {arguments.few: [], arguments.many: []}
    for _ in range(ROUNDS):
        for count, so_far in times.items():
            so_far.extend(in_new_network_namespace(partial(measure, count, arguments.changes, arguments.few)))
    medians = {count: statistics.median(so_far) for count, so_far in times.items()}
    for count, so_far in times.items():
        slow = statistics.quantiles(so_far, n=100)[98]
        print(f"{count:6} services: {medians[count]:6.1f} µs a change, 99th percentile {slow:.1f} µs")
    print(f"ratio {medians[arguments.many] / medians[arguments.few]:.2f} (at most 1.3)")


if __name__ == "__main__":
    main()
