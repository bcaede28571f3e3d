"""Forced calls in every format: what is written is read back as calls that the tool's schema allows."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper

from localapi.worker.llm.constrained.grammar import GrammarCompiler, Tool, ToolCalls
from localapi.worker.llm.output.formats import FORMATS
from localapi.worker.llm.output.parser import OutputFormat
from localapi.worker.llm.output.recognition import recognise
from tests.worker.llm.constrained.test_tool_grammar import allows, wrapper, written
from tests.worker.llm.output.test_tool_calls import outcome

if TYPE_CHECKING:
    from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["a b", "é{}"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "size": {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"]},
        "tags": {"type": "array", "items": {"enum": ["q", "r"]}, "minItems": 1, "maxItems": 2},
        "now": {"type": "boolean"},
    },
    "required": ["kind", "size"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "order", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
CALLS = (Tool("order", json.dumps(SCHEMA), strict=True), Tool("now", '{"type": "object", "properties": {}}'))
FORCED = pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.spelling])


def tokenizer_of(name: str) -> TokenizerWrapper:
    """A tokenizer without marks of its own, whose model calls in this format."""
    tokenizer = wrapper(special=False, parser=None)
    recognise(tokenizer, tools=name, reasoning="none")
    return tokenizer


@FORCED
def test_a_forced_call_is_read_back_as_its_schema_allows(name: str) -> None:
    tokenizer = tokenizer_of(name)
    compiler, reader = GrammarCompiler(tokenizer, len(tokenizer)), OutputFormat(tokenizer)
    constraint, rng = compiler.constraint(ToolCalls(CALLS, choice="order", parallel=False)), np.random.default_rng(3)

    assert constraint.relaxed == ()
    for _ in range(4):
        text = written(tokenizer, constraint.fresh(), rng)
        found = outcome(reader.stream(TOOLS), [text])
        assert outcome(reader.stream(TOOLS), text).comparable == found.comparable
        assert [called for called, _ in found.calls] == ["order"], text
        assert found.content == ""
        jsonschema.validate(json.loads(found.calls[0][1]), SCHEMA)


@FORCED
def test_several_calls_are_read_as_several_where_the_format_has_them(name: str) -> None:
    tokenizer = tokenizer_of(name)
    spelling = FORMATS[name].spelling
    assert spelling is not None
    arguments = {"json": "{}", "python": "", "gemma": "{}"}[spelling.arguments] if spelling.argument is None else ""
    call = spelling.head.replace("{name}", "now") + arguments + spelling.tail
    length = re.search(r"\{(\d+)\}", spelling.call_id)
    joined = (
        (spelling.between or "").join([call, call]).replace("{id}", "1234567890"[: int(length[1]) if length else 1])
    )
    text = spelling.start + joined + spelling.end
    allowed = GrammarCompiler(tokenizer, len(tokenizer)).constraint(ToolCalls(CALLS))
    single = GrammarCompiler(tokenizer, len(tokenizer)).constraint(ToolCalls(CALLS, parallel=False))

    assert allows(tokenizer, allowed, text) == (spelling.between is not None)
    assert not allows(tokenizer, single, text)
    if spelling.between is not None:
        found = outcome(OutputFormat(tokenizer).stream(TOOLS), text)
        assert (found.parsed, found.content) == ([("now", {}), ("now", {})], "")


@pytest.mark.parametrize("name", ["mistral", "mistral_args", "mistral_call_id"])
def test_calls_behind_text_behind_a_call_are_calls(name: str) -> None:
    tokenizer = tokenizer_of(name)
    spelling = FORMATS[name].spelling
    assert spelling is not None
    call = (spelling.start + spelling.head + "{}" + spelling.tail + spelling.end).replace("{name}", "now")
    call = call.replace("{id}", "abcdefgh1")
    texts = [f"{call}\n{call}", f"{call}\nAnd:\n{call}", f"{call}\nDone ["]
    found = [outcome(OutputFormat(tokenizer).stream(TOOLS), text) for text in texts]

    assert [len(each.calls) for each in found] == [2, 2, 1]
    assert [each.content for each in found] == ["", "And:", "Done ["]


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.spelling and name != "functionary"])
def test_only_the_calls_of_strict_tools_have_a_form_if_calls_are_optional(name: str) -> None:
    tokenizer = tokenizer_of(name)
    constraint = GrammarCompiler(tokenizer, len(tokenizer)).constraint(ToolCalls(CALLS, optional=True))

    assert allows(tokenizer, constraint.fresh(), "Just some text, and no call.<|im_end|>")
