"""One level of a JSON schema while it is rewritten: its keywords, and what they become."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from localapi.worker.llm.constrained.json_schema import SchemaRewriter

Schema = dict[str, Any]
Rewritten = Schema | bool

MOST_BRANCHES: Final = 32
"""Maximum alternatives into which one keyword is spelled out."""
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
"""Keywords with an effect. All others are annotations."""


class NotASchema(Exception):
    """The value is not a JSON schema. The message tells the user why."""


class Level:
    """One schema object while it is rewritten."""

    def __init__(self, rewriter: SchemaRewriter, node: Schema, path: str, depth: int, *, branch: bool) -> None:
        """Start a level. If `branch`, another schema also applies to the value, so an object must stay open."""
        self.rewriter = rewriter
        self.node = node
        self.path = path
        self.depth = depth
        self.branch = branch
        self.out: Schema = {}
        self.also: list[Rewritten] = []
        """Schemas that apply in addition to `out`."""
        self.types = self._read_types()
        """Types that a value may have. "number" includes integers."""

    def relax(self, keyword: str) -> None:
        self.rewriter.relax(self.path, keyword)

    def below(self, node: Any, *keys: str | int, branch: bool = False) -> Rewritten:
        """Return the rewritten schema at these keys below this level."""
        path = self.path
        for key in keys:
            path = joined(path, str(key))
        return self.rewriter.rewritten(node, path, branch=branch, depth=self.depth + 1)

    def wrong(self, keyword: str, wanted: str) -> NotASchema:
        """Return the error for a keyword with a wrong value."""
        found = json.dumps(self.node[keyword], default=str)[:60]
        return NotASchema(f"{joined(self.path, keyword)} must be {wanted}; found {found}")

    def count(self, keyword: str) -> int | None:
        """Return the value of a keyword that counts characters, items or properties."""
        value = self.node.get(keyword)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 0:
            raise self.wrong(keyword, "a whole number, 0 or greater")
        return int(value)

    def items_of(self, keyword: str) -> list[Any]:
        """Return the list that a keyword has as its value. Raise NotASchema."""
        value = self.node.get(keyword, [])
        if not isinstance(value, list):
            raise self.wrong(keyword, "a list")
        return value

    def mapping(self, keyword: str) -> dict[str, Any]:
        """Return the object that a keyword has as its value. Raise NotASchema."""
        value = self.node.get(keyword, {})
        if not isinstance(value, dict):
            raise self.wrong(keyword, "an object")
        return value

    def _read_types(self) -> list[str]:
        """Return the types that a value may have; all of them except "integer" if the schema names none."""
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
    """Return a schema for values of all types but one, if there are any."""
    others = [name for name in types if name != but]
    return [{"type": others}] if others else []


def joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")


def equal(one: Any, other: Any) -> bool:
    """Return True if two values are equal as JSON: `true` is not 1, but 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return bool(one == other)


def is_type(value: Any, type_: str) -> bool:
    """Return True if a value is of a type."""
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


def pointed(start: Any, fragment: str) -> tuple[bool, Any]:
    """Return whether a JSON pointer leads to a value, and that value."""
    target = start
    for piece in fragment.split("/")[1:]:
        key = piece.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        else:
            return False, None
    return True, target
