"""One level of a JSON schema while it is rewritten: what is said there, and what comes of it. Pure."""

from __future__ import annotations

import json
from typing import Any, Final, Protocol

Schema = dict[str, Any]
Rewritten = Schema | bool

MOST_BRANCHES: Final = 32
"""Alternatives that one keyword may be spelled out as."""
OBJECT_KEYWORDS: Final = frozenset({
    "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
    "maxProperties", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties",
})  # fmt: skip
COMBINING: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "if", "not"})
MEANINGFUL: Final = (
    OBJECT_KEYWORDS
    | COMBINING
    | {
        "type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
        "minLength", "maxLength", "pattern", "format", "items", "prefixItems", "additionalItems", "minItems",
        "maxItems", "uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems", "then", "else",
    }
)  # fmt: skip
"""Keywords that assert something. All others are for people and programs that read the schema."""


class NotASchema(Exception):
    """No JSON schema; the message is for people and says why."""


class SchemaRewriter(Protocol):
    """The schema that a level is part of."""

    close: bool
    """Whether objects have only the properties that are named."""

    def rewritten(self, node: Any, path: str, *, branch: bool, depth: int = 0) -> Rewritten:
        """Rewrite another level. Raises NotASchema."""

    def reference(self, ref: str, path: str, keyword: str, *, branch: bool) -> Schema:
        """A reference to a rewritten definition."""

    def resolved(self, node: Any) -> Schema:
        """A schema as it is written, behind references that stand alone; {} for anything else."""

    def relax(self, path: str, keyword: str) -> None:
        """Note that a keyword is not kept."""


class Level:
    """What the rewriting of one schema object knows."""

    def __init__(self, rewriter: SchemaRewriter, node: Schema, path: str, depth: int, *, branch: bool) -> None:
        """`branch`: another schema speaks about the same value, so that an object must stay open."""
        self.rewriter = rewriter
        self.node = node
        self.path = path
        self.depth = depth
        self.branch = branch
        self.out: Schema = {}
        self.also: list[Rewritten] = []
        """Schemas that hold beside `out`."""
        self.types = self._read_types()
        """The types that a value may have; "number" stands for integers, too."""

    def relax(self, keyword: str) -> None:
        self.rewriter.relax(self.path, keyword)

    def below(self, node: Any, *keys: str | int, branch: bool = False) -> Rewritten:
        path = self.path
        for key in keys:
            path = joined(path, str(key))
        return self.rewriter.rewritten(node, path, branch=branch, depth=self.depth + 1)

    def wrong(self, keyword: str, wanted: str) -> NotASchema:
        found = json.dumps(self.node[keyword], default=str)[:60]
        return NotASchema(f"{joined(self.path, keyword)} must be {wanted}; found {found}")

    def count(self, keyword: str) -> int | None:
        """A number of characters, items or properties."""
        value = self.node.get(keyword)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 0:
            raise self.wrong(keyword, "a whole number that is not negative")
        return int(value)

    def items_of(self, keyword: str) -> list[Any]:
        value = self.node.get(keyword, [])
        if not isinstance(value, list):
            raise self.wrong(keyword, "a list")
        return value

    def mapping(self, keyword: str) -> dict[str, Any]:
        value = self.node.get(keyword, {})
        if not isinstance(value, dict):
            raise self.wrong(keyword, "an object")
        return value

    def _read_types(self) -> list[str]:
        """The types that a value may have; all of them without "integer" where nothing is said."""
        said = self.node.get("type")
        if said is None:
            return [name for name in TYPES if name != "integer"]
        names = said if isinstance(said, list) else [said]
        for name in names:
            if name not in TYPES:
                raise NotASchema(f"Invalid type: {name} ({joined(self.path, 'type')})")
        if not names:
            raise self.wrong("type", "one of " + ", ".join(TYPES))
        return [name for name in dict.fromkeys(names) if not (name == "integer" and "number" in names)]


def other_types(types: list[str], but: str) -> list[Schema]:
    """A schema for values of the types but one, if there are any."""
    others = [name for name in types if name != but]
    return [{"type": others}] if others else []


def joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


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
