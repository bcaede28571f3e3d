"""The API end to end with the echo backend: no model, a second or two for all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server import Server, serving, stream_text

pytestmark = pytest.mark.everyday

MANIFEST = """
chat:
  parrot:
    backend: echo
    aliases: [gpt-4o-mini, org/bird]
    description: says it again
  brief:
    backend: echo
    defaults: {max_tokens: 2}
speech:
  tone: {backend: echo}
"""
HELLO: list[Any] = [{"role": "user", "content": "Hello there, who are you?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("echo"), MANIFEST) as server:
        yield server


def test_the_openai_client_gets_a_whole_answer(server: Server) -> None:
    reply = server.client().chat.completions.create(model="parrot", messages=HELLO)
    assert reply.choices[0].message.content == "Hello there, who are you?"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == "parrot"
    assert reply.usage
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (5, 5, 10)


def test_a_stream_has_the_role_once_text_in_parts_and_one_finish(server: Server) -> None:
    chunks = list(server.client().chat.completions.create(model="parrot", messages=HELLO, stream=True))
    assert [c.choices[0].delta.role for c in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello there, who are you?"
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({c.id for c in chunks}) == 1
    assert all(c.usage is None for c in chunks)


def test_a_stream_with_usage_ends_with_a_chunk_without_choices(server: Server) -> None:
    stream = server.client().chat.completions.create(
        model="parrot", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *_, last = stream
    assert last.choices == []
    assert last.usage
    assert last.usage.total_tokens == 10


def test_the_raw_stream_ends_with_done_and_nothing_after_it(server: Server) -> None:
    reply = server.request(
        "POST",
        "/v1/chat/completions",
        {"model": "parrot", "messages": HELLO, "stream": True},
        {"Accept": "application/json"},
    )
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.body.endswith(b"data: [DONE]\n\n")
    for line in filter(None, reply.body.split(b"\n\n")[:-2]):
        assert json.loads(line.removeprefix(b"data: "))["object"] == "chat.completion.chunk"


def test_max_tokens_ends_with_length(server: Server) -> None:
    reply = server.client().chat.completions.create(model="parrot", messages=HELLO, max_completion_tokens=3)
    assert reply.choices[0].message.content == "Hello there, who"
    assert reply.choices[0].finish_reason == "length"


def test_an_entrys_defaults_apply_where_a_request_does_not_say(server: Server) -> None:
    client = server.client()
    assert client.chat.completions.create(model="brief", messages=HELLO).choices[0].finish_reason == "length"
    said = client.chat.completions.create(model="brief", messages=HELLO, max_tokens=50)
    assert said.choices[0].finish_reason == "stop"


def test_stop_text_ends_the_answer_and_is_not_part_of_it(server: Server) -> None:
    reply = server.client().chat.completions.create(model="parrot", messages=HELLO, stop=["you", ", w"])
    assert reply.choices[0].message.content == "Hello there"


def test_content_in_parts_is_joined_and_null_parameters_are_unset(server: Server) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    body = {"model": "parrot", "messages": [{"role": "user", "content": parts}], "temperature": None, "stop": None}
    assert server.request("POST", "/v1/chat/completions", body).json()["choices"][0]["message"]["content"] == "one\ntwo"


def test_all_roles_are_taken(server: Server) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[Any] = [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "t"},
    ]
    reply = server.client().chat.completions.create(model="parrot", messages=messages)
    assert reply.choices[0].message.content == "u"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "text", "text": "I"}, {"type": "refusal", "refusal": "refuse"}]},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": None, "audio": None, "annotations": []},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": None, "function": {"name": "f"}}]},
        *(
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": arguments}}]}
            for arguments in ("", None, '{"a": "b', "\\d", "5", {"a": None}, {})
        ),
    ],
)
def test_what_an_assistant_said_before_is_taken_back_with_a_result_of_nothing(server: Server, message: Any) -> None:
    result = [{"role": "tool", "tool_call_id": "1", "content": None}] if message.get("tool_calls") else []
    body = {"model": "parrot", "messages": [*HELLO, message, *result]}
    assert server.request("POST", "/v1/chat/completions", body).status == 200


@pytest.mark.parametrize("path", ["/v1/models/org/bird", "/v1/models/org%2Fbird", "/v1/models/parrot"])
def test_a_model_is_found_by_id_and_alias_with_slashes_raw_or_encoded(server: Server, path: str) -> None:
    model = server.get(path)
    assert model["id"] == "parrot"
    assert model["aliases"] == ["gpt-4o-mini", "org/bird"]


def test_the_model_list_is_flat_over_chat_and_speech(server: Server) -> None:
    models = list(server.client().models.list())
    assert [(m.id, m.object, m.owned_by) for m in models] == [
        (i, "model", "localapi") for i in ("parrot", "brief", "tone")
    ]
    assert [m.model_extra["kind"] for m in models if m.model_extra] == ["chat", "chat", "speech"]


def test_unknown_fields_are_accepted_and_named(server: Server) -> None:
    body = {"model": "parrot", "messages": HELLO, "client_metadata": {"a": 1}, "frob": 2, "user": "me"}
    reply = server.request("POST", "/v1/chat/completions", body)
    assert reply.status == 200
    assert reply.headers["x-ignored-params"] == "client_metadata, frob"


def test_an_alias_answers_as_its_entry(server: Server) -> None:
    stream = server.client().chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True)
    assert stream_text(stream) == "Hello there, who are you?"


def test_health_and_readiness(server: Server) -> None:
    assert server.get("/health") == {"status": "ok"}
    assert server.get("/health/ready") == {"status": "ready"}


def test_every_reply_has_a_request_id(server: Server) -> None:
    ids = {server.request("GET", path).headers["x-request-id"] for path in ("/health", "/v1/models", "/nowhere")}
    assert len(ids) == 3


def test_ten_thousand_characters_of_every_kind_come_back_as_they_are(server: Server) -> None:
    text = "".join(chr(c) for c in range(32, 10_000) if chr(c).isprintable())
    reply = server.client().chat.completions.create(model="parrot", messages=[{"role": "user", "content": text}])
    assert reply.choices[0].message.content == text


def test_the_client_raises_not_found_with_the_models_that_exist(server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="parrot, brief") as caught:
        server.client().chat.completions.create(model="gpt-5", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_echo_mode_keeps_how_every_entry_is_offered(tmp_path: Path) -> None:
    entry = "{backend: mlx-lm, path: ./not-there, aliases: [x], defaults: {stop: you}, locked: {max_tokens: 1}}"
    with serving(tmp_path, f"chat: {{m: {entry}}}", env={"ECHO_MODE": "1"}) as server:
        reply = server.request("POST", "/v1/chat/completions", {"model": "x", "messages": HELLO, "max_tokens": 9})
    assert reply.json()["choices"][0]["message"]["content"] == "Hello"
    assert reply.headers["x-locked-params"] == "max_tokens"
