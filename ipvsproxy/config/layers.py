"""The layers of the configuration put together: a flag goes before the file, the file before the default."""

from __future__ import annotations

import dataclasses
import enum
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


class Layer(enum.StrEnum):
    """Which layer a setting's value comes from."""

    FLAG = "flag"
    FILE = "file"
    DEFAULT = "default"


class Origin(NamedTuple):
    """Where a value comes from; `place` is the flag, the file and its field, or why the default is another one."""

    layer: Layer
    place: str = ""

    def __str__(self) -> str:
        """Return one phrase: `flag --sync-period`, `/etc/config.conf: ipvs.syncPeriod`, `default`."""
        if self.layer is Layer.FILE:
            return self.place
        separator = " " if self.layer is Layer.FLAG else ", "
        return f"{self.layer}{separator}{self.place}" if self.place else self.layer


class Effective(NamedTuple):
    """The configuration in effect.

    `ignored` are the fields of the file that ask for something and have no effect here; `origins` has every setting
    by its name. `remarks` has what of the file was passed over, each with its path: fields that nobody knows, and
    values of a key that the file has twice.
    """

    config: Config
    ignored: tuple[str, ...]
    origins: Mapping[str, Origin]
    remarks: tuple[str, ...] = ()


class Layers(NamedTuple):
    """What is above the defaults: the flags' values by the name of the setting, the file, and the host's own name.

    `without_effect` has the flags of kube-proxy's that do nothing here, each with the reason.
    """

    flags: Mapping[str, object]
    file: Path | None
    hostname: str
    without_effect: tuple[str, ...] = ()

    @property
    def say_more_than_whom_to_ask(self) -> bool:
        """Whether they give a configuration, and not only the directory where a running agent is asked for its own."""
        return bool(self.flags.keys() - {"run_directory"} or self.file or self.without_effect)

    def read(self) -> Effective:
        """Read the file, as it is now, and put everything together; UsageError as `combine`."""
        return combine(self.flags, self.file, self.hostname)


def combine(flags: Mapping[str, object], file: Path | None, hostname: str) -> Effective:
    """Return the effective configuration.

    `flags` has the values that the command line gives, by the name of the setting; `hostname` is the host's own name.
    UsageError names the file and the field, or the two settings that contradict each other.
    """
    from_file, ignored, remarks = _read(file) if file else ({}, (), ())
    values: dict[str, Any] = {**from_file, **flags}
    origins = {name: Origin(Layer.DEFAULT) for name in SETTINGS}
    origins |= {name: Origin(Layer.FILE, f"{file}: {SETTINGS[name].path}") for name in from_file}
    origins |= {name: Origin(Layer.FLAG, SETTINGS[name].flags[0]) for name in flags}
    config = Config(**values)
    if not config.node_name:
        config = dataclasses.replace(config, node_name=hostname.lower())
        origins["node_name"] = Origin(Layer.DEFAULT, "the host's name")
    if "min_sync_period" not in values and config.min_sync_period > config.sync_period:
        config = dataclasses.replace(config, min_sync_period=config.sync_period)
        origins["min_sync_period"] = Origin(Layer.DEFAULT, f"no longer than {SETTINGS['sync_period']}")
    if config.min_sync_period > config.sync_period:
        raise UsageError(
            f"{SETTINGS['min_sync_period']} {format_duration(config.min_sync_period)} is longer than "
            f"{SETTINGS['sync_period']} {format_duration(config.sync_period)}"
        )
    mode = config.detect_local_mode
    if mode in _NEEDS and not getattr(config, _NEEDS[mode]):
        raise UsageError(f"{SETTINGS['detect_local_mode']} {mode} needs {SETTINGS[_NEEDS[mode]]}")
    idle = (name for of_mode, name in _NEEDS.items() if of_mode is not mode and from_file.get(name))
    return Effective(config, (*ignored, *(SETTINGS[name].path for name in idle)), origins, remarks)


def _read(file: Path) -> tuple[dict[str, object], tuple[str, ...], tuple[str, ...]]:
    """Return the values of the settings that the file gives, the other fields that ask for something, and remarks."""
    # YAML and msgspec take longer to import than all else on the command line, and most commands read no file.
    from ipvsproxy.config.file import read_file  # noqa: PLC0415 - for the reason above

    fields, remarks = read_file(file)
    values: dict[str, object] = {}
    for setting in SETTINGS.values():
        # An empty text means the default, as for kube-proxy: the file does not give a value then.
        if (field := fields.pop(setting.path, None)) and field.text:
            try:
                values[setting.name] = setting.read(field.text)
            except ValueError as error:
                raise UsageError(f"{file}: {setting.path}: {error}") from None
    return values, tuple(path for path, field in fields.items() if not field.default), remarks
