"""The configuration in effect as a KubeProxyConfiguration, for `--write-config-to` and for /configz.

It names files, addresses and networks, and no credential: those stand in the kubeconfig, whose path alone is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from ipvsproxy.config.kubeproxy import API_VERSION, GROUP, KIND
from ipvsproxy.config.layers import Layer
from ipvsproxy.config.readers import MODE
from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.config.writers import write
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.model.selection import NodePortAddresses

if TYPE_CHECKING:
    from pathlib import Path

    from ipvsproxy.config.declaration import Setting
    from ipvsproxy.config.layers import Effective

# What follows from the host that the agent runs on is no setting of the file, which other nodes may get too.
_OF_THE_HOST: Final = "node_name"


def document(effective: Effective) -> dict[str, object]:
    """Return the fields of the file; read again on this host, without flags, they give the same settings.

    Settings that the file has no field for are left out: see `unwritten`.
    """
    fields: dict[str, Any] = {"apiVersion": API_VERSION, "kind": KIND, "mode": MODE}
    for setting in SETTINGS.values():
        if not setting.path:
            continue
        if setting.name == _OF_THE_HOST and effective.origins[setting.name].layer is Layer.DEFAULT:
            continue
        *sections, leaf = setting.path.split(".")
        section = fields
        for name in sections:
            section = section.setdefault(name, {})
        section[leaf] = _value(setting, getattr(effective.config, setting.name))
    return fields


def configz(effective: Effective) -> dict[str, object]:
    """Return what kube-proxy's /configz has: the document by the name of its group."""
    return {GROUP: document(effective)}


def unwritten(effective: Effective) -> list[str]:
    """Return, as flags, the settings that are not the default's and that the file has no field for."""
    return [
        f"{setting.flags[0]}={write(setting, getattr(effective.config, setting.name))}"
        for setting in SETTINGS.values()
        if not setting.path and getattr(effective.config, setting.name) != setting.read("")
    ]


def write_file(effective: Effective, file: Path) -> None:
    """Write the document as YAML; IpvsProxyError if that fails."""
    try:
        file.write_text(yaml.safe_dump(document(effective), sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise IpvsProxyError(f"--write-config-to {file}: {error.strerror or error}") from error


def _value(setting: Setting, value: object) -> object:
    """Return the value in the type that the field has: a boolean, a number, a list of texts, or a text."""
    text = write(setting, value)
    if isinstance(value, bool):
        return value
    if isinstance(value, NodePortAddresses):
        # kube-proxy has no word for all of them, but no network at all.
        return [] if value.all else text.split(",")
    # A timeout in seconds is a number here, and a duration there.
    return int(text) if isinstance(value, int) and text.isdigit() else text
