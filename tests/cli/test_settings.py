"""What the configuration sets the parts of the agent to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.run import RunArguments
from ipvsproxy.cli.settings import (
    connection_timeouts,
    controller_settings,
    firewall_settings,
    sysctl_settings,
)
from ipvsproxy.kernel.interface import ConnectionTimeouts
from ipvsproxy.model.addresses import parse_network
from ipvsproxy.model.objects import Node
from ipvsproxy.plan.firewall import FirewallSettings, PodInterfaces, PodNetworks
from ipvsproxy.plan.sysctls import ConntrackSettings, Ipv6Found, KernelVersion, SysctlSettings

if TYPE_CHECKING:
    from ipvsproxy.config.settings import Config

NODE = Node("node-1", pod_cidrs=(parse_network("10.244.7.0/24"), parse_network("fd00:244:7::/64")))
RELEASE = "6.1.0-18-amd64"


def config(*words: str) -> Config:
    arguments = parse(["run", *words], hostname="node-1")
    assert isinstance(arguments, RunArguments)
    return arguments.config


class TestPods:
    def test_with_cluster_cidr_come_from_the_networks_of_all_nodes(self) -> None:
        pods = PodNetworks((parse_network("10.244.0.0/16"), parse_network("fd00:244::/56")))
        words = ("--cluster-cidr", "10.244.0.0/16,fd00:244::/56")
        assert firewall_settings(config(*words), NODE).pods == pods
        assert firewall_settings(config(*words), None).pods == pods

    def test_are_like_all_others_without_a_cluster_cidr(self) -> None:
        assert firewall_settings(config(), NODE) == FirewallSettings()

    def test_with_node_cidr_come_from_the_networks_of_their_node(self) -> None:
        node_cidr = config("--detect-local-mode", "NodeCIDR", "--cluster-cidr", "10.244.0.0/16")
        assert firewall_settings(node_cidr, NODE).pods == PodNetworks(NODE.pod_cidrs)

    def test_with_node_cidr_are_like_all_others_as_long_as_the_node_is_not_known(self) -> None:
        assert firewall_settings(config("--detect-local-mode", "NodeCIDR"), None).pods == PodNetworks(())

    def test_with_a_bridge_interface_arrive_by_it(self) -> None:
        bridge = config("--detect-local-mode", "BridgeInterface", "--pod-bridge-interface", "cni0")
        assert firewall_settings(bridge, NODE).pods == PodInterfaces("cni0")

    def test_with_a_prefix_arrive_by_all_interfaces_whose_names_begin_so(self) -> None:
        prefix = config("--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix", "cali")
        assert firewall_settings(prefix, NODE).pods == PodInterfaces("cali*")


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        ((), {10256}),
        (("--metrics-bind-address=0.0.0.0:10249", "--healthz-bind-address=[::]:9000"), {10249, 9000}),
        (("--metrics-bind-address=198.51.100.1:10249", "--healthz-bind-address=none"), set()),
    ],
)
def test_the_agent_is_reached_at_every_address_where_it_answers_at_all_of_them(
    words: tuple[str, ...], ports: set[int]
) -> None:
    assert controller_settings(config(*words)).agent_ports == ports


def test_the_rules_masquerade_as_configured() -> None:
    everything = config("--masquerade-all", "--iptables-masquerade-bit", "9")
    assert firewall_settings(everything, None) == FirewallSettings(masquerade_all=True, masquerade_bit=9)


@pytest.mark.parametrize(("cpus", "maximum"), [(1, 131072), (4, 131072), (5, 163840), (64, 2097152)])
def test_connection_tracking_is_set_to_kube_proxys_defaults(cpus: int, maximum: int) -> None:
    found = Ipv6Found("0", {"eth0": "1"})
    assert sysctl_settings(config(), RELEASE, cpus, found) == SysctlSettings(
        KernelVersion(6, 1), found, strict_arp=False, conntrack=ConntrackSettings(maximum, 86400, 3600)
    )


def test_connection_tracking_is_set_as_configured() -> None:
    settings = config(
        "--ipvs-strict-arp",
        *("--conntrack-max-per-core", "0", "--conntrack-min", "1000000"),
        *("--conntrack-tcp-timeout-established", "2h", "--conntrack-tcp-timeout-close-wait", "0s"),
        *("--conntrack-udp-timeout", "30s", "--conntrack-udp-timeout-stream", "5m"),
        "--conntrack-tcp-be-liberal",
    )
    assert sysctl_settings(settings, RELEASE, 4, None) == SysctlSettings(
        KernelVersion(6, 1),
        None,
        strict_arp=True,
        conntrack=ConntrackSettings(0, 7200, 0, tcp_be_liberal=True, udp_timeout=30, udp_stream_timeout=300),
    )


def test_ipvs_keeps_its_timeouts_unless_others_are_given() -> None:
    assert connection_timeouts(config()) == ConnectionTimeouts(0, 0, 0)
    assert connection_timeouts(
        config("--ipvs-tcp-timeout", "1h", "--ipvs-tcpfin-timeout", "2m", "--ipvs-udp-timeout", "45s")
    ) == ConnectionTimeouts(3600, 120, 45)
