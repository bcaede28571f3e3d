"""Tool calls in an answer's text: a section of it to calls with a name and JSON arguments.

A section is the text behind the mark that starts calls, up to the mark that ends them; `Section` is the seam. Calls
written as JSON are read as they grow (`JsonSection`). Values that are text between tags wait for the section's end and
are converted by the tool's schema (`TaggedSection`). Every other syntax waits for it, too (`ParsedSection`): Gemma's is
read here, and the others belong to mlx-lm's parser of their family. What is no call comes back as text. Knows no MLX
and no thinking.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from localapi.worker.llm.output import gemma_calls
from localapi.worker.llm.output.gemma_calls import STRING_MARKS
from localapi.worker.llm.output.json_calls import JsonSection
from localapi.worker.llm.output.sections import Calls, Markers, Section, SectionItem, encodable
from localapi.worker.llm.output.tagged_calls import TAGS
from localapi.worker.llm.output.tagged_section import TaggedSection

Parser = Callable[[str, Any], Any]
"""mlx-lm's `tool_parsers.<family>.parse_tool_call`: a section and OpenAI's tools to one call or several."""

_NEXT_CALL = {
    "kimi_k2": re.compile(r"(?<=<\|tool_call_end\|>)\s*(?=<\|tool_call_begin\|>)"),
    "kimi_k3": re.compile(r"(?<=<\|close\|>call<\|sep\|>)\s*(?=<\|open\|>call)"),
}
"""Borders of calls, if the family's parser mixes up or drops calls when one section holds several."""
_PYTHONIC = re.compile(
    r"""\s*\[\s*[\w.]+\((?:\s*\w+\s*=(?:\s*"[^"]*"\s*|\s*'[^']*'\s*|[^,"'()\[\]]+)(?:,|(?=\))))*\s*\)\s*\]\s*"""
)
"""A call that is no Python, as with a newline in a string, and whose arguments can still be told apart."""
_BARE_CALL = {"kimi_k2": ("<|tool_call_begin|>", "<|tool_call_end|>")}
"""What stands around one call, if it cannot be mistaken for text: models forget the marks around the section."""
INNER_MARKS = {
    **{family: (mark,) for family, mark in STRING_MARKS.items()},
    "glm47": ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    "kimi_k2": ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
    "kimi_k3": ("<|open|>", "<|close|>", "<|sep|>"),
    "longcat": ("<longcat_arg_key>", "</longcat_arg_key>", "<longcat_arg_value>", "</longcat_arg_value>"),
    "mistral": ("[ARGS]",),
}
"""What a family's parser reads inside a section, where it may be a special token."""


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
        """How a call begins without a section around it; empty if it cannot be told from text."""
        self.end_is_no_text = self._bare_call is not None
        """Whether the mark that ends a section is dropped where there is none, as behind a call without its start."""

    @property
    def marks(self) -> set[str]:
        """Strings that must reach the sections, even where the tokenizer calls them special."""
        return {self.start, self.end, *INNER_MARKS.get(self.family, ())} - {""}

    def section(
        self, mark: str, tools: Sequence[dict[str, Any]], calls: Calls, *, abandon: str | None = None
    ) -> Section:
        """Return a section that begins now with this mark. `abandon`: a string which says that the section was none."""
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
        """Return the calls of a section as mlx-lm's parser reads them, and what is none behind them."""
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
        """Return name, arguments and the model's id of each call, and text behind them that is none.

        Raises anything where the text is not calls of the tools.
        """
        if self.family in STRING_MARKS:
            read, rest = gemma_calls.read(text, STRING_MARKS[self.family], tools)
            return [(name, arguments, None) for name, arguments in read], rest
        if self.family == "pythonic" and not (_is_python(text) or _PYTHONIC.fullmatch(text)):
            raise ValueError("values that end nobody knows where")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know, as in "\\d"
            parsed = self._parser(text, list(tools))
        found = [_checked(call) for call in (parsed if isinstance(parsed, list) else [parsed])]
        if not found:
            raise ValueError("no call")
        for name, arguments, _ in found:
            if name not in names_of(tools):
                raise ValueError("no such tool")
            if self.family == "glm47" and arguments.keys() == {"raw"}:
                raise ValueError("not the syntax of a call")
        return [(name, _dumped(arguments), call_id) for name, arguments, call_id in found], ""

    def _pieces(self, text: str) -> list[str]:
        """The section's calls, each alone, where the parser needs that."""
        border = _NEXT_CALL.get(self.family)
        return border.split(text) if border else [text]


class JsonOrTags:
    """A section whose first character says how its calls are written: models of these families write JSON, too."""

    def __init__(self, form: ToolFormat, tagged: Section, tools: Sequence[dict[str, Any]], calls: Calls) -> None:
        self._format = form
        self._tagged = tagged
        self._tools = tools
        self._calls = calls
        self._section: Section | None = None
        self._space = ""
        self.rest: str | None = None

    def push(self, text: str) -> list[SectionItem]:
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
        section = self._section or self._tagged
        found = section.push(self._space) + section.finish(cut=cut)
        self.rest = section.rest
        return found


class ParsedSection:
    """A section that mlx-lm parses once it is complete."""

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
        """`abandon`: a string which says that the section was none."""
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
        self.rest = ""
        if cut and self._end:  # lenient parsers make calls with half of their arguments of it
            return [self._start + "".join(self._text) + self._held]
        return self._found(self._held)

    def _found(self, marker: str) -> list[SectionItem]:
        text = "".join(self._text)
        return self._format.found(text, self._tools, self._calls) or [self._start + text + marker]


def described(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The functions among OpenAI's tools, with all that parsers expect in their schemas."""
    return [
        {**tool, "function": _function(tool["function"])} for tool in tools if isinstance(tool.get("function"), dict)
    ]


def _function(function: dict[str, Any]) -> dict[str, Any]:
    parameters = function.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    properties = parameters.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    properties = {name: schema if isinstance(schema, dict) else {} for name, schema in properties.items()}
    return {**function, "parameters": {**parameters, "properties": properties}}


def _is_python(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know, as in "\\d"
            ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def names_of(tools: Sequence[dict[str, Any]]) -> set[str]:
    return {str(tool["function"].get("name")) for tool in tools}


def _checked(call: Any) -> tuple[str, dict[str, Any], object]:
    """Name, arguments and id of what a parser says is a call. Raises ValueError, or what json raises."""
    name, arguments = call["name"], call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):
        arguments = json.loads(arguments, strict=False)
    if arguments is None:
        arguments = {}
    if not (isinstance(name, str) and name and encodable(name) and isinstance(arguments, dict)):
        raise ValueError("not a call")
    return name, arguments, call.get("id")


def _dumped(arguments: dict[str, Any]) -> str:
    """As JSON; raises ValueError or TypeError where Python's values are not JSON's."""
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    return text if encodable(text) else json.dumps(arguments, allow_nan=False)
