"""Engine events as the items and events of a response, checked with the types of OpenAI's client."""

from __future__ import annotations

import functools
import json
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from localapi.api.answers import collected
from localapi.api.openai.responses.items import sealed
from localapi.api.openai.responses.reply import ResponsesReply
from localapi.api.openai.responses.request import ResponsesRequest, parse_response
from localapi.errors import GenerationFailed, ModelBusy
from localapi.http import request_context
from localapi.http.replies import encode
from localapi.observability.counters import Counters
from localapi.runtime.progress import Progress
from localapi.worker.protocol import Delta, Ended, Event, Finished, TokenLogprob, ToolArguments, ToolStart, TopLogprob

pytestmark = pytest.mark.everyday

TOOLS = [{"type": "function", "name": "look", "parameters": {}}, {"type": "custom", "name": "patch"}]
TOKEN = TokenLogprob(b"One ", -0.5, [TopLogprob(b"One ", -0.5)])
ALL: list[Event] = [
    Delta(1, "I ", reasoning=True), Delta(1, "think.", reasoning=True),
    Delta(1, "", logprobs=[TOKEN]), Delta(1, "One "), Delta(1, "moment."),
    ToolStart(1, 0, 0, "c1", "look"), ToolStart(1, 0, 1, "c2", "patch"),
    ToolArguments(1, 0, 0, '{"at": '), ToolArguments(1, 0, 1, '{"input": "a\\nb"}'), ToolArguments(1, 0, 0, "1}"),
    Ended(1, 0, "tool_calls"), Finished(1, 20, 12, 8, 3),
]  # fmt: skip


@functools.cache
def client_type(name: str) -> TypeAdapter[Any]:
    """Return the official client's type; its package is imported for the first of them."""
    return TypeAdapter(pkgutil.resolve_name(f"openai.types.responses:{name}"))


@pytest.fixture(autouse=True)
def _in_a_request() -> None:
    request_context.begin(Counters())


def reply_to(**fields: Any) -> ResponsesReply:
    content = {"model": "m", "input": "Hi", **fields}
    request, _ = parse_response(ResponsesRequest, content)
    return ResponsesReply(request, content)


def events_in(sent: bytes) -> Iterator[Any]:
    """The events of a stream, each valid for the client and numbered without a gap."""
    number = 0
    for block in sent.decode().split("\n\n"):
        name, _, data = block.partition("\ndata: ")
        if not data:
            continue
        event = json.loads(data)
        assert name == f"event: {event['type']}"
        client_type("ResponseStreamEvent").validate_python(event)
        assert event["sequence_number"] == number
        number += 1
        yield event


def streamed(events: list[Event], **fields: Any) -> list[Any]:
    reply = reply_to(**fields)
    sent = b"".join(part for event in events for part in reply.render(event)) + reply.end()
    assert sent.endswith(b"data: [DONE]\n\n")
    return list(events_in(sent))


async def whole(events: list[Event], **fields: Any) -> Any:
    async def source() -> Any:
        for event in events:
            yield event

    response = json.loads(encode(reply_to(**fields).whole(*await collected(source(), 1))))
    client_type("Response").validate_python(response)
    return response


def without_names(response: Any) -> Any:
    """Return a response without ids."""
    items = [{key: value for key, value in item.items() if key != "id"} for item in response["output"]]
    return {**response, "id": "", "created_at": 0, "completed_at": 0, "output": items}


async def test_a_stream_ends_with_the_response_that_is_sent_whole() -> None:
    said: dict[str, Any] = {"tools": TOOLS, "include": ["message.output_text.logprobs"]}
    events = streamed(ALL, **said)
    assert without_names(events[-1]["response"]) == without_names(await whole(ALL, **said))


def test_each_item_begins_grows_and_ends() -> None:
    events = streamed(ALL, tools=TOOLS)
    assert [event["type"].removeprefix("response.") for event in events] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "output_item.added"),
        *("function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        *("custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"),
        "completed",
    ]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    thought, message, call, custom = done
    assert thought["content"] == [{"type": "reasoning_text", "text": "I think."}]
    assert [part["text"] for part in message["content"]] == ["One moment."]
    assert (call["call_id"], call["name"], call["arguments"]) == ("c1", "look", '{"at": 1}')
    assert (custom["type"], custom["call_id"], custom["input"]) == ("custom_tool_call", "c2", "a\nb")
    assert {item["status"] for item in done} == {"completed"}


def test_the_deltas_of_an_item_make_its_text() -> None:
    grown: dict[str, str] = {}
    events = streamed(ALL, tools=TOOLS)
    for event in events:
        if event["type"].endswith(".delta"):
            grown[event["item_id"]] = grown.get(event["item_id"], "") + event["delta"]
    assert list(grown.values()) == ["I think.", "One moment.", '{"at": 1}', "a\nb"]
    assert list(grown) == [item["id"] for item in events[-1]["response"]["output"]]


def test_each_piece_of_text_is_the_same_event_as_the_first() -> None:
    pieces = ['"', "\\n", "é ", "\n", "\u2028", " "]
    whole = streamed([Delta(1, each) for each in pieces])
    refused = Delta(1, "No.", refusal=True)
    in_turn = streamed([event for each in pieces for event in (Delta(1, each), refused)])
    deltas = [[event for event in events if event["type"].endswith("text.delta")] for events in (whole, in_turn)]
    assert [[event["delta"] for event in events] for events in deltas] == [pieces, pieces]
    assert len({tuple(event) for events in deltas for event in events}) == 1
    assert [event["content_index"] for event in deltas[0]] == [0] * len(pieces)
    assert [event["content_index"] for event in deltas[1]] == list(range(0, 2 * len(pieces), 2))


async def test_thoughts_are_a_summary_if_one_is_asked_for() -> None:
    reasoning = {"effort": "low", "summary": "auto"}
    events = streamed(ALL, tools=TOOLS, reasoning=reasoning)
    kinds = [event["type"].removeprefix("response.") for event in events if "reasoning" in event["type"]]
    assert kinds == [
        *("reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done"),
    ]
    thought = events[-1]["response"]["output"][0]
    assert thought["summary"] == [{"type": "summary_text", "text": "I think."}]
    assert "content" not in thought
    assert "encrypted_content" not in thought


async def test_thoughts_are_sealed_if_that_is_asked_for() -> None:
    response = await whole(ALL, tools=TOOLS, include=["reasoning.encrypted_content"])
    assert response["output"][0]["encrypted_content"] == sealed("I think.")


def test_log_probabilities_come_with_the_text_of_their_tokens() -> None:
    events = streamed(ALL, tools=TOOLS, include=["message.output_text.logprobs"])
    first = next(event for event in events if event["type"] == "response.output_text.delta")
    assert [(each["token"], each["logprob"]) for each in first["logprobs"]] == [("One ", -0.5)]
    assert events[-1]["response"]["output"][1]["content"][0]["logprobs"] == first["logprobs"]


@pytest.mark.parametrize(
    ("reason", "said", "details"),
    [("stop", "completed", None), ("length", "incomplete", "max_output_tokens"),
     ("content_filter", "incomplete", "content_filter")],
)  # fmt: skip
async def test_the_status_says_how_the_answer_ended(reason: Any, said: str, details: str | None) -> None:
    events: list[Event] = [Delta(1, "One "), Ended(1, 0, reason), Finished(1, 20, 12)]
    last = streamed(events)[-1]
    assert last["type"] == f"response.{said}"
    for response in (last["response"], await whole(events)):
        assert response["status"] == said
        assert (response["incomplete_details"] or {}).get("reason") == details
        assert response["output"][0]["status"] == ("incomplete" if reason == "length" else "completed")


async def test_a_refusal_is_a_part_of_its_own() -> None:
    events: list[Event] = [Delta(1, "No.", refusal=True), Ended(1, 0, "stop"), Finished(1, 1, 1)]
    assert [event["type"] for event in streamed(events)][3:6] == [
        "response.content_part.added", "response.refusal.delta", "response.refusal.done",
    ]  # fmt: skip
    assert (await whole(events))["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]


async def test_an_empty_answer_has_no_items() -> None:
    events: list[Event] = [Ended(1, 0, "stop"), Finished(1, 1, 0)]
    assert (await whole(events))["output"] == []
    assert [event["type"] for event in streamed(events)] == [
        "response.created", "response.in_progress", "response.completed",
    ]  # fmt: skip


async def test_usage_says_what_was_cached_and_thought() -> None:
    usage = (await whole(ALL, tools=TOOLS))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (20, 12, 32)
    assert usage["input_tokens_details"]["cached_tokens"] == 8
    assert usage["output_tokens_details"]["reasoning_tokens"] == 3
    uncounted = [*ALL[:-1], Finished(1, 0, 0, counted=False)]
    assert (await whole(uncounted, tools=TOOLS))["usage"] is None


@pytest.mark.parametrize(
    ("error", "code"), [(ModelBusy("full"), "rate_limit_exceeded"), (GenerationFailed("broken"), "server_error")]
)
def test_an_error_ends_a_stream_that_has_begun(error: Any, code: str) -> None:
    reply = reply_to()
    sent = b"".join(reply.render(Delta(1, "One "))) + reply.error(error)
    *_, failed, told = events_in(sent)
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": code, "message": error.message}
    assert failed["response"]["output"][0]["content"][0]["text"] == "One "
    assert told["error"]["message"] == told["message"] == error.message


def test_a_stream_begins_while_its_request_waits() -> None:
    reply = reply_to()
    sent = reply.progress(Progress("waiting", "m")) + reply.progress(Progress("waiting", "m"))
    assert [event["type"] for event in events_in(sent)] == ["response.created", "response.in_progress"]


async def test_a_response_says_what_was_asked() -> None:
    response = await whole(
        ALL,
        tools=TOOLS,
        tool_choice={"type": "function", "name": "look"},
        metadata={"a": "b"},
        temperature=0.5,
        max_output_tokens=9,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
    )
    assert [tool["name"] for tool in response["tools"]] == ["look", "patch"]
    assert response["tool_choice"] == {"type": "function", "name": "look"}
    assert response["metadata"] == {"a": "b"}
    assert (response["temperature"], response["max_output_tokens"]) == (0.5, 9)
    assert response["text"]["format"]["schema"] == {"type": "object"}
    assert response["text"]["verbosity"] == "low"


def test_a_call_of_a_tool_in_a_namespace_is_told_with_its_own_name_and_the_namespace() -> None:
    space = {"type": "namespace", "name": "fs", "description": "Files.", "tools": TOOLS}
    called = [
        ToolStart(1, 0, 0, "c1", "fs__look"), ToolArguments(1, 0, 0, "{}"),
        ToolStart(1, 0, 1, "c2", "fs__patch"), ToolArguments(1, 0, 1, '{"input": "a"}'),
        Ended(1, 0, "tool_calls"), Finished(1, 1, 1),
    ]  # fmt: skip
    *_, end = streamed([*called], tools=[space])
    items = [(item["type"], item["namespace"], item["name"]) for item in end["response"]["output"]]
    assert items == [("function_call", "fs", "look"), ("custom_tool_call", "fs", "patch")]
    assert end["response"]["tools"] == [space]
