"""Sections of a response's text that contain tool calls: their items, and the markers around them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import msgspec

from localapi.worker.llm.output.call_ids import ANY, CallIds


class CallStart(msgspec.Struct, frozen=True, tag=True):
    """Start of a call. The function's name is complete."""

    index: int
    call_id: str
    name: str


class CallArguments(msgspec.Struct, frozen=True, tag=True):
    """Next text of a call's arguments. All of it together is JSON."""

    index: int
    text: str


SectionItem = CallStart | CallArguments | str
"""An item of a section. A plain string is text that turned out not to be a call, including its markers."""


class Calls:
    """Tools that the client offers, and the calls of one response over all its sections."""

    def __init__(self, tools: Sequence[dict[str, Any]], ids: CallIds = ANY, taken: Collection[str] = ()) -> None:
        """`ids`: the shape of ids that this class makes. `taken`: the ids of earlier calls of the conversation."""
        self.tools: list[dict[str, Any]] = []
        """The functions among OpenAI's tools, with everything that parsers expect in their schemas."""
        self.schemas: dict[str, dict[str, Any]] = {}
        """The schemas of the functions' arguments, by name."""
        self.started = 0
        self.complete = 0
        self.broken = False
        """True if a call was cut off or its arguments are not a JSON object."""
        self.unfinished = False
        """True if the response ended inside a call that has been sent."""
        self._shape = ids
        self._ids = set(taken)
        for tool in tools:
            function = tool.get("function")
            if isinstance(function, dict):
                schema = _dict(function.get("parameters"))
                properties = {name: _dict(each) for name, each in _dict(schema.get("properties")).items()}
                schema = {**schema, "properties": properties}
                self.tools.append({**tool, "function": {**function, "parameters": schema}})
                self.schemas.setdefault(str(function.get("name")), schema)

    def start(self, name: str, call_id: object = None) -> CallStart:
        """Return the start of a new call, with the model's own id if it is usable.

        Kimi's template writes only that id into the next prompt, not the name.
        """
        if not (isinstance(call_id, str) and call_id and encodable(call_id)) or call_id in self._ids:
            call_id = self._shape.new(name, self._ids)
        self._ids.add(call_id)
        self.started += 1
        return CallStart(self.started - 1, call_id, name)

    def grow(self, text: str) -> CallArguments:
        """Return more arguments of the call that started last."""
        return CallArguments(self.started - 1, text)

    def add(self, name: str, arguments: str, call_id: object = None) -> list[SectionItem]:
        """Return a complete call."""
        self.complete += 1
        return [self.start(name, call_id), self.grow(arguments)]


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class Section(Protocol):
    """Reader of one section of one response."""

    rest: str | None
    """Text after the section; None while it continues."""

    def push(self, text: str) -> list[SectionItem]:
        """Return the items that became certain with this text."""

    def finish(self, *, cut: bool) -> list[SectionItem]:
        """Return the remaining items of a section in which the response ended.

        If `cut`, the response was cut off, so the model did not mean to end it there.
        """


def encodable(text: str) -> bool:
    """Return True if the text has no lone surrogates, which a response cannot carry."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def behind_space(text: str, at: int) -> int:
    """Return where the whitespace that may begin here ends."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


class Markers:
    """Find the first of some strings in a text that arrives in pieces. If two start together, the longer one wins."""

    def __init__(self, strings: Collection[str]) -> None:
        self._strings = sorted({s for s in strings if s}, key=len, reverse=True)
        self._first = {s[0] for s in self._strings}
        self._longest = len(self._strings[0]) if self._strings else 0
        self._pattern = re.compile("|".join(map(re.escape, self._strings)) or r"(?!)")

    def __bool__(self) -> bool:
        return bool(self._strings)

    def split(self, text: str, *, final: bool = False) -> tuple[str, str | None, str]:
        """Return the text before the first marker, the marker, and the text after it.

        If there is none, return the text that is certain, None, and the end that may be the start of a marker (empty if
        the text is `final`).
        """
        begun = len(text)
        if not final:
            for at in range(max(0, len(text) - self._longest + 1), len(text)):
                tail = text[at:]
                if text[at] in self._first and any(s.startswith(tail) and s != tail for s in self._strings):
                    begun = at
                    break
        found = self._pattern.search(text)
        if found and found.start() < begun:
            return text[: found.start()], found[0], text[found.end() :]
        return text[:begun], None, text[begun:]
