"""A reply names what a lock overruled, also where its headers go out before the model has loaded."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from localapi.api.openai.chat import ChatCompletion
from localapi.api.openai.chat_request import parse_chat
from localapi.api.openai.completions import CompletionRequest, TextCompletion
from localapi.backends.echo import Echo
from localapi.backends.parameters import ChatParameters
from localapi.http import request_context
from localapi.observability.counters import Counters

OPTIONS = Echo(backend="echo", locked=ChatParameters(max_tokens=3))
REGISTRY: Any = SimpleNamespace(
    resolve=lambda *_: SimpleNamespace(id="m", options=OPTIONS), answering=contextlib.nullcontext
)
"""Of one entry, which nothing is leased from."""


@pytest.fixture(autouse=True)
def request_scope() -> None:
    request_context.begin(Counters())


def test_chat_knows_it_before_there_is_a_lease() -> None:
    request, _ = parse_chat(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 50}
    )
    assert ChatCompletion(REGISTRY, request).overruled == ["max_completion_tokens"]


def test_completions_know_it_before_there_is_a_lease() -> None:
    request = CompletionRequest(model="m", prompt="x", max_tokens=50)
    assert TextCompletion(REGISTRY, request).overruled == ["max_tokens"]
