"""A real chat model, SmolLM2-135M: what it says makes sense through every dialect, in streams, schemas and calls."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from anthropic import Anthropic
from ollama import Client as Ollama
from openai import OpenAI

from tests.bench import smollm2
from tests.made_once import folder_of_the_run, made_once
from tests.server import Server, serving, stream_text

pytestmark = pytest.mark.long

MANIFEST = """chat:
  smol: {{backend: mlx-lm, path: '{path}', tool_format: generic, defaults: {{temperature: 0}}}}
"""
CAPITAL = "What is the capital of France? Answer in one short sentence."
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
DESCRIBED = "Anna is 31 years old and lives in Rome. Extract her name and age."
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 40}}, "required": ["city"]}
ASKED = "What is the weather in Paris?"
STORY = "The lighthouse keeper counted ships every evening and wrote their names into a heavy book. "
BLUE = "The keeper's secret word is BLUEBIRD. "


@pytest.fixture(scope="module")
def smollm2_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in the form that a CPU computes with; kept for the next run where families are."""
    kept = os.environ.get("LOCALAPI_FAMILIES")
    place = (Path(kept) if kept else folder_of_the_run(tmp_path_factory)) / "smollm2"
    try:
        return made_once(place, smollm2.made) / "float32"
    except smollm2.NotThere as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server(smollm2_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("smol"), MANIFEST.format(path=smollm2_model)) as running:
        yield running


@pytest.fixture(scope="module")
def openai(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=250) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic(server: Server) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=250) as client:
        yield client


@pytest.fixture(scope="module")
def ollama(server: Server) -> Iterator[Ollama]:
    with Ollama(host=server.url, timeout=250) as client:
        yield client


def test_it_knows_the_capital_of_france_in_every_dialect(openai: OpenAI, anthropic: Anthropic, ollama: Ollama) -> None:
    said: list[Any] = [{"role": "user", "content": CAPITAL}]
    chat = openai.chat.completions.create(model="smol", messages=said, max_tokens=30)
    response = openai.responses.create(model="smol", input=CAPITAL, max_output_tokens=30)
    message: Any = anthropic.messages.create(model="smol", messages=said, max_tokens=30)
    reply = ollama.chat("smol", messages=said, options={"num_predict": 30})
    texts = {chat.choices[0].message.content, response.output_text, message.content[0].text, reply.message.content}
    assert len(texts) == 1
    assert "Paris" in str(texts)
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == response.usage.input_tokens == reply.prompt_eval_count  # type: ignore[union-attr]


def test_streams_say_the_same(openai: OpenAI, anthropic: Anthropic, ollama: Ollama) -> None:
    said: list[Any] = [{"role": "user", "content": CAPITAL}]
    chat = stream_text(openai.chat.completions.create(model="smol", messages=said, max_tokens=30, stream=True))
    with openai.responses.stream(model="smol", input=CAPITAL, max_output_tokens=30) as events:
        response = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    with anthropic.messages.stream(model="smol", messages=said, max_tokens=30) as stream:
        message = "".join(stream.text_stream)
    parts = ollama.chat("smol", messages=said, options={"num_predict": 30}, stream=True)
    reply = "".join(part.message.content or "" for part in parts)
    assert "Paris" in chat
    assert {chat, response, message, reply} == {chat}


def test_an_answer_by_a_schema_is_valid_and_right(openai: OpenAI, anthropic: Anthropic, ollama: Ollama) -> None:
    said: list[Any] = [{"role": "user", "content": DESCRIBED}]
    schema = {"name": "person", "schema": PERSON, "strict": True}
    chat = openai.chat.completions.create(
        model="smol",
        messages=said,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": schema},  # type: ignore[typeddict-item]
    )
    response = openai.responses.create(
        model="smol",
        input=DESCRIBED,
        max_output_tokens=60,
        text={"format": {"type": "json_schema", **schema}},  # type: ignore[typeddict-item]
    )
    form: Any = {"format": {"type": "json_schema", "schema": PERSON}}
    message: Any = anthropic.messages.create(model="smol", messages=said, max_tokens=60, output_config=form)
    reply = ollama.chat("smol", messages=said, format=PERSON, options={"num_predict": 60})
    found = (chat.choices[0].message.content, response.output_text, message.content[0].text, reply.message.content)
    for text in found:
        person = json.loads(text or "")
        jsonschema.validate(person, PERSON)
        assert ("Anna" in person["name"], person["age"]) == (True, 31)


def test_a_forced_call_has_the_city_of_the_question(openai: OpenAI, anthropic: Anthropic) -> None:
    said: list[Any] = [{"role": "user", "content": ASKED}]
    function = {"name": "get_weather", "description": "Get the weather in a city.", "parameters": CITY}
    chat: Any = openai.chat.completions.create(
        model="smol",
        messages=said,
        tools=[{"type": "function", "function": function}],
        tool_choice="required",
        max_tokens=60,  # type: ignore[list-item]
    )
    response: Any = openai.responses.create(
        model="smol",
        input=ASKED,
        tools=[{"type": "function", **function}],
        tool_choice="required",
        max_output_tokens=60,  # type: ignore[list-item]
    )
    message: Any = anthropic.messages.create(
        model="smol", messages=said, max_tokens=60, tool_choice={"type": "any"},
        tools=[{"name": "get_weather", "description": "Get the weather in a city.", "input_schema": CITY}],
    )  # fmt: skip
    call = chat.choices[0].message.tool_calls[0].function
    for name, arguments in (
        (call.name, json.loads(call.arguments)),
        (response.output[0].name, json.loads(response.output[0].arguments)),
        (message.content[0].name, message.content[0].input),
    ):
        assert name == "get_weather"
        assert "Paris" in arguments["city"]


def test_the_result_of_a_call_is_used(openai: OpenAI, ollama: Ollama) -> None:
    function = {"name": "get_weather", "description": "Get the weather in a city.", "parameters": CITY}
    call = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    said: list[Any] = [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is snowing in Paris."},
    ]
    chat: Any = openai.chat.completions.create(model="smol", messages=said, max_tokens=40)
    assert "snow" in chat.choices[0].message.content
    theirs: list[Any] = [
        said[0],
        {"role": "assistant", "tool_calls": [{"function": {**call, "arguments": {"city": "Paris"}}}]},
        {"role": "tool", "tool_name": "get_weather", "content": "It is snowing in Paris."},
    ]
    tools: list[Any] = [{"type": "function", "function": function}]
    reply = ollama.chat("smol", messages=theirs, options={"num_predict": 40})
    assert reply.message.content == chat.choices[0].message.content
    offered = ollama.chat("smol", messages=said[:1], tools=tools, options={"num_predict": 60}).message
    assert offered.content or offered.tool_calls


def test_a_long_prompt_is_read_to_its_end_and_kept_for_the_next_turn(openai: OpenAI) -> None:
    text = STORY * 25 + BLUE + STORY * 25
    said: list[Any] = [{"role": "user", "content": f"{text}\nWhat is the keeper's secret word?"}]
    first: Any = openai.chat.completions.create(model="smol", messages=said, max_tokens=24)
    assert first.usage.prompt_tokens > 800
    assert "BLUEBIRD" in first.choices[0].message.content.upper()
    again: Any = openai.chat.completions.create(
        model="smol",
        messages=[
            *said,
            {"role": "assistant", "content": first.choices[0].message.content},
            {"role": "user", "content": "Thanks."},
        ],
        max_tokens=8,
    )
    assert again.usage.prompt_tokens_details.cached_tokens > 800
