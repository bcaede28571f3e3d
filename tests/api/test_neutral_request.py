"""Parameters of the client and of the manifest, and which of them apply."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from localapi.api.dialect import Dialect, Exchange
from localapi.api.openai.chat import OpenAIChat
from localapi.api.openai.completions import OpenAICompletions
from localapi.backends.echo import Echo
from localapi.backends.parameters import ChatParameters
from localapi.errors import InvalidRequest
from localapi.http import request_context
from localapi.http.generation import begin
from localapi.kinds import CHAT
from localapi.observability.counters import Counters
from localapi.worker.protocol import Chat, Message, Sampling, TextPart

pytestmark = pytest.mark.everyday

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def options(defaults: Mapping[str, Any] | None = None, locked: Mapping[str, Any] | None = None) -> Echo:
    return Echo(
        backend="echo",
        defaults=ChatParameters.model_validate(defaults or {}),
        locked=ChatParameters.model_validate(locked or {}),
    )


@pytest.mark.parametrize(
    ("said", "entry", "applied"),
    [
        ({}, options(), None),
        ({"max_tokens": 5}, options(), 5),
        ({"max_completion_tokens": 5, "max_tokens": 9}, options(), 5),
        ({}, options({"max_tokens": 7}), 7),
        ({"max_tokens": 5}, options({"max_tokens": 7}), 5),
        ({"max_tokens": 5}, options({"max_tokens": 7}, {"max_tokens": 3}), 3),
        ({"max_completion_tokens": 10**30}, options(), 2**63 - 1),
    ],
)
def test_locks_come_before_what_a_client_sets_and_that_before_defaults(
    said: dict[str, Any], entry: Echo, applied: int | None
) -> None:
    request, _ = OpenAIChat().parse({**HELLO, **said})
    [chat], _ = request.for_entry(entry)
    assert chat.max_tokens == applied


@pytest.mark.parametrize(("entry", "applied"), [(options(), 16), (options({"max_tokens": 7}), 7)])
def test_what_the_api_defines_applies_if_nobody_sets_it(entry: Echo, applied: int) -> None:
    request, _ = OpenAICompletions().parse({"model": "m", "prompt": "x"})
    assert [each.max_tokens for each in request.for_entry(entry)[0]] == [applied]


@pytest.mark.parametrize(
    ("dialect", "body", "overruled"),
    [
        (OpenAIChat(), {**HELLO, "max_completion_tokens": 50}, ["max_completion_tokens"]),
        (OpenAIChat(), {**HELLO, "max_tokens": 50, "stream": True}, ["max_tokens"]),
        (OpenAIChat(), {**HELLO, "max_tokens": 3}, []),
        (OpenAICompletions(), {"model": "m", "prompt": "x", "max_tokens": 50}, ["max_tokens"]),
        (OpenAICompletions(), {"model": "m", "prompt": "x"}, []),
    ],
)
def test_a_lock_is_known_before_there_is_a_lease(dialect: Dialect, body: dict[str, Any], overruled: list[str]) -> None:
    request, _ = dialect.parse(body)
    assert request.for_entry(options(locked={"max_tokens": 3}))[1] == overruled


async def test_a_stream_whose_headers_are_sent_before_the_lease_names_what_a_lock_overrules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request_context.begin(Counters())
    registry: Any = SimpleNamespace(
        resolve=lambda *_: SimpleNamespace(
            id="m", model_id="m", options=options(locked={"max_tokens": 3}), max_keep_alive=float("inf")
        ),
        answering=contextlib.nullcontext,
        instance=lambda _: SimpleNamespace(loaded=None),
        entries={},
    )
    request, reply = OpenAIChat().parse({**HELLO, "max_tokens": 50, "stream": True})
    answer = Exchange(begin(registry, "m", CHAT), request, reply)
    monkeypatch.setattr(answer.generation, "stream", _at_once)
    assert (await answer.response()).headers["x-locked-params"] == "max_tokens"


async def _at_once(*_: Any, **__: Any) -> Any:
    return SimpleNamespace(headers={})


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
FORM = {"response_format": {"type": "json_object"}}


def seen(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, *parts]}]}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (FORM, "response_format", "unsupported_parameter"),
        ({"regex": "a+"}, "regex", "unsupported_parameter"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
        (seen(IMAGE), "messages[0].content[1].type", "unsupported_content"),
        (seen(AUDIO), "messages[0].content[1].type", "unsupported_content"),
    ],
)
def test_what_a_backend_does_not_honour_is_refused_with_its_name(body: dict[str, Any], param: str, code: str) -> None:
    request, _ = OpenAIChat().parse({**HELLO, **body})
    with pytest.raises(InvalidRequest) as refused:
        request.honoured_by(options())
    assert (refused.value.param, refused.value.reply_code) == (param, code)


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": 1, "seed": 2, "n": 2, "stop": "x", "logprobs": True},
        {"tools": TOOLS},
        {"tools": TOOLS, "tool_choice": "none"},
        {"response_format": {"type": "text"}},
        {"continue_final_message": True, "messages": [{"role": "assistant", "content": "Well"}]},
    ],
)
def test_what_it_honours_passes(body: dict[str, Any]) -> None:
    request, _ = OpenAIChat().parse({**HELLO, **body})
    assert request.honoured_by(options()) == (request, [])


class Bare(Echo):
    """A backend that honours one parameter."""

    honours = frozenset({"max_tokens"})


@pytest.mark.parametrize("option", ["defaults", "locked"])
def test_a_manifest_cannot_set_what_the_backend_does_not_honour(option: str) -> None:
    with pytest.raises(ValidationError, match="temperature") as refused:
        Bare.model_validate({"backend": "echo", option: {"temperature": 0.5, "max_tokens": 5}})
    assert refused.value.errors()[0]["loc"] == (option,)


def test_a_manifest_can_have_it_reported_and_left_out() -> None:
    entry = Bare(backend="echo", unsupported="warn")
    body = {**seen(IMAGE), "temperature": 1, "max_tokens": 5, "n": 2, "seed": 1, "tools": TOOLS, **FORM}
    request, _ = OpenAIChat().parse({**HELLO, **body})
    honoured, left_out = request.honoured_by(entry)
    [chat], _ = honoured.for_entry(entry)
    assert left_out == ["temperature", "seed", "response_format", "n", "tools", "messages[0].content[1].type"]
    assert isinstance(chat, Chat)
    assert (chat.form, chat.n, chat.tools, chat.max_tokens) == (None, 1, [], 5)
    assert chat.sampling == Sampling()
    assert chat.messages == [Message("user", [TextPart("hi")])]


def test_parameters_stay_unset_until_somebody_sets_them() -> None:
    request, _ = OpenAIChat().parse({**HELLO, "top_p": 0.5})
    [chat], _ = request.for_entry(options({"temperature": 0.3}))
    assert chat.sampling == Sampling(temperature=0.3, top_p=0.5)
    assert chat.max_tokens is None
