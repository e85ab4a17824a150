"""The chart in the hands of Helm's own engine, without a cluster; a module that imports this is skipped without it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

helm = pytest.importorskip(
    "helm_python", reason="Helm's engine is not installed: pip install helm-python-sdk"
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

CHART = Path(__file__).parents[2] / "charts" / "ipvsproxy"
NAMESPACE = "kube-system"
# What has no default.
GIVEN: Mapping[str, Any] = {"apiServer": {"host": "api.example.com"}}
FROM_KUBECONFIG: Mapping[str, Any] = {"apiServer": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig"}}

Object = dict[str, Any]


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which some programs take the first and others the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - of the base class
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice in {keys}"
        return super().construct_mapping(node, deep)


class Rendered(NamedTuple):
    """What an install would create, and tell."""

    manifest: str
    notes: str

    @property
    def objects(self) -> list[Object]:
        return [document for document in yaml.load_all(self.manifest, _StrictLoader) if document]

    def one(self, kind: str) -> Object:
        """Return the one object of the kind."""
        (found,) = self.all(kind)
        return found

    def all(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]


def render(values: Mapping[str, Any] | None = None, release: str = "ipvsproxy") -> Rendered:
    """Render with GIVEN and these values; helm.HelmError as at install."""
    return _render(json.dumps(merged(GIVEN, values or {})), release, NAMESPACE)


def render_exactly(
    values: Mapping[str, Any], release: str = "ipvsproxy", namespace: str = NAMESPACE
) -> Rendered:
    """Render with these values and the chart's own defaults, nothing more."""
    return _render(json.dumps(values), release, namespace)


def refusal(values: Mapping[str, Any], release: str = "ipvsproxy") -> str:
    """Return why these values are refused, "" if they are not."""
    try:
        render_exactly(values, release)
    except helm.HelmError as error:
        return str(error)
    return ""


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Put values over others, as Helm does."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        found[key] = merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return found


def at(path: str, value: object) -> dict[str, Any]:
    """Return the values that have this one alone, at a path with dots."""
    *above, last = path.split(".")
    values: dict[str, Any] = {last: value}
    for key in reversed(above):
        values = {key: values}
    return values


def container(rendered: Rendered) -> Object:
    """Return the agent's container."""
    (found,) = pod(rendered)["containers"]
    return dict(found)


def pod(rendered: Rendered) -> Object:
    """Return the pods' spec."""
    return dict(rendered.one("DaemonSet")["spec"]["template"]["spec"])


def named(items: Iterable[Object]) -> dict[str, Object]:
    """Return the items of a list by their names, without these."""
    return {item["name"]: {key: value for key, value in item.items() if key != "name"} for item in items}


@functools.cache
def chart() -> Any:  # noqa: ANN401 - of a library that may not be there
    """Return the chart, loaded once."""
    return helm.Chart.load(CHART)


@functools.lru_cache(maxsize=256)
def _render(values: str, release: str, namespace: str) -> Rendered:
    templates = chart().render(json.loads(values), name=release, namespace=namespace)
    notes = templates.pop("ipvsproxy/templates/NOTES.txt")
    return Rendered("".join(_documents(templates)), notes)


def _documents(templates: Mapping[str, str]) -> Iterator[str]:
    for name, text in sorted(templates.items()):
        if text.strip():
            yield f"---\n# Source: {name}\n{text.strip()}\n"
