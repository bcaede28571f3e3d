"""Remove characters that no engine can speak, or that make engines fail.

This module knows no markup and no language.
"""

from __future__ import annotations

import re
import unicodedata

_NOISE = re.compile(
    "["
    "\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f"  # controls; piper raises ValueError on NUL
    "\u00ad\u180e\u200b\u2060-\u2064\ufeff"  # invisible hyphens, spaces and joiners: they tear words apart
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # the direction of writing
    "\ufff0-\uffff\U000e0000-\U000e0fff"  # marks for objects, replacements, tags
    "\ud800-\udfff"  # half characters, which cannot be written as UTF-8
    "]"
)
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_PILE = re.compile(r"([^\w\s\x00-\u02ff]{30,})")
"""More combining marks in a row than any letter has; composing them takes quadratic time."""
_SAID_SYMBOLS = frozenset("%&@#°§©®™+=<>")


def clean(text: str) -> str:
    """Return the text without unspeakable characters, with newlines as line breaks and composed accents (NFC).

    The joiners U+200C and U+200D are kept, because Persian and the scripts of India need them. Engines and lexicons
    expect "é" as one character; text pasted on macOS often has two.
    """
    parts = _PILE.split(_LINE_END.sub("\n", _NOISE.sub("", text)))
    parts[::2] = (unicodedata.normalize("NFC", part) for part in parts[::2])
    return "".join(parts)


def is_speakable(text: str) -> bool:
    """Return True if there is a letter, a digit, or a sign that engines can name, such as "%" or "€"."""
    return any(char.isalnum() or char in _SAID_SYMBOLS or unicodedata.category(char) == "Sc" for char in text)
