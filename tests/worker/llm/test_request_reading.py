"""Text that is too long is refused before it is tokenized, with true numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from localapi.worker.llm.constrained.tool_grammar import GrammarRefused
from localapi.worker.llm.prompt import PromptWriter
from localapi.worker.llm.request_reading import ContextExceeded, RequestReader, longest_token
from localapi.worker.protocol import Chat, Complete, Lark, Message


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


def reader(tokenizer: Any, context_length: int | None = 100) -> RequestReader:
    return RequestReader(
        tokenizer, PromptWriter(tokenizer), name="m", context_length=context_length, needs_boundaries=False
    )


def test_no_text_has_fewer_tokens_than_its_bytes_say(tokenizer: Any) -> None:
    longest = longest_token(tokenizer)
    assert longest is not None
    words = st.sampled_from([*tokenizer.get_vocab(), "e\u0301", "\u1100\u1161\u11a8", " " * 50, "👋🏽"]) | st.text(
        max_size=9
    )

    @settings(max_examples=300, deadline=None)
    @given(st.lists(words, max_size=30).map("".join))
    def check(text: str) -> None:
        size = len(text.encode("utf-8", "replace"))
        assert len(tokenizer.encode(text, add_special_tokens=False)) >= size // longest

    check()


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (Complete(id=1, prompt="word " * 200_000), "prompt"),
        (Chat(id=1, messages=[Message("user", "word " * 200_000)]), "messages"),
    ],
)
def test_what_cannot_fit_is_refused_without_looking_at_its_tokens(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, request_: Any, param: str
) -> None:
    found = reader(tokenizer)
    monkeypatch.setattr(type(tokenizer._tokenizer), "encode", lambda *_, **__: pytest.fail("was tokenized"))
    with pytest.raises(ContextExceeded, match=r"has at least \d{4,} tokens; m's context is 100 tokens"):
        found.read(request_)


def test_what_may_fit_is_counted(tokenizer: Any) -> None:
    with pytest.raises(ContextExceeded, match=r"has \d+ tokens; m's context is 100 tokens"):
        reader(tokenizer).read(Complete(id=1, prompt="word " * 100))
    assert len(reader(tokenizer, None).read(Complete(id=1, prompt="word " * 2000)).tokens) >= 2000


@pytest.mark.parametrize("loss", ["space", "unknown", "stripped"])
def test_where_a_tokenizer_drops_text_nothing_is_said_of_its_length(loss: str) -> None:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    if loss == "unknown":
        del alphabet["a"]
    made = Tokenizer(models.BPE(alphabet, []))
    made.pre_tokenizer, made.decoder = byte_level, decoders.ByteLevel()
    if loss == "space":
        made.normalizer = normalizers.Strip()
    fast = PreTrainedTokenizerFast(tokenizer_object=made)
    if loss == "stripped":
        from tokenizers import AddedToken  # noqa: PLC0415

        fast.add_tokens([AddedToken("<|end|>", rstrip=True)])
    assert longest_token(fast) is None


@pytest.mark.parametrize(
    "grammar",
    [
        "start: /a*/ start",
        'start: /[A-Z]/ "!" y\ny: /a*/ y',
        "start: <|im_end|>? y\ny: /a*/ y",
    ],
)
def test_a_grammar_that_never_ends_is_refused_and_holds_nothing_up(tokenizer: Any, grammar: str) -> None:
    found = reader(tokenizer)
    with pytest.raises(GrammarRefused, match="end"):
        found.read(Complete(id=1, prompt="x", form=Lark(grammar)))
    assert found.read(Complete(id=1, prompt="x", form=Lark('start: "a" start | "b"'))).tokens
