"""Calls whose arguments are text between tags, as in `<parameter=city>Paris</parameter>`: from text to JSON.

Such formats escape nothing: a value may contain the very tags that end it, even a whole call as an example. A closing
tag ends a value if what follows can follow a value, and if as many tags were closed within the value as were opened in
it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from localapi.worker.llm.output.argument_values import converted, json_text, property_schema
from localapi.worker.llm.output.formats import Tags
from localapi.worker.llm.output.sections import Calls, Markers, SectionItem, behind_space

_MOST_MARKS: Final = 64
"""Maximum end marks within one value. The whole section is read again at each, so a model that repeats them is costly.
"""
_LONGEST_HEAD: Final = 256
"""Maximum characters of the first tag if it is the mark that starts the section."""
_FIRST_TAG: Final = re.compile(rf"[^<>\n]{{0,{_LONGEST_HEAD - 1}}}[<>\n]")
"""Text that may be such a tag, after its first character."""
Schemas = Mapping[str, dict[str, Any]]
"""The schemas of the tools' arguments, by name."""
_CDATA: Final = re.compile(r"\s*<!\[CDATA\[(?P<value>.*?)\]\]>\s*</param>", re.DOTALL)
"""Value of MiniCPM5 that contains `<`, `&` or a newline."""


class NotCalls(Exception):
    """The text is not calls, or no call is complete."""


@dataclass(frozen=True)
class Reading:
    """The calls of a text, and how certain they are."""

    calls: list[tuple[str, dict[str, str]]]
    """The name of each, and its arguments as text by key."""
    rest: str
    """Text after the calls that is not a call."""
    certain: bool
    """True if tags are closed in the order in which they were opened. If not, the call may go on."""
    likely: bool
    """True if at least the tags of calls, or those of arguments, are in order: then one was forgotten, or is only
    mentioned."""


def read(text: str, tags: Tags, schemas: Schemas, *, closed: bool) -> Reading | None:
    """Return the calls of a section's text; None if it does not begin with one.

    If `closed`, the model has ended the section, so the tag that ends the last call may be missing.
    """
    calls: list[tuple[str, dict[str, str]]] = []
    certain, likely = True, bool(tags.call_end)
    at = behind_space(text, 0)
    while at < len(text):
        start = tags.call.match(text, at)
        name = _unquoted(start["name"]) if start else ""
        if start is None or name not in schemas:
            break
        try:
            body, behind, sure = _body(text, start.end(), tags, closed=closed)
            arguments, balanced = _arguments(body, tags, schemas[name])
        except NotCalls:
            certain = likely = False
            break
        calls.append((name, arguments))
        certain = certain and sure and balanced
        likely = likely and (sure or balanced)
        at = behind_space(text, behind)
    return Reading(calls, text[at:], certain, likely) if calls else None


def begins_call(text: str, tags: Tags, schemas: Schemas) -> bool:
    """Return True if a call of one of the tools and its first argument begin here, so that a value may continue."""
    start = tags.call.match(text, behind_space(text, 0))
    if start is None or _unquoted(start["name"]) not in schemas:
        return False
    return tags.argument.match(text, behind_space(text, start.end())) is not None


def name_of_call(text: str, tags: Tags) -> str | None:
    """Return the name of the call that begins here; None if there is none."""
    start = tags.call.match(text, behind_space(text, 0))
    return None if start is None else _unquoted(start["name"])


def _body(text: str, at: int, tags: Tags, *, closed: bool) -> tuple[str, int, bool]:
    """Return the inside of a call, where the text after it begins, and whether that is certain. Raise NotCalls."""
    if not tags.call_end:
        return text[at:], len(text), True
    end, balanced = _end(text, at, tags.call, tags.call_end, rf"\s*(?:\Z|{tags.call.pattern})")
    if end is not None:
        return text[at:end], end + len(tags.call_end), balanced
    if not closed:
        raise NotCalls
    return text[at:], len(text), True


def _arguments(body: str, tags: Tags, schema: dict[str, Any]) -> tuple[dict[str, str], bool]:
    """Return the arguments by key, and whether all tags are closed as they were opened. Raise NotCalls."""
    arguments: dict[str, str] = {}
    certain = True
    at = behind_space(body, 0)
    while at < len(body):
        start = tags.argument.match(body, at)
        if start is None:
            raise NotCalls
        key = _unquoted(start["key"])
        cdata = _CDATA.match(body, start.end()) if tags.argument_end == "</param>" else None
        if cdata is not None:
            value, at = cdata["value"], cdata.end()
        else:
            end, at, balanced = _value_end(body, start.end(), tags, set(schema["properties"]) - {*arguments, key})
            value = _without_newlines(body[start.end() : end], tags.newlines)
            certain = certain and balanced
        arguments[key] = value
        at = behind_space(body, at)
    return arguments, certain


def _value_end(body: str, at: int, tags: Tags, missing: set[str]) -> tuple[int, int, bool]:
    """Return where a value ends, where the text after it begins, and whether its tags are balanced.

    `missing`: keys that may still come. If a model forgets to close a value, the next of them ends it. Raise NotCalls.
    """
    end, balanced = _end(body, at, tags.argument, tags.argument_end, rf"\s*(?:\Z|{tags.argument.pattern})")
    if end is not None and balanced:
        return end, end + len(tags.argument_end), True
    for following in tags.argument.finditer(body, at, len(body) if end is None else end):
        if _unquoted(following["key"]) in missing and body[: following.start()].endswith("\n"):
            return following.start(), following.start(), False
    if end is not None:
        return end, end + len(tags.argument_end), False
    if not tags.call_end:
        raise NotCalls
    return len(body), len(body), False


def _end(text: str, at: int, opening: re.Pattern[str], closing: str, follows: str) -> tuple[int | None, bool]:
    """Return where the closing tag of what was opened before begins, and whether the tags inside are balanced.

    If no closing tag is balanced, it is the first one that is followed by the right text.
    """
    tag = re.compile(rf"(?P<closing>{re.escape(closing)})|{opening.pattern}")
    behind = re.compile(follows)
    first: int | None = None
    open_tags = 0
    for found in tag.finditer(text, at):
        if found["closing"] is None:
            open_tags += 1
            continue
        if behind.match(text, found.end()):
            if not open_tags:
                return found.start(), True
            first = found.start() if first is None else first
        open_tags = max(0, open_tags - 1)
    return first, False


def _without_newlines(value: str, newlines: Literal["any", "both", "none"]) -> str:
    if newlines == "any":
        return value.removeprefix("\n").removesuffix("\n")
    if newlines == "both" and len(value) > 1 and value.startswith("\n") and value.endswith("\n"):
        return value[1:-1]
    return value


def _unquoted(name: str) -> str:
    return name[1:-1] if name[:1] in ("'", '"') else name


class TaggedSection:
    """Reader of a complete section, or of a single call that the model wrote without a section around it.

    A mark that ends the section may also be part of a value. Then the section continues; if no better end comes, it has
    ended there after all.
    """

    def __init__(
        self,
        start: str,
        end: str,
        tags: Tags,
        calls: Calls,
        *,
        abandon: str | None = None,
        stray_end: str = "",
        other: Callable[[str], list[SectionItem]] | None = None,
    ) -> None:
        """`abandon`: as in `ToolFormat.section`. `stray_end`: text that may follow a bare call.

        `other`: reads the calls of a section that is not written in tags.
        """
        self._start = start
        self._end = end
        self._tags = tags
        self._calls = calls
        self._abandon = abandon
        self._stray_end = stray_end
        self._other = other
        self._is_bare = bool(stray_end)
        self._has_own_tags = self._is_bare or tags.whole_section
        self._ends = Markers([end, abandon or ""])
        self._text = ""
        self._held = ""
        self._marks = 0
        self._first_abandon: int | None = None
        self._second_best: tuple[Reading, int] | None = None
        """Calls that are complete if nothing better comes, and where the text after them begins."""
        self._is_of_tool = False
        """True if the text begins with a call of one of the tools."""
        self._is_over = False
        self.rest: str | None = None

    def push(self, text: str) -> list[SectionItem]:
        """Return the section's items if this text ends it."""
        if self._is_over:
            self._skip_stray_end(text)
            return []
        text = self._held + text
        while True:
            before, marker, text = self._ends.split(text)
            self._text += before
            if self._is_none():
                self.rest = self._text + (marker or "") + text
                return [self._start]
            if marker is None:
                self._held = text
                return []
            found = self._at_mark(marker, text)
            if found is not None:
                return found
            self._text += marker

    def finish(self, *, cut: bool) -> list[SectionItem]:
        """Return the items of a section in which the response ended, as far as its calls are complete."""
        if self._is_over:
            self.rest = self._held
            return []
        if self._tags.call_end and not self._tags.whole_section:
            reading = self._reading("", closed=False)
        else:
            reading = None if cut else self._without_end()
        if reading is not None and (reading.certain or (reading.likely and not cut)):
            self.rest = self._held
            return self._found(reading)
        if self._second_best is not None and not cut:
            reading, behind = self._second_best
            self.rest = self._text[behind:] + self._held
            return self._found(reading)
        text, self.rest = self._text + self._held, ""
        if self._first_abandon is not None:
            text, self.rest = text[: self._first_abandon], text[self._first_abandon :]
        return [self._start + text]

    def _at_mark(self, marker: str, behind: str) -> list[SectionItem] | None:
        """Return the section's items if it ends here; None if it goes on."""
        reading = self._reading(marker, closed=True) if marker == self._end else None
        if reading is not None and reading.certain:
            self._end_before(behind)
            return self._found(reading)
        if reading is not None and reading.likely and self._second_best is None:
            self._second_best = reading, len(self._text) + len(marker)
        if marker == self._abandon and self._first_abandon is None:
            self._first_abandon = len(self._text)
        self._marks += 1
        if begins_call(self._own_text(""), self._tags, self._calls.schemas) and self._marks <= _MOST_MARKS:
            return None
        if marker == self._abandon:
            self.rest = marker + behind
            return [self._start + self._text]
        self._end_before(behind)
        found = self._other(self._text) if self._other else []
        return found or [self._start + self._text + marker]

    def _is_none(self) -> bool:
        """Return True if it is certain that this is not a call of one of the tools."""
        if self._is_of_tool or not self._tags.call_end:
            return False
        text = self._own_text("")
        if self._has_own_tags:
            head = _FIRST_TAG.match(text, 1)
            if head is None:
                return len(text) > _LONGEST_HEAD
            text = text[: head.end()]
        name = name_of_call(text, self._tags)
        if name is None:
            return self._has_own_tags
        self._is_of_tool = name in self._calls.schemas
        return not self._is_of_tool

    def _reading(self, marker: str, *, closed: bool) -> Reading | None:
        return read(self._own_text(marker), self._tags, self._calls.schemas, closed=closed)

    def _without_end(self) -> Reading | None:
        """Return the calls of a section whose end mark is missing, if that mark also ends its last call.

        The model ended its response here, so the call counts if its last argument is complete and none is missing.
        """
        if not self._text.rstrip().endswith(self._tags.argument_end):
            return None
        reading = self._reading(self._end, closed=True)
        if reading is None:
            return None
        name, arguments = reading.calls[-1]
        required = self._calls.schemas[name].get("required")
        is_whole = not isinstance(required, list) or arguments.keys() >= set(map(str, required))
        return reading if is_whole else None

    def _own_text(self, marker: str) -> str:
        """Return the section's text, with its marks if they are the call's own tags."""
        return self._start + self._text + marker if self._has_own_tags else self._text

    def _found(self, reading: Reading) -> list[SectionItem]:
        found: list[SectionItem] = []
        for name, arguments in reading.calls:
            schema = self._calls.schemas[name]
            members = []
            for key, text in arguments.items():
                members.append(f"{json_text(key)}: {converted(text, property_schema(key, schema, schema), schema)}")
            found += self._calls.add(name, "{" + ", ".join(members) + "}")
        return [*found, reading.rest] if reading.rest else found

    def _end_before(self, behind: str) -> None:
        if not self._is_bare:
            self.rest = behind
            return
        self._is_over, self._held = True, ""
        self._skip_stray_end(behind)

    def _skip_stray_end(self, text: str) -> None:
        """Skip an end mark after a bare call: models that forget the start of a section often write its end."""
        self._held += text
        after = self._held.lstrip()
        if after.startswith(self._stray_end):
            self.rest = after.removeprefix(self._stray_end)
        elif not self._stray_end.startswith(after):
            self.rest = self._held
