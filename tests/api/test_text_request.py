"""What a client sets, what the manifest sets, and which of them applies."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from localapi.api.dialect import Dialect, TextAnswer
from localapi.api.openai.chat import OpenAIChat
from localapi.api.openai.completions import OpenAICompletions
from localapi.backends.echo import Echo
from localapi.backends.parameters import ChatParameters
from localapi.http import request_context
from localapi.http.generation import begin
from localapi.kinds import CHAT
from localapi.observability.counters import Counters

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
        resolve=lambda *_: SimpleNamespace(id="m", options=options(locked={"max_tokens": 3})),
        answering=contextlib.nullcontext,
    )
    request, reply = OpenAIChat().parse({**HELLO, "max_tokens": 50, "stream": True})
    answer = TextAnswer(begin(registry, "m", CHAT), request, reply)
    monkeypatch.setattr(answer.generation, "stream", _at_once)
    assert (await answer.response()).headers["x-locked-params"] == "max_tokens"


async def _at_once(*_: Any, **__: Any) -> Any:
    return SimpleNamespace(headers={})
