"""Rewrite the keywords that combine schemas: `not`, `$ref`, `allOf`, `anyOf`, `oneOf`, `if`.

The members of a `oneOf` are made to exclude each other (`Alternatives`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from localapi.worker.llm.constrained.json_level import (
    COMBINING,
    MEANINGFUL,
    OBJECT_KEYWORDS,
    TYPES,
    Level,
    Rewritten,
    Schema,
    equal,
    is_type,
)
from localapi.worker.llm.constrained.json_pattern import overlap, supported_patterns

if TYPE_CHECKING:
    from localapi.worker.llm.constrained.json_schema import SchemaRewriter

DEEPEST_MERGE: Final = 16
MOST_MEMBERS: Final = 64
"""Maximum members of a `oneOf` that are compared with each other."""
DEEPEST: Final = 3
"""Maximum levels of properties that are compared."""
_ALL_KINDS: Final = set(TYPES)
_PLAIN_OBJECT: Final = frozenset({"type", "properties", "required", "allOf"})


def apply_negation(level: Level) -> None:
    """Apply a `not` that excludes types or values, or forbids a property; relax any other."""
    if "not" not in level.node:
        return
    said = level.node["not"]
    meant = _assertions(level.rewriter.resolved(said)) if isinstance(said, dict) else said
    if meant is False:
        return
    if meant is True or said == {}:
        level.types = []
        return
    match meant:
        case {"type": str() | list() as denied_types, **rest} if not rest:
            _deny_types(level, {denied_types} if isinstance(denied_types, str) else set(denied_types))
        case {"const": value, **rest} if not rest:
            _deny_values(level, [value])
        case {"enum": list() as values, **rest} if not rest:
            _deny_values(level, values)
        case {"pattern": str() as pattern, **rest} if not rest.keys() - {"type"} and level.types == ["string"]:
            _deny_pattern(level, f"^(?!{pattern[1:]})" if pattern.startswith("^") else f"^(?![\\s\\S]*(?:{pattern}))")
        case {"required": [str() as name], **rest} if not rest and level.types == ["object"]:
            level.also.append({"properties": {name: False}})
        case _:
            level.relax("not")


def _assertions(schema: Schema) -> Schema:
    """Return the keywords of a schema that have an effect."""
    return {key: value for key, value in schema.items() if key in MEANINGFUL}


def _deny_types(level: Level, denied: set[str]) -> None:
    if "integer" in denied and "number" in level.types and "number" not in denied:
        level.relax("not")
        return
    if "number" in denied:
        denied = denied | {"integer"}
    level.types = [name for name in level.types if name not in denied]


def _deny_values(level: Level, values: list[Any]) -> None:
    """Exclude values: known members, null, booleans and strings."""
    if "enum" in level.node or "const" in level.node:
        members = [level.node["const"]] if "const" in level.node else level.items_of("enum")
        left = [member for member in members if not any(equal(member, value) for value in values)]
        level.node = {key: value for key, value in level.node.items() if key != "const"} | {"enum": left}
        return
    if None in values:
        level.types = [name for name in level.types if name != "null"]
    flags = [value for value in values if isinstance(value, bool)]
    if flags and "boolean" in level.types:
        left = [value for value in (True, False) if value not in flags]
        level.types.remove("boolean")
        if left and not level.types:
            level.types = ["boolean"]
            level.node = {**level.node, "enum": left}
        elif left:
            level.relax("not")
            level.types.append("boolean")
    strings = [value for value in values if isinstance(value, str)]
    if strings:
        _deny_pattern(level, f"^(?!(?:{'|'.join(map(re.escape, strings))})$)")
    for value in values:
        is_other = value is not None and not isinstance(value, bool | str)
        if is_other and any(is_type(value, name) for name in level.types):
            level.relax("not")
            return


def _deny_pattern(level: Level, pattern: str) -> None:
    """Exclude the strings that this negated expression does not match."""
    if "string" not in level.types:
        return
    found = supported_patterns(pattern)
    if not found.exact:
        level.relax("not")
    level.also += [{"pattern": each} for each in found.patterns]


def add_references(level: Level) -> None:
    """Rewrite `$ref` and related keywords."""
    for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
        ref = level.node.get(keyword)
        if ref is None:
            continue
        if not isinstance(ref, str):
            raise level.wrong(keyword, "a string")
        branch = level.branch or _others(level, keyword)
        found = level.rewriter.reference(ref, level.path, keyword, branch=branch)
        if "$ref" in level.out:
            level.also.append(found)
        else:
            level.out.update(found)


def add_combinations(level: Level) -> None:
    """Rewrite `allOf`, `anyOf` and `oneOf`."""
    everything = _members(level, "allOf")
    alone = len(everything) == 1 and not level.branch and not _others(level, "allOf")
    level.also += [level.below(part, "allOf", at, branch=not alone) for at, part in enumerate(everything)]
    if "anyOf" in level.node:
        shared = level.branch or _others(level, "anyOf")
        parts = enumerate(_members(level, "anyOf"))
        _any_of(level, [level.below(part, "anyOf", at, branch=shared) for at, part in parts])
    if "oneOf" in level.node:
        shared = level.branch or _others(level, "oneOf")
        members = _members(level, "oneOf")
        alternatives = Alternatives(level.rewriter, members, level.types)
        if not alternatives.separated():
            level.relax("oneOf")
        rewritten = [level.below(part, "oneOf", at, branch=shared) for at, part in enumerate(members)]
        _any_of(level, list(map(_with, rewritten, alternatives.additions)))


def _members(level: Level, keyword: str) -> list[Any]:
    """Return the schemas that a keyword combines."""
    members = level.items_of(keyword)
    if keyword in level.node and not members:
        raise level.wrong(keyword, "a non-empty list of schemas")
    return members


def _others(level: Level, keyword: str) -> bool:
    """Return True if other keywords apply to the same object."""
    return bool((OBJECT_KEYWORDS | COMBINING) & level.node.keys() - {keyword})


def _any_of(level: Level, members: list[Rewritten]) -> None:
    if any(member is True or member == {} for member in members):
        return
    possible = [member for member in members if member is not False]
    if not possible:
        level.also.append(False)
    elif "anyOf" in level.out or "$ref" in level.out:
        level.also.append({"anyOf": possible})
    else:
        level.out["anyOf"] = possible


def _with(member: Rewritten, addition: Schema) -> Rewritten:
    if not addition or isinstance(member, bool):
        return member
    return {"allOf": [member, addition]}


def add_conditions(level: Level) -> None:
    """Rewrite an `if` about a property with one of some known values; relax any other."""
    node = level.node
    if "if" not in node or not {"then", "else"} & node.keys():
        return
    then, other = node.get("then", True), node.get("else", True)
    condition = node["if"]
    if isinstance(condition, bool) or condition == {}:
        level.also.append(level.below(other if condition is False else then, "then", branch=True))
        return
    split = _split(level, condition)
    if split is None:
        level.relax("if")
        return
    name, fitting, others = split
    branches: list[Rewritten] = []
    for values, consequence, key, must in ((fitting, then, "then", False), (others, other, "else", True)):
        if not values:
            continue
        case: Schema = {"properties": {name: {"enum": values}}}
        if must or "required" in condition:
            case["required"] = [name]
        below = level.below(consequence, key, branch=True)
        if below is True or below == {}:
            branches.append(case)
        elif below is not False:
            branches.append({"allOf": [case, below]})
    level.also.append({"anyOf": branches} if branches else False)


def _split(level: Level, condition: Any) -> tuple[str, list[Any], list[Any]] | None:
    """Return the property that a condition is about, its values that fit, and the others; None for other conditions."""
    meant = _assertions(condition) if isinstance(condition, dict) else {}
    asked = meant.get("properties")
    if level.types != ["object"] or not isinstance(asked, dict) or len(asked) != 1:
        return None
    if meant.keys() - {"properties", "required", "type"}:
        return None
    [(name, wanted)] = asked.items()
    own = level.rewriter.resolved(level.mapping("properties").get(name))
    known = _values(own)
    if known is None and own.get("type") == "boolean":
        known = [True, False]
    wanted = _assertions(wanted) if isinstance(wanted, dict) else {}
    values = _values(wanted)
    if not isinstance(known, list) or not isinstance(values, list) or wanted.keys() - {"enum", "const", "type"}:
        return None
    if meant.get("required", [name]) != [name] or ("required" not in meant and name not in level.items_of("required")):
        return None
    fitting = [value for value in known if any(equal(value, each) for each in values)]
    return name, fitting, [value for value in known if value not in fitting]


def _values(schema: Schema) -> list[Any] | None:
    """Return the values that a schema lists; None if it lists none."""
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def merge_all_of(level: Level, node: Schema, depth: int = 0) -> Schema:
    """Merge an `allOf` whose members all name properties of one object into one schema, which can be closed."""
    if depth > DEEPEST_MERGE or not isinstance(node.get("allOf"), list) or not node["allOf"]:
        return node
    parts: list[Schema] = [{key: value for key, value in node.items() if key != "allOf"}]
    for member in node["allOf"]:
        part = merge_all_of(level, level.rewriter.resolved(member), depth + 1)
        if part.get("type") != "object" and "properties" not in part and "required" not in part:
            return node
        parts.append(part)
    whole: Schema = {**parts[0], "type": "object", "properties": {}, "required": []}
    for part in parts:
        meant = part.keys() & MEANINGFUL
        if meant - _PLAIN_OBJECT or part.get("type", "object") != "object" or not part.keys().isdisjoint({"allOf"}):
            return node
        for name, schema in part.get("properties", {}).items():
            known = whole["properties"].get(name, schema)
            whole["properties"][name] = schema if known == schema else {"allOf": [known, schema]}
        whole["required"] += part.get("required", [])
    return whole


class Alternatives:
    """Members of a `oneOf`, with additions to each so that no value satisfies two of them."""

    def __init__(self, rewriter: SchemaRewriter, members: list[Any], types: list[str]) -> None:
        """Compare the members; `types` are those that the surrounding schema allows."""
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
        values, other_values = _values(one), _values(other)
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
        """Return True if the objects differ in a property that one or both must have."""
        if name in _required(one) and name in _required(other):
            mine, theirs = self._property(one, name), self._property(other, name)
            return mine is not None and theirs is not None and self._apart(mine, theirs, depth + 1)
        return _forbids(other, name) if name in _required(one) else _forbids(one, name)

    def _part(self, at: int, one: Schema, other: Schema) -> bool:
        """Add a condition to `one` that excludes `other`; return False if there is none."""
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
    members = _values(schema)
    if members is not None:
        kinds = {name for name in kinds if any(is_type(member, name) for member in members)}
    return {"number" if name == "integer" else name for name in kinds}


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
