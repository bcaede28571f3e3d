"""Estimate how long a text takes to say, in Latin letters."""

from __future__ import annotations

import re

_WIDE_SIGN = 3
"""Weight of a Chinese or Japanese character and of a Korean syllable."""
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af]")


def weight(text: str) -> int:
    """Return the number of letters; wide characters count as several."""
    return len(text) if text.isascii() else len(text) + (_WIDE_SIGN - 1) * sum(1 for _ in _WIDE.finditer(text))


def is_wide(char: str) -> bool:
    """Return True if a character belongs to a script without spaces between words."""
    return _WIDE.match(char) is not None


def reach(text: str, start: int, end: int, most: int) -> int:
    """Return the end of a span from `start` with at most this weight, but at least one character; at most `end`."""
    at = start
    while at < end:
        most -= _WIDE_SIGN if is_wide(text[at]) else 1
        if most < 0:
            break
        at += 1
    return max(at, min(start + 1, end))
