"""Boundaries at which prompts are likely to differ, with a real template and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from localapi.worker.llm.prompt_boundaries import boundaries, segments


class Writer:
    """The tiny model's template and tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.encoded = list[str]()

    def text(self, messages: list[dict[str, Any]], *, answer: bool) -> str:
        return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=answer, tokenize=False))

    def encode(self, text: str) -> list[int]:
        self.encoded.append(text)
        return list(self.tokenizer.encode(text, add_special_tokens=False))


@pytest.fixture
def writer(tiny_model: Path) -> Writer:
    return Writer(tiny_model)


CONVERSATION = [
    {"role": "system", "content": "You answer questions about capitals, and nothing else. " * 5},
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "The capital of France is Paris."},
    {"role": "user", "content": "And of Italy?"},
]


def texts_before(writer: Writer, messages: list[dict[str, Any]], **more: Any) -> list[str]:
    text = writer.text(messages, answer=True)
    tokens = writer.encode(text)
    points = boundaries(writer, messages, tokens, **more)
    return [str(writer.tokenizer.decode(tokens[:point]))[-20:] for point in points]


def test_boundaries_lie_after_the_system_prompt_before_the_last_message_and_behind_it(writer: Writer) -> None:
    assert texts_before(writer, CONVERSATION) == [
        (CONVERSATION[0]["content"] + "<|im_end|>\n<|im_start|>user\n")[-20:],
        "is Paris.<|im_end|>\n"[-20:],
        "of Italy?<|im_end|>\n"[-20:],
    ]


def test_boundaries_that_were_reused_already_are_not_computed_again(writer: Writer) -> None:
    tokens = writer.encode(writer.text(CONVERSATION, answer=True))
    points = boundaries(writer, CONVERSATION, tokens)
    writer.encoded.clear()
    assert boundaries(writer, CONVERSATION, tokens, start=points[1]) == points[2:]
    assert max(map(len, writer.encoded)) < 100, "the system prompt is not tokenised once more"


def test_a_template_that_rewrites_history_gets_no_boundary_where_it_does(writer: Writer) -> None:
    class Rewriting(Writer):
        def text(self, messages: list[dict[str, Any]], *, answer: bool) -> str:
            return super().text(
                [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + "!"}], answer=answer
            )

    writer.__class__ = Rewriting
    assert [text[-11:] for text in texts_before(writer, CONVERSATION)] == [
        "start|>user\n"[-11:],
        "?!<|im_end|>\n"[-11:],
    ]


def test_a_template_that_refuses_a_part_of_the_messages_gets_the_other_boundaries(writer: Writer) -> None:
    class Refusing(Writer):
        def text(self, messages: list[dict[str, Any]], *, answer: bool) -> str:
            if messages[-1]["role"] != "user":
                raise ValueError("No user query found in messages.")
            return super().text(messages, answer=answer)

    writer.__class__ = Refusing
    assert len(texts_before(writer, CONVERSATION)) == 2


def test_segments_are_cut_at_the_boundaries_that_lie_ahead() -> None:
    assert segments(range(10), 3, [2, 3, 5, 8, 10]) == [[3, 4], [5, 6, 7], [8, 9]]
    assert segments([1, 2, 3], 0, []) == [[1, 2, 3]]
