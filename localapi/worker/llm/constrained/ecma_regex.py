"""ECMAScript's regular expressions in the words of Python's parser. Pure."""

from __future__ import annotations

import re
from typing import Final

LAST_CHARACTER: Final = 0x10FFFF
PLACEHOLDER: Final = 0xF0000
"""The first of the private characters that stand for Unicode classes, which Python's parser does not know."""
_ESCAPES_OF_BOTH: Final = frozenset("dDwWsSbBnrtvfuxAZ")


class UnsupportedRegex(Exception):
    """The expression says something that cannot be expressed."""


def to_python(pattern: str, classes: list[str]) -> str:
    """The expression as Python's parser reads it; Unicode classes become characters, and are added to `classes`."""
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
        elif found := re.compile(r"\(\?P?<(?![=!])[^>]*>").match(pattern, at):
            out.append("(")
            at = found.end()
            continue
        out.append(character)
        at += 1
    return "".join(out)


def _escape(pattern: str, at: int, classes: list[str]) -> tuple[str, int]:
    """One escape as Python has it, and where the text goes on."""
    rest = pattern[at + 1 : at + 40]
    if found := re.match(r"[pP]\{[\w=]+\}", rest):
        classes.append("\\" + found[0])
        return chr(PLACEHOLDER + len(classes) - 1), at + 1 + found.end()
    if found := re.match(r"u\{([0-9a-fA-F]+)\}|c([A-Za-z])", rest):
        number = int(found[1], 16) if found[1] else ord(found[2]) % 32
        return _literal(number), at + 1 + found.end()
    if found := re.match(r"u([dD][89abAB]..)\\u([dD][c-fC-F]..)", rest):
        pair = (int(found[1], 16), int(found[2], 16))
        return _literal(0x10000 + ((pair[0] - 0xD800) << 10) + pair[1] - 0xDC00), at + 1 + found.end()
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
