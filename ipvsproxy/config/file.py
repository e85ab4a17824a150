"""Reading a KubeProxyConfiguration file: every error names the file and the line or the field."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import yaml

from ipvsproxy.config.kubeproxy import API_VERSION, KIND, KubeProxyConfiguration, Section, decode_duration
from ipvsproxy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The shapes of msgspec's messages: the end says where (`$.ipvs.syncPeriod`), of a key or a value.
_WHERE = re.compile(r" - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)


class Field(NamedTuple):
    """A field that the file has, and whether it asks for no more than kube-proxy's default.

    `text` is its value as a flag would have it, a list with commas.
    """

    text: str
    default: bool


def read_file(file: Path) -> dict[str, Field]:
    """Return the fields that the file has, by their path such as `ipvs.syncPeriod`; UsageError if it is wrong."""
    try:
        document = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        context = f"{error.context}: " if error.context else ""
        raise UsageError(f"{file}: {line}{context}{error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{file}: is not YAML: {str(error).splitlines()[0]}") from None
    _check_type(file, document)
    try:
        configuration = msgspec.convert(document, KubeProxyConfiguration, dec_hook=decode_duration)
    except msgspec.ValidationError as error:
        raise UsageError(f"{file}: {_located(str(error))}") from None
    return dict(_fields(configuration, document))


def _check_type(file: Path, document: object) -> None:
    """Refuse what is no KubeProxyConfiguration before its fields are looked at."""
    if not isinstance(document, dict):
        raise UsageError(f"{file}: is not a {KIND}: there are no fields in it")
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if name not in document:
            raise UsageError(f"{file}: {name}: is missing, expected {expected}")
        if document[name] != expected:
            raise UsageError(f"{file}: {name}: is {document[name]!r}, expected {expected}")


def _located(message: str) -> str:
    """Turn msgspec's message around: the field first, then what is wrong with it."""
    where = _WHERE.search(message)
    what, path = (message[: where.start()], where["path"]) if where else (message, "")
    if unknown := _UNKNOWN.fullmatch(what):
        what, path = "unknown field", f"{path}.{unknown['name']}".lstrip(".")
    if where and where["key"]:
        what = f"{what} as a key"
    what = what.replace("`", "").replace(" | null", "").replace("Expected", "expected")
    return f"{path}: {what}" if path else what


def _fields(section: Section, written: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Yield the leaves that are written and not null.

    One that is zero or empty asks for nothing, so it counts as a default.
    """
    for declared in msgspec.structs.fields(section):
        path = prefix + declared.encode_name
        value = getattr(section, declared.name)
        if isinstance(value, Section):
            yield from _fields(value, written[declared.encode_name], f"{path}.")
        elif value is not None and declared.encode_name in written:
            yield path, Field(_text(value), default=not value or value == declared.default)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
