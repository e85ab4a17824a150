"""The format of a KubeProxyConfiguration file, with every field that kube-proxy knows or once knew.

Source: staging/src/k8s.io/kube-proxy/config/v1alpha1/types.go, component-base's ClientConnectionConfiguration and
LoggingConfiguration, and the defaults in pkg/proxy/apis/config/v1alpha1 of Kubernetes. A default here is kube-proxy's
own where that is not the type's zero value. Go's decoder takes null for every field, so each is optional here.
"""

from __future__ import annotations

import msgspec

from ipvsproxy.config.durations import format_duration, parse_duration
from ipvsproxy.config.readers import MODE

GROUP = "kubeproxy.config.k8s.io"
API_VERSION = f"{GROUP}/v1alpha1"
KIND = "KubeProxyConfiguration"


class Duration(str):
    """A metav1.Duration, in the one spelling of `format_duration`."""

    __slots__ = ()


class Period(Duration):
    """A duration of which zero asks for nothing, as if it were absent: it is "" here."""

    __slots__ = ()


def decode_duration(duration: type, value: object) -> Duration:
    """Decode a Duration or a Period from the file's text, as a msgspec `dec_hook`; ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a duration such as 30s or 1m30s")  # noqa: TRY004 - msgspec adds the path to a ValueError
    seconds = parse_duration(value)
    if issubclass(duration, Period):
        return Period(format_duration(seconds) if seconds else "")
    return Duration(format_duration(seconds))


class Section(msgspec.Struct, kw_only=True, rename="camel"):
    """An object of the file; its fields are leaves or sections themselves. Unknown ones are passed over."""


class ClientConnection(Section):
    """How the API server is reached."""

    kubeconfig: str | None = None
    accept_content_types: str | None = None
    content_type: str | None = "application/vnd.kubernetes.protobuf"
    qps: float | None = 5.0
    burst: int | None = 10


class LoggingOptions(Section):
    """The options of one logging format."""

    split_stream: bool | None = None
    info_buffer_size: int | str | None = "0"


class LoggingFormats(Section):
    """The options of each logging format."""

    text: LoggingOptions | None = None
    json: LoggingOptions | None = None


class VModule(Section):
    """The verbosity of the source files that match a pattern."""

    file_pattern: str | None = None
    verbosity: int | None = None


class Logging(Section):
    """How kube-proxy logs. `flushFrequency` is a duration, or nanoseconds; `sanitization` is of older releases."""

    format: str | None = "text"
    flush_frequency: int | str | None = "5s"
    verbosity: int | None = None
    vmodule: list[VModule] | None = None
    options: LoggingFormats | None = None
    sanitization: bool | None = None


class Iptables(Section):
    """The iptables mode; its masquerading holds in the ipvs mode too."""

    masquerade_bit: int | None = 14
    masquerade_all: bool | None = None
    localhost_node_ports: bool | None = True
    snat_node_internal_ip: bool | None = msgspec.field(default=None, name="snatNodeInternalIP")
    sync_period: Period | None = Period("30s")
    min_sync_period: Period | None = Period("1s")


class Ipvs(Section):
    """The ipvs mode."""

    sync_period: Period | None = Period("30s")
    min_sync_period: Duration | None = None
    scheduler: str | None = None
    exclude_cidrs: list[str] | None = msgspec.field(default=None, name="excludeCIDRs")
    strict_arp: bool | None = msgspec.field(default=None, name="strictARP")
    tcp_timeout: Period | None = None
    tcp_fin_timeout: Period | None = None
    udp_timeout: Period | None = None


class Nftables(Section):
    """The nftables mode."""

    masquerade_bit: int | None = 14
    masquerade_all: bool | None = None
    sync_period: Period | None = Period("30s")
    min_sync_period: Period | None = Period("1s")


class Conntrack(Section):
    """The kernel's connection tracking. `max` is of older releases.

    0s is a value of the two timeouts for TCP, as 0 of `max_per_core`: it leaves the kernel's.
    """

    max: int | None = None
    max_per_core: int | None = 32768
    min: int | None = 131072
    tcp_established_timeout: Duration | None = Duration("24h")
    tcp_close_wait_timeout: Duration | None = Duration("1h")
    tcp_be_liberal: bool | None = None
    udp_timeout: Period | None = None
    udp_stream_timeout: Period | None = None


class Winkernel(Section):
    """The mode for Windows."""

    network_name: str | None = None
    source_vip: str | None = None
    enable_dsr: bool | None = msgspec.field(default=None, name="enableDSR")
    root_hns_endpoint_name: str | None = None
    forward_health_check_vip: bool | None = None


class DetectLocal(Section):
    """How the modes of `detectLocalMode` recognise local traffic."""

    bridge_interface: str | None = None
    interface_name_prefix: str | None = None


class KubeProxyConfiguration(Section):
    """The whole file. `resourceContainer` and `udpIdleTimeout` are of older releases, whose files are still about."""

    api_version: str = API_VERSION
    kind: str = KIND
    feature_gates: dict[str, bool] | None = None
    client_connection: ClientConnection | None = None
    logging: Logging | None = None
    hostname_override: str | None = None
    bind_address: str | None = "0.0.0.0"  # noqa: S104 - kube-proxy's default, no socket is bound
    healthz_bind_address: str | None = "0.0.0.0:10256"
    metrics_bind_address: str | None = "127.0.0.1:10249"
    bind_address_hard_fail: bool | None = None
    enable_profiling: bool | None = None
    show_hidden_metrics_for_version: str | None = None
    mode: str | None = MODE
    iptables: Iptables | None = None
    ipvs: Ipvs | None = None
    nftables: Nftables | None = None
    winkernel: Winkernel | None = None
    detect_local_mode: str | None = "ClusterCIDR"
    detect_local: DetectLocal | None = None
    cluster_cidr: str | None = msgspec.field(default=None, name="clusterCIDR")
    node_port_addresses: list[str] | None = None
    oom_score_adj: int | None = -999
    conntrack: Conntrack | None = None
    config_sync_period: Period | None = Period("15m")
    port_range: str | None = None
    windows_run_as_service: bool | None = None
    resource_container: str | None = "/kube-proxy"
    udp_idle_timeout: Period | None = Period("0.25s")
