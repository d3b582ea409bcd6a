"""The part of JSON Schema (2020-12) that the status server's description uses; any other keyword is our mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip
_KNOWN = frozenset(
    {
        "type", "properties", "required", "additionalProperties", "propertyNames", "maxProperties", "items", "minItems",
        "maxItems", "enum", "const", "pattern", "minLength", "maxLength", "minimum", "maximum", "description",
        "contentEncoding",
    }
)  # fmt: skip


class SchemaError(ValueError):
    """A value that does not fit; the text names the place and repeats nothing of the value."""


def check(value: Any, schema: Mapping[str, Any], path: str = "body") -> None:
    """SchemaError unless the value fits the schema."""
    if unknown := schema.keys() - _KNOWN:
        raise LookupError(f"schema: a keyword that is not known: {sorted(unknown)[0]}")
    if "type" in schema and not _is_type(value, schema["type"]):
        raise SchemaError(f"{path}: not {schema['type']}")
    if "enum" in schema and value not in schema["enum"]:
        raise SchemaError(f"{path}: not one of the values")
    if "const" in schema and value != schema["const"]:
        raise SchemaError(f"{path}: not the value")
    if isinstance(value, dict):
        _check_object(value, schema, path)
    elif isinstance(value, list):
        _check_size(len(value), schema.get("minItems"), schema.get("maxItems"), path)
        for number, item in enumerate(value):
            check(item, schema.get("items", {}), f"{path}[{number}]")
    elif isinstance(value, str):
        _check_size(len(value), schema.get("minLength"), schema.get("maxLength"), path)
        # In ECMA 262, whose expressions these are, $ is the very end.
        if "pattern" in schema and re.search(re.sub(r"\$$", r"\\Z", schema["pattern"]), value) is None:
            raise SchemaError(f"{path}: not of the form")
    elif isinstance(value, (int, float)):
        _check_size(value, schema.get("minimum"), schema.get("maximum"), path)


def _is_type(value: Any, name: str | list[str]) -> bool:
    if isinstance(name, list):
        return any(_is_type(value, one) for one in name)
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _check_size(value: float, low: float | None, high: float | None, path: str) -> None:
    if (low is not None and value < low) or (high is not None and value > high):
        raise SchemaError(f"{path}: out of bounds")


def _check_object(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> None:
    _check_size(len(value), None, schema.get("maxProperties"), path)
    for name in schema.get("required", ()):
        if name not in value:
            raise SchemaError(f"{path}.{name}: missing")
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            check(item, properties[name], f"{path}.{name}")
        elif others is False:
            raise SchemaError(f"{path}: a field that is not known")
        elif others is not True:
            check(name, schema.get("propertyNames", {}), f"{path}: a field's name")
            check(item, others, f"{path}: a field")
