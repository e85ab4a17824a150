"""`Config`: everything that `ipvsproxy run` needs to know, each setting declared once.

A declaration names the reader, the default, the flags and the field of KubeProxyConfiguration; the command line, the
file and the help all come from it. A field of that file without a setting here has no effect, and a warning says so.
"""
# ruff: noqa: RUF009 - `setting` declares a field as `dataclasses.field` does, which the rule knows by name only

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING

from ipvsproxy.config.declaration import Group, Setting, setting
from ipvsproxy.config.durations import parse_duration
from ipvsproxy.config.readers import (
    one_of,
    read_allowed_networks,
    read_boolean,
    read_bridge_interface,
    read_count,
    read_healthz_address,
    read_interface_name_prefix,
    read_mark_bit,
    read_metrics_address,
    read_networks,
    read_node_name,
    read_node_port_addresses,
    read_optional_path,
    read_period,
    read_scheduler,
    read_server,
    read_timeout,
)

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Address, Network
    from ipvsproxy.model.selection import NodePortAddresses


class LogFormat(enum.StrEnum):
    """How log lines look; AUTO is CONSOLE on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(enum.StrEnum):
    """The least important log lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DetectLocalMode(enum.StrEnum):
    """How pods' packets are told from others, with kube-proxy's names.

    By their source in a network: CLUSTER_CIDR, or NODE_CIDR, the Node's own spec.podCIDRs. By the interface that they
    arrive by: BRIDGE_INTERFACE, or INTERFACE_NAME_PREFIX.
    """

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration in effect. Durations are in seconds.

    `node_name` is lower-case. `kubeconfig` None: the service account of the agent's own pod. `master` is the
    API server's address in place of the kubeconfig's, "" for that one. `cluster_cidrs` has at most one network for each
    family. `pod_bridge_interface` and `pod_interface_name_prefix` are for the `detect_local_mode` that needs them, ""
    without. The IPVS and `conntrack_*` timeouts, and `conntrack_max_per_core`,
    are 0 to leave what the kernel has. `healthz_bind_address` and `metrics_bind_address` are address and port, None
    for nowhere. The directory `run_directory` holds the agent's lock and its socket.
    """

    kubeconfig: Path | None = setting(
        read_optional_path,
        "",
        "--kubeconfig",
        metavar="FILE",
        path="clientConnection.kubeconfig",
        group=Group.SOURCE,
        meaning="reach the API server as this kubeconfig says; without it, as the pod's service account",
    )
    master: str = setting(
        read_server,
        "",
        "--master",
        metavar="URL",
        group=Group.SOURCE,
        meaning="reach the API server there, with the kubeconfig's credentials if there is one, else with none",
    )
    scheduler: str = setting(
        read_scheduler,
        "rr",
        "--ipvs-scheduler",
        metavar="NAME",
        path="ipvs.scheduler",
        group=Group.BALANCING,
        meaning="the IPVS scheduler, which picks the endpoint of a new connection",
    )
    strict_arp: bool = setting(
        read_boolean,
        "false",
        "--ipvs-strict-arp",
        metavar="BOOL",
        path="ipvs.strictARP",
        group=Group.BALANCING,
        meaning="answer ARP requests on an interface for that interface's own addresses only "
        "(arp_ignore 1, arp_announce 2)",
    )
    sync_period: float = setting(
        read_period,
        "30s",
        "--sync-period",
        "--ipvs-sync-period",
        metavar="DURATION",
        path="ipvs.syncPeriod",
        group=Group.BALANCING,
        meaning="how often everything is compared with the kernel",
    )
    min_sync_period: float = setting(
        parse_duration,
        "1s",
        "--min-sync-period",
        "--ipvs-min-sync-period",
        metavar="DURATION",
        path="ipvs.minSyncPeriod",
        group=Group.BALANCING,
        meaning="how long changes are collected after one was written; 0s writes each at once",
    )
    drain_timeout: float = setting(
        parse_duration,
        "15m",
        "--drain-timeout",
        metavar="DURATION",
        group=Group.BALANCING,
        meaning="how long an endpoint that goes may keep its connections; 0s cuts them off",
    )
    ipvs_tcp_timeout: int = setting(
        read_timeout,
        "0s",
        "--ipvs-tcp-timeout",
        metavar="DURATION",
        path="ipvs.tcpTimeout",
        group=Group.BALANCING,
        meaning="how long IPVS keeps an idle TCP connection; 0s leaves what is set",
    )
    ipvs_tcp_fin_timeout: int = setting(
        read_timeout,
        "0s",
        "--ipvs-tcpfin-timeout",
        metavar="DURATION",
        path="ipvs.tcpFinTimeout",
        group=Group.BALANCING,
        meaning="how long IPVS keeps a TCP connection after its first FIN; 0s leaves what is set",
    )
    ipvs_udp_timeout: int = setting(
        read_timeout,
        "0s",
        "--ipvs-udp-timeout",
        metavar="DURATION",
        path="ipvs.udpTimeout",
        group=Group.BALANCING,
        meaning="how long IPVS keeps an idle UDP flow; 0s leaves what is set",
    )
    node_port_addresses: NodePortAddresses = setting(
        read_node_port_addresses,
        "all",
        "--nodeport-addresses",
        metavar="CIDR[,CIDR]",
        path="nodePortAddresses",
        group=Group.ADDRESSES,
        meaning="the node's addresses that serve node ports: those in the networks, `primary` for those that "
        "the Node names first, or `all`",
    )
    allowed_external_ips: tuple[Network, ...] = setting(
        read_allowed_networks,
        "0.0.0.0/0,::/0",
        "--allowed-external-ips",
        metavar="CIDR[,CIDR]",
        group=Group.ADDRESSES,
        meaning="the networks that Services may have externalIPs of, or `none`",
    )
    cluster_cidrs: tuple[Network, ...] = setting(
        read_networks,
        "",
        "--cluster-cidr",
        metavar="CIDR[,CIDR]",
        path="clusterCIDR",
        group=Group.MASQUERADING,
        meaning="with ClusterCIDR: the pods' networks, one for each family; without one, all traffic is the pods'",
    )
    detect_local_mode: DetectLocalMode = setting(
        one_of(DetectLocalMode),
        "ClusterCIDR",
        "--detect-local-mode",
        metavar="MODE",
        path="detectLocalMode",
        group=Group.MASQUERADING,
        meaning="how pods' traffic is told from other traffic, which is masqueraded on its way to a ClusterIP: "
        "ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
    )
    pod_bridge_interface: str = setting(
        read_bridge_interface,
        "",
        "--pod-bridge-interface",
        metavar="NAME",
        path="detectLocal.bridgeInterface",
        group=Group.MASQUERADING,
        meaning="with BridgeInterface: pods' traffic arrives by this interface",
    )
    pod_interface_name_prefix: str = setting(
        read_interface_name_prefix,
        "",
        "--pod-interface-name-prefix",
        metavar="PREFIX",
        path="detectLocal.interfaceNamePrefix",
        group=Group.MASQUERADING,
        meaning="with InterfaceNamePrefix: pods' traffic arrives by the interfaces whose names begin so",
    )
    masquerade_all: bool = setting(
        read_boolean,
        "false",
        "--masquerade-all",
        metavar="BOOL",
        path="iptables.masqueradeAll",
        group=Group.MASQUERADING,
        meaning="masquerade all traffic to ClusterIPs",
    )
    masquerade_bit: int = setting(
        read_mark_bit,
        "14",
        "--iptables-masquerade-bit",
        metavar="BIT",
        path="iptables.masqueradeBit",
        group=Group.MASQUERADING,
        meaning="the bit of the packet mark that asks for masquerading, 0 to 31",
    )
    accept_forwarded: bool = setting(
        read_boolean,
        "true",
        "--accept-forwarded",
        metavar="BOOL",
        group=Group.MASQUERADING,
        meaning="where a firewall of the host drops what is forwarded, keep a chain there that accepts answers of "
        "endpoints and other traffic of Services",
    )
    conntrack_max_per_core: int = setting(
        read_count,
        "32768",
        "--conntrack-max-per-core",
        metavar="NUMBER",
        path="conntrack.maxPerCore",
        group=Group.CONNECTION_TRACKING,
        meaning="room for this many connections for each CPU, if there is less; 0 leaves what is set",
    )
    conntrack_min: int = setting(
        read_count,
        "131072",
        "--conntrack-min",
        metavar="NUMBER",
        path="conntrack.min",
        group=Group.CONNECTION_TRACKING,
        meaning="room for no fewer connections than this, however few CPUs there are",
    )
    conntrack_tcp_established_timeout: int = setting(
        read_timeout,
        "24h",
        "--conntrack-tcp-timeout-established",
        metavar="DURATION",
        path="conntrack.tcpEstablishedTimeout",
        group=Group.CONNECTION_TRACKING,
        meaning="how long an idle TCP connection is tracked; 0s leaves what is set",
    )
    conntrack_tcp_close_wait_timeout: int = setting(
        read_timeout,
        "1h",
        "--conntrack-tcp-timeout-close-wait",
        metavar="DURATION",
        path="conntrack.tcpCloseWaitTimeout",
        group=Group.CONNECTION_TRACKING,
        meaning="how long an idle TCP connection is tracked that only the other side has closed; "
        "0s leaves what is set",
    )
    conntrack_tcp_be_liberal: bool = setting(
        read_boolean,
        "false",
        "--conntrack-tcp-be-liberal",
        metavar="BOOL",
        path="conntrack.tcpBeLiberal",
        group=Group.CONNECTION_TRACKING,
        meaning="track TCP packets outside their connection's window too",
    )
    conntrack_udp_timeout: int = setting(
        read_timeout,
        "0s",
        "--conntrack-udp-timeout",
        metavar="DURATION",
        path="conntrack.udpTimeout",
        group=Group.CONNECTION_TRACKING,
        meaning="how long an idle UDP flow without replies is tracked; 0s leaves what is set",
    )
    conntrack_udp_stream_timeout: int = setting(
        read_timeout,
        "0s",
        "--conntrack-udp-timeout-stream",
        metavar="DURATION",
        path="conntrack.udpStreamTimeout",
        group=Group.CONNECTION_TRACKING,
        meaning="how long an idle UDP flow with replies is tracked; 0s leaves what is set",
    )
    node_name: str = setting(
        read_node_name,
        "",
        "--hostname-override",
        metavar="NAME",
        path="hostnameOverride",
        group=Group.AGENT,
        meaning="the name of this Node; without it, the host's own name in lower case",
    )
    healthz_bind_address: tuple[Address, int] | None = setting(
        read_healthz_address,
        "0.0.0.0:10256",
        "--healthz-bind-address",
        metavar="ADDRESS[:PORT]",
        path="healthzBindAddress",
        group=Group.AGENT,
        meaning="where health checks of the node are answered, at /healthz, /livez and /readyz; `none` for nowhere",
    )
    metrics_bind_address: tuple[Address, int] | None = setting(
        read_metrics_address,
        "127.0.0.1:10249",
        "--metrics-bind-address",
        metavar="ADDRESS[:PORT]",
        path="metricsBindAddress",
        group=Group.AGENT,
        meaning="where monitoring asks, at /metrics, /healthz, /proxyMode and /configz; `none` for nowhere",
    )
    service_traffic_metrics: int = setting(
        read_count,
        "0",
        "--service-traffic-metrics",
        metavar="N",
        group=Group.AGENT,
        meaning="how many Services get metrics of their traffic, at most; all others are counted together. 0: none",
    )
    run_directory: Path = setting(
        Path,
        "/run/ipvsproxy",
        "--run-directory",
        metavar="DIR",
        group=Group.AGENT,
        meaning="holds the agent's lock and the socket that the other commands ask",
    )
    log_format: LogFormat = setting(
        one_of(LogFormat),
        "auto",
        "--log-format",
        metavar="FORMAT",
        group=Group.AGENT,
        meaning="json, console or auto: console on a terminal, json elsewhere",
    )
    log_level: LogLevel = setting(
        one_of(LogLevel),
        "info",
        "--log-level",
        metavar="LEVEL",
        group=Group.AGENT,
        meaning="the least important lines to log: debug, info, warning or error",
    )


SETTINGS = {field.name: Setting(name=field.name, **field.metadata) for field in dataclasses.fields(Config)}
