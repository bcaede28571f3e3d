"""`POST /v1/chat/completions`: one conversation, answered whole or as server-sent events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from quart import Blueprint, Response

from localapi.api.openai.chat_request import ChatRequest, parse_chat
from localapi.api.openai.choices import ChatChoice, Growth, chunk_choice, usage
from localapi.http import body
from localapi.http.generation import FORM_PRIME_SECONDS, PRIME_SECONDS, Generation
from localapi.http.replies import json_reply
from localapi.kinds.chat import CHAT, chat_options
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Chat, Delta, Ended, Event, Finished, ToolArguments, ToolStart


def routes(registry: Registry) -> Blueprint:
    """The endpoint."""
    blueprint = Blueprint("chat", __name__)

    @blueprint.post("/v1/chat/completions")
    async def create_chat_completion() -> Response:
        request, ignored = parse_chat(await body.read_object())
        completion = ChatCompletion(registry, request)
        reply = await completion.stream() if request.stream else await completion.whole()
        body.name_relaxed(completion.relaxed, reply)
        return body.name_locked(completion.overruled, body.name_ignored(ignored, reply))

    return blueprint


@dataclass
class ChatCompletion:
    """One reply."""

    registry: Registry
    request: ChatRequest
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))
    overruled: list[str] = field(default_factory=list)
    """Parameters that the entry's locks set otherwise."""

    def __post_init__(self) -> None:
        self._generation = Generation(self.registry, self.request.model, self._requests_for, CHAT)
        # Also where the stream's headers go out before there is a lease.
        self.overruled = self.request.overruled(chat_options(self._generation.entry.options))
        self._begun: set[int] = set()

    @property
    def relaxed(self) -> list[str]:
        """Where the request asks more of the answer's form than is kept."""
        return self._generation.relaxed

    def _requests_for(self, lease: Lease) -> list[Chat]:
        chat, self.overruled = self.request.to_chat(chat_options(lease.entry.options))
        return [chat]

    async def whole(self) -> Response:
        """The reply when all is known."""
        choices = [ChatChoice(index) for index in range(self.request.n)]
        counted: dict[str, Any] = {}
        async with aclosing(self._generation.events()) as events:
            async for item in events:
                if isinstance(item, Delta | ToolStart | ToolArguments | Ended):
                    choices[item.choice].add(item)
                elif isinstance(item, Finished):
                    counted = usage(item)
        reply = {"choices": [choice.whole() for choice in choices], "usage": counted}
        return json_reply({**self._frame("chat.completion"), **reply})

    async def stream(self) -> Response:
        """The reply in chunks."""
        seconds = FORM_PRIME_SECONDS if self.request.may_be_relaxed else PRIME_SECONDS
        return await self._generation.stream(self._chunks, prime_seconds=seconds)

    def _chunks(self, item: Event) -> Iterator[dict[str, Any]]:
        """What one event sends: the role with an answer's first, usage with the last where it was asked for."""
        match item:
            case Delta() | ToolStart() | ToolArguments() | Ended():
                if item.choice not in self._begun:
                    self._begun.add(item.choice)
                    yield self._chunk(Delta(item.id, "", item.choice), role="assistant")
                yield self._chunk(item)
            case Finished() if self.request.include_usage:
                yield {**self._frame("chat.completion.chunk"), "choices": [], "usage": usage(item)}

    def _chunk(self, item: Growth, **more: str) -> dict[str, Any]:
        choice = chunk_choice(item)
        choice["delta"] = {**more, **choice["delta"]}
        return {**self._frame("chat.completion.chunk"), "choices": [choice]}

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self._generation.entry.id}
