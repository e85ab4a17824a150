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

# The shape of msgspec's messages: the end says where (`$.ipvs.syncPeriod`).
_WHERE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


class Field(NamedTuple):
    """A field that the file has, and whether it asks for no more than kube-proxy's default.

    `text` is its value as a flag would have it, a list with commas.
    """

    text: str
    default: bool


class FileContents(NamedTuple):
    """The fields by their path such as `ipvs.syncPeriod`; the remarks name what was passed over, by its path."""

    fields: dict[str, Field]
    remarks: tuple[str, ...]


def read_file(file: Path) -> FileContents:
    """Return what the file has; UsageError if it is wrong.

    It is read as kube-proxy reads it: a field that nobody knows, and all but the last value of a key that is there
    twice, are passed over with a remark.
    """
    try:
        loader = yaml.SafeLoader(file.read_bytes())
        root = loader.get_single_node()
        twice = list(_keys_given_twice(root)) if root else []
        document: Any = _with_text_keys(loader.construct_document(root)) if root else None
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        context = f"{error.context}: " if error.context else ""
        raise UsageError(f"{file}: {line}{context}{error.problem}") from None
    except RecursionError:
        raise UsageError(f"{file}: is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{file}: is not YAML: {str(error).splitlines()[0]}") from None
    _check_type(file, document)
    try:
        configuration = msgspec.convert(document, KubeProxyConfiguration, dec_hook=decode_duration)
    except msgspec.ValidationError as error:
        raise UsageError(f"{file}: {_located(str(error))}") from None
    remarks = [
        *(f"{path}: unknown field" for path in _unknown(configuration, document)),
        *(f"{path}: given more than once, the last value counts" for path in twice),
    ]
    return FileContents(dict(_fields(configuration, document)), tuple(remarks))


def _check_type(file: Path, document: object) -> None:
    """Refuse what is no KubeProxyConfiguration before its fields are looked at."""
    if not isinstance(document, dict):
        raise UsageError(f"{file}: is not a {KIND}: there are no fields in it")
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if name not in document:
            raise UsageError(f"{file}: {name}: is missing, expected {expected}")
        if document[name] != expected:
            raise UsageError(f"{file}: {name}: is {document[name]!r}, expected {expected}")


def _keys_given_twice(node: yaml.Node, prefix: str = "") -> Iterator[str]:
    """Yield the paths of the keys that a mapping of the document has more than once."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _keys_given_twice(item, f"{prefix.removesuffix('.')}[{index}].")
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            if path in seen:
                yield path
            seen.add(path)
            yield from _keys_given_twice(value, f"{path}.")


def _with_text_keys(value: Any) -> Any:  # noqa: ANN401 - YAML of any shape
    """Return the document as JSON would have it, where each key is a text."""
    if isinstance(value, list):
        return [_with_text_keys(item) for item in value]
    if isinstance(value, dict):
        return {_text(key): _with_text_keys(below) for key, below in value.items()}
    return value


def _unknown(section: Section, written: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the paths of the fields that are written and that the section does not have."""
    known = {each.encode_name: getattr(section, each.name) for each in msgspec.structs.fields(section)}
    for name, below in written.items():
        path, value = prefix + name, known.get(name)
        if name not in known:
            yield path
        elif isinstance(value, Section):
            yield from _unknown(value, below, f"{path}.")
        elif isinstance(value, list):
            for index, (item, of_item) in enumerate(zip(value, below, strict=True)):
                if isinstance(item, Section):
                    yield from _unknown(item, of_item, f"{path}[{index}].")


def _located(message: str) -> str:
    """Turn msgspec's message around: the field first, then what is wrong with it."""
    where = _WHERE.search(message)
    what, path = (message[: where.start()], where["path"]) if where else (message, "")
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
