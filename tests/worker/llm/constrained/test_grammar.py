"""Constrained decoding: whatever the weights say, what comes out has the form that was asked for."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jsonschema
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.generate import BatchGenerator
from mlx_lm.models import qwen3
from mlx_lm.sample_utils import greedy_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from localapi.worker.llm.constrained.grammar import (
    Constraint,
    GrammarCompiler,
    GrammarRefused,
    JsonObject,
    JsonSchema,
    Lark,
    Regex,
    Spec,
    ThinkBlock,
    think_block,
)
from localapi.worker.llm.sampling import RandomSampler, SamplingLimits
from tools.demo.tokenizer import make_tokenizer
from tools.demo.train import CONFIG

TEXT = [
    '{"name": "Ada", "arguments": {"city": "Paris"}}',
    '\n  "items": [1, 2.5, true, null]',
    "the cat sat 漢字 🙂",
] * 5
PADDING = 40
"""Logits beyond the tokenizer's vocabulary, as most models have them."""
SAMPLES = 80

PERSON = {
    "$defs": {
        "tag": {"type": "object", "properties": {"key": {"enum": ["a", "b", "<think>"]}}, "required": ["key"]},
    },
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,4}$"},
        "mood": {"enum": ["good", "bad", 7, None, 'with "quotes"\n']},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "ratio": {"type": "number", "exclusiveMinimum": -1, "maximum": 1},
        "step": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100},
        "scores": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
        "either": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 4}, {"$ref": "#/$defs/tag"}]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 3},
        "point": {"type": "array", "prefixItems": [{"const": "x"}, {"type": "boolean"}], "minItems": 2, "items": False},
        "where": {
            "type": "object",
            "properties": {"inner": {"type": "object", "properties": {"deep": {"const": True}}, "required": ["deep"]}},
            "required": ["inner"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "code", "mood", "age", "ratio", "step", "scores", "either", "tags", "point", "where"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer", "minimum": 0, "maximum": 9},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


@dataclass(frozen=True)
class Model:
    """Random weights and a tokenizer."""

    weights: Any
    tokenizer: TokenizerWrapper
    grammars: GrammarCompiler
    width: int
    """Width of the logits."""

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


@dataclass
class Written:
    tokens: list[int]
    text: str
    reason: str


@pytest.fixture(scope="module")
def model() -> Model:
    """Nothing learned: what it writes without a grammar is noise."""
    tokenizer = make_tokenizer(TEXT, vocab_size=400)
    width = len(tokenizer) + PADDING
    sizes = {"vocab_size": width, "num_hidden_layers": 1, "tie_word_embeddings": False, "hidden_size": 32}
    mx.random.seed(7)
    weights = qwen3.Model(qwen3.ModelArgs.from_dict(CONFIG | sizes))
    wrapped = TokenizerWrapper(
        tokenizer, eos_token_ids=tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    )
    return Model(weights, wrapped, GrammarCompiler(wrapped, width), width)


Write = Callable[..., list[Written]]


@pytest.fixture
def write(model: Model) -> Write:
    """Writes answers, all in one batch: a constraint for each, None for free ones; temperature None: greedy."""

    def write(
        constraints: Sequence[Constraint | None], temperatures: Sequence[float | None], max_tokens: int = 1000
    ) -> list[Written]:
        ends = [[token] for token in model.tokenizer.eos_token_ids]
        batch = BatchGenerator(model.weights, stop_tokens=ends, completion_batch_size=32, prefill_batch_size=8)
        prompts = [model.tokens("the cat sat" + " on" * (i % 3)) for i in range(len(constraints))]
        uids = batch.insert(
            prompts,
            [max_tokens] * len(prompts),
            samplers=[
                greedy_sampler if t is None else RandomSampler(SamplingLimits(t), mx.random.key(seed))
                for seed, t in enumerate(temperatures)
            ],
            logits_processors=[[] if constraint is None else [constraint] for constraint in constraints],
        )
        written = {uid: Written([], "", "") for uid in uids}
        while not all(answer.reason for answer in written.values()):
            for response in batch.next()[1]:
                answer = written[response.uid]
                answer.reason = response.finish_reason or ""
                if answer.reason != "stop":
                    answer.tokens.append(response.token)
        batch.close()
        for answer in written.values():
            answer.text = model.tokenizer.decode(answer.tokens)
        assert [constraint.error for constraint in constraints if constraint] == [None] * sum(map(bool, constraints))
        return list(written.values())

    return write


def temperatures(count: int) -> list[float]:
    return list(np.random.default_rng(count).uniform(0.3, 3.0, count))


def some_of(schema: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The schema with three of its properties."""
    names = [str(name) for name in rng.choice(list(schema["properties"]), 3, replace=False)]
    return {**schema, "properties": {name: schema["properties"][name] for name in names}, "required": names}


def test_every_answer_is_json_of_its_schema(model: Model, write: Write) -> None:
    rng = np.random.default_rng(1)
    schemas = [some_of(PERSON, rng) if i % 4 else TREE for i in range(SAMPLES)]

    answers = write([constraint_of(model, schema) for schema in schemas], temperatures(SAMPLES), max_tokens=2000)

    assert {answer.reason for answer in answers} == {"stop"}
    for answer, schema in zip(answers, schemas, strict=True):
        jsonschema.validate(json.loads(answer.text), schema)
    assert len({answer.text for answer in answers}) > SAMPLES / 2


def constraint_of(model: Model, schema: dict[str, Any]) -> Constraint:
    return model.grammars.constraint(JsonSchema(json.dumps(schema)))


def test_any_object_will_do_where_no_schema_is_given(model: Model, write: Write) -> None:
    answers = write([model.grammars.constraint(JsonObject()) for _ in range(16)], temperatures(16), max_tokens=600)

    finished = [answer.text for answer in answers if answer.reason == "stop"]
    assert len(finished) > 4
    assert all(isinstance(json.loads(text), dict) for text in finished)


def test_an_answer_that_is_cut_off_is_the_start_of_one(model: Model, write: Write) -> None:
    spec = JsonSchema(json.dumps(PERSON))

    [answer] = write([model.grammars.constraint(spec)], [1.0], max_tokens=5)

    assert answer.reason == "length"
    assert answer.text.startswith("{")


@pytest.mark.parametrize(
    ("spec", "form"),
    [
        (Regex(r"[a-f]{3}/\d{2}(\.[xyz]+)?"), r"[a-f]{3}/\d{2}(\.[xyz]+)?"),
        (Lark('start: "yes" | "no" ", " WHY\nWHY: /[a-z ]{1,20}/'), r"yes|no, [a-z ]{1,20}"),
        (Regex("你好|🙂+"), "你好|🙂+"),
        (Regex(""), ""),
    ],
    ids=["regex", "lark", "unicode", "empty"],
)
def test_text_follows_an_expression_or_a_grammar(model: Model, write: Write, spec: Spec, form: str) -> None:
    constraint = model.grammars.constraint(spec)

    answers = write([constraint.fresh() for _ in range(20)], temperatures(20))

    assert {answer.reason for answer in answers} == {"stop"}
    assert [answer.text for answer in answers if not re.fullmatch(form, answer.text, re.ASCII)] == []


def test_free_rows_beside_constrained_ones_write_what_they_write_alone(model: Model, write: Write) -> None:
    [alone] = write([None], [None], max_tokens=60)
    constraints = [None, *(model.grammars.constraint(JsonSchema(json.dumps(PERSON))) for _ in range(3))]

    beside, *constrained = write(constraints, [None, 1.0, None, 2.0], max_tokens=60)

    assert beside.tokens == alone.tokens
    assert all(answer.text.startswith("{") for answer in constrained)


def test_forced_text_may_spell_a_special_token(model: Model, write: Write) -> None:
    schema = {"enum": ["<think>", "<|im_end|>x"]}

    answers = write([model.grammars.constraint(JsonSchema(json.dumps(schema))) for _ in range(8)], temperatures(8))

    assert {json.loads(answer.text) for answer in answers} == set(schema["enum"])


def test_every_end_token_of_the_model_and_no_other_token_ends_an_answer(model: Model) -> None:
    constraint = model.grammars.constraint(Regex("a"))
    logits = mx.zeros((1, model.width))

    constraint(mx.array([5]), logits)
    masked = constraint(mx.array([5, *model.tokens("a")]), logits)
    late = constraint(mx.array([5, *model.tokens("a"), *model.tokenizer.eos_token_ids]), logits)

    for row in (masked, late):
        assert set(np.flatnonzero(np.array(row[0]) == 0)) == model.tokenizer.eos_token_ids
    assert constraint.error is None


def test_the_type_of_the_logits_stays(model: Model) -> None:
    masked = model.grammars.constraint(JsonObject())(mx.array([5]), mx.zeros((1, model.width), dtype=mx.bfloat16))

    assert masked.dtype == mx.bfloat16
    assert mx.isinf(masked).any()


def test_an_error_frees_the_row_and_is_kept(model: Model) -> None:
    constraint, logits = model.grammars.constraint(Regex("abc")), mx.zeros((1, model.width))
    constraint(mx.array([5]), logits)

    masked = constraint(mx.array([5, *model.tokens("z")]), logits)
    later = constraint(mx.array([5, 6, 7]), logits)

    assert constraint.error is not None
    assert masked is logits
    assert later is logits
    assert constraint.fresh().error is None


def test_logits_of_another_width_are_an_error_and_not_a_crash(model: Model) -> None:
    constraint, logits = model.grammars.constraint(Regex("abc")), mx.zeros((1, 7))

    assert constraint(mx.array([5]), logits) is logits
    assert constraint.error is not None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (JsonSchema('{"type": "array", "uniqueItems": true}', strict=True), "uniqueItems"),
        (JsonSchema('{"not": {"properties": {"a": {}}}}', strict=True), "not"),
        (JsonSchema('{"type": "strin"}'), "Invalid type: strin"),
        (JsonSchema('{"type": "integer", "minimum": 5, "maximum": 3}'), "minimum (5) is greater than maximum (3)"),
        (JsonSchema('{"$ref": "#"}'), "no text satisfies it"),
        (JsonSchema('{"$ref": "https://example.com/schema"}', strict=True), "$ref"),
        (JsonSchema('{"type": "string", "pattern": "^(a)\\\\1$"}', strict=True), "pattern"),
        (JsonSchema('{"enum": []}'), "anyOf is empty"),
        (JsonSchema("false"), "anyOf is empty"),
        (JsonSchema('{"properties": {"a": 5}}'), "properties.a must be an object or a boolean; found int"),
        (JsonSchema('{"properties": {"a": {"required": "b"}}}'), "properties.a.required must be a list of names"),
        (JsonSchema("[]"), "JSON object"),
        (JsonSchema("{"), "JSON object"),
        (JsonSchema('{"items":' * 2000 + "{}" + "}" * 2000), "too deeply"),
        (
            JsonSchema(json.dumps({"properties": {f"p{i}": {"type": "string"} for i in range(4000)}}), strict=True),
            "too big",
        ),
        (JsonSchema(json.dumps({"enum": ["x" * 300_000]}), strict=True), "too long"),
        (Regex("(a"), "unclosed group"),
        (Regex("(" * 5000 + "a" + ")" * 5000), "invalid regex"),
        (Lark("start: nowhere"), 'unknown name: "nowhere"'),
        (Lark("start: " + "(" * 5000 + '"a"' + ")" * 5000), "nested"),
        (Lark("start: start"), "no text satisfies it"),
        (Lark(""), "no start rule found"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(model: Model, spec: Spec, reason: str) -> None:
    with pytest.raises(GrammarRefused, match=re.escape(reason)) as refused:
        model.grammars.constraint(spec)

    assert len(str(refused.value)) < 500
    model.grammars.constraint(JsonObject())


@pytest.mark.parametrize("text", ['{"a": 1}', '{"a":1}', '{\n  "a": 1\n}', '{\r\n\t"a" : 1 }'])
def test_json_may_be_compact_or_indented(model: Model, text: str) -> None:
    spec = JsonSchema('{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')

    assert allows(model, model.grammars.constraint(spec), text)


@pytest.mark.parametrize("text", ["{  ", "{\n\n", '{"a":' + "\n" + " " * 50, "\n{", "```json"])
def test_json_cannot_be_lost_in_whitespace(model: Model, text: str) -> None:
    assert not allows(model, model.grammars.constraint(JsonObject()), text)


def allows(model: Model, constraint: Constraint, text: str) -> bool:
    """Return True if the constraint allows every token of the text in order."""
    tokens, logits = [5], mx.zeros((1, model.width))
    for token in model.tokens(text):
        if mx.isinf(constraint(mx.array(tokens), logits)[0, token]).item():
            return False
        tokens.append(token)
    assert constraint.error is None
    return True


THINK = ThinkBlock(start="<think>", end="</think>")
TEXT_MARKS = ThinkBlock(start="[THINK]", end="[/THINK]")
MIXED_MARKS = ThinkBlock(start="<tool_call>think", end="</tool_call>think")
"""As Gemma 4 has them: a special token with text beside it."""


@pytest.mark.parametrize("block", [THINK, TEXT_MARKS, MIXED_MARKS], ids=["special", "text", "mixed"])
def test_a_thinking_model_may_think_first(model: Model, block: ThinkBlock) -> None:
    constraint = model.grammars.constraint(Regex("yes|no"), think=block)

    assert allows(model, constraint.fresh(), f"{block.start}\nWell [/ </th {{ ...\n{block.end}\n\nyes<|im_end|>")
    assert allows(model, constraint.fresh(), "no<|im_end|>")
    assert not allows(model, constraint.fresh(), "well")
    assert not allows(model, constraint.fresh(), f"{block.start}well{block.end}well")
    assert not allows(model, constraint.fresh(), f"{block.start}well<|im_end|>")


@pytest.mark.parametrize("block", [THINK, TEXT_MARKS, MIXED_MARKS], ids=["special", "text", "mixed"])
def test_thinking_that_the_prompt_has_begun_goes_on_to_its_end(model: Model, block: ThinkBlock) -> None:
    opened = ThinkBlock(start=block.start, end=block.end, opened=True)
    constraint = model.grammars.constraint(Regex("yes|no"), think=opened)

    assert allows(model, constraint.fresh(), f"Well, no\n{block.end}\n\nyes<|im_end|>")
    assert not allows(model, constraint.fresh(), "no<|im_end|>")


def test_what_follows_thinking_has_the_form(model: Model, write: Write) -> None:
    spec = JsonSchema(json.dumps(TREE))
    opened = ThinkBlock(start="<think>", end="</think>", opened=True)

    answers = write(
        [model.grammars.constraint(spec, think=opened) for _ in range(12)], temperatures(12), max_tokens=600
    )

    finished = [answer.text.partition("</think>") for answer in answers if answer.reason == "stop"]
    assert len(finished) > 4
    assert any(thought for thought, _, _ in finished)
    for _, end, text in finished:
        assert end
        jsonschema.validate(json.loads(text), TREE)


@pytest.mark.parametrize(
    ("prompt", "block"),
    [
        ("user: hi", THINK),
        ("hm <think>\n", ThinkBlock(start="<think>", end="</think>", opened=True)),
        ("<think>old</think>yes. And now? <think>", ThinkBlock(start="<think>", end="</think>", opened=True)),
        ("<think>old</think>yes. And now?", THINK),
        ("And now? <think>\n\n</think>\n\n", None),
    ],
)
def test_the_prompt_says_whether_the_model_thinks(model: Model, prompt: str, block: ThinkBlock | None) -> None:
    assert think_block(model.tokenizer, model.tokens(prompt)) == block


def test_a_model_without_a_fast_tokenizer_is_refused_with_the_reason(model: Model) -> None:
    class Slow:
        eos_token_ids = frozenset({1})
        added_tokens_decoder = MappingProxyType[int, str]({})

        def __len__(self) -> int:
            return 10

    with pytest.raises(GrammarRefused, match="Only fast tokenizers"):
        GrammarCompiler(Slow(), 10).constraint(JsonObject())


def test_a_model_without_an_end_token_is_refused(model: Model) -> None:
    tokenizer = TokenizerWrapper(model.tokenizer._tokenizer)
    tokenizer.eos_token_ids = set()

    with pytest.raises(GrammarRefused, match="no end token"):
        GrammarCompiler(tokenizer, model.width).constraint(JsonObject())


def test_a_mask_that_is_never_done_ends_the_process() -> None:
    """A grammar that `grammar_trial` does not find must not hold up all other answers."""
    code = """
import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tools.demo.tokenizer import make_tokenizer
from localapi.worker.llm.constrained import grammar
grammar.MASK_SECONDS = 0.5
tokenizer = TokenizerWrapper(make_tokenizer(["some text"], 300))
tokenizer.eos_token_ids = {0}
found = grammar.GrammarCompiler(tokenizer, 300).constraint(grammar.Lark("start: /[A-Z]/ y\\ny: /a*/ y"))
found(mx.array([5]), mx.zeros((1, 300)))
found(mx.array([5, *tokenizer.encode("A")]), mx.zeros((1, 300)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGVTALRM, done.stderr
