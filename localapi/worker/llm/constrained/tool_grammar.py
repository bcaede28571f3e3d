"""Grammars for the marks that models write around thinking and tool calls.

An answer's grammar is a list of llguidance's grammars; the first is the start and refers to the others by name. This
module knows the formats of mlx-lm's tool parsers, and no tokens but the marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from localapi.worker.llm.constrained.compiling import Grammar
from localapi.worker.llm.constrained.schema_grammar import (
    AS_WRITTEN,
    GrammarRefused,
    SchemaGrammar,
    any_object,
    below,
    grammar_of_schema,
)
from localapi.worker.llm.constrained.tagged_grammar import any_arguments, tagged_arguments

_TEXT_AND_SPACE = "TEXT: /(?s:.*)/\nSPACE: /[ \\t\\r\\n]{0,8}/\n"
_MORE_PROPERTIES = {
    "additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties", "dependentSchemas",
    "dependencies", "$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "if",
}  # fmt: skip
"""Keywords that may allow properties that `properties` does not name."""

BEHIND_THINKING = "\n\n"
"""The whitespace that most templates write between thinking and answer."""


class FormatUnknown(GrammarRefused):
    """The grammar of this model's tool calls is not known."""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    parameters: str = "{}"
    """The JSON schema of its arguments, as JSON. "{}": no arguments."""
    strict: bool = False
    """True if a schema that cannot be enforced exactly is refused. Otherwise it is relaxed."""


class ToolCalls(msgspec.Struct, frozen=True, tag=True):
    """One or more calls and no other text; or, if calls are `optional`, any text with calls in it."""

    tools: tuple[Tool, ...]
    choice: str | None = None
    """The function to call; None: any."""
    parallel: bool = True
    """True if there may be several calls."""
    optional: bool = False
    """True if only the text of calls has a form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkBlock:
    """Free text before the text that has a form."""

    start: str
    end: str
    opened: bool = False
    """True if the prompt ends inside the block. Otherwise the model may open one."""


def think_block(tokenizer: Any, prompt: Sequence[int]) -> ThinkBlock | None:
    """Return how the model may think after this prompt; None if it cannot, or the prompt ends with a closed block."""
    if not tokenizer.has_thinking:
        return None
    start, end = tokenizer.rfind_think_start(prompt), tokenizer.rfind_think_end(prompt)
    if end > start and not tokenizer.decode(prompt[end + len(tokenizer.think_end_tokens) :]).strip():
        return None
    return ThinkBlock(start=tokenizer.think_start, end=tokenizer.think_end, opened=start > end)


class Marks:
    """Write marks in Lark's syntax. A special token is written by its number, because text never matches it."""

    def __init__(self, tokenizer: Any) -> None:
        """To llguidance all added tokens are special, whatever the tokenizer says."""
        self._numbers = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
        longest_first = sorted(self._numbers, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "($.)")

    def lark(self, text: str) -> str:
        """Return the text in Lark's syntax."""
        return " ".join(map(self._piece, self._pieces(text)))

    def until(self, mark: str) -> str:
        """Return a rule `free`: any text up to this mark, and the mark."""
        first, *rest = self._pieces(mark)
        tail = " ".join(map(self._piece, rest))
        if first in self._numbers:
            return f"free: TEXT {self._piece(first)} {tail}\n"
        return f"free: ended {tail}\nended[suffix={self._piece(first)}]: TEXT\n"

    def text_up_to(self, mark: str, ends: Collection[int], *, bare: str = "") -> str:
        """Return the rules `text` and `begun`: text without the mark and the `ends`, and text up to the mark.

        `bare`: a mark without a token of its own, for which there is the rule `begun_bare`.

        A mark that is a token also counts if it is spelled with other tokens: the parser of calls sees no difference.
        """
        first, *rest = self._pieces(mark)
        tail = " ".join(map(self._piece, rest))
        others = sorted(number for text, number in self._numbers.items() if text != first and number not in ends)
        special = f"(<[{','.join(map(str, others))}]> TEXT)*" if others else ""
        token = f" | text {self._piece(first)} {tail}" if first in self._numbers else ""
        spelled = f"spelled[lazy]: TEXT {json.dumps(mark, ensure_ascii=False)}\n"
        before = f"(TEXT <[{','.join(map(str, others))}]>)*" if others else ""
        rules = f"text: TEXT {special}\nbegun: {before} spelled{token}\n{spelled}"
        if bare:
            rules += f"begun_bare: {before} bare\nbare[lazy]: TEXT {json.dumps(bare)}\n"
        return rules

    def _pieces(self, text: str) -> list[str]:
        return [piece for piece in self._split.split(text) if piece]

    def _piece(self, text: str) -> str:
        number = self._numbers.get(text)
        return json.dumps(text, ensure_ascii=False) if number is None else f"<[{number}]>"


def after_thinking(
    think: ThinkBlock, grammars: Sequence[Grammar], marks: Marks, *, verbatim: bool = False
) -> list[Grammar]:
    """Return the grammar for a model that thinks before it follows the given one.

    `verbatim`: whitespace at the answer's start belongs to it, so the whitespace after the thinking must be fixed.
    """
    space = json.dumps(BEHIND_THINKING) if verbatim else "SPACE"
    if think.opened:
        start = f"start: free {space} @answer\n"
    else:
        start = f"start: thought? @answer\nthought: {marks.lark(think.start)} free {space}\n"
    whole = start + marks.until(think.end) + _TEXT_AND_SPACE
    return [{"lark_grammar": whole}, {**grammars[0], "name": "answer"}, *grammars[1:]]


@dataclass(frozen=True, slots=True)
class AnswerGrammar:
    """The grammars of one answer."""

    grammars: list[Grammar]
    relaxed: tuple[str, ...]
    """The places where the request asks for more than is enforced."""


def grammar_of_calls(tokenizer: Any, calls: ToolCalls, marks: Marks, *, kept: int = AS_WRITTEN) -> AnswerGrammar:
    """Return the grammar of calls in the format of the model's template. `kept` as in `grammar_of_schema`.

    Raises GrammarRefused.
    """
    tools = [tool for tool in calls.tools if calls.choice in (None, tool.name)]
    if not tools:
        raise GrammarRefused(f"There is no tool {calls.choice!r}." if calls.choice else "There is no tool to call.")
    parser = tokenizer.tool_parser
    if parser is None:
        raise FormatUnknown("Forced tool calls need a chat template with tools, which this model does not have.")
    format_ = parser.__module__.rpartition(".")[2]
    if format_ == "qwen3_coder":
        return _tagged_calls(tokenizer, calls, tools, marks, kept=kept)
    if format_ != "json_tools":
        raise FormatUnknown(f"Forced tool calls are not supported for this model's format of tool calls, {format_}.")
    whole = _json_tools(tokenizer, tools, marks, parallel=calls.parallel, optional=calls.optional)
    grammars: list[Grammar] = [{"lark_grammar": whole}]
    relaxed: list[str] = []
    for i, tool in enumerate(tools):
        found = grammar_of_arguments(tool, kept=kept, called=not calls.optional)
        grammars.append({**found.grammar, "name": f"arguments{i}"})
        relaxed += below(f"tools[{tool.name}].parameters", found.relaxed)
    return AnswerGrammar(grammars, tuple(relaxed))


def _json_tools(tokenizer: Any, tools: Sequence[Tool], marks: Marks, *, parallel: bool, optional: bool) -> str:
    """Return the grammar of Hermes and Qwen: `<tool_call>`, `{"name": "f", "arguments": {...}}`, `</tool_call>`."""
    heads = [json.dumps(f'{{"name": {json.dumps(tool.name)}, "arguments": ') for tool in tools]
    functions = " | ".join(f"{head} @arguments{i}" for i, head in enumerate(heads))
    function = f"function: {functions}\n"
    if optional:
        text = marks.text_up_to(tokenizer.tool_call_start, tokenizer.eos_token_ids)
        end = f'"}}" SPACE {marks.lark(tokenizer.tool_call_end)}'
        return f"start: (begun SPACE function {end})* text\n{function}{text}{_TEXT_AND_SPACE}"
    start, end = marks.lark(tokenizer.tool_call_start + "\n"), marks.lark("}\n" + tokenizer.tool_call_end)
    more = '("\\n" call)*' if parallel else ""
    return f"start: call {more}\ncall: {start} function {end}\n{function}"


def _tagged_calls(tokenizer: Any, calls: ToolCalls, tools: Sequence[Tool], marks: Marks, *, kept: int) -> AnswerGrammar:
    """Return the grammar of Qwen3-Coder: `<tool_call>`, `<function=f>`, arguments, `</function>`, `</tool_call>`."""
    rules: list[str] = []
    grammars: list[Grammar] = []
    relaxed: list[str] = []
    for i, tool in enumerate(tools):
        subject = f"The parameters of {tool.name}"
        if not tool.strict and (calls.optional or kept != AS_WRITTEN):
            found = any_arguments(i)
        else:
            try:
                found = tagged_arguments(subject, _arguments_schema(subject, tool), i, strict=tool.strict)
            except GrammarRefused:
                if tool.strict:
                    raise
                found = any_arguments(i)
        rules += [f'function{i}: {json.dumps(f"{tool.name}>" + chr(10))} arguments{i} "</function>"\n', found.rules]
        grammars += found.grammars
        if tool.strict or not calls.optional:
            relaxed += below(f"tools[{tool.name}].parameters", found.relaxed)
    rules.append(f"function: {' | '.join(f'function{i}' for i in range(len(tools)))}\n")
    start, end = marks.lark(tokenizer.tool_call_start), marks.lark(tokenizer.tool_call_end)
    if calls.optional:
        call = f'begun SPACE "<function=" function SPACE {end} | begun_bare function'
        rules.append(marks.text_up_to(tokenizer.tool_call_start, tokenizer.eos_token_ids, bare="<function="))
        whole = f"start: ({call})* text\n"
    else:
        more = '("\\n" call)*' if calls.parallel else ""
        whole = f'start: call {more}\ncall: {start} "\\n<function=" function "\\n" {end}\n'
    return AnswerGrammar([{"lark_grammar": whole + "".join(rules) + _TEXT_AND_SPACE}, *grammars], tuple(relaxed))


def grammar_of_arguments(tool: Tool, *, kept: int = AS_WRITTEN, called: bool = True) -> SchemaGrammar:
    """Return the grammar of a tool's arguments: an object, which has only named properties unless its schema says more.

    `called`: the tool must be called. If calls are optional, a tool that is not strict takes any object. Raises
    GrammarRefused for a strict tool whose schema is invalid or cannot be enforced.
    """
    subject = f"The parameters of {tool.name}"
    if not tool.strict and not called:
        return SchemaGrammar(any_object(), ())
    try:
        schema = _arguments_schema(subject, tool)
        return grammar_of_schema(subject, schema, strict=tool.strict, kept=kept)
    except GrammarRefused:
        if tool.strict:
            raise
        return SchemaGrammar(any_object(), (".",))


def _arguments_schema(subject: str, tool: Tool) -> dict[str, Any]:
    try:
        schema = json.loads(tool.parameters or "{}")
    except (ValueError, RecursionError) as error:
        raise GrammarRefused(f"{subject} are not JSON: {error}.") from error
    if not isinstance(schema, dict):
        raise GrammarRefused(f"{subject} are not a JSON schema but {type(schema).__name__}.")
    type_ = schema.get("type")
    if type_ is not None and type_ != "object" and not (isinstance(type_, list) and "object" in type_):
        raise GrammarRefused(f"{subject} must be an object; the schema's type is {type_!r}.")
    schema["type"] = "object"
    if not _MORE_PROPERTIES.intersection(schema) and ("properties" in schema or len(schema) == 1):
        schema["additionalProperties"] = False
    return schema
