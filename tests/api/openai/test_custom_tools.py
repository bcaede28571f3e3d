"""Custom tools in chat completions: what the engine is told of them, and how their calls look."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from localapi.api.answers import collected
from localapi.api.openai.chat import ChatReply, OpenAIChat
from localapi.errors import InvalidRequest
from localapi.http.replies import encode
from localapi.worker.protocol import Chat, Delta, Ended, Event, Finished, ToolArguments, ToolStart

pytestmark = pytest.mark.everyday

FUNCTION = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CUSTOM = {"type": "custom", "custom": {"name": "patch", "description": "Apply a patch."}}
CALLS: list[Event] = [
    Delta(1, "Yes. "),
    ToolStart(1, 0, 0, "c1", "look"), ToolArguments(1, 0, 0, '{"at": 1}'),
    ToolStart(1, 0, 1, "c2", "patch"), ToolArguments(1, 0, 1, '{"input": '), ToolArguments(1, 0, 1, '"a\\nb"}'),
    Ended(1, 0, "tool_calls"), Finished(1, 20, 12),
]  # fmt: skip


def parsed(**more: Any) -> tuple[Chat, ChatReply]:
    content = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [FUNCTION, CUSTOM], **more}
    request, reply = OpenAIChat().parse(content)
    if request.refusal is not None:
        raise request.refusal
    [chat] = request.asks
    assert isinstance(chat, Chat)
    return chat, reply


def test_the_engine_gets_a_function_of_one_text() -> None:
    chat, _ = parsed()
    look, patch = chat.tools
    assert look.parameters == {"type": "object"}
    assert (patch.name, patch.description) == ("patch", "Apply a patch.")
    assert patch.parameters is not None
    assert patch.parameters["required"] == ["input"]


def test_a_custom_tool_can_be_the_choice() -> None:
    chosen, _ = parsed(tool_choice={"type": "custom", "custom": {"name": "patch"}})
    assert (chosen.tool_choice, chosen.tool_name) == ("required", "patch")
    tools = [{"type": "custom", "custom": {"name": "patch"}}]
    allowed, _ = parsed(tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools}})
    assert [tool.name for tool in allowed.tools] == ["patch"]


@pytest.mark.parametrize("tool", [{"type": "custom"}, {"type": "custom", "custom": {}}, {"type": "other"}])
def test_a_tool_of_no_known_form_is_refused_by_its_place(tool: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parsed(tools=[tool])
    assert str(refusal.value.param).startswith("tools[0]")


def test_an_earlier_call_holds_its_text() -> None:
    call = {"id": "c2", "type": "custom", "custom": {"name": "patch", "input": "a\nb"}}
    said = [
        {"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c2", "content": "ok"},
    ]  # fmt: skip
    chat, _ = parsed(messages=said)
    [made] = chat.messages[1].calls
    assert (made.id, made.name, made.arguments) == ("c2", "patch", {"input": "a\nb"})


async def test_a_whole_answer_has_the_text_of_its_call() -> None:
    async def source() -> Any:
        for event in CALLS:
            yield event

    _, reply = parsed()
    completion = json.loads(encode(reply.whole(*await collected(source(), 1))))
    look, patch = ChatCompletion.model_validate(completion).choices[0].message.tool_calls or []
    assert look.type == "function"
    assert look.function.arguments == '{"at": 1}'
    assert patch.type == "custom"
    assert (patch.id, patch.custom.name, patch.custom.input) == ("c2", "patch", "a\nb")


def test_a_stream_has_the_text_of_its_call_once_it_is_complete() -> None:
    _, reply = parsed(stream=True)
    sent = b"".join(part for event in CALLS for part in reply.render(event)).decode()
    chunks = [json.loads(block.removeprefix("data: ")) for block in sent.split("\n\n") if block]
    grown = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [call["function"] for call in grown if "function" in call] == [
        {"name": "look", "arguments": ""}, {"arguments": '{"at": 1}'},
    ]  # fmt: skip
    assert [call for call in grown if "custom" in call] == [
        {"index": 1, "id": "c2", "type": "custom", "custom": {"name": "patch", "input": ""}},
        {"index": 1, "custom": {"input": "a\nb"}},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
