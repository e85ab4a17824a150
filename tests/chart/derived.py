"""The files of the chart that follow from others: `python -m tests.chart.derived` writes them, the tests compare them.

* README.md: the table of the values, from the comments in values.yaml.
* values.schema.json: what `config` may have, from the fields that the agent reads; `affinity` and `extraEnv`, from the
  API's types.
* fields.json: the fields that the agent knows of a KubeProxyConfiguration, which the notes of a release look at.
* tests/chart/golden: the manifests of a few sets of values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from tests.chart.api_schema import affinity_schema, environment_schema
from tests.chart.config_schema import NETWORK, config_schema, known_fields
from tests.chart.engine import CHART, FROM_KUBECONFIG, GIVEN, merged, render_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

README = CHART / "README.md"
VALUES = CHART / "values.yaml"
SCHEMA = CHART / "values.schema.json"
FIELDS = CHART / "fields.json"
GOLDEN = Path(__file__).parent / "golden"

_BEGIN, _END = "<!-- from values.yaml -->\n", "<!-- end -->\n"

# In one of these each value that is true or false is not what it is by default.
SETS: Mapping[str, Mapping[str, object]] = {
    "default": GIVEN,
    "monitored": merged(
        GIVEN,
        {
            "metrics": {
                name: {"enabled": True}
                for name in ("podMonitor", "serviceMonitor", "prometheusRule", "dashboard")
            }
        },
    ),
    "privileged": merged(
        FROM_KUBECONFIG,
        {
            "privileged": True,
            "agent": {"acceptForwarded": False},
            "loadModules": False,
            "readPods": True,
            "config": {"ipvs": {"strictARP": True}},
            "imagePullSecrets": ["registry"],
            "extraArgs": ["--v=2"],
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
            "podLabels": {"team": "network"},
            "podAnnotations": {"example.com/scrape": "true"},
            "updateStrategy": {"type": "OnDelete"},
        },
    ),
}


class Value(NamedTuple):
    """A key of values.yaml: its path with dots, its default as YAML in one line, "" for a section, its comment."""

    path: str
    default: str
    comment: str

    @property
    def is_switch(self) -> bool:
        return self.default in {"true", "false"}


def documented_values() -> list[Value]:
    """Return all keys, in their order."""
    text = VALUES.read_text()
    return list(_values(yaml.compose(text), text.splitlines(), ""))


def _values(mapping: yaml.Node | None, lines: list[str], prefix: str) -> Iterator[Value]:
    assert isinstance(mapping, yaml.MappingNode)
    for key, value in mapping.value:
        path = prefix + key.value.replace(".", "\\.")
        comment = _comment_above(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and value.value:
            yield Value(path, "", comment)
            yield from _values(value, lines, f"{path}.")
        else:
            default = yaml.safe_load(yaml.serialize(value))
            yield Value(path, json.dumps(default), comment)


def _comment_above(lines: list[str], line: int) -> str:
    found: list[str] = []
    while line and lines[line - 1].strip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("#").strip())
    return " ".join(found)


def readme() -> str:
    """Return the README with the table as it should be."""
    head, rest = README.read_text().split(_BEGIN)
    tail = rest.split(_END)[1]
    rows = [
        f"| `{value.path}` | {f'`{value.default}`' if value.default else ''} | {_cell(value.comment)} |\n"
        for value in documented_values()
    ]
    return "".join((head, _BEGIN, "| Value | Default | Meaning |\n|---|---|---|\n", *rows, _END, tail))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def schema() -> str:
    """Return the schema with the parts `config` and `affinity` as they should be."""
    whole = json.loads(SCHEMA.read_text())
    whole["properties"]["config"] = config_schema()
    whole["properties"]["affinity"], definitions = affinity_schema()
    own = {name: each for name, each in whole["definitions"].items() if not name.startswith("V1")}
    whole["definitions"] = own | definitions | environment_schema()
    whole["definitions"]["network"]["pattern"] = f"^{NETWORK}$"
    return json.dumps(whole, indent=2) + "\n"


def fields() -> str:
    """Return the fields that the agent knows."""
    return json.dumps(known_fields(), indent=2) + "\n"


def manifest(name: str) -> str:
    """Return the manifests of a set of values."""
    return render_exactly(SETS[name]).manifest


def main() -> None:
    """Write all of it."""
    README.write_text(readme())
    SCHEMA.write_text(schema())
    FIELDS.write_text(fields())
    GOLDEN.mkdir(exist_ok=True)
    for name in SETS:
        (GOLDEN / f"{name}.yaml").write_text(manifest(name))


if __name__ == "__main__":
    main()
