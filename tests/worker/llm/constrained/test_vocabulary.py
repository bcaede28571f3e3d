"""The index of a vocabulary: the same tokens that llguidance finds in the tokenizer by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from localapi.worker.llm.constrained.schema_grammar import GrammarRefused
from localapi.worker.llm.constrained.vocabulary import VocabularyIndex, indexed
from tools.demo.tokenizer import make_tokenizer

PADDING = 7
TEXTS = ("Hello, world", ' {"name": "x",\n\n  "b": [1]}', "漢字 🙂 é", "<think>so</think>", "plain[mark]text", "\n\n\n")
ADDED = [
    AddedToken("<mark>", special=False),
    AddedToken("[mark]", special=False),
    AddedToken("[special]", special=True),
    AddedToken("\n\n", special=False),
    AddedToken("▁▁", special=False),
]


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer(["Hello world, a name and a text"], 400)
    tokenizer.add_tokens(ADDED)
    return tokenizer


def sentencepiece(*, prefix: bool = False) -> PreTrainedTokenizerFast:
    """Return one as Gemma's, or with a space before each text as Llama 2's."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    names += sorted(set('Hello,worldnameabxthinksoplainmarktext{}[]:1"<>/'))
    replaced = normalizers.Replace(" ", "▁")
    own = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [], byte_fallback=True, unk_token="<unk>"))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replaced]) if prefix else replaced
    own.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, **marks)  # type: ignore[no-untyped-call]
    tokenizer.add_tokens(ADDED)
    return tokenizer


KINDS: dict[str, Any] = {
    "byte-level": byte_level,
    "sentencepiece": sentencepiece,
    "sentencepiece with a space in front": lambda: sentencepiece(prefix=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_are_those_that_llguidance_reads_from_the_tokenizer(kind: str) -> None:
    own = KINDS[kind]()
    size, ends = len(own) + PADDING, [1, 2]
    wrapped = TokenizerWrapper(own)
    wrapped.eos_token_ids = ends
    ours, reference = indexed(wrapped, size), from_tokenizer(own, n_vocab=size, eos_token=ends)

    assert (ours.vocab_size, ours.eos_tokens, ours.is_canonical) == (size, ends, reference.is_canonical)
    for token in range(size):
        if token not in ends:
            assert ours.decode_bytes([token]) == reference.decode_bytes([token]), token
            assert ours.is_special_token(token) == reference.is_special_token(token), token
    for text in TEXTS:
        assert ours.tokenize_str(text) == reference.tokenize_str(text)
        assert ours.greedy_tokenize(text) == reference.greedy_tokenize(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_masks_along_an_answer_are_the_same(kind: str) -> None:
    own = KINDS[kind]()
    wrapped = TokenizerWrapper(own)
    wrapped.eos_token_ids = [2]
    ours, reference = indexed(wrapped, len(own)), from_tokenizer(own, eos_token=[2])
    properties = {"name": {"type": "string"}, "b": {"enum": ["x", "world"]}}
    schema = {"type": "object", "properties": properties, "required": ["name", "b"]}
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    one, other = LLMatcher(ours, grammar), LLMatcher(reference, grammar)
    for token in reference.tokenize_str('{"name": "Hello a", "b": "world"}'):
        assert one.compute_bitmask() == other.compute_bitmask()
        assert one.compute_ff_tokens() == other.compute_ff_tokens()
        assert one.consume_token(token)
        assert other.consume_token(token)
    assert one.is_accepting()


def test_what_is_wrong_is_said_to_whoever_asks_and_not_before() -> None:
    wrapped = TokenizerWrapper(byte_level())
    wrapped.eos_token_ids = []
    index = VocabularyIndex(wrapped, 400)
    index.wait()
    with pytest.raises(GrammarRefused, match="no end token"):
        index.get()
