"""`truncation: auto`: omit the oldest turns of a conversation that exceeds the model's context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from localapi.api.dialect import Exchange
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai.responses.items import INSTRUCTING
from localapi.kinds.chat import chat_options
from localapi.worker.protocol import Chat, Message

Begin = Callable[[NeutralRequest], Exchange]


async def fitting(request: NeutralRequest, begin: Begin) -> NeutralRequest:
    """Return the request with as many of its last turns as fit. Initial instructions are kept.

    `begin` starts an exchange whose prompt is counted and not answered. Raise ApiError.
    """
    [chat] = request.asks
    assert isinstance(chat, Chat)  # noqa: S101  # every response is one
    if chat_options(begin(request).generation.expected.options).forwards:
        return replace(request, ignored=[*request.ignored, "truncation"])  # other servers may be unable to count
    if await _fits(request, begin):
        return request
    starts = [at for at, message in enumerate(chat.messages) if message.role == "user"]
    fits, too_few = len(starts) - 1, 0  # numbers of turns to omit
    while too_few + 1 < fits:
        middle = (too_few + fits) // 2
        if await _fits(_from(request, chat, starts[middle]), begin):
            fits = middle
        else:
            too_few = middle
    return _from(request, chat, starts[fits]) if fits > 0 else request


def _from(request: NeutralRequest, chat: Chat, start: int) -> NeutralRequest:
    """Return the request with its instructions and the messages from this one on."""
    head: list[Message] = []
    for message in chat.messages[:start]:
        if message.role not in INSTRUCTING:
            break
        head.append(message)
    shorter = msgspec.structs.replace(chat, messages=[*head, *chat.messages[start:]])
    left_out = f"truncation ({start - len(head)} messages omitted)"
    return replace(request, asks=[shorter], ignored=[*request.ignored, left_out])


async def _fits(request: NeutralRequest, begin: Begin) -> bool:
    """Return True if the prompt and the longest response fit the context, or if it is unknown."""
    exchange = begin(request)
    tokens = len(await exchange.prompt_tokens())
    generation = exchange.generation
    loaded = generation.registry.instance(generation.expected.id).loaded
    context = loaded.context_length if loaded else None
    if context is None:
        return True
    answer = min(request.said.max_tokens or 1, context // 2)
    return tokens + answer <= context
