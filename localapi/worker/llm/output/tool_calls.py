"""Tool calls in a response's text: from a section to calls with a name and JSON arguments.

A section is the text between the mark that starts calls and the mark that ends them (see `sections.Section`). Calls
written as JSON are read while they grow (`JsonSection`). Values that are text between tags wait for the section's end
and are converted by the tool's schema (`TaggedSection`). Every other syntax waits for it too (`ParsedSection`):
Gemma's, Python's and nested elements are read here, and mlx-lm's parser of the family reads the others. What is not a
call is returned as text. This module knows neither MLX nor reasoning.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from localapi.worker.llm.output import element_calls, gemma_calls, pythonic_calls
from localapi.worker.llm.output.argument_values import json_text
from localapi.worker.llm.output.formats import FORMATS, CallFormat
from localapi.worker.llm.output.json_calls import JsonSection, NamedJsonSection
from localapi.worker.llm.output.recognition import format_name
from localapi.worker.llm.output.sections import Calls, Markers, Section, SectionItem, encodable
from localapi.worker.llm.output.tagged_calls import TaggedSection

Parser = Callable[[str, Any], Any]
"""mlx-lm's `tool_parsers.<family>.parse_tool_call`: from a section and OpenAI's tools to one call or several."""


class ToolFormat:
    """The syntax of one model's calls."""

    def __init__(self, start: str, end: str, parser: Parser) -> None:
        self.start = start
        self.end = end
        self._parser = parser
        self.name = format_name(parser)
        self._format = FORMATS.get(self.name, CallFormat())
        self.opens = self._format.opens
        self.channels = self._format.channels
        self.ids = self._format.ids
        self.bare_start = self._format.bare[0]
        """The start of a call without a section around it; empty if that looks like text."""
        self.end_is_no_text = bool(self.bare_start) and self._format.tags is None
        """True if a mark that ends a section is dropped outside a section, as after a call whose start mark is missing.
        """

    @property
    def marks(self) -> set[str]:
        """Strings that must reach the sections even if the tokenizer calls them special."""
        tags = self._format.tags
        closing = (tags.call_end, tags.argument_end) if tags else ()
        return {self.start, self.end, self._format.string_mark, *self._format.inner_marks, *closing} - {""}

    def section(self, mark: str, calls: Calls, *, abandon: str | None = None) -> Section:
        """Return a section that begins now with this mark.

        `abandon` is a string that shows that it is not a section.
        """
        # A call may begin without a mark.
        start = self.start if mark else ""
        json_section = JsonSection(start, self.end, calls, keyed_by_name=self._format.keyed_by_name)
        if self._format.head is not None:
            named = NamedJsonSection(start, self.end, calls, self._format.head, tail=self._format.tail, abandon=abandon)
            return JsonOrTags(json_section, named)
        if self._format.is_json:
            return json_section
        tags = self._format.tags
        parse = partial(self._parsed_section, calls)
        if mark and mark == self.bare_start:
            _, end = self._format.bare
            return (
                TaggedSection(mark, end, tags, calls, stray_end=self.end) if tags else ParsedSection(mark, end, parse)
            )
        if tags is None:
            goes_on = partial(pythonic_calls.may_begin, calls=calls) if self.opens else None
            return ParsedSection(self.start, self.end, parse, abandon, goes_on)
        tagged = TaggedSection(self.start, self.end, tags, calls, abandon=abandon, other=parse)
        return tagged if tags.whole_section else JsonOrTags(json_section, tagged)

    def _parsed_section(self, calls: Calls, text: str) -> list[SectionItem]:
        """Return the calls of a complete section, followed by text that is not a call; nothing without a call."""
        found: list[SectionItem] = []
        lost: list[SectionItem] = []
        text = text.strip()
        for piece in self._format.border.split(text) if self._format.border else [text]:
            try:
                parsed, rest = self._parsed(piece, calls)
            except Exception:  # parsers raise anything for their own bugs: AttributeError, SyntaxError, RecursionError
                lost.append(piece)
                continue
            lost += [rest] if rest else []
            for call in parsed:
                found += calls.add(*call)
        return found + lost if found else []

    def _parsed(self, text: str, calls: Calls) -> tuple[list[tuple[str, str, object]], str]:
        """Return name, arguments and the model's id of each call, and the text after them that is not a call.

        Raises any exception if the text is not calls of the tools.
        """
        if self._format.string_mark:
            return gemma_calls.read(text, self._format.string_mark, calls)
        if self._format.is_python:
            return pythonic_calls.read(text, calls), ""
        if self._format.element_mark:
            return element_calls.read(text, self._format.element_mark, calls), ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know, as in "\\d"
            parsed = self._parser(text, calls.tools)
        if not parsed:
            raise ValueError("no call")
        found: list[tuple[str, str, object]] = []
        for call in parsed if isinstance(parsed, list) else [parsed]:
            name, arguments = call["name"], call.get("arguments", call.get("parameters"))
            if isinstance(arguments, str):
                arguments = json.loads(arguments, strict=False)
            if arguments is None:
                arguments = {}
            if name not in calls.schemas or not name or not encodable(name) or not isinstance(arguments, dict):
                raise ValueError("not a call of a tool")
            if self._format.unread and arguments.keys() == {self._format.unread}:
                raise ValueError("not the syntax of a call")
            found.append((name, json_text(arguments), call.get("id")))
        return found, ""


class JsonOrTags:
    """Read a section whose first character shows how its calls are written: these families also write JSON."""

    def __init__(self, json_section: Section, tagged: Section) -> None:
        self._json_section = json_section
        self._section = tagged
        self._space: str | None = ""
        """The text before the first character; None once that has come."""
        self.rest: str | None = None

    def push(self, text: str) -> list[SectionItem]:
        """Return the items that became certain with this text."""
        if self._space is not None:
            text = self._space + text
            if not text.strip():
                self._space = text
                return []
            self._space = None
            if text.lstrip().startswith(("{", "[")):
                self._section = self._json_section
        found = self._section.push(text)
        self.rest = self._section.rest
        return found

    def finish(self, *, cut: bool) -> list[SectionItem]:
        """Return the remaining items of a section that the answer ended in."""
        found = self._section.push(self._space or "") + self._section.finish(cut=cut)
        self.rest = self._section.rest
        return found


class ParsedSection:
    """Parser of a complete section."""

    def __init__(
        self,
        start: str,
        end: str,
        parse: Callable[[str], list[SectionItem]],
        abandon: str | None = None,
        goes_on: Callable[[str], bool] | None = None,
    ) -> None:
        """Start a section; `parse` returns the items of a text, or nothing if it has no calls.

        `abandon` is as in `ToolFormat.section`. `goes_on` returns False once it is certain that the text is no call.
        """
        self._start = start
        self._end = end
        self._parse = parse
        self._abandon = abandon
        self._goes_on = goes_on
        self._ends = Markers([end, abandon or ""])
        self._text = ""
        self._held = ""
        self.rest: str | None = None

    def push(self, text: str) -> list[SectionItem]:
        """Return the section's items if this text ends it."""
        before, marker, behind = self._ends.split(self._held + text)
        self._text += before
        if self._goes_on is not None and not self._goes_on(self._text):
            self.rest = (marker or "") + behind
            return [self._start + self._text]
        if marker is None:
            self._held = behind
            return []
        if marker == self._abandon:
            self.rest = marker + behind
            return [self._start + self._text]
        self.rest = behind
        return self._parse(self._text) or [self._start + self._text + marker]

    def finish(self, *, cut: bool) -> list[SectionItem]:
        """Return the items of a section that the answer ended in."""
        self.rest = ""
        # Of a call that was cut off, lenient parsers would return half of the arguments.
        found = [] if cut and self._end else self._parse(self._text)
        return found or [self._start + self._text + self._held]
