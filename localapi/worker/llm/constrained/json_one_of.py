"""Make the members of a `oneOf` exclude each other."""

from __future__ import annotations

from typing import Any, Final

from localapi.worker.llm.constrained.json_level import COMBINING, TYPES, Schema, SchemaRewriter, equal, is_type
from localapi.worker.llm.constrained.json_pattern import overlap

MOST_MEMBERS: Final = 64
"""The most members that are compared with each other."""
DEEPEST: Final = 3
"""The levels of properties that are compared."""
_ALL_KINDS: Final = set(TYPES)


class Alternatives:
    """The members of a `oneOf`, and what to add to each so that no value satisfies two of them."""

    def __init__(self, rewriter: SchemaRewriter, members: list[Any], types: list[str]) -> None:
        """`types`: the types that the schema around them allows."""
        self._members = [rewriter.resolved(member) for member in members]
        self._types = {"number" if name == "integer" else name for name in types}
        self._rewriter = rewriter
        self.additions: list[Schema] = [{} for _ in members]

    def separated(self) -> bool:
        """Return True if no value satisfies two members, given the additions."""
        members = self._members
        if len(members) > MOST_MEMBERS:
            return False
        for at, one in enumerate(members):
            for other_at, other in enumerate(members):
                if at != other_at and not self._apart(one, other) and not self._part(at, one, other):
                    return False
        return True

    def _apart(self, one: Schema, other: Schema, depth: int = 0) -> bool:  # noqa: PLR0911  # one for each type
        """Return True if it is certain that no value satisfies both schemas."""
        if depth > DEEPEST or not one or not other:
            return False
        shared = _kinds(one) & _kinds(other) & (self._types if depth == 0 else _ALL_KINDS)
        values, other_values = _members(one), _members(other)
        if values is not None and other_values is not None:
            return not any(equal(a, b) for a in values for b in other_values)
        match sorted(shared):
            case []:
                return True
            case ["number"]:
                return _above(one, other) or _above(other, one)
            case ["string"]:
                patterns = one.get("pattern"), other.get("pattern")
                return all(isinstance(each, str) for each in patterns) and not overlap(*map(str, patterns))
            case ["object"]:
                return any(self._told_by(name, one, other, depth) for name in {*_required(one), *_required(other)})
            case _:
                return False

    def _told_by(self, name: str, one: Schema, other: Schema, depth: int) -> bool:
        """Return True if a property that one of two objects must have, or both, tells them apart."""
        if name in _required(one) and name in _required(other):
            mine, theirs = self._property(one, name), self._property(other, name)
            return mine is not None and theirs is not None and self._apart(mine, theirs, depth + 1)
        return _forbids(other, name) if name in _required(one) else _forbids(one, name)

    def _part(self, at: int, one: Schema, other: Schema) -> bool:
        """Add a condition to `one` that tells it from `other`; return False if there is none."""
        if _kinds(one) & _kinds(other) & self._types != {"object"} or COMBINING & (one.keys() | other.keys()):
            return False
        addition = self.additions[at]
        named = one.get("properties")
        for name in named if isinstance(named, dict) else ():
            mine, theirs = self._property(one, name), self._property(other, name)
            if mine and theirs and self._apart(mine, theirs, 1):
                addition["required"] = list(dict.fromkeys([*addition.get("required", ()), name]))
                return True
        for name in _required(other):
            if name not in _required(one):
                addition.setdefault("properties", {})[name] = False
                return True
        return False

    def _property(self, schema: Schema, name: str) -> Schema | None:
        properties = schema.get("properties")
        found = properties.get(name) if isinstance(properties, dict) else None
        return self._rewriter.resolved(found) if found is not None else None


def _kinds(schema: Schema) -> set[str]:
    """Return the types that a schema's values may have. "number" includes integers."""
    said = schema.get("type")
    if not isinstance(said, str | list):
        said = list(TYPES)
    kinds = {said} if isinstance(said, str) else set(said)
    members = _members(schema)
    if members is not None:
        kinds = {name for name in kinds if any(is_type(member, name) for member in members)}
    return {"number" if name == "integer" else name for name in kinds}


def _members(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def _above(one: Schema, other: Schema) -> bool:
    """Return True if all numbers of `one` are greater than those of `other`."""
    low, low_open = one.get("minimum"), one.get("exclusiveMinimum")
    high, high_open = other.get("maximum"), other.get("exclusiveMaximum")
    if not all(value is None or is_type(value, "number") for value in (low, low_open, high, high_open)):
        return False
    if low is not None and high is not None and low > high:
        return True
    if low_open is not None and high is not None and low_open >= high:
        return True
    return high_open is not None and any(value is not None and value >= high_open for value in (low, low_open))


def _required(schema: Schema) -> list[str]:
    names = schema.get("required")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _forbids(schema: Schema, name: str) -> bool:
    """Return True if an object of this schema cannot have the property."""
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    if name in properties:
        return properties[name] is False
    return schema.get("additionalProperties") is False and "patternProperties" not in schema
