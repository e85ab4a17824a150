"""The part `config` of values.schema.json, made of the fields that the agent reads and of what it takes for them."""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any

import msgspec

from ipvsproxy.config.kubeproxy import API_VERSION, KIND, Duration, KubeProxyConfiguration, Section
from ipvsproxy.config.readers import HIGHEST_BIT, HIGHEST_NUMBER, SCHEDULERS
from ipvsproxy.config.settings import DetectLocalMode

if TYPE_CHECKING:
    from collections.abc import Mapping

Schema = dict[str, Any]

DURATION = "^(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|\N{MICRO SIGN}s|\N{GREEK SMALL LETTER MU}s|ms|s|m|h))+)$"
_PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = f"{_OCTET}([.]{_OCTET}){{3}}"
_IPV6 = "[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*"
_PLACE = rf"({_IPV4}|\[{_IPV6}\]):{_PORT}"
NETWORK = f"({_IPV4}/(3[0-2]|[12]?[0-9])|{_IPV6}/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))"
_INTERFACE = r"[^\s/:\"\\*]"

# An empty text means the default.
_CONSTRAINTS: Mapping[str, Schema] = {
    "apiVersion": {"const": API_VERSION},
    "kind": {"const": KIND},
    # A probe asks there, so `none` is no choice and the port must be known.
    "healthzBindAddress": {"pattern": f"^({_PLACE})?$"},
    "metricsBindAddress": {"pattern": f"^(none|{_PLACE})?$"},
    "ipvs.scheduler": {"enum": ["", *SCHEDULERS, None]},
    "detectLocalMode": {"enum": ["", *DetectLocalMode, None]},
    "detectLocal.bridgeInterface": {"pattern": f"^{_INTERFACE}{{0,15}}$"},
    "detectLocal.interfaceNamePrefix": {"pattern": f"^{_INTERFACE}{{0,14}}$"},
    "clusterCIDR": {"pattern": f"^({NETWORK}(, *{NETWORK})?)?$"},
    "nodePortAddresses": {"items": {"type": "string", "pattern": f"^(primary|localhost|all|{NETWORK})$"}},
    "iptables.masqueradeBit": {"minimum": 0, "maximum": HIGHEST_BIT},
    "conntrack.maxPerCore": {"minimum": 0, "maximum": HIGHEST_NUMBER},
    "conntrack.min": {"minimum": 0, "maximum": HIGHEST_NUMBER},
}
_TYPES: Mapping[type, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
}


def config_schema() -> Schema:
    """Return the schema of the value `config`."""
    return {**_section(KubeProxyConfiguration, ""), "type": "object"}


def known_fields() -> dict[str, Any]:
    """Return the fields of the value `config`: for a section its fields, for all others an empty object."""
    return _names(config_schema())


def _names(schema: Schema) -> dict[str, Any]:
    return {name: _names(below) for name, below in schema.get("properties", {}).items()}


def _section(section: type[Section], prefix: str) -> Schema:
    hints = typing.get_type_hints(section)
    properties = {
        field.encode_name: _property(hints[field.name], f"{prefix}{field.encode_name}")
        for field in msgspec.structs.fields(section)
    }
    return {"type": ["object", "null"], "properties": properties}


def _property(hint: Any, path: str) -> Schema:  # noqa: ANN401 - a type of any shape
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    schemas = [_kind(kind, path) for kind in kinds if kind is not types.NoneType]
    if len(schemas) == 1:
        (schema,) = schemas
        constrained = {**schema, **_CONSTRAINTS.get(path, {})}
        if "enum" in constrained or "const" in constrained:
            del constrained["type"]
        elif isinstance(schema["type"], str):
            constrained["type"] = [schema["type"], "null"]
        return constrained
    return {"type": [*(schema["type"] for schema in schemas), "null"]}


def _kind(kind: Any, path: str) -> Schema:  # noqa: ANN401 - a type of any shape
    if isinstance(kind, type) and issubclass(kind, Section):
        return _section(kind, f"{path}.")
    if isinstance(kind, type) and issubclass(kind, Duration):
        return {"type": "string", "pattern": DURATION}
    if typing.get_origin(kind) is list:
        return {"type": "array", "items": _kind(typing.get_args(kind)[0], path)}
    if typing.get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _TYPES[typing.get_args(kind)[1]]}
    return dict(_TYPES[kind])
