"""Convert tool arguments that a model wrote as plain text to the JSON values that the tool's schema requires.

Many formats write `5`, `true` and `{"a": 1}` between tags just as they write text, and only the schema defines which is
meant. Values become JSON text rather than Python values, so that numbers keep all their digits.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn
from urllib.parse import unquote

from localapi.worker.llm.constrained.json_level import equal, pointed

Schema = Any
"""A JSON schema as the client sent it, so possibly anything."""

_JSON_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(r"-?\d+", re.ASCII)
_MOST_DIGITS: Final = 400
"""Maximum digits of an integer made from a number with a fraction or an exponent, as `1e3` becomes 1000."""
_BOOLEAN_WORDS: Final = {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}
_TYPE_NAMES: Final = {
    "boolean": ("bool",),
    "integer": ("int", "uint", "long", "short", "unsigned"),
    "number": ("num", "float", "double", "decimal"),
    "object": ("obj", "dict", "map"),
    "array": ("arr", "list", "tuple"),
    "string": ("str", "text", "char", "varchar"),
    "null": ("null", "none"),
}
"""JSON's types, and prefixes of the names that clients use for them."""
_TEXT_KEYWORDS: Final = {"pattern", "minLength", "maxLength"}
_MOST_SCHEMAS: Final = 200
"""Maximum schemas with which a value is compared, or which are searched for a property. All others allow anything."""


def converted(text: str, schema: Schema, root: Schema) -> str:
    """Return the value as JSON: the first reading that the schema allows, otherwise the text as a string.

    `root` is the schema in which references are resolved.
    """
    words = not allows("string", '""', schema, root)
    readings = list(_readings(text, words=words))
    # A value that is not in the enum is still better as one of its types than as text.
    for exact in (True, False):
        for kind, value in readings:
            if _Fit(kind, value, root, exact=exact).of(schema):
                return value
    return json_text(text)


def allows(kind: str, value: str, schema: Schema, root: Schema) -> bool:
    """Return True if the schema allows values of this type; `value` is one of them, in JSON."""
    return _Fit(kind, value, root, exact=False).of(schema)


def text_value(text: str, schema: Schema, root: Schema) -> str:
    """Return text that a model marked as such as JSON: a string unless the schema allows none, as converted then."""
    return json_text(text) if allows("string", '""', schema, root) else converted(text, schema, root)


def property_schema(name: str, schema: Schema, root: Schema, seen: set[int] | None = None) -> Schema:
    """Return the schema of a property, wherever an object's schema gives it; True if it gives none.

    `seen`: the ids of the schemas that have been searched.
    """
    seen = set() if seen is None else seen
    if not isinstance(schema, dict) or id(schema) in seen or len(seen) > _MOST_SCHEMAS:
        return True
    seen.add(id(schema))
    properties = schema.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    places = [_referred(schema, root)]
    for key in ("allOf", "anyOf", "oneOf"):
        places += _listed(schema, key)
    found = []
    for place in places:
        inner = property_schema(name, place, root, seen)
        if inner is not True:
            found.append(inner)
    if found:
        return found[0] if len(found) == 1 else {"anyOf": found}
    return _unnamed_property_schema(name, schema)


def _unnamed_property_schema(name: str, schema: dict[str, Any]) -> Schema:
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict):
        for pattern, each in patterns.items():
            try:
                if re.search(pattern, name):
                    return each
            except re.error:  # ECMAScript's syntax, not Python's
                continue
    return schema.get("additionalProperties") or True


def item_schema(schema: Schema, root: Schema) -> Schema:
    """Return the schema of an array's items if the array's schema gives it directly; otherwise True."""
    if not isinstance(schema, dict):
        return True
    for place in (schema, _referred(schema, root)):
        if isinstance(place, dict) and isinstance(place.get("items"), dict):
            return place["items"]
    return True


def json_text(value: object) -> str:
    """Return the value as JSON. Raise ValueError or TypeError if JSON cannot express it."""
    return without_surrogates(json.dumps(value, ensure_ascii=False, allow_nan=False))


def without_surrogates(text: str) -> str:
    """Return the JSON with lone surrogates escaped, because a response cannot carry them."""
    return text.encode("utf-8", "backslashreplace").decode()


def refuse_constant(constant: str) -> NoReturn:
    """Raise ValueError for NaN and the infinities, as the `parse_constant` of `json.loads`."""
    raise ValueError(f"{constant} is not JSON")


def _readings(text: str, *, words: bool) -> Iterator[tuple[str, str]]:
    """Yield the possible meanings of the text, the most specific first, as a type and a value in JSON.

    With `words`, text cannot be meant, so "yes", "none" and "007" are a boolean, null and a number.
    """
    stripped = text.strip()
    lower = stripped.lower()
    if lower == "null" or stripped == "None" or (words and lower == "none"):
        yield "null", "null"
    number = _number(stripped, lenient=words)
    if number is not None:
        yield ("integer" if _INTEGER.fullmatch(number) else "number"), number
        integer = _integer(number)
        if integer is not None:
            yield "integer", integer
    if lower in ("true", "false"):
        yield "boolean", lower
    elif words and lower in _BOOLEAN_WORDS:
        yield "boolean", _BOOLEAN_WORDS[lower]
    container = _container(stripped) if stripped.startswith(("{", "[")) else None
    if container is not None:
        yield ("object" if container.startswith("{") else "array"), container
    yield "string", json_text(text)
    yield "string", json_text(stripped)


class _Fit:
    """Check whether a schema allows a value by its type; if `exact`, also by enum and const."""

    def __init__(self, kind: str, value: str, root: Schema, *, exact: bool) -> None:
        self._kind = kind
        self._root = root
        self._exact = exact
        try:
            self._python: object = json.loads(value)
        except (ValueError, RecursionError):  # an integer of thousands of digits equals nothing
            self._python = ...  # equals nothing
        # Each schema is checked once: references may form cycles, or lead to the same place by millions of paths.
        self._known: dict[int, bool] = {}

    def of(self, schema: Schema) -> bool:
        """Return True if this schema allows the value."""
        if not isinstance(schema, dict):
            return schema is not False
        if id(schema) not in self._known:
            self._known[id(schema)] = True
            self._known[id(schema)] = len(self._known) > _MOST_SCHEMAS or self._of(schema)
        return self._known[id(schema)]

    def _of(self, schema: dict[str, Any]) -> bool:
        types = _types(schema)
        members = list(_listed(schema, "enum"))
        if "const" in schema:
            members.append(schema["const"])
        if types and not self._is_one_of(types):
            return False
        if members and self._exact and not any(equal(self._python, member) for member in members):
            return False
        if members and not self._exact and not self._is_one_of({_kind(member) for member in members}):
            return False
        if not types and not members and self._kind != "string" and _TEXT_KEYWORDS.intersection(schema):
            return False
        if not self.of(_referred(schema, self._root)) or not all(map(self.of, _listed(schema, "allOf"))):
            return False
        choices = [_listed(schema, "anyOf"), _listed(schema, "oneOf")]
        return all(any(map(self.of, choice)) for choice in choices if choice)

    def _is_one_of(self, types: set[str]) -> bool:
        return self._kind in types or (self._kind == "integer" and "number" in types)


def _types(schema: dict[str, Any]) -> set[str]:
    """Return the types that the schema names; empty if it names none, or an unknown one."""
    named = schema.get("type")
    types = set()
    for name in named if isinstance(named, list) else [named]:
        known = [type_ for type_, starts in _TYPE_NAMES.items() if str(name).lower().startswith((type_, *starts))]
        if name is None or not known:
            return set()
        types.add(known[0])
    return types | {"null"} if types and schema.get("nullable") is True else types


def _kind(member: object) -> str:
    """Return the JSON type of a Python value."""
    if member is None:
        return "null"
    if isinstance(member, bool):
        return "boolean"
    names = {int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(member), "object")


def _referred(schema: dict[str, Any], root: Schema) -> Schema:
    """Return the schema that `$ref` refers to; True if there is none, or it is outside of this schema."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#"):
        return True
    found, place = pointed(root, unquote(reference[1:]))
    return place if found else True


def _listed(schema: dict[str, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _number(text: str, *, lenient: bool) -> str | None:
    """Return the number as JSON. If `lenient`, accept numbers that JSON writes differently, such as `+5` and `007`."""
    if _JSON_NUMBER.fullmatch(text):
        return text
    if not lenient or not _NUMBER.fullmatch(text):
        return None
    try:
        return str(Decimal(text))
    except InvalidOperation:  # an exponent of twenty digits
        return None


def _integer(number: str) -> str | None:
    """Return a whole number without its fraction or exponent; None if the number is not whole."""
    try:
        exact = Decimal(number)
    except InvalidOperation:
        return None
    if exact.adjusted() > _MOST_DIGITS or exact != int(exact):
        return None
    return str(int(exact))


def _container(text: str) -> str | None:
    """Return an object or array as JSON; None if it is neither. Models also write Python literals, as templates do."""
    try:
        json.loads(text, parse_constant=refuse_constant)
        return without_surrogates(text)
    except (ValueError, RecursionError):
        pass
    try:  # control characters in strings, which JSON forbids but models write
        return json_text(json.loads(text, strict=False))
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know, as in "\d"
            tree = ast.parse(text, mode="eval")
        return json_text(ast.literal_eval(_JsonNames().visit(tree)))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


class _JsonNames(ast.NodeTransformer):
    """Accept JSON's true, false and null among Python literals."""

    _values: Final = {"true": True, "false": False, "null": None}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(self._values[node.id]) if node.id in self._values else node
