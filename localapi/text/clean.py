"""Characters that no engine can say, and some that make engines fail. Knows no markup and no language."""

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
"""More marks in a row than any letter carries; composing them takes quadratic time."""
_SAID_SYMBOLS = frozenset("%&@#°§©®™+=<>")


def clean(text: str) -> str:
    """The text without what cannot be said, its line ends as newlines, its accents composed (NFC).

    The joiners U+200C and U+200D stay: Persian and the scripts of India spell with them. Composing is for engines and
    lexicons, which know "é" as one character; text that was pasted on macOS often holds two.
    """
    parts = _PILE.split(_LINE_END.sub("\n", _NOISE.sub("", text)))
    parts[::2] = (unicodedata.normalize("NFC", part) for part in parts[::2])
    return "".join(parts)


def is_speakable(text: str) -> bool:
    """Whether there is a letter, a digit, or a sign with a name that engines know, such as "%" or "€"."""
    return any(char.isalnum() or char in _SAID_SYMBOLS or unicodedata.category(char) == "Sc" for char in text)
