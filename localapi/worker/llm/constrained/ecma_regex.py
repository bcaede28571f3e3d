"""Rewrite ECMAScript's regular expressions for Python's parser."""

from __future__ import annotations

import re
from typing import Final

LAST_CHARACTER: Final = 0x10FFFF
PLACEHOLDER: Final = 0xF0000
"""The first of the private characters that stand in for Unicode classes, which Python's parser does not know."""
_ESCAPES_OF_BOTH: Final = frozenset("dDwWsSbBnrtvfuxAZ")
_NAMED_GROUP: Final = re.compile(r"\(\?P?<(?![=!])[^>]*>")
_UNICODE_CLASS: Final = re.compile(r"[pP]\{[\w=]+\}")
_CODE_OR_CONTROL: Final = re.compile(r"u\{([0-9a-fA-F]+)\}|c([A-Za-z])")
_SURROGATE_PAIR: Final = re.compile(r"u([dD][89abAB]..)\\u([dD][c-fC-F]..)")


class UnsupportedRegex(Exception):
    """The expression cannot be rewritten."""


def to_python(pattern: str, classes: list[str]) -> str:
    """Return the expression for Python's parser. Unicode classes become characters and are added to `classes`."""
    out: list[str] = []
    at, in_class = 0, False
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            text, at = _escape(pattern, at, classes)
            out.append(text)
            continue
        if in_class:
            if character == "]":
                in_class = False
            elif character in "[&|~":
                character = "\\" + character
        elif pattern.startswith(("[^]", "[]"), at):
            out.append("[\\s\\S]" if pattern[at + 1] == "^" else "(?!)")
            at += 3 if pattern[at + 1] == "^" else 2
            continue
        elif character == "[":
            in_class = True
            if pattern.startswith("[^", at):
                character, at = "[^", at + 1
        else:
            group = _NAMED_GROUP.match(pattern, at)
            if group is not None:
                out.append("(")
                at = group.end()
                continue
        out.append(character)
        at += 1
    return "".join(out)


def _escape(pattern: str, at: int, classes: list[str]) -> tuple[str, int]:
    """Return one escape as Python writes it, and where the text goes on."""
    rest = pattern[at + 1 : at + 40]
    found = _UNICODE_CLASS.match(rest)
    if found is not None:
        classes.append("\\" + found[0])
        return chr(PLACEHOLDER + len(classes) - 1), at + 1 + found.end()
    found = _CODE_OR_CONTROL.match(rest)
    if found is not None:
        number = int(found[1], 16) if found[1] else ord(found[2]) % 32
        return _literal(number), at + 1 + found.end()
    found = _SURROGATE_PAIR.match(rest)
    if found is not None:
        high, low = int(found[1], 16), int(found[2], 16)
        return _literal(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00), at + 1 + found.end()
    if not rest or rest[0] == "k" or rest[0] in "123456789":
        raise UnsupportedRegex
    if rest[0] == "z":
        return "\\Z", at + 2
    if rest[0].isascii() and rest[0].isalpha() and rest[0] not in _ESCAPES_OF_BOTH:
        return rest[0], at + 2  # any other character stands for itself
    return pattern[at : at + 2], at + 2


def _literal(number: int) -> str:
    if number > LAST_CHARACTER:
        raise UnsupportedRegex
    return f"\\U{number:08x}"
