"""The configuration in effect as `ipvsproxy config show` prints it, and as the agent answers it on its socket.

docs/configuration.md describes the fields, with an example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.config.writers import write
from ipvsproxy.observe.schema import SCHEMA_VERSION, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ipvsproxy.config.layers import Effective
    from ipvsproxy.config.reload import Change


class SettingInfo(Schema, frozen=True):
    """A setting in effect, its value as text.

    `field` is its path in the file, "" without one. `layer` is flag, file or default, `origin` says it in full.
    `after_restart` is the value that the file has by now and that the agent will not take over before it is restarted;
    None otherwise.
    """

    flag: str
    field: str
    value: str
    layer: str
    origin: str
    after_restart: str | None = None


class Configuration(Schema, frozen=True):
    """All settings in effect.

    `file` is the KubeProxyConfiguration, None without one; `ignored_fields` are those that have no effect here,
    `file_remarks` say what of it was passed over, and `file_error` is why the file as it is by now was refused, "" if
    it was not.
    """

    schema_version: int
    file: str | None
    settings: list[SettingInfo]
    ignored_fields: list[str]
    file_remarks: list[str]
    file_error: str = ""


def configuration(
    effective: Effective,
    file: Path | None,
    manifests: Path | None,
    waiting: Iterable[Change] = (),
    file_error: str = "",
) -> Configuration:
    """Describe a configuration; `waiting` are the changes of the file that need a restart."""
    after_restart = {change.setting.name: change.new for change in waiting}
    settings = [
        SettingInfo(
            setting.flags[0],
            setting.path,
            write(setting, getattr(effective.config, setting.name)),
            effective.origins[setting.name].layer,
            str(effective.origins[setting.name]),
            after_restart.get(setting.name),
        )
        for setting in SETTINGS.values()
    ]
    if manifests:
        settings.insert(0, SettingInfo("--manifests", "", str(manifests), "flag", "flag --manifests"))
    return Configuration(
        SCHEMA_VERSION,
        str(file) if file else None,
        settings,
        list(effective.ignored),
        list(effective.remarks),
        file_error,
    )
