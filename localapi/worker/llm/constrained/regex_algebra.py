"""Regular expressions with intersection and complement, and their conversion to expressions without these.

Brzozowski's derivatives give a deterministic automaton, and removing its states one by one gives an expression.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

TOP: Final = 0x10FFFF
MOST_STATES: Final = 150
LONGEST_RESULT: Final = 20_000
MOST_STEPS: Final = 60_000
"""Maximum derivatives for one expression, including those of its parts."""

Ranges = tuple[tuple[int, int], ...]
RegexTree = tuple[Any, ...]
"""("none",), ("empty",), ("set", ranges), ("then", a, b), ("or", parts), ("and", parts), ("not", a), ("repeat", a,
least, most)."""

NOTHING: Final[RegexTree] = ("none",)
EMPTY: Final[RegexTree] = ("empty",)
_SURROGATES: Final = (0xD800, 0xDFFF)


class TooLarge(Exception):
    """The automaton or the expression would become too large."""


def inverted(ranges: Ranges) -> Ranges:
    """Return all other characters, in order and without overlaps."""
    found: list[tuple[int, int]] = []
    start = 0
    for low, high in sorted((*ranges, _SURROGATES)):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    if start <= TOP:
        found.append((start, TOP))
    return tuple(found)


def character_class(ranges: Ranges) -> RegexTree:
    """Return the expression for one character of these ranges."""
    return ("set", ranges) if ranges else NOTHING


_ANY_SET: Final = inverted(())
ANYTHING: Final[RegexTree] = ("repeat", ("set", _ANY_SET), 0, None)


def concatenation(one: RegexTree, other: RegexTree) -> RegexTree:
    """Return the expression for one text followed by the other."""
    if NOTHING in (one, other):
        return NOTHING
    if one == EMPTY:
        return other
    if other == EMPTY:
        return one
    if one[0] == "then":
        return concatenation(one[1], concatenation(one[2], other))
    if one == ANYTHING and (other == ANYTHING or (other[0] == "then" and other[1] == ANYTHING)):
        return other
    return ("then", one, other)


def _flat(kind: str, parts: tuple[RegexTree, ...]) -> set[RegexTree]:
    """Return the parts, with those of the same kind replaced by their own parts."""
    flat: set[RegexTree] = set()
    for part in parts:
        flat |= set(part[1]) if part[0] == kind else {part}
    return flat


def union(*parts: RegexTree) -> RegexTree:
    """Return the expression for the texts of any of the parts."""
    flat = _flat("or", parts)
    flat.discard(NOTHING)
    if ANYTHING in flat:
        return ANYTHING
    sets = [part for part in flat if part[0] == "set"]
    if len(sets) > 1:
        flat -= set(sets)
        flat.add(character_class(inverted(inverted(tuple(pair for part in sets for pair in part[1])))))
    if not flat:
        return NOTHING
    return next(iter(flat)) if len(flat) == 1 else ("or", tuple(sorted(flat, key=repr)))


def intersection(*parts: RegexTree) -> RegexTree:
    """Return the expression for the texts that all of the parts match."""
    flat = _flat("and", parts)
    flat.discard(ANYTHING)
    if NOTHING in flat:
        return NOTHING
    if EMPTY in flat:
        return EMPTY if all(map(_has_empty, flat)) else NOTHING
    if not flat:
        return ANYTHING
    return next(iter(flat)) if len(flat) == 1 else ("and", tuple(sorted(flat, key=repr)))


def complement(part: RegexTree) -> RegexTree:
    """Return the expression for all other texts."""
    if part == NOTHING:
        return ANYTHING
    if part == ANYTHING:
        return NOTHING
    return part[1] if part[0] == "not" else ("not", part)


def repetition(part: RegexTree, least: int, most: int | None) -> RegexTree:
    """Return the expression for this many repetitions of the part."""
    if most == 0 or part == EMPTY:
        return EMPTY
    if part == NOTHING:
        return EMPTY if least == 0 else NOTHING
    if (least, most) == (1, 1):
        return part
    return ("repeat", part, least, most)


@lru_cache(20_000)
def _has_empty(part: RegexTree) -> bool:  # noqa: PLR0911  # one for each kind
    """Return True if the expression matches the empty text."""
    match part[0]:
        case "empty":
            return True
        case "then":
            return _has_empty(part[1]) and _has_empty(part[2])
        case "or":
            return any(map(_has_empty, part[1]))
        case "and":
            return all(map(_has_empty, part[1]))
        case "not":
            return not _has_empty(part[1])
        case "repeat":
            return part[2] == 0 or _has_empty(part[1])
        case _:
            return False


class _Automaton:
    """The derivatives of one expression, by one character of each kind that it distinguishes."""

    def __init__(self, regex: RegexTree) -> None:
        self._kinds = _kinds(regex)
        self._known: dict[tuple[RegexTree, int], RegexTree] = {}
        self._steps = 0

    def moves(self, state: RegexTree) -> dict[RegexTree, Ranges]:
        """Return the next states, and the characters that lead to each."""
        found: dict[RegexTree, list[tuple[int, int]]] = {}
        for kind in self._kinds:
            target = self._derived(state, kind[0][0])
            if target != NOTHING:
                found.setdefault(target, []).extend(kind)
        return {target: inverted(inverted(tuple(ranges))) for target, ranges in found.items()}

    def _derived(self, part: RegexTree, character: int) -> RegexTree:
        key = (part, character)
        if key not in self._known:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise TooLarge
            self._known[key] = self._derive(part, character)
        return self._known[key]

    def _derive(self, part: RegexTree, character: int) -> RegexTree:  # noqa: PLR0911  # one for each kind
        match part[0]:
            case "set":
                return EMPTY if any(low <= character <= high for low, high in part[1]) else NOTHING
            case "then":
                first = concatenation(self._derived(part[1], character), part[2])
                return union(first, self._derived(part[2], character)) if _has_empty(part[1]) else first
            case "or":
                return union(*(self._derived(each, character) for each in part[1]))
            case "and":
                return intersection(*(self._derived(each, character) for each in part[1]))
            case "not":
                return complement(self._derived(part[1], character))
            case "repeat":
                _, inner, least, most = part
                rest = repetition(inner, max(0, least - 1), None if most is None else most - 1)
                return concatenation(self._derived(inner, character), rest)
            case _:
                return NOTHING


def _kinds(regex: RegexTree) -> list[Ranges]:
    """Group the characters that no set of the expression distinguishes."""
    sets: set[Ranges] = set()
    stack: list[Any] = [regex]
    while stack:
        part = stack.pop()
        if part[0] == "set":
            sets.add(part[1])
        elif part[0] in ("or", "and"):
            stack += part[1]
        else:
            stack += [each for each in part[1:] if isinstance(each, tuple)]
    borders = {0} | {low for ranges in sets for low, _ in ranges} | {high + 1 for ranges in sets for _, high in ranges}
    cuts = sorted(border for border in borders if border <= TOP)
    kinds: dict[frozenset[int], list[tuple[int, int]]] = {}
    ordered = sorted(sets)
    for low, following in zip(cuts, [*cuts[1:], TOP + 1], strict=True):
        if _SURROGATES[0] <= low <= _SURROGATES[1]:
            continue
        member = frozenset(i for i, ranges in enumerate(ordered) if any(a <= low <= b for a, b in ranges))
        kinds.setdefault(member, []).append((low, following - 1))
    return [tuple(ranges) for ranges in kinds.values()]


def _states(regex: RegexTree) -> Iterator[tuple[RegexTree, dict[RegexTree, Ranges]]]:
    """Yield the states of the automaton, each with its moves. Raise TooLarge."""
    automaton, known, waiting = _Automaton(regex), {regex}, [regex]
    while waiting:
        state = waiting.pop()
        moves = automaton.moves(state)
        yield state, moves
        for target in moves:
            if target not in known:
                if len(known) >= MOST_STATES:
                    raise TooLarge
                known.add(target)
                waiting.append(target)


def is_nothing(regex: RegexTree) -> bool:
    """Return True if the expression matches no text. Raise TooLarge."""
    return not any(_has_empty(state) for state, _ in _states(regex))


def rust_regex(regex: RegexTree) -> str:
    """Return the expression in Rust's syntax. Raise TooLarge."""
    numbers: dict[RegexTree, int] = {}
    edges: dict[tuple[int, int], str] = {}
    ends: set[int] = set()
    for state, moves in _states(regex):
        number = numbers.setdefault(state, len(numbers))
        if _has_empty(state):
            ends.add(number)
        for target, ranges in moves.items():
            edges[number, numbers.setdefault(target, len(numbers))] = rust_class(ranges)
    return _without_states(len(numbers), edges, ends)


def _without_states(count: int, edges: dict[tuple[int, int], str], ends: set[int]) -> str:
    """Remove the states, cheapest first, until one edge from start to end is left."""
    start, end = -1, -2
    edges = {**edges, (start, 0): "", **{(state, end): "" for state in ends}}
    left = set(range(count))
    while left:
        state = min(left, key=lambda each: _cost(each, edges))
        left.discard(state)
        loop = edges.pop((state, state), None)
        again = "" if loop is None else f"{_atom(loop)}*"
        into = {source: text for (source, target), text in edges.items() if target == state}
        out = {target: text for (source, target), text in edges.items() if source == state}
        edges = {pair: text for pair, text in edges.items() if state not in pair}
        for source, first in into.items():
            for target, last in out.items():
                text = first + again + last  # alternatives are already in a group
                known = edges.get((source, target), text)
                if known != text:
                    text = f"(?:{known}|{text})" if known and text else f"{_atom(known or text)}?"
                edges[source, target] = text
                if len(edges[source, target]) > LONGEST_RESULT:
                    raise TooLarge
    return edges.get((start, end), "[^\\s\\S]")


def _cost(state: int, edges: dict[tuple[int, int], str]) -> int:
    into = [len(text) for (source, target), text in edges.items() if target == state and source != state]
    out = [len(text) for (source, target), text in edges.items() if source == state and target != state]
    return sum(into) * len(out) + sum(out) * len(into) + len(edges.get((state, state), "")) * len(into) * len(out)


def _atom(text: str) -> str:
    """Return the text in a form that can be followed by `*` or `?`."""
    is_class = text.startswith("[") and text.endswith("]") and text.count("[") == 1
    return text if is_class else f"(?:{text})"


def rust_class(ranges: Ranges) -> str:
    """Return a character class in Rust's syntax."""
    ranges = inverted(inverted(ranges))
    if not ranges:
        return "[^\\s\\S]"
    if ranges == _ANY_SET:
        return "[\\s\\S]"
    others = inverted(ranges)
    if len(others) < len(ranges):
        return f"[^{class_members(others)}]"
    return f"[{class_members(ranges)}]"


def class_members(ranges: Ranges) -> str:
    """Return the content of the brackets of a character class in Rust's syntax."""
    return "".join(_one(low) if low == high else f"{_one(low)}-{_one(high)}" for low, high in ranges)


def _one(number: int) -> str:
    character = chr(number)
    return character if character.isascii() and character.isalnum() else f"\\x{{{number:x}}}"
