"""The schemas of values that go to the API as they are, made of the API's own types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubernetes.client import V1Affinity, V1EnvVar

if TYPE_CHECKING:
    from collections.abc import Mapping

Schema = dict[str, Any]

# What the API's types tell in words alone.
_KEY = {"$ref": "#/definitions/labelKey"}
_OPERATORS = ["In", "NotIn", "Exists", "DoesNotExist"]
_NUMERIC_OPERATORS = ["Gt", "Lt"]
_WEIGHT = {"type": "integer", "minimum": 1, "maximum": 100}
_CONSTRAINTS: Mapping[str, Mapping[str, Schema]] = {
    "V1LabelSelectorRequirement": {"key": _KEY, "operator": {"enum": _OPERATORS}},
    "V1NodeSelectorRequirement": {"key": _KEY, "operator": {"enum": [*_OPERATORS, *_NUMERIC_OPERATORS]}},
    "V1PreferredSchedulingTerm": {"weight": _WEIGHT},
    "V1WeightedPodAffinityTerm": {"weight": _WEIGHT},
}


def _values(operators: list[str], least: int, most: int | None) -> Schema:
    """Say how many values these operators go with."""
    count = {"minItems": least} | ({} if most is None else {"maxItems": most})
    return {
        "if": {"required": ["operator"], "properties": {"operator": {"enum": operators}}},
        "then": {"required": ["values"] if least else [], "properties": {"values": count}},
    }


_VALUES = [_values(_OPERATORS[:2], 1, None), _values(_OPERATORS[2:], 0, 0), _values(_NUMERIC_OPERATORS, 1, 1)]
_KEPT = ("type", "additionalProperties", "required", "properties", "items", "$ref")


def environment_schema() -> dict[str, Schema]:
    """Return the definitions of an item of the value `extraEnv`, which is V1EnvVar."""
    variable, definitions = _schema(V1EnvVar)
    variable["properties"]["name"] = {"type": "string", "pattern": "^[-._A-Za-z][-._A-Za-z0-9]*$"}
    return {"V1EnvVar": variable, **definitions}


def affinity_schema() -> tuple[Schema, dict[str, Schema]]:
    """Return the schema of the value `affinity`, and the definitions that it refers to."""
    affinity, definitions = _schema(V1Affinity)
    for name, properties in _CONSTRAINTS.items():
        for key, constraint in properties.items():
            definitions[name]["properties"][key] = constraint
    definitions["V1LabelSelectorRequirement"]["allOf"] = _VALUES[:2]
    definitions["V1NodeSelectorRequirement"]["allOf"] = _VALUES
    definitions["V1NodeSelector"]["properties"]["nodeSelectorTerms"]["minItems"] = 1
    return affinity, definitions


def _schema(model: Any) -> tuple[Schema, dict[str, Schema]]:  # noqa: ANN401 - the client ships no usable types
    whole = model.model_json_schema(ref_template="#/definitions/{model}")
    return _bare(whole), {name: _bare(definition) for name, definition in whole["$defs"].items()}


def _bare(schema: Schema) -> Schema:
    """Return the schema without what is no constraint; a field that may be null may be left out instead."""
    (schema,) = (each for each in schema.get("anyOf", [schema]) if each.get("type") != "null")
    bare = {key: schema[key] for key in _KEPT if key in schema}
    if "properties" in bare:
        bare["properties"] = {key: _bare(each) for key, each in bare["properties"].items()}
    if "items" in bare:
        bare["items"] = _bare(bare["items"])
    return bare
