"""Rewrite the regular expressions of JSON schemas (ECMAScript's) as expressions that llguidance (1.9) enforces.

llguidance uses the dialect of Rust's `regex`, which has no look-around. A look-ahead at the start becomes a separate
expression that must match too. Negative and later assertions are resolved by `regex_algebra`.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from localapi.worker.llm.constrained.ecma_regex import PLACEHOLDER, UnsupportedRegex, to_python
from localapi.worker.llm.constrained.regex_algebra import (
    ANYTHING,
    EMPTY,
    NOTHING,
    Ranges,
    RegexTree,
    TooLarge,
    character_class,
    class_members,
    complement,
    concatenation,
    intersection,
    inverted,
    is_nothing,
    repetition,
    rust_class,
    rust_regex,
    union,
)

_sre: Any = re._parser  # type: ignore[attr-defined]  # the only parser of expressions in the library
_codes: Any = re._constants  # type: ignore[attr-defined]

_STARTS: Final = (_codes.AT_BEGINNING, _codes.AT_BEGINNING_STRING)
_ENDS: Final = (_codes.AT_END, _codes.AT_END_STRING)
_LOOKS: Final = (_codes.ASSERT, _codes.ASSERT_NOT)
_REPEATS: Final = (_codes.MAX_REPEAT, _codes.MIN_REPEAT)
_CHARACTERS: Final = (_codes.LITERAL, _codes.NOT_LITERAL, _codes.IN, _codes.ANY)

LONGEST: Final = 10_000
MOST_COPIES: Final = 8
"""Maximum copies of a repetition with an assertion inside."""
_DIGIT: Final = ((0x30, 0x39),)
_WORD: Final = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Final = (
    (0x9, 0xD), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
_LINE_ENDS: Final = ((0xA, 0xA), (0xD, 0xD), (0x2028, 0x2029))

START, WORD, OTHER, SOMETHING, UNKNOWN = "start", "word", "other", "something", "unknown"
"""Kinds of text before a place: nothing, a letter of a word, another character, any character, or unknown."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """Expressions that must all match."""

    patterns: tuple[str, ...]
    exact: bool
    """True if they are as strict as the original, False if they are less strict."""


@lru_cache(256)
def supported_patterns(pattern: str) -> Patterns:
    """Return the expressions for llguidance of a schema's `pattern`."""
    if len(pattern) > LONGEST:
        return Patterns((), exact=False)
    classes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            parsed = _sre.parse(to_python(pattern, classes))
    except (re.error, RecursionError, OverflowError, UnsupportedRegex):
        return Patterns((), exact=False)
    writer = _Writer(classes, ignore_case=bool(parsed.state.flags & re.IGNORECASE))
    texts: list[str] = []
    exact = True
    for part in _parts(list(parsed)):
        try:
            text = writer.pattern(part)
        except (UnsupportedRegex, TooLarge, RecursionError):
            exact = False
            text = writer.without_assertions(part)
        if text != "^":
            texts.append(text)
    return Patterns(tuple(texts), exact)


def _parts(items: list[Any]) -> list[list[Any]]:
    """Return the assertions at the text's start and end, each as a separate expression, and the rest."""
    parts: list[list[Any]] = []
    if items and items[0][0] is _codes.AT and items[0][1] in _STARTS:
        start, rest = items[0], items[1:]
        while rest and rest[0][0] in _LOOKS and rest[0][1][0] > 0:
            op, (_, inner) = rest.pop(0)
            inner = list(inner)
            if inner and inner[0] == start:
                inner = inner[1:]
            parts.append([start, *inner] if op is _codes.ASSERT else [start, (op, (1, inner))])
        items = [start, *rest]
    if items and items[-1][0] is _codes.AT and items[-1][1] in _ENDS:
        end, rest = items[-1], items[:-1]
        while rest and rest[-1][0] in _LOOKS and rest[-1][1][0] < 0:
            parts.append([rest.pop(), end])
        items = [*rest, end]
    return [*parts, items]


def overlap(one: str, other: str) -> bool:
    """Return True if one text may match both expressions, which `supported_patterns` has returned."""
    try:
        writer = _Writer([], ignore_case=False)
        sides = [writer.texts_with(list(_sre.parse(to_python(text, [])))) for text in (one, other)]
        return not is_nothing(intersection(*sides))
    except (re.error, UnsupportedRegex, TooLarge, RecursionError):
        return True


def length_pattern(shortest: int, longest: int | None) -> str:
    """Return an expression for any text with this many characters."""
    return f"^[\\s\\S]{{{shortest},{'' if longest is None else longest}}}$"


def alternatives(patterns: list[str]) -> str:
    """Return an expression for text that one of the patterns matches."""
    return "|".join(f"(?:{pattern})" for pattern in patterns)


class _Writer:
    """Writer of one expression, parsed by Python's parser, in Rust's syntax."""

    def __init__(self, classes: list[str], *, ignore_case: bool) -> None:
        self._classes = classes
        self._ignore_case = ignore_case

    def pattern(self, items: list[Any]) -> str:
        """Return the expression in Rust's syntax. Raise UnsupportedRegex or TooLarge."""
        if self._is_plain(items):
            text = self._texts(items)
            return f"(?i){text}" if self._ignore_case else text
        if self._ignore_case:
            raise UnsupportedRegex
        (op, value), *others = items
        ends = len(others) == 1 and others[0][0] is _codes.AT and others[0][1] in _ENDS
        if op in _LOOKS and value[0] < 0 and ends:  # see _parts
            behind = concatenation(ANYTHING, self._sequence(value[1]))
            found = complement(behind) if op is _codes.ASSERT_NOT else behind
        else:
            found = self.texts_with(items)
        if found == ANYTHING:
            return "^"
        return f"^(?:{rust_regex(found)})$"

    def without_assertions(self, items: list[Any]) -> str:
        """Return the expression in Rust's syntax without its inner assertions, so that more texts match."""
        try:
            return self.pattern(_stripped(items))
        except (UnsupportedRegex, TooLarge, RecursionError):
            return "^"

    # Plain expressions, written as they are

    def _is_plain(self, items: list[Any]) -> bool:
        """Return True if the only assertions are the text's start at its start and the text's end at its end."""
        if len(items) == 1 and items[0][0] is _codes.BRANCH:
            return all(self._is_plain(list(branch)) for branch in items[0][1][1])
        inner = items
        if inner and inner[0][0] is _codes.AT and inner[0][1] in _STARTS:
            inner = inner[1:]
        if inner and inner[-1][0] is _codes.AT and inner[-1][1] in _ENDS:
            inner = inner[:-1]
        return not any(map(_asserts, inner))

    def _texts(self, items: Any) -> str:
        return "".join(self._text(op, value) for op, value in items)

    def _text(self, op: Any, value: Any) -> str:
        if op in _CHARACTERS:
            return self._class(op, value)
        if op is _codes.AT:
            return "^" if value in _STARTS else "$"
        if op is _codes.BRANCH:
            return "(?:" + "|".join(map(self._texts, value[1])) + ")"
        if op is _codes.SUBPATTERN:
            _, added, removed, inner = value
            if removed or added & ~re.IGNORECASE:
                raise UnsupportedRegex
            return ("(?i:" if added else "(?:") + self._texts(inner) + ")"
        if op in _REPEATS:
            low, high, inner = value
            most = "" if high is _codes.MAXREPEAT else str(high)
            times = {(0, ""): "*", (1, ""): "+", (0, "1"): "?"}.get((low, most), f"{{{low},{most}}}")
            return f"(?:{self._texts(inner)}){times}"
        raise UnsupportedRegex

    def _class(self, op: Any, value: Any) -> str:
        ranges: list[tuple[int, int]] = []
        texts: list[str] = []
        negated, members = _members(op, value)
        for member_op, member in members:
            text = _SHORTHANDS.get(member, "") if member_op is _codes.CATEGORY else ""
            if member_op is _codes.LITERAL:
                text = self._placeheld(member)
            if text:
                texts.append(text)
            else:
                ranges += _ranges(member_op, member)
        if not texts:
            return rust_class(inverted(tuple(ranges)) if negated else tuple(ranges))
        return f"[{'^' * negated}{class_members(inverted(inverted(tuple(ranges))))}{''.join(texts)}]"

    def _placeheld(self, number: int) -> str:
        at = number - PLACEHOLDER
        return self._classes[at] if 0 <= at < len(self._classes) else ""

    # Assertions, resolved by the algebra

    def texts_with(self, items: list[Any]) -> RegexTree:
        """Return the set of all texts in which the expression matches somewhere. Raise UnsupportedRegex."""
        if items and items[0][0] is _codes.AT and items[0][1] in _STARTS:
            return self._then(items[1:], ANYTHING, START)
        here = self._then(items, ANYTHING, START)
        if not (_anchored_inside(items) or (items and items[0][0] is _codes.AT)):
            return concatenation(ANYTHING, self._then(items, ANYTHING, SOMETHING))
        word, other = character_class(_WORD), character_class(inverted(_WORD))
        later = [concatenation(ANYTHING, concatenation(kind, self._then(items, ANYTHING, before)))
                 for kind, before in ((word, WORD), (other, OTHER))]  # fmt: skip
        return union(here, *later)

    def _then(self, items: list[Any], rest: RegexTree, before: str) -> RegexTree:  # noqa: PLR0911  # one for each kind of item
        """Return the items, followed by what `rest` allows up to the end of the text."""
        if not items:
            return rest
        (op, value), *others = items
        if op is _codes.AT:
            return self._place(value, others, rest, before)
        if op in _LOOKS:
            direction, inner = value
            if direction < 0:
                raise UnsupportedRegex
            ahead = self._then(list(inner), ANYTHING, before)
            ahead = complement(ahead) if op is _codes.ASSERT_NOT else ahead
            return intersection(ahead, self._then(others, rest, before))
        if not _asserts((op, value)):
            after = _after(self, op, value, before)
            return concatenation(self._plain(op, value), self._then(others, rest, after))
        follows = self._then(others, rest, UNKNOWN if others else before)
        if op is _codes.BRANCH:
            return union(*(self._then(list(branch), follows, before) for branch in value[1]))
        if op is _codes.SUBPATTERN:
            return self._then(list(value[3]), follows, before)
        if op in _REPEATS and value[1] is not _codes.MAXREPEAT and value[1] <= MOST_COPIES:
            low, high, inner = value
            found = follows
            for copy in range(high, 0, -1):
                again = self._then(list(inner), found, before if copy == 1 else UNKNOWN)
                found = again if copy <= low else union(follows, again)
            return found
        raise UnsupportedRegex

    def _place(self, place: Any, others: list[Any], rest: RegexTree, before: str) -> RegexTree:
        """Return a start, an end or a word boundary, followed by the rest."""
        if place in _STARTS:
            if before == UNKNOWN:
                raise UnsupportedRegex
            return self._then(others, rest, before) if before == START else NOTHING
        follows = self._then(others, rest, before)
        if place in _ENDS:
            return intersection(EMPTY, follows)
        if place not in (_codes.AT_BOUNDARY, _codes.AT_NON_BOUNDARY) or before in (SOMETHING, UNKNOWN):
            raise UnsupportedRegex
        word = concatenation(character_class(_WORD), ANYTHING)
        is_border = place is _codes.AT_BOUNDARY
        return intersection(word if (before != WORD) == is_border else complement(word), follows)

    def _plain(self, op: Any, value: Any) -> RegexTree:
        """Return an item without assertions."""
        if op in _CHARACTERS:
            return character_class(self.characters(op, value))
        if op is _codes.BRANCH:
            return union(*(self._sequence(branch) for branch in value[1]))
        if op is _codes.SUBPATTERN:
            if value[1] or value[2]:
                raise UnsupportedRegex
            return self._sequence(value[3])
        if op in _REPEATS:
            low, high, inner = value
            return repetition(self._sequence(inner), low, None if high is _codes.MAXREPEAT else high)
        raise UnsupportedRegex

    def _sequence(self, items: Any) -> RegexTree:
        found = EMPTY
        for op, value in reversed(list(items)):
            found = concatenation(self._plain(op, value), found)
        return found

    def characters(self, op: Any, value: Any) -> Ranges:
        """Return the characters of a class."""
        ranges: list[tuple[int, int]] = []
        negated, members = _members(op, value)
        for member_op, member in members:
            if member_op is _codes.LITERAL and self._placeheld(member):
                raise UnsupportedRegex
            ranges += _ranges(member_op, member)
        others = inverted(tuple(ranges))
        return others if negated else inverted(others)


_SHORTHANDS: Final = {
    _codes.CATEGORY_NOT_DIGIT: "\\P{Nd}",
    _codes.CATEGORY_NOT_WORD: "[^_\\p{L}\\p{N}]",
}
"""Shorthands in Unicode's meaning, so that both Python's and ECMAScript's meanings hold."""


_CATEGORIES: Final[dict[Any, Ranges]] = {
    _codes.CATEGORY_DIGIT: _DIGIT,
    _codes.CATEGORY_WORD: _WORD,
    _codes.CATEGORY_SPACE: _SPACE,
    _codes.CATEGORY_NOT_DIGIT: inverted(_DIGIT),
    _codes.CATEGORY_NOT_WORD: inverted(_WORD),
    _codes.CATEGORY_NOT_SPACE: inverted((*_SPACE, (0x1C, 0x1F), (0x85, 0x85), (0xFEFF, 0xFEFF))),
}


def _members(op: Any, value: Any) -> tuple[bool, list[Any]]:
    """Return whether a class is negated, and its members."""
    if op is _codes.ANY:
        return True, [(_codes.RANGE, pair) for pair in _LINE_ENDS]
    if op is not _codes.IN:
        return op is _codes.NOT_LITERAL, [(_codes.LITERAL, value)]
    negated = value[0][0] is _codes.NEGATE
    return negated, value[negated:]


def _ranges(op: Any, member: Any) -> Ranges:
    """Return the characters of one member of a class."""
    if op is _codes.LITERAL:
        return ((member, member),)
    if op is _codes.RANGE:
        return (member,)
    if op is not _codes.CATEGORY or member not in _CATEGORIES:
        raise UnsupportedRegex
    return _CATEGORIES[member]


def _inside(op: Any, value: Any) -> list[Any]:
    """Return the sequences of items inside an item."""
    if op is _codes.BRANCH:
        return list(value[1])
    if op is _codes.SUBPATTERN:
        return [value[3]]
    if op in _REPEATS:
        return [value[2]]
    return [value[1]] if op in _LOOKS else []


def _asserts(item: Any) -> bool:
    """Return True if an item contains an assertion."""
    op, value = item
    return op is _codes.AT or op in _LOOKS or any(_asserts(each) for items in _inside(op, value) for each in items)


def _stripped(items: Any) -> list[Any]:
    """Return the items without assertions other than the text's start and end."""
    found: list[Any] = []
    for op, value in items:
        if op is _codes.BRANCH:
            found.append((op, (value[0], [_stripped(branch) for branch in value[1]])))
        elif op is _codes.SUBPATTERN:
            found.append((op, (*value[:3], _stripped(value[3]))))
        elif op in _REPEATS:
            found.append((op, (*value[:2], _stripped(value[2]))))
        elif op not in _LOOKS and (op is not _codes.AT or value in (*_STARTS, *_ENDS)):
            found.append((op, value))
    return found


def _anchored_inside(items: list[Any]) -> bool:
    """Return True if the text's start is asserted anywhere."""
    for op, value in items:
        if (op is _codes.AT and value in _STARTS) or any(map(_anchored_inside, _inside(op, value))):
            return True
    return False


def _after(writer: _Writer, op: Any, value: Any, before: str) -> str:
    """Return the kind of text before the place after a plain item."""
    if op is _codes.BRANCH:
        return UNKNOWN
    if op is _codes.SUBPATTERN or op in _REPEATS:
        [items] = _inside(op, value)
        inside = _after(writer, items[-1][0], items[-1][1], before) if len(items) else before
        may_be_nothing = op in _REPEATS and value[0] == 0
        return UNKNOWN if may_be_nothing and inside != before else inside
    characters = writer.characters(op, value)
    if not _common(characters, inverted(_WORD)):
        return WORD
    return SOMETHING if _common(characters, _WORD) else OTHER


def _common(one: Ranges, other: Ranges) -> Ranges:
    """Return the characters that both ranges contain."""
    return inverted((*inverted(one), *inverted(other)))
