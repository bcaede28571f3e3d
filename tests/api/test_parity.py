"""One conversation in every dialect: the same request reaches the engine, and the same events come out in each form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from localapi.api.answers import collected
from localapi.api.anthropic.messages import Messages
from localapi.api.dialect import Dialect, Reply
from localapi.api.neutral_request import NeutralRequest
from localapi.api.ollama.text import OllamaChat
from localapi.api.openai import wire
from localapi.api.openai.chat import OpenAIChat
from localapi.api.openai.responses.reply import ResponsesReply
from localapi.api.openai.responses.request import ResponsesRequest, parse_response
from localapi.backends.echo import Echo
from localapi.errors import ApiError, GenerationFailed, ModelBusy
from localapi.http import request_context
from localapi.http.replies import encode
from localapi.observability.counters import Counters
from localapi.runtime.registry import Registry
from localapi.worker.protocol import (
    Capabilities,
    Chat,
    Delta,
    Ended,
    Event,
    Finished,
    FunctionTool,
    JsonSchema,
    ToolArguments,
    ToolStart,
)

pytestmark = pytest.mark.everyday

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SAID = {"role": "user", "content": "What is the weather in Paris?"}
FUNCTION = {"name": "get_weather", "description": "Get it.", "parameters": SCHEMA}
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
BODIES: dict[str, dict[str, Any]] = {
    "openai": {
        "model": "m", "max_completion_tokens": 50, "stop": ["END"], "temperature": 0.5, "reasoning_effort": "medium",
        "messages": [
            {"role": "system", "content": "Be brief."}, SAID,
            {"role": "assistant", "content": None, "reasoning_content": "I look.", "tool_calls": [OPENAI_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "Sunny."}, {"role": "user", "content": "And now?"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
    },
    "anthropic": {
        "model": "m", "max_tokens": 50, "stop_sequences": ["END"], "temperature": 0.5, "system": "Be brief.",
        "thinking": {"type": "adaptive"},
        "messages": [
            SAID,
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "I look.", "signature": "s"},
                {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Paris"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "Sunny."}, {"type": "text", "text": "And now?"},
            ]},
        ],
        "tools": [{"name": "get_weather", "description": "Get it.", "input_schema": SCHEMA}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
    "responses": {
        "model": "m", "max_output_tokens": 50, "stop": ["END"], "temperature": 0.5, "instructions": "Be brief.",
        "reasoning": {"effort": "medium"},
        "input": [
            SAID, {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Paris"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "Sunny."},
            {"role": "user", "content": [{"type": "input_text", "text": "And now?"}]},
        ],
        "tools": [{"type": "function", **FUNCTION}],
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA}},
    },
    "ollama": {
        "model": "m", "options": {"num_predict": 50, "stop": ["END"], "temperature": 0.5}, "think": True,
        "messages": [
            {"role": "system", "content": "Be brief."}, SAID,
            {"role": "assistant", "thinking": "I look.",
             "tool_calls": [{"id": "c1", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]},
            {"role": "tool", "tool_name": "get_weather", "content": "Sunny."}, {"role": "user", "content": "And now?"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "format": SCHEMA,
    },
}  # fmt: skip


class Responses:
    """OpenAI's Responses without those that are stored."""

    path = "/v1/responses"
    error_body = staticmethod(wire.error_body)

    def parse(self, content: dict[str, Any]) -> tuple[NeutralRequest, ResponsesReply]:
        request, unknown = parse_response(ResponsesRequest, content)
        return request.neutral([], unknown), ResponsesReply(request, content)


DIALECTS: dict[str, Dialect] = {
    "openai": OpenAIChat(),
    "responses": Responses(),
    "anthropic": Messages(),
    "ollama": OllamaChat(Registry()),
}
EVENTS: list[Event] = [
    Delta(1, "I ", reasoning=True), Delta(1, "think.", reasoning=True), Delta(1, "One "), Delta(1, "moment."),
    ToolStart(1, 0, 0, "c2", "get_weather"), ToolArguments(1, 0, 0, '{"city": '), ToolArguments(1, 0, 0, '"Rome"}'),
]  # fmt: skip
CALLED = [*EVENTS, Ended(1, 0, "tool_calls"), Finished(1, 20, 12, 8, 3)]
STOPPED: list[Event] = [Delta(1, "One "), Ended(1, 0, "stop", "END"), Finished(1, 20, 12)]
LIMITED: list[Event] = [Delta(1, "One "), Ended(1, 0, "length"), Finished(1, 20, 12)]


@pytest.fixture(autouse=True)
def _in_a_request() -> None:
    request_context.begin(Counters())


def engine_request(name: str) -> Chat:
    """Return the engine's request without its ids."""
    request, _ = DIALECTS[name].parse(BODIES[name])
    request.check()
    suited, _ = request.suited_to(Capabilities(thinking=True, thinking_switch=True, thinking_levels=True))
    [chat], _ = suited.for_entry(Echo(backend="echo"))
    assert isinstance(chat, Chat)
    messages = [
        msgspec.structs.replace(
            each,
            name=None,  # Ollama's results name their tool
            calls=[msgspec.structs.replace(call, arguments=as_object(call.arguments)) for call in each.calls],
        )
        for each in chat.messages
    ]
    return msgspec.structs.replace(chat, id=0, original=None, messages=messages)


def as_object(arguments: Any) -> Any:
    return json.loads(arguments) if isinstance(arguments, str) else arguments


@pytest.mark.parametrize("name", ["responses", "anthropic", "ollama"])
def test_the_same_conversation_makes_the_same_request(name: str) -> None:
    found, openai = engine_request(name), engine_request("openai")
    assert isinstance(found.form, JsonSchema)
    assert found.form.closed is (name == "ollama")  # as its own schemas are
    found = msgspec.structs.replace(found, form=msgspec.structs.replace(found.form, closed=False))
    assert found == openai
    assert found.tools == [FunctionTool("get_weather", "Get it.", SCHEMA)]
    assert (found.max_tokens, found.stop, found.template_options) == (50, ["END"], {"reasoning_effort": "medium"})


def reply_of(name: str, *, stream: bool) -> Reply:
    _, reply = DIALECTS[name].parse({**BODIES[name], "stream": stream})
    reply.model = "m"
    return reply


async def whole(name: str, events: list[Event]) -> Any:
    async def source() -> Any:
        for event in events:
            yield msgspec.structs.replace(event)

    answers, usage = await collected(source(), 1)
    return json.loads(encode(reply_of(name, stream=False).whole(answers, usage)))


def streamed(name: str, events: list[Event]) -> Iterator[Any]:
    reply = reply_of(name, stream=True)
    sent = b"".join(part for event in events for part in reply.render(event)) + reply.end()
    for line in sent.decode().splitlines():
        data = line.removeprefix("data: ")
        if data.startswith("{"):
            yield json.loads(data)


def of_openai(reply: Any) -> tuple[Any, ...]:
    [choice] = reply["choices"]
    calls = [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"].get("tool_calls", ())
    ]
    return choice["message"].get("reasoning_content", ""), choice["message"]["content"] or "", calls


def of_anthropic(reply: Any) -> tuple[Any, ...]:
    texts: Mapping[str, str] = {block["type"]: block.get(block["type"], "") for block in reply["content"]}
    calls = [(block["name"], block["input"]) for block in reply["content"] if block["type"] == "tool_use"]
    return texts.get("thinking", ""), texts.get("text", ""), calls


def of_ollama(reply: Any) -> tuple[Any, ...]:
    message = reply["message"]
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())]
    return message.get("thinking", ""), message["content"], calls


def of_responses(reply: Any) -> tuple[Any, ...]:
    texts = {item["type"]: item["content"][0]["text"] for item in reply["output"] if "content" in item}
    calls = [(i["name"], json.loads(i["arguments"])) for i in reply["output"] if i["type"] == "function_call"]
    return texts.get("reasoning", ""), texts.get("message", ""), calls


READERS = {"openai": of_openai, "responses": of_responses, "anthropic": of_anthropic, "ollama": of_ollama}


@pytest.mark.parametrize("name", DIALECTS)
async def test_the_same_events_are_the_same_answer(name: str) -> None:
    found = READERS[name](await whole(name, CALLED))
    assert found == ("I think.", "One moment.", [("get_weather", {"city": "Rome"})])


@pytest.mark.parametrize("name", DIALECTS)
def test_everything_is_in_a_stream(name: str) -> None:
    text = json.dumps(list(streamed(name, CALLED)))
    for piece in ("I ", "think.", "One ", "moment.", "get_weather", "Rome"):
        assert piece in text


@pytest.mark.parametrize(
    ("events", "reasons"),
    [
        (CALLED, ("tool_calls", ("completed", None), ("tool_use", None), "stop")),
        (STOPPED, ("stop", ("completed", None), ("stop_sequence", "END"), "stop")),
        (LIMITED, ("length", ("incomplete", "max_output_tokens"), ("max_tokens", None), "length")),
    ],
)
async def test_the_end_has_its_reason_in_each(events: list[Event], reasons: tuple[Any, ...]) -> None:
    openai, responses, anthropic, ollama = [await whole(name, events) for name in DIALECTS]
    found = (
        openai["choices"][0]["finish_reason"],
        (responses["status"], (responses["incomplete_details"] or {}).get("reason")),
        (anthropic["stop_reason"], anthropic["stop_sequence"]),
        ollama["done_reason"],
    )
    assert found == reasons


async def test_usage_counts_the_same_tokens_in_each() -> None:
    openai, responses, anthropic, ollama = [await whole(name, CALLED) for name in DIALECTS]
    usage = anthropic["usage"]
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert (
        openai["usage"]["prompt_tokens"]
        == prompt
        == responses["usage"]["input_tokens"]
        == ollama["prompt_eval_count"]
        == 20
    )
    assert openai["usage"]["completion_tokens"] == usage["output_tokens"] == ollama["eval_count"] == 12
    assert openai["usage"]["prompt_tokens_details"]["cached_tokens"] == usage["cache_read_input_tokens"] == 8


@pytest.mark.parametrize("error", [ModelBusy("full"), GenerationFailed("broken")])
@pytest.mark.parametrize("name", DIALECTS)
def test_an_error_has_its_message_before_and_in_a_stream(name: str, error: ApiError) -> None:
    before = json.loads(encode(DIALECTS[name].error_body(error)))
    within = reply_of(name, stream=True).error(error).decode().strip().splitlines()[-1]
    for found in (before, json.loads(within[within.index("{") :])):
        told = found["error"]
        assert (told if isinstance(told, str) else told["message"]) == error.message
