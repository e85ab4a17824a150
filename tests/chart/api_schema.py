"""The schema of a value that goes to the API as it is, made of the API's own type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubernetes.client import V1Affinity

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


def affinity_schema() -> tuple[Schema, dict[str, Schema]]:
    """Return the schema of the value `affinity`, and the definitions that it refers to."""
    whole = V1Affinity.model_json_schema(ref_template="#/definitions/{model}")
    definitions = {name: _bare(definition) for name, definition in whole["$defs"].items()}
    for name, properties in _CONSTRAINTS.items():
        for key, constraint in properties.items():
            definitions[name]["properties"][key] = constraint
    definitions["V1LabelSelectorRequirement"]["allOf"] = _VALUES[:2]
    definitions["V1NodeSelectorRequirement"]["allOf"] = _VALUES
    definitions["V1NodeSelector"]["properties"]["nodeSelectorTerms"]["minItems"] = 1
    return _bare(whole), definitions


def _bare(schema: Schema) -> Schema:
    """Return the schema without what is no constraint; a field that may be null may be left out instead."""
    (schema,) = (each for each in schema.get("anyOf", [schema]) if each.get("type") != "null")
    bare = {key: schema[key] for key in _KEPT if key in schema}
    if "properties" in bare:
        bare["properties"] = {key: _bare(each) for key, each in bare["properties"].items()}
    if "items" in bare:
        bare["items"] = _bare(bare["items"])
    return bare
