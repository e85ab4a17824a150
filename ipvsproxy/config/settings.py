"""`Config`: everything that `ipvsproxy run` needs to know, each setting declared once.

A declaration names the reader, the default, the flags and the field of KubeProxyConfiguration; the command line, the
file and the help all come from it. A field of that file without a setting here has no effect, and a warning says so.
"""
# ruff: noqa: RUF009 - `_setting` declares a field as `dataclasses.field` does, which the rule knows by name only

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ipvsproxy.config.durations import parse_duration
from ipvsproxy.config.readers import (
    one_of,
    read_boolean,
    read_mark_bit,
    read_networks,
    read_node_name,
    read_optional_path,
    read_period,
    read_scheduler,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Network

Value = TypeVar("Value")


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


class Group(enum.StrEnum):
    """The heading of the help under which a setting's flags stand."""

    SOURCE = "source of Services and EndpointSlices"
    BALANCING = "load balancing"
    MASQUERADING = "masquerading"
    AGENT = "agent"


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """How a field of `Config` is set.

    `reader` turns text into the value and `default` is such a text. `flags` are the spellings on the command line,
    `metavar` stands for the text there. `path` is the field of KubeProxyConfiguration, with dots, "" without one.
    """

    name: str
    reader: Callable[[str], object]
    default: str
    flags: tuple[str, ...]
    metavar: str
    path: str
    group: Group
    meaning: str

    def read(self, text: str) -> object:
        """Return the value; an empty text means the default, as for kube-proxy. ValueError says what is wrong."""
        return self.reader(text or self.default)


def _setting(
    reader: Callable[[str], Value],
    default: str,
    *flags: str,
    metavar: str,
    group: Group,
    meaning: str,
    path: str = "",
) -> Value:
    """Declare a field of `Config`: for the type checker its value, for `dataclasses` a field with a default."""
    details = {
        "reader": reader,
        "default": default,
        "flags": flags,
        "metavar": metavar,
        "path": path,
        "group": group,
        "meaning": meaning,
    }
    return dataclasses.field(default=reader(default), metadata=details)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration in effect. Durations are in seconds.

    `node_name` is lower-case. `kubeconfig` None: the service account of the agent's own pod. `cluster_cidrs` has at
    most one network for each family. The directory `run_directory` holds the agent's lock and its socket.
    """

    kubeconfig: Path | None = _setting(
        read_optional_path,
        "",
        "--kubeconfig",
        metavar="FILE",
        path="clientConnection.kubeconfig",
        group=Group.SOURCE,
        meaning="reach the API server as this kubeconfig says; without it, as the pod's service account",
    )
    scheduler: str = _setting(
        read_scheduler,
        "rr",
        "--ipvs-scheduler",
        metavar="NAME",
        path="ipvs.scheduler",
        group=Group.BALANCING,
        meaning="the IPVS scheduler, which picks the endpoint of a new connection",
    )
    strict_arp: bool = _setting(
        read_boolean,
        "false",
        "--ipvs-strict-arp",
        metavar="BOOL",
        path="ipvs.strictARP",
        group=Group.BALANCING,
        meaning="answer ARP requests on an interface for that interface's own addresses only "
        "(arp_ignore 1, arp_announce 2)",
    )
    sync_period: float = _setting(
        read_period,
        "30s",
        "--sync-period",
        "--ipvs-sync-period",
        metavar="DURATION",
        path="ipvs.syncPeriod",
        group=Group.BALANCING,
        meaning="how often everything is compared with the kernel",
    )
    min_sync_period: float = _setting(
        parse_duration,
        "1s",
        "--min-sync-period",
        "--ipvs-min-sync-period",
        metavar="DURATION",
        path="ipvs.minSyncPeriod",
        group=Group.BALANCING,
        meaning="how long changes are collected after one was written; 0s writes each at once",
    )
    drain_timeout: float = _setting(
        parse_duration,
        "15m",
        "--drain-timeout",
        metavar="DURATION",
        group=Group.BALANCING,
        meaning="how long an endpoint that goes may keep its connections; 0s cuts them off",
    )
    cluster_cidrs: tuple[Network, ...] = _setting(
        read_networks,
        "",
        "--cluster-cidr",
        metavar="CIDR[,CIDR]",
        path="clusterCIDR",
        group=Group.MASQUERADING,
        meaning="the pods' networks, one for each family: what comes to a ClusterIP from elsewhere is masqueraded",
    )
    masquerade_all: bool = _setting(
        read_boolean,
        "false",
        "--masquerade-all",
        metavar="BOOL",
        path="iptables.masqueradeAll",
        group=Group.MASQUERADING,
        meaning="masquerade all traffic to ClusterIPs",
    )
    masquerade_bit: int = _setting(
        read_mark_bit,
        "14",
        "--iptables-masquerade-bit",
        metavar="BIT",
        path="iptables.masqueradeBit",
        group=Group.MASQUERADING,
        meaning="the bit of the packet mark that asks for masquerading, 0 to 31",
    )
    node_name: str = _setting(
        read_node_name,
        "",
        "--hostname-override",
        metavar="NAME",
        path="hostnameOverride",
        group=Group.AGENT,
        meaning="the name of this Node; without it, the host's own name in lower case",
    )
    run_directory: Path = _setting(
        Path,
        "/run/ipvsproxy",
        "--run-directory",
        metavar="DIR",
        group=Group.AGENT,
        meaning="holds the agent's lock and the socket that `ipvsproxy dump` asks",
    )
    log_format: LogFormat = _setting(
        one_of(LogFormat),
        "auto",
        "--log-format",
        metavar="FORMAT",
        group=Group.AGENT,
        meaning="json, console or auto: console on a terminal, json elsewhere",
    )
    log_level: LogLevel = _setting(
        one_of(LogLevel),
        "info",
        "--log-level",
        metavar="LEVEL",
        group=Group.AGENT,
        meaning="the least important lines to log: debug, info, warning or error",
    )


SETTINGS = {field.name: Setting(name=field.name, **field.metadata) for field in dataclasses.fields(Config)}
