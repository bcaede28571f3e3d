"""`/v1/responses` as OpenAI's official client sees it, on echo and on the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.server import Server, serving

MANIFEST = """
chat:
  echo: {backend: echo}
  demo: {backend: mlx-lm, path: demo, defaults: {temperature: 0}}
  full: {backend: echo, max_concurrent: 1, max_waiting: 0}
speech: {voice: {backend: echo, voices: {v: {}}}}
"""
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
QUESTION = "What is the weather in Paris?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("responses")
    with serving(folder, MANIFEST, env={"XDG_STATE_HOME": str(folder)}) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as client:
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
    tools: Any = [{"type": "web_search"}, {"type": "namespace", "name": "n", "tools": [WEATHER]}]
    reply = client.responses.with_raw_response.create(
        model="echo", input="Hi", tools=tools, max_tool_calls=3, extra_body={"client_metadata": {}}
    )
    named = reply.headers["x-ignored-params"].split(", ")
    assert sorted(named) == ["client_metadata", "max_tool_calls", "tools[0] (web_search)", "tools[1] (namespace)"]


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
