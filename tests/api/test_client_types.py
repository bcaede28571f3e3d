"""Replies of every dialect fit the types of its official client."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from ollama import ChatResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from localapi.http import request_context
from localapi.observability.counters import Counters
from tests.api.test_parity import CALLED, LIMITED, STOPPED, streamed, whole

TYPES: dict[str, tuple[Any, Any]] = {
    "openai": (ChatCompletion, ChatCompletionChunk),
    "responses": (Response, ResponseStreamEvent),
    "anthropic": (Message, RawMessageStreamEvent),
    "ollama": (ChatResponse, ChatResponse),
}
"""Of a whole reply, and of a part of a stream."""


@pytest.mark.parametrize("events", [CALLED, STOPPED, LIMITED], ids=["called", "stopped", "limited"])
@pytest.mark.parametrize("name", TYPES)
async def test_whole_replies_and_streams_fit(name: str, events: Any) -> None:
    request_context.begin(Counters())
    reply, part = (TypeAdapter(each) for each in TYPES[name])
    reply.validate_python(await whole(name, events))
    parts = [each for each in streamed(name, events) if each.get("type") != "ping"]
    assert parts
    for each in parts:
        part.validate_python(each)
