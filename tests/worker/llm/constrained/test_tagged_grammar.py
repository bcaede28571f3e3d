"""Forced calls whose arguments are text between tags: what is written is read back as the tool's schema allows."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tool_parsers import qwen3_coder

from localapi.worker.llm.constrained.grammar import GrammarCompiler, GrammarRefused, Tool, ToolCalls
from tests.worker.llm.constrained.test_tool_grammar import allows, wrapper, written
from tests.worker.llm.output.test_tool_calls import family, outcome

ORDER: dict[str, Any] = {
    "$defs": {"Size": {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"]}},
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["a b", "<c>", 7, None]},
        "limit": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 5}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        "size": {"$ref": "#/$defs/Size"},
        "now": {"type": "boolean"},
    },
    "required": ["count", "size"],
}
NOTE = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "to": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
}
SCHEMAS = {"order": ORDER, "note": NOTE, "now": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()]
STRICT = tuple(Tool(name, json.dumps(schema), strict=True) for name, schema in SCHEMAS.items())
CALL = '<function=order>\n<parameter=count>\n5\n</parameter>\n<parameter=size>\n{"x": 1}\n</parameter>\n</function>'
SAY = "<function=note>\n<parameter=text>\nA line\n<b> {\n</parameter>\n</function>"


@pytest.fixture(scope="module", params=[True, False], ids=["special", "text"])
def tokenizer(request: pytest.FixtureRequest) -> TokenizerWrapper:
    return wrapper(special=request.param, parser=qwen3_coder)


@pytest.fixture(scope="module")
def compiler(tokenizer: TokenizerWrapper) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, len(tokenizer))


def wrapped(call: str) -> str:
    return f"<tool_call>\n{call}\n</tool_call>"


def test_what_is_written_is_read_as_a_call_that_the_schema_allows(
    tokenizer: TokenizerWrapper, compiler: GrammarCompiler
) -> None:
    constraint, rng = compiler.constraint(ToolCalls(STRICT, choice="order", parallel=False)), np.random.default_rng(3)
    seen: set[str] = set()

    for _ in range(30):
        text = written(tokenizer, constraint.fresh(), rng)
        found = outcome(family("qwen3_coder").stream(TOOLS), [text])
        [(name, arguments)] = found.calls
        assert (name, found.content) == ("order", "")
        jsonschema.validate(json.loads(arguments), {**ORDER, "additionalProperties": False})
        seen |= json.loads(arguments).keys()

    assert constraint.relaxed == ()
    assert seen == ORDER["properties"].keys()


def test_calls_are_written_as_the_model_was_taught(tokenizer: TokenizerWrapper, compiler: GrammarCompiler) -> None:
    constraint = compiler.constraint(ToolCalls(STRICT))

    for text in (
        wrapped(CALL),
        wrapped(SAY),
        f"{wrapped(CALL)}\n{wrapped(SAY)}",
        wrapped("<function=now>\n</function>"),
    ):
        assert allows(tokenizer, constraint.fresh(), f"{text}<|im_end|>"), text
    for text in ("I would rather talk", wrapped(CALL.replace("count", "town")), wrapped(CALL.replace("5", "55"))):
        assert not allows(tokenizer, constraint.fresh(), text), text


def test_only_a_call_has_a_form_if_calls_are_optional(tokenizer: TokenizerWrapper, compiler: GrammarCompiler) -> None:
    tools = (STRICT[0], Tool("note", json.dumps(NOTE)))
    constraint = compiler.constraint(ToolCalls(tools, optional=True))

    for text in (
        "",
        "Well: <b> <parameter=x>",
        f"Sure.\n{wrapped(CALL)}",
        CALL,
        f"{wrapped(CALL)}\n{wrapped(SAY)} Done.",
    ):
        assert allows(tokenizer, constraint.fresh(), f"{text}<|im_end|>"), text
    assert allows(tokenizer, constraint.fresh(), wrapped(SAY.replace("text", "other")))
    for text in (wrapped(CALL.replace("5", "0")), CALL.replace("5", "0"), wrapped(CALL.replace("order", "other"))):
        assert not allows(tokenizer, constraint.fresh(), text), text


def test_what_is_not_enforced_is_named_or_refused(compiler: GrammarCompiler) -> None:
    coded = {"type": "object", "properties": {"code": {"type": "string", "maxLength": 3}}}
    either = {"anyOf": [NOTE, ORDER], "type": "object"}
    odd = {"type": "object", "properties": {"a": {"not": {"type": "string", "minLength": 2}}}}

    places = [
        compiler.constraint(ToolCalls((Tool("f", json.dumps(schema), strict=strict),))).relaxed
        for schema, strict in ((coded, True), (coded, False), (either, False))
    ]

    assert places == [("tools[f].parameters.properties.code",)] * 2 + [("tools[f].parameters",)]
    with pytest.raises(GrammarRefused, match="cannot be enforced"):
        compiler.constraint(ToolCalls((Tool("f", json.dumps(odd), strict=True),)))
