"""Roughly how long a text takes to say, before anybody says it. Counted in Latin letters."""

from __future__ import annotations

import re

_WIDE_SIGN = 3
"""A Chinese or Japanese sign, and a Korean syllable, takes as long as this many letters."""
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af]")


def weight(text: str) -> int:
    """Return the number of letters, wide signs counted as what they take."""
    return len(text) if text.isascii() else len(text) + (_WIDE_SIGN - 1) * sum(1 for _ in _WIDE.finditer(text))


def is_wide(char: str) -> bool:
    """Whether it is a sign of a script that is written without blanks between words."""
    return _WIDE.match(char) is not None


def reach(text: str, start: int, end: int, most: int) -> int:
    """Return how far from `start` a span of this weight goes: one character or more, and not beyond `end`."""
    at = start
    while at < end:
        most -= _WIDE_SIGN if is_wide(text[at]) else 1
        if most < 0:
            break
        at += 1
    return max(at, min(start + 1, end))
