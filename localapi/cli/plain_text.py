"""Make untrusted text safe to show on a terminal.

A model's text may contain escape sequences, which move the cursor, set the title or the clipboard, or hide text. On a
terminal, they are shown as visible characters instead.
"""

from __future__ import annotations

import re
from typing import Final

_CONTROL: Final = re.compile(
    "\r\n|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""C0 except tab and newline, DEL, C1, bidirectional controls, and surrogates."""
_PICTURES: Final = 0x2400
"""First of the Unicode control pictures for C0."""
_DELETE: Final = "\x7f"


def shown(text: str) -> str:
    """Replace each control character except tab and newline with its picture, such as ␛."""
    return _CONTROL.sub(_picture, text)


def shown_in_line(text: str) -> str:
    """Return the text on one line, with control characters as pictures, for tables and messages."""
    return shown(" ".join(text.split()))


def sendable(text: str) -> str:
    """Return the text for a pipe or a file: only what UTF-8 cannot encode is replaced."""
    return text.encode(errors="replace").decode()


def _picture(found: re.Match[str]) -> str:
    character = found[0]
    if character == "\r\n":
        return "\n"
    if character < " ":
        return chr(_PICTURES + ord(character))
    if character == _DELETE:
        return "␡"
    return "�" if "\ud800" <= character <= "\udfff" else f"<U+{ord(character):04X}>"
