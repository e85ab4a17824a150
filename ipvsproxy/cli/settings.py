"""From the configuration to the settings of the parts: what the rules, the kernel and IPVS are set to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ipvsproxy.config.settings import DetectLocalMode
from ipvsproxy.kernel.interface import ConnectionTimeouts
from ipvsproxy.plan.firewall import FirewallSettings, PodInterfaces, PodNetworks
from ipvsproxy.plan.services import PlanSettings
from ipvsproxy.plan.sysctls import (
    ConntrackSettings,
    SysctlSettings,
    conntrack_maximum,
    parse_kernel_release,
)
from ipvsproxy.reconcile.controller import Settings

if TYPE_CHECKING:
    from ipvsproxy.config.settings import Config
    from ipvsproxy.model.objects import Node
    from ipvsproxy.plan.sysctls import Ipv6Found

# A comparison with the kernel may take so long, and one of them may fail, before the agent counts as unhealthy.
_GRACE = 10.0


def controller_settings(config: Config) -> Settings:
    """Return what the reconciler is set to."""
    return Settings(
        node_name=config.node_name,
        plan=PlanSettings(config.scheduler, config.drain_timeout, config.allowed_external_ips),
        node_ports=config.node_port_addresses,
        cluster_cidrs=config.cluster_cidrs,
        firewall=partial(firewall_settings, config),
        sync_period=config.sync_period,
        minimum_sync_period=config.min_sync_period,
        agent_ports=frozenset(
            place[1]
            for place in (config.healthz_bind_address, config.metrics_bind_address)
            if place and not any(place[0])
        ),
    )


def firewall_settings(config: Config, node: Node | None) -> FirewallSettings:
    """Return what the rules depend on; `node` is the own Node, None as long as it is not known."""
    return FirewallSettings(_pods(config, node), config.masquerade_all, config.masquerade_bit)


def _pods(config: Config, node: Node | None) -> PodNetworks | PodInterfaces:
    match config.detect_local_mode:
        case DetectLocalMode.CLUSTER_CIDR:
            return PodNetworks(config.cluster_cidrs)
        case DetectLocalMode.NODE_CIDR:
            return PodNetworks(node.pod_cidrs if node else ())
        case DetectLocalMode.BRIDGE_INTERFACE:
            return PodInterfaces(config.pod_bridge_interface)
        case DetectLocalMode.INTERFACE_NAME_PREFIX:
            return PodInterfaces(f"{config.pod_interface_name_prefix}*")


def sysctl_settings(config: Config, release: str, cpus: int, ipv6: Ipv6Found | None) -> SysctlSettings:
    """Return what the kernel's settings depend on: its release (uname -r), its CPUs, and what it has for IPv6."""
    return SysctlSettings(
        parse_kernel_release(release),
        ipv6,
        config.strict_arp,
        ConntrackSettings(
            conntrack_maximum(config.conntrack_max_per_core, config.conntrack_min, cpus),
            config.conntrack_tcp_established_timeout,
            config.conntrack_tcp_close_wait_timeout,
            config.conntrack_tcp_be_liberal,
            config.conntrack_udp_timeout,
            config.conntrack_udp_stream_timeout,
        ),
    )


def connection_timeouts(config: Config) -> ConnectionTimeouts:
    """Return how long IPVS is to keep idle connections."""
    return ConnectionTimeouts(config.ipvs_tcp_timeout, config.ipvs_tcp_fin_timeout, config.ipvs_udp_timeout)


def patience(config: Config) -> float:
    """Return for how long the last comparison with the kernel makes the agent healthy, in seconds."""
    return 2 * config.sync_period + _GRACE
