"""Sections of calls whose arguments are text between tags."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from localapi.worker.llm.output.sections import Calls, Markers, SectionItem
from localapi.worker.llm.output.tagged_calls import (
    NotCalls,
    Reading,
    Tags,
    as_json,
    begins_call,
    name_of_call,
    parameters,
    read,
)

_MOST_MARKS: Final = 64
"""End marks within one value. The whole section is read again at each, so a model that repeats them costs much."""
_LONGEST_HEAD: Final = 256
"""Characters of the first tag if it is the mark that starts the section."""
_FIRST_TAG: Final = re.compile(rf"[^<>\n]{{0,{_LONGEST_HEAD - 1}}}[<>\n]")
"""Text that may be such a tag, after its first character."""


class TaggedSection:
    """Read a section once it is complete, or a single call that the model wrote without a section around it.

    A mark that ends the section may also be part of a value. Then the section goes on; if no better end comes, it has
    ended there after all.
    """

    def __init__(
        self,
        start: str,
        end: str,
        tags: Tags,
        tools: Sequence[dict[str, Any]],
        calls: Calls,
        *,
        abandon: str | None = None,
        stray_end: str = "",
        other: Callable[[str], list[SectionItem]] = lambda _: [],
    ) -> None:
        """`abandon`: a string that shows that this was not a section. `stray_end`: text that may follow a bare call.

        `other`: reads the calls of a section that is not written in tags.
        """
        self._start = start
        self._end = end
        self._tags = tags
        self._tools = tools
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
        """Return the items of a section that the answer ended in, as far as its calls are complete."""
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
        if begins_call(self._own_text(""), self._tags, self._tools) and self._marks <= _MOST_MARKS:
            return None
        if marker == self._abandon:
            self.rest = marker + behind
            return [self._start + self._text]
        self._end_before(behind)
        return self._other(self._text) or [self._start + self._text + marker]

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
        self._is_of_tool = parameters(name, self._tools) is not None
        return not self._is_of_tool

    def _reading(self, marker: str, *, closed: bool) -> Reading | None:
        try:
            return read(self._own_text(marker), self._tags, self._tools, closed=closed)
        except NotCalls:
            return None

    def _without_end(self) -> Reading | None:
        """Return the calls of a section whose end mark is missing, if that mark also ends its last call.

        The model ended its answer here, so the call counts if its last argument is complete and none is missing.
        """
        if not self._text.rstrip().endswith(self._tags.argument_end):
            return None
        reading = self._reading(self._end, closed=True)
        if reading is None:
            return None
        last = reading.calls[-1]
        required = (parameters(last.name, self._tools) or {}).get("required")
        is_whole = not isinstance(required, list) or last.arguments.keys() >= set(map(str, required))
        return reading if is_whole else None

    def _own_text(self, marker: str) -> str:
        """Return the section's text, with its marks if they are the call's own tags."""
        return self._start + self._text + marker if self._has_own_tags else self._text

    def _found(self, reading: Reading) -> list[SectionItem]:
        found: list[SectionItem] = []
        for call in reading.calls:
            schema = parameters(call.name, self._tools) or {}
            found += [self._calls.start(call.name), self._calls.grow(as_json(call, schema))]
            self._calls.complete += 1
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
