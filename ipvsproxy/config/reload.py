"""What becomes of a configuration that changes while the agent runs: what is taken over, what needs a restart."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.config.writers import write

if TYPE_CHECKING:
    from ipvsproxy.config.declaration import Setting
    from ipvsproxy.config.layers import Effective

LIVE: Final = frozenset(
    {
        "scheduler",
        "strict_arp",
        "sync_period",
        "min_sync_period",
        "ipvs_tcp_timeout",
        "ipvs_tcp_fin_timeout",
        "ipvs_udp_timeout",
        "node_port_addresses",
        "cluster_cidrs",
        "detect_local_mode",
        "pod_bridge_interface",
        "pod_interface_name_prefix",
        "masquerade_all",
        "masquerade_bit",
        "conntrack_max_per_core",
        "conntrack_min",
        "conntrack_tcp_established_timeout",
        "conntrack_tcp_close_wait_timeout",
        "conntrack_tcp_be_liberal",
        "conntrack_udp_timeout",
        "conntrack_udp_stream_timeout",
        "healthz_bind_address",
        "metrics_bind_address",
    }
)
"""The settings that a running agent takes over from the file; others say where it looks, and who it is."""


class Change(NamedTuple):
    """A setting that has another value, as texts."""

    setting: Setting
    old: str
    new: str


class Reload(NamedTuple):
    """What follows from a configuration that was read again.

    `effective` is the one to run with from now on: the settings that need a restart keep their values in it. `live`
    are the changes that it makes; `restart` are those that wait for the agent's next start.
    """

    effective: Effective
    live: tuple[Change, ...]
    restart: tuple[Change, ...]


def decide(running: Effective, read: Effective) -> Reload:
    """Hold the configuration that the agent runs with beside the one that was read again."""
    changes = [
        Change(setting, write(setting, old), write(setting, new))
        for setting in SETTINGS.values()
        if (old := getattr(running.config, setting.name)) != (new := getattr(read.config, setting.name))
    ]
    restart = tuple(change for change in changes if change.setting.name not in LIVE)
    kept = [change.setting.name for change in restart]
    config = dataclasses.replace(read.config, **{name: getattr(running.config, name) for name in kept})
    origins = {**read.origins, **{name: running.origins[name] for name in kept}}
    live = tuple(change for change in changes if change.setting.name in LIVE)
    return Reload(read._replace(config=config, origins=origins), live, restart)
