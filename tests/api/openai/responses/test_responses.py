"""`/v1/responses` as OpenAI's official client sees it, on echo and on the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from msgspec import to_builtins
from pydantic import BaseModel

from localapi.api.openai.responses.reply import ResponsesReply
from localapi.api.openai.responses.request import ResponsesRequest, parse_response
from tests.server import Server, serving

MANIFEST = """
server: {api_keys: {me: {file: me.key}, you: {file: you.key}}}
chat:
  echo: {backend: echo}
  demo: {backend: mlx-lm, path: demo, context_length: 400, defaults: {temperature: 0}}
  full: {backend: echo, max_concurrent: 1, max_waiting: 0}
speech: {voice: {backend: echo, voices: {v: {}}}}
"""
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
KEYS = {"me": "a-key-of-a-test-0123456789", "you": "another-key-of-a-test-0123456"}
KILLED = "resp_" + "0" * 32
QUESTION = "What is the weather in Paris?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("responses")
    for name, key in KEYS.items():
        (folder / f"{name}.key").write_text(key)
        (folder / f"{name}.key").chmod(0o600)
    kept = folder / "localapi" / "responses"
    kept.mkdir(parents=True)
    (kept / f"{KILLED}.json").write_text(json.dumps(left_running()))
    with serving(folder, MANIFEST, env={"XDG_STATE_HOME": str(folder)}) as server:
        yield server


def left_running() -> dict[str, Any]:
    """Return a background response as a killed server has stored it."""
    request, _ = parse_response(ResponsesRequest, {"model": "echo", "input": "x", "background": True})
    response = ResponsesReply(request).response
    response.id, response.status = KILLED, "in_progress"
    return {"owner": "me", "response": to_builtins(response), "input": []}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client(api_key=KEYS["me"]) as client:
        yield client


@pytest.fixture(scope="module")
def other(server: Server) -> Iterator[openai.OpenAI]:
    """A client with another key."""
    with server.client(api_key=KEYS["you"]) as client:
        yield client


def test_an_answer_has_text_usage_and_a_status(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="demo", input="What is the capital of France?")
    assert "Paris" in reply.output_text
    assert (reply.model, reply.status, reply.error) == ("demo", "completed", None)
    assert reply.usage
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens


def test_a_stream_gives_the_same_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model="demo", input="Count to five.") as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_response()
    whole = client.responses.create(model="demo", input="Count to five.")
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert streamed.output_text == whole.output_text == "1 2 3 4 5"
    assert streamed.usage
    assert whole.usage
    assert streamed.usage.output_tokens == whole.usage.output_tokens


def test_the_count_of_tokens_is_that_of_the_prompt(client: openai.OpenAI) -> None:
    for more in ({}, {"tools": [WEATHER]}, {"instructions": "Be brief."}):
        counted = client.responses.input_tokens.count(model="demo", input=QUESTION, **more)
        usage = client.responses.create(model="demo", input=QUESTION, **more).usage
        assert usage
        assert counted.input_tokens == usage.input_tokens


def test_a_tool_is_called_and_its_result_is_read(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="demo", input=QUESTION, tools=[WEATHER], tool_choice="required")
    [call] = [item for item in reply.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Paris"}
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 21 degrees."}
    items: Any = [{"role": "user", "content": QUESTION}, *reply.output, result]
    end = client.responses.create(model="demo", input=items, tools=[WEATHER])
    assert end.status == "completed"
    assert "unny" in end.output_text


def test_a_streamed_call_has_the_same_arguments(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "name": "get_weather"}
    with client.responses.stream(model="demo", input=QUESTION, tools=[WEATHER], tool_choice=choice) as stream:
        reply = stream.get_final_response()
    assert [item.arguments for item in reply.output if item.type == "function_call"] == ['{"city": "Paris"}']


def test_a_custom_tool_is_called_with_text(client: openai.OpenAI) -> None:
    tool: Any = {"type": "custom", "name": "note"}
    reply = client.responses.create(
        model="demo", input="Note it.", tools=[tool], tool_choice="required", max_output_tokens=200
    )
    assert [item.type for item in reply.output if item.type != "message"] == ["custom_tool_call"]


class Place(BaseModel):
    city: Literal["Paris", "Rome"]


def test_an_answer_is_parsed_by_a_model_of_the_client(client: openai.OpenAI) -> None:
    reply = client.responses.parse(model="demo", input="Where?", text_format=Place)
    assert reply.output_parsed
    assert reply.output_parsed.city in ("Paris", "Rome")


def test_an_answer_that_is_cut_is_incomplete(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="echo", input="one two three", max_output_tokens=2)
    assert (reply.status, reply.output_text) == ("incomplete", "one two")
    assert reply.incomplete_details
    assert reply.incomplete_details.reason == "max_output_tokens"


def test_what_has_no_effect_is_named(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "web_search"}, {"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]
    reply = client.responses.with_raw_response.create(
        model="echo", input="Hi", tools=tools, max_tool_calls=3, extra_body={"client_metadata": {}}
    )
    named = reply.headers["x-ignored-params"].split(", ")
    assert sorted(named) == ["client_metadata", "max_tool_calls", "tools[0] (web_search)", "tools[1].tools[0] (mcp)"]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "gone"}, 404, "model_not_found"),
        ({"model": "voice"}, 400, "wrong_endpoint"),
        ({"tools": [WEATHER], "tool_choice": "required"}, 400, "unsupported_parameter"),
        ({"text": {"format": {"type": "json_object"}}}, 400, "unsupported_parameter"),
        ({"temperature": 9}, 400, "invalid_value"),
    ],
)
def test_an_error_has_its_status_and_code(
    client: openai.OpenAI, fields: dict[str, Any], status: int, code: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as refused:
            client.responses.create(**{"model": "echo", "input": "Hi", "stream": stream, **fields})
        assert (refused.value.status_code, refused.value.code) == (status, code)


def test_a_chain_is_one_conversation_whose_prompt_stays_cached(client: openai.OpenAI) -> None:
    first = client.responses.create(model="demo", input="What is the capital of France?")
    then = client.responses.create(model="demo", input="Count to five.", previous_response_id=first.id)
    items: Any = [{"role": "user", "content": "What is the capital of France?"}, *first.output]
    whole = client.responses.create(
        model="demo", input=[*items, {"role": "user", "content": "Count to five."}], store=False
    )
    assert then.previous_response_id == first.id
    assert first.usage
    assert then.usage
    assert whole.usage
    assert then.usage.input_tokens == whole.usage.input_tokens
    assert then.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens
    assert whole.usage.input_tokens_details.cached_tokens > then.usage.input_tokens_details.cached_tokens


def test_a_call_is_answered_by_its_id_alone(client: openai.OpenAI) -> None:
    asked = client.responses.create(model="demo", input=QUESTION, tools=[WEATHER], tool_choice="required")
    [call] = [item for item in asked.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 21 degrees."}
    end = client.responses.create(model="demo", input=[result], tools=[WEATHER], previous_response_id=asked.id)
    assert "unny" in end.output_text


def test_a_stored_response_can_be_read_listed_and_deleted(client: openai.OpenAI) -> None:
    made = client.responses.create(model="echo", input="one two", metadata={"a": "b"})
    assert client.responses.retrieve(made.id) == made
    kinds = [event.type for event in client.responses.retrieve(made.id, stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    client.responses.delete(made.id)
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)


def test_the_input_of_a_response_comes_in_pages(client: openai.OpenAI) -> None:
    texts = ["a", "b", "c"]
    items: Any = [{"role": "user", "content": text} for text in texts]
    made = client.responses.create(model="echo", input=items)
    for order, expected in (("asc", texts), ("desc", texts[::-1])):
        listed: Any = client.responses.input_items.list(made.id, order=order, limit=2)  # type: ignore[arg-type]
        assert listed.has_more
        assert [item.content[0].text for item in listed] == expected


def test_an_item_is_named_by_its_id(client: openai.OpenAI) -> None:
    made = client.responses.create(model="echo", input="one two")
    [message] = made.output
    items: Any = [{"role": "user", "content": "x"}, {"type": "item_reference", "id": message.id}]
    again = client.responses.create(model="echo", input=items)
    listed: Any = client.responses.input_items.list(again.id)
    assert listed.data[0].content[0].text == "one two"


def test_what_is_not_stored_cannot_be_read(client: openai.OpenAI) -> None:
    made = client.responses.create(model="echo", input="x", store=False)
    assert made.store is False  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_another_key_cannot_read_continue_or_delete_it(client: openai.OpenAI, other: openai.OpenAI) -> None:
    made = client.responses.create(model="echo", input="secret")
    for call in (other.responses.retrieve, other.responses.delete, other.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        other.responses.create(model="echo", input="x", previous_response_id=made.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
    items: Any = [{"type": "item_reference", "id": made.output[0].id}]
    with pytest.raises(openai.BadRequestError):
        other.responses.create(model="echo", input=items)
    assert client.responses.retrieve(made.id).output_text == "secret"


def test_a_response_in_the_background_is_followed_from_any_event_on(client: openai.OpenAI) -> None:
    begun = client.responses.create(model="demo", input="Tell me a story.", background=True, stream=True)
    first = []
    with begun as stream:  # and left
        for event in stream:
            first.append(event)
            if event.type == "response.output_text.delta":
                break
    response: Any = first[0]
    last = first[-1].sequence_number
    rest = list(client.responses.retrieve(response.response.id, stream=True, starting_after=last))
    assert [event.sequence_number for event in rest] == list(range(last + 1, last + 1 + len(rest)))
    assert [event.type for event in first[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert rest[-1].type == "response.completed"
    assert client.responses.retrieve(response.response.id).status == "completed"


def test_a_response_in_the_background_can_be_cancelled(client: openai.OpenAI) -> None:
    made = client.responses.create(model="demo", input="Tell me a story.", background=True)
    assert made.status == "queued"
    ended = client.responses.cancel(made.id)
    assert ended.status in ("cancelled", "completed")
    assert client.responses.retrieve(made.id).status == ended.status
    in_front = client.responses.create(model="echo", input="x")
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(in_front.id)


def test_what_ran_in_the_background_when_the_server_was_killed_has_failed(client: openai.OpenAI) -> None:
    ended = client.responses.retrieve(KILLED)
    assert ended.status == "failed"
    assert ended.error
    assert ended.error.code == "server_error"
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="echo", input="x", previous_response_id=KILLED)


def test_a_conversation_that_is_too_long_is_refused_or_truncated(client: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": "Count to five."}, {"role": "assistant", "content": "1 2 3 4 5"}] * 40
    items.append({"role": "user", "content": "What is the capital of France?"})
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="demo", input=items)
    assert refused.value.code == "context_length_exceeded"
    raw = client.responses.with_raw_response.create(model="demo", input=items, truncation="auto", max_output_tokens=50)
    reply = raw.parse()
    assert "Paris" in reply.output_text
    assert "truncation (" in raw.headers["x-ignored-params"]
    assert reply.usage
    assert 250 < reply.usage.input_tokens <= 350
    short = client.responses.with_raw_response.create(model="demo", input="Count to five.", truncation="auto")
    assert "x-ignored-params" not in short.headers
