"""What clients outside the cluster use: node ports on 20 addresses, and endpoints of the node itself.

Run it in a kernel with IPVS, as root: `python -m bench.external`. One Service has 250 endpoints, 20 Services have node
ports, and all the others a ClusterIP and 10 endpoints. Each figure stands beside the one that it has to be read with.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bench.common import (
    NODE_NAME,
    AgentInProcess,
    endpoint_slice,
    in_new_network_namespace,
    machine,
    services,
)
from ipvsproxy.model.objects import ServiceType

if TYPE_CHECKING:
    from ipvsproxy.model.objects import Service

ENDPOINTS = 10
MANY_ENDPOINTS = 250
NODE_PORT_SERVICES = 20
NODE_ADDRESSES = tuple(f"198.51.100.{number}" for number in range(1, 21))
ROUNDS = 200
ADDRESS_ROUNDS = 30


class Figures(NamedTuple):
    """The medians of what changes take, in microseconds."""

    cluster_ip: float
    node_ports: float
    local_endpoint: float
    address_comes: float
    address_goes: float


def measure(service_count: int) -> Figures:
    """Measure on one node; the first Service has node ports, the last one has not."""
    for address in NODE_ADDRESSES:
        _ip("add", address)
    given = [_with_node_port(number, each) for number, each in enumerate(services(service_count))]
    first, last = 0, service_count - 1
    slices = {number: endpoint_slice(number, ENDPOINTS) for number in range(service_count)}
    slices[first], slices[last] = (endpoint_slice(number, MANY_ENDPOINTS) for number in (first, last))
    agent = AgentInProcess(given, slices.values())
    local = service_count // 2
    comes, goes = [], []
    for _ in range(ADDRESS_ROUNDS):
        _ip("delete", NODE_ADDRESSES[-1])
        goes.append(agent.change_addresses())
        _ip("add", NODE_ADDRESSES[-1])
        comes.append(agent.change_addresses())
    return Figures(
        _median_change(agent, last, MANY_ENDPOINTS),
        _median_change(agent, first, MANY_ENDPOINTS),
        _median_change(agent, local, 1, node=NODE_NAME),
        statistics.median(comes),
        statistics.median(goes),
    )


def _median_change(agent: AgentInProcess, number: int, endpoints: int, node: str = "") -> float:
    """Return what it takes when an endpoint of a Service leaves and returns."""
    agent.change(endpoint_slice(number, endpoints, node=node))
    return statistics.median(
        agent.change(endpoint_slice(number, endpoints, unready=change % 2, node=node))
        for change in range(1, ROUNDS + 1)
    )


def _with_node_port(number: int, service: Service) -> Service:
    if number >= NODE_PORT_SERVICES:
        return service
    ports = tuple(port._replace(node_port=30000 + number) for port in service.ports)
    return service._replace(type=ServiceType.NODE_PORT, ports=ports)


def _ip(command: str, address: str) -> None:
    subprocess.run(["ip", "address", command, f"{address}/32", "dev", "lo"], check=True)


def main() -> None:
    """Measure both sizes and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=10_000)
    arguments = parser.parse_args()
    print(machine())
    for count in (arguments.few, arguments.many):
        figures = in_new_network_namespace(partial(measure, count))
        virtual_servers = 1 + len(NODE_ADDRESSES)
        print(f"{count} services")
        print(f"  one of {MANY_ENDPOINTS} endpoints, ClusterIP alone      {figures.cluster_ip:8.0f} µs")
        print(
            f"  the same, and node ports: {virtual_servers} virtual servers {figures.node_ports:8.0f} µs, "
            f"{figures.node_ports / figures.cluster_ip:.1f} times as much"
        )
        print(f"  an endpoint of this node, and the nft run    {figures.local_endpoint:8.0f} µs")
        print(f"  an address of the node comes                 {figures.address_comes:8.0f} µs")
        print(f"  an address of the node goes                  {figures.address_goes:8.0f} µs")


if __name__ == "__main__":
    main()
