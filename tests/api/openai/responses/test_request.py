"""Bodies of `POST /v1/responses` as conversations: items, tools, forms, and what has no effect."""

from __future__ import annotations

from typing import Any

import pytest

from localapi.api.openai.responses.items import sealed
from localapi.api.openai.responses.request import ResponsesRequest, parse_response
from localapi.errors import InvalidRequest
from localapi.worker.protocol import (
    Chat,
    FunctionCall,
    FunctionTool,
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    TextPart,
)

pytestmark = pytest.mark.everyday

CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
FUNCTION = {"type": "function", "name": "look", "description": "Look.", "parameters": {"type": "object"}}


def read(body: Any) -> Any:
    request, unknown = parse_response(ResponsesRequest, {"model": "m", **body})
    neutral = request.neutral([], unknown)
    neutral.check()
    return neutral


def request_of(items: Any, **fields: Any) -> tuple[Chat, Any]:
    neutral = read({"input": items, **fields})
    [chat] = neutral.asks
    assert isinstance(chat, Chat)
    return chat, neutral


def said(text: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": text}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ("Hi", [Message("user", "Hi")]),
        ([said("Hi")], [Message("user", "Hi")]),
        ([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
         [Message("user", "Hi")]),
        ([{"role": "user", "content": [{"type": "input_text", "text": "A"}, {"type": "input_text", "text": "B"}]}],
         [Message("user", [TextPart("A"), TextPart("B")])]),
        ([said("A", "system"), said("B", "developer"), said("C")],
         [Message("system", [TextPart("A"), TextPart("B")]), Message("user", "C")]),
        ([said("A"), said("B", "assistant"), said("C")],
         [Message("user", "A"), Message("assistant", "B"), Message("user", "C")]),
        ([said("A"), {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
                      "content": [{"type": "output_text", "text": "B", "annotations": [], "logprobs": []}]}],
         [Message("user", "A"), Message("assistant", "B")]),
        ([said("A"), {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
         [Message("user", "A"), Message("assistant", "No.")]),
        ([said("A"), {"type": "reasoning", "id": "rs_1", "summary": [], "content": [
            {"type": "reasoning_text", "text": "I think."}]}, said("B", "assistant"), CALL,
          {"type": "function_call_output", "call_id": "c1", "output": "Done."}],
         [Message("user", "A"),
          Message("assistant", "B", reasoning="I think.", calls=[FunctionCall("c1", "look", "{}")]),
          Message("tool", "Done.", call_id="c1")]),
        ([said("A"), {"type": "reasoning", "summary": [{"type": "summary_text", "text": "S"}]}, CALL],
         [Message("user", "A"), Message("assistant", reasoning="S", calls=[FunctionCall("c1", "look", "{}")])]),
        ([said("A"), {"type": "reasoning", "summary": [], "encrypted_content": sealed("Q")}, said("B", "assistant")],
         [Message("user", "A"), Message("assistant", "B", reasoning="Q")]),
        ([said("A"), {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}, said("B", "assistant")],
         [Message("user", "A"), Message("assistant", "B")]),
        ([said("A"), CALL, {**CALL, "call_id": "c2"},
          {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
          {"type": "function_call_output", "call_id": "c1", "output": "1"}],
         [Message("user", "A"), Message("assistant", calls=[FunctionCall("c1", "look", "{}"),
                                                            FunctionCall("c2", "look", "{}")]),
          Message("tool", "2", call_id="c2"), Message("tool", "1", call_id="c1")]),
        ([said("A"), {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "x"},
          {"type": "custom_tool_call_output", "call_id": "c1", "output": "y"}],
         [Message("user", "A"), Message("assistant", calls=[FunctionCall("c1", "patch", {"input": "x"})]),
          Message("tool", "y", call_id="c1")]),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "data:x", "detail": "auto"}]}],
         [Message("user", [ImagePart("data:x", "auto")])]),
    ],
)  # fmt: skip
def test_items_make_a_conversation(items: Any, messages: list[Message]) -> None:
    chat, neutral = request_of(items)
    assert chat.messages == messages
    assert neutral.ignored == []


def test_instructions_come_first_and_take_in_what_instructs() -> None:
    chat, _ = request_of([said("B", "developer"), said("C")], instructions="A")
    assert chat.messages == [Message("system", [TextPart("A"), TextPart("B")]), Message("user", "C")]


def test_functions_and_custom_tools_are_tools() -> None:
    custom = {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}}
    chat, neutral = request_of("Hi", tools=[{**FUNCTION, "strict": True}, custom])
    assert chat.tools[0] == FunctionTool("look", "Look.", {"type": "object"}, True)
    assert chat.tools[1].parameters is not None
    assert chat.tools[1].parameters["required"] == ["input"]
    assert neutral.ignored == ["tools[1].format"]


@pytest.mark.parametrize(
    "kind", ["web_search", "file_search", "computer_use_preview", "code_interpreter", "mcp", "local_shell"]
)
def test_tools_that_cannot_be_run_are_named(kind: str) -> None:
    tools = [FUNCTION, {"type": kind, "name": "n", "tools": [FUNCTION], "vector_store_ids": ["v"]}]
    chat, neutral = request_of("Hi", tools=tools)
    assert [tool.name for tool in chat.tools] == ["look"]
    assert neutral.ignored == [f"tools[1] ({kind})"]


SPACE = {
    "type": "namespace",
    "name": "mcp__files",
    "description": "Files.",
    "tools": [FUNCTION, {"type": "custom", "name": "patch"}, {"type": "mcp", "server_label": "x"}],
}


def test_tools_in_a_namespace_are_offered_with_both_names() -> None:
    chat, neutral = request_of("Hi", tools=[FUNCTION, SPACE])
    names = [(tool.name, tool.description) for tool in chat.tools]
    assert names == [("look", "Look."), ("mcp__files__look", "Look."), ("mcp__files__patch", "Files.")]
    assert neutral.ignored == ["tools[1].tools[2] (mcp)"]


@pytest.mark.parametrize(
    ("choice", "tools", "name"),
    [
        ({"type": "function", "name": "patch"}, 3, "mcp__files__patch"),
        ({"type": "function", "name": "mcp__files__look"}, 3, "mcp__files__look"),
        ({"type": "function", "name": "look"}, 3, "look"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "namespace", "name": "mcp__files"}]}, 2, None),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "patch"}]}, 1, None),
    ],
)
def test_a_choice_names_a_tool_with_its_namespace_or_without(choice: Any, tools: int, name: str | None) -> None:
    chat, _ = request_of("Hi", tools=[FUNCTION, SPACE], tool_choice=choice)
    assert (len(chat.tools), chat.tool_name) == (tools, name)


def test_calls_in_history_have_the_namespace_in_their_names() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "look", "namespace": "mcp__files", "arguments": "{}"}
    chat, _ = request_of([said("A"), call, {"type": "function_call_output", "call_id": "c", "output": "B"}])
    assert [each.name for message in chat.messages for each in message.calls] == ["mcp__files__look"]


def test_items_of_tools_that_cannot_be_run_are_named() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    chat, neutral = request_of([said("A"), search, said("B")])
    assert [message.content for message in chat.messages] == ["A", "B"]
    assert neutral.ignored == ["input[1] (web_search_call)"]


@pytest.mark.parametrize(
    ("choice", "mode", "name"),
    [
        ("auto", "auto", None), ("none", "none", None), ("required", "required", None),
        ({"type": "function", "name": "look"}, "required", "look"),
        ({"type": "custom", "name": "patch"}, "required", "patch"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]}, "auto", None),
    ],
)  # fmt: skip
def test_a_choice_of_tools_is_taken(choice: Any, mode: str, name: str | None) -> None:
    chat, _ = request_of("Hi", tools=[FUNCTION, {"type": "custom", "name": "patch"}], tool_choice=choice)
    assert (chat.tool_choice, chat.tool_name) == (mode, name)
    allowed = ["look"] if isinstance(choice, dict) and "tools" in choice else ["look", "patch"]
    assert [tool.name for tool in chat.tools] == allowed


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "text"}, None), ({"type": "json_object"}, JsonObject()),
        ({"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}, JsonSchema('{"a": 1}', True)),
    ],
)  # fmt: skip
def test_a_format_is_a_form(form: Any, expected: Any) -> None:
    assert request_of("Hi", text={"format": form})[0].form == expected


@pytest.mark.parametrize(
    ("fields", "likely"),
    [
        ({}, None), ({"top_logprobs": 3}, 3), ({"top_logprobs": 0}, None),
        ({"include": ["message.output_text.logprobs"]}, 0),
    ],
)  # fmt: skip
def test_log_probabilities_are_asked_for(fields: Any, likely: int | None) -> None:
    assert request_of("Hi", **fields)[0].top_logprobs == likely


def test_parameters_are_taken_by_their_names_here_and_in_chat() -> None:
    _, neutral = request_of("Hi", max_output_tokens=5, temperature=0.5, reasoning={"effort": "high"}, seed=1, stop="X")
    assert neutral.said.model_dump(exclude_none=True) == {
        "max_tokens": 5, "temperature": 0.5, "reasoning_effort": "high", "seed": 1, "stop": "X",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text": {"verbosity": "high"}}, ["text.verbosity"]),
        ({"text": {"verbosity": "medium"}, "service_tier": "auto", "prompt_cache_key": "k", "store": False}, []),
        ({"include": ["file_search_call.results"]}, ["include (file_search_call.results)"]),
        ({"max_tool_calls": 3}, ["max_tool_calls"]),
        ({"client_metadata": {}, "service_tier": "flex"}, ["client_metadata", "service_tier"]),
    ],
)
def test_fields_without_effect_are_named(fields: Any, named: list[str]) -> None:
    assert request_of("Hi", **fields)[1].ignored == named


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"id": "msg_1"}]}, "input[0].id"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice"),
        ({"input": "x", "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"input": "x", "tools": [FUNCTION], "tool_choice": {"type": "function", "name": "no"}}, "tool_choice"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "top_logprobs": 21}, "top_logprobs"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata.a"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format"),
        ({"input": "x", "reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "temperature": 3}, "temperature"),
    ],
)
def test_a_bad_body_is_refused_by_the_name_of_its_field(body: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body)
    assert refused.value.param == param
