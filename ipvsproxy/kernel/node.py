"""The kernel of one node, through the adapters that do I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.kernel.addresses import DummyInterface
from ipvsproxy.kernel.conntrack import ConntrackNetlink
from ipvsproxy.kernel.interface import NodeKernel
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.nft import NftTable

if TYPE_CHECKING:
    from ipvsproxy.plan.firewall import FirewallSettings


def open_node_kernel(settings: FirewallSettings) -> NodeKernel:
    """Open the adapters to the kernel of the calling thread's network namespace.

    KernelUnavailableError says what is missing. `settings` are those that the agent's nftables table is made by.
    """
    return NodeKernel(IpvsNetlink(), DummyInterface(), NftTable(settings, NfTables()), ConntrackNetlink())
