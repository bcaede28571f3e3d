"""Grammars for the marks that models write around reasoning and tool calls.

A response's grammar is a list of llguidance's grammars; the first is the start and refers to the others by name. This
module knows the formats of mlx-lm's tool parsers, and no tokens except the marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from localapi.worker.llm.constrained.compiling import Grammar
from localapi.worker.llm.constrained.marks import Marks
from localapi.worker.llm.constrained.schema_grammar import (
    AS_WRITTEN,
    GrammarRefused,
    SchemaGrammar,
    any_object,
    below,
    grammar_of_schema,
)
from localapi.worker.llm.constrained.written_arguments import Writer, WrittenArguments
from localapi.worker.llm.output.formats import FORMATS, CallFormat, Spelling
from localapi.worker.llm.output.recognition import format_name
from localapi.worker.llm.output.thinking import BEHIND_THINKING, ThinkBlock

_TEXT_AND_SPACE = "TEXT: /(?s:.*)/\nSPACE: /[ \\t\\r\\n]{0,8}/\n"
_MORE_PROPERTIES = {
    "additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties", "dependentSchemas",
    "dependencies", "$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "if",
}  # fmt: skip
"""Keywords that may allow properties that `properties` does not name."""


class FormatUnknown(GrammarRefused):
    """The grammar of this model's tool calls is not known."""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    parameters: str = "{}"
    """JSON schema of its arguments, as JSON. "{}": no arguments."""
    strict: bool = False
    """True if a schema that cannot be enforced exactly is refused. Otherwise it is relaxed."""


class ToolCalls(msgspec.Struct, frozen=True, tag=True):
    """One or more calls and no other text; or, if calls are `optional`, any text with calls in it."""

    tools: tuple[Tool, ...]
    choice: str | None = None
    """Function to call; None for any."""
    parallel: bool = True
    """True if several calls are allowed."""
    optional: bool = False
    """True if only the text of calls has a form."""


def after_thinking(
    think: ThinkBlock, grammars: Sequence[Grammar], marks: Marks, *, verbatim: bool = False, calls: bool = False
) -> list[Grammar]:
    """Return the grammar for a model that thinks before it follows the given one.

    If `verbatim`, whitespace at the start belongs to the response, so the whitespace after the reasoning must be fixed.
    `calls`: the grammar is that of calls, which have headers of their own.
    """
    space = json.dumps(BEHIND_THINKING) if verbatim else "SPACE"
    answer = f"{marks.lark(think.header)} @answer" if think.header and not calls else "@answer"
    if think.opened:
        start = f"start: free {space} {answer}\n"
    elif think.closed:
        return list(grammars)
    elif think.header and not think.start:
        return [{"lark_grammar": f"start: {answer}\n"}, {**grammars[0], "name": "answer"}, *grammars[1:]]
    elif think.header:
        start = f"start: thought? {answer}\nthought: {marks.lark(think.start)} free\n"
    else:
        start = f"start: thought? {answer}\nthought: {marks.lark(think.start)} free {space}\n"
    whole = start + marks.until(think.end) + _TEXT_AND_SPACE
    return [{"lark_grammar": whole}, {**grammars[0], "name": "answer"}, *grammars[1:]]


@dataclass(frozen=True, slots=True)
class AnswerGrammar:
    """Grammars of one response."""

    grammars: list[Grammar]
    relaxed: tuple[str, ...]
    """Places where the request requires more than is enforced."""


def grammar_of_calls(tokenizer: Any, calls: ToolCalls, marks: Marks, *, kept: int = AS_WRITTEN) -> AnswerGrammar:
    """Return the grammar of calls in the model's format. `kept` is as in `grammar_of_schema`.

    Raise GrammarRefused.
    """
    tools = [tool for tool in calls.tools if calls.choice in (None, tool.name)]
    if not tools:
        raise GrammarRefused(f"There is no tool {calls.choice!r}." if calls.choice else "There is no tool to call.")
    if tokenizer.tool_parser is None:
        raise FormatUnknown(
            "A call cannot be forced, because the format in which this model calls tools is unknown. Set tool_format "
            "in its entry, or tool_format: generic."
        )
    name = format_name(tokenizer.tool_parser)
    format_ = FORMATS.get(name)
    if format_ is None or format_.spelling is None:
        raise FormatUnknown(f"A call cannot be forced in this model's format of tool calls, {name}.")
    spelling = format_.spelling
    heads: list[str] = []
    rules: list[str] = []
    grammars: list[Grammar] = []
    relaxed: list[str] = []
    for i, tool in enumerate(tools):
        found = _arguments_of(tool, i, spelling, format_.string_mark, marks, optional=calls.optional, kept=kept)
        # The name is in JSON if the head is.
        written = json.dumps(tool.name, ensure_ascii=False)[1:-1] if '"{name}"' in spelling.head else tool.name
        heads.append(spelling.head.replace("{name}", written))
        rules.append(found.rules)
        grammars += found.grammars
        relaxed += below(f"tools[{tool.name}].parameters", found.relaxed)
    if calls.optional:
        whole = _optional(format_, spelling, heads, marks, tokenizer=tokenizer, parallel=calls.parallel)
    else:
        whole = _required(spelling, heads, calls, marks)
    if spelling.call_id:
        rules.append(f"id: /{spelling.call_id}/\n")
    return AnswerGrammar([{"lark_grammar": whole + "".join(rules) + _TEXT_AND_SPACE}, *grammars], tuple(relaxed))


def _required(spelling: Spelling, heads: Sequence[str], calls: ToolCalls, marks: Marks) -> str:
    """Return the rules of a response that consists only of calls."""
    functions = " | ".join(f"{_spelled(head, marks)} arguments{i}" for i, head in enumerate(heads))
    between = spelling.between
    more = f"({_spelled(between, marks)} call)*" if calls.parallel and between is not None else ""
    return (
        f"start: {_spelled(spelling.start, marks)} call {more} {_spelled(spelling.end, marks)}\n"
        f"call: function {_spelled(spelling.tail, marks)}\nfunction: {functions}\n"
    )


def _optional(
    format_: CallFormat, spelling: Spelling, heads: Sequence[str], marks: Marks, *, tokenizer: Any, parallel: bool
) -> str:
    """Return the rules of a response that may contain calls."""
    start = tokenizer.tool_call_start
    tail, end = _loose(spelling.tail, marks), _loose(spelling.end, marks)
    functions = " | ".join(f"{_spelled(head, marks)} arguments{i}" for i, head in enumerate(heads))
    rules = f"call: function {tail}\nfunction: {functions}\n"
    between = spelling.between
    more = f"(SPACE {_loose(between, marks)} SPACE call)*" if parallel and between is not None else ""
    if format_.opens:
        opening = "".join(format_.opens)
        no_call = f"plain: /[^ \\t\\r\\n{re.escape(opening)}](?s:.*)/\n"
        return f"start: {_spelled(spelling.start, marks)} call {more} {end} | plain\n{no_call}{rules}"
    # The mark ends free text; what follows it in the first call is written as always.
    whole_heads = [spelling.start + head for head in heads]
    first = []
    for i, head in enumerate(whole_heads):
        # Free text may be what comes before the mark.
        _, mark, behind = head.partition(start)
        if not mark:
            raise FormatUnknown("Strict tools are not supported for this model's format of tool calls.")
        first.append(f"{_loose(behind, marks)} arguments{i}")
    rules += f"first: ({' | '.join(first)}) {tail}\n"
    bare = format_.bare[0] if format_.tags else ""
    text = marks.text_up_to(start, tokenizer.eos_token_ids, bare=bare)
    calls_ = f"begun first {more} {end}"
    if bare:
        heads_ = " | ".join(f"{_loose(head.partition(bare)[2], marks)} arguments{i}" for i, head in enumerate(heads))
        rules += f"bare_function: {heads_}\n"
        calls_ += f" | begun_bare bare_function {_loose(format_.bare[1], marks)}"
    return f"start: ({calls_})* text\n{rules}{text}"


def _spelled(text: str, marks: Marks) -> str:
    """Return a part of a spelling in Lark's syntax."""
    before, hole, behind = text.partition("{id}")
    return " ".join(part for part in (marks.lark(before), "id" if hole else "", marks.lark(behind)) if part)


def _loose(text: str, marks: Marks) -> str:
    """Return a part of a spelling in Lark's syntax, with any whitespace at its ends, because models vary it."""
    if not text.strip():
        return "SPACE" if text else ""
    parts = ["SPACE" if text[0].isspace() else "", _spelled(text.strip(), marks), "SPACE" if text[-1].isspace() else ""]
    return " ".join(part for part in parts if part)


def _arguments_of(
    tool: Tool, number: int, spelling: Spelling, string_mark: str, marks: Marks, *, optional: bool, kept: int
) -> WrittenArguments:
    """Return the grammar of one tool's arguments in the format's syntax. Raise GrammarRefused for a strict tool."""
    subject = f"The parameters of {tool.name}"
    if spelling.argument is None and spelling.arguments == "json":
        found = grammar_of_arguments(tool, kept=kept, called=not optional)
        name = f"json{number}"
        return WrittenArguments(f"arguments{number}: @{name}\n", [{**found.grammar, "name": name}], found.relaxed)
    writer = Writer(spelling, string_mark, marks, number)
    if not tool.strict and (optional or kept != AS_WRITTEN):
        found_any = writer.anything()
        return found_any if not optional else replace(found_any, relaxed=())
    try:
        return writer.arguments(subject, _arguments_schema(subject, tool), strict=tool.strict)
    except GrammarRefused:
        if tool.strict:
            raise
        return writer.anything()


def grammar_of_arguments(tool: Tool, *, kept: int = AS_WRITTEN, called: bool = True) -> SchemaGrammar:
    """Return the grammar of a tool's arguments: an object, which has only named properties unless its schema says more.

    If `called`, the tool must be called. If calls are optional, a tool that is not strict accepts any object. Raise
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
