"""Constrained decoding: whatever the weights say, what comes out has the form that was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema
import mlx.core as mx
import pytest
from mlx_lm.generate import BatchGenerator
from mlx_lm.sample_utils import greedy_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from localapi.demo.train import make_model, make_tokenizer
from localapi.worker.grammar import (
    Constraint,
    GrammarRefused,
    Grammars,
    JsonObject,
    JsonSchema,
    Lark,
    Regex,
    Spec,
    ThinkBlock,
    think_block,
)
from localapi.worker.sampling import Drawn

TEXT = ['{"name": "Ada", "arguments": {"city": "Paris"}}', '\n  "items": [1, 2.5, true, null]', "the cat sat 漢字 🙂"] * 5
PADDING = 40
"""Logits beyond the tokenizer's vocabulary, as most models have them."""
SAMPLES = 200

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
    grammars: Grammars

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


@dataclass
class Written:
    tokens: list[int]
    text: str
    reason: str


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = make_tokenizer(TEXT, vocab_size=400)
    weights, _ = make_model([*range(len(tokenizer) + PADDING)] and _padded(tokenizer), num_hidden_layers=1)
    mx.eval(weights.parameters())
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    wrapped = TokenizerWrapper(tokenizer, eos_token_ids=ends)
    return Model(weights, wrapped, Grammars(wrapped, len(tokenizer) + PADDING))
