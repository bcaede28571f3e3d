"""Ollama's bodies as engines get them: conversation, tools and parameters; and the lines of replies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localapi.api.keep_alive import keep_alive_seconds
from localapi.api.ollama.text import OllamaChat, OllamaChatPart, OllamaGenerate, OllamaGeneratePart, OllamaReply
from localapi.backends.options import FOREVER
from localapi.errors import InvalidRequest, ModelUnavailable
from localapi.runtime.progress import Progress
from localapi.runtime.registry import Registry
from localapi.worker.protocol import (
    Chat,
    Complete,
    Delta,
    Ended,
    Event,
    Finished,
    FunctionCall,
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    TextPart,
    TokenLogprob,
    ToolArguments,
    ToolStart,
)

pytestmark = pytest.mark.everyday

HI = [{"role": "user", "content": "hi"}]
CALL = {"function": {"name": "f", "arguments": {"x": 1}}}
OTHER = {"function": {"name": "g", "arguments": {}}}


def chat(**body: Any) -> Any:
    request, _ = OllamaChat(Registry()).parse({"model": "m", "messages": HI, **body})
    request.check()
    return request


def generate(**body: Any) -> Any:
    request, _ = OllamaGenerate(Registry()).parse({"model": "m", "prompt": "hi", **body})
    request.check()
    return request


@pytest.mark.parametrize(
    ("turns", "messages"),
    [
        (HI, [Message("user", "hi")]),
        (
            [*HI, {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL, OTHER]},
             {"role": "tool", "content": "2", "tool_name": "g"}, {"role": "tool", "content": "1"}],
            [
                Message("user", "hi"),
                Message("assistant", "", reasoning="hm",
                        calls=[FunctionCall("call_1_0", "f", {"x": 1}), FunctionCall("call_1_1", "g", {})]),
                Message("tool", "2", name="g", call_id="call_1_1"),
                Message("tool", "1", call_id="call_1_0"),
            ],
        ),
        (
            [*HI, {"role": "assistant", "tool_calls": [{**CALL, "id": "a"}]},
             {"role": "tool", "content": "1", "tool_call_id": "a"}],
            [Message("user", "hi"), Message("assistant", "", calls=[FunctionCall("a", "f", {"x": 1})]),
             Message("tool", "1", call_id="a")],
        ),
        (
            [{"role": "user", "content": "see", "images": ["/9j/AAAA"]}],
            [Message("user", [ImagePart("data:image/jpeg;base64,/9j/AAAA"), TextPart("see")])],
        ),
    ],
)  # fmt: skip
def test_turns_become_messages(turns: list[Any], messages: list[Message]) -> None:
    [ask] = chat(messages=turns).asks
    assert ask.messages == messages


def test_options_have_ollamas_names_and_others_are_named() -> None:
    options = {
        "temperature": 1, "top_k": 5, "num_predict": 7, "repeat_penalty": 1.1, "stop": ["x"], "num_ctx": 9, "seed": 3,
    }  # fmt: skip
    request = chat(options=options, template="no")
    said = request.said
    assert (said.temperature, said.top_k, said.max_tokens, said.repetition_penalty) == (1, 5, 7, 1.1)
    assert (said.stop, said.seed) == (["x"], 3)
    assert sorted(request.ignored) == ["options.num_ctx", "template"]
    assert chat(options={"num_predict": -1}).said.max_tokens is None
    hot = chat(options={"temperature": 4})
    assert (hot.said.temperature, hot.ignored) == (2, ["options.temperature"])
    floats = chat(options={"top_k": 40.0, "seed": 1.0, "num_predict": 10.0}).said
    assert (floats.top_k, floats.seed, floats.max_tokens) == (40, 1, 10)
    assert chat(options={"num_predict": -2, "stop": []}).said.max_tokens is None


@pytest.mark.parametrize(
    ("think", "effort"), [(True, "medium"), (False, "none"), ("low", "low"), ("max", "max"), (None, None), ("", None)]
)
def test_think_says_how_much_to_reason(think: Any, effort: str | None) -> None:
    assert chat(think=think).said.reasoning_effort == effort


def test_formats() -> None:
    assert chat(format="json").asks[0].form == JsonObject()
    assert chat(format={"type": "object"}).asks[0].form == JsonSchema('{"type": "object"}', closed=True)
    assert chat(format="").asks[0].form is None
    assert generate(format="json", raw=True).asks[0].form == JsonObject()


def test_a_prompt_is_a_conversation_unless_it_is_raw() -> None:
    [ask] = generate(system="Be kind.").asks
    assert isinstance(ask, Chat)
    assert ask.messages == [Message("system", "Be kind."), Message("user", "hi")]
    [raw] = generate(raw=True, logprobs=True, top_logprobs=2).asks
    assert isinstance(raw, Complete)
    assert (raw.prompt, raw.top_logprobs) == ("hi", 2)


def test_nothing_to_answer_loads_the_model() -> None:
    assert list(chat(messages=[]).asks) == []
    assert list(generate(prompt="", keep_alive=0).asks) == []
    assert generate(prompt="", keep_alive=0).keep_alive == 0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (0, 0), (300, 300), (1.5, 1.5), (-1, FOREVER), ("5m", 300), ("1h30m", 5400), ("300", 300), ("-1", FOREVER),
        ("-1m", FOREVER), ("0", 0), ("250ms", 0.25), ("0s", 0),
    ],
)  # fmt: skip
def test_keep_alive(said: Any, seconds: float) -> None:
    assert keep_alive_seconds(said) == seconds
    assert chat(keep_alive=said).keep_alive == seconds


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1]}, "context"),
        ({"raw": True, "images": ["AAAA"]}, "images"),
        ({"images": ["not base64!"]}, "images[0]"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"think": "much"}, "think"),
        ({"format": "yaml"}, "format"),
        ({"options": {"temperature": -1}}, "options.temperature"),
        ({"options": {"repeat_penalty": -1}}, "options.repeat_penalty"),
        ({"options": {"num_predict": "many"}}, "options.num_predict"),
        ({"options": {"top_k": 40.5}}, "options.top_k"),
        ({"prompt": 7}, "prompt"),
    ],
)
def test_what_is_wrong_or_not_supported_is_refused_where_the_client_wrote_it(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        generate(**body)
    assert refused.value.param == param


def lines(*events: Event) -> list[Any]:
    reply = OllamaReply(OllamaChatPart, None)
    reply.model = "m"
    sent = b"".join(part for event in events for part in reply.render(event)) + reply.end()
    return [json.loads(line) for line in sent.splitlines()]


def test_calls_come_whole_and_the_last_line_has_counts_and_times() -> None:
    usage = Finished(1, 10, 7, load_seconds=1.0, prompt_seconds=0.5, answer_seconds=0.25)
    found = lines(
        Delta(1, "hm", reasoning=True),
        Delta(1, "so", logprobs=[TokenLogprob(b"so", -0.5)]),
        ToolStart(1, 0, 0, "c", "f"), ToolArguments(1, 0, 0, '{"x":'), ToolArguments(1, 0, 0, " 1}"),
        ToolStart(1, 0, 1, "d", "g"), ToolArguments(1, 0, 1, "not JSON"),
        Ended(1, 0, "tool_calls"), usage,
    )  # fmt: skip
    assert [line["message"] for line in found] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "so"},
        {"role": "assistant", "content": "",
         "tool_calls": [{"id": "c", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}}]},
        {"role": "assistant", "content": "",
         "tool_calls": [{"id": "d", "function": {"index": 1, "name": "g", "arguments": {"arguments": "not JSON"}}}]},
        {"role": "assistant", "content": ""},
    ]  # fmt: skip
    assert found[1]["logprobs"] == [{"token": "so", "logprob": -0.5, "bytes": [115, 111], "top_logprobs": []}]
    last = found[-1]
    assert (last["done"], last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == (True, "stop", 10, 7)
    assert last["total_duration"] == 1_750_000_000
    assert (last["load_duration"], last["eval_duration"]) == (1_000_000_000, 250_000_000)
    assert not any(line["done"] for line in found[:-1])


@pytest.mark.parametrize("shape", [OllamaChatPart, OllamaGeneratePart])
def test_each_piece_of_text_is_a_line_like_the_others(shape: type[OllamaChatPart | OllamaGeneratePart]) -> None:
    reply = OllamaReply(shape, None)
    reply.model = 'a "name"'
    pieces = ['"', "\\n", "é ", "\n", "\u2028"]
    tokens = [TokenLogprob(b"x", -0.5)]
    events = [*(Delta(1, each) for each in pieces), Delta(1, "x", logprobs=tokens)]
    *texts, other = [json.loads(line) for event in events for line in reply.render(event)]
    assert [each["message"]["content"] if shape is OllamaChatPart else each["response"] for each in texts] == pieces
    assert other.pop("logprobs")
    assert {(tuple(each), each["model"], each["done"]) for each in [*texts, other]} == {
        (tuple(other), 'a "name"', False)
    }


def test_a_wait_sends_what_no_client_sees_and_an_error_is_the_last_line() -> None:
    reply = OllamaReply(OllamaChatPart, None)
    assert reply.progress(Progress("loading", "m")).strip() == b""
    assert json.loads(reply.error(ModelUnavailable("gone"))) == {"error": "gone"}


def test_what_open_webui_sends_is_taken() -> None:
    """Open WebUI 0.12: calls have an index beside their id, results an id; settings may all be floats."""
    call = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": {"x": 1}}}
    turns = [
        *HI, {"role": "assistant", "tool_calls": [call], "content": ""},
        {"role": "tool", "content": "2", "tool_call_id": "call_1"},
    ]  # fmt: skip
    options = {"temperature": 1, "top_k": 40.0, "num_ctx": 2048, "mirostat": 0, "use_mmap": True, "stop": ["x"]}
    request = chat(messages=turns, options=options, keep_alive=300, metadata={"chat_id": "a"}, stream=True)
    [asked] = request.asks
    assert [message.call_id for message in asked.messages] == [None, None, "call_1"]
    assert sorted(request.ignored) == ["metadata", "options.mirostat", "options.num_ctx", "options.use_mmap"]
    assert generate(prompt="", keep_alive=0).keep_alive == 0


def test_what_home_assistant_sends_is_taken() -> None:
    """Home Assistant: results of several calls have neither ids nor names, and times end in s."""
    turns = [
        {"role": "system", "content": "You are a voice assistant."}, {**HI[0], "images": []},
        {"role": "assistant", "content": None, "thinking": "hm", "tool_calls": [CALL, OTHER]},
        {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"},
    ]  # fmt: skip
    request = chat(messages=turns, options={"num_ctx": 8192}, keep_alive="-1s", think=False, format=None)
    [asked] = request.asks
    first, second = (call.id for call in asked.messages[2].calls)
    assert [message.call_id for message in asked.messages[3:]] == [first, second]
    assert request.keep_alive == FOREVER
    assert request.ignored == ["options.num_ctx"]
