"""Tool calls in an answer's text: from a section of it to calls with a name and JSON arguments.

A section is the text between the mark that starts calls and the mark that ends them (see `sections.Section`). Calls
written as JSON are read while they grow (`JsonSection`). Values that are text between tags wait for the section's end
and are converted by the tool's schema (`TaggedSection`). Every other syntax waits for it, too (`ParsedSection`):
Gemma's is read here, and mlx-lm's parser of the family reads the others. What is not a call comes back as text. This
module knows neither MLX nor thinking.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from localapi.worker.llm.output import gemma_calls
from localapi.worker.llm.output.argument_values import json_text
from localapi.worker.llm.output.gemma_calls import STRING_MARKS
from localapi.worker.llm.output.json_calls import JsonSection
from localapi.worker.llm.output.sections import Calls, Markers, Section, SectionItem, encodable
from localapi.worker.llm.output.tagged_calls import TAGS
from localapi.worker.llm.output.tagged_section import TaggedSection

Parser = Callable[[str, Any], Any]
"""mlx-lm's `tool_parsers.<family>.parse_tool_call`: from a section and OpenAI's tools to one call or several."""

_NEXT_CALL = {
    "kimi_k2": re.compile(r"(?<=<\|tool_call_end\|>)\s*(?=<\|tool_call_begin\|>)"),
    "kimi_k3": re.compile(r"(?<=<\|close\|>call<\|sep\|>)\s*(?=<\|open\|>call)"),
}
"""Where to split calls if the family's parser mixes up or drops calls when one section holds several."""
_PYTHONIC = re.compile(
    r"""\s*\[\s*[\w.]+\((?:\s*\w+\s*=(?:\s*"[^"]*"\s*|\s*'[^']*'\s*|[^,"'()\[\]]+)(?:,|(?=\))))*\s*\)\s*\]\s*"""
)
"""A call that is not valid Python (a newline in a string) but whose arguments can still be told apart."""
_BARE_CALL = {"kimi_k2": ("<|tool_call_begin|>", "<|tool_call_end|>")}
"""The marks around one call if they cannot be mistaken for text: models forget the marks around the section."""
INNER_MARKS = {
    **{family: (mark,) for family, mark in STRING_MARKS.items()},
    "glm47": ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    "kimi_k2": ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
    "kimi_k3": ("<|open|>", "<|close|>", "<|sep|>"),
    "longcat": ("<longcat_arg_key>", "</longcat_arg_key>", "<longcat_arg_value>", "</longcat_arg_value>"),
    "mistral": ("[ARGS]",),
}
"""Marks that a family's parser reads inside a section and that may be special tokens."""


class ToolFormat:
    """How one model writes calls."""

    def __init__(self, start: str, end: str, parser: Parser) -> None:
        self.start = start
        self.end = end
        self.family = str(getattr(parser, "__module__", "")).rpartition(".")[2]
        self._parser = parser
        self._tags = TAGS.get(self.family)
        self._bare_call = _BARE_CALL.get(self.family)
        if self._bare_call:
            self.bare_start = self._bare_call[0]
        else:
            self.bare_start = self._tags.bare if self._tags else ""
        """How a call begins without a section around it; empty if that looks like text."""
        self.end_is_no_text = self._bare_call is not None
        """True if a mark that ends a section is dropped outside of one, as after a call whose start mark is missing."""

    @property
    def marks(self) -> set[str]:
        """Strings that must reach the sections even if the tokenizer calls them special."""
        return {self.start, self.end, *INNER_MARKS.get(self.family, ())} - {""}

    def section(
        self, mark: str, tools: Sequence[dict[str, Any]], calls: Calls, *, abandon: str | None = None
    ) -> Section:
        """Return a section that begins now with this mark. `abandon`: a string that shows that it was not a section."""
        if self.family == "json_tools":
            return JsonSection(self.start, self.end, calls, names_of(tools))
        if self._bare_call and mark == self.bare_start:
            return ParsedSection(self, tools, calls, start=mark, end=self._bare_call[1])
        if self._tags is None:
            return ParsedSection(self, tools, calls, start=self.start, end=self.end, abandon=abandon)
        if mark == self.bare_start:
            return TaggedSection(mark, self._tags.call_end, self._tags, tools, calls, stray_end=self.end)

        def other(text: str) -> list[SectionItem]:
            return self.found(text, tools, calls)

        tagged = TaggedSection(self.start, self.end, self._tags, tools, calls, abandon=abandon, other=other)
        return tagged if self._tags.whole_section else JsonOrTags(self, tagged, tools, calls)

    def found(self, text: str, tools: Sequence[dict[str, Any]], calls: Calls) -> list[SectionItem]:
        """Return the calls of a section as mlx-lm's parser reads them, followed by text that is not a call."""
        found: list[SectionItem] = []
        lost: list[SectionItem] = []
        for piece in self._pieces(text.strip()):
            try:
                parsed, rest = self.parse(piece, tools)
            except Exception:  # parsers raise whatever their slip is: AttributeError, SyntaxError, RecursionError
                lost.append(piece)
                continue
            lost += [rest] if rest else []
            for name, arguments, call_id in parsed:
                found += [calls.start(name, call_id), calls.grow(arguments)]
                calls.complete += 1
        return found + lost if found else []

    def parse(self, text: str, tools: Sequence[dict[str, Any]]) -> tuple[list[tuple[str, str, object]], str]:
        """Return name, arguments and the model's id of each call, and the text after them that is not a call.

        Raises any exception if the text is not calls of the tools.
        """
        if self.family in STRING_MARKS:
            read, rest = gemma_calls.read(text, STRING_MARKS[self.family], tools)
            return [(name, arguments, None) for name, arguments in read], rest
        if self.family == "pythonic" and not (_is_python(text) or _PYTHONIC.fullmatch(text)):
            raise ValueError("it is unclear where values end")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know, as in "\\d"
            parsed = self._parser(text, list(tools))
        calls = parsed if isinstance(parsed, list) else [parsed]
        if not calls:
            raise ValueError("no call")
        found: list[tuple[str, str, object]] = []
        for call in calls:
            name, arguments, call_id = _checked(call)
            if name not in names_of(tools):
                raise ValueError("no such tool")
            if self.family == "glm47" and arguments.keys() == {"raw"}:
                raise ValueError("not the syntax of a call")
            found.append((name, json_text(arguments), call_id))
        return found, ""

    def _pieces(self, text: str) -> list[str]:
        """Return the section's calls one by one if the parser needs that; otherwise the whole section."""
        border = _NEXT_CALL.get(self.family)
        return border.split(text) if border else [text]


class JsonOrTags:
    """Read a section whose first character shows how its calls are written: these families write JSON, too."""

    def __init__(self, form: ToolFormat, tagged: Section, tools: Sequence[dict[str, Any]], calls: Calls) -> None:
        self._format = form
        self._tagged = tagged
        self._tools = tools
        self._calls = calls
        self._section: Section | None = None
        self._space = ""
        self.rest: str | None = None

    def push(self, text: str) -> list[SectionItem]:
        """Return the items that became certain with this text."""
        if self._section is None:
            text, self._space = self._space + text, ""
            if not text.strip():
                self._space = text
                return []
            is_json = text.lstrip().startswith(("{", "["))
            json_section = JsonSection(self._format.start, self._format.end, self._calls, names_of(self._tools))
            self._section = json_section if is_json else self._tagged
        found = self._section.push(text)
        self.rest = self._section.rest
        return found

    def finish(self, *, cut: bool) -> list[SectionItem]:
        """Return the remaining items of a section that the answer ended in."""
        section = self._section or self._tagged
        found = section.push(self._space) + section.finish(cut=cut)
        self.rest = section.rest
        return found


class ParsedSection:
    """Have mlx-lm parse a section once it is complete."""

    def __init__(
        self,
        form: ToolFormat,
        tools: Sequence[dict[str, Any]],
        calls: Calls,
        *,
        start: str,
        end: str,
        abandon: str | None = None,
    ) -> None:
        """`abandon`: a string that shows that this was not a section."""
        self._format = form
        self._start = start
        self._end = end
        self._tools = tools
        self._calls = calls
        self._abandon = abandon
        self._ends = Markers([end, abandon or ""])
        self._text: list[str] = []
        self._held = ""
        self.rest: str | None = None

    def push(self, text: str) -> list[SectionItem]:
        """Return the section's items if this text ends it."""
        before, marker, behind = self._ends.split(self._held + text)
        self._text.append(before)
        if marker is None:
            self._held = behind
            return []
        if marker == self._abandon:
            self.rest = marker + behind
            return [self._start + "".join(self._text)]
        self.rest = behind
        return self._found(marker)

    def finish(self, *, cut: bool) -> list[SectionItem]:
        """Return the items of a section that the answer ended in."""
        self.rest = ""
        if cut and self._end:  # lenient parsers would read calls with half of their arguments
            return [self._start + "".join(self._text) + self._held]
        return self._found(self._held)

    def _found(self, marker: str) -> list[SectionItem]:
        text = "".join(self._text)
        return self._format.found(text, self._tools, self._calls) or [self._start + text + marker]


def described(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the functions among OpenAI's tools, with everything that parsers expect in their schemas."""
    found = []
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, dict):
            continue
        parameters = _dict(function.get("parameters"))
        properties = _dict(parameters.get("properties"))
        properties = {name: _dict(schema) for name, schema in properties.items()}
        found.append({**tool, "function": {**function, "parameters": {**parameters, "properties": properties}}})
    return found


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_python(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know, as in "\\d"
            ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def names_of(tools: Sequence[dict[str, Any]]) -> set[str]:
    """Return the names of the tools."""
    return {str(tool["function"].get("name")) for tool in tools}


def _checked(call: Any) -> tuple[str, dict[str, Any], object]:
    """Return name, arguments and id of a call that a parser found. Raises ValueError, or what json raises."""
    name, arguments = call["name"], call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):
        arguments = json.loads(arguments, strict=False)
    if arguments is None:
        arguments = {}
    if not (isinstance(name, str) and name and encodable(name) and isinstance(arguments, dict)):
        raise ValueError("not a call")
    return name, arguments, call.get("id")
