"""Schemas of this format (a subset of OpenAPI 3.0, types in capitals) as JSON Schema."""

from __future__ import annotations

from typing import Any


def to_json_schema(schema: Any) -> Any:
    """The JSON Schema that says the same."""
    if isinstance(schema, list):
        return [to_json_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        match key:
            case "type" if isinstance(value, str):
                out[key] = value.lower()
            case "properties" | "$defs" | "defs" if isinstance(value, dict):
                out[key] = {name: to_json_schema(one) for name, one in value.items()}
            case "nullable" | "propertyOrdering" | "property_ordering":
                pass
            case "enum" | "default" | "example" | "required" | "description" | "title":
                out[key] = value
            case "minItems" | "maxItems" | "minLength" | "maxLength" if isinstance(value, str):
                out[key] = int(value)
            case "any_of":
                out["anyOf"] = to_json_schema(value)
            case _:
                out[key] = to_json_schema(value)
    if schema.get("nullable") is True and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out
