"""The calls of one answer: what is given of them, and the seam for whoever reads them out of a section of text."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from typing import Protocol

import msgspec


class CallStart(msgspec.Struct, frozen=True, tag=True):
    """A call begins: the function's name is complete."""

    index: int
    call_id: str
    name: str


class CallArguments(msgspec.Struct, frozen=True, tag=True):
    """Text that a call's arguments grow by; together it is JSON."""

    index: int
    text: str


SectionItem = CallStart | CallArguments | str
"""What a section holds. A plain string is text that turned out to be no call, its marks included."""


class Calls:
    """The calls of one answer, over all its sections."""

    def __init__(self) -> None:
        self.started = 0
        self.complete = 0
        self.broken = False
        """Whether a call was cut or has arguments that are no JSON object."""
        self.unfinished = False
        """Whether the answer ended inside a call that had been given."""
        self._ids: set[str] = set()

    def start(self, name: str, call_id: object = None) -> CallStart:
        """A new call. The model's own id is kept: Kimi's template writes it, and nothing else, into the next prompt."""
        known = isinstance(call_id, str) and call_id and encodable(call_id) and call_id not in self._ids
        id_ = str(call_id) if known else f"call_{secrets.token_hex(12)}"
        self._ids.add(id_)
        self.started += 1
        return CallStart(self.started - 1, id_, name)

    def grow(self, text: str) -> CallArguments:
        """More arguments of the call that started last."""
        return CallArguments(self.started - 1, text)


class Section(Protocol):
    """One section of one answer."""

    rest: str | None
    """None while the section goes on; then the text behind it."""

    def push(self, text: str) -> list[SectionItem]:
        """What is certain after this text and was not before."""

    def finish(self, *, cut: bool) -> list[SectionItem]:
        """The answer ended inside the section; `cut`: not where the model meant to end it."""


def encodable(text: str) -> bool:
    """Whether it is free of lone surrogates, which no reply can carry."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


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
