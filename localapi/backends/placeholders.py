"""Placeholders in the command and the environment of a program, such as {port} and {folder}.

Literal braces are doubled. No shell is involved, so nothing else in a text has a special meaning.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from localapi.errors import shown

PLACEHOLDERS: Final = {
    "port": "the free port to listen on",
    "host": "the address to listen on, 127.0.0.1",
    "key": "a new secret, which is then the API key of requests to the program",
    "name": "the entry's id",
    "path": "the entry's path, if it has one",
    "folder": "the folder of the manifest",
    "home": "your home folder",
}
"""Meaning of each placeholder."""
_PARTS: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.-]*)\}|[{}]")
_OF_OTHERS: Final = re.compile(r"\$\{[A-Za-z_][\w.]*\}")
"""Placeholders in the notation of shells and llama-swap."""


def placeholders_in(text: str) -> Iterator[str]:
    """Yield the names of the placeholders in a text. Raise ValueError for unknown ones and for single braces."""
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    if other := _OF_OTHERS.search(text):
        name = other[0][2:-1].lower()
        instead = f"{{{name}}}" if name in PLACEHOLDERS else "{name}"
        raise ValueError(f"should have placeholders such as {instead} instead of {other[0]} (known: {known})")
    for part in _PARTS.finditer(text):
        name = part[1]
        if name in PLACEHOLDERS:
            yield name
        elif name is not None:
            near = difflib.get_close_matches(name, PLACEHOLDERS, n=1)
            hint = f"; did you mean {{{near[0]}}}?" if near else ""
            raise ValueError(f"should have only known placeholders, not {{{name}}}{hint} (known: {known})")
        elif part[0] in "{}":
            raise ValueError(f"should have {{{{ and }}}} for literal braces (known: {known})")


def checked(text: str) -> str:
    """Return a text whose placeholders are all known. Raise ValueError for any other."""
    if "\0" in text:
        raise ValueError(f"should not contain a null character, as {shown(text)} does")
    for _ in placeholders_in(text):
        pass
    return text


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a checked text with its values. Raise KeyError for a placeholder without a value."""

    def value(part: re.Match[str]) -> str:
        return values[part[1]] if part[1] is not None else part[0][0]

    return _PARTS.sub(value, text)
