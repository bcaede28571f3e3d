"""Requests to a model on another server and its replies, unknown fields included."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from localapi.api.answers import collected
from localapi.api.dialect import Reply
from localapi.api.openai.chat import OpenAIChat
from localapi.api.openai.completions import OpenAICompletions
from localapi.api.openai.forwarded_speech import forwarded_body
from localapi.backends.echo import Echo
from localapi.backends.openai import OpenAI, OpenAISpeech
from localapi.errors import InvalidRequest
from localapi.worker.protocol import Addition, Delta, Ended, Event, Finished, TokenLogprob

pytestmark = pytest.mark.everyday

URL = "http://127.0.0.1:1"
HI = [{"role": "user", "content": "Hi"}]
ECHO = Echo.model_validate({"backend": "echo"})


def cloud(**options: Any) -> OpenAI:
    return OpenAI.model_validate({"backend": "openai", "url": URL, **options})


STRANGE: dict[str, dict[str, Any]] = {
    "a part of another type": {"messages": [{"role": "user", "content": [{"type": "file", "file": {"id": "x"}}]}]},
    "a role of another API": {"messages": [{"role": "narrator", "content": "Once"}]},
    "a parameter out of our bounds": {"messages": HI, "temperature": 7},
    "a tool of another type": {"messages": HI, "tools": [{"type": "browser", "browser": {"name": "x"}}]},
    "a parameter that is not supported here": {"messages": HI, "web_search_options": {}},
    "nothing strange": {"messages": HI, "store": True, "zap": 1},
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_chat_is_forwarded_as_the_client_wrote_it(name: str) -> None:
    body = {"model": "cloud", **STRANGE[name]}
    request, _ = OpenAIChat().parse(body)
    request.check()
    honoured, unsupported = request.honoured_by(cloud())
    (chat,), overruled = honoured.for_entry(cloud())
    assert (chat.original, unsupported, overruled) == (body, [], [])


@pytest.mark.parametrize("name", [name for name in STRANGE if name != "nothing strange"])
def test_a_model_of_this_server_still_refuses_it(name: str) -> None:
    request, _ = OpenAIChat().parse({"model": "parrot", **STRANGE[name]})
    with pytest.raises(InvalidRequest) as raised:
        request.honoured_by(ECHO)
    assert raised.value.param


def test_a_worker_is_not_sent_the_body() -> None:
    request, _ = OpenAIChat().parse({"model": "parrot", "messages": HI})
    (chat,), _ = request.honoured_by(ECHO)[0].for_entry(ECHO)
    assert chat.original is None


@pytest.mark.parametrize("body", [{"messages": HI}, {"model": "x", "messages": []}, {"model": 5, "messages": HI}])
def test_what_nobody_can_read_is_refused_at_once(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        OpenAIChat().parse(body)


def test_the_manifest_comes_before_the_client_or_after() -> None:
    options = cloud(defaults={"temperature": 0.5, "top_k": 3}, locked={"max_tokens": 5})
    request, _ = OpenAIChat().parse({"model": "x", "messages": HI, "temperature": 1, "max_completion_tokens": 9})
    (chat,), overruled = request.for_entry(options)
    assert chat.original == {"model": "x", "messages": HI, "temperature": 1, "top_k": 3, "max_tokens": 5}
    assert overruled == ["max_completion_tokens"]


def test_a_completion_gets_no_limit_that_nobody_set_and_each_prompt_its_own_request() -> None:
    request, _ = OpenAICompletions().parse({"model": "x", "prompt": ["a", "b"], "suffix": ""})
    asks, _ = request.for_entry(cloud())
    assert [ask.original for ask in asks] == [{"model": "x", "prompt": each, "suffix": ""} for each in "ab"]


def rendered(reply: Reply, *events: Event) -> list[Any]:
    parts = [part for event in events for part in reply.render(event)]
    return [msgspec.json.decode(part.removeprefix(b"data: ")) for part in parts]


def test_a_stream_carries_what_only_the_other_server_knows() -> None:
    _, reply = OpenAIChat().parse({"model": "x", "messages": HI, "stream_options": {"include_usage": True}})
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "cost": 3, "prompt_tokens_details": {"audio_tokens": 4}}
    chunks = rendered(
        reply,
        Addition(1, 0, "reply", {"system_fingerprint": "fp"}),
        Delta(1, "No", refusal=True, logprobs=[TokenLogprob(b"No", -1.0)]),
        Addition(1, 0, "message", {"annotations": ["a"]}),
        Addition(1, 0, "choice", {"stop_reason": 7}),
        Ended(1, 0, "content_filter"),
        Finished(1, 1, 2, reported=usage),
    )
    role, named, refusal, annotated, stopped, ended, counted = chunks
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert named["system_fingerprint"] == "fp"
    assert refusal["choices"][0]["delta"] == {"refusal": "No"}
    assert refusal["choices"][0]["logprobs"]["refusal"][0]["logprob"] == -1.0
    assert annotated["choices"][0]["delta"] == {"annotations": ["a"]}
    assert stopped["choices"][0]["stop_reason"] == 7
    assert ended["choices"][0]["finish_reason"] == "content_filter"
    assert counted["usage"]["cost"] == 3
    assert counted["usage"]["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 4}


async def test_so_does_a_whole_reply_and_tokens_that_were_not_counted_are_null() -> None:
    async def events() -> AsyncGenerator[Event, None]:
        yield Addition(1, 0, "reply", {"service_tier": "x"})
        yield Delta(1, "Hi")
        yield Addition(1, 0, "message", {"audio": {"id": "a"}})
        yield Addition(1, 0, "choice", {"stop_reason": 7})
        yield Ended(1, 0, "stop")
        yield Finished(1, 0, 0, counted=False)

    _, reply = OpenAIChat().parse({"model": "x", "messages": HI})
    whole: Any = msgspec.to_builtins(reply.whole(*await collected(events(), 1)))
    choice = whole["choices"][0]
    assert (whole["service_tier"], whole["usage"], choice["stop_reason"]) == ("x", None, 7)
    assert (choice["message"]["content"], choice["message"]["audio"]) == ("Hi", {"id": "a"})


def test_speech_is_forwarded_with_the_voice_that_the_manifest_means() -> None:
    options = OpenAISpeech.model_validate(
        {
            "backend": "openai",
            "url": URL,
            "voices": {"amy": {"voice": "en-1", "speed": 0.9}},
            "defaults": {"voice": "amy", "response_format": "opus"},
        }
    )
    said = {"model": "x", "input": "Hi", "zap": 1}
    assert forwarded_body(said, options) == {**said, "voice": "en-1", "speed": 0.9, "response_format": "opus"}
    assert forwarded_body({**said, "voice": "bob", "speed": 2.0}, options) == {
        **said, "voice": "bob", "speed": 2.0, "response_format": "opus",
    }  # fmt: skip
