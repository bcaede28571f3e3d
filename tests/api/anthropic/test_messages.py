"""Anthropic's endpoints as its official client sees them, on echo and on the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from localapi.api.anthropic.messages import MessagesReply
from localapi.api.anthropic.messages_request import MessagesRequest
from localapi.errors import ContextLengthExceeded, ModelUnavailable
from localapi.http import request_context
from localapi.observability.counters import Counters
from localapi.runtime.progress import Progress
from localapi.worker.protocol import Delta, Ended, Event, Finished, ToolArguments, ToolStart
from tests.server import Server, serving

MANIFEST = """
server: {api_keys: {me: {file: me.key}, small: {file: small.key, models: [echo]}}}
chat:
  echo: {backend: echo, description: Says it again.}
  full: {backend: echo, max_concurrent: 1, max_waiting: 0}
  demo: {backend: mlx-lm, path: demo, aliases: [claude-x], defaults: {temperature: 0}}
speech: {voice: {backend: echo, voices: {v: {}}}}
"""
KEY, SMALL = "a-key-of-a-test-0123456789", "another-key-of-a-test-0123456"
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the current weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("messages")
    for name, key in (("me.key", KEY), ("small.key", SMALL)):
        (folder / name).write_text(key)
        (folder / name).chmod(0o600)
    with serving(folder, MANIFEST) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def ask(client: anthropic.Anthropic, text: str, model: str = "demo", **more: Any) -> Message:
    reply: Message = client.messages.create(
        model=model, max_tokens=200, messages=[{"role": "user", "content": text}], **more
    )
    return reply


def test_an_answer_has_text_usage_and_a_reason(client: anthropic.Anthropic) -> None:
    reply = ask(client, "What is the capital of France?", "claude-x", metadata={"user_id": "u"})
    assert [block.type for block in reply.content] == ["text"]
    assert "Paris" in reply.content[0].text
    assert (reply.model, reply.stop_reason, reply.stop_sequence) == ("demo", "end_turn", None)
    assert reply.usage.output_tokens > 0
    assert reply._request_id


def test_a_stream_gives_the_same_message(client: anthropic.Anthropic) -> None:
    question: Any = {"model": "demo", "max_tokens": 200, "messages": [{"role": "user", "content": "Count to five."}]}
    with client.messages.stream(**question) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    whole = client.messages.create(**question)
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert [block.text for block in streamed.content] == [block.text for block in whole.content]
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens


def test_the_count_of_tokens_is_that_of_the_prompt(client: anthropic.Anthropic) -> None:
    for more in ({}, {"tools": [WEATHER]}, {"system": "Be brief."}, {"thinking": {"type": "adaptive"}}):
        counted = client.messages.count_tokens(
            model="demo", messages=[{"role": "user", "content": "What is the weather in Paris?"}], **more
        )
        usage = ask(client, "What is the weather in Paris?", **more).usage
        assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_a_tool_is_called_and_its_result_is_read(client: anthropic.Anthropic) -> None:
    question = "What is the weather in Paris?"
    reply = ask(client, question, tools=[WEATHER], tool_choice={"type": "tool", "name": "get_weather"})
    assert reply.stop_reason == "tool_use"
    [call] = [block for block in reply.content if block.type == "tool_use"]
    assert call.input == {"city": "Paris"}
    answer: Any = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Sunny."}]}
    messages: Any = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": reply.content},
        {"role": "user", "content": [answer]},
    ]
    end = client.messages.create(model="demo", max_tokens=100, tools=[WEATHER], messages=messages)
    assert end.stop_reason == "end_turn"
    assert end.content


def test_a_streamed_call_has_the_same_input(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="demo",
        max_tokens=200,
        tools=[WEATHER],
        tool_choice={"type": "any"},
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
    ) as stream:
        reply = stream.get_final_message()
    assert [block.input for block in reply.content if block.type == "tool_use"] == [{"city": "Paris"}]
    assert reply.stop_reason == "tool_use"


def test_an_answer_keeps_to_a_schema(client: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    reply = ask(client, "Where?", output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(reply.content[0].text)["city"] in ("Paris", "Rome")


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_is_named_and_a_limit_is_a_reason(client: anthropic.Anthropic, stream: bool) -> None:
    def ended(text: str, model: str, **options: Any) -> tuple[Any, ...]:
        messages: Any = [{"role": "user", "content": text}]
        asked: Any = {"model": model, "max_tokens": 50, "messages": messages, **options}
        if stream:
            with client.messages.stream(**asked) as events:
                reply = events.get_final_message()
        else:
            reply = client.messages.create(**asked)
        return reply.content[0].text, reply.stop_reason, reply.stop_sequence

    assert ended("one two three", "echo", stop_sequences=["zwei", " two"]) == ("one", "stop_sequence", " two")
    assert ended("one two three", "echo", max_tokens=2) == ("one two", "max_tokens", None)
    assert ended("Count to five.", "demo", stop_sequences=["3"]) == ("1 2 ", "stop_sequence", "3")


def test_the_last_assistant_message_is_continued(client: anthropic.Anthropic) -> None:
    messages: Any = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of"},
    ]
    reply = client.messages.create(model="demo", max_tokens=50, messages=messages)
    assert reply.content[0].text == " France is Paris."


def test_models_have_anthropics_shape_and_pages(client: anthropic.Anthropic, server: Server) -> None:
    models = list(client.models.list(limit=1))
    assert [(model.id, model.display_name) for model in models] == [
        ("echo", "Says it again."), ("full", "full"), ("demo", "demo"),
    ]  # fmt: skip
    demo = client.models.retrieve("claude-x")
    assert (demo.id, demo.max_input_tokens, demo.lifecycle) == ("demo", 2048, "active")
    assert demo.capabilities is not None
    assert demo.capabilities.structured_outputs.supported
    assert not demo.capabilities.image_input.supported
    plain = server.request("GET", "/v1/models", headers={"x-api-key": KEY}).json()
    assert plain["object"] == "list"


def test_the_capabilities_are_those_of_the_model(server: Server, client: anthropic.Anthropic) -> None:
    ask(client, "hi")
    models = server.request("GET", "/v1/models", headers={"x-api-key": KEY}).json()["data"]
    found = {model["id"]: model for model in models}
    assert found["demo"]["capabilities"] == {
        "tools": True, "forced_tools": True, "json_schema": True, "thinking": True, "thinking_switch": True,
        "thinking_levels": False, "tool_format": "json_tools", "reasoning_format": "think", "vision": False,
        "hearing": False,
    }  # fmt: skip
    assert not any(found["echo"]["capabilities"].values())
    assert (found["demo"]["input"], found["demo"]["output"]) == (["text"], ["text"])
    assert found["voice"]["output"] == ["audio"]


@pytest.mark.parametrize(
    ("request_line", "headers", "body", "error"),
    [
        ("POST /v1/messages", {"x-api-key": "wrong"}, {}, (401, "authentication_error")),
        ("POST /v1/messages", {"x-api-key": KEY, "Host": "evil.example"}, {}, (403, "permission_error")),
        ("POST /v1/messages", {"x-api-key": KEY}, {"model": "nobody"}, (404, "not_found_error")),
        ("POST /v1/messages", {"x-api-key": SMALL}, {"model": "demo"}, (404, "not_found_error")),
        ("POST /v1/messages", {"x-api-key": KEY}, {"model": "voice"}, (400, "invalid_request_error")),
        ("POST /v1/messages", {"x-api-key": KEY}, {"max_tokens": None}, (400, "invalid_request_error")),
        ("POST /v1/messages", {"x-api-key": KEY}, b"[", (400, "invalid_request_error")),
        ("POST /v1/messages", {"x-api-key": KEY}, b" " * 17_000_000, (413, "request_too_large")),
        ("GET /v1/messages", {"x-api-key": KEY}, None, (405, "invalid_request_error")),
        ("POST /v1/messages/batches", {"x-api-key": KEY}, {}, (404, "not_found_error")),
        ("POST /v1/messages/count_tokens", {"x-api-key": KEY}, {"model": "nobody"}, (404, "not_found_error")),
        ("GET /v1/models/nobody", {"x-api-key": KEY, **VERSION}, None, (404, "not_found_error")),
        ("GET /v1/models?limit=0", {"x-api-key": KEY, **VERSION}, None, (400, "invalid_request_error")),
        ("GET /v1/models", {**VERSION}, None, (401, "authentication_error")),
        ("GET /v1/files", {"x-api-key": KEY, **VERSION}, None, (404, "not_found_error")),
    ],
)
def test_every_error_has_anthropics_form(
    server: Server, request_line: str, headers: dict[str, str], body: Any, error: tuple[int, str]
) -> None:
    method, path = request_line.split()
    if isinstance(body, dict):
        full = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], **body}
        body = {key: value for key, value in full.items() if value is not None}
    reply = server.request(method, path, body, headers)
    content = reply.json()
    assert content.keys() == {"type", "error", "request_id"}
    assert (reply.status, content["error"]["type"]) == error
    assert content["type"] == "error"
    assert content["error"]["message"]
    assert content["request_id"] == reply.headers["request-id"]


def test_tools_run_without_a_conversation_that_the_server_keeps(client: anthropic.Anthropic) -> None:
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Get the current weather of a city."""
        return f"It is sunny in {city}."

    asked: Any = {"model": "demo", "max_tokens": 100, "tools": [get_weather]}
    question = {"role": "user", "content": "What is the weather in Paris?"}
    said = client.beta.messages.tool_runner(**asked, messages=[question]).until_done()
    assert said.stop_reason == "end_turn"
    thread = client.beta.messages.thread(model="demo", max_tokens=100)
    with pytest.raises(anthropic.BadRequestError) as refused:
        thread.send(question)
    assert refused.value.body["error"]["details"]["error_code"] == "thread_unsupported_request"


def test_bearer_keys_query_and_beta_headers_are_taken(server: Server) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "anthropic-beta": "x-2026-01-01", **VERSION}
    body = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], "colour": "blue"}
    reply = server.request("POST", "/v1/messages?beta=true", body, headers)
    assert (reply.status, reply.headers["x-ignored-params"]) == (200, "colour")


def test_a_wish_for_thinking_is_named_if_the_model_cannot_think(server: Server) -> None:
    body = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    thinking = {"type": "adaptive"}
    reply = server.request("POST", "/v1/messages", {**body, "thinking": thinking}, {"x-api-key": KEY})
    assert (reply.status, reply.headers["x-unsupported-params"]) == (200, "thinking")


# How events look


EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
THOUGHT = [Delta(1, "hm", reasoning=True), Delta(1, "!", reasoning=True)]
CALLS = [
    ToolStart(1, 0, 0, "c0", "f"), ToolArguments(1, 0, 0, '{"x":'), ToolArguments(1, 0, 0, "1}"),
    ToolStart(1, 0, 1, "c1", "g"), ToolArguments(1, 0, 1, "{}"),
]  # fmt: skip


def reply_to(**more: Any) -> MessagesReply:
    request_context.begin(Counters())
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **more}
    reply = MessagesReply(MessagesRequest.model_validate(body))
    reply.model = "m"
    return reply


def shown(reply: MessagesReply, *events: Event) -> list[Any]:
    sent = b"".join(part for event in events for part in reply.render(event)) + reply.end()
    found = []
    for block in sent.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        content = json.loads(data.removeprefix("data: "))
        assert name == f"event: {content['type']}"
        if content["type"] != "ping":
            EVENTS.validate_python(content)
        found.append(content)
    return found


def kinds(events: list[Any]) -> list[str]:
    return [each.get("delta", {}).get("type") or each["type"].removeprefix("content_block_") for each in events]


def test_all_kinds_of_blocks_come_in_order() -> None:
    events = shown(reply_to(), *THOUGHT, Delta(1, "so"), *CALLS, Ended(1, 0, "tool_calls"), Finished(1, 10, 7, 4, 2))
    assert kinds(events) == [
        "message_start",
        "start", "ping", "thinking_delta", "thinking_delta", "signature_delta", "stop",
        "start", "text_delta", "stop",
        "start", "input_json_delta", "input_json_delta", "stop",
        "start", "input_json_delta", "stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert [each["index"] for each in events if each["type"] == "content_block_start"] == [0, 1, 2, 3]
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    usage = events[-2]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (6, 4, 7)
    assert usage["output_tokens_details"] == {"thinking_tokens": 2}


def test_thoughts_are_left_out_if_the_client_wants_that() -> None:
    events = shown(
        reply_to(thinking={"type": "adaptive", "display": "omitted"}), *THOUGHT, Ended(1, 0, "stop"), Finished(1, 1, 2)
    )
    assert kinds(events)[1:5] == ["start", "ping", "signature_delta", "stop"]


def test_an_empty_answer_is_a_complete_stream() -> None:
    events = shown(reply_to(), Ended(1, 0, "length"), Finished(1, 1, 1))
    assert kinds(events) == ["message_start", "message_delta", "message_stop"]


def test_a_wait_begins_the_message_and_shows_that_it_lives() -> None:
    reply = reply_to()
    waits = reply.progress(Progress("loading", "m")) + reply.progress(Progress("loading", "m"))
    names = [line.removeprefix("event: ") for line in waits.decode().splitlines() if line.startswith("event: ")]
    assert names == ["message_start", "ping", "ping"]
    assert kinds(shown(reply, Delta(1, "hi"), Ended(1, 0, "stop"), Finished(1, 1, 1)))[0] == "start"


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_look_for() -> None:
    error = ContextLengthExceeded("The prompt has 9 tokens; m's context is 8 tokens.")
    assert b"prompt is too long: The prompt has 9 tokens" in reply_to().error(error)


def test_an_error_in_a_stream_is_an_event_of_its_own() -> None:
    reply = reply_to()
    name, data = reply.error(ModelUnavailable("gone")).decode().strip().split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"] == {"type": "overloaded_error", "message": "gone"}


def test_each_piece_of_text_is_for_the_block_that_is_open() -> None:
    pieces = ['"', "\\n", "é ", "\n", "\u2028"]
    said = [Delta(1, each) for each in pieces]
    events = shown(reply_to(), *said, *THOUGHT, *said, Ended(1, 0, "stop"), Finished(1, 10, 7, 4, 2))
    texts = [each for each in events if each.get("delta", {}).get("type") == "text_delta"]
    assert [each["delta"]["text"] for each in texts] == pieces * 2
    assert [each["index"] for each in texts] == [0] * 5 + [2] * 5
