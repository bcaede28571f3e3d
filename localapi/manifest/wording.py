"""JSON Schemas of single options in words: possible values, bounds, default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml
from pydantic import TypeAdapter

from localapi.backends.options import Duration, MemorySize
from localapi.manifest.description import duration

Schema = Mapping[str, Any]
LinkTo = Callable[[frozenset[str]], str]
"""Returns the link to the section that describes these options."""

_DURATION: Final = TypeAdapter(Duration).json_schema()["anyOf"]
_MEMORY: Final = TypeAdapter(MemorySize).json_schema()["anyOf"]
_EXACT: Final = 2**53
"""Bounds beyond this only come from the wire format, and are not shown."""


def value(schema: Schema, definitions: Schema, link_to: LinkTo) -> str:
    """Describe the possible values."""
    if "anyOf" in schema:
        return _either(schema["anyOf"], definitions, link_to)
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "properties" in schema:
        return link_to(frozenset(schema["properties"]))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema["type"] == "array":
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        items = value(schema["items"], definitions, link_to)
        return f"list of {'strings' if items == 'string' else items}{most}"
    if schema["type"] == "object":
        return _map(schema, definitions, link_to)
    return _SCALARS[schema["type"]](schema)


def _either(parts: list[Schema], definitions: Schema, link_to: LinkTo) -> str:
    if all(part in parts for part in _DURATION):
        return "duration"
    if parts == _MEMORY:
        return "amount of memory"
    said = [value(part, definitions, link_to) for part in parts if part != {"type": "null"}]
    return " or ".join(dict.fromkeys(said))


def _map(schema: Schema, definitions: Schema, link_to: LinkTo) -> str:
    each = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
    return f"map of names to {value(each, definitions, link_to)}" if isinstance(each, dict) else "map"


def _text(schema: Schema) -> str:
    least = schema.get("minLength", 1)
    return "string" if least == 1 else f"string of at least {least} characters"


def _bounds(schema: Schema) -> str:
    low, high, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if high is not None and high >= _EXACT:
        return ""
    if above is not None:
        return f" above {above:g}" + ("" if high is None else f", at most {high:g}")
    if low is None:
        return ""
    return f", {low:g} or more" if high is None else f", {low:g} to {high:g}"


_SCALARS: Final[Mapping[str, Callable[[Schema], str]]] = {
    "boolean": lambda _: "`true`, `false`",
    "string": _text,
    "integer": lambda schema: f"integer{_bounds(schema)}",
    "number": lambda schema: f"number{_bounds(schema)}",
}


def default(schema: Schema) -> str:
    """Return the default as YAML, without nulls inside of it."""
    usual = schema.get("default")
    if isinstance(usual, dict):
        usual = {key: part for key, part in usual.items() if part is not None}
    if isinstance(usual, float):
        is_duration = all(part in schema.get("anyOf", []) for part in _DURATION)
        return duration(usual) if is_duration else f"{usual:g}"
    return one_line(usual)


def one_line(value: object) -> str:
    """Return a value as YAML, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()
