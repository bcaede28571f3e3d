"""The marks that models write around thinking and tool calls, as parts of a grammar.

A grammar is a list of llguidance's parts, of which the first is the whole and refers to others by name. Knows the
formats of mlx-lm's tool parsers; knows no tokens but those that are marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from llguidance import LLMatcher

WHITESPACE = r"( |\r?\n[ \t]{0,40})"
"""What JSON may have between its parts: enough to be indented, too little to be endless, which small models like."""
_TEXT_AND_SPACE = "TEXT: /(?s:.*)/\nSPACE: /[ \\t\\r\\n]{0,8}/\n"
_MORE_PROPERTIES = {"additionalProperties", "patternProperties", "$ref", "allOf", "anyOf", "oneOf"}
"""Where properties may be that `properties` does not name."""

BEHIND_THINKING = "\n\n"
"""What most templates write between thinking and answer."""

Part = dict[str, Any]


class GrammarRefused(Exception):
    """The form cannot be had from this model; the message is for people and says why."""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    parameters: str = "{}"
    """The JSON schema of its arguments, as JSON; "{}": it takes none."""
    strict: bool = False
    """Whether a schema that cannot be kept to the letter is refused; otherwise what cannot be kept is left out."""


class ToolCalls(msgspec.Struct, frozen=True, tag=True):
    """One call or more, and no other text."""

    tools: tuple[Tool, ...]
    choice: str | None = None
    """The only function to call; None: any."""
    parallel: bool = True
    """Whether there may be several calls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkBlock:
    """Free text before the part that has a form."""

    start: str
    end: str
    opened: bool = False
    """Whether the prompt ends inside the block: then there is one. Otherwise the model may open one."""


def think_block(tokenizer: Any, prompt: Sequence[int]) -> ThinkBlock | None:
    """How the model may think after this prompt; None where it cannot, or where the prompt ends with a closed block."""
    if not tokenizer.has_thinking:
        return None
    start, end = tokenizer.rfind_think_start(prompt), tokenizer.rfind_think_end(prompt)
    if end > start and not tokenizer.decode(prompt[end + len(tokenizer.think_end_tokens) :]).strip():
        return None
    return ThinkBlock(start=tokenizer.think_start, end=tokenizer.think_end, opened=start > end)


class Marks:
    """Writes marks as Lark: by its number where a mark is a special token, which text in a grammar never matches."""

    def __init__(self, tokenizer: Any) -> None:
        """All added tokens are special to llguidance, whatever the tokenizer says."""
        self._numbers = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
        longest_first = sorted(self._numbers, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "($.)")

    def lark(self, text: str) -> str:
        return " ".join(map(self._piece, self._pieces(text)))

    def until(self, mark: str) -> str:
        """A rule `free`: any text up to this mark, and the mark."""
        first, *rest = self._pieces(mark)
        tail = " ".join(map(self._piece, rest))
        if first in self._numbers:
            return f"free: TEXT {self._piece(first)} {tail}\n"
        return f"free: ended {tail}\nended[suffix={self._piece(first)}]: TEXT\n"

    def _pieces(self, text: str) -> list[str]:
        return [piece for piece in self._split.split(text) if piece]

    def _piece(self, text: str) -> str:
        number = self._numbers.get(text)
        return json.dumps(text, ensure_ascii=False) if number is None else f"<[{number}]>"


def after_thinking(think: ThinkBlock, parts: Sequence[Part], marks: Marks, *, verbatim: bool = False) -> list[Part]:
    """The grammar, for a model that thinks before it follows it.

    `verbatim`: whitespace at the answer's start is its own, so that behind the thinking must be of a known length.
    """
    space = json.dumps(BEHIND_THINKING) if verbatim else "SPACE"
    if think.opened:
        start = f"start: free {space} @answer\n"
    else:
        start = f"start: thought? @answer\nthought: {marks.lark(think.start)} free {space}\n"
    whole = start + marks.until(think.end) + _TEXT_AND_SPACE
    return [{"lark_grammar": whole}, {**parts[0], "name": "answer"}, *parts[1:]]


def json_part(schema: str, *, lenient: bool = False) -> Part:
    """JSON of this schema. Raises GrammarRefused where it is no schema at all."""
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            schema, defaults={"whitespace_pattern": WHITESPACE, "lenient": lenient}
        )
    except ValueError as error:
        raise GrammarRefused(f"The JSON schema is not a JSON object: {error}") from error
    part: Part = json.loads(grammar)["grammars"][0]
    return part


def call_parts(tokenizer: Any, calls: ToolCalls, marks: Marks) -> list[Part]:
    """Calls in the format of the model's template. Raises GrammarRefused."""
    tools = [tool for tool in calls.tools if calls.choice in (None, tool.name)]
    if not tools:
        raise GrammarRefused(f"There is no tool {calls.choice!r}." if calls.choice else "There is no tool to call.")
    parser = tokenizer.tool_parser
    if parser is None:
        raise GrammarRefused("Forced tool calls need a chat template with tools, which this model does not have.")
    format_ = parser.__module__.rpartition(".")[2]
    if format_ != "json_tools":
        raise GrammarRefused(f"Forced tool calls are not supported for this model's format of tool calls, {format_}.")
    return _json_tools(tokenizer, tools, marks, parallel=calls.parallel)


def _json_tools(tokenizer: Any, tools: Sequence[Tool], marks: Marks, *, parallel: bool) -> list[Part]:
    """Hermes' and Qwen's: `<tool_call>\\n{"name": "f", "arguments": {...}}\\n</tool_call>`."""
    start, end = marks.lark(tokenizer.tool_call_start + "\n"), marks.lark("}\n" + tokenizer.tool_call_end)
    heads = [json.dumps(f'{{"name": {json.dumps(tool.name)}, "arguments": ') for tool in tools]
    functions = " | ".join(f"{head} @arguments{i}" for i, head in enumerate(heads))
    more = '("\\n" call)*' if parallel else ""
    whole = f"start: call {more}\ncall: {start} function {end}\nfunction: {functions}\n"
    schemas = [{**arguments_part(tool), "name": f"arguments{i}"} for i, tool in enumerate(tools)]
    return [{"lark_grammar": whole}, *schemas]


def arguments_part(tool: Tool) -> Part:
    """A tool's arguments: an object, without properties that its schema does not name unless that asks for them."""
    try:
        schema = json.loads(tool.parameters or "{}")
    except ValueError as error:
        raise GrammarRefused(f"The parameters of {tool.name} are not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise GrammarRefused(f"The parameters of {tool.name} are not a JSON schema but {type(schema).__name__}.")
    if (type_ := schema.get("type", "object")) != "object":
        raise GrammarRefused(f"The parameters of {tool.name} must be an object; the schema's type is {type_!r}.")
    schema["type"] = "object"
    if not _MORE_PROPERTIES.intersection(schema) and ("properties" in schema or len(schema) == 1):
        schema["additionalProperties"] = False
    return json_part(json.dumps(schema, ensure_ascii=False), lenient=not tool.strict)
