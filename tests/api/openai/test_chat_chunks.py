"""Chunks of a streamed chat completion, from the engine's events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localapi.api.openai.chat import ChatReply
from localapi.api.openai.chat_request import neutral_message, parse_chat
from localapi.worker.protocol import Delta, TokenLogprob

pytestmark = pytest.mark.everyday


def chunks(reply: ChatReply, *events: Delta) -> list[Any]:
    lines = [line for event in events for line in reply.render(event)]
    return [json.loads(line.removeprefix(b"data: ").removesuffix(b"\n\n")) for line in lines]


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_chunk_of_text_has_the_members_of_every_other(include_usage: bool) -> None:
    reply = ChatReply(include_usage=include_usage)
    reply.model = 'a "index":0 "content":"" name'
    pieces = ['"', "\\n", "é ", "\n", "\u2028", "🙂"]
    logged = Delta(1, "x", logprobs=[TokenLogprob(b"x", -0.5)])
    role, *texts, other = chunks(reply, *(Delta(1, each) for each in pieces), logged)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [each["choices"][0]["delta"]["content"] for each in texts] == pieces
    assert other["choices"][0].pop("logprobs")
    for each in texts:
        assert each["choices"][0].pop("logprobs") is None
        assert each == {**other, "choices": [{**other["choices"][0], "delta": each["choices"][0]["delta"]}]}


def test_texts_of_several_answers_keep_their_number_and_kind() -> None:
    thought, refused = Delta(1, "Hm.", choice=0, reasoning=True), Delta(1, "No.", choice=1, refusal=True)
    begun = [Delta(1, "", choice=0), Delta(1, "", choice=1)]
    found = chunks(
        ChatReply(include_usage=False), *begun, thought, refused, Delta(1, "a", choice=1), Delta(1, "b", choice=0)
    )
    choices = [each["choices"][0] for each in found[-4:]]
    assert [(each["index"], each["delta"]) for each in choices] == [
        (0, {"reasoning_content": "Hm."}),
        (1, {"refusal": "No."}),
        (1, {"content": "a"}),
        (0, {"content": "b"}),
    ]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_earlier_reasoning_is_read_in_the_spelling_of_any_server(field: str) -> None:
    message = {"role": "assistant", "content": "Yes.", field: "Hm."}

    request, ignored = parse_chat({"model": "m", "messages": [{"role": "user", "content": "Hi"}, message]})

    assert (neutral_message(request.messages[1]).reasoning, ignored) == ("Hm.", [])
