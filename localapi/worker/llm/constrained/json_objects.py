"""Rewrite the keywords of a JSON schema for objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, Final

from localapi.worker.llm.constrained.json_level import (
    COMBINING,
    MEANINGFUL,
    MOST_BRANCHES,
    Level,
    Rewritten,
    Schema,
    other_types,
)
from localapi.worker.llm.constrained.json_pattern import alternatives, length_pattern, overlap, supported_patterns

_NAME_PATTERNS: Final = {
    "uuid": "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    "date": "^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])$",
}
"""Formats for the keys of dictionaries."""


@dataclass(slots=True)
class _Properties:
    """Properties that an object may have."""

    named: dict[str, Rewritten]
    required: list[str]
    patterns: dict[str, Rewritten]
    more: Rewritten
    """Schema of properties that are neither named nor match a pattern."""

    @property
    def optional(self) -> list[str]:
        return [name for name, schema in self.named.items() if name not in self.required and schema is not False]

    @property
    def are_known(self) -> bool:
        """True if only named properties are allowed."""
        return self.more is False and not self.patterns

    def close(self) -> None:
        """Allow only named properties, if all required ones are among them."""
        if all(name in self.named for name in self.required):
            self.more, self.patterns = False, {}


def add_objects(level: Level) -> None:
    """Rewrite the keywords for objects of a level."""
    node = level.node
    named = {name: level.below(part, "properties", name) for name, part in level.mapping("properties").items()}
    required = node.get("required", [])
    if isinstance(required, bool):  # the form of draft 3, in a property's schema
        required = []
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise level.wrong("required", "a list of names")
    patterns = _patterns(level, level.mapping("patternProperties"))
    more = _more(level)
    if patterns is None:  # otherwise it is unknown to which properties `more` applies
        said = next((key for key in ("additionalProperties", "unevaluatedProperties") if key in node), None)
        if said is not None and more is not True and more != {}:
            level.relax(said)
        patterns, more = {}, True
    found = _Properties(named, list(dict.fromkeys(required)), patterns, more)
    if "propertyNames" in node:
        _limit_names(level, found)
    _count(level, found)
    if found.patterns:
        level.rewriter.patterns[level.path] = frozenset(found.patterns)
    for keyword, value in (
        ("properties", found.named),
        ("patternProperties", found.patterns),
        ("required", found.required),
    ):
        if value:
            level.out[keyword] = value
    if found.more is not True and found.more != {}:
        level.out["additionalProperties"] = found.more
    _dependencies(level)


def _more(level: Level) -> Rewritten:
    """Return the schema of properties that are not named."""
    node = level.node
    if "additionalProperties" in node:
        return level.below(node["additionalProperties"], "additionalProperties")
    unevaluated = node.get("unevaluatedProperties", True)
    if unevaluated is not True and unevaluated != {}:
        if not COMBINING & node.keys() and not level.branch:
            return level.below(unevaluated, "unevaluatedProperties")
        level.relax("unevaluatedProperties")
    if not level.rewriter.close or level.branch or COMBINING & node.keys():
        return True
    asks = {"patternProperties", "propertyNames", "minProperties"} & node.keys()
    says = "type" in node or "properties" in node
    return not says or bool(asks - {"minProperties"} or ("minProperties" in asks and "properties" not in node))


def _patterns(level: Level, said: Mapping[str, Any]) -> dict[str, Rewritten] | None:
    """Return the rewritten `patternProperties`; None if they cannot be enforced."""
    if said and level.path in level.rewriter.clashing:
        level.relax("patternProperties")
        return None
    found: dict[str, Rewritten] = {}
    for pattern, schema in said.items():
        kept = supported_patterns(pattern)
        if not kept.exact or len(kept.patterns) > 1:
            level.relax("patternProperties")
            return None
        one = kept.patterns[0] if kept.patterns else "^"
        found[one] = level.below(schema, "patternProperties", pattern)
    if len(found) > 1 and all(schema == next(iter(found.values())) for schema in found.values()):
        return {alternatives(list(found)): next(iter(found.values()))}
    if any(overlap(one, other) for one, other in combinations(found, 2)):
        level.relax("patternProperties")
        return None
    return found


def _limit_names(level: Level, found: _Properties) -> None:
    """Apply `propertyNames`."""
    raw = level.node["propertyNames"]
    if raw is False:
        found.named, found.patterns, found.more = {}, {}, False
        return
    known = level.rewriter.resolved(raw)
    names = {key: value for key, value in known.items() if key in MEANINGFUL and key != "type"}
    if names.get("format") not in _NAME_PATTERNS:
        names.pop("format", None)
    if names.get("minLength") == 0:
        names.pop("minLength")
    if not names:
        if isinstance(raw, dict) and raw and not known:
            level.relax("propertyNames")
        return
    if found.patterns or ({"enum", "const"} & names.keys() and names.keys() - {"enum", "const"}):
        level.relax("propertyNames")
    elif "enum" in names or "const" in names:
        allowed = names.get("enum", [names.get("const")])
        _name(found, [name for name in allowed if isinstance(name, str)] if isinstance(allowed, list) else [])
    else:
        _match_names(level, found, _name_pattern(names))


def _name(found: _Properties, allowed: list[str]) -> None:
    """Keep only these properties."""
    for name in found.named:
        if name not in allowed:
            found.named[name] = False
    if found.more is not False:
        for name in allowed:
            found.named.setdefault(name, found.more)
    found.more = False


def _match_names(level: Level, found: _Properties, pattern: str | None) -> None:
    """Keep only properties that match."""
    kept = supported_patterns(pattern) if pattern is not None else None
    clashes = level.path in level.rewriter.clashing
    if clashes or pattern is None or kept is None or not kept.exact or len(kept.patterns) > 1:
        level.relax("propertyNames")
        return
    for name in found.named:
        try:
            matches = re.search(pattern, name) is not None
        except re.error:  # ECMAScript's, not Python's
            matches = False
        if not matches:
            found.named[name] = False
    if found.more is not False and kept.patterns:
        found.patterns, found.more = {kept.patterns[0]: found.more}, False


def _name_pattern(names: Schema) -> str | None:
    """Return a pattern of the names that a schema allows; None if a pattern cannot express it."""
    if names.keys() == {"pattern"} and isinstance(names["pattern"], str):
        return names["pattern"]
    if names.keys() == {"format"}:
        return _NAME_PATTERNS.get(names["format"])
    if names.keys() <= {"minLength", "maxLength"}:
        return length_pattern(names.get("minLength", 0), names.get("maxLength"))
    return None


def _count(level: Level, found: _Properties) -> None:
    """Apply `minProperties` and `maxProperties`.

    llguidance counts only if every named property is required; an object without other properties can be spelled out.
    It allows an unknown name twice, and counts it twice.
    """
    least, most = level.count("minProperties") or 0, level.count("maxProperties")
    certain = len(found.required)
    least = 0 if least <= certain else least
    if most is not None and found.are_known and most >= len(found.optional) + certain:
        most = None
    if not least and most is None:
        return
    if found.optional and not found.are_known and len(found.optional) + certain >= least:
        found.close()
    if found.optional:
        _spell_out(level, found.optional, least - certain, None if most is None else most - certain)
        return
    if level.branch or COMBINING & level.node.keys():  # other schemas for properties may make some optional
        _relax_counts(level, least, most)
        return
    if least > certain + 1 and not found.are_known:
        level.relax("minProperties")
        least = certain + 1
    if least:
        level.out["minProperties"] = least
    if most is not None:
        level.out["maxProperties"] = most


def _spell_out(level: Level, optional: list[str], least: int, most: int | None) -> None:
    """Spell out the choices of this minimum and maximum number of optional properties."""
    least = max(0, least)
    if least > len(optional) or (most is not None and most < least):
        level.also.append({"anyOf": other_types(level.types, "object")} if len(level.types) > 1 else False)
        return
    choices: list[Schema] = []
    if most is None or most >= len(optional):
        if comb(len(optional), least) <= MOST_BRANCHES:
            choices = [{"required": list(chosen)} for chosen in combinations(optional, least)]
    elif comb(len(optional), most) * comb(most, least) <= MOST_BRANCHES:
        for allowed in combinations(optional, most):
            denied: Schema = {"properties": {name: False for name in optional if name not in allowed}}
            for chosen in combinations(allowed, least):
                choices.append({**denied, **({"required": list(chosen)} if chosen else {})})
    if choices:
        level.also.append({"anyOf": choices})
    else:
        _relax_counts(level, least, most)


def _relax_counts(level: Level, least: int, most: int | None) -> None:
    if least > 0:
        level.relax("minProperties")
    if most is not None:
        level.relax("maxProperties")


def _dependencies(level: Level) -> None:
    """Rewrite `dependentRequired`, `dependentSchemas` and, in older drafts, `dependencies`."""
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        for name, then in level.mapping(keyword).items():
            if set(level.types) - {"object", "null"}:
                level.relax(keyword)
                continue
            if isinstance(then, list):
                follows: Rewritten = {"required": list(dict.fromkeys([name, *map(str, then)]))}
            else:
                below = level.below(then, keyword, name, branch=True)
                follows = False if below is False else {"allOf": [{"required": [name]}, below]}
            level.also.append({"anyOf": [{"properties": {name: False}}, follows]})
