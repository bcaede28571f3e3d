"""JSON values as schemas see them. Pure."""

from __future__ import annotations

from typing import Any, Final

TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")


def equal(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1, and 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return bool(one == other)


def is_type(value: Any, type_: str) -> bool:
    """Whether a value is of a type."""
    match value:
        case None:
            return type_ == "null"
        case bool():
            return type_ == "boolean"
        case int() | float():
            return type_ == "number" or (type_ == "integer" and value == value // 1)
        case str():
            return type_ == "string"
        case list():
            return type_ == "array"
        case _:
            return type_ == "object"
