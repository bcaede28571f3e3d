"""Rewrite the keywords of a JSON schema for arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from localapi.worker.llm.constrained.json_level import (
    COMBINING,
    MEANINGFUL,
    MOST_BRANCHES,
    Level,
    Rewritten,
    other_types,
)
from localapi.worker.llm.constrained.json_numbers import spells

MOST_UNIQUE: Final = 4
"""Maximum values of which every order is spelled out."""


def add_arrays(level: Level) -> None:
    """Rewrite the keywords for arrays of a level."""
    node, out = level.node, level.out
    first, rest = node.get("prefixItems"), node.get("items", True)
    if isinstance(rest, list):  # the form of drafts before 2020-12
        first, rest = rest, node.get("additionalItems", True)
    if first is not None and not isinstance(first, list):
        raise level.wrong("prefixItems", "a list")
    rest = _unevaluated(level, rest)
    heads = [level.below(item, "prefixItems", at) for at, item in enumerate(first or [])]
    item = level.below(rest, "items") if rest is not True else True
    least, most = level.count("minItems"), level.count("maxItems")
    if "contains" in node:
        heads, least = _contained(level, heads, item, least)
    if node.get("uniqueItems") is True and not _unique(level, heads, rest, least, most):
        level.relax("uniqueItems")
    if heads:
        out["prefixItems"] = heads
    if item is not True and item != {}:
        out["items"] = item
    if least:
        out["minItems"] = least
    if most is not None:
        out["maxItems"] = most


def _unevaluated(level: Level, rest: Any) -> Any:
    """Return the schema of further items after `unevaluatedItems`."""
    said = level.node.get("unevaluatedItems", True)
    if said is True or said == {} or rest is not True:
        return rest
    if said is False and not COMBINING & level.node.keys():
        return False
    level.relax("unevaluatedItems")
    return rest


def _contained(
    level: Level, heads: list[Rewritten], item: Rewritten, least: int | None
) -> tuple[list[Rewritten], int | None]:
    """Apply `contains` by putting the required items first. Return the first items, and the minimum count."""
    wanted = level.count("minContains")
    wanted = 1 if wanted is None else wanted
    if wanted == 0 and "maxContains" not in level.node:
        return heads, least
    if heads or "maxContains" in level.node or wanted > MOST_BRANCHES:
        level.relax("contains")
        return heads, least
    contained = level.below(level.node["contains"], "contains", branch=True)
    both = [part for part in (item, contained) if part is not True and part != {}]
    head: Rewritten = True
    if both:
        head = False if False in both else {"allOf": both}
    return [head] * wanted, max(least or 0, wanted)


def _unique(level: Level, heads: list[Rewritten], rest: Any, least: int | None, most: int | None) -> bool:
    """Return True if `uniqueItems` can be kept: for one item, or for a few known values by spelling out every order."""
    if most is not None and most <= 1:
        return True
    raw = level.rewriter.resolved(rest) if isinstance(rest, dict) else {}
    values = raw.get("enum")
    if heads or not isinstance(values, list) or len(values) > MOST_UNIQUE or not all(map(spells, values)):
        return False
    if raw.keys() & MEANINGFUL - {"enum", "type"}:
        return False
    longest = len(values) if most is None else most
    fitting = [chosen for size in range(least or 0, min(len(values), longest) + 1) for chosen in _orders(values, size)]
    level.also.append({"anyOf": [{"enum": fitting}, *other_types(level.types, "array")]})
    return True


def _orders(values: list[Any], size: int) -> Iterator[list[Any]]:
    """Yield every choice of this many values, in every order."""
    if size == 0:
        yield []
        return
    for at, value in enumerate(values):
        for others in _orders(values[:at] + values[at + 1 :], size - 1):
            yield [value, *others]
