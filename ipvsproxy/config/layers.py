"""The layers of the configuration put together: a flag goes before the file, the file before the default."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from ipvsproxy.config.durations import format_duration
from ipvsproxy.config.settings import SETTINGS, Config, DetectLocalMode
from ipvsproxy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What a mode can't do without; no other mode looks at it.
_NEEDS = {
    DetectLocalMode.BRIDGE_INTERFACE: "pod_bridge_interface",
    DetectLocalMode.INTERFACE_NAME_PREFIX: "pod_interface_name_prefix",
}


class Effective(NamedTuple):
    """The configuration in effect, and the fields of the file that ask for something and have no effect here."""

    config: Config
    ignored: tuple[str, ...]


def combine(flags: Mapping[str, object], file: Path | None, hostname: str) -> Effective:
    """Return the effective configuration.

    `flags` has the values that the command line gives, by the name of the setting; `hostname` is the host's own name.
    UsageError names the file and the field, or the two settings that contradict each other.
    """
    from_file, ignored = _read(file) if file else ({}, ())
    values: dict[str, Any] = {**from_file, **flags}
    config = Config(**values)
    config = dataclasses.replace(config, node_name=config.node_name or hostname.lower())
    if "min_sync_period" not in values:
        config = dataclasses.replace(config, min_sync_period=min(config.min_sync_period, config.sync_period))
    if config.min_sync_period > config.sync_period:
        raise UsageError(
            f"{SETTINGS['min_sync_period']} {format_duration(config.min_sync_period)} is longer than "
            f"{SETTINGS['sync_period']} {format_duration(config.sync_period)}"
        )
    mode = config.detect_local_mode
    if mode in _NEEDS and not getattr(config, _NEEDS[mode]):
        raise UsageError(f"{SETTINGS['detect_local_mode']} {mode} needs {SETTINGS[_NEEDS[mode]]}")
    idle = (name for of_mode, name in _NEEDS.items() if of_mode is not mode and from_file.get(name))
    return Effective(config, (*ignored, *(SETTINGS[name].path for name in idle)))


def _read(file: Path) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return the values of the settings that the file has, and the other fields in which it asks for something."""
    # YAML and msgspec take longer to import than all else on the command line, and most commands read no file.
    from ipvsproxy.config.file import read_file  # noqa: PLC0415 - for the reason above

    fields = read_file(file)
    values: dict[str, object] = {}
    for setting in SETTINGS.values():
        if field := fields.pop(setting.path, None):
            try:
                values[setting.name] = setting.read(field.text)
            except ValueError as error:
                raise UsageError(f"{file}: {setting.path}: {error}") from None
    return values, tuple(path for path, field in fields.items() if not field.default)
