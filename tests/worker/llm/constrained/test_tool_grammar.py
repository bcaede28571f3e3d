"""Forced tool calls: what mlx-lm's own parser reads back is a call that the tool's schema allows."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import jsonschema
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tool_parsers import json_tools

from localapi.worker.llm.constrained.grammar import (
    Constraint,
    GrammarCompiler,
    GrammarRefused,
    JsonObject,
    ThinkBlock,
    Tool,
    ToolCalls,
)
from tools.demo.tokenizer import MARKUP_TOKENS, make_tokenizer

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "unit": {"enum": ["c", "f"]}},
    "required": ["city"],
}
POINT = {
    "$defs": {"axis": {"type": "integer", "minimum": -9, "maximum": 9}},
    "type": "object",
    "properties": {"x": {"$ref": "#/$defs/axis"}, "y": {"$ref": "#/$defs/axis"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}}
SCHEMAS = {"get_weather": WEATHER, "get": POINT, "now": NOTHING}
TOOLS = tuple(Tool(name, json.dumps(schema)) for name, schema in SCHEMAS.items())
ONE = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "get", "arguments": {"x":1,"y":-2}}\n</tool_call>'


def strict(name: str, parameters: str) -> Tool:
    return Tool(name, parameters, strict=True)


def wrapper(*, special: bool, parser: Any = json_tools) -> TokenizerWrapper:
    """A tokenizer that has the marks as tokens of their own, or not."""
    tokenizer = make_tokenizer([ONE, OTHER] * 5, vocab_size=400)
    if not special:
        raw = json.loads(tokenizer.backend_tokenizer.to_str())
        raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] not in MARKUP_TOKENS]
        tokenizer = type(tokenizer)(tokenizer_object=type(tokenizer.backend_tokenizer).from_str(json.dumps(raw)))
        tokenizer.eos_token = "<|im_end|>"
    return TokenizerWrapper(
        tokenizer,
        tool_call_start=parser and parser.tool_call_start,
        tool_call_end=parser and parser.tool_call_end,
        tool_parser=parser and parser.parse_tool_call,
    )


@pytest.fixture(scope="module", params=[True, False], ids=["special", "text"])
def tokenizer(request: pytest.FixtureRequest) -> TokenizerWrapper:
    return wrapper(special=request.param)


@pytest.fixture(scope="module")
def grammars(tokenizer: TokenizerWrapper) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, len(tokenizer))


def allows(tokenizer: TokenizerWrapper, constraint: Constraint, text: str) -> bool:
    """Return True if the constraint allows every token of the text in order."""
    tokens, logits = [5], mx.zeros((1, len(tokenizer)))
    for token in tokenizer.encode(text, add_special_tokens=False):
        if mx.isinf(constraint(mx.array(tokens), logits)[0, token]).item():
            return False
        tokens.append(token)
    assert constraint.error is None
    return True


def mask_of(constraint: Constraint, tokens: list[int], width: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the tokens that the constraint allows next."""
    allowed = np.isfinite(np.array(constraint(mx.array(tokens), mx.zeros((1, width)))[0]))
    assert constraint.error is None, constraint.error
    return allowed


def written(tokenizer: TokenizerWrapper, constraint: Constraint, rng: np.random.Generator) -> str:
    """Return a random choice among the tokens that the constraint allows."""
    tokens, logits = [5], mx.zeros((1, len(tokenizer)))
    for _ in range(600):
        allowed = np.flatnonzero(np.isfinite(np.array(constraint(mx.array(tokens), logits)[0])))
        tokens.append(int(rng.choice(allowed)))
        if tokens[-1] in tokenizer.eos_token_ids:
            break
    assert constraint.error is None
    return str(tokenizer.decode(tokens[1:-1]))


@pytest.mark.parametrize("parallel", [True, False])
def test_what_is_written_are_calls_of_the_tools(
    tokenizer: TokenizerWrapper,
    grammars: GrammarCompiler,
    parallel: bool,
) -> None:
    constraint, rng = grammars.constraint(ToolCalls(TOOLS, parallel=parallel)), np.random.default_rng(3)
    names, most = set(), 0

    for _ in range(40):
        text = written(tokenizer, constraint.fresh(), rng)
        calls = re.findall(r"<tool_call>(.*?)</tool_call>\n?", text, re.DOTALL)
        assert re.sub(r"<tool_call>(.*?)</tool_call>\n?", "", text, flags=re.DOTALL) == ""
        for call in map(json_tools.parse_tool_call, calls):
            jsonschema.validate(call["arguments"], {**SCHEMAS[call["name"]], "additionalProperties": False})
            names.add(call["name"])
        most = max(most, len(calls))

    assert names == set(SCHEMAS)
    assert (most > 1) == parallel


def test_calls_are_written_as_the_model_was_taught(tokenizer: TokenizerWrapper, grammars: GrammarCompiler) -> None:
    constraint = grammars.constraint(ToolCalls(TOOLS))

    assert allows(tokenizer, constraint.fresh(), f"{ONE}<|im_end|>")
    assert allows(tokenizer, constraint.fresh(), f"{OTHER}\n{ONE}<|im_end|>")
    assert not allows(tokenizer, constraint.fresh(), "I would rather talk")
    assert not allows(tokenizer, constraint.fresh(), "<|im_end|>")
    assert not allows(tokenizer, constraint.fresh(), f"{ONE} and so on")


def test_a_choice_leaves_one_tool_and_no_parallel_calls_leave_one_call(
    tokenizer: TokenizerWrapper, grammars: GrammarCompiler
) -> None:
    chosen, single = ToolCalls(TOOLS, choice="get"), ToolCalls(TOOLS, parallel=False)

    assert allows(tokenizer, grammars.constraint(chosen), f"{OTHER}<|im_end|>")
    assert not allows(tokenizer, grammars.constraint(chosen), ONE)
    assert not allows(tokenizer, grammars.constraint(single), f"{ONE}\n")


def test_arguments_that_the_tool_does_not_name_are_not_made_up(
    tokenizer: TokenizerWrapper, grammars: GrammarCompiler
) -> None:
    tools = (Tool("closed"), Tool("open", '{"type": "object", "additionalProperties": true}'))
    constraint = grammars.constraint(ToolCalls(tools))

    assert allows(tokenizer, constraint.fresh(), '<tool_call>\n{"name": "open", "arguments": {"a": 1}}')
    assert allows(tokenizer, constraint.fresh(), '<tool_call>\n{"name": "closed", "arguments": {}}')
    assert not allows(tokenizer, constraint.fresh(), '<tool_call>\n{"name": "closed", "arguments": {"a"')


def test_a_model_may_think_before_it_calls(tokenizer: TokenizerWrapper, grammars: GrammarCompiler) -> None:
    block = ThinkBlock(start="<think>", end="</think>")
    constraint = grammars.constraint(ToolCalls(TOOLS), think=block)

    assert allows(tokenizer, constraint.fresh(), f"<think>\nWhich? {{\n</think>\n\n{ONE}<|im_end|>")
    assert allows(tokenizer, constraint.fresh(), f"{ONE}<|im_end|>")
    assert not allows(tokenizer, constraint.fresh(), "<think>I will not</think>no")


def test_only_a_strict_tool_is_refused_where_its_schema_cannot_be_kept(grammars: GrammarCompiler) -> None:
    schema = '{"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}}'

    grammars.constraint(ToolCalls((Tool("loose", schema),)))
    with pytest.raises(GrammarRefused, match=r"parameters of strict cannot be enforced at: .*uniqueItems"):
        grammars.constraint(ToolCalls((*TOOLS, Tool("strict", schema, strict=True))))


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ('{"properties": {"a": {"type": "strin"}}}', ""),
        ('{"type": "array"}', ""),
        ("[", ""),
        ('{"$ref": "#"}', ""),
        ('{"properties": {"a": false}, "required": ["a"]}', ".properties.a"),
        ('{"properties": {"a": {"minimum": 5, "maximum": 3, "type": "integer"}}, "required": ["a"]}', ".properties.a"),
        (json.dumps({"properties": {f"p{i}": {"type": "string"} for i in range(4000)}}), ""),
        (json.dumps({"properties": {"a": {"enum": ["x" * 300_000]}}}), ".properties.a"),
        ('{"properties": {"a": {"const": -9223372036854775808}}}', ".properties.a.const"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_hopeless_tool_takes_any_object_and_leaves_the_others_as_they_are(
    tokenizer: TokenizerWrapper, grammars: GrammarCompiler, parameters: str, place: str
) -> None:
    constraint = grammars.constraint(ToolCalls((*TOOLS, Tool("hopeless", parameters))))

    assert constraint.relaxed == (f"tools[hopeless].parameters{place}",)
    assert allows(tokenizer, constraint.fresh(), '<tool_call>\n{"name": "hopeless", "arguments": {')
    assert allows(tokenizer, constraint.fresh(), f"{ONE}<|im_end|>")
    assert not allows(tokenizer, constraint.fresh(), ONE.replace("city", "town"))


def test_only_a_call_has_a_form_if_calls_are_optional(tokenizer: TokenizerWrapper, grammars: GrammarCompiler) -> None:
    tools = (strict("get_weather", json.dumps(WEATHER)), Tool("get", json.dumps(POINT)))
    constraint = grammars.constraint(ToolCalls(tools, optional=True))

    for text in ("", "Well, {}: <b> \u6f22 <tool\n", "<think>Hm.</think>No.", f"Sure.\n{ONE}", f"{ONE}\n{OTHER} Done."):
        assert allows(tokenizer, constraint.fresh(), f"{text}<|im_end|>"), text
    assert allows(tokenizer, constraint.fresh(), OTHER.replace('"x"', '"free"'))
    for text in (
        "<tool_call>What",
        ONE.replace("city", "town"),
        ONE.replace("get_weather", "other"),
        "<tool_call><|im_end|>",
    ):
        assert not allows(tokenizer, constraint.fresh(), text), text


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        (ToolCalls(()), "no tool to call"),
        (ToolCalls(TOOLS, choice="other"), "There is no tool 'other'"),
        (ToolCalls((strict("f", "["),)), "f are not JSON"),
        (ToolCalls((strict("f", "[]"),)), "not a JSON schema but list"),
        (ToolCalls((strict("f", '{"type": "array"}'),)), "must be an object; the schema's type is 'array'"),
        (
            ToolCalls((strict("f", '{"properties": {"a": {"type": "strin"}}}'),)),
            "parameters of f .*Invalid type: strin",
        ),
    ],
)
def test_what_cannot_be_called_is_refused_with_the_reason(
    grammars: GrammarCompiler, calls: ToolCalls, reason: str
) -> None:
    with pytest.raises(GrammarRefused, match=reason):
        grammars.constraint(calls)


def of_tomorrow(text: str, tools: object) -> None:
    """Stand for a reader that mlx-lm does not have yet."""


of_tomorrow.__module__ = "mlx_lm.tool_parsers.of_tomorrow"
TOMORROW = SimpleNamespace(tool_call_start="<call>", tool_call_end="</call>", parse_tool_call=of_tomorrow)


@pytest.mark.parametrize(("parser", "reason"), [(None, "tool_format"), (TOMORROW, "of_tomorrow")])
def test_formats_that_are_not_known_are_named(parser: Any, reason: str) -> None:
    tokenizer = wrapper(special=True, parser=parser)
    grammars = GrammarCompiler(tokenizer, len(tokenizer))

    with pytest.raises(GrammarRefused, match=reason):
        grammars.constraint(ToolCalls(TOOLS))
    assert grammars.constraint(JsonObject())


def test_the_header_of_content_stands_before_an_answer_and_not_before_a_call(
    tokenizer: TokenizerWrapper, grammars: GrammarCompiler
) -> None:
    think = ThinkBlock(start="", end="", header="all\n")

    assert allows(tokenizer, grammars.constraint(ToolCalls(TOOLS), think=think), f"{ONE}<|im_end|>")
    assert allows(tokenizer, grammars.constraint(JsonObject(), think=think), "all\n{}<|im_end|>")
    assert not allows(tokenizer, grammars.constraint(JsonObject(), think=think), "{}")
