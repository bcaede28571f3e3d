"""Anthropic's bodies as engines get them: conversation, tools and parameters."""

from __future__ import annotations

from typing import Any

import pytest

from localapi.api.anthropic.messages import Messages
from localapi.backends.echo import Echo
from localapi.backends.parameters import TEXT, ChatParameters
from localapi.errors import InvalidRequest
from localapi.worker.protocol import Capabilities, Chat, FunctionCall, ImagePart, JsonSchema, Message, TextPart

pytestmark = pytest.mark.everyday

PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
SWITCH = Capabilities(thinking=True, thinking_switch=True, thinking_levels=False)


def parsed(*turns: Any, **more: Any) -> Any:
    messages = [{"role": "user", "content": turn} if isinstance(turn, str) else turn for turn in turns]
    request, _ = Messages().parse({"model": "m", "max_tokens": 9, "messages": messages or [user("hi")], **more})
    return request


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": [text(each) if isinstance(each, str) else each for each in content]}


def assistant(*content: Any) -> dict[str, Any]:
    return {**user(*content), "role": "assistant"}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


def result(content: Any, call_id: str = "t1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def chat_of(request: Any) -> Chat:
    [chat] = request.asks
    assert isinstance(chat, Chat)
    return chat


@pytest.mark.parametrize(
    ("turns", "more", "messages"),
    [
        (["hi"], {}, [Message("user", "hi")]),
        (["hi"], {"system": "Be kind."}, [Message("system", "Be kind."), Message("user", "hi")]),
        (
            ["hi"],
            {"system": [text("a"), text("b")]},
            [Message("system", [TextPart("a"), TextPart("b")]), Message("user", "hi")],
        ),
        ([user("a"), user("b")], {}, [Message("user", [TextPart("a"), TextPart("b")])]),
        (
            ["hi", {"role": "system", "content": "now"}, "ho"],
            {},
            [Message("user", "hi"), Message("system", "now"), Message("user", "ho")],
        ),
        (
            [
                "hi",
                assistant({"type": "thinking", "thinking": "hm", "signature": "s"}, "ok", CALL),
                user(result("3"), "and?"),
            ],
            {},
            [
                Message("user", "hi"),
                Message("assistant", "ok", reasoning="hm", calls=[FunctionCall("t1", "f", {"x": 1})]),
                Message("tool", "3", call_id="t1"),
                Message("user", "and?"),
            ],
        ),
        (
            [assistant({"type": "redacted_thinking", "data": "xyz"}, "yes"), "so"],
            {},
            [Message("assistant", "yes"), Message("user", "so")],
        ),
        (["hi", assistant()], {}, [Message("user", "hi")]),
        ([user("see", PIXEL)], {}, [Message("user", [TextPart("see"), ImagePart("data:image/png;base64,AA==")])]),
    ],
)
def test_turns_become_messages(turns: list[Any], more: dict[str, Any], messages: list[Message]) -> None:
    assert chat_of(parsed(*turns, **more)).messages == messages


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (result("3"), "3"),
        (result([text("a"), text("b")]), "a\nb"),
        (result(None), ""),
        (result("no such city", is_error=True), "Error:\nno such city"),
        (result("Error: no such city", is_error=True), "Error: no such city"),
        (result(None, is_error=True), "Error:"),
        (result([{"type": "document", "title": "T", "source": {"type": "text", "data": "body"}}]), "T\nbody"),
        (result([{"type": "search_result", "title": "T", "source": "s", "content": [text("found")]}]), "T\ns\nfound"),
    ],
)
def test_a_tool_result_is_the_text_that_the_model_reads(block: dict[str, Any], said: str) -> None:
    last = chat_of(parsed("hi", assistant(CALL), user(block))).messages[-1]
    assert (last.role, last.call_id, last.text) == ("tool", "t1", said)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ("auto", None, True)),
        ({"type": "auto"}, ("auto", None, True)),
        ({"type": "any", "disable_parallel_tool_use": True}, ("required", None, False)),
        ({"type": "tool", "name": "f"}, ("required", "f", True)),
        ({"type": "none"}, ("none", None, True)),
    ],
)
def test_tool_choice(choice: Any, expected: tuple[Any, ...]) -> None:
    chat = chat_of(parsed(tools=[TOOL], tool_choice=choice))
    assert (chat.tool_choice, chat.tool_name, chat.parallel_tool_calls) == expected


@pytest.mark.parametrize(
    ("body", "effort"),
    [
        ({}, None),
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "between_tools"}}, "none"),
        ({"thinking": {"type": "adaptive"}}, "medium"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "max"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 30000}}, "high"),
        ({"output_config": {"effort": "low"}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "reasoning_effort": "xhigh"}, "xhigh"),
    ],
)
def test_thinking_says_how_much_to_reason(body: dict[str, Any], effort: str | None) -> None:
    assert parsed(**body).said.reasoning_effort == effort


@pytest.mark.parametrize(
    ("body", "capabilities", "applied", "named"),
    [
        ({}, SWITCH, "none", []),
        ({}, Capabilities(thinking=True, thinking_switch=False, thinking_levels=False), None, []),
        ({}, Capabilities(), None, []),
        ({"thinking": {"type": "adaptive"}}, SWITCH, "medium", []),
        ({"thinking": {"type": "adaptive"}}, Capabilities(), "medium", []),
        (
            {"thinking": {"type": "adaptive"}},
            Capabilities(thinking=False, thinking_switch=False, thinking_levels=False),
            None,
            ["thinking"],
        ),
        (
            {"thinking": {"type": "disabled"}},
            Capabilities(thinking=False, thinking_switch=False, thinking_levels=False),
            None,
            [],
        ),
        (
            {"thinking": {"type": "disabled"}},
            Capabilities(thinking=True, thinking_switch=False, thinking_levels=False),
            None,
            ["thinking"],
        ),
        (
            {"thinking": {"type": "adaptive"}},
            Capabilities(thinking=True, thinking_switch=False, thinking_levels=False),
            None,
            [],
        ),
    ],
)
def test_a_wish_for_thinking_that_a_model_cannot_follow_is_named_and_no_error(
    body: dict[str, Any], capabilities: Capabilities, applied: str | None, named: list[str]
) -> None:
    suited, useless = parsed(**body).suited_to(capabilities)
    [chat], _ = suited.for_entry(Echo(backend="echo"))
    assert chat.template_options.get("reasoning_effort") == applied
    assert useless == named


def test_what_a_manifest_sets_comes_before_what_the_api_defines() -> None:
    entry = Echo(backend="echo", defaults=ChatParameters(reasoning_effort="high"))
    suited, _ = parsed().suited_to(SWITCH)
    [chat], _ = suited.for_entry(entry)
    assert chat.template_options["reasoning_effort"] == "high"


@pytest.mark.parametrize("body", [{"output_config": {"format": None}}, {"output_format": None}])
def test_a_form_is_a_json_schema(body: dict[str, Any]) -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    filled = {key: {"format": form} if key == "output_config" else form for key in body}
    assert chat_of(parsed(**filled)).form == JsonSchema('{"type": "object"}')


def test_parameters_have_anthropics_names_or_else_openais() -> None:
    said = parsed(stop_sequences=["a", ""], temperature=0.5, top_k=3, min_p=0.1, top_p=0).said
    assert (said.max_tokens, said.stop, said.temperature, said.top_k, said.min_p) == (9, ["a"], 0.5, 3, 0.1)
    assert said.top_p is not None
    assert 0 < said.top_p < 0.001


@pytest.mark.parametrize(
    ("body", "ignored"),
    [
        ({"metadata": {"user_id": "u"}, "service_tier": "auto", "cache_control": {"type": "ephemeral"}}, []),
        ({"mcp_servers": [{"url": "https://mcp.example"}]}, ["mcp_servers"]),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, ["tools[0] (web_search_20250305)"]),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, ["thinking.budget_tokens"]),
        (
            {"messages": [user("a"), assistant({"type": "server_tool_use", "id": "s"}, "b"), user("c")]},
            ["messages[1].content[0] (server_tool_use)"],
        ),
        ({"system": [text("x-anthropic-billing-header: cc=1"), text("Be kind.")]}, ["system[0]"]),
        ({"tools": [{**TOOL, "defer_loading": True}]}, ["tools[0].defer_loading"]),
    ],
)
def test_what_has_no_effect_is_named(body: dict[str, Any], ignored: list[str]) -> None:
    assert list(parsed(**body).ignored) == ignored


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [user({"type": "container_upload", "file_id": "f"})]}, "messages[0].content[0].type"),
        ({"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
        (
            {"messages": [user({**PIXEL, "source": {"type": "file", "file_id": "f"}})]},
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": [user({"type": "document", "source": {"type": "base64", "data": "AA=="}})]},
            "messages[0].content[0].source.type",
        ),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"thinking": {"type": "wild"}}, "thinking.type"),
        ({"temperature": 7}, "temperature"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"stop_sequences": "END"}, "stop_sequences"),
    ],
)
def test_a_wrong_body_names_the_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(**body)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"messages": [user("hi"), assistant(CALL)]}, "messages"),
        ({"messages": [user(result("3", call_id="nobody"))]}, "messages[0].tool_call_id"),
    ],
)
def test_what_no_dialect_may_ask_is_refused_in_the_clients_words(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(**body).check()
    assert refused.value.param == param


def test_an_image_for_a_text_model_is_refused_where_the_client_wrote_it() -> None:
    request = parsed("hi", assistant(CALL), user(result([PIXEL])), system="Be kind.")
    with pytest.raises(InvalidRequest) as refused:
        request.honoured_by(Echo(backend="echo"))
    assert (refused.value.param, refused.value.reply_code) == (
        "messages[2].content[0].content[0].type",
        "unsupported_content",
    )


def test_the_last_assistant_message_is_continued() -> None:
    assert chat_of(parsed("hi", assistant("The answer is"))).continues
    assert not chat_of(parsed("hi")).continues
    assert "continue_final_message" in TEXT
