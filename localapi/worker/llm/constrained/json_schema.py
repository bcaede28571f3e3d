"""Rewrite JSON schemas of clients into schemas that llguidance (1.9) enforces exactly.

Annotations are dropped. What llguidance cannot enforce is expressed in another way if possible: exactly, or by a schema
that allows somewhat less and nothing else. The rest is relaxed and reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from localapi.worker.llm.constrained.compiling import patterns_clash
from localapi.worker.llm.constrained.json_arrays import add_arrays
from localapi.worker.llm.constrained.json_level import (
    COMBINING,
    OBJECT_KEYWORDS,
    TYPES,
    Level,
    NotASchema,
    Rewritten,
    Schema,
    equal,
    is_type,
    joined,
    other_types,
    pointed,
)
from localapi.worker.llm.constrained.json_logic import (
    add_combinations,
    add_conditions,
    add_references,
    apply_negation,
    merge_all_of,
)
from localapi.worker.llm.constrained.json_numbers import members_nearby, spells, supported_range
from localapi.worker.llm.constrained.json_objects import add_objects
from localapi.worker.llm.constrained.json_pattern import supported_patterns

DEEPEST: Final = 64
"""Maximum levels of a schema that are rewritten. A chain of references is not a level."""
FORMATS: Final = frozenset(
    {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
"""Formats that llguidance knows. According to the specification, any other has no effect."""
_FORMAT_LIMITS: Final = {
    "date": "^(?:000[1-9]|00[1-9]|0[1-9]|[1-9])",
    "date-time": "^(?:000[1-9]|00[1-9]|0[1-9]|[1-9])[^:]*:[0-9]{2}:[0-5]",
    "time": "^[0-9]{2}:[0-9]{2}:[0-5]",
    "duration": "^[^0-9]*(?:[0-9]{1,4}[^0-9]+)+$",
}
"""Patterns that exclude what a format allows but few programs read: the year 0, leap seconds, durations of a billion
years."""
MOST_PATTERNED: Final = 16
"""Maximum schemas with patterns for names of which as many as possible are kept if some clash."""
_HOLDS_ANY_JSON: Final = frozenset({"const", "default", "example", "examples", "enum"})


@dataclass(frozen=True, slots=True)
class RewrittenSchema:
    """A schema that llguidance enforces exactly."""

    schema: Schema
    relaxed: tuple[str, ...]
    """Places where the original asks for more: paths ending with a keyword ("properties.tags.uniqueItems"), or "."."""


def rewrite_schema(schema: object, *, close: bool = False) -> RewrittenSchema:
    """Rewrite a schema. Raise NotASchema.

    If `close`, objects have only named properties, as in OpenAI's strict mode, unless the schema says something about
    the others.
    """
    found, patterns = _without_patterns(schema, close, frozenset())
    if len(set(patterns.values())) < 2 or not patterns_clash(found.schema):  # noqa: PLR2004  # one cannot clash
        return found
    left_out = frozenset(patterns)
    outer_first = sorted(patterns, key=len)
    for path in outer_first if len(patterns) <= MOST_PATTERNED else ():
        fewer = left_out - {path}
        if not patterns_clash(_without_patterns(schema, close, fewer)[0].schema):
            left_out = fewer
    return _without_patterns(schema, close, left_out)[0]


def _without_patterns(
    schema: object, close: bool, left_out: frozenset[str]
) -> tuple[RewrittenSchema, dict[str, frozenset[str]]]:
    """Rewrite a schema without the patterns for names at some paths; return all other such patterns, too."""
    rewriter = SchemaRewriter(schema, close=close, clashing=left_out)
    root = rewriter.rewritten(schema, "", branch=False)
    rewriter.finish()
    if root is True:
        root = {}
    if root is False:
        root = {"enum": []}
    if (
        isinstance(schema, dict)
        and "type" not in root
        and OBJECT_KEYWORDS & root.keys()
        and not COMBINING & root.keys()
    ):
        root["type"] = "object"  # a keyword for objects allows all other types, which no client means
    if rewriter.definitions:
        root["$defs"] = rewriter.definitions
    return RewrittenSchema(root, tuple(dict.fromkeys(rewriter.relaxed))), rewriter.patterns


class SchemaRewriter:
    """Rewriter of one schema."""

    def __init__(self, root: object, *, close: bool, clashing: frozenset[str]) -> None:
        self._root = root
        self.close = close
        """True if objects have only the named properties."""
        self.clashing = clashing
        """Paths of schemas whose patterns for names are not enforced, because others match the same names."""
        self.patterns: dict[str, frozenset[str]] = {}
        """Enforced patterns for names, by the path of their schema."""
        self._names: dict[tuple[int, bool], str] = {}
        self._pending: list[tuple[str, Any, str, bool]] = []
        self._anchors: dict[str, Any] | None = None
        self.definitions: dict[str, Rewritten] = {}
        self.relaxed: list[str] = []

    def finish(self) -> None:
        """Rewrite the schemas to which references refer."""
        while self._pending:
            name, target, path, branch = self._pending.pop()
            self.definitions[name] = self.rewritten(target, path, branch=branch)

    def rewritten(self, node: Any, path: str, *, branch: bool, depth: int = 0) -> Rewritten:
        """Rewrite one level. Raise NotASchema.

        If `branch`, another schema also applies to the value, so an object must stay open.
        """
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            raise NotASchema(f"{path or 'it'} must be an object or a boolean; found {type(node).__name__}")
        if depth > DEEPEST:
            self.relax(path, ".")
            return {}
        said = {key: value for key, value in node.items() if value is not None or key == "const"}
        return _rewritten(Level(self, said, path, depth, branch=branch))

    def relax(self, path: str, keyword: str) -> None:
        """Record that a keyword is not enforced."""
        self.relaxed.append(joined(path, keyword) if keyword != "." else path or ".")

    def reference(self, ref: str, path: str, keyword: str, *, branch: bool) -> Schema:
        """Return a reference to a rewritten definition, or a schema for any value if there is none."""
        found, target = self._target(ref)
        if not found:
            self.relax(path, keyword)
            return {}
        key = (id(target), branch)
        if key not in self._names:
            self._names[key] = name = f"d{len(self._names)}"
            self.definitions[name] = {}
            self._pending.append((name, target, ref.rpartition("#")[2].lstrip("/").replace("/", ".") or ref, branch))
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def resolved(self, node: Any) -> Schema:
        """Return a schema as written, after following references that stand alone; {} for anything else."""
        for _ in range(DEEPEST):
            if not isinstance(node, dict):
                return {}
            ref = node.get("$ref")
            if not isinstance(ref, str):
                return node
            found, target = self._target(ref)
            if not found or (OBJECT_KEYWORDS | {"type", "enum", "const"}) & node.keys():
                return {}
            node = target
        return {}

    def _target(self, ref: str) -> tuple[bool, Any]:
        """Return whether a reference leads to a place in this schema, and the schema there."""
        base, _, fragment = ref.partition("#")
        start: Any = self._root
        if base:
            if base not in self._known():
                return False, None
            start = self._known()[base]
        if not fragment:
            return True, start
        if not fragment.startswith("/"):
            return ("#" + fragment in self._known()), self._known().get("#" + fragment)
        for text in (fragment, unquote(fragment)):
            found, target = pointed(start, text)
            if found:
                return True, target
        return False, None

    def _known(self) -> dict[str, Any]:
        """Return the schemas by `$id`, and by anchor with a "#" before it."""
        if self._anchors is None:
            self._anchors = {}
            stack: list[Any] = [self._root]
            while stack:
                node = stack.pop()
                if isinstance(node, list):
                    stack += node
                if not isinstance(node, dict):
                    continue
                stack += [value for key, value in node.items() if key not in _HOLDS_ANY_JSON]
                for key in ("$id", "id"):
                    name = node.get(key)
                    if isinstance(name, str):
                        self._anchors.setdefault(name if name.startswith("#") else name.rstrip("#"), node)
                for key in ("$anchor", "$dynamicAnchor"):
                    name = node.get(key)
                    if isinstance(name, str):
                        self._anchors.setdefault(f"#{name}", node)
        return self._anchors


def _rewritten(level: Level) -> Rewritten:
    """Return the rewritten level; False if nothing satisfies it."""
    if level.rewriter.close and not level.branch and "allOf" in level.node:
        level.node = merge_all_of(level, level.node)
    apply_negation(level)
    if not level.types:
        return False
    if set(level.types) != set(TYPES) - {"integer"}:
        level.out["type"] = level.types[0] if len(level.types) == 1 else list(level.types)
    if not _values(level):
        return False
    for name, add in _OF_TYPES.items():
        if name in level.types:
            add(level)
    add_references(level)
    add_combinations(level)
    add_conditions(level)
    if False in level.also:
        return False
    rest = [also for also in level.also if also is not True and also != {}]
    if rest:
        level.out["allOf"] = rest
    return level.out


def _values(level: Level) -> bool:
    """Apply `const` and `enum`; return False if no value is left."""
    if "enum" not in level.node and "const" not in level.node:
        return True
    members = level.items_of("enum") if "enum" in level.node else [level.node["const"]]
    if "const" in level.node:
        members = [member for member in members if equal(member, level.node["const"])]
    members = [member for member in members if any(is_type(member, name) for name in level.types)]
    exact = [member for member in members if spells(member)]
    near: list[Schema] = []
    for member in members:
        if not spells(member):
            schema, is_exact = members_nearby(member)
            near.append(schema)
            if not is_exact:
                level.relax("const" if "const" in level.node else "enum")
    if not near:
        level.out["enum"] = exact
        return bool(exact)
    level.also.append({"anyOf": [{"enum": exact}, *near] if exact else near})
    return True


def _numbers(level: Level) -> None:
    node = level.node
    for keyword in ("minimum", "maximum", "multipleOf"):
        if keyword in node and (isinstance(node[keyword], bool) or not isinstance(node[keyword], int | float)):
            raise level.wrong(keyword, "a number")
    for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
        if keyword in node and not isinstance(node[keyword], int | float):
            raise level.wrong(keyword, "a number")
    if "multipleOf" in node and not node["multipleOf"] > 0:
        raise level.wrong("multipleOf", "greater than 0")
    found = supported_range(node, whole="number" not in level.types)
    for keyword in found.relaxed:
        level.relax(keyword)
    multiples = found.keywords.pop("enum", None)
    if multiples is not None:
        level.also.append({"anyOf": [{"enum": multiples}, *other_types(level.types, "integer")]})
    level.out.update(found.keywords)


def _strings(level: Level) -> None:
    shortest, longest = level.count("minLength"), level.count("maxLength")
    if shortest:
        level.out["minLength"] = shortest
    if longest is not None:
        level.out["maxLength"] = longest
    if level.node.get("format") in FORMATS:
        level.out["format"] = level.node["format"]
        limit = _FORMAT_LIMITS.get(level.node["format"])
        if limit is not None:
            level.also.append({"pattern": limit})
    if "pattern" not in level.node:
        return
    if not isinstance(level.node["pattern"], str):
        raise level.wrong("pattern", "a string")
    found = supported_patterns(level.node["pattern"])
    if not found.exact:
        level.relax("pattern")
    if found.patterns:
        level.out["pattern"] = found.patterns[0]
        level.also += [{"pattern": pattern} for pattern in found.patterns[1:]]


_OF_TYPES: Final = {
    "integer": _numbers,
    "number": _numbers,
    "string": _strings,
    "array": add_arrays,
    "object": add_objects,
}
"""Functions that rewrite the keywords for one type. "integer" and "number" never occur together."""
