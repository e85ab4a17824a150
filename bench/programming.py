"""Programming many Services at once, beside a bare loop that sends the same netlink bytes ready-made.

Run it in a kernel with IPVS, as root: `python -m bench.programming`. The agent's time goes from the planned to the
confirmed state: compare, encode, send, and learn what became of each request. The firewall and the addresses, in
which the bare loop has no part, are counted in a line of their own.
"""

from __future__ import annotations

import argparse
import random
import time
from functools import partial
from typing import TYPE_CHECKING, cast

import structlog

from bench.common import CONTEXT, endpoint_slice, in_new_network_namespace, machine, services
from bench.netlink import bare_loop, plan
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.plan.desired import Touched
from ipvsproxy.plan.firewall import FirewallSettings
from ipvsproxy.plan.services import plan_service
from ipvsproxy.reconcile.state import NodeState

if TYPE_CHECKING:
    from collections.abc import Collection

    from ipvsproxy.kernel.interface import Addresses, Firewall, KernelError, NodeKernel
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SetElement

ROUNDS = 5


class NoAddresses:
    """Takes addresses and binds none."""

    def apply(self, add: Collection[Address], remove: Collection[Address]) -> dict[Address, KernelError]:
        del add, remove
        return {}


class NoFirewall:
    """Takes elements and keeps none."""

    def change(self, add: Collection[SetElement], remove: Collection[SetElement]) -> None:
        del add, remove


def agent(service_count: int, endpoints: int, *, ipvs_only: bool) -> float:
    """Return the seconds from the planned to the confirmed state."""
    kernel: NodeKernel = open_node_kernel(FirewallSettings())
    kernel.addresses.ensure_interface()
    kernel.firewall.install(())
    if ipvs_only:
        kernel = kernel._replace(
            addresses=cast("Addresses", NoAddresses()), firewall=cast("Firewall", NoFirewall())
        )
    log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[])
    state = NodeState(kernel, log, random.shuffle)
    touched = Touched()
    for number, service in enumerate(services(service_count)):
        planned = plan_service(service, [endpoint_slice(number, endpoints)], CONTEXT)
        touched.update(state.desired.replace(service.key, planned))
    began = time.perf_counter()
    outcome = state.settle(touched, 0.0)
    seconds = time.perf_counter() - began
    if outcome.failures:
        raise RuntimeError(next(iter(outcome.failures.values())))
    return seconds


def main() -> None:
    """Measure in turns and print the least disturbed figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("services", type=int, nargs="?", default=1000)
    parser.add_argument("endpoints", type=int, nargs="?", default=10)
    arguments = parser.parse_args()
    count, endpoints = arguments.services, arguments.endpoints
    messages = plan(count, endpoints)
    bare, ipvs, everything = [], [], []
    for _ in range(ROUNDS):
        bare.append(in_new_network_namespace(partial(bare_loop, messages)))
        ipvs.append(in_new_network_namespace(partial(agent, count, endpoints, ipvs_only=True)))
        everything.append(in_new_network_namespace(partial(agent, count, endpoints, ipvs_only=False)))
    each = 1e6 / len(messages)
    print(machine())
    print(f"{count} services of {endpoints} endpoints, {len(messages)} messages")
    print(f"bare loop of ready-made bytes    {min(bare) * each:6.2f} µs a message")
    print(f"compare, encode, send, confirm   {min(ipvs) * each:6.2f} µs a message")
    print(f"with firewall and addresses      {min(everything) * 1e3:6.1f} ms in all")
    print(f"ratio to the bare loop {min(ipvs) / min(bare):.2f} (at most 6)")


if __name__ == "__main__":
    main()
