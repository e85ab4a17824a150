"""Values that settings can have, for property tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ipvsproxy.config.readers import HIGHEST_NUMBER, HIGHEST_PORT, SCHEDULERS
from ipvsproxy.config.settings import DetectLocalMode, LogFormat, LogLevel
from ipvsproxy.model.addresses import parse_address, parse_network
from ipvsproxy.model.selection import NodePortAddresses

addresses = st.ip_addresses().map(str).map(parse_address)
networks = st.one_of(
    st.builds("{}/{}".format, st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds("{}/{}".format, st.ip_addresses(v=6), st.integers(0, 128)),
).map(parse_network)
# To the nanosecond, below a year: more is no duration that a float counts exactly.
durations = st.integers(0, 365 * 24 * 3600 * 10**6).map(lambda microseconds: microseconds / 10**6)
seconds = st.integers(0, HIGHEST_NUMBER)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.~", min_size=1, max_size=14)
paths = words.map(lambda name: Path("/etc", name))
places = st.none() | st.tuples(addresses, st.integers(1, HIGHEST_PORT))

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "kubeconfig": st.none() | paths,
    "master": words.map("https://{}:6443".format),
    "scheduler": st.sampled_from(SCHEDULERS),
    "strict_arp": st.booleans(),
    "sync_period": durations.filter(bool),
    "min_sync_period": durations,
    "drain_timeout": durations,
    "ipvs_tcp_timeout": seconds,
    "ipvs_tcp_fin_timeout": seconds,
    "ipvs_udp_timeout": seconds,
    "node_port_addresses": st.builds(
        NodePortAddresses, st.booleans(), st.lists(networks, max_size=3).map(tuple)
    ),
    "allowed_external_ips": st.lists(networks, max_size=3).map(tuple),
    "cluster_cidrs": st.lists(networks, max_size=2, unique_by=lambda network: network.family).map(tuple),
    "detect_local_mode": st.sampled_from(DetectLocalMode),
    "pod_bridge_interface": words,
    "pod_interface_name_prefix": words,
    "masquerade_all": st.booleans(),
    "accept_forwarded": st.booleans(),
    "masquerade_bit": st.integers(0, 31),
    "conntrack_max_per_core": seconds,
    "conntrack_min": seconds,
    "conntrack_tcp_established_timeout": seconds,
    "conntrack_tcp_close_wait_timeout": seconds,
    "conntrack_tcp_be_liberal": st.booleans(),
    "conntrack_udp_timeout": seconds,
    "conntrack_udp_stream_timeout": seconds,
    "node_name": words,
    "healthz_bind_address": places,
    "metrics_bind_address": places,
    "service_traffic_metrics": seconds,
    "run_directory": paths,
    "log_format": st.sampled_from(LogFormat),
    "log_level": st.sampled_from(LogLevel),
}

flags = st.fixed_dictionaries({}, optional=VALUES).filter(
    lambda given: (
        given.get("min_sync_period", 0) <= given.get("sync_period", 30)
        and (
            given.get("detect_local_mode") is not DetectLocalMode.BRIDGE_INTERFACE
            or "pod_bridge_interface" in given
        )
        and (
            given.get("detect_local_mode") is not DetectLocalMode.INTERFACE_NAME_PREFIX
            or "pod_interface_name_prefix" in given
        )
    )
)
"""What a command line may give, by the name of the setting."""
