"""A node to ask about: its Services, an agent that wants them, and a kernel that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.kernel.host_firewall import HostFirewall
from ipvsproxy.kernel.nft import FoundTable
from ipvsproxy.kernel.nft_rules import ListedRules
from ipvsproxy.kernel.routes import Route
from ipvsproxy.observe.explain import Question, explain
from ipvsproxy.observe.traced import KernelState
from ipvsproxy.plan.firewall import ruleset
from ipvsproxy.plan.trace.values import Packet
from tests.builders import address, addresses
from tests.observe.node import IDENTITY, kernel_of

if TYPE_CHECKING:
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.observe.explain_schema import Explanation
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.source.store import ServiceState

POD, STRANGER, NODE_ADDRESS = "10.244.1.9", "192.0.2.7", "203.0.113.1"


def kernel_state(*states: ServiceState) -> KernelState:
    """Return a kernel that has exactly what these Services ask for, and one more address of its own."""
    kernel = kernel_of(*states)
    return KernelState(
        table=FoundTable(kernel.firewall, strange=False, rules=ListedRules(ruleset(IDENTITY.firewall), ())),
        virtual_servers=kernel.tables.virtual_servers,
        statuses=kernel.real_servers,
        bound=kernel.bound,
        own=frozenset(addresses(NODE_ADDRESS, "127.0.0.1")),
        listeners=(),
        host_firewall=HostFirewall(),
        routes={
            server.address: Route(
                "eth0", address(NODE_ADDRESS), local=False, next_hop=address("203.0.113.254")
            )
            for each in kernel.virtual_servers.values()
            for server in each.real_servers
        },
    )


def asked(of: VirtualServerKey, source: str | None = POD, interface: str | None = "veth0") -> Question:
    """Return a question about a host's packet, or about one of the node's processes without a source."""
    arrives_by = interface if source else None
    packet = Packet(of.address, of.protocol, of.port, address(source) if source else None, arrives_by)
    return Question(source or "node", packet, of)


def told(
    of: VirtualServerKey, kernel: KernelState, report: AgentReport | None = None, source: str | None = POD
) -> Explanation:
    """Return the answer."""
    return explain(asked(of, source), kernel, report)
