"""One changed endpoint, from the decoded event to the kernel, among many Services beside few.

Run it in a kernel with IPVS, as root: `python -m bench.change`. The cost should be that of the change: the ratio is
what counts.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

from bench.common import AgentInProcess, endpoint_slice, in_new_network_namespace, machine, services

ENDPOINTS = 10
ROUNDS = 3


def measure(service_count: int, changes: int, changed_services: int) -> list[float]:
    """Return the microseconds that each change took: an endpoint leaves, or returns."""
    slices = [endpoint_slice(number, ENDPOINTS) for number in range(service_count)]
    agent = AgentInProcess(services(service_count), slices)
    times = []
    for change in range(changes):
        leaves = change // changed_services % 2 == 0
        times.append(agent.change(endpoint_slice(change % changed_services, ENDPOINTS, unready=int(leaves))))
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
