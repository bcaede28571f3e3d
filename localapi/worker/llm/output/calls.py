"""The calls of one answer: what is given of them, and the seam for whoever reads them out of a section of text."""

from __future__ import annotations

import secrets
from typing import Protocol

import msgspec


class ToolStart(msgspec.Struct, frozen=True, tag=True):
    """A call begins: the function's name is complete."""

    index: int
    call_id: str
    name: str


class ToolArguments(msgspec.Struct, frozen=True, tag=True):
    """Text that a call's arguments grow by; together it is JSON."""

    index: int
    text: str


Found = ToolStart | ToolArguments | str
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

    def start(self, name: str, call_id: object = None) -> ToolStart:
        """A new call. The model's own id is kept: Kimi's template writes it, and nothing else, into the next prompt."""
        known = isinstance(call_id, str) and call_id and encodable(call_id) and call_id not in self._ids
        id_ = str(call_id) if known else f"call_{secrets.token_hex(12)}"
        self._ids.add(id_)
        self.started += 1
        return ToolStart(self.started - 1, id_, name)

    def grow(self, text: str) -> ToolArguments:
        """More arguments of the call that started last."""
        return ToolArguments(self.started - 1, text)


class Section(Protocol):
    """One section of one answer."""

    rest: str | None
    """None while the section goes on; then the text behind it."""

    def push(self, text: str) -> list[Found]:
        """What is certain after this text and was not before."""

    def finish(self, *, cut: bool) -> list[Found]:
        """The answer ended inside the section; `cut`: not where the model meant to end it."""


def encodable(text: str) -> bool:
    """Whether it is free of lone surrogates, which no reply can carry."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
