"""Strings that mean something in a model's text, found while the text comes in pieces."""

from __future__ import annotations

import re
from collections.abc import Collection


class Markers:
    """Finds the first of some strings in a text that comes in pieces; of two that start together, the longer."""

    def __init__(self, strings: Collection[str]) -> None:
        self._strings = sorted({s for s in strings if s}, key=len, reverse=True)
        self._first = {s[0] for s in self._strings}
        self._longest = len(self._strings[0]) if self._strings else 0
        self._pattern = re.compile("|".join(map(re.escape, self._strings)) or r"(?!)")

    def __bool__(self) -> bool:
        return bool(self._strings)

    def split(self, text: str, *, final: bool = False) -> tuple[str, str | None, str]:
        """What is before the first marker, the marker, and what is behind it.

        Without one: the text that is certain, None, and what may begin one (nothing if the text is `final`).
        """
        begun = len(text) if final else self._begun(text)
        found = self._pattern.search(text)
        if found and found.start() < begun:
            return text[: found.start()], found[0], text[found.end() :]
        return text[:begun], None, text[begun:]

    def _begun(self, text: str) -> int:
        """Where the text may begin a marker that it does not hold to its end."""
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[at] in self._first:
                tail = text[at:]
                if any(s.startswith(tail) and s != tail for s in self._strings):
                    return at
        return len(text)
